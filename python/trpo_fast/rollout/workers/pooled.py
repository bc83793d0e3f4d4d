"""What samplers with workers share: nothing crosses a process boundary per step.

Every worker holds a contiguous group of the environments and a policy of its own. Before a rollout
it gets the parameters; then it steps, exactly as `InProcessSampler` does; then whole arrays come
back. Since every environment has random streams of its own, the result has the same bits for any
number of workers, wherever they are.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...envs import EnvironmentFailure
from ..budget import Budget
from ..changes import on_group
from ..data import STEP_ARRAYS, Rollout, no_masks
from ..filling import first_rows
from ..interface import ActingPolicy
from ..metrics import Metrics
from ..sampler import SamplerBase
from .pool import WorkerPool
from .transport import ROW, Block

Array: TypeAlias = npt.NDArray[Any]


class PooledSampler(SamplerBase):
    """Steps E environments in workers; a subclass says where these are, and what if one is lost.

    Parameters
    ----------
    pool
        The workers.
    n_envs
        E.
    settings
        ``dtype``, ``state_dependent_std`` and ``action_scaling`` of `SamplerBase`, and
        ``restart_crashed_environments``.
    """

    def __init__(self, pool: WorkerPool, *, n_envs: int, settings: Mapping[str, Any]) -> None:
        self.pool = pool
        self._resumes = False  # whether environments were restored, which the workers do not know
        # how workers begin that took the place of others since the last rollout: "resume" or "fresh"
        self._renewed: dict[int, str] = {}
        self._published: Any = None  # numbers of the policy of this rollout
        super().__init__(
            pool.name,
            *pool.spaces,
            n_envs=n_envs,
            dtype=settings["dtype"],
            state_dependent_std=settings["state_dependent_std"],
            action_scaling=settings["action_scaling"],
            recovers_crashes=settings["restart_crashed_environments"],
            mask_source=pool.mask_source,
        )

    @property
    def n_workers(self) -> int:
        """Number of workers."""
        return len(self.pool.groups)

    @property
    def groups(self) -> list[slice]:
        """Which environments are stepped together, one group a worker."""
        return list(self.pool.groups)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.pid for worker in self.pool.workers]

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts, and the seed of environments and action noise.

        The workers take its parameters and its normaliser anew before every rollout. See
        `SamplerBase.bind`.
        """
        super().bind(policy, seed=seed)
        if self.pool.workers:
            with self._stops_on_error():
                self._bind_workers(on_loss=self._on_loss_in_call())

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where a state was taken, see `SamplerBase.load_environment_state`."""
        super().load_environment_state(state)
        self._resumes = self._started

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Call a function on the `InProcessSampler` of every worker, see `SamplerBase.map_groups`.

        Function, arguments and results are sent with cloudpickle.

        Raises
        ------
        Exception
            What the function raised.
        EnvironmentFailure
            A worker ended, or hangs.
        RuntimeError
            The sampler is closed, a rollout is under way, or this process is a fork of the one that
            started the workers.
        """
        import cloudpickle

        with self._exclusive.taken(name), self._stops_on_error():
            self._ensure_started()
            answers = self.pool.call(function, arguments, name, on_loss=self._on_loss_in_call())
        # What the function raised is no fault of the workers.
        for kind, content in answers:
            if kind == "error":
                raise content
        return [cloudpickle.loads(packed) for _, packed in answers]

    # --- one rollout ---

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        start_time = time.perf_counter()
        start = "fresh" if not self._started else "resume" if self._resumes else ""
        with self._stops_on_error():
            self._started = self._resumes = False
            self._prepare_rollout(budget, start, on_step)
            self._ensure_started()
            if start == "fresh":
                self.mask_source = self._mask_source_at_first
            assert self._policy is not None
            self._published = self.pool.publish(self._policy)
            for w, worker in enumerate(self.pool.workers):
                begin = start or self._renewed.get(w, "")
                if begin:
                    self.state.write(worker.block.lasting, worker.group)
                self._send_collect(w, budget, begin, on_step is not None)
            self._renewed.clear()
            rollout = Rollout.concatenate(self._parts(budget, start, on_step))
            for worker in self.pool.workers:
                self.state.read(worker.block.lasting, worker.group)
            self._keep_states()
        self._started = True
        return replace(rollout, seconds=time.perf_counter() - start_time)

    def _send_collect(self, w: int, budget: Budget, start: str, pauses: bool) -> None:
        worker = self.pool.workers[w]
        part = budget.part(worker.group)
        worker.block.reserve(first_rows(part))
        worker.take_policy(self._published)
        settings = (self.metric_names, self.mask_source)
        worker.send("collect", part.sampling, part.steps, start, pauses, *settings)

    def _parts(
        self, budget: Budget, start: str, on_step: Callable[[], object] | None
    ) -> list[Rollout]:
        """Wait for the rollouts of all workers; their arrays are those of the blocks."""
        workers = self.pool.workers
        crashes: list[list[str]] = [[] for _ in workers]
        losses = [0] * len(workers)
        n_pauses = 0

        def on_loss(w: int, lost: EnvironmentFailure) -> None:
            losses[w] += 1
            if n_pauses > 0 or losses[w] > self._most_losses:
                raise lost
            crashes[w] += self._begin_again(w, lost, budget, start, on_step is not None)

        answers: list[Any] = [ROW] * len(workers)
        while waiting := [w for w, answer in enumerate(answers) if answer is ROW]:
            came = self.pool.gather(waiting, on_loss=on_loss if self._most_losses else None)
            for w, answer in zip(waiting, came, strict=True):
                answers[w] = answer
            if ROW in answers and on_step is not None:
                on_step()
                if self._closed:
                    raise RuntimeError("collect: the sampler was closed in the middle of a rollout")
                n_pauses += 1
                for w, worker in enumerate(workers):
                    if answers[w] is ROW:
                        worker.go_on()
        self._take_mask_source([answer[-1] for answer in answers])
        return [
            view_of(worker.block, answer[:3], (*lost, *answer[3]), answer[4], self.has_masks)
            for worker, answer, lost in zip(workers, answers, crashes, strict=True)
        ]

    # --- for subclasses ---

    @property
    def _most_losses(self) -> int:
        """How often a worker may be replaced in one rollout; 0: losing one ends the rollout."""
        raise NotImplementedError

    def _prepare_rollout(
        self, budget: Budget, start: str, on_step: Callable[[], object] | None
    ) -> None:
        """Before the workers are asked for a rollout; may refuse it."""

    def _begin_again(
        self, w: int, lost: EnvironmentFailure, budget: Budget, start: str, pauses: bool
    ) -> list[str]:
        """Replace worker w, which is lost, and let it begin its part of the rollout again.

        Returns
        -------
        list of str
            Sentences about episodes that are lost with it.
        """
        raise NotImplementedError

    def _keep_states(self) -> None:
        """After a rollout."""

    def _on_loss_in_call(self) -> Callable[[int, EnvironmentFailure], None] | None:
        """What replaces a worker that is lost in `map_groups`, to be asked again; None: nothing."""
        return None

    # --- masks ---

    def _take_mask_source(self, sources: Sequence[str]) -> None:
        """Every worker has looked for itself where its environments have masks."""
        self.mask_source = sources[0]
        other = next((w for w, source in enumerate(sources) if source != sources[0]), None)
        if other is not None:
            raise ValueError(
                f"environment {self.groups[other].start}: expected masks as environment 0 has them "
                f"({sources[0]}), got {sources[other]}; all environments must be alike, or set "
                "action_masks='none'"
            )

    # --- processes ---

    def _ensure_started(self) -> None:
        if self._closed:
            raise RuntimeError("the sampler is closed; make a new one")
        if not self.pool.workers:
            self.pool.start()
            if self._policy is not None:
                self._bind_workers()
            self._change_again(range(len(self.pool.workers)))

    def _prepare_worker(self, w: int) -> None:
        """Give a worker that takes the place of another one what that had."""
        self._bind_workers([w])
        self._change_again([w])

    def _change_again(self, which: Sequence[int]) -> None:
        """Bring to the new environments of workers what was changed in those of before."""
        for change in self.changes.values():
            answers = self.pool.call(on_group, [change] * len(which), "environments", which=which)
            for kind, content in answers:
                if kind == "error":
                    raise content

    def _bind_workers(
        self,
        which: Sequence[int] | None = None,
        on_loss: Callable[[int, EnvironmentFailure], None] | None = None,
    ) -> None:
        adapter = self.action_adapter
        self.pool.bind(
            self._policy,
            seed=self._seed,
            action_dim=adapter.action_dim,
            action_dtype=adapter.stored_dtype(self.observation_encoder.dtype).name,
            mask_width=self.mask_width,
            which=which,
            on_loss=on_loss,
        )

    @contextlib.contextmanager
    def _stops_on_error(self) -> Iterator[None]:
        """See `WorkerPool.stops_on_error`; the next rollout then starts with fresh episodes."""
        with self.pool.stops_on_error():
            try:
                yield
            except BaseException:
                self._started = self._resumes = False
                # What was drawn is drawn, though nobody will see it.
                for worker in self.pool.workers:
                    if worker.command[0] == "collect":
                        counters = self.state.counters[worker.group]
                        np.maximum(counters, worker.block.lasting["counters"], out=counters)
                raise

    def _close(self) -> None:
        self.pool.stop()


