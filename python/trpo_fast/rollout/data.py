"""The arrays of one rollout, and how they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..config import Sampling

Array: TypeAlias = npt.NDArray[Any]

# T time steps, E environments, O observation dim, K action dim; S the policy's dtype


@dataclass(frozen=True)
class Budget:
    """How much of each of E environments one rollout takes.

    Environment e takes exactly `steps[e]` steps, or, by "episodes", whole episodes until it has
    taken so many. That is settled before the first step and asks for no clock: the rollout is the
    same however long a step of which environment takes, and whoever steps it. Nobody waits for
    another environment between two steps; only at the end the rollout waits for the last one.

    Vector environments step all their environments together. They take "total_steps" in rows, until
    the transitions of all environments, without autoresets, are `total`, at most E - 1 too many;
    they cannot take "episodes".

    Raises:
        ValueError: an environment is to take less than one step.
    """

    sampling: Sampling
    steps: tuple[int, ...]  # (E,) at least 1

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(
                f"budget: expected at least 1 step of each environment, got {self.steps}"
            )

    @classmethod
    def share(cls, sampling: Sampling, batch_size: int, n_envs: int) -> Budget:
        """Share out a batch: see `trpo_fast.config.TRPOConfig.sampling`.

        By "steps", each environment takes ceil(batch_size / E) steps. Otherwise, the first
        (batch_size mod E) environments take one step more than the others.

        Raises:
            ValueError: fewer steps than environments.
        """
        if sampling == "steps":
            return cls(sampling, (-(-batch_size // n_envs),) * n_envs)
        if batch_size < n_envs:
            raise ValueError(
                f"batch_size: expected at least one step for each of the {n_envs} environments, "
                f"got {batch_size}; raise batch_size or lower n_envs"
            )
        each, rest = divmod(batch_size, n_envs)
        return cls(sampling, tuple(each + (e < rest) for e in range(n_envs)))

    def part(self, group: slice) -> Budget:
        """The budget of some of the environments."""
        return Budget(self.sampling, self.steps[group])

    @property
    def total(self) -> int:
        """Steps of all environments together."""
        return sum(self.steps)

    @property
    def whole_episodes(self) -> bool:
        """Whether an environment goes on to the end of its episode."""
        return self.sampling == "episodes"


@dataclass
class Rollout:
    """T rows of each of E environments: `(time, environment, feature)`, all C-contiguous.

    Row `(t, e)` is the transition s_t, a_t, r_t of environment e. Its successor s_{t+1} is
    `observations[t + 1, e]` (at t = T - 1: `last_observations[e]`), unless the episode ended there:
    where it was truncated, the successor is in `final_observations`; where it terminated, none is
    needed. An episode that is still running at the end goes on in the next rollout.

    An environment that takes fewer steps than another is padded at the end: the rows that it does
    not take are not valid, and hold the observation that it goes on from, action 0 and reward 0.

    The arrays belong to the rollout: the sampler never writes to them again.
    """

    observations: Array  # (T, E, O) S, as the environment gave them (not normalised)
    actions: Array  # (T, E, K) S or int32, as sampled (not clipped)
    rewards: npt.NDArray[np.float64]  # (T, E)
    terminated: npt.NDArray[np.bool_]  # (T, E) the episode ended in a terminal state
    truncated: npt.NDArray[np.bool_]  # (T, E) the episode was cut off
    valid: npt.NDArray[np.bool_]  # (T, E) False: an autoreset or padding; never train on it
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
        """T, rows of each environment."""
        return int(self.rewards.shape[0])

    @property
    def n_envs(self) -> int:
        """E, number of environments."""
        return int(self.rewards.shape[1])

    @property
    def n_transitions(self) -> int:
        """Number of valid rows: steps that an environment took."""
        return int(np.count_nonzero(self.valid))

    def padded(self, n_steps: int) -> Rollout:
        """This rollout with T = `n_steps` rows, the new ones not valid.

        Raises:
            ValueError: it has more rows already.
        """
        more = n_steps - self.n_steps
        if more < 0:
            raise ValueError(f"n_steps: expected at least the {self.n_steps} rows, got {n_steps}")
        if more == 0:
            return self

        def zeros_after(values: Array) -> Array:
            return np.concatenate([values, np.zeros((more, *values.shape[1:]), values.dtype)])

        rest = np.broadcast_to(self.last_observations, (more, *self.last_observations.shape))
        return replace(
            self,
            observations=np.concatenate([self.observations, rest]),
            actions=zeros_after(self.actions),
            rewards=zeros_after(self.rewards),
            terminated=zeros_after(self.terminated),
            truncated=zeros_after(self.truncated),
            valid=zeros_after(self.valid),
        )

    @staticmethod
    def join(parts: Sequence[Rollout]) -> Rollout:
        """Rollouts of the same environments one after the other, each going on from the last one.

        Raises:
            ValueError: no parts, or parts of different numbers of environments.
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
            **{name: in_turn(name) for name in _ROWS},
            last_observations=parts[-1].last_observations,
            final_observations=in_turn("final_observations"),
            final_indices=shifted("final_indices"),
            episode_returns=in_turn("episode_returns"),
            episode_lengths=in_turn("episode_lengths"),
            episode_indices=shifted("episode_indices"),
            seconds=sum(part.seconds for part in parts),
            crashes=tuple(sentence for part in parts for sentence in part.crashes),
        )

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """Rollouts of disjoint groups of environments side by side, in the order given.

        Environment e of part p becomes environment e + (number of environments before p). Shorter
        parts are padded. The result equals, bit for bit, the rollout of one sampler over all these
        environments. Its `seconds` is that of the slowest part.

        Raises:
            ValueError: no parts.
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
            **{name: side_by_side(name) for name in _ROWS},
            last_observations=np.concatenate([part.last_observations for part in parts]),
            final_observations=np.concatenate([part.final_observations for part in parts])[finals],
            final_indices=final_indices[finals],
            episode_returns=np.concatenate([part.episode_returns for part in parts])[episodes],
            episode_lengths=np.concatenate([part.episode_lengths for part in parts])[episodes],
            episode_indices=episode_indices[episodes],
            seconds=max(part.seconds for part in parts),
            crashes=tuple(sentence for part in parts for sentence in part.crashes),
        )


# of a rollout: (T, E, ...)
_ROWS = ("observations", "actions", "rewards", "terminated", "truncated", "valid")


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

    def rows(self, n_steps: int) -> RolloutBuffers:
        """The first `n_steps` rows."""
        if n_steps == len(self.rewards):
            return self
        return RolloutBuffers(
            observations=self.observations[: n_steps + 1],
            **{name: getattr(self, name)[:n_steps] for name in _ROWS[1:]},
        )

    def copy_to(self, larger: RolloutBuffers) -> RolloutBuffers:
        """Copy all rows to the beginning of larger arrays, and return these."""
        for name in _ROWS:
            values = getattr(self, name)
            getattr(larger, name)[: len(values)] = values
        return larger
