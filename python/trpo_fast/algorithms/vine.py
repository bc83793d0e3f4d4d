"""The two sampling schemes of the TRPO paper (Schulman et al. 2015, section 5): vine, single path.

Vine (section 5.2) looks at a state more than once. The trunk is a rollout of the current policy; N
of its states make up the rollout set; from each of them K branches start, each with another first
action, and then follow the policy:

::

    Q_k = sum_{l<L} gamma^l r_l + gamma^L V(s_L)      branch k of state s; V on a switch

All branches of a state see the same random numbers, those of the environment and those of the
policy, so that the differences between Q_1 ... Q_K, which are all that matters, carry little noise.
What is maximised is the mean over the rollout set of

::

    L_s(theta) = sum_a pi(a|s) Q(s, a)                                     all actions (equation 15)
    L_s(theta) = sum_k w_k Q_k / sum_k w_k,  w_k = pi(a_k|s)/pi_old(a_k|s)   sampled (equation 16)

under the same trust region as single-path TRPO, over the states of the rollout set. Neither form
needs a baseline from outside: the first subtracts the mean of Q under the old policy (a constant of
the state), the second is invariant under a shift of Q.

Departures from the paper: states of the rollout set are drawn from the trunk uniformly, without
gamma^t; branches are cut after L steps and, on a switch, continued by a value function that is
fitted to the trunk.

The environment goes back to a state through `trpo_fast.snapshots`. Whoever steps the environments,
this process or workers, saves the states and grows the branches; the result has the same bits.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import core
from ..training.agent import TRPO, _Batch
from ..config import ConfigError, Sampling, TRPOConfig
from ..envs import EnvironmentFailure, ObservationError
from ..rollout import Budget, InProcessSampler, Rollout, WorkerSampler
from ..snapshots import Snapshot, SnapshotError, Snapshotter

if TYPE_CHECKING:
    from ..envs import EnvSource

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Estimator = Literal["exact_sum", "self_normalized"]

__all__ = [
    "Branches",
    "SinglePathConfig",
    "SinglePathTRPO",
    "VineConfig",
    "VineObjective",
    "VineOptions",
    "VineRollout",
    "VineSampler",
    "VineTRPO",
    "all_actions",
    "vine_update",
]

MOST_ACTIONS = 64  # of which branches may try all
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

    def estimator(
        self, distribution: core.Distribution, space: Any = None
    ) -> tuple[Estimator, int]:
        """Which form of L fits the policy's actions, and the number of branches of a state.

        `space` is the environment's action space, for the sentences of errors.

        Raises
        ------
        ValueError
            All actions of a continuous or large space; fewer than two samples.
        """
        branches: int | str | None = self.branches
        if branches is None:
            few = distribution.is_discrete and _number_of_actions(distribution) <= FEW_ACTIONS
            branches = "all" if few else 4
        if branches == "all":
            return "exact_sum", len(all_actions(distribution, space))
        branches = int(branches)
        if branches < 2:
            remedy = ', or branches="all"' if distribution.is_discrete else ""
            raise ValueError(
                "branches: expected at least 2 sampled actions a state for "
                f"{_space_name(distribution, space)}, got {branches}: the weight of a single one "
                f"is always 1, and nothing is learned; take 2 or more{remedy}"
            )
        return "self_normalized", branches


def _space_name(distribution: core.Distribution, space: Any) -> str:
    kind = f"{distribution.kind}{distribution.sizes}" if space is None else str(space)
    return f"the action space {kind}"


def _count(name: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}: expected a whole number{remedy}, got {value!r}")
    if value < 1:
        raise ConfigError(f"{name}: expected at least 1{remedy}, got {value}")


def _number_of_actions(distribution: core.Distribution) -> int:
    if distribution.kind == "bernoulli":
        return 1 << distribution.sizes[0]
    return math.prod(distribution.sizes)


def all_actions(distribution: core.Distribution, space: Any = None) -> NDArray[np.int32]:
    """Every action of a small discrete distribution, shape (number of actions, K), int32.

    Raises
    ------
    ValueError
        A continuous distribution, or more than 64 actions.
    """
    name = _space_name(distribution, space)
    if not distribution.is_discrete:
        raise ValueError(
            f'branches: "all" needs a discrete action space, got {name}, whose actions have no '
            "end; give a number of branches, 2 or more"
        )
    if _number_of_actions(distribution) > MOST_ACTIONS:
        raise ValueError(
            f'branches: "all" allows up to {MOST_ACTIONS} actions, got {name} with '
            f"{_number_of_actions(distribution)}; give a number of branches, 2 or more"
        )
    sizes = distribution.sizes
    if distribution.kind == "bernoulli":
        sizes = (2,) * sizes[0]
    return np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int32)


# ----------------------------------------------------------------------------------------- sampling


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
        if trunk._recovers:
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
        """What saves environment e; environment 0 shows that it works, the others are alike."""
        if e not in self._snapshotters:
            env = self._sampler.environments[e]
            first = self._snapshotters.get(0)
            self._snapshotters[e] = (
                Snapshotter.for_environment(env) if first is None else first.for_alike(env)
            )
        return self._snapshotters[e]


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
        policy = sampler._policy
        assert policy is not None
        self._actor = policy.actor(
            self._observation,
            self._action,
            self._counter,
            self._env,
            seed=_stream_seed(sampler._seed, _BRANCH_NOISE),
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


# ------------------------------------------------------------------------------------------- update


class VineObjective:
    """mean over states of L_s(theta), equations 15 and 16, in reward units.

    Parameters
    ----------
    policy
        At the old parameters; later calls look at its parameters of that moment.
    observations
        (N, O), normalised, as ``policy.normalize`` returns them.
    actions
        (N, B, K): all actions in every state, or samples of the policy.
    q_values
        (N, B).
    estimator
        ``"exact_sum"`` over all actions, or ``"self_normalized"`` over samples.
    """

    def __init__(
        self,
        policy: core.Policy,
        observations: ArrayLike,
        actions: ArrayLike,
        q_values: ArrayLike,
        estimator: Estimator,
    ) -> None:
        if estimator not in ("exact_sum", "self_normalized"):
            raise ValueError(
                f"estimator: expected 'exact_sum' or 'self_normalized', got {estimator!r}"
            )
        self.policy = policy
        self.estimator: Estimator = estimator
        self.observations = np.asarray(observations)
        actions, Q = np.asarray(actions), np.asarray(q_values, np.float64)
        if Q.ndim != 2 or 0 in Q.shape:
            raise ValueError(
                f"q_values: expected shape (N, B) with at least one state and one branch, got "
                f"{Q.shape}; an empty rollout set has nothing to learn from"
            )
        N, B = Q.shape
        K = policy.distribution.action_dim
        if actions.shape != (N, B, K):
            raise ValueError(f"actions: expected shape {(N, B, K)}, got {actions.shape}")
        if self.observations.shape != (N, policy.obs_dim):
            raise ValueError(
                f"observations: expected shape {(N, policy.obs_dim)}, got {self.observations.shape}"
            )
        if estimator == "exact_sum":
            n_actions = len(all_actions(policy.distribution))
            if n_actions != B:
                raise ValueError(f"actions: expected all {n_actions} in every state, got {B}")
        elif B < 2:
            raise ValueError(
                "actions: expected at least 2 samples in every state, got 1: its weight is always "
                "1, and nothing is learned"
            )
        self._shape = (N, B)
        self._rows = np.repeat(self.observations, B, axis=0)
        self._actions = actions.reshape(N * B, K)
        self._old = self._log_prob()

        # Q = baseline + advantages: the mean of the advantages under the old policy is 0
        weights = np.exp(self._old) if estimator == "exact_sum" else np.full((N, B), 1.0 / B)
        self.old_weights = weights / weights.sum(axis=1, keepdims=True)
        self.baseline = (self.old_weights * Q).sum(axis=1)  # (N,)
        self.advantages = Q - self.baseline[:, np.newaxis]

    def _log_prob(self) -> Float64:
        return self.policy.log_prob(self._rows, self._actions).reshape(self._shape)

    def value(self) -> float:
        """L at the policy's parameters of this moment."""
        return float(self.baseline.mean()) + self.gain()

    def gain(self) -> float:
        """L(theta) - L(theta_old), computed from the differences."""
        A = self.advantages
        with np.errstate(all="ignore"):  # far from the old parameters: inf or NaN is an answer
            log_ratio = self._log_prob() - self._old
            if self.estimator == "exact_sum":
                # sum_a (pi - pi_old) A
                return float((self.old_weights * np.expm1(log_ratio) * A).sum(axis=1).mean())
            ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
            return float(((ratio * A).sum(axis=1) / ratio.sum(axis=1)).mean())

    def gradient(self) -> Float64:
        """Gradient of L at the old parameters, (D,): a weighted sum of scores.

        ::

            all actions    1/N sum_n sum_a pi_old(a|s_n) A_na  grad log pi(a|s_n)
            sampled        1/N sum_n sum_k 1/K           A_nk  grad log pi(a_nk|s_n)
        """
        B = self._shape[1]
        weights = self.old_weights * self.advantages * B  # the core takes the mean over N B rows
        return self.policy.surrogate_gradient(self._rows, self._actions, weights.ravel())

    def deviation(self) -> float:
        """Standard deviation of the advantages under the old policy; 0 where they are all alike."""
        Q = self.advantages + self.baseline[:, np.newaxis]
        spread = float(np.abs(self.advantages).max())
        if not spread > 64.0 * np.finfo(np.float64).eps * float(np.abs(Q).max()):
            return 0.0 if math.isfinite(spread) else math.nan
        return math.sqrt(float((self.old_weights * self.advantages**2).sum(axis=1).mean()))


