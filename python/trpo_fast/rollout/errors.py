"""One sentence for everything that an environment may do wrong: who, at which step, what to do."""

from __future__ import annotations

import signal
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..envs import EnvironmentFailure, ObservationError
from ..envs.errors import error_sentence
from ..envs.interface import reset_error_problem, reset_problem, step_problem
from .crashes import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..envs import ObservationEncoder
    from .crashes import NonFinite
    from .data import Rollout

    Array = npt.NDArray[Any]

LARGEST_OBSERVATION = 1e150  # in size: sums of squares of many millions stay finite
LARGEST_REWARD = 1e304  # in size: sums of some thousand rewards stay finite
_FINITE = "the environment must return finite numbers: mend it, or wrap it"
_CLIP = "clip or scale the observations (gymnasium.wrappers.TransformObservation)"

RESET_RETURNS = "reset() must return (observation, info)"
STEP_RETURNS = (
    "step() must return (observation, reward, terminated, truncated, info), "
    "the reward one number and the flags one bool each"
)


class Sentences:
    """Names environments and steps, and says what went wrong there.

    Environments are counted from 0 over the whole run, and so are steps: as actions drawn.

    Parameters
    ----------
    name
        How the environment is called.
    first_index
        Index of the first environment in the whole run.
    encoder
        Tells an observation that cannot be used from a fault of ours.

    Attributes
    ----------
    first_steps
        Actions that each environment had drawn when the rollout began: (E,), int64.
    """

    def __init__(self, name: str, first_index: int, encoder: ObservationEncoder) -> None:
        self.name = name
        self.first_index = first_index
        self.first_steps = np.zeros(0, np.int64)
        self._encoder = encoder

    def step(self, t: int, e: int) -> str:
        """Row t of environment e.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        e
            Environment of this sampler, from 0.
        """
        return f"environment {self.first_index + e} ({self.name}), step {self.first_steps[e] + t}"

    def reset_before(self, t: int, e: int) -> str:
        """The reset whose observation the action of row t of environment e is chosen for.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        e
            Environment of this sampler, from 0.
        """
        return f"reset before {self.step(t, e)}"

    def non_finite(self, found: NonFinite, *, after_reset: bool) -> ValueError:
        """The error about a NaN or an infinity.

        Parameters
        ----------
        found
            Which value.
        after_reset
            Whether a reset returned it, if it is a state; otherwise the step before did.
        """
        t, e, value = found.t, found.e, found.value
        if found.kind is Kind.ACTION:
            return ValueError(
                f"{self.step(t, e)}: the policy chose the action {value} (entry {found.entry}) for "
                "a finite observation; its parameters are not finite any more: go back to the last "
                "good checkpoint"
            )
        if found.kind is Kind.REWARD:
            return ValueError(f"{self.step(t, e)}: the reward is {value}; {_FINITE}")
        if found.kind is Kind.FINAL_STATE:
            what = f"entry {found.entry} of the final observation is {_shown(value)}"
            return ValueError(f"{self.step(t, e)}: {what}; {_FINITE}")
        where = self.reset_before(t, e) if after_reset else self.step(t - 1, e)
        return ValueError(f"{where}: observation entry {found.entry} is {_shown(value)}; {_FINITE}")

    def too_large_state(
        self, states: Array, after_reset: Callable[[int, int], bool]
    ) -> ValueError | None:
        """The error about a finite observation whose square is not, if there is one.

        Parameters
        ----------
        states
            Of the rollout, (T + 1, E, O), dtype of the policy.
        after_reset
            Whether state t of environment e came from a reset, not from a step.
        """
        if states.dtype == np.float32 or not (np.abs(states) > LARGEST_OBSERVATION).any():
            return None
        t, e, k = (int(i) for i in np.argwhere(np.abs(states) > LARGEST_OBSERVATION)[0])
        where = self.reset_before(t, e) if after_reset(t, e) else self.step(t - 1, e)
        return ValueError(
            f"{where}: observation entry {k} is {states[t, e, k]:g}; expected at most "
            f"{LARGEST_OBSERVATION:g} in size, whose square is finite: {_CLIP}"
        )

    def too_large(self, rewards: Array) -> ValueError | None:
        """The error about a finite reward that is too large to be learned from, if there is one.

        Parameters
        ----------
        rewards
            Of the rollout, (T, E), float64.
        """
        if not (np.abs(rewards) > LARGEST_REWARD).any():
            return None
        t, e = (int(index) for index in np.argwhere(np.abs(rewards) > LARGEST_REWARD)[0])
        return ValueError(
            f"{self.step(t, e)}: the reward is {rewards[t, e]:g}; expected at most "
            f"{LARGEST_REWARD:g} in size, whose sums and squares are finite: scale the rewards "
            "(gymnasium.wrappers.TransformReward)"
        )

    def failure(
        self, error: Exception | SystemExit, where: str, returned: Any, *, of_reset: bool
    ) -> Exception:
        """The error to raise for one that came up while an environment was used.

        It tells apart an environment that raised from one that returned something wrong.

        Parameters
        ----------
        error
            What came up, with its traceback.
        where
            The environment and the step, or the reset.
        returned
            What the environment returned last; None if nothing came back.
        of_reset
            Whether it was reset; otherwise it was stepped.
        """
        if of_reset and (problem := reset_error_problem(error)):
            return EnvironmentFailure(f"{where}: {problem}")
        if not raised_by_us(error):
            return EnvironmentFailure(f"{where}: the environment raised {error_sentence(error)}")
        find, interface = (
            (reset_problem, RESET_RETURNS) if of_reset else (step_problem, STEP_RETURNS)
        )
        if problem := find(returned):
            return EnvironmentFailure(f"{where}: {problem}")
        if isinstance(error, ObservationError):
            return ValueError(f"{where}: {error}")
        observation = returned[0]
        unusable = EnvironmentFailure(f"{where}: {type(error).__name__}: {error}; {interface}")
        with np.errstate(all="ignore"):
            try:
                row = self._encoder.encode(observation)
            except ObservationError as wrong:
                return ValueError(f"{where}: {wrong}")
            except Exception:  # what came back is no observation at all
                return unusable
        if np.isfinite(row).all():
            return unusable
        k = int(np.argmin(np.isfinite(row)))
        return ValueError(
            f"{where}: observation entry {k} is {row[k]} as {row.dtype.name}; "
            "the environment must return numbers that this dtype can hold"
        )


