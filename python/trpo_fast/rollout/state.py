"""What of a sampler goes on from one rollout to the next."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .crashes import Episode
    from .filling import RolloutBuffers

Array: TypeAlias = npt.NDArray[Any]


class RunState:
    """Counters, running episodes and current observations of E environments.

    Parameters
    ----------
    n_envs
        E.
    obs_dim
        O.
    dtype
        dtype of observations.
    mask_width
        W, flags of an action mask; 0 where there are none.

    Attributes
    ----------
    counters
        Actions drawn so far: (E,), uint64.
    returns
        Undiscounted rewards of the running episodes so far: (E,), float64.
    lengths
        Their steps so far: (E,), int64.
    observations
        What the next action will be chosen for: (E, O), dtype.
    action_masks
        Which choices are allowed for it: (E, W), bool.
    steps_beside
        Steps taken outside rollouts, by which the parent of a worker process sees that it lives:
        (1,), int64.
    """

    NAMES = ("counters", "returns", "lengths", "observations", "action_masks")
    """What a rollout begins with and leaves behind."""

    def __init__(
        self, n_envs: int, obs_dim: int, dtype: npt.DTypeLike, mask_width: int = 0
    ) -> None:
        self.counters = np.zeros(n_envs, np.uint64)
        self.returns = np.zeros(n_envs, np.float64)
        self.lengths = np.zeros(n_envs, np.int64)
        self.observations: Array = np.zeros((n_envs, obs_dim), dtype)
        self.action_masks = np.ones((n_envs, mask_width), np.bool_)
        self.steps_beside = np.zeros(1, np.int64)

    def keep_in(self, arrays: Mapping[str, Array]) -> None:
        """Move into arrays of the caller, named as the attributes are.

        Parameters
        ----------
        arrays
            By name, of the same shapes and dtypes.
        """
        for name in (*self.NAMES, "steps_beside"):
            values = getattr(self, name).copy()
            setattr(self, name, arrays[name])
            arrays[name][...] = values

    def read(self, arrays: Mapping[str, Array], group: slice) -> None:
        """Take the values of a group of environments from arrays of that group.

        Parameters
        ----------
        arrays
            By name, of the environments of the group.
        group
            A slice of the indices of environments.
        """
        for name in self.NAMES:
            getattr(self, name)[group] = arrays[name]

    def write(self, arrays: Mapping[str, Array], group: slice) -> None:
        """Put the values of a group of environments into arrays of that group.

        Parameters
        ----------
        arrays
            By name, of the environments of the group; written to.
        group
            A slice of the indices of environments.
        """
        for name in self.NAMES:
            arrays[name][:] = getattr(self, name)[group]

    def forget_episodes(self) -> None:
        """Nobody can finish the running episodes: the next ones are counted from 0."""
        self.returns[:] = 0.0
        self.lengths[:] = 0

    def finish_episodes(
        self, buffers: RolloutBuffers, episodes: Sequence[Episode]
    ) -> list[tuple[int, int, float, int]]:
        """Count the steps and rewards of a rollout.

        Rewards are added one after the other, so that the sum does not depend on where one rollout
        stops and the next begins. Rows that are not valid have reward 0 and count no step.

        Parameters
        ----------
        buffers
            The rollout.
        episodes
            All of them, by environment, then time.

        Returns
        -------
        list
            (t, e, return, length) of the episodes that ended, ordered by t, then e.
        """
        n_steps, n_envs = buffers.valid.shape
        counted = np.zeros((n_envs, n_steps + 1), np.int64)  # [e, t]: valid rows before row t
        np.cumsum(buffers.valid.T, axis=1, out=counted[:, 1:])
        # Numbers of Python, because NumPy's are slow one by one.
        rewards, steps_before = buffers.rewards.T.tolist(), counted.tolist()
        returns, lengths = self.returns.tolist(), self.lengths.tolist()
        finished = []
        for episode in episodes:
            e, begin, after = episode.e, episode.begin, episode.end + 1
            total, length = 0.0, 0
            if not episode.lost:
                total = reduce(operator.add, rewards[e][begin:after], returns[e])
                length = lengths[e] + steps_before[e][after] - steps_before[e][begin]
                if not episode.goes_on:
                    finished.append((episode.end, e, total, length))
                    total, length = 0.0, 0
            returns[e], lengths[e] = total, length
        self.returns[:], self.lengths[:] = returns, lengths
        return sorted(finished)
