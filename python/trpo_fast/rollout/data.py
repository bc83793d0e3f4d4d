"""The arrays of one rollout, and how they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

# T time steps, E environments, O observation dim, K action dim; S the policy's dtype


@dataclass
class Rollout:
    """T steps of each of E environments: `(time, environment, feature)`, all C-contiguous.

    Row `(t, e)` is the transition s_t, a_t, r_t of environment e. Its successor s_{t+1} is
    `observations[t + 1, e]` (at t = T - 1: `last_observations[e]`), unless the episode ended there:
    where it was truncated, the successor is in `final_observations`; where it terminated, none is
    needed. An episode that is still running at the end goes on in the next rollout.

    The arrays belong to the rollout: the sampler never writes to them again.
    """

    observations: Array  # (T, E, O) S, as the environment gave them (not normalised)
    actions: Array  # (T, E, K) S or int32, as sampled (not clipped)
    rewards: npt.NDArray[np.float64]  # (T, E)
    terminated: npt.NDArray[np.bool_]  # (T, E) the episode ended in a terminal state
    truncated: npt.NDArray[np.bool_]  # (T, E) the episode was cut off
    valid: npt.NDArray[np.bool_]  # (T, E) False: an autoreset, not a transition; never train on it
    last_observations: Array  # (E, O) S, what the next action will be chosen for
    final_observations: Array  # (M, O) S, true successors of truncated, not terminated, steps
    final_indices: npt.NDArray[np.int64]  # (M, 2) their (t, e), ordered by t, then e
    episode_returns: npt.NDArray[np.float64]  # (J,) undiscounted, of episodes that ended here
    episode_lengths: npt.NDArray[np.int64]  # (J,) steps
    episode_indices: npt.NDArray[np.int64]  # (J, 2) (t, e) of the last step, ordered by t, then e
    seconds: float  # wall-clock time of the collection
    # one sentence for every environment that crashed and was replaced; the steps of its episode are
    # not valid
    crashes: tuple[str, ...] = ()

    @property
    def n_steps(self) -> int:
        """T, steps of each environment."""
        return int(self.rewards.shape[0])

    @property
    def n_envs(self) -> int:
        """E, number of environments."""
        return int(self.rewards.shape[1])

    @property
    def n_transitions(self) -> int:
        """Number of valid rows: steps that an environment took."""
        return int(np.count_nonzero(self.valid))

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """Rollouts of disjoint groups of environments side by side, in the order given.

        Environment e of part p becomes environment e + (number of environments before p). The
        result equals, bit for bit, the rollout of one sampler over all these environments. Its
        `seconds` is that of the slowest part.

        Raises:
            ValueError: no parts, or parts of different length.
        """
        if not parts or len({part.n_steps for part in parts}) != 1:
            raise ValueError(
                "parts: expected rollouts of the same number of steps, got "
                f"{[part.n_steps for part in parts]}"
            )
        offsets = np.cumsum([0, *(part.n_envs for part in parts)])

        def side_by_side(name: str) -> Array:
            return np.concatenate([getattr(part, name) for part in parts], axis=1)

        def shifted(name: str) -> npt.NDArray[np.int64]:
            indices = [
                getattr(part, name) + np.array([0, offset])
                for part, offset in zip(parts, offsets[:-1], strict=True)
            ]
            return np.concatenate(indices)

        final_indices, episode_indices = shifted("final_indices"), shifted("episode_indices")
        finals = np.lexsort(final_indices.T[::-1])
        episodes = np.lexsort(episode_indices.T[::-1])
        return Rollout(
            observations=side_by_side("observations"),
            actions=side_by_side("actions"),
            rewards=side_by_side("rewards"),
            terminated=side_by_side("terminated"),
            truncated=side_by_side("truncated"),
            valid=side_by_side("valid"),
            last_observations=np.concatenate([part.last_observations for part in parts]),
            final_observations=np.concatenate([part.final_observations for part in parts])[finals],
            final_indices=final_indices[finals],
            episode_returns=np.concatenate([part.episode_returns for part in parts])[episodes],
            episode_lengths=np.concatenate([part.episode_lengths for part in parts])[episodes],
            episode_indices=episode_indices[episodes],
            seconds=max(part.seconds for part in parts),
            crashes=tuple(sentence for part in parts for sentence in part.crashes),
        )


@dataclass
class RolloutBuffers:
    """The arrays that a sampler fills, before they become a `Rollout`.

    `observations` has one row more than there are steps: row T holds the observations that the next
    rollout starts from, so that the inner loop writes every successor in the same way. A caller
    that owns the memory (shared memory, say) may build this from its own C-contiguous arrays.
    """

    observations: Array  # (T + 1, E, O) S
    actions: Array  # (T, E, K)
    rewards: npt.NDArray[np.float64]  # (T, E)
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