def _shown(value: Any) -> str:
    """A number that is not finite; an infinity may have been a number that float32 cannot hold."""
    is_single = getattr(value, "dtype", None) == np.float32
    return f"{value} as float32" if is_single and np.isinf(value) else str(value)


def with_transitions(rollout: Rollout) -> Rollout:
    """Return a rollout from which something can be learned.

    Parameters
    ----------
    rollout
        Of environments that are replaced where they crash.

    Raises
    ------
    EnvironmentFailure
        Every one of its episodes crashed.
    """
    if rollout.n_transitions == 0 and rollout.crashes:
        raise EnvironmentFailure(
            f"rollout: expected at least one step of an episode that did not crash, got none in "
            f"{rollout.n_steps} steps of {rollout.n_envs} environments; the last one: "
            f"{rollout.crashes[-1]}"
        )
    return rollout


def is_users_exit(error: BaseException) -> bool:
    """Whether an error is a SystemExit that a signal handler has raised, amid an environment's step.

    Any other one is the environment's own, whose window may have been closed.

    Parameters
    ----------
    error
        What came up, with its traceback.
    """
    if not isinstance(error, SystemExit):
        return False
    handlers = {
        getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()
    }
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def raised_by_us(error: BaseException) -> bool:
    """Whether an error came up in the function that caught it or in another one of this package.

    Then the environment did not raise: it returned something that could not be used.

    Parameters
    ----------
    error
        An error, caught in a function that calls environments.
    """
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_globals):
        trace = trace.tb_next
    # What NumPy raises when one of our functions calls it is a matter of what was returned.
    return trace is None or str(trace.tb_frame.f_globals.get("__name__", "")).startswith("numpy")


def _is_ours(names: dict[str, Any]) -> bool:
    """Whether these are the global names of a module of this package that is no environment."""
    package, _, rest = str(names.get("__name__", "")).partition(".")
    return package == __name__.partition(".")[0] and rest != "envs.single_envpool"
