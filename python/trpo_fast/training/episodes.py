"""Whole episodes of a policy: how one is played, and what several of them returned."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs import EnvironmentFailure, ObservationError
from ..envs.asking import asked
from ..envs.errors import error_sentence
from ..envs.interface import (
    is_end,
    one_number,
    require_info,
    reset_error_problem,
    reset_problem,
    step_problem,
)
from ..rollout import metrics_of, record_name
from ..rollout.errors import is_users_exit, raised_by_us
from ..seeds import Purpose, derive_reset

if TYPE_CHECKING:
    from gymnasium import Env

LEAST_MAX_STEPS = 10_000  # steps after which an episode without a time limit is cut


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
MaskGiver: TypeAlias = Callable[[Any, Any], Any]


class MaskedActing:
    """From an observation, and a mask where the environment gives one, to the environment's action.

    Parameters
    ----------
    act
        Called as ``act(observation, mask)``; the mask is None where there are none.
    mask_source
        Where the policy expects masks, see `trpo_fast.envs.masks`.
    """

    def __init__(self, act: Callable[[Any, Any], Any], mask_source: str) -> None:
        self._act = act
        self._source = mask_source

    def __call__(self, observation: Any, mask: Any = None) -> Any:
        return self._act(observation, mask)

    def masks_of(self, env: Any, info: Any) -> MaskGiver | None:
        """What gives the masks of an environment that was reset; None where there are none.

        Parameters
        ----------
        env
            The environment.
        info
            What the reset returned as info.
        """
        source = self._source
        space = getattr(env, "action_space", None)
        if source == "none" or space is None:
            return None
        from ..envs.actions import ActionAdapter
        from ..envs.masks import find_source, mask_giver, source_of_info

        if source == "auto":
            distribution = ActionAdapter.from_space(space).distribution
            source = find_source("auto", env.observation_space, space, distribution, env)
        if source == "auto":
            source = source_of_info(info)
        return None if source == "none" else mask_giver(source, env)


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Returns and lengths of n episodes.

    The return of an episode is the plain sum of its rewards, neither discounted nor scaled.
    """

    returns: npt.NDArray[np.float64]
    """(n,) sum of the rewards of each episode."""

    lengths: npt.NDArray[np.int64]
    """(n,) steps of each episode."""

    cut: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(n,) whether each episode was cut before it had ended; none if left out."""

    max_steps: int = 0
    """Steps after which an episode was cut; 0 where there was no such number."""

    metrics: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(n,) what the infos of the last steps told, by name: "success", and the keys that were asked
    for; NaN where one did not tell."""

    def __post_init__(self) -> None:
        if len(self.cut) != len(self.returns):
            object.__setattr__(self, "cut", np.zeros(len(self.returns), np.bool_))

    @property
    def n_cut(self) -> int:
        """Number of episodes that were cut before they had ended."""
        return int(self.cut.sum())

    @property
    def cut_sentence(self) -> str:
        """How many episodes were cut, and after how many steps; empty where none was."""
        if self.n_cut == 0:
            return ""
        return f"{self.n_cut} of {len(self.returns)} cut after {self.max_steps:,} steps"

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded, of those that told; NaN where none did."""
        return self.metric_means.get("success_rate", math.nan)

    @property
    def metric_means(self) -> dict[str, float]:
        """Mean of each metric over the episodes that told it; of success it is ``success_rate``."""
        told = {name: values[~np.isnan(values)] for name, values in self.metrics.items()}
        return {record_name(name): float(v.mean()) for name, v in told.items() if len(v)}

    def note(self, episode: int, info: object, names: Sequence[str] = ()) -> None:
        """Keep what the last info of an episode tells.

        Parameters
        ----------
        episode
            Its number, from 0.
        info
            What its last step returned as info.
        names
            Keys to look for besides those of success.
        """
        for name, value in metrics_of(info, names).items():
            if name not in self.metrics:
                self.metrics[name] = np.full(len(self.returns), np.nan)
            self.metrics[name][episode] = value

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
            f"{''.join(f', {name} {mean:.4g}' for name, mean in self.metric_means.items())}"
            f"{', ' if self.n_cut else ''}{self.cut_sentence}"
        )


def step_limit(max_steps: int | None, env: Env[Any, Any], policy: object = None) -> int:
    """Return the steps after which an episode is cut.

    Parameters
    ----------
    max_steps
        What the user asked for; None takes the largest of the following and 10,000.
    env
        Its ``spec.max_episode_steps`` is its own time limit, if it has one.
    policy
        Its ``longest_episode``, if it has one, is that of training, in steps.
    """
    if max_steps is not None:
        return max_steps
    own = asked(asked(env, "spec"), "max_episode_steps")
    trained = getattr(policy, "longest_episode", 0)
    return max(LEAST_MAX_STEPS, own or 0, int(trained))


def run_episodes(
    act: Callable[[Any], Any],
    env: Env[Any, Any],
    seeds: dict[int, int | None],
    result: EvaluationResult,
    metric_names: Sequence[str] = (),
) -> None:
    """Run these episodes, by their numbers, and write what they returned into the result.

    Parameters
    ----------
    act
        From an observation to an action.
    env
        The environment.
    seeds
        The seed of the reset by the number of the episode.
    result
        Written to at these episodes.
    metric_names
        Keys of the info of an episode's last step to keep besides those of success.
    """
    for episode, seed in seeds.items():
        for _ in play(act, env, episode, seed, result, metric_names):
            pass


def play(
    act: Callable[[Any], Any],
    env: Env[Any, Any],
    episode: int,
    seed: int | None,
    result: EvaluationResult,
    metric_names: Sequence[str] = (),
) -> Iterator[None]:
    """Play an episode, and write what it returned into the result; yields after reset and steps.

    Parameters
    ----------
    act
        From an observation to an action.
    env
        The environment.
    episode
        Number of the episode, from 0.
    seed
        Of the reset; None for the environment's own choice.
    result
        Written to at this episode. Its ``max_steps`` is where the episode is cut.
    metric_names
        As for `run_episodes`.

    Raises
    ------
    ValueError
        If a reward is NaN or infinite.
    EnvironmentFailure
        If the environment breaks Gymnasium's interface.
    """
    returned: Any = None
    try:
        returned = env.reset(seed=seed)
    except TypeError as error:
        problem = reset_error_problem(error)
        if problem is None:
            raise
        raise EnvironmentFailure(f"evaluation episode {episode}: {problem}") from error
    except SystemExit as error:
        raise _exit_of(error, f"reset of evaluation episode {episode}") from error
    problem = reset_problem(returned)
    if problem is not None:
        raise EnvironmentFailure(f"evaluation episode {episode}: {problem}")
    observation, info = returned
    giver = act.masks_of(env, info) if isinstance(act, MaskedActing) else None
    yield
    for step in range(result.max_steps):
        try:
            if giver is None:
                action = act(observation)
            else:
                where = f"step {step} of episode {episode}"
                action = _masked(act, giver, observation, info, where)
        except ObservationError as error:
            raise ValueError(f"step {step} of evaluation episode {episode}: {error}") from error
        try:
            returned = env.step(action)
        except SystemExit as error:
            raise _exit_of(error, f"step {step} of evaluation episode {episode}") from error
        except TypeError as error:  # several agents as one environment: what one of them was given
            if not raised_by_us(error):
                raise
            raise EnvironmentFailure(
                f"step {step} of evaluation episode {episode}: {error}"
            ) from error
        try:
            observation, reward, terminated, truncated, info = returned
            number = reward if type(reward) is float else one_number(reward)
            ended = is_end(terminated, truncated)
            require_info(info)
        except (TypeError, ValueError) as error:
            problem = step_problem(returned) or str(error)
            raise EnvironmentFailure(
                f"step {step} of evaluation episode {episode}: {problem}"
            ) from error
        if not math.isfinite(number):
            raise ValueError(
                f"reward: expected a finite number, got {number} at step {step} of evaluation "
                f"episode {episode}; does the environment fail for some action?"
            )
        result.returns[episode] += number
        result.lengths[episode] += 1
        yield
        if ended or step == result.max_steps - 1:
            result.note(episode, info, metric_names)
        if ended:
            return
    result.cut[episode] = True


def _exit_of(error: SystemExit, where: str) -> BaseException:
    """What to raise for an environment that ends the process; a signal handler's wish is granted."""
    if is_users_exit(error):
        return error
    return EnvironmentFailure(f"{where}: the environment raised {error_sentence(error)}")