def view_of(
    block: Block,
    counts: tuple[int, int, int],
    crashes: tuple[str, ...],
    metrics: Metrics,
    has_masks: bool,
) -> Rollout:
    """The rollout of one worker. Its arrays are those of the block: copy before the next.

    Parameters
    ----------
    block
        Of the worker.
    counts
        Rows, final observations, episodes that ended.
    crashes, metrics
        Of the rollout.
    has_masks
        Whether the environments say which actions are allowed.
    """
    block.follow()
    arrays = block.arrays
    n_rows, n_finals, n_episodes = counts
    masks = arrays["action_masks"] if has_masks else no_masks(n_rows + 1, block.shape.n_envs)
    return Rollout(
        observations=arrays["observations"][:n_rows],
        **{name: arrays[name][:n_rows] for name in STEP_ARRAYS},
        last_observations=arrays["observations"][n_rows],
        action_masks=masks[:n_rows],
        last_action_masks=masks[n_rows],
        final_observations=arrays["final_observations"][:n_finals],
        final_indices=arrays["final_indices"][:n_finals],
        episode_returns=arrays["episode_returns"][:n_episodes],
        episode_lengths=arrays["episode_lengths"][:n_episodes],
        episode_indices=arrays["episode_indices"][:n_episodes],
        seconds=0.0,
        crashes=crashes,
        notices=(),
        episode_metrics=metrics,
    )
