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

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.masks import allowed_choices
from ..core.vine import all_actions
from ..seeds import Purpose, derive
from ..snapshots import SnapshotError
from .branches import Branches, VineOptions, VineRollout
from .budget import Budget
from .growing import Grower, Start
from .in_process import InProcessSampler
from .workers import PooledSampler

if TYPE_CHECKING:
    from ..config import Sampling

Array = NDArray[Any]

__all__ = ["Branches", "VineOptions", "VineRollout", "VineSampler"]


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
        if not isinstance(trunk, InProcessSampler | PooledSampler):
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
            trunk.map_groups(Grower.check, name="vine sampling")
        except SnapshotError as error:
            raise SnapshotError(f"vine sampling goes back to saved states, but {error}") from None

    @property
    def mask_source(self) -> str:
        """Where the environments say which actions are allowed; "auto" until the first reset tells."""
        source: str = self.trunk.mask_source
        return source

    @mask_source.setter
    def mask_source(self, source: str) -> None:
        self.trunk.mask_source = source

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of the info of an episode's last step that trunks keep, besides those of success."""
        names: tuple[str, ...] = self.trunk.metric_names
        return names

    @metric_names.setter
    def metric_names(self, names: tuple[str, ...]) -> None:
        self.trunk.metric_names = names

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
        """Set the policy that acts in trunk and branches, and the seed of the run.

        Parameters
        ----------
        policy
            Of the trunk's dimensions and dtype.
        seed
            In [0, 2**64).
        """
        self.trunk.bind(policy, seed=seed)
        self._policy, self._seed = policy, seed

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a trunk.

        Parameters
        ----------
        sampling
            ``"steps"``.
        batch_size
            Steps of the trunk, all environments together, at least 1.

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

        Parameters
        ----------
        budget
            T of the trunk, or what `budget` returned.
        on_step
            Called after every row of the trunk.

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

        # Walk the trunk; whoever steps it saves the states of the rollout set.
        plans = [chosen[rows] - (0, group.start) for group, rows in mine]
        self.trunk.map_groups(Grower.prepare, plans, name="vine sampling")
        rollout = self.trunk.collect(n_steps, on_step=on_step)

        # Choose a_0 of every branch.
        after = np.concatenate([rollout.observations[1:], rollout.last_observations[np.newaxis]])
        t, e = chosen.T
        masks = None
        if rollout.has_masks:
            last = rollout.last_action_masks[np.newaxis]
            masks = np.concatenate([rollout.action_masks[1:], last])[t, e]
        envs = (self.trunk.first_index + e).astype(np.uint32)
        counters = drawn[e] + t + 1  # trunk actions before the state
        observations = after[t, e]
        actions = self._first_actions(observations, envs, counters, masks)
        walked = allowed_choices(self.action_adapter.distribution, actions, masks)

        # Grow the branches.
        settings = (self.gamma, self.options.branch_steps, self.options.bootstrap)
        starts = [
            Start(actions[rows], counters[rows], *settings, walked=walked[rows]) for _, rows in mine
        ]
        grown = self.trunk.map_groups(Grower.grow, starts, name="branches of the vine")
        order = np.argsort(np.concatenate([rows for _, rows in mine]))
        branches = Branches(
            estimator=self._estimator,
            observations=observations,
            actions=actions,
            indices=chosen,
            action_masks=masks,
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
    def is_busy(self) -> bool:
        """Whether a rollout, or a call in worker processes, is under way."""
        return self.trunk.is_busy

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self.trunk.worker_pids

    def map_groups(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function where the environments are, see `WorkerSampler.map_groups`.

        Parameters
        ----------
        *args, **kwargs
            As in `WorkerSampler.map_groups`.
        """
        return self.trunk.map_groups(*args, **kwargs)

    def close(self) -> None:
        """Close the environments."""
        self.trunk.close()

    def state_dict(self) -> dict[str, Array]:
        """That of the trunk: branches leave nothing behind."""
        return self.trunk.state_dict()

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore what `state_dict` returned.

        Parameters
        ----------
        state
            What `state_dict` returned.
        """
        self.trunk.load_state_dict(state)

    def prepare_states(self) -> None:
        """Find out whether states can be saved, before the first rollout."""
        self.trunk.prepare_states()

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs beside `state_dict`; SnapshotError where it cannot be saved."""
        return self.trunk.environment_state()

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where a state was taken, or as `load_state_dict` where entries are missing.

        Parameters
        ----------
        state
            ``{**state_dict(), **environment_state()}``.
        """
        self.trunk.load_environment_state(state)

    def _rollout_set(self, n_steps: int, drawn: int) -> NDArray[np.int64]:
        """(N, 2): the steps (t, e) after which branches start, by t, then e."""
        n_states, available = self.options.states, n_steps * self.n_envs
        if n_states > available:
            raise ValueError(
                f"states: expected at most the {available} states of a trunk, got {n_states}; "
                "make batch_size larger or states smaller"
            )
        rng = np.random.default_rng(derive(self._seed, Purpose.ROLLOUT_SET, step=drawn))
        flat = np.sort(rng.choice(available, n_states, replace=False))
        return np.stack(np.divmod(flat, self.n_envs), axis=1).astype(np.int64)

    def _first_actions(
        self,
        observations: Array,
        envs: Array,
        counters: Array,
        masks: NDArray[np.bool_] | None,
    ) -> Array:
        """(N, K, A): every action, or samples of the policy."""
        N, K = len(observations), self._n_branches
        if self._estimator == "exact_sum":
            every = all_actions(self.action_adapter.distribution)
            return np.broadcast_to(every, (N, *every.shape)).copy()
        # Each state has 2^20 positions in the random stream of its environment: one for each branch.
        steps = np.repeat(counters << 20, K) + np.tile(np.arange(K), N)
        actions: Array = self._policy.act(
            np.repeat(observations, K, axis=0),
            seed=derive(self._seed, Purpose.FIRST_ACTIONS),
            envs=np.repeat(envs, K),
            steps=steps.astype(np.uint64),
            **({} if masks is None else {"action_masks": np.repeat(masks, K, axis=0)}),
        )
        return actions.reshape(N, K, -1)


def _rows_of(group: slice, chosen: NDArray[np.int64]) -> tuple[slice, NDArray[np.int64]]:
    """The rows of the rollout set that lie in a group of environments."""
    e = chosen[:, 1]
    return group, np.flatnonzero((group.start <= e) & (e < group.stop))
