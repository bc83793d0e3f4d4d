"""How good a policy is: whole episodes in an environment of their own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs import ObservationError
from ..envs.masks import mask_row
from ..envs.wrappers import close_all, refuse_environment_in_use
from .episodes import (
    EvaluationResult,
    MaskedActing,
    Policy,
    act_function,
    empty_result,
    episode_seeds,
    run_episodes,
    step_limit,
)
from .interruption import EvaluationInterrupted, Interruption

if TYPE_CHECKING:
    from gymnasium import Env

    from ..rollout import InProcessSampler

    Environment: TypeAlias = str | Env[Any, Any] | Callable[[], Env[Any, Any]]

_END_SIGNAL = signal.SIGURG  # ends an evaluation in a worker; ignored by whoever does not expect it
_WATCH_SECONDS = 0.05  # between two looks whether an end was requested


def evaluate_policy(
    policy: Policy,
    env: Environment | None = None,
    episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int | None = None,
    interruption: Interruption | None = None,
) -> EvaluationResult:
    """Run whole episodes, and return what they returned.

    They run one after the other in this process. Where ``env`` is None and ``deterministic`` is True,
    an agent with worker processes shares the episodes out to its workers. Given a seed, the returns
    do not depend on the number of workers.

    Parameters
    ----------
    policy
        An agent (``predict(observation, deterministic=...)`` gives action and None), or a function
        from an observation to an action.
    env
        A Gymnasium id (``module:Id`` too), a function that makes an environment, or an
        environment. The first two are made here and closed at the end. An environment is used as
        it is and stays open; it must not be one that a training run is stepping. None takes what
        the agent's ``evaluation_environment()`` gives, or its ``env_name``; workers keep theirs for
        the next evaluation.
    episodes
        Number of episodes, n >= 1.
    deterministic
        True: the mode of the policy. False: a sample.
    seed
        Episode i is reset with a seed of its own drawn from ``seed`` and i, so that it starts
        alike whatever ran before. None: the environment's own choice.
    max_steps
        An episode is cut after so many steps, at least 1; what it returned until then counts, and
        the result tells how many were cut. None takes the largest of 10,000, the environment's own
        time limit (``spec.max_episode_steps``), and the policy's ``longest_episode`` of training,
        where it has one: an evaluation ends even if the policy walks into a wall for ever.
    interruption
        By whose ``request`` a signal handler can end the evaluation at once.

    Returns
    -------
    EvaluationResult
        ``returns`` (n,) float64, ``lengths`` (n,) int64, ``cut`` (n,) bool.

    Raises
    ------
    ValueError
        if a number is out of range, the environment is unknown, or a reward is NaN or infinite.
    TypeError
        if ``policy`` or ``env`` is none of the above.
    EnvironmentFailure
        If the environment breaks Gymnasium's interface, or a worker ended or hangs.
    EvaluationInterrupted
        (a ``KeyboardInterrupt``) if ``interruption`` was requested.
    """
    result = empty_result(episodes, seed, max_steps)
    seeds = dict(enumerate(episode_seeds(seed, episodes)))
    interruption = interruption or Interruption()
    sharing = None if env is not None else workers_of(policy, deterministic)
    if sharing is not None:
        return _run_in_workers(sharing, policy, seeds, max_steps, result, interruption)
    act = act_function(policy, deterministic)
    refuse_training_environment(policy, env)
    with (
        interruption.at_once(),
        opened(own_environment(policy) if env is None else env, policy) as environment,
    ):
        result = replace(result, max_steps=step_limit(max_steps, environment, policy))
        run_episodes(act, environment, seeds, result, _metric_names(policy))
    return result


def version_of(agent: object) -> int:
    """The version of the environments that an agent makes for evaluations; 0 where there is none.

    Parameters
    ----------
    agent
        The agent.
    """
    return int(getattr(getattr(agent, "environments", None), "version", 0))


def _metric_names(policy: object) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(getattr(policy, "config", None), "episode_metrics", ())
    return names


# ---- in worker processes


class _Workers(Protocol):
    """A sampler with worker processes."""

    n_workers: int

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""

    def map_groups(self, function: Any, arguments: Any = None, *, name: str = ...) -> list[Any]:
        """Call the function in every worker."""


@dataclass(frozen=True)
class _Share:
    """The episodes that one worker runs, and whose policy acts in them."""

    make: Any  # what `make_environment` takes
    parameters: npt.NDArray[Any]
    normalizer: Any  # None, or mean, variance, clip and epsilon
    seeds: dict[int, int | None]
    episodes: int  # of all workers
    max_steps: int | None
    longest_episode: int  # of training
    metric_names: tuple[str, ...] = ()
    version: int = 0  # of what `make` makes
    mask_source: str = "none"


def workers_of(agent: Any, deterministic: bool) -> _Workers | None:
    """Return the sampler whose workers run an agent's evaluations, or None.

    None too where actions are sampled: their random numbers are drawn in this process, one after the
    other.

    Parameters
    ----------
    agent
        The agent.
    deterministic
        Whether the mode of the policy is taken.
    """
    workers: _Workers | None = getattr(agent, "evaluation_workers", None)
    return workers if deterministic else None


def _run_in_workers(
    workers: _Workers,
    agent: Any,
    seeds: dict[int, int | None],
    max_steps: int | None,
    result: EvaluationResult,
    interruption: Interruption,
) -> EvaluationResult:
    """Deal the episodes out to the workers, and put their results together."""
    n, policy, source = workers.n_workers, agent.policy, own_environment(agent)
    shares = [
        _Share(
            make=source,
            parameters=policy.parameters,
            normalizer=policy.normalizer,
            seeds=dict(islice(seeds.items(), w, None, n)),
            episodes=len(seeds),
            max_steps=max_steps,
            longest_episode=int(getattr(agent, "longest_episode", 0)),
            metric_names=_metric_names(agent),
            version=version_of(agent),
            mask_source=agent.mask_source,
        )
        for w in range(n)
    ]
    with _passed_on(interruption, workers.worker_pids):
        parts = workers.map_groups(_run_share, shares, name="evaluation")
    if None in parts:
        raise EvaluationInterrupted("the evaluation was interrupted")
    for share, found in zip(shares, parts, strict=True):
        which = list(share.seeds)
        for name in ("returns", "lengths", "cut"):
            getattr(result, name)[which] = getattr(found, name)[which]
        for name, told in found.metrics.items():
            empty = np.full(len(seeds), np.nan)
            result.metrics.setdefault(name, empty)[which] = told[which]
    return replace(result, max_steps=max(found.max_steps for found in parts))


@contextmanager
def _passed_on(interruption: Interruption, pids: Sequence[int]) -> Iterator[None]:
    """While entered, send the signal that ends an evaluation to the workers once it is requested.

    It is sent again and again until the workers have answered, because a worker ignores it before
    and after its episodes.
    """
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_WATCH_SECONDS):
            if interruption.requested:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, _END_SIGNAL)

    watcher = threading.Thread(target=watch, name="trpo_fast evaluation watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _end_evaluation(number: int, frame: FrameType | None) -> None:
    signal.signal(_END_SIGNAL, signal.SIG_IGN)  # once is enough: the environment is being closed
    raise EvaluationInterrupted


def _run_share(sampler: InProcessSampler, share: _Share) -> EvaluationResult | None:
    """Run a worker's episodes, inside it, in an environment beside those that it trains in.

    Returns None if the parent has asked for an end.
    """
    if threading.current_thread() is not threading.main_thread():
        return _play_share(sampler, share)  # an actor, which no signal of the parent reaches
    try:
        before = signal.signal(_END_SIGNAL, _end_evaluation)
        try:
            return _play_share(sampler, share)
        finally:
            signal.signal(_END_SIGNAL, before)
    except EvaluationInterrupted:
        return None


def _play_share(sampler: InProcessSampler, share: _Share) -> EvaluationResult:
    result = empty_result(share.episodes, None, share.max_steps)
    if not share.seeds:
        return result
    policy: Any = sampler.policy
    encoder = sampler.observation_encoder
    to_env = sampler.action_adapter.step_converter(1, policy.dtype)
    policy.parameters = share.parameters
    if share.normalizer is None:
        policy.clear_normalizer()
    else:
        policy.set_normalizer(**vars(share.normalizer))

    def act(observation: Any, mask: Any) -> Any:
        sampler.show_life()
        row = None if mask is None else mask_row(policy.distribution, mask, share.mask_source)
        action = None
        if encoder.is_plain:
            action = policy.act_one(observation, deterministic=True, action_mask=row)
        if action is None:
            rows, _ = encoder.encode_any(observation)
            if not np.isfinite(rows).all():
                raise ObservationError("observation: expected finite numbers, got NaN or infinity")
            masks = None if row is None else row[np.newaxis]
            action = policy.act(rows, deterministic=True, action_masks=masks)
        return to_env(action)[0]

    with sampler.spare_environment(share.make, share.version) as environment:
        limit = max(share.longest_episode, step_limit(share.max_steps, environment))
        result = replace(result, max_steps=share.max_steps or limit)
        acting = MaskedActing(act, share.mask_source)
        run_episodes(acting, environment, share.seeds, result, share.metric_names)
    return result


# ---- environments


def refuse_training_environment(policy: object, env: object) -> None:
    """Raise if an agent would be evaluated in an environment that it trains in.

    Parameters
    ----------
    policy
        An agent, whose ``sampler`` has ``environments`` or a ``vector_env``; its ``predict``; or
        anything else.
    env
        What the user gave to evaluate in, or what was made of it.

    Raises
    ------
    ValueError
        If it is one of the agent's training environments, or wraps one, or is inside one.
    """
    agent = getattr(policy, "__self__", policy)  # whose method it is
    sampler = getattr(agent, "sampler", None)
    training = [*getattr(sampler, "environments", ()), getattr(sampler, "vector_env", None)]
    if env is None or isinstance(env, str):
        return
    refuse_environment_in_use(env, [other for other in training if other is not None])


def own_environment(agent: Any, **rendering: str) -> Environment:
    """Return what to evaluate an agent in: another environment like those that it was made for.

    Parameters
    ----------
    agent
        Has ``evaluation_environment()``, or an ``env_name``.
    **rendering
        ``render_mode``, where pictures are wanted.

    Raises
    ------
    TypeError
        If the agent has neither.
    """
    make = getattr(agent, "evaluation_environment", None)
    environment: Environment = make(**rendering) if make is not None else _own_name(agent)
    return environment


def _own_name(agent: Any) -> str:
    name = getattr(agent, "env_name", None)
    if not isinstance(name, str):
        raise TypeError(
            f"env: expected an environment, got None, and {type(agent).__name__} has no env_name; "
            "pass a Gymnasium id, an environment or a function that makes one"
        )
    return name


def _refuse_other_spaces(policy: object, env: Env[Any, Any]) -> None:
    """Raise ValueError if an agent cannot read the observations of an environment, or act in it."""
    agent = getattr(policy, "__self__", policy)
    sampler = getattr(agent, "sampler", None)
    for kind, part in (("observation", "observation_encoder"), ("action", "action_adapter")):
        known = getattr(getattr(sampler, part, None), "space", None)
        here = getattr(env, f"{kind}_space", None)
        if known is None or here is None or not _is_of_gymnasium(known):
            continue
        if (
            type(known) is not type(here)
            or known.shape != here.shape
            or _size(known) != _size(here)
        ):
            raise ValueError(
                f"env: expected the agent's {kind} space {known}, got {here}; evaluate in an "
                "environment like those of training"
            )


def _is_of_gymnasium(space: object) -> bool:
    return type(space).__module__.startswith("gymnasium.spaces")


def _size(space: Any) -> Any:
    """What of a space decides how many inputs or actions a policy has, beside its shape."""
    sizes = getattr(space, "nvec", getattr(space, "n", None))
    return sizes.tolist() if isinstance(sizes, np.ndarray) else sizes


@contextmanager
def opened(env: Environment, policy: object, **settings: Any) -> Iterator[Env[Any, Any]]:
    """Make an environment and close it at the end; one that exists already is left open.

    Parameters
    ----------
    env
        An id, an environment, or a callable that makes one.
    policy
        Who will play in it.
    **settings
        Keyword arguments of ``gymnasium.make``; used with an id only.

    Raises
    ------
    ValueError
        If what the callable returns is an environment that the policy trains in.
    """
    from ..envs import make_environment

    environment = (
        make_environment(env, **settings) if isinstance(env, str) else make_environment(env)
    )
    try:
        refuse_training_environment(policy, environment)
        _refuse_other_spaces(policy, environment)
        yield environment
    finally:
        if environment is not env:
            close_all([environment])
