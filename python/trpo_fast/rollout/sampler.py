"""What every sampler shares: binding, seeding, episode statistics, checks, and its state.

Seeding
-------
Environment e is reset the first time with the seed `environment_seed(seed, e, counter=0)`, and from
then on draws its resets from its own generator. Environments that start anew in the middle of a run
(after `load_state_dict`, or after an interrupted rollout) take `environment_seed(seed, e, counter)`
with the number of actions taken so far, so that they do not replay the beginning of the run.
Action noise is the counter-based stream (seed, e, counter) of the policy's actor. Nothing depends
on how many steps are collected at a time, or on who steps which environment.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs import (
    ActionAdapter,
    EnvironmentFailure,
    ObservationEncoder,
    ObservationError,
)
from .budget import Budget
from .data import Rollout
from .filling import RolloutBuffers

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..config import Sampling

Array: TypeAlias = npt.NDArray[Any]


# steps, after which whole-episode sampling takes an episode to be without end
LONGEST_EPISODE = 200_000


class Actor(Protocol):
    """Chooses the actions of one time step, see `trpo_fast.core.Policy.actor`."""

    def step(self, t: int, /) -> None:
        """Read observations[t], write actions[t], advance the counters."""


class ActingPolicy(Protocol):
    """The part of `trpo_fast.core.Policy` that samplers use."""

    @property
    def obs_dim(self) -> int:
        """O."""

    @property
    def dtype(self) -> Any:
        """dtype of observations."""

    def actor(
        self,
        observations: Array,
        actions: Array,
        counters: npt.NDArray[np.uint64],
        envs: npt.NDArray[np.uint32],
        *,
        seed: int,
    ) -> Actor:
        """An actor on borrowed arrays (T, E, O), (T, E, K), (E,), (E,)."""


class Sampler(Protocol):
    """Steps environments with a policy and hands back whole rollouts."""

    name: str
    n_envs: int
    busy_cores: int
    observation_encoder: ObservationEncoder
    action_adapter: ActionAdapter

    @property
    def n_workers(self) -> int:
        """Worker processes that step them; 0: none."""

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts and the seed of the run."""

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch; ValueError where the environments cannot keep it."""

    def collect(
        self, budget: int | Budget, *, on_step: Callable[[], object] | None = None
    ) -> Rollout:
        """Take so many steps in every environment, going on where the last rollout stopped."""

    def close(self) -> None:
        """Close the environments."""

    def state_dict(self) -> dict[str, Array]:
        """Counters and running episodes."""

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore what `state_dict` returned; the environments start anew."""

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs besides; SnapshotError where it cannot be saved."""

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where both were taken, or as `load_state_dict` where entries are missing."""


def environment_seed(seed: int, env: int, counter: int = 0) -> int:
    """Seed of a reset: the first 32-bit word of `np.random.SeedSequence([seed, env, counter])`.

    A counter of 0 gives the same word as `SeedSequence([seed, env])`, which pads with zeros.
    """
    return int(np.random.SeedSequence([seed, env, counter]).generate_state(1)[0])


def save_states(sampler: Any) -> list[dict[str, Array]]:
    """The states of the environments of an `InProcessSampler`; called where they are."""
    states: list[dict[str, Array]] = sampler.keeper.save()
    return states


def load_states(sampler: Any, given: Sequence[tuple[int, Mapping[str, Array]]]) -> None:
    """Put the environments of an `InProcessSampler` into states; called where they are."""
    sampler.keeper.load(given)


def first_rows(budget: Budget) -> int:
    """Rows to begin a rollout with: enough for a budget of steps."""
    return (2 if budget.whole_episodes else 1) * max(budget.steps)


@dataclass
class Events:
    """What happened between the rows of a rollout; every list is ordered by t, then e."""

    ends: list[tuple[int, int]] = field(default_factory=list)  # (t, e) of every end of an episode
    final_indices: list[tuple[int, int]] = field(default_factory=list)  # truncated, not terminated
    finals: list[Array] = field(default_factory=list)  # their encoded final observations
    crashes: list[tuple[int, int]] = field(default_factory=list)  # (t, e) of a step that failed
    sentences: list[str] = field(default_factory=list)  # why, one for every crash


