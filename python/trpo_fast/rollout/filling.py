"""What a rollout is filled into: its arrays, what happened, and who still steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .data import ROW_ARRAYS

Array: TypeAlias = npt.NDArray[Any]


@dataclass
class RolloutBuffers:
    """The arrays that a sampler fills, before they become a `Rollout`.

    `observations` has one row more than there are steps: row T holds the observations that the next
    rollout starts from, so that the inner loop writes every successor in the same way. A caller
    that owns the memory (shared memory, say) may build this from its own C-contiguous arrays.
    """

    observations: Array  # (T + 1, E, O), dtype
    actions: Array  # (T, E, A), dtype or int32
    rewards: npt.NDArray[np.float64]  # (T, E), in the environment's unit
    terminated: npt.NDArray[np.bool_]  # (T, E), False
    truncated: npt.NDArray[np.bool_]  # (T, E), False
    valid: npt.NDArray[np.bool_]  # (T, E), True

    @classmethod
    def allocate(
        cls,
        n_steps: int,
        n_envs: int,
        *,
        obs_dim: int,
        action_dim: int,
        dtype: npt.DTypeLike,
        action_dtype: npt.DTypeLike,
    ) -> RolloutBuffers:
        """Fresh arrays for T = `n_steps` and E = `n_envs`."""
        shape = (n_steps, n_envs)
        return cls(
            observations=np.empty((n_steps + 1, n_envs, obs_dim), dtype),
            actions=np.empty((*shape, action_dim), action_dtype),
            rewards=np.zeros(shape),
            terminated=np.zeros(shape, np.bool_),
            truncated=np.zeros(shape, np.bool_),
            valid=np.ones(shape, np.bool_),
        )

    def rows(self, n_steps: int) -> RolloutBuffers:
        """The first `n_steps` rows."""
        if n_steps == len(self.rewards):
            return self
        return RolloutBuffers(
            observations=self.observations[: n_steps + 1],
            **{name: getattr(self, name)[:n_steps] for name in ROW_ARRAYS[1:]},
        )

    def copy_to(self, larger: RolloutBuffers) -> RolloutBuffers:
        """Copy all rows to the beginning of larger arrays, and return these."""
        for name in ROW_ARRAYS:
            values = getattr(self, name)
            getattr(larger, name)[: len(values)] = values
        return larger
