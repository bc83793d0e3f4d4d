"""What the user is told of an iteration, and who is told."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..rollout import record_name
from .batch import Batch

if TYPE_CHECKING:
    from ..logging import Logger
    from ..rollout import Rollout

EPISODE_WINDOW = 100  # episodes behind rollout/episode_return


class EpisodeWindow:
    """Returns and lengths of the latest 100 training episodes."""

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=EPISODE_WINDOW)
        self.lengths: deque[float] = deque(maxlen=EPISODE_WINDOW)
        self.metrics: dict[str, deque[float]] = {}
        """By name the values of the latest 100 episodes whose infos held one."""

    def extend(self, returns: Iterable[float], lengths: Iterable[float]) -> None:
        """Append episodes that have ended, in their order.

        Parameters
        ----------
        returns
            Plain sums of rewards.
        lengths
            Numbers of steps.
        """
        self.returns.extend(returns)
        self.lengths.extend(lengths)

    def extend_metrics(self, metrics: Mapping[str, NDArray[np.float64]]) -> None:
        """Append what the ends of episodes told.

        Parameters
        ----------
        metrics
            Values by name: (J,), NaN where an episode did not tell.
        """
        for name, values in metrics.items():
            window = self.metrics.setdefault(name, deque(maxlen=EPISODE_WINDOW))
            window.extend(values[~np.isnan(values)].tolist())


def iteration_record(
    rollout: Rollout,
    batch: Batch,
    update: core.UpdateSummary,
    fit: core.FitSummary | None,
    *,
    policy: core.Policy,
    episodes: EpisodeWindow,
    iteration: int,
    timesteps: int,
    seconds: float,
    elapsed_seconds: float,
) -> dict[str, Any]:
    """The numbers of one iteration by name.

    Parameters
    ----------
    rollout
        What was sampled.
    batch
        What was learned from.
    update
        What the policy update did.
    fit
        The value fit that ended in this iteration: that of the previous iteration's batch.
    policy
        After the update.
    episodes
        The latest episodes, those of this rollout included.
    iteration
        Updates made, this one included.
    timesteps
        Environment steps taken in the whole run.
    seconds
        Wall-clock seconds since the iteration began.
    elapsed_seconds
        Wall-clock seconds of all iterations of the run.
    """
    record: dict[str, Any] = {
        "time/iteration": iteration,
        "time/timesteps": timesteps,
        "time/steps_per_second": rollout.n_transitions / seconds,
        "time/elapsed_seconds": elapsed_seconds,
        "time/rollout_seconds": rollout.seconds,
        "time/update_seconds": update.seconds_total,
        "time/value_fit_seconds": 0.0 if fit is None else fit.seconds,
        "rollout/steps": rollout.n_transitions,
        "rollout/episodes": len(rollout.episode_returns),
        "policy/status": update.status,
        "policy/message": update.message,
        "policy/kl": update.kl,
        "policy/kl_predicted": update.kl_predicted,
        "policy/max_kl": update.max_kl,
        "policy/surrogate_gain": update.surrogate_gain,
        "policy/surrogate_gain_predicted": update.surrogate_gain_predicted,
        "policy/gradient_norm": update.gradient_norm,
        "policy/step_norm": update.step_norm,
        "policy/cg_iterations": update.cg_iterations,
        "policy/cg_residual": update.cg_relative_residual,
        "policy/backtracks": update.backtracks,
        "policy/entropy": update.entropy,
        "value/explained_variance": batch.explained_variance(),
    }
    if fit is not None:
        record["value/status"] = fit.status
        record["value/loss_before"] = fit.loss_before
        record["value/loss_after"] = fit.loss_after
    if episodes.returns:
        record["rollout/episode_return"] = float(np.mean(episodes.returns))
        record["rollout/episode_length"] = float(np.mean(episodes.lengths))
    for name, told in episodes.metrics.items():
        if told:
            record[f"rollout/{record_name(name)}"] = float(np.mean(told))
    if policy.distribution.kind == "gaussian":
        where, _ = policy.parameter_layout["log_std"]
        record["policy/std"] = float(np.exp(policy.parameters[where]).mean())
    if rollout.notices:
        record["run/notice"] = rollout.notices[-1]
    if rollout.crashes:
        record["rollout/crashes"] = len(rollout.crashes)
        record["run/notice"] = rollout.crashes[-1]
    return record


def explained_variance(values: NDArray[np.float64], returns: NDArray[np.float64]) -> float:
    """1 - Var(R - V) / Var(R) of values and returns (N,): 1 is perfect, 0 as good as the mean.

    NaN where the returns do not vary.

    Parameters
    ----------
    values
        Shape (N,), float64: V.
    returns
        Shape (N,), float64: R.
    """
    # Scaled by a power of two, so that the squares of very large and very small returns are finite.
    exponent = -int(np.frexp(np.abs(returns).max(initial=0.0))[1])
    scaled, residuals = np.ldexp(returns, exponent), np.ldexp(returns - values, exponent)
    variance = float(np.var(scaled))
    return 1.0 - float(np.var(residuals)) / variance if variance > 0.0 else float("nan")


class RecordWriters:
    """Loggers, table and progress bar of one call of ``learn``, closed at its end.

    Parameters
    ----------
    progress
        Whether to show table and bar on stderr; None shows them where stderr is a terminal and no
        loggers are given.
    loggers
        Receive every record.
    start, goal
        Timesteps at which the call begins and ends.
    """

    def __init__(
        self, progress: bool | None, loggers: Iterable[Logger] | None, *, start: int, goal: int
    ) -> None:
        self._loggers: list[Any] = list(loggers or ())
        self._bar: Any = None
        if progress is None:
            progress = loggers is None and _stderr_is_terminal()
        if progress:
            from ..logging import ConsoleLogger, ProgressBar

            terminal = _stderr_is_terminal()
            if not any(isinstance(logger, ConsoleLogger) for logger in self._loggers):
                self._loggers.append(ConsoleLogger(style="auto" if terminal else "plain"))
            self._bar = ProgressBar(goal, start=start, enabled=True)

    def __enter__(self) -> RecordWriters:
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        """Hand one record to every logger, and move the bar.

        Parameters
        ----------
        record
            The numbers of an iteration by name.
        """
        for logger in self._loggers:
            logger.write(record)
        if self._bar is not None:
            self._bar.update(record["time/timesteps"])

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        for logger in self._loggers:
            logger.close()


def _stderr_is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # it is None where it was closed