def vine_update(
    policy: core.Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    *,
    estimator: Estimator,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-10,
    cg_damping: float = 0.1,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    cg_preconditioner: core.Preconditioner = "none",
    seed: int = 0,
) -> core.UpdateSummary:
    """One TRPO step, in place, on the vine objective; see :class:`VineObjective` for the arguments.

    The step is that of :meth:`trpo_fast.core.Policy.update`, with the same promises: Fisher matrix
    and mean KL are over the N states of the rollout set; an accepted step has KL <= max_kl and a
    better objective; after any other the parameters are, bit for bit, those before. Gains are in
    standard deviations of the advantages.
    """
    positive = 5e-324
    max_kl = core._finite("max_kl", max_kl, positive, math.inf, "a positive number")
    backtrack_ratio = core._finite(
        "backtrack_ratio", backtrack_ratio, positive, 1.0 - 1e-16, "a number in (0, 1)"
    )
    max_backtracks = core._integer("max_backtracks", max_backtracks, 0)
    core._choice("cg_preconditioner", cg_preconditioner, core.PRECONDITIONERS)
    objective = VineObjective(policy, observations, actions, q_values, estimator)
    scale = objective.deviation()
    clock = _Clock()
    old = policy.parameters
    x = objective.observations
    entropy = float(policy.entropy(x).mean())
    report: dict[str, Any] = dict.fromkeys(
        (field.name for field in fields(core.UpdateSummary)), 0.0
    )
    report |= {"max_kl": max_kl, "entropy": entropy, "entropy_before": entropy}
    report |= {"cg_iterations": 0, "cg_status": "", "backtracks": 0}

    def finish(status: str, message: str) -> core.UpdateSummary:
        report.update(status=status, message=message, seconds_total=clock.total())
        return core.UpdateSummary(**report)

    if not (math.isfinite(scale) and math.isfinite(entropy)):
        return finish(
            "non_finite",
            "Q or the policy's outputs hold a NaN or an infinity, so no update was made; look at "
            "rewards, values and observations",
        )
    if scale == 0.0:
        return finish(
            "zero_gradient",
            "in every state all branches are equally good, so there is nothing to improve and no "
            "update was made",
        )

    # g = grad L(theta_k) / scale
    g = objective.gradient() / scale
    report["gradient_norm"] = float(np.linalg.norm(g))
    report["seconds_gradient"] = clock.lap()
    if not math.isfinite(report["gradient_norm"]):
        return finish("non_finite", "the gradient is not finite, so no update was made")

    # x = (F + lambda I)^{-1} g
    F = policy.fisher_operator(x, damping=cg_damping, expected_products=cg_iterations)
    kronecker = cg_preconditioner == "kronecker"
    cg = core.conjugate_gradient(
        F,
        g,
        max_iterations=cg_iterations,
        tolerance=cg_tolerance,
        preconditioner=F.kronecker_preconditioner(seed=seed) if kronecker else None,
    )
    report["cg_iterations"], report["cg_status"] = cg.iterations, cg.status
    report["cg_relative_residual"] = cg.relative_residual
    report["seconds_cg"] = clock.lap()
    if cg.status == "zero_rhs":
        return finish("zero_gradient", "the gradient is zero, so no update was made")
    g_x, x_x = float(g @ cg.x), float(cg.x @ cg.x)  # g^T x = x^T (F + lambda I) x
    if not (g_x > 0.0 and math.isfinite(g_x)):
        bent = cg.status == "non_positive_curvature"
        return finish(
            "non_positive_curvature" if bent else "non_finite",
            f"conjugate gradient found no direction of ascent ({cg.message}), so no update was "
            "made; a larger cg_damping helps when the Fisher matrix is nearly singular",
        )

    # theta = theta_k + alpha^j beta x
    beta = math.sqrt(2.0 * max_kl / g_x)
    kl = gain = 0.0
    accepted = False
    try:
        for j in range(max_backtracks + 1):
            step = backtrack_ratio**j * beta
            report["backtracks"], report["step_scale"] = j, backtrack_ratio**j
            report["step_norm"] = step * math.sqrt(x_x)
            report["kl_predicted"] = 0.5 * step * step * (g_x - cg_damping * x_x)
            report["surrogate_gain_predicted"] = step * g_x
            candidate = (old.astype(np.float64) + step * cg.x).astype(old.dtype)
            if not np.isfinite(candidate).all():
                continue
            policy.parameters = candidate
            divergence = policy.kl(x, old)
            kl, gain = float(divergence.mean()), objective.gain() / scale
            if kl <= max_kl and gain > 0.0 and math.isfinite(gain):  # false for NaN
                accepted = True
                break
    finally:
        if not accepted:
            policy.parameters = old
    report["seconds_line_search"] = clock.lap()
    if not accepted:
        return finish(
            "line_search_failed",
            f"none of {max_backtracks + 1} candidate steps was accepted; the last had KL {kl:.4g} "
            f"of {max_kl:.4g} and gain {gain:.4g}; the parameters are those before",
        )
    report |= {"kl": kl, "kl_max": float(divergence.max()), "surrogate_gain": gain}
    report["entropy"] = float(policy.entropy(x).mean())
    return finish(
        "accepted",
        f"accepted after {report['backtracks']} backtracks: KL {kl:.4g} of {max_kl:.4g}, "
        f"surrogate gain {gain:.4g}",
    )


