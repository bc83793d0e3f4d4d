"""The arrays of one rollout, and how they are laid out.

Letters of shapes, here and in the whole room:

====  ==============================================================================
T     time steps of a rollout: rows of each environment
E     environments
O     entries of an observation, once it is a flat row
A     entries of an action: its dimensions, or the number of its discrete parts
N     transitions: valid rows, all environments together
M     final observations of a rollout
J     episodes that ended in a rollout
K     branches of a state (vine sampling only)
D     parameters of a policy
W     flags of an action mask: choices of all parts of an action; 0 where there are no masks
====  ==============================================================================

"dtype" without a name is that of the policy, float32 or float64. Rows of environments that stopped
before others, rows of dropped episodes and autoresets of vector environments are marked in
`Rollout.valid`. Nobody outside this room needs to look at it: `Rollout.transitions` and
`Rollout.select` hand out the rows that are transitions, and `Rollout.boundaries` tells a recursion
over time where to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .metrics import Metrics, joined

Array: TypeAlias = npt.NDArray[Any]

# Names of the arrays (T, E, ...) of a rollout: those of states, then those of steps.
STATE_ARRAYS = ("observations", "action_masks")
STEP_ARRAYS = ("actions", "rewards", "terminated", "truncated", "valid")
ROW_ARRAYS = (*STATE_ARRAYS, *STEP_ARRAYS)


def no_masks(*shape: int) -> npt.NDArray[np.bool_]:
    """Masks of no flags, (..., 0) bool: everything is allowed.

    Parameters
    ----------
    *shape
        Leading axes.
    """
    return np.zeros((*shape, 0), np.bool_)


@dataclass(frozen=True, eq=False)
class Transitions:
    """The N transitions of a rollout as flat arrays, ordered by time, then environment.

    Only steps that an environment really took are here. Arrays may be views of the rollout's.

    Attributes
    ----------
    observations
        s, as the environment gave it (not normalised): (N, O), dtype.
    actions
        a, as it was sampled (not clipped): (N, A), dtype or int32.
    rewards
        r: (N,), float64, in the environment's unit.
    terminated
        Whether the episode ended in a terminal state: (N,), bool.
    truncated
        Whether the episode was cut off: (N,), bool.
    action_masks
        Which choices the environment allowed: (N, W), bool; None where it has no masks.
    """

    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    action_masks: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass
class Rollout:
    """T rows of each of E environments: ``(time, environment, feature)``, all C-contiguous.

    Row ``(t, e)`` is the transition s_t, a_t, r_t of environment e. Its successor s_{t+1} is
    ``observations[t + 1, e]`` (at t = T - 1: ``last_observations[e]``), unless the episode ended
    there: where it was truncated, the successor is in ``final_observations``; where it terminated,
    none is needed. An episode that is still running at the end goes on in the next rollout.

    An environment that takes fewer steps than another is padded at the end: the rows that it does
    not take are not valid, and hold the observation that it goes on from, action 0 and reward 0.

    The arrays belong to the rollout: the sampler never writes to them again.

    Attributes
    ----------
    observations
        As the environment gave them (not normalised): (T, E, O), dtype.
    actions
        As they were sampled (not clipped): (T, E, A), dtype or int32.
    rewards
        In the environment's unit: (T, E), float64.
    terminated
        Whether the episode ended in a terminal state: (T, E), bool.
    truncated
        Whether the episode was cut off: (T, E), bool.
    valid
        False for an autoreset, a dropped episode or padding, which are no transitions: (T, E), bool.
    last_observations
        What the next action will be chosen for: (E, O), dtype.
    final_observations
        True successors of steps that are truncated and not terminated: (M, O), dtype.
    final_indices
        Their (t, e), ordered by t, then e: (M, 2), int64.
    episode_returns
        Undiscounted returns of the episodes that ended here: (J,), float64.
    episode_lengths
        Their steps: (J,), int64.
    episode_indices
        (t, e) of their last steps, ordered by t, then e: (J, 2), int64.
    seconds
        Wall-clock time of the collection.
    episode_metrics
        What the infos of those last steps told, by name: (J,), float64, NaN where one did not tell.
        "success" is ``is_success`` or ``success``; the others are those that were asked for.
    crashes
        One sentence for every environment that crashed and was replaced, by environment, then time.
        The rows of its broken episode are not valid.
    notices
        Sentences about its making that are worth telling, though nothing of it is missing.
    action_masks
        Which choices the environment allowed for each action: (T, E, W), bool; everything in rows
        that are not valid.
    last_action_masks
        The same of `last_observations`: (E, W), bool.
    """

    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    last_observations: Array
    final_observations: Array
    final_indices: npt.NDArray[np.int64]
    episode_returns: npt.NDArray[np.float64]
    episode_lengths: npt.NDArray[np.int64]
    episode_indices: npt.NDArray[np.int64]
    seconds: float
    crashes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    episode_metrics: Metrics = field(default_factory=dict)
    action_masks: npt.NDArray[np.bool_] = field(default_factory=no_masks)
    last_action_masks: npt.NDArray[np.bool_] = field(default_factory=no_masks)

    def __post_init__(self) -> None:
        if not self.action_masks.size:
            self.action_masks = no_masks(self.n_steps, self.n_envs)
            self.last_action_masks = no_masks(self.n_envs)

    @property
    def has_masks(self) -> bool:
        """Whether the environments say which actions are allowed."""
        return bool(self.action_masks.shape[2])

    @property
    def n_steps(self) -> int:
        """T, rows of each environment."""
        return int(self.rewards.shape[0])

    @property
    def n_envs(self) -> int:
        """E, number of environments."""
        return int(self.rewards.shape[1])

    @property
    def n_transitions(self) -> int:
        """N, steps that environments took."""
        return int(np.count_nonzero(self.valid))

    # --- for those who learn from it ---

    def transitions(self) -> Transitions:
        """The N steps that environments took, as flat arrays."""
        return Transitions(
            observations=self.select(self.observations),
            actions=self.select(self.actions),
            rewards=self.select(self.rewards),
            terminated=self.select(self.terminated),
            truncated=self.select(self.truncated),
            action_masks=self.select(self.action_masks) if self.has_masks else None,
        )

    def select(self, values: Array) -> Array:
        """The entries of an array that belong to transitions, in the order of `transitions`.

        Parameters
        ----------
        values
            (T, E, ...), any dtype.

        Returns
        -------
        Array
            (N, ...); a view where every row is a transition, a copy elsewhere.
        """
        flat = values.reshape(self.valid.size, *values.shape[2:])
        return flat if self.valid.all() else flat[self.valid.ravel()]

    @property
    def boundaries(self) -> npt.NDArray[np.bool_]:
        """Steps after which a recursion over time starts anew, though nothing terminated.

        These are the truncated steps and the last real step before rows that are no transitions,
        so that generalised advantages do not run into padding. (T, E), bool; a step that terminated
        is marked only if it was truncated as well.
        """
        if self.valid.all():
            return self.truncated
        boundaries = self.truncated.copy()
        boundaries[:-1] |= self.valid[:-1] & ~self.valid[1:] & ~self.terminated[:-1]
        return boundaries

    def next_values(
        self,
        values: npt.NDArray[np.float64],
        last_values: npt.NDArray[np.float64],
        final_values: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """The value V(s_{t+1}) of every step's true successor.

        That is the value of the next row, of the state that the environment goes on from after the
        last row, and of the true final observation where an episode was cut off. At terminated
        steps the entry means nothing, because nobody may use it.

        Parameters
        ----------
        values
            V of `observations`: (T, E), float64.
        last_values
            V of `last_observations`: (E,), float64.
        final_values
            V of `final_observations`: (M,), float64.

        Returns
        -------
        numpy.ndarray
            (T, E), float64.
        """
        successors = np.empty_like(values)
        successors[:-1] = values[1:]
        successors[-1] = last_values
        t, e = self.final_indices.T
        successors[t, e] = final_values
        return successors

    def steps_from_start(self) -> npt.NDArray[np.int64]:
        """Steps since the path of each transition began in this rollout, from 0: (N,), int64."""
        ends = self.terminated | self.truncated
        rows = np.arange(self.n_steps)[:, np.newaxis]
        begins = np.zeros(ends.shape, np.int64)
        begins[1:] = np.where(ends[:-1], rows[1:], 0)
        steps: npt.NDArray[np.int64] = self.select(rows - np.maximum.accumulate(begins))
        return steps

    # --- putting rollouts together ---

    def padded(self, n_steps: int) -> Rollout:
        """This rollout with T = ``n_steps`` rows, the new ones not valid.

        Parameters
        ----------
        n_steps
            At least the rows that it has.

        Returns
        -------
        Rollout
            Itself where it has so many rows already.

        Raises
        ------
        ValueError
            It has more rows already.
        """
        more = n_steps - self.n_steps
        if more < 0:
            raise ValueError(f"n_steps: expected at least the {self.n_steps} rows, got {n_steps}")
        if more == 0:
            return self

        def zeros_after(values: Array) -> Array:
            return np.concatenate([values, np.zeros((more, *values.shape[1:]), values.dtype)])

        def last_after(values: Array, last: Array) -> Array:
            return np.concatenate([values, np.broadcast_to(last, (more, *last.shape))])

        return replace(
            self,
            observations=last_after(self.observations, self.last_observations),
            action_masks=last_after(self.action_masks, self.last_action_masks),
            actions=zeros_after(self.actions),
            rewards=zeros_after(self.rewards),
            terminated=zeros_after(self.terminated),
            truncated=zeros_after(self.truncated),
            valid=zeros_after(self.valid),
        )

    @staticmethod
    def join(parts: Sequence[Rollout]) -> Rollout:
        """Rollouts of the same environments one after the other, each going on from the last one.

        Parameters
        ----------
        parts
            At least one, in the order of time, all of E environments.

        Returns
        -------
        Rollout
            Of as many rows as the parts together.

        Raises
        ------
        ValueError
            No parts, or parts of different numbers of environments.
        """
        if not parts or len({part.n_envs for part in parts}) != 1:
            raise ValueError(
                "parts: expected rollouts of the same number of environments, got "
                f"{[part.n_envs for part in parts]}"
            )
        begins = np.cumsum([0, *(part.n_steps for part in parts)])

        def in_turn(name: str) -> Array:
            return np.concatenate([getattr(part, name) for part in parts])

        def shifted(name: str) -> npt.NDArray[np.int64]:
            indices = [
                getattr(part, name) + np.array([begin, 0])
                for part, begin in zip(parts, begins[:-1], strict=True)
            ]
            return np.concatenate(indices)

        return Rollout(
            **{name: in_turn(name) for name in ROW_ARRAYS},
            last_observations=parts[-1].last_observations,
            last_action_masks=parts[-1].last_action_masks,
            final_observations=in_turn("final_observations"),
            final_indices=shifted("final_indices"),
            episode_returns=in_turn("episode_returns"),
            episode_lengths=in_turn("episode_lengths"),
            episode_indices=shifted("episode_indices"),
            episode_metrics=_metrics_of(parts),
            seconds=sum(part.seconds for part in parts),
            crashes=tuple(sentence for part in parts for sentence in part.crashes),
            notices=tuple(sentence for part in parts for sentence in part.notices),
        )

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """Rollouts of disjoint groups of environments side by side, in the order given.

        Environment e of part p becomes environment e + (number of environments before p). Shorter
        parts are padded. The result equals, bit for bit, the rollout of one sampler over all these
        environments. Its ``seconds`` is that of the slowest part.

        Parameters
        ----------
        parts
            At least one.

        Returns
        -------
        Rollout
            Of as many environments as the parts together.

        Raises
        ------
        ValueError
            No parts.
        """
        if not parts:
            raise ValueError("parts: expected at least one rollout, got none")
        n_steps = max(part.n_steps for part in parts)
        parts = [part.padded(n_steps) for part in parts]
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
            **{name: side_by_side(name) for name in ROW_ARRAYS},
            last_observations=np.concatenate([part.last_observations for part in parts]),
            last_action_masks=np.concatenate([part.last_action_masks for part in parts]),
            final_observations=np.concatenate([part.final_observations for part in parts])[finals],
            final_indices=final_indices[finals],
            episode_returns=np.concatenate([part.episode_returns for part in parts])[episodes],
            episode_lengths=np.concatenate([part.episode_lengths for part in parts])[episodes],
            episode_indices=episode_indices[episodes],
            episode_metrics={name: told[episodes] for name, told in _metrics_of(parts).items()},
            seconds=max(part.seconds for part in parts),
            crashes=tuple(sentence for part in parts for sentence in part.crashes),
            notices=tuple(sentence for part in parts for sentence in part.notices),
        )


def _metrics_of(parts: Sequence[Rollout]) -> Metrics:
    return joined(
        [part.episode_metrics for part in parts], [len(part.episode_returns) for part in parts]
    )
