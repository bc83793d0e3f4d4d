"""What one update learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