class _Clock:
    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def total(self) -> float:
        return time.perf_counter() - self._start


# ------------------------------------------------------------------------------------------- agents


@dataclass(frozen=True, kw_only=True)
class VineConfig(TRPOConfig):
    """Settings of :class:`VineTRPO`: those of TRPO, and how the vine grows."""

    vine: VineOptions = VineOptions()
    """Rollout set and branches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.vine, Mapping):
            object.__setattr__(self, "vine", VineOptions.from_dict(self.vine))
        if not isinstance(self.vine, VineOptions):
            raise ConfigError(
                f"vine: expected VineOptions or a mapping of their names, got {self.vine!r:.80}; "
                "leave it out for the defaults"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {**super().to_dict(), "vine": asdict(self.vine)}


class VineTRPO(TRPO):
    """TRPO with vine sampling (Schulman et al. 2015, section 5.2).

    >>> agent = VineTRPO("CartPole-v1", vine=VineOptions(states=64, branch_steps=16), seed=0)
    >>> agent.learn(100_000)

    An update takes ``batch_size`` steps of trunk and up to ``states * branches * branch_steps``
    steps of branches; both count as timesteps. Everything else is as in :class:`trpo_fast.TRPO`.

    Parameters
    ----------
    env
        What is stepped, see :class:`trpo_fast.TRPO`.
    settings
        As of :class:`trpo_fast.TRPO`; besides them ``vine``, how the vine grows:
        :class:`VineOptions`, or its fields as a mapping.

    Raises
    ------
    SnapshotError
        (a ``ValueError``) The environment's state cannot be saved and restored.
    """

    config_type = VineConfig
    config: VineConfig

    def __init__(self, env: EnvSource, **settings: Any) -> None:
        super().__init__(env, **settings)
        try:
            vine = VineSampler(self.sampler, self.config.vine, gamma=self.config.gamma)
            self._budget = vine.budget(self.config.sampling, self.config.batch_size)
        except BaseException:
            self.sampler.close()
            raise
        vine.bind(self.policy, seed=self.config.seed)
        self.sampler = vine

    def _advantages(self, rollout: Rollout) -> _VineBatch:
        """Q of every branch; the trunk's returns are what V learns from."""
        assert isinstance(rollout, VineRollout)
        branches = rollout.branches
        values = self._values_of_raw if self.config.vine.bootstrap else None
        return _VineBatch(super()._advantages(rollout), branches, branches.q_values(values))

    def _values_of_raw(self, observations: Array) -> Float64:
        return self._values(self.policy.normalize(observations))

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        assert isinstance(batch, _VineBatch)
        branches, settings = batch.branches, self._update_settings()
        return vine_update(
            self.policy,
            self.policy.normalize(branches.observations),
            branches.actions,
            batch.q_values,
            estimator=branches.estimator,
            max_kl=settings["max_kl"],
            cg_iterations=settings["cg_iterations"],
            cg_tolerance=settings["cg_tolerance"],
            cg_damping=settings["cg_damping"],
            backtrack_ratio=self.config.backtrack_ratio,
            max_backtracks=self.config.max_backtracks,
            cg_preconditioner=settings["cg_preconditioner"],
            seed=settings["seed"],
        )

    @property
    def _fit_threads(self) -> int:
        return super()._fit_threads if self.config.vine.bootstrap else 0

    def _start_value_fit(self, batch: _Batch) -> None:
        if self.config.vine.bootstrap:
            super()._start_value_fit(batch)

    def _record(self, rollout: Rollout, *args: Any) -> dict[str, Any]:
        assert isinstance(rollout, VineRollout)
        record = super()._record(rollout, *args)
        record["vine/states"], record["vine/branches"] = rollout.branches.returns.shape
        record["vine/branch_steps"] = rollout.branches.n_steps
        return record