class Quota:
    """Which environments still step in a rollout, and how many rows the others took."""

    def __init__(self, budget: Budget) -> None:
        self._steps = budget.steps
        self._whole_episodes = budget.whole_episodes
        self.going = list(range(len(budget.steps)))  # in the order of the environments
        self.rows = np.zeros(len(budget.steps), np.int64)  # of those that have taken their share
        self.least = min(budget.steps)  # rows after which the first ones may have

    def close_row(self, t: int, buffers: RolloutBuffers, events: Events) -> None:
        """Row t is full: whoever has taken its share is padded from here."""
        going = []
        for e in self.going:
            ended = bool(buffers.terminated[t, e] or buffers.truncated[t, e])
            if t + 1 < self._steps[e] or (
                self._whole_episodes and not ended and (t, e) not in events.crashes
            ):
                going.append(e)
            else:
                self.rows[e] = t + 1
                self.pad(buffers, e, buffers.observations[t + 1, e])
        self.going = going

    def pad(self, buffers: RolloutBuffers, e: int, observation: Array) -> None:
        """Fill what environment e did not take; `observation` is what it goes on from."""
        begin = self.rows[e]
        buffers.observations[begin:, e] = observation
        buffers.actions[begin:, e] = 0
        buffers.rewards[begin:, e] = 0.0
        buffers.valid[begin:, e] = False


