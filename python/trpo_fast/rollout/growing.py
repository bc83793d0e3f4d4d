"""Where environments are stepped: states of the trunk are saved, and branches grow from them."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs import EnvironmentFailure, ObservationError
from ..envs.errors import error_sentence
from ..envs.interface import is_end, one_number, require_info, step_problem
from ..envs.masks import MaskError, MaskGiver, mask_giver, mask_row
from ..seeds import Purpose, derive
from ..snapshots import Snapshot, SnapshotError, Snapshotter
from .errors import is_users_exit, raised_by_us
from .in_process import InProcessSampler

Array = NDArray[Any]

_LONGEST_BRANCH = 2**20 - 1  # steps; each state has 2^20 positions in a random stream


@dataclass(frozen=True)
class Start:
    """What the branches of one group of environments start with.

    Attributes
    ----------
    actions
        First actions: (N, K, A), dtype or int32.
    counters
        Trunk actions drawn before each state: (N,), int64.
    gamma
        Discount factor, in [0, 1].
    branch_steps
        L, most steps of a branch; None: until the episode ends.
    bootstrap
        Whether V stands for what follows a branch that was cut off.
    walked
        Which branches are walked: (N, K), bool; not those that begin with a forbidden action.
    """

    actions: Array
    counters: NDArray[np.int64]
    gamma: float
    branch_steps: int | None
    bootstrap: bool
    walked: NDArray[np.bool_]


class Grower:
    """Where environments are stepped: saves states of the trunk, and grows branches from them.

    Parameters
    ----------
    sampler
        Where the environments are stepped.
    """

    def __init__(self, sampler: InProcessSampler) -> None:
        self._sampler = sampler
        self._tried: Snapshotter | None = None
        self._snapshotters: dict[int, Snapshotter] = {}
        self._time_steps: Iterator[int] = iter(())  # of the trunk
        self._plan: dict[int, list[int]] = {}  # environments to save after each of them
        self._snapshots: list[tuple[int, Snapshot]] = []  # (environment, state) of the rollout set
        self._snapshotter(0)

    @classmethod
    def of(cls, sampler: InProcessSampler) -> Grower:
        """The one that observes this sampler already, or a new one.

        Parameters
        ----------
        sampler
            Where the environments are stepped.
        """
        if not isinstance(sampler.observer, cls):
            sampler.observer = cls(sampler)
        return sampler.observer

    # --- called through `map_groups` ---

    @staticmethod
    def check(sampler: InProcessSampler) -> None:
        """Raise SnapshotError where the environments cannot go back to a state.

        Parameters
        ----------
        sampler
            Where the environments are stepped.
        """
        Grower.of(sampler)

    @staticmethod
    def prepare(sampler: InProcessSampler, chosen: NDArray[np.int64]) -> None:
        """Save the states after these steps (t, e) of the next rollout, in their order.

        Parameters
        ----------
        sampler
            Where the environments are stepped.
        chosen
            Steps (t, e) after which states are saved: (N, 2), int64.
        """
        grower = Grower.of(sampler)
        grower._time_steps, grower._plan, grower._snapshots = itertools.count(), {}, []
        for t, e in chosen.tolist():
            grower._plan.setdefault(t, []).append(e)

    @staticmethod
    def grow(sampler: InProcessSampler, start: Start) -> dict[str, Array]:
        """Every branch of the saved states, see `Branches`; then the environments are put back.

        Parameters
        ----------
        sampler
            Where the environments are stepped.
        start
            First actions and settings of the branches.
        """
        grower = Grower.of(sampler)
        snapshots, grower._snapshots = grower._snapshots, []
        N, K, _ = start.actions.shape
        if len(snapshots) != N:
            raise SnapshotError(
                f"{N - len(snapshots)} of the {N} states that branches grow from were lost with the "
                "worker that held them; load the last checkpoint and go on"
            )
        encoder = sampler.observation_encoder
        grown = {
            "returns": np.zeros((N, K)),
            "discounts": np.zeros((N, K)),
            "end_observations": np.zeros((N, K, encoder.dim), encoder.dtype),
            "lengths": np.zeros((N, K), np.int64),
        }
        touched = sorted({e for e, _ in snapshots})
        trunk_ends = {e: grower._snapshotter(e).take() for e in touched}
        stepper = _BranchStepper(sampler, start, grown)
        try:
            for n, (e, snapshot) in enumerate(snapshots):
                for k in np.flatnonzero(start.walked[n]).tolist():
                    grower._snapshotter(e).restore(snapshot)
                    stepper.run(n, k, e)
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
        with contextlib.suppress(Exception, SystemExit):  # the copy is not needed any more
            separate.close()


class _BranchStepper:
    """Steps one environment along one branch."""

    def __init__(self, sampler: InProcessSampler, start: Start, grown: dict[str, Array]) -> None:
        encoder, adapter = sampler.observation_encoder, sampler.action_adapter
        self._sampler, self._start, self._grown = sampler, start, grown
        self._write = encoder.write
        self._to_env = adapter.step_converter(1, encoder.dtype)
        self._observation = np.zeros((1, 1, encoder.dim), encoder.dtype)
        self._action = np.zeros((1, 1, adapter.action_dim), start.actions.dtype)
        self._counter = np.zeros(1, np.uint64)
        self._env = np.zeros(1, np.uint32)
        self._mask = np.ones((1, 1, sampler.mask_width), np.bool_)
        policy = sampler.policy
        assert policy is not None
        self._actor = policy.actor(
            self._observation,
            self._action,
            self._counter,
            self._env,
            seed=derive(sampler.seed, Purpose.BRANCH_NOISE),
            **({"action_masks": self._mask} if sampler.has_masks else {}),
        )

    def run(self, n: int, k: int, e: int) -> None:
        """Branch k of state n, in environment e of the sampler."""
        sampler, start, grown = self._sampler, self._start, self._grown
        env, counter = sampler.first_index + e, int(start.counters[n])
        where = f"environment {env} ({sampler.name}), branch {k} from step {counter}"
        # All branches of a state see the same action noise.
        self._env[0] = env
        self._counter[0] = counter << 20
        action = self._to_env(start.actions[n, k][np.newaxis])[0]
        end = grown["end_observations"][n, k]
        environment = sampler.environments[e]
        step = environment.step
        giver = mask_giver(sampler.mask_source, environment) if sampler.has_masks else None
        total, discount = 0.0, 1.0
        returned: Any = None
        for taken in self._steps(where):
            try:
                returned = step(action)
                observation, reward, terminated, truncated, info = returned
                total += discount * one_number(reward)
                discount *= start.gamma
                ended = is_end(terminated, truncated)
                require_info(info)
                self._write(observation, end)
            except (Exception, SystemExit) as error:
                if is_users_exit(error):
                    raise
                if isinstance(error, ObservationError):
                    raise ValueError(f"{where}: {error}") from error
                problem = step_problem(returned) if raised_by_us(error) else None
                problem = problem or f"the environment raised {error_sentence(error)}"
                raise EnvironmentFailure(f"{where}: {problem}") from error
            sampler.show_life()
            if ended or taken == start.branch_steps:
                break
            if giver is not None:
                self._mask[0, 0] = self._mask_of(giver, observation, info, where)
            self._observation[0, 0] = end
            self._actor.step(0)
            action = self._to_env(self._action[0])[0]
        if not (math.isfinite(total) and np.isfinite(end).all()):
            raise ValueError(
                f"{where}: a reward or an observation is NaN or infinite; the environment must "
                "return finite numbers: mend it, or wrap it"
            )
        grown["returns"][n, k] = total
        grown["discounts"][n, k] = discount if start.bootstrap and not terminated else 0.0
        grown["lengths"][n, k] = taken

    def _mask_of(self, giver: MaskGiver, observation: Any, info: Any, where: str) -> Array:
        sampler = self._sampler
        try:
            return mask_row(sampler.distribution, giver(observation, info), sampler.mask_source)
        except MaskError as error:
            raise ValueError(f"{where}: {error}") from error

    def _steps(self, where: str) -> Iterator[int]:
        """1, 2, ... until the caller has enough."""
        yield from range(1, _LONGEST_BRANCH + 1)
        raise ValueError(
            f"{where}: the episode did not end within {_LONGEST_BRANCH} steps; give branch_steps"
        )
