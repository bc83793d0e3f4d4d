"""Vine sampling (Schulman et al. 2015, section 5.2): branches from states of a trunk.

The trunk is a rollout of the current policy; N of its states make up the rollout set; from each of
them K branches start, each with another first action, and then follow the policy:

::

    Q_k = sum_{l<L} gamma^l r_l + gamma^L V(s_L)      branch k of state s; V only if bootstrap=True

All branches of a state see the same random numbers, those of the environment and those of the
policy, so that the differences between Q_1 ... Q_K, which are all that matters, carry little noise.

Departures from the paper: states of the rollout set are drawn from the trunk uniformly, without
gamma^t; branches are cut after L steps and, if bootstrap=True, continued by a value function that is
fitted to the trunk.

The environment goes back to a state through `trpo_fast.snapshots`. Whoever steps the environments,
this process or workers, saves the states and grows the branches; the result has the same bits.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..config import ConfigError, Sampling
from ..core import Distribution
from ..core.vine import Estimator, action_space_name, all_actions, n_actions
from ..envs import EnvironmentFailure, ObservationError
from ..snapshots import Snapshot, SnapshotError, Snapshotter
from .budget import Budget
from .data import Rollout
from .in_process import InProcessSampler
from .workers import WorkerSampler

Array = NDArray[Any]
Float64 = NDArray[np.float64]

__all__ = ["Branches", "VineOptions", "VineRollout", "VineSampler"]

FEW_ACTIONS = 8  # of which branches try all by default
_LONGEST_BRANCH = 2**20 - 1  # steps: the room for a branch in the counter of a random stream

# purposes of random streams that are derived from the seed of a run
_ROLLOUT_SET, _FIRST_ACTIONS, _BRANCH_NOISE = (0x76696E65 + i for i in range(3))


@dataclass(frozen=True, kw_only=True)
class VineOptions:
    """How the vine grows. The trunk has `batch_size` steps; branches come on top.

    Raises
    ------
    ConfigError
        (a ``ValueError``) One sentence: name, expected, got.
    """

    states: int = 64
    """N, states of the rollout set per update, over all environments."""

    branches: int | Literal["all"] | None = None
    """K, branches of a state; "all": every action; None: all of up to 8 actions, otherwise 4."""

    branch_steps: int | None = 16
    """L, most steps of a branch, its first action included; None: until the episode ends."""

    bootstrap: bool = True
    """Whether V stands for what follows a branch that was cut off."""

    def __post_init__(self) -> None:
        _count("states", self.states, "; a rollout set without states says nothing")
        if self.branches is not None and self.branches != "all":
            _count("branches", self.branches, ', or "all" or None')
        if self.branch_steps is not None:
            _count("branch_steps", self.branch_steps, ", or None for whole episodes")
        if not isinstance(self.bootstrap, bool):
            raise ConfigError(f"bootstrap: expected True or False, got {self.bootstrap!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VineOptions:
        """The options with these names, and defaults for the rest."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"vine: expected the options {', '.join(known)}, got {name!r}")
        return cls(**values)

    def estimator(self, distribution: Distribution, space: Any = None) -> tuple[Estimator, int]:
        """Which form of L fits the policy's actions, and the number of branches of a state.

        `space` is the environment's action space, for the sentences of errors.

        Raises
        ------
        ValueError
            All actions of a continuous or large space; fewer than two samples.
        """
        branches: int | str | None = self.branches
        if branches is None:
            few = distribution.is_discrete and n_actions(distribution) <= FEW_ACTIONS
            branches = "all" if few else 4
        if branches == "all":
            return "exact_sum", len(all_actions(distribution, space))
        branches = int(branches)
        if branches < 2:
            remedy = ', or branches="all"' if distribution.is_discrete else ""
            raise ValueError(
                "branches: expected at least 2 sampled actions a state for "
                f"{action_space_name(distribution, space)}, got {branches}: the weight of a single one "
                f"is always 1, and nothing is learned; take 2 or more{remedy}"
            )
        return "self_normalized", branches