class _VineBatch(_Batch):
    """A trunk's rows for V, and the branches for the policy."""

    __slots__ = ("branches", "q_values")

    def __init__(self, trunk: _Batch, branches: Branches, q_values: Float64) -> None:
        super().__init__(
            trunk.observations, trunk.actions, trunk.advantages, trunk.returns, trunk.values
        )
        self.branches = branches
        self.q_values = q_values  # (N, B) reward units


@dataclass(frozen=True, kw_only=True)
class SinglePathConfig(TRPOConfig):
    """Settings of :class:`SinglePathTRPO`; those of the value function are not used."""

    _before: ClassVar[Mapping[str, object]] = {**TRPOConfig._before, "baseline": "mean"}

    batch_size: int = 4096
    """Environment steps per update: Monte Carlo returns are noisy, and want more than GAE's 2048."""

    sampling: Sampling = "episodes"
    """Whole episodes, as in the paper: nothing stands for what follows a path that is cut."""

    baseline: Literal["time", "mean"] = "time"
    """What Q is compared with: the mean over paths of Q as many steps from their start, or of all Q."""

    gae_lambda: float = 1.0
    """1: without a value function only whole returns are left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choice("baseline", Literal["time", "mean"])
        if self.gae_lambda != 1.0:
            raise ConfigError(
                f"gae_lambda: expected 1, got {self.gae_lambda}: without a value function only "
                "whole returns are left; use TRPO for GAE"
            )


class SinglePathTRPO(TRPO):
    """TRPO as in the paper's section 5.1: Monte Carlo Q-values of single paths, no value function.

    ::

        Q_t = sum_{l >= 0} gamma^l r_{t+l}        to the end of the path

    Nothing stands for what follows the end of a path. A batch holds whole episodes by default, as in
    the paper, whose paths are of fixed length; with another `sampling` its end cuts them too.

    Not in the paper: a baseline that depends on nothing but time,

    ::

        A_t = Q_t - b_t,   b_t = mean of Q_t over the paths of the batch that are that long

    Near a time limit Q falls for every action alike; that is not to look like a lesson. And A is
    standardised (``standardize_advantages``).
    """

    config_type = SinglePathConfig
    config: SinglePathConfig

    @classmethod
    def _resolve_config(
        cls, config: TRPOConfig | None, preset: str | None, overrides: dict[str, Any], env: Any
    ) -> TRPOConfig:
        # whatever a preset says
        return super()._resolve_config(
            config, preset, overrides if config else {"gae_lambda": 1.0, **overrides}, env
        )

    def _advantages(self, rollout: Rollout) -> _Batch:
        """Q of every step of every path, less its baseline."""
        batch = super()._advantages(rollout)
        if self.config.baseline == "time":
            steps = _steps_from_start(rollout)[rollout.valid]
            batch.advantages = batch.returns - _mean_by(steps, batch.returns)
            # what only rounding tells apart is alike
            rounding = 64.0 * np.finfo(np.float64).eps * np.abs(batch.returns).max()
            batch.advantages[np.abs(batch.advantages) <= rounding] = 0.0
        return batch

    def _values(self, observations: Any) -> Float64:
        return np.zeros(len(observations))

    _fit_threads = 0

    def _start_value_fit(self, batch: _Batch) -> None:
        """There is none to fit."""


def _steps_from_start(rollout: Rollout) -> NDArray[np.int64]:
    """Steps since the path of each row began in this batch, (T, E)."""
    T = rollout.n_steps
    ends = rollout.terminated | rollout.truncated
    begins = np.zeros(ends.shape, np.int64)  # row of the path's start
    begins[1:] = np.where(ends[:-1], np.arange(1, T)[:, np.newaxis], 0)
    steps: NDArray[np.int64] = np.arange(T)[:, np.newaxis] - np.maximum.accumulate(begins)
    return steps


def _mean_by(groups: NDArray[np.int64], values: Float64) -> Float64:
    """The mean of the values of each one's group, (N,)."""
    means = np.bincount(groups, values) / np.maximum(1, np.bincount(groups))
    return np.asarray(means[groups])