def _masked(act: Any, giver: MaskGiver, observation: Any, info: Any, where: str) -> Any:
    from ..envs.masks import MaskError

    try:
        return act(observation, giver(observation, info))
    except MaskError as error:
        raise ValueError(f"evaluation, {where}: {error}") from error


def episode_seeds(seed: int | None, episodes: int) -> list[int | None]:
    """Return the seed of each episode's reset, in [0, 2**31), derived from ``seed``; or None for all.

    Parameters
    ----------
    seed
        An integer in [0, 2**64), or None.
    episodes
        Number of episodes n, >= 1.
    """
    if seed is None:
        return [None] * episodes
    return [derive_reset(seed, Purpose.EPISODES, episode) for episode in range(episodes)]


def act_function(policy: Policy, deterministic: bool) -> Callable[[Any], Any]:
    """Return a function from one observation to the environment's action.

    Parameters
    ----------
    policy
        An agent with ``predict``, or a function from an observation to an action.
    deterministic
        True: the mode of the policy. False: a sample.

    Raises
    ------
    TypeError
        If ``policy`` has no ``predict`` and cannot be called.
    """
    predict = getattr(policy, "predict", None)
    source = getattr(policy, "mask_source", None)
    if predict is not None and isinstance(source, str):
        return MaskedActing(
            lambda observation, mask: predict(
                observation, deterministic=deterministic, action_masks=mask
            )[0],
            source,
        )
    if predict is not None:
        return lambda observation: predict(observation, deterministic=deterministic)[0]
    if callable(policy):
        return policy
    raise TypeError(
        "policy: expected an agent with predict(), or a function from an observation to an "
        f"action, got {type(policy).__name__}"
    )


def empty_result(episodes: int, seed: int | None, max_steps: int | None) -> EvaluationResult:
    """Return a result of zeros for so many episodes; ValueError if a number is out of range.

    Parameters
    ----------
    episodes
        Number of episodes n, >= 1.
    seed
        An integer >= 0, or None.
    max_steps
        An integer >= 1, or None.
    """
    _check("episodes", episodes, 1)
    if seed is not None:
        _check("seed", seed, 0)
        if seed >= 2**64:
            raise ValueError(f"seed: expected an integer below 2**64, got {seed}")
    if max_steps is not None:
        _check("max_steps", max_steps, 1)
    return EvaluationResult(
        np.zeros(episodes, np.float64),
        np.zeros(episodes, np.int64),
        np.zeros(episodes, np.bool_),
        max_steps or 0,
    )


def _check(name: str, value: int, least: int) -> None:
    try:
        wrong = isinstance(value, bool) or operator.index(value) < least
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
