"""How good a policy is: whole episodes in an environment of their own."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gymnasium import Env

    from ..rollout import InProcessSampler

    Environment: TypeAlias = str | Env[Any, Any] | Callable[[], Env[Any, Any]]

Frame: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), red green blue
_Encoder: TypeAlias = Callable[[Path, Iterator[Frame], float], None]

_LARGEST_RESET_SEED = 2**31  # every environment accepts seeds below it
_MOST_GIF_FPS = 50.0  # viewers slow down a GIF with shorter delays


class Predictor(Protocol):
    """Whatever acts: an agent, or anything with the ``predict`` of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]:
        """Return the environment's action for one observation, and None.

        Parameters
        ----------
        observation
            As the environment gives it.
        deterministic
            True: the mode of the policy. False: a sample.
        """


Policy: TypeAlias = Predictor | Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Returns and lengths of n episodes.

    The return of an episode is the plain sum of its rewards, neither discounted nor scaled.
    """

    returns: npt.NDArray[np.float64]
    """(n,) sum of the rewards of each episode."""

    lengths: npt.NDArray[np.int64]
    """(n,) steps of each episode."""

    @property
    def mean_return(self) -> float:
        """Mean of the returns."""
        return float(self.returns.mean())

    @property
    def std_return(self) -> float:
        """Standard deviation of the returns over episodes (divided by n, not n - 1)."""
        return float(self.returns.std())

    @property
    def mean_length(self) -> float:
        """Mean of the lengths, in steps."""
        return float(self.lengths.mean())

    def __str__(self) -> str:
        return (
            f"return {self.mean_return:,.2f} ± {self.std_return:,.2f} over {len(self.returns)} "
            f"episodes of {self.mean_length:,.1f} steps"
        )


def evaluate_policy(
    policy: Policy,
    env: Environment | None = None,
    episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int | None = None,
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
        An episode is cut after so many steps; None leaves that to the environment.

    Returns
    -------
    EvaluationResult
        ``returns`` (n,) float64, ``lengths`` (n,) int64.

    Raises
    ------
    ValueError
        if a number is out of range, the environment is unknown, or a reward is NaN or infinite.
    TypeError
        if ``policy`` or ``env`` is none of the above.
    EnvironmentFailure
        if a worker ended, or hangs.
    """
    result = empty_result(episodes, seed, max_steps)
    seeds = dict(enumerate(episode_seeds(seed, episodes)))
    sharing = None if env is not None else workers_of(policy, deterministic)
    if sharing is not None:
        _run_in_workers(sharing, policy, seeds, max_steps, result)
        return result
    act = act_function(policy, deterministic)
    with opened(own_environment(policy) if env is None else env) as environment:
        _run_episodes(act, environment, seeds, max_steps, result)
    return result


# ---- episodes


def _run_episodes(
    act: Callable[[Any], Any],
    env: Env[Any, Any],
    seeds: dict[int, int | None],
    max_steps: int | None,
    result: EvaluationResult,
) -> None:
    """Run these episodes, by their numbers, and write what they returned into the result."""
    for episode, seed in seeds.items():
        observation, _ = env.reset(seed=seed)
        for reward in islice(episode_rewards(act, env, observation, episode), max_steps):
            result.returns[episode] += reward
            result.lengths[episode] += 1


def episode_rewards(
    act: Callable[[Any], Any], env: Env[Any, Any], observation: Any, episode: int
) -> Iterator[float]:
    """Step an environment to the end of an episode, yielding the reward of each step.

    Parameters
    ----------
    act
        From an observation to an action.
    env
        The environment, just reset.
    observation
        What the reset returned.
    episode
        Number of the episode from 0, for the sentence about a bad reward.

    Raises
    ------
    ValueError
        If a reward is NaN or infinite.
    """
    for step in count():
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        if not math.isfinite(reward):
            raise ValueError(
                f"reward: expected a finite number, got {reward} at step {step} of evaluation "
                f"episode {episode}; does the environment fail for some action?"
            )
        yield float(reward)
        if terminated or truncated:
            return