def _count(name: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}: expected a whole number{remedy}, got {value!r}")
    if value < 1:
        raise ConfigError(f"{name}: expected at least 1{remedy}, got {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """What the branches brought. N states of the rollout set, B branches of each."""

    estimator: Estimator
    observations: Array  # (N, O) S, raw
    actions: Array  # (N, B, K), first actions, as sampled
    returns: Float64  # (N, B), sum_{l<L} gamma^l r_l
    discounts: Float64  # (N, B), the weight of V(s_L): 0 where the branch terminated
    end_observations: Array  # (N, B, O) S, raw s_L
    lengths: NDArray[np.int64]  # (N, B), steps taken
    indices: NDArray[np.int64]  # (N, 2), (t, e): s_{t+1} of environment e's trunk

    @property
    def n_steps(self) -> int:
        """Environment steps of all branches."""
        return int(self.lengths.sum())

    def q_values(self, values: Callable[[Array], ArrayLike] | None) -> Float64:
        """Q (N, B); `values` gives V (M,) of raw observations (M, O), None leaves it out."""
        if values is None:
            return self.returns
        N, B, width = self.end_observations.shape
        ends = np.asarray(values(self.end_observations.reshape(N * B, width)), np.float64)
        return self.returns + self.discounts * ends.reshape(N, B)


@dataclass
class VineRollout(Rollout):
    """A trunk, and the branches that grew from it."""

    branches: Branches = field(kw_only=True)

    @property
    def n_transitions(self) -> int:
        """Steps that environments took, branches included."""
        return super().n_transitions + self.branches.n_steps


class VineSampler:
    """Collects trunks with another sampler, and branches from states of them.

    The trunk is, bit for bit, what the sampler alone would collect: after the branches each
    environment goes back to the end of its trunk. Random numbers depend on the seed, the
    environment's index and the number of trunk actions drawn so far, and on nothing else.

    Parameters
    ----------
    trunk
        Steps the environments: an `InProcessSampler` or a `WorkerSampler`.
    options
        How the vine grows.
    gamma
        Discount factor of the branches.

    Raises
    ------
    SnapshotError
        (a ``ValueError``) The environment's state cannot be saved and restored.
    ValueError
        Environments that are not stepped one by one; branches that do not fit the action space.
    """

    def __init__(self, trunk: Any, options: VineOptions, *, gamma: float) -> None:
        if not isinstance(trunk, InProcessSampler | WorkerSampler):
            raise ValueError(
                "env: vine sampling goes back to saved states of single environments, got a "
                f"{type(trunk).__name__}; pass an id, an Env or a factory that makes one"
            )
        if trunk.recovers_crashes:
            raise ValueError(
                "restart_crashed_environments: expected False under vine sampling, got True: a "
                "replaced environment cannot go back to the states of the one that crashed"
            )
        self.trunk = trunk
        self.gamma = gamma
        self.name = trunk.name
        self.n_envs = trunk.n_envs
        self.busy_cores = trunk.busy_cores
        self.observation_encoder = trunk.observation_encoder
        self.action_adapter = trunk.action_adapter
        self.options = options
        self._policy: Any = None
        self._seed = 0
        try:
            trunk.map_groups(_Grower.check, name="vine sampling")
        except SnapshotError as error:
            raise SnapshotError(f"vine sampling goes back to saved states, but {error}") from None

    @property
    def options(self) -> VineOptions:
        """How the vine grows; may be replaced between two calls of `collect`."""
        return self._options

    @options.setter
    def options(self, options: VineOptions) -> None:
        self._estimator, self._n_branches = options.estimator(
            self.action_adapter.distribution, self.action_adapter.space
        )
        self._options = options

    def bind(self, policy: Any, *, seed: int) -> None:
        """Set the policy that acts in trunk and branches, and the seed of the run."""
        self.trunk.bind(policy, seed=seed)
        self._policy, self._seed = policy, seed

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a trunk.

        Raises
        ------
        ValueError
            Another sampling than by steps.
        """
        if sampling != "steps":
            raise ValueError(
                f"sampling: expected 'steps' under vine sampling, got {sampling!r}: the states that "
                "branches start from are drawn before the trunk is walked"
            )
        return self.trunk.budget(sampling, batch_size)

    def collect(
        self, budget: int | Budget, *, on_step: Callable[[], object] | None = None
    ) -> VineRollout:
        """A trunk of so many steps in every environment, and its branches.

        Raises
        ------
        ValueError, EnvironmentFailure, RuntimeError
            As `InProcessSampler.collect`; also more states than the trunk has.
        """
        started = time.perf_counter()
        n_steps = budget.steps[0] if isinstance(budget, Budget) else budget
        drawn = self.trunk.state_dict()["counters"].astype(np.int64)
        chosen = self._rollout_set(n_steps, int(drawn.sum()))
        mine = [_rows_of(group, chosen) for group in self.trunk.groups]

        # the trunk; whoever steps it saves the states of the rollout set
        plans = [chosen[rows] - (0, group.start) for group, rows in mine]
        self.trunk.map_groups(_Grower.prepare, plans, name="vine sampling")
        rollout = self.trunk.collect(n_steps, on_step=on_step)

        # a_0 of every branch
        after = np.concatenate([rollout.observations[1:], rollout.last_observations[np.newaxis]])
        t, e = chosen.T
        envs = (self.trunk.first_index + e).astype(np.uint32)
        counters = drawn[e] + t + 1  # trunk actions before the state
        observations = after[t, e]
        actions = self._first_actions(observations, envs, counters)

        # the branches
        settings = (self.gamma, self.options.branch_steps, self.options.bootstrap)
        starts = [_Start(actions[rows], counters[rows], *settings) for _, rows in mine]
        grown = self.trunk.map_groups(_Grower.grow, starts, name="branches of the vine")
        order = np.argsort(np.concatenate([rows for _, rows in mine]))
        branches = Branches(
            estimator=self._estimator,
            observations=observations,
            actions=actions,
            indices=chosen,
            **{name: np.concatenate([part[name] for part in grown])[order] for name in grown[0]},
        )
        whole = {f.name: getattr(rollout, f.name) for f in fields(rollout)}
        whole["seconds"] = time.perf_counter() - started
        return VineRollout(**whole, branches=branches)

    @property
    def n_workers(self) -> int:
        """Processes that step the environments; 0: this one."""
        return self.trunk.n_workers

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self.trunk.worker_pids

    def map_groups(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function where the environments are, see `WorkerSampler.map_groups`."""
        return self.trunk.map_groups(*args, **kwargs)

    def close(self) -> None:
        """Close the environments."""
        self.trunk.close()

    def state_dict(self) -> dict[str, Array]:
        """That of the trunk: branches leave nothing behind."""
        return self.trunk.state_dict()

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore what `state_dict` returned."""
        self.trunk.load_state_dict(state)

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs besides; SnapshotError where it cannot be saved."""
        return self.trunk.environment_state()

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where both were taken; as `load_state_dict` where entries are missing."""
        self.trunk.load_environment_state(state)

    def _rollout_set(self, n_steps: int, drawn: int) -> NDArray[np.int64]:
        """(N, 2): the steps (t, e) after which branches start, by t, then e."""
        n_states, available = self.options.states, n_steps * self.n_envs
        if n_states > available:
            raise ValueError(
                f"states: expected at most the {available} states of a trunk, got {n_states}; "
                "make batch_size larger or states smaller"
            )
        rng = np.random.default_rng([self._seed, _ROLLOUT_SET, drawn])
        flat = np.sort(rng.choice(available, n_states, replace=False))
        return np.stack(np.divmod(flat, self.n_envs), axis=1).astype(np.int64)

    def _first_actions(self, observations: Array, envs: Array, counters: Array) -> Array:
        """(N, B, K): every action, or samples of the policy."""
        N, B = len(observations), self._n_branches
        if self._estimator == "exact_sum":
            every = all_actions(self.action_adapter.distribution)
            return np.broadcast_to(every, (N, *every.shape)).copy()
        steps = np.repeat(counters << 20, B) + np.tile(np.arange(B), N)
        actions: Array = self._policy.act(
            np.repeat(observations, B, axis=0),
            seed=_stream_seed(self._seed, _FIRST_ACTIONS),
            envs=np.repeat(envs, B),
            steps=steps.astype(np.uint64),
        )
        return actions.reshape(N, B, -1)


def _rows_of(group: slice, chosen: NDArray[np.int64]) -> tuple[slice, NDArray[np.int64]]:
    """The rows of the rollout set that lie in a group of environments."""
    e = chosen[:, 1]
    return group, np.flatnonzero((group.start <= e) & (e < group.stop))


@dataclass(frozen=True)
class _Start:
    """What the branches of one group of environments start with. N states, B branches of each."""

    actions: Array  # (N, B, K)
    counters: NDArray[np.int64]  # (N,), trunk actions before the state
    gamma: float
    branch_steps: int | None
    bootstrap: bool


class _Grower:
    """Where environments are stepped: saves states of the trunk, and grows branches from them."""

    def __init__(self, sampler: InProcessSampler) -> None:
        self._sampler = sampler
        self._tried: Snapshotter | None = None
        self._snapshotters: dict[int, Snapshotter] = {}
        self._time_steps: Iterator[int] = iter(())  # of the trunk
        self._plan: dict[int, list[int]] = {}  # environments to save after each of them
        self._snapshots: list[tuple[int, Snapshot]] = []  # (environment, state) of the rollout set
        self._snapshotter(0)

    @classmethod
    def of(cls, sampler: InProcessSampler) -> _Grower:
        """The one that observes this sampler already, or a new one."""
        if not isinstance(sampler.observer, cls):
            sampler.observer = cls(sampler)
        return sampler.observer

    # --- called through `map_groups` ---

    @staticmethod
    def check(sampler: InProcessSampler) -> None:
        """Raise SnapshotError where the environments cannot go back to a state."""
        _Grower.of(sampler)

    @staticmethod
    def prepare(sampler: InProcessSampler, chosen: NDArray[np.int64]) -> None:
        """Save the states after these steps (t, e) of the next rollout, in their order."""
        grower = _Grower.of(sampler)
        grower._time_steps, grower._plan, grower._snapshots = itertools.count(), {}, []
        for t, e in chosen.tolist():
            grower._plan.setdefault(t, []).append(e)

    @staticmethod
    def grow(sampler: InProcessSampler, start: _Start) -> dict[str, Array]:
        """Every branch of the saved states, see `Branches`; then the environments are put back."""
        grower = _Grower.of(sampler)
        snapshots, grower._snapshots = grower._snapshots, []
        N, B, _ = start.actions.shape
        encoder = sampler.observation_encoder
        grown = {
            "returns": np.zeros((N, B)),
            "discounts": np.zeros((N, B)),
            "end_observations": np.zeros((N, B, encoder.dim), encoder.dtype),
            "lengths": np.zeros((N, B), np.int64),
        }
        touched = sorted({e for e, _ in snapshots})
        trunk_ends = {e: grower._snapshotter(e).take() for e in touched}
        stepper = _BranchStepper(sampler, start, grown)
        try:
            for n, (e, snapshot) in enumerate(snapshots):
                for b in range(B):
                    grower._snapshotter(e).restore(snapshot)
                    stepper.run(n, b, e)
        finally:
            for e in touched:
                grower._snapshotter(e).restore(trunk_ends[e])
        return grown

    def __call__(self) -> None:
        """After every step of the trunk."""
        for e in self._plan.get(next(self._time_steps), ()):
            self._snapshots.append((e, self._snapshotter(e).take()))

    def _snapshotter(self, e: int) -> Snapshotter:
        """What saves environment e, in a way that was seen to work on a copy of environment 0."""
        if e not in self._snapshotters:
            if self._tried is None:
                self._tried = _tried_on_a_copy(self._sampler)
            self._snapshotters[e] = self._tried.for_alike(self._sampler.environments[e])
        return self._snapshotters[e]


def _tried_on_a_copy(sampler: InProcessSampler) -> Snapshotter:
    """Find out on a separate copy how the environments of a sampler go back to a state."""
    if sampler.make_copy is None:
        raise SnapshotError(
            "whether the environment goes back is only tried on a separate copy, and it was given "
            "as an object that cannot be made again; pass a function that makes it"
        )
    separate = sampler.make_copy()
    try:
        return Snapshotter.for_environment(separate)
    finally:
        with contextlib.suppress(Exception):  # the copy has served
            separate.close()


class _BranchStepper:
    """Steps one environment along one branch."""

    def __init__(self, sampler: InProcessSampler, start: _Start, grown: dict[str, Array]) -> None:
        encoder, adapter = sampler.observation_encoder, sampler.action_adapter
        self._sampler, self._start, self._grown = sampler, start, grown
        self._write = encoder.write
        self._to_env = adapter.step_converter(1, encoder.dtype)
        self._observation = np.zeros((1, 1, encoder.dim), encoder.dtype)
        self._action = np.zeros((1, 1, adapter.action_dim), start.actions.dtype)
        self._counter = np.zeros(1, np.uint64)
        self._env = np.zeros(1, np.uint32)
        policy = sampler.policy
        assert policy is not None
        self._actor = policy.actor(
            self._observation,
            self._action,
            self._counter,
            self._env,
            seed=_stream_seed(sampler.seed, _BRANCH_NOISE),
        )

    def run(self, n: int, b: int, e: int) -> None:
        """Branch b of state n, in environment e of the sampler."""
        sampler, start, grown = self._sampler, self._start, self._grown
        env, counter = sampler.first_index + e, int(start.counters[n])
        where = f"environment {env} ({sampler.name}), branch {b} from step {counter}"
        # the same action noise along all branches of a state
        self._env[0] = env
        self._counter[0] = counter << 20
        action = self._to_env(start.actions[n, b][np.newaxis])[0]
        end = grown["end_observations"][n, b]
        step = sampler.environments[e].step
        total, discount = 0.0, 1.0
        for taken in self._steps(where):
            try:
                observation, reward, terminated, truncated, _ = step(action)
                total += discount * float(reward)
                discount *= start.gamma
                self._write(observation, end)
            except Exception as error:
                kind = ValueError if isinstance(error, ObservationError) else EnvironmentFailure
                sentence = f"the environment raised {type(error).__name__}: {error}"
                raise kind(f"{where}: {sentence}") from error
            sampler.show_life()
            if terminated or truncated or taken == start.branch_steps:
                break
            self._observation[0, 0] = end
            self._actor.step(0)
            action = self._to_env(self._action[0])[0]
        if not (math.isfinite(total) and np.isfinite(end).all()):
            raise ValueError(
                f"{where}: a reward or an observation is NaN or infinite; the environment must "
                "return finite numbers: mend it, or wrap it"
            )
        grown["returns"][n, b] = total
        grown["discounts"][n, b] = discount if start.bootstrap and not terminated else 0.0
        grown["lengths"][n, b] = taken

    def _steps(self, where: str) -> Iterator[int]:
        """1, 2, ... until the caller has enough."""
        yield from range(1, _LONGEST_BRANCH + 1)
        raise ValueError(
            f"{where}: the episode did not end within {_LONGEST_BRANCH} steps; give branch_steps"
        )


def _stream_seed(seed: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0])