class SamplerBase:
    """State and bookkeeping of a sampler; a subclass steps the environments in `_restart`, `_step`.

    Args:
        name: name of the environment.
        observation_space, action_space: the spaces of one environment.
        n_envs: E.
        first_index: index of the first environment in the whole run. A group of environments that
            is a part of a larger run draws the same random numbers as in the whole.
        dtype: dtype of observations and continuous actions.
        state_dependent_std: the Gaussian's deviation is a network output.
    """

    def __init__(
        self,
        name: str,
        observation_space: Any,
        action_space: Any,
        *,
        n_envs: int,
        first_index: int = 0,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
    ) -> None:
        self.name = name
        self.n_envs = n_envs
        self.busy_cores = 1  # processors that a rollout has work for
        self.first_index = first_index
        self.observation_space = observation_space
        self.action_space = action_space
        self.observation_encoder = ObservationEncoder.from_space(observation_space, dtype)
        self.action_adapter = ActionAdapter.from_space(
            action_space, state_dependent_std=state_dependent_std
        )
        self._policy: ActingPolicy | None = None
        self._seed = 0
        self._started = False  # False: the environments must be reset before the next step
        self._first_steps = np.zeros(n_envs, np.int64)  # counters at the start of the rollout
        self._closed = False
        self._recovers = False  # crashed environments are replaced
        # what goes on from one rollout to the next
        self._counters = np.zeros(n_envs, np.uint64)  # actions drawn so far
        self._env_ids = np.arange(first_index, first_index + n_envs, dtype=np.uint32)
        self._returns = np.zeros(n_envs, np.float64)  # of the running episodes
        self._lengths = np.zeros(n_envs, np.int64)
        self._observations = np.zeros(
            (n_envs, self.observation_encoder.dim), self.observation_encoder.dtype
        )
        self._steps_beside = np.zeros(1, np.int64)  # outside rollouts: a sign of life

    # --- public ---

    @property
    def n_workers(self) -> int:
        """Worker processes that step the environments; 0: none."""
        return 0

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return []

    @property
    def policy(self) -> ActingPolicy | None:
        """The policy that acts; None before `bind`."""
        return self._policy

    @property
    def seed(self) -> int:
        """Seed of environments and action noise; 0 before `bind`."""
        return self._seed

    @property
    def recovers_crashes(self) -> bool:
        """Whether environments that crash are replaced, and their episodes dropped."""
        return self._recovers

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts, and the seed of environments and action noise.

        Raises:
            ValueError: the policy does not fit the environment, or the seed is negative.
        """
        seed = operator.index(seed)
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: expected an integer in [0, 2**64), got {seed}")
        encoder = self.observation_encoder
        if policy.obs_dim != encoder.dim:
            raise ValueError(
                f"policy: expected obs_dim {encoder.dim} for environment {self.name}, "
                f"got {policy.obs_dim}; make the policy from this sampler's observation_encoder"
            )
        if np.dtype(policy.dtype) != encoder.dtype:
            raise ValueError(
                f"policy: expected dtype {encoder.dtype.name}, got {np.dtype(policy.dtype).name}; "
                "make the sampler with the policy's dtype"
            )
        self._policy = policy
        self._seed = seed

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch, see `trpo_fast.config.TRPOConfig.sampling`.

        Raises:
            ValueError: these environments cannot keep it.
        """
        return Budget.share(sampling, batch_size, self.n_envs)

    def collect(
        self, budget: int | Budget, *, on_step: Callable[[], object] | None = None
    ) -> Rollout:
        """Take steps in every environment, going on where the last rollout stopped.

        Args:
            budget: T, steps of each environment, or a budget.
            on_step: called after every vector step.

        Raises:
            ValueError: a non-finite or misshapen observation, a non-finite reward or action; the
                message names environment and step, both counted from 0 (the step over the whole
                run, as drawn actions).
            EnvironmentFailure: an environment raised or broke the Gymnasium interface, or an
                episode lasts for more than `LONGEST_EPISODE` steps beyond a budget of episodes.
            RuntimeError: no policy is bound, or the sampler is closed.

        After an exception (KeyboardInterrupt included) the sampler is still usable: the steps of
        the broken rollout are dropped and the next one starts with fresh episodes.
        """
        if not isinstance(budget, Budget):
            n_steps = operator.index(budget)
            if n_steps < 1:
                raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
            budget = Budget("steps", (n_steps,) * self.n_envs)
        if len(budget.steps) != self.n_envs:
            raise ValueError(
                f"budget: expected one for the {self.n_envs} environments, got one for "
                f"{len(budget.steps)}; ask this sampler for it"
            )
        if self._closed:
            raise RuntimeError("collect: the sampler is closed; make a new one")
        if self._policy is None:
            raise RuntimeError("collect: no policy is bound; call bind(policy, seed=...) first")
        return self._collect(budget, on_step)

    def close(self) -> None:
        """Close the environments; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._started = False
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Array]:
        """Copies of what must survive a restart, one entry an environment.

        `counters` (uint64, actions drawn so far), `episode_returns` (float64) and `episode_lengths`
        (int64) of the running episodes.
        """
        return {
            "counters": self._counters.copy(),
            "episode_returns": self._returns.copy(),
            "episode_lengths": self._lengths.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore the counters; the environments start anew (or see `load_environment_state`).

        At the next rollout, environment e is reset with `environment_seed(seed, e, counter)`, and
        its running episode is forgotten, because nobody can finish it.

        Raises:
            ValueError: an entry is missing or belongs to another number of environments.
        """
        counters = state.get("counters")
        if counters is None or np.shape(counters) != (self.n_envs,):
            got = "nothing" if counters is None else f"shape {np.shape(counters)}"
            raise ValueError(
                f"sampler state: expected counters of shape ({self.n_envs},), got {got}; "
                "resume with the number of environments that the run was started with"
            )
        self._counters[:] = counters
        self._started = False

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs beside `state_dict`: the state of every environment.

        The environments are read, and nothing else, see `trpo_fast.snapshots.StateKeeper`.

        Returns
        -------
        dict
            `observations` (E, O), what the next action will be chosen for, and
            `environments.{e}.{name}`, what the keeper of environment e returns. Empty before the
            first rollout, when the environments start anew anyway.

        Raises
        ------
        SnapshotError
            The state of an environment cannot be saved; a clause behind "because".
        """
        from ..snapshots import SnapshotError

        if self._closed:
            raise SnapshotError("the environments are closed")
        if not self._started:
            if self._counters.any():
                raise SnapshotError("a rollout is under way or was broken off")
            return {}
        state = {"observations": self._observations.copy()}
        try:
            groups = self.map_groups(save_states, name="saving the environments")
        except NotImplementedError as error:
            raise SnapshotError(str(error)) from None
        saved = [arrays for group in groups for arrays in group]
        for e, arrays in enumerate(saved):
            state.update({f"environments.{e}.{name}": array for name, array in arrays.items()})
        return state

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where `{**state_dict(), **environment_state()}` was taken.

        Call `bind` first. Where the entries of `environment_state` are missing, the environments
        start anew, as after `load_state_dict`.

        Raises:
            SnapshotError: the environments cannot be put into this state; they start anew then.
            ValueError: see `load_state_dict`.
        """
        self.load_state_dict(state)
        if "observations" not in state:
            return
        given: list[Any] = []
        for e in range(self.n_envs):
            prefix = f"environments.{e}."
            arrays = {k.removeprefix(prefix): a for k, a in state.items() if k.startswith(prefix)}
            seed = environment_seed(self._seed, self.first_index + e, int(self._counters[e]))
            given.append((seed, arrays))
        try:
            self.map_groups(
                load_states, [given[group] for group in self.groups], name="loading environments"
            )
        except NotImplementedError as error:
            from ..snapshots import SnapshotError

            raise SnapshotError(str(error)) from None
        self._observations[:] = state["observations"]
        self._returns[:] = state["episode_returns"]
        self._lengths[:] = state["episode_lengths"]
        self._started = True

    @property
    def groups(self) -> list[slice]:
        """Which environments are stepped together, one group a process."""
        return [slice(0, self.n_envs)]

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Call a function on the sampler of each group, see `WorkerSampler.map_groups`.

        Raises
        ------
        NotImplementedError
            A vector environment, whose parts cannot be reached.
        """
        raise NotImplementedError(self._unreachable)

    @property
    def _unreachable(self) -> str:
        return (
            f"{self.name}: the environments inside a vector environment cannot be reached; pass an "
            "id or a function that makes one environment"
        )

    def map_environments(
        self, function: Callable[..., Any], arguments: Sequence[Any] | None = None
    ) -> list[Any]:
        """Call `function(environment)`, or `function(environment, arguments[e])`, on each of them.

        Returns:
            The E results in the order of the environments.

        Raises:
            NotImplementedError: a vector environment, whose parts cannot be reached.
        """
        raise NotImplementedError(self._unreachable)

    # --- for subclasses ---

    def keep_state_in(self, lasting: Mapping[str, Array]) -> None:
        """Move what goes on from one rollout to the next into arrays of the caller."""
        for name in ("counters", "returns", "lengths", "observations", "steps_beside"):
            values = getattr(self, f"_{name}").copy()
            setattr(self, f"_{name}", lasting[name])
            lasting[name][...] = values

    def resume(self) -> None:
        """Go on at the next rollout: the environments are where the counters say already."""
        self._started = True

    def _restart(self) -> None:
        """Reset every environment with a seed and write `self._observations`."""
        raise NotImplementedError

    def _step(
        self,
        buffers: RolloutBuffers,
        row: int,
        actor: Actor,
        on_step: Callable[[], object] | None,
        events: Events,
        quota: Quota,
    ) -> int:
        """The inner loop: fill the rows from `row` on, to the last or until nobody is going.

        Returns:
            The number of rows that are full.
        """
        raise NotImplementedError

    def _renew(self, e: int) -> None:
        """Replace environment e, reset it with a fresh seed, and write `self._observations[e]`."""
        raise NotImplementedError

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        """One rollout within a budget for these environments."""
        return self.fill(budget, self._allocate, on_step)

    def _close(self) -> None:
        """Close the environments."""
        raise NotImplementedError

    def fill(
        self,
        budget: Budget,
        allocate: Callable[[int], RolloutBuffers],
        on_step: Callable[[], object] | None,
    ) -> Rollout:
        """One rollout in arrays of so many rows, and in larger ones where these do not suffice."""
        policy = self._policy
        assert policy is not None
        start_time = time.perf_counter()
        buffers = allocate(first_rows(budget))

        # an exception below leaves the environments anywhere: reset them before the next rollout
        started, self._started = self._started, False

        # start, or start again: fresh episodes, of which nothing is known
        if not started:
            self._returns[:] = 0.0
            self._lengths[:] = 0
            self._restart()
        self._first_steps = self._counters.astype(np.int64)
        buffers.observations[0] = self._observations

        # step the environments
        events, quota = Events(), Quota(budget)
        n_steps = 0
        while True:
            actor = policy.actor(
                buffers.observations[:-1],
                buffers.actions,
                self._counters,
                self._env_ids,
                seed=self._seed,
            )
            n_steps = self._step(buffers, n_steps, actor, on_step, events, quota)
            if not quota.going:
                break
            buffers = self._grown(buffers, allocate, budget, events, quota)
        buffers = buffers.rows(n_steps)
        # an actor draws for everybody; what was drawn for those that had stopped was not taken
        self._counters[:] = self._first_steps + quota.rows
        if self._recovers:
            self._drop_crashed_episodes(buffers, events)
        for e in np.flatnonzero(quota.rows < n_steps).tolist():
            quota.pad(buffers, e, buffers.observations[n_steps, e])

        # check what came back, once for the whole rollout
        final_observations = np.array(events.finals, buffers.observations.dtype)
        final_observations = final_observations.reshape(-1, buffers.observations.shape[2])
        error = self._non_finite(buffers, n_steps)
        error = error or self._non_finite_final(final_observations, events.final_indices)
        if error is not None:
            raise error

        # keep what the next rollout starts from
        returns, lengths = self._episodes(buffers, events)
        self._observations[:] = buffers.observations[n_steps]
        self._started = True
        return Rollout(
            observations=buffers.observations[:n_steps],
            actions=buffers.actions,
            rewards=buffers.rewards,
            terminated=buffers.terminated,
            truncated=buffers.truncated,
            valid=buffers.valid,
            last_observations=self._observations.copy(),
            final_observations=final_observations,
            final_indices=np.array(events.final_indices, np.int64).reshape(-1, 2),
            episode_returns=np.array(returns, np.float64),
            episode_lengths=np.array(lengths, np.int64),
            episode_indices=np.array(events.ends, np.int64).reshape(-1, 2),
            seconds=time.perf_counter() - start_time,
            crashes=tuple(events.sentences),
        )

    def _grown(
        self,
        buffers: RolloutBuffers,
        allocate: Callable[[int], RolloutBuffers],
        budget: Budget,
        events: Events,
        quota: Quota,
    ) -> RolloutBuffers:
        """Larger arrays, with the full rows of `buffers`, for episodes that go on."""
        n_steps = len(buffers.rewards)
        most = max(budget.steps) + LONGEST_EPISODE
        if n_steps >= most:
            e = quota.going[0]
            began = 1 + max((t for t, other in events.ends if other == e), default=-1)
            raise EnvironmentFailure(
                f"{self._where(n_steps - 1, e)}: an episode has not ended after {n_steps - began} "
                "steps, and whole episodes are to be sampled; give the environment a time limit "
                "(max_episode_steps of gymnasium.make), or use sampling='steps'"
            )
        larger = buffers.copy_to(allocate(min(2 * n_steps, most)))
        for e in set(range(self.n_envs)) - set(quota.going):
            quota.pad(larger, e, larger.observations[n_steps, e])
        return larger

    def _allocate(self, n_steps: int) -> RolloutBuffers:
        encoder, adapter = self.observation_encoder, self.action_adapter
        return RolloutBuffers.allocate(
            n_steps,
            self.n_envs,
            obs_dim=encoder.dim,
            action_dim=adapter.action_dim,
            dtype=encoder.dtype,
            action_dtype=adapter.stored_dtype(encoder.dtype),
        )

    # --- crashes ---

    def _drop_crashed_episodes(self, buffers: RolloutBuffers, events: Events) -> None:
        """Take back every step of an episode that crashed, or that came to something not finite.

        The rows become zero and `valid = False`; what earlier rollouts hold of the episode stays.
        """
        n_steps = len(buffers.rewards)
        broken: set[int] = set()  # environments to replace before the next rollout
        for t, e in events.crashes:
            self._drop(buffers, events, t, e)

        # numbers that are not finite: the episode is lost from there to its end
        while True:
            final = self._find_non_finite_final(events)
            found = self._find_non_finite(buffers, n_steps, environment_only=True)
            if final is None and found is None:
                break
            if final is not None:
                t, e, sentence = final
            elif found is not None:
                t, rank, e, sentence = found
                if rank == 0:  # s_t came back from step t - 1, or from the reset after it
                    t -= 1
                if t < 0:  # from a reset with a seed: there is nothing to go back to
                    break
                if rank == 0 and (t, e) in events.ends:
                    t += 1
            if t == n_steps:  # a reset at the very end: no step to take back
                buffers.observations[n_steps, e] = 0
                broken.add(e)
                events.sentences.append(sentence)
                continue
            end = min((k for k, other in events.ends if other == e and k >= t), default=n_steps)
            if end == n_steps:  # it runs on: replace the environment before the next rollout
                end -= 1
                buffers.observations[n_steps, e] = 0
                broken.add(e)
            else:
                events.ends.remove((end, e))
                if (end, e) in events.final_indices:
                    del events.finals[events.final_indices.index((end, e))]
                    events.final_indices.remove((end, e))
            events.crashes.append((end, e))
            events.sentences.append(sentence)
            self._drop(buffers, events, end, e)
        events.crashes.sort()
        for e in sorted(broken):
            self._renew(e)
            buffers.observations[n_steps, e] = self._observations[e]

    @staticmethod
    def _drop(buffers: RolloutBuffers, events: Events, end: int, e: int) -> None:
        """Take back the rows of the episode of environment e that row `end` belongs to."""
        boundaries = (*events.ends, *events.crashes)
        begin = 1 + max((t for t, other in boundaries if other == e and t < end), default=-1)
        rows = slice(begin, end + 1)
        buffers.observations[rows, e] = 0
        buffers.actions[rows, e] = 0
        buffers.rewards[rows, e] = 0.0
        buffers.terminated[rows, e] = False
        buffers.truncated[rows, e] = False
        buffers.valid[rows, e] = False

    # --- episodes ---

    def _episodes(self, buffers: RolloutBuffers, events: Events) -> tuple[list[float], list[int]]:
        """Returns and lengths of the finished episodes, in the order of `events.ends`.

        Rewards are added one after the other, so that the sum does not depend on where one rollout
        stops and the next begins. Rows that are not valid have reward 0 and count no step.
        """
        n_steps = len(buffers.rewards)
        lengths_so_far = np.cumsum(buffers.valid, axis=0)
        rewards = buffers.rewards.T.tolist()
        begins = [0] * self.n_envs
        returns: list[float] = []
        lengths: list[int] = []
        crashes = set(events.crashes)
        for t, e in sorted((*events.ends, *events.crashes)):
            if (t, e) not in crashes:
                steps = rewards[e][begins[e] : t + 1]
                returns.append(reduce(operator.add, steps, self._returns[e]))
                before = lengths_so_far[begins[e] - 1, e] if begins[e] else 0
                lengths.append(int(self._lengths[e] + lengths_so_far[t, e] - before))
            self._returns[e] = 0.0
            self._lengths[e] = 0
            begins[e] = t + 1
        # the episodes that go on
        for e, begin in enumerate(begins):
            before = lengths_so_far[begin - 1, e] if begin else 0
            self._returns[e] = reduce(operator.add, rewards[e][begin:], self._returns[e])
            self._lengths[e] += lengths_so_far[n_steps - 1, e] - before
        return returns, lengths

    # --- errors ---

    def _where(self, t: int, e: int) -> str:
        """Names an environment and a step, both counted from 0 over the whole run."""
        step = int(self._first_steps[e]) + t
        return f"environment {self.first_index + e} ({self.name}), step {step}"

    def _non_finite(self, buffers: RolloutBuffers, n_steps: int) -> ValueError | None:
        """The sentence about the first NaN or infinity in the first `n_steps` rows, if any.

        The sum of finite numbers may overflow, so every entry is looked at; the sentence is only
        sought when there is something to say.
        """
        found = self._find_non_finite(buffers, n_steps)
        return None if found is None else ValueError(found[3])

    def _find_non_finite(
        self, buffers: RolloutBuffers, n_steps: int, *, environment_only: bool = False
    ) -> tuple[int, int, int, str] | None:
        """(t, rank, e, sentence) of the first NaN or infinity in the first `n_steps` rows.

        At equal t, s_t (rank 0) comes before a_t (1), which comes before r_t (2).
        """
        observations = buffers.observations[: n_steps + 1]
        actions = buffers.actions[: n_steps + 1]
        rewards = buffers.rewards[:n_steps]
        found: list[tuple[int, int, int, str]] = []
        for rank, (what, values) in enumerate(
            [("observation", observations), ("action", actions), ("reward", rewards)]
        ):
            if environment_only and what == "action":
                continue
            finite = np.isfinite(values)
            if finite.all():
                continue
            t, e, *entry = (int(k) for k in np.argwhere(~finite)[0])
            value = values[(t, e, *entry)]
            found.append((t, rank, e, self._non_finite_sentence(what, buffers, t, e, entry, value)))
        return min(found) if found else None

    def _find_non_finite_final(self, events: Events) -> tuple[int, int, str] | None:
        for (t, e), row in zip(events.final_indices, events.finals, strict=True):
            error = self._non_finite_final(row[np.newaxis], [(t, e)])
            if error is not None:
                return t, e, str(error)
        return None

    def _non_finite_sentence(
        self, what: str, buffers: RolloutBuffers, t: int, e: int, entry: list[int], value: Any
    ) -> str:
        if what == "action":
            return (
                f"{self._where(t, e)}: the policy chose the action {value} (entry {entry[0]}) for "
                "a finite observation; its parameters are not finite any more: go back to the last "
                "good checkpoint"
            )
        remedy = "the environment must return finite numbers: mend it, or wrap it"
        if what == "reward":
            return f"{self._where(t, e)}: the reward is {value}; {remedy}"
        # s_t came back from step t - 1, or from a reset
        after_reset = t == 0 or buffers.terminated[t - 1, e] or buffers.truncated[t - 1, e]
        where = f"reset before {self._where(t, e)}" if after_reset else self._where(t - 1, e)
        return f"{where}: observation entry {entry[0]} is {value}; {remedy}"

    def _non_finite_final(
        self, rows: Array, indices: Sequence[tuple[int, int]]
    ) -> ValueError | None:
        finite = np.isfinite(rows)
        if finite.all():
            return None
        m, k = np.argwhere(~finite)[0]
        return ValueError(
            f"{self._where(*indices[m])}: entry {k} of the final observation is {rows[m, k]}; "
            "the environment must return finite numbers: mend it, or wrap it"
        )

    def _explain(
        self, error: Exception, buffers: RolloutBuffers, t: int, e: int, observation: Any
    ) -> Exception:
        """The exception to raise instead of `error`, which came up in environment e at step t."""
        # a NaN often breaks the environment one step later: name the cause, not the effect
        non_finite = self._non_finite(buffers, t)
        if non_finite is not None:
            return non_finite
        ended = bool(buffers.terminated[t, e] or buffers.truncated[t, e])
        return self._failure(
            error,
            f"reset after {self._where(t, e)}" if ended else self._where(t, e),
            observation,
            "reset() must return (observation, info)"
            if ended
            else "step() must return (observation, reward, terminated, truncated, info), "
            "the reward one number and the flags one bool each",
        )

    def _failure(self, error: Exception, where: str, observation: Any, interface: str) -> Exception:
        """Tell apart an environment that raised from one that returned something wrong."""
        if isinstance(error, ObservationError):
            return ValueError(f"{where}: {error}")
        # raised in our own frame, not in one below it: we could not use what came back
        trace = error.__traceback__
        if trace is not None and trace.tb_next is None:
            with np.errstate(all="ignore"):
                try:
                    row = self.observation_encoder.encode(observation)
                except ObservationError as wrong:
                    return ValueError(f"{where}: {wrong}")
                except Exception:  # what came back is no observation at all
                    return EnvironmentFailure(
                        f"{where}: {type(error).__name__}: {error}; {interface}"
                    )
            if not np.isfinite(row).all():
                k = int(np.argmin(np.isfinite(row)))
                return ValueError(
                    f"{where}: observation entry {k} is {row[k]} as {row.dtype.name}; "
                    "the environment must return numbers that this dtype can hold"
                )
            return EnvironmentFailure(f"{where}: {type(error).__name__}: {error}; {interface}")
        return EnvironmentFailure(
            f"{where}: the environment raised {type(error).__name__}: {error}"
        )