def episode_seeds(seed: int | None, episodes: int) -> list[int | None]:
    """Return the seed of each episode's reset, in [0, 2**31), drawn from ``seed``; or None for all."""
    if seed is None:
        return [None] * episodes
    stream = np.random.Generator(np.random.Philox(seed))
    return [int(s) for s in stream.integers(_LARGEST_RESET_SEED, size=episodes)]


def act_function(policy: Policy, deterministic: bool) -> Callable[[Any], Any]:
    """Return a function from one observation to the environment's action.

    Raises
    ------
    TypeError
        If ``policy`` has no ``predict`` and cannot be called.
    """
    predict = getattr(policy, "predict", None)
    if predict is not None:
        return lambda observation: predict(observation, deterministic=deterministic)[0]
    if callable(policy):
        return policy
    raise TypeError(
        "policy: expected an agent with predict(), or a function from an observation to an "
        f"action, got {type(policy).__name__}"
    )


def empty_result(episodes: int, seed: int | None, max_steps: int | None) -> EvaluationResult:
    """Return a result of zeros for so many episodes; ValueError if a number is out of range."""
    _check("episodes", episodes, 1)
    if seed is not None:
        _check("seed", seed, 0)
    if max_steps is not None:
        _check("max_steps", max_steps, 1)
    return EvaluationResult(np.zeros(episodes, np.float64), np.zeros(episodes, np.int64))


def _check(name: str, value: int, least: int) -> None:
    try:
        wrong = isinstance(value, bool) or operator.index(value) < least
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")


# ---- in worker processes


class _Workers(Protocol):
    """A sampler with worker processes."""

    n_workers: int

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


def workers_of(agent: Any, deterministic: bool) -> _Workers | None:
    """Return the sampler whose workers run an agent's evaluations, or None.

    None too where actions are sampled: their random numbers are drawn in this process, one after the
    other.
    """
    workers: _Workers | None = getattr(agent, "evaluation_workers", None)
    return workers if deterministic else None


def _run_in_workers(
    workers: _Workers,
    agent: Any,
    seeds: dict[int, int | None],
    max_steps: int | None,
    result: EvaluationResult,
) -> None:
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
        )
        for w in range(n)
    ]
    for share, found in zip(
        shares, workers.map_groups(_run_share, shares, name="evaluation"), strict=True
    ):
        which = list(share.seeds)
        result.returns[which] = found.returns[which]
        result.lengths[which] = found.lengths[which]


def _run_share(sampler: InProcessSampler, share: _Share) -> EvaluationResult:
    """Run a worker's episodes, inside it, in an environment beside those that it trains in."""
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

    def act(observation: Any) -> Any:
        sampler.show_life()
        action = policy.act_one(observation, deterministic=True) if encoder.is_plain else None
        if action is None:
            rows, _ = encoder.encode_any(observation)
            if not np.isfinite(rows).all():
                raise ValueError("observation: expected finite numbers, got NaN or infinity.")
            action = policy.act(rows, deterministic=True)
        return to_env(action)[0]

    with sampler.spare_environment(share.make) as environment:
        _run_episodes(act, environment, share.seeds, share.max_steps, result)
    return result


# ---- environments


def own_environment(agent: Any, **rendering: str) -> Environment:
    """Return what to evaluate an agent in: another environment like those that it was made for.

    Parameters
    ----------
    agent
        Has ``evaluation_environment()``, or an ``env_name``.
    rendering
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


@contextmanager
def opened(env: Environment, **settings: Any) -> Iterator[Env[Any, Any]]:
    """Make an environment and close it at the end; one that exists already is left open.

    Parameters
    ----------
    env
        An id, an environment, or a callable that makes one.
    settings
        Keyword arguments of ``gymnasium.make``; used with an id only.
    """
    from ..envs import make_environment

    environment = (
        make_environment(env, **settings) if isinstance(env, str) else make_environment(env)
    )
    try:
        yield environment
    finally:
        if environment is not env:
            environment.close()
