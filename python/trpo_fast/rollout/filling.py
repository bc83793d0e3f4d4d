"""What a rollout is filled into: its arrays, what happened, and who still steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs.interface import flags_of, numbers_of
from .budget import Budget
from .data import ROW_ARRAYS, STEP_ARRAYS, no_masks

Array: TypeAlias = npt.NDArray[Any]

LONGEST_EPISODE = 200_000
"""Steps beyond its budget after which an episode is taken to be without end."""


@dataclass
class RolloutBuffers:
    """The arrays that a sampler fills, before they become a `Rollout`.

    ``observations`` and ``action_masks`` have one row more than there are steps: row T holds what the
    next rollout starts from, so that the inner loop writes every successor in the same way. A caller
    that owns the memory (shared memory, say) may build this from its own C-contiguous arrays.

    Attributes
    ----------
    observations
        (T + 1, E, O), dtype.
    actions
        (T, E, A), dtype or int32.
    rewards
        (T, E), float64.
    terminated, truncated
        (T, E), bool; False to begin with.
    valid
        (T, E), bool; True to begin with.
    action_masks
        (T + 1, E, W), bool; W is 0 where there are no masks.
    """

    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    action_masks: npt.NDArray[np.bool_] = field(default_factory=no_masks)

    def __post_init__(self) -> None:
        if not self.action_masks.size:
            self.action_masks = no_masks(*self.observations.shape[:2])

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
        mask_width: int = 0,
    ) -> RolloutBuffers:
        """Fresh arrays for T = ``n_steps``, E = ``n_envs``, O = ``obs_dim``, A = ``action_dim``.

        Parameters
        ----------
        n_steps
            T, at least 1.
        n_envs
            E, at least 1.
        obs_dim
            O, at least 1.
        action_dim
            A, at least 1.
        dtype
            Of observations: float32 or float64.
        action_dtype
            Of actions: that of the policy, or int32.
        mask_width
            W, at least 0.
        """
        shape = (n_steps, n_envs)
        return cls(
            observations=np.empty((n_steps + 1, n_envs, obs_dim), dtype),
            actions=np.empty((*shape, action_dim), action_dtype),
            rewards=np.zeros(shape),
            terminated=np.zeros(shape, np.bool_),
            truncated=np.zeros(shape, np.bool_),
            valid=np.ones(shape, np.bool_),
            action_masks=np.empty((n_steps + 1, n_envs, mask_width), np.bool_),
        )

    def fill_row(self, t: int, rewards: Any, terminated: Any, truncated: Any) -> None:
        """Store what a step of a vector environment returned, whatever arrays hold it.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        rewards, terminated, truncated
            (E,) each, numbers and flags.

        Raises
        ------
        TypeError
            Something else.
        """
        n_envs = self.rewards.shape[1]
        self.rewards[t] = numbers_of(rewards, n_envs)
        self.terminated[t] = flags_of("terminated", terminated, n_envs)
        self.truncated[t] = flags_of("truncated", truncated, n_envs)

    def without_masks(self) -> RolloutBuffers:
        """The same arrays for environments that turn out to have no masks."""
        return replace(self, action_masks=no_masks())

    def rows(self, n_steps: int) -> RolloutBuffers:
        """The first ``n_steps`` rows, as views.

        Parameters
        ----------
        n_steps
            In [1, T].
        """
        if n_steps == len(self.rewards):
            return self
        return RolloutBuffers(
            observations=self.observations[: n_steps + 1],
            action_masks=self.action_masks[: n_steps + 1],
            **{name: getattr(self, name)[:n_steps] for name in STEP_ARRAYS},
        )

    def copy_to(self, larger: RolloutBuffers) -> RolloutBuffers:
        """Copy all rows to the beginning of ``larger`` arrays, and return these.

        Parameters
        ----------
        larger
            Arrays of at least as many steps and of the same environments.
        """
        for name in ROW_ARRAYS:
            values = getattr(self, name)
            getattr(larger, name)[: len(values)] = values
        return larger


@dataclass
class Events:
    """What happened between the rows of a rollout while it was filled."""

    ends: list[tuple[int, int]] = field(default_factory=list)
    """(t, e) of the last step of every episode that ended, ordered by t, then e."""

    final_indices: list[tuple[int, int]] = field(default_factory=list)
    """Those of them that were truncated and did not terminate."""

    finals: list[Array] = field(default_factory=list)
    """Their true final observations, encoded: (O,), dtype."""

    crashes: dict[tuple[int, int], str] = field(default_factory=dict)
    """Why environment e was replaced in row t: its step failed, or, where an episode ended in that
    row, the reset after it."""

    metrics: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    """What the infos of those last steps told, where they told something, by (t, e)."""

    def begin_of(self, t: int, e: int) -> int:
        """The first row of the episode of environment e that row t belongs to.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        e
            Environment of this sampler, from 0.
        """
        boundaries = (k for k, other in (*self.ends, *self.crashes) if other == e and k < t)
        return 1 + max(boundaries, default=-1)

    def forget_finals(self, lost: set[tuple[int, int]]) -> None:
        """Drop the final observations of episodes that are lost, by (t, e) of their last steps.

        Parameters
        ----------
        lost
            (t, e) of the last step of each lost episode.
        """
        kept = [n for n, index in enumerate(self.final_indices) if index not in lost]
        self.final_indices = [self.final_indices[n] for n in kept]
        self.finals = [self.finals[n] for n in kept]


class Quota:
    """Which environments still step in a rollout, and how many rows the others took.

    Parameters
    ----------
    budget
        How much each environment is to take.

    Attributes
    ----------
    going
        The environments that still step, in their order.
    rows
        Rows of those that have taken their share, 0 for those that still step: (E,), int64.
    least
        Rows after which the first ones may have taken their share.
    """

    def __init__(self, budget: Budget) -> None:
        self._steps = budget.steps
        self._whole_episodes = budget.whole_episodes
        self.going = list(range(len(budget.steps)))
        self.rows = np.zeros(len(budget.steps), np.int64)
        self.least = min(budget.steps)

    def close_row(self, t: int, buffers: RolloutBuffers, events: Events) -> None:
        """Row t is full: whoever has taken its share is padded from the next one on.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        buffers
            The arrays of the rollout, see `RolloutBuffers`.
        events
            What happened in it.
        """
        going = []
        for e in self.going:
            ended = bool(buffers.terminated[t, e] or buffers.truncated[t, e])
            if t + 1 < self._steps[e] or (
                self._whole_episodes and not ended and (t, e) not in events.crashes
            ):
                going.append(e)
            else:
                self.rows[e] = t + 1
                self.pad(buffers, e, t + 1)
        self.going = going

    def pad(self, buffers: RolloutBuffers, e: int, row: int) -> None:
        """Fill the rows that environment e did not take.

        Parameters
        ----------
        buffers
            The arrays of the rollout.
        e
            An environment that has taken its share.
        row
            Whose observation and mask it goes on from.
        """
        begin = self.rows[e]
        for states in (buffers.observations, buffers.action_masks):
            states[begin:, e] = states[row, e]
        buffers.actions[begin:, e] = 0
        buffers.rewards[begin:, e] = 0.0
        buffers.valid[begin:, e] = False


@dataclass
class Filling:
    """A rollout while it is filled: its arrays, what happened, and who still steps."""

    buffers: RolloutBuffers
    events: Events
    quota: Quota

    def grow(self, larger: RolloutBuffers) -> None:
        """Go on in larger arrays, which take over all full rows.

        Parameters
        ----------
        larger
            Arrays of more steps and of the same environments.
        """
        n_steps = len(self.buffers.rewards)
        self.buffers = self.buffers.copy_to(larger)
        stopped = set(range(len(self.quota.rows))) - set(self.quota.going)
        for e in stopped:
            self.quota.pad(larger, e, n_steps)


def first_rows(budget: Budget) -> int:
    """Rows to begin a rollout with: enough for a budget of steps.

    Parameters
    ----------
    budget
        What the rollout is to take.
    """
    return (2 if budget.whole_episodes else 1) * max(budget.steps)


def most_rows(budget: Budget) -> int:
    """Rows after which an episode is taken to be without end.

    Parameters
    ----------
    budget
        What the rollout is to take.
    """
    return max(budget.steps) + LONGEST_EPISODE
