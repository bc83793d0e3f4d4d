"""Actors of a cluster that run whole rollouts, and what is done where one of them is lost.

After every rollout the states of the environments come back with its arrays, where they can be
stored, and this process keeps them. An actor that is lost, with its node or alone, is started again
wherever there is room; its environments are put into those states, and its part of the rollout is
made again. Since every random number belongs to an environment and a step, the result has the same
bits as if nothing had happened.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import runtime
from ...envs import EnvironmentFailure
from ...snapshots import SnapshotError
from ..budget import Budget
from ..calls import load_states, save_states, unpack_state
from ..changes import EnvironmentChange, on_group
from ..cores import DEFAULT_TIMEOUT
from ..data import Rollout
from ..state import RunState
from ..stored import environment_seed
from ..workers import NoWorkers
from ..workers.pool import WorkerPool
from ..workers.pooled import PooledSampler
from ..workers.sources import portable_source
from ..workers.transport import WorkerLost
from .actor import node_name
from .beginning import Beginning
from .connection import ClusterError, Connection
from .transport import Actors, WorkerActor

if TYPE_CHECKING:
    from ...envs import EnvSource

Array = npt.NDArray[Any]

MOST_LOSSES = 5
"""How often one part of a rollout, or one call, is tried again: then its environments are at fault."""


class ActorSampler(PooledSampler):
    """Steps E environments in Ray actors of one core each; the bits are those of `InProcessSampler`.

    Parameters
    ----------
    env
        A Gymnasium id, or a callable without arguments that returns an ``Env``. It is sent with
        cloudpickle; what it imports must be there on every node.
    cluster
        "local", "auto", "HOST:PORT" or "ray://HOST:PORT", see `Connection`.
    runtime_env
        What Ray brings to the nodes, see `connection.read_runtime_env`.
    n_envs
        E.
    n_workers
        Number of actors, at least 1; never more than environments. None takes one for every core
        that is free.
    dtype, state_dependent_std, action_scaling, env_kwargs
        As for `WorkerSampler`.
    timeout
        Seconds that an actor may take to start, or for one step of its environments; None waits for
        ever.
    restart_crashed_environments
        Replace an environment that raises or returns something wrong.
    action_masks
        As for `WorkerSampler`.

    Raises
    ------
    ClusterError
        There is no such cluster, it has too few cores, or its nodes cannot compute alike.
    ValueError, TypeError, ImportError
        As ``trpo_fast.envs.make_environment``; also environments that cannot be sent.
    """

    def __init__(
        self,
        env: EnvSource,
        *,
        cluster: str,
        runtime_env: str | None = None,
        n_envs: int,
        n_workers: int | None = None,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        env_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        restart_crashed_environments: bool = False,
        action_masks: str = "auto",
    ) -> None:
        settings = {
            "dtype": np.dtype(dtype).name,
            "state_dependent_std": state_dependent_std,
            "action_scaling": action_scaling,
            "restart_crashed_environments": restart_crashed_environments,
            "action_masks": action_masks,
        }
        self._kept: list[list[dict[str, Array]]] | None = None  # states after the rollout
        self._why_none_kept = "save_environments is off"
        self._early: list[EnvironmentChange] = []  # changes before the first rollout
        self._notices: list[str] = []
        try:
            source = portable_source(env, dict(env_kwargs or {}))
            self.connection = Connection(cluster, runtime_env)
            try:
                cores = self.connection.require_cores(n_workers, at_most=n_envs, name="n_workers")
                self._actors = Actors(self.connection, math.inf if timeout is None else timeout)
                pool = WorkerPool(self._actors, source, settings, n_envs=n_envs, n_workers=cores)
            except BaseException:
                self.connection.close()
                raise
        except NoWorkers as reason:
            remedy = str(reason).replace("use n_workers=0", "leave out cluster")
            raise ValueError(remedy) from None
        super().__init__(pool, n_envs=n_envs, settings=settings)
        self._actors.may_share = True
        self.busy_cores = self._actors_here()

    @property
    def worker_pids(self) -> list[int]:
        """No process that this one could signal."""
        return []

    # --- what is kept of the environments ---

    def prepare_states(self) -> None:
        """Find out whether states can be stored, and keep them from the first rollout on."""
        super().prepare_states()
        self._actors.saves_states = True
        self._why_none_kept = self._why_not_saved

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where a state was taken, see `SamplerBase.load_environment_state`."""
        self._kept = None
        super().load_environment_state(state)
        if self._started:
            self._kept = [
                [unpack_state(state, e) for e in range(group.start, group.stop)]
                for group in self.groups
            ]

    def change(self, change: EnvironmentChange) -> list[Any]:
        """Do something with every environment, see `SamplerBase.change`."""
        results = super().change(change)
        if change.kind != "get":
            if not self.state.counters.any():
                self._early.append(change)
            self._refresh()
        return results

    def map_environments(
        self, function: Callable[..., Any], arguments: Sequence[Any] | None = None
    ) -> list[Any]:
        """Call a function on each environment, see `SamplerBase.map_environments`."""
        results = super().map_environments(function, arguments)
        self._refresh()
        return results

    def _saved_states(self) -> list[list[dict[str, Array]]]:
        """The states after the last rollout are here already."""
        if "fresh" in self._renewed.values():
            raise SnapshotError("an actor was lost, whose environments begin anew")
        return super()._saved_states() if self._kept is None else self._kept

    def _refresh(self) -> None:
        """Take the states anew, after something else than a rollout has changed the environments."""
        if self._kept is not None or (self._started and self._actors.saves_states):
            self._kept = None
            self._keep(self.map_groups(_states_or_reason, name="saving the environments"))

    def _keep_states(self) -> None:
        self._keep([worker.states for worker in self._workers])

    def _keep(self, states: Sequence[list[dict[str, Array]] | str]) -> None:
        reasons = [said for said in states if isinstance(said, str)]
        self._early.clear()
        if not reasons:
            self._kept = [each for each in states if not isinstance(each, str)]
            return
        self._kept = None
        if self._actors.saves_states:
            self._actors.saves_states = False
            self._why_none_kept = reasons[0]

    # --- one rollout ---

    @property
    def _most_losses(self) -> int:
        return MOST_LOSSES

    def _prepare_rollout(
        self, budget: Budget, start: str, on_step: Callable[[], object] | None
    ) -> None:
        if on_step is not None:
            raise ValueError(
                "cluster: expected callbacks of iterations, got one of steps (on_step), for which "
                "every row would wait for the network; use it without cluster"
            )
        if start == "fresh":
            self._kept = None
        if not self._actors.keeps_rows:
            self._refuse_small_store(budget)
        self._move_to_free_cores()
        self.busy_cores = self._actors_here()
        if self.busy_cores:
            runtime.rest_threads()  # actors on this machine need its processors

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        rollout = super()._collect(budget, on_step)
        rollout.notices = tuple(self._notices)
        self._notices.clear()
        return rollout

    def _begin_again(
        self, w: int, lost: EnvironmentFailure, budget: Budget, start: str, pauses: bool
    ) -> list[str]:
        begin = "fresh" if self._renew(w) == "fresh" else start or "resume"
        worker = self.pool.workers[w]
        self.state.write(worker.block.lasting, worker.group)
        self._send_collect(w, budget, begin, pauses)
        if begin == "resume" or start == "fresh":
            self._notices.append(
                f"{lost}; its part of the rollout was made again, with the same bits"
            )
            return []
        return [f"{lost}; its episodes start anew, because {self._why_none_kept}"]

    def _on_loss_in_call(self) -> Callable[[int, EnvironmentFailure], None]:
        losses = [0] * self.n_workers

        def on_loss(w: int, lost: EnvironmentFailure) -> None:
            losses[w] += 1
            if losses[w] > MOST_LOSSES:
                raise lost
            begin = self._renew(w)
            if not self._started:
                return
            self._renewed[w] = begin
            then = "it was started again, where it was"
            if begin == "fresh":
                then = f"its episodes start anew, because {self._why_none_kept}"
            self._notices.append(f"{lost}; {then}")

        return on_loss

    # --- actors ---

    @property
    def _workers(self) -> list[WorkerActor]:
        workers: list[Any] = self.pool.workers
        return workers

    def _renew(self, w: int, began: Beginning | None = None) -> str:
        """Start actor w again, wherever there is room, and bring its environments where they were.

        Parameters
        ----------
        w
            Which.
        began
            Bring them where this rollout began; None: where they are now.

        Returns
        -------
        str
            How it begins its next rollout: "resume", or "fresh" where that is not known.
        """
        # Before the first rollout all changes are made in their order, later the latest ones.
        changes = list(self._early or self.changes.values()) if began is None else began.changes
        state, kept = (self.state, self._kept) if began is None else (began.state, began.kept)
        for losses in itertools.count(1):
            try:
                self.pool.replace(w)
                if self._policy is not None:
                    self._bind_workers([w])
                for change in changes:
                    self._call_one(w, on_group, change)
                if kept is None:
                    return "fresh"
                self._call_one(w, load_states, self._with_seeds(w, state, kept))
                return "resume"
            except WorkerLost:
                if losses > MOST_LOSSES:
                    raise
        raise AssertionError

    def _with_seeds(
        self, w: int, state: RunState, kept: list[list[dict[str, Array]]]
    ) -> list[tuple[int, dict[str, Array]]]:
        """States of the environments of actor w, each with the seed of a reset before it."""
        group = self.groups[w]
        counters = enumerate(state.counters[group].tolist(), self.first_index + group.start)
        seeds = [environment_seed(self._seed, e, counter) for e, counter in counters]
        return list(zip(seeds, kept[w], strict=True))

    def _call_one(self, w: int, function: Callable[..., Any], argument: Any) -> None:
        ((kind, content),) = self.pool.call(function, [argument], "starting again", which=[w])
        if kind == "error":
            raise content

    def _move_to_free_cores(self) -> None:
        """Let actors that share a core have one of their own, where nodes have joined meanwhile."""
        for w, worker in enumerate(self._workers):
            if worker.shares_a_core and self._kept is not None and self.connection.free_cores() > 0:
                self._renewed[w] = self._renew(w)

    def _actors_here(self) -> int:
        """How many actors share this process's machine."""
        own = node_name()
        return sum(worker.node == own for worker in self._workers)

    def _refuse_small_store(self, budget: Budget) -> None:
        """Raise where the arrays of a rollout do not fit into the object store of this process."""
        encoder, adapter = self.observation_encoder, self.action_adapter
        row = encoder.dim * encoder.dtype.itemsize + self.mask_width
        row += adapter.action_dim * np.dtype(adapter.stored_dtype(encoder.dtype)).itemsize + 8 + 3
        needed, there = row * sum(budget.steps), self.connection.store_bytes_here()
        if 0 < there < needed:
            raise ClusterError(
                f"batch_size: expected a rollout that fits into the object store of this process, "
                f"{there / 1e6:.0f} MB, got one of {needed / 1e6:.0f} MB; start Ray here with a larger "
                "--object-store-memory, or take a smaller batch_size"
            )

    def _close(self) -> None:
        super()._close()
        self.connection.close()


def _states_or_reason(sampler: Any) -> list[dict[str, Array]] | str:
    try:
        return save_states(sampler)
    except SnapshotError as error:
        return str(error)
