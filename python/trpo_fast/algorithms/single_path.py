"""TRPO as in the paper's section 5.1 (Schulman et al. 2015): Monte Carlo Q-values of single paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import Sampling, TrustRegionConfig, choice, integer
from ..rollout import Rollout
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.trust_region import natural_step_options

__all__ = ["SinglePathConfig", "SinglePathTRPO", "mean_by"]

Baseline = Literal["time", "mean"]


@dataclass(frozen=True, kw_only=True)
class SinglePathConfig(TrustRegionConfig):
    """Settings of :class:`SinglePathTRPO`: those of TRPO but for its value function."""

    method: ClassVar[str] = "SinglePathTRPO"
    lacks: ClassVar[str] = "it has no value function, only the returns of whole paths"
    before: ClassVar[Mapping[str, object]] = {**TrustRegionConfig.before, "baseline": "mean"}

    batch_size: int = integer(4096, 2, remedy="Monte Carlo returns want some thousand steps")
    """Environment steps per update: Monte Carlo returns are noisy, and want more than GAE's 2048."""

    sampling: Sampling = choice("episodes", Sampling)
    """Whole episodes, as in the paper: nothing stands for what follows a path that is cut."""

    baseline: Baseline = choice("time", Baseline)
    """What Q is compared with: the mean over paths of Q as many steps from their start, or of all Q."""


class SinglePathTRPO(OnPolicyAgent[SinglePathConfig]):
    """TRPO as in the paper's section 5.1: Monte Carlo Q-values of single paths, no value function.

    ::

        Q_t = sum_{l >= 0} gamma^l r_{t+l}        to the end of the path

    Nothing stands for what follows the end of a path. A batch holds whole episodes by default, as in
    the paper, whose paths are of fixed length; with another `sampling` its end cuts them too.

    Not in the paper: a baseline that depends on nothing but time,

    ::

        A_t = Q_t - b_t,   b_t = mean of Q_t over the paths of the batch that are that long

    Near a time limit Q falls, whatever the actions are; this baseline takes that out, so that actions
    are not blamed for it. A is standardised besides (``standardize_advantages``).

    Arguments are those of :class:`trpo_fast.TRPO`, settings those of :class:`SinglePathConfig`.
    """

    config_type = SinglePathConfig

    def advantages(self, rollout: Rollout) -> Batch:
        """Q of every step of every path, less its baseline."""
        batch = super().advantages(rollout)
        if self.config.baseline == "time":
            batch.advantages = batch.returns - mean_by(rollout.steps_from_start(), batch.returns)
            # Differences that come from rounding alone become 0.
            rounding = 64.0 * np.finfo(np.float64).eps * np.abs(batch.returns).max()
            batch.advantages[np.abs(batch.advantages) <= rounding] = 0.0
        return batch

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """The step of TRPO."""
        return self.policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            natural_step_options(self.current, self.policy, batch.observations),
            normalized=True,
            action_masks=batch.action_masks,
            seed=self.update_seed,
        )


def mean_by(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of N values the mean over those of its group: groups (N,) from 0, values (N,).

    Parameters
    ----------
    groups
        Shape (N,), int64: the group of each value, from 0.
    values
        Shape (N,), float64.
    """
    means = np.bincount(groups, values) / np.maximum(1, np.bincount(groups))
    return np.asarray(means[groups])
