"""What one update learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core

if TYPE_CHECKING:
    from ..rollout import Rollout
    from .value_units import ValueUnits


@dataclass(eq=False)
class Batch:
    """The transitions of one rollout, without padding. N samples, O observation, A action width.

    Attributes
    ----------
    observations
        Shape (N, O), dtype of the networks, normalised as the policy sees them.
    actions
        Shape (N, A), as the policy has drawn them, not clipped to the action space.
    advantages
        Shape (N,), float64, in the units of the rewards.
    returns
        Shape (N,), float64, in the units of the rewards: what the value function is fitted to.
    values
        Shape (N,), float64, in the units of the rewards: V before this batch's fit.
    action_masks
        Shape (N, W), bool: which choices were allowed; None where the environment has no masks.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    advantages: NDArray[np.float64]
    returns: NDArray[np.float64]
    values: NDArray[np.float64]
    action_masks: NDArray[np.bool_] | None = field(default=None, kw_only=True)

    # ---- what learns from it; `parted_batch.PartedBatch` does the same where the rows are elsewhere

    def update(
        self, policy: core.Policy, options: core.TrustRegionOptions, **settings: Any
    ) -> core.UpdateSummary:
        """Make a trust-region update of a policy, see :meth:`trpo_fast.core.Policy.update`.

        Parameters
        ----------
        policy
            Updated in place.
        options, **settings
            As there.
        """
        rows = (self.observations, self.actions, self.advantages)
        masks = self.action_masks
        return policy.update(*rows, options, normalized=True, action_masks=masks, **settings)

    def ascend(self, policy: core.Policy, **settings: Any) -> core.UpdateSummary:
        """Ascend the surrogate by Adam, see :meth:`trpo_fast.core.Policy.ascend`.

        Parameters
        ----------
        policy
            Updated in place.
        **settings
            As there.
        """
        rows = (self.observations, self.actions, self.advantages)
        return policy.ascend(*rows, normalized=True, action_masks=self.action_masks, **settings)

    def absorb_returns(self, units: ValueUnits, value_function: core.ValueFunction) -> None:
        """Let the unit of V follow these returns.

        Parameters
        ----------
        units
            The unit.
        value_function
            V, whose last layer changes with it.
        """
        units.absorb(self.returns, value_function)

    def fit_of(
        self, units: ValueUnits, value_function: core.ValueFunction
    ) -> Callable[..., core.FitSummary]:
        """What fits V to these returns, given settings of :meth:`trpo_fast.core.ValueFunction.fit`.

        Parameters
        ----------
        units
            The unit of V.
        value_function
            V.
        """
        return partial(value_function.fit, self.observations, units.to_targets(self.returns))

    def add_observations(self, statistics: core.RunningStatistics, rollout: Rollout) -> None:
        """Merge the observations, as the environment gave them, into running statistics.

        Parameters
        ----------
        statistics
            Those.
        rollout
            That the batch was made of.
        """
        statistics.update(rollout.select(rollout.observations))

    def given_states(
        self, rollout: Rollout, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Observations (n, O) of some rows, as the environment gave them, and their masks (n, W).

        Parameters
        ----------
        rollout
            That the batch was made of.
        numbers
            (n,), of the rows, from 0 to N - 1. W is 0 where the environment has no masks.
        """
        observations = rollout.select(rollout.observations)[numbers]
        return observations, rollout.select(rollout.action_masks)[numbers]

    def explained_variance(self) -> float:
        """1 - Var(R - V) / Var(R), see :func:`trpo_fast.training.record.explained_variance`."""
        from .record import explained_variance

        return explained_variance(self.values, self.returns)
