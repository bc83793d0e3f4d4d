"""TRPO as in the paper's section 5.1 (Schulman et al. 2015): Monte Carlo Q-values of single paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import ConfigError, Sampling, TRPOConfig
from ..rollout import Rollout
from ..training.agent import TRPO, _Batch

Float64 = NDArray[np.float64]

__all__ = ["SinglePathConfig", "SinglePathTRPO"]


@dataclass(frozen=True, kw_only=True)
class SinglePathConfig(TRPOConfig):
    """Settings of :class:`SinglePathTRPO`; those of the value function are not used."""

    _before: ClassVar[Mapping[str, object]] = {**TRPOConfig._before, "baseline": "mean"}

    batch_size: int = 4096
    """Environment steps per update: Monte Carlo returns are noisy, and want more than GAE's 2048."""

    sampling: Sampling = "episodes"
    """Whole episodes, as in the paper: nothing stands for what follows a path that is cut."""

    baseline: Literal["time", "mean"] = "time"
    """What Q is compared with: the mean over paths of Q as many steps from their start, or of all Q."""

    gae_lambda: float = 1.0
    """1: without a value function only whole returns are left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choice("baseline", Literal["time", "mean"])
        if self.gae_lambda != 1.0:
            raise ConfigError(
                f"gae_lambda: expected 1, got {self.gae_lambda}: without a value function only "
                "whole returns are left; use TRPO for GAE"
            )


class SinglePathTRPO(TRPO):
    """TRPO as in the paper's section 5.1: Monte Carlo Q-values of single paths, no value function.

    ::

        Q_t = sum_{l >= 0} gamma^l r_{t+l}        to the end of the path

    Nothing stands for what follows the end of a path. A batch holds whole episodes by default, as in
    the paper, whose paths are of fixed length; with another `sampling` its end cuts them too.

    Not in the paper: a baseline that depends on nothing but time,

    ::

        A_t = Q_t - b_t,   b_t = mean of Q_t over the paths of the batch that are that long

    Near a time limit Q falls for every action alike; that is not to look like a lesson. And A is
    standardised (``standardize_advantages``).
    """

    config_type = SinglePathConfig
    config: SinglePathConfig

    @classmethod
    def _resolve_config(
        cls, config: TRPOConfig | None, preset: str | None, overrides: dict[str, Any], env: Any
    ) -> TRPOConfig:
        # whatever a preset says
        return super()._resolve_config(
            config, preset, overrides if config else {"gae_lambda": 1.0, **overrides}, env
        )

    def _advantages(self, rollout: Rollout) -> _Batch:
        """Q of every step of every path, less its baseline."""
        batch = super()._advantages(rollout)
        if self.config.baseline == "time":
            steps = _steps_from_start(rollout)[rollout.valid]
            batch.advantages = batch.returns - _mean_by(steps, batch.returns)
            # what only rounding tells apart is alike
            rounding = 64.0 * np.finfo(np.float64).eps * np.abs(batch.returns).max()
            batch.advantages[np.abs(batch.advantages) <= rounding] = 0.0
        return batch

    def _values(self, observations: Any) -> Float64:
        return np.zeros(len(observations))

    _fit_threads = 0

    def _start_value_fit(self, batch: _Batch) -> None:
        """There is none to fit."""


def _steps_from_start(rollout: Rollout) -> NDArray[np.int64]:
    """Steps since the path of each row began in this batch, (T, E)."""
    T = rollout.n_steps
    ends = rollout.terminated | rollout.truncated
    begins = np.zeros(ends.shape, np.int64)  # row of the path's start
    begins[1:] = np.where(ends[:-1], np.arange(1, T)[:, np.newaxis], 0)
    steps: NDArray[np.int64] = np.arange(T)[:, np.newaxis] - np.maximum.accumulate(begins)
    return steps


def _mean_by(groups: NDArray[np.int64], values: Float64) -> Float64:
    """The mean of the values of each one's group, (N,)."""
    means = np.bincount(groups, values) / np.maximum(1, np.bincount(groups))
    return np.asarray(means[groups])
