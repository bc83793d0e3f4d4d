"""Worker processes that run whole rollouts: nothing crosses a process boundary per step.

Every worker holds a contiguous group of the environments and a policy of its own. Before a rollout
it reads the parameters from memory that it shares with the parent; then it steps, exactly as
`InProcessSampler` does; then the parent copies whole arrays out. Since every environment has random
streams of its own, the result has the same bits for any number of workers.

Workers are fresh interpreters, not forks and not ``multiprocessing`` children: they start safely in
a process that has threads, never import the user's main script again, and so need no
``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ... import runtime
from ...envs import EnvironmentFailure
from ..budget import Budget
from ..changes import on_group
from ..cores import DEFAULT_TIMEOUT
from ..crashes import MOST_CRASHES
from ..data import STEP_ARRAYS, Rollout, no_masks
from ..filling import first_rows
from ..interface import ActingPolicy
from ..metrics import Metrics
from ..sampler import SamplerBase
from .memory import SharedBlock
from .pool import WorkerPool
from .process import ROW, WorkerProcess
from .sources import portable_source

if TYPE_CHECKING:
    from ...envs import EnvSource

Array: TypeAlias = npt.NDArray[Any]


class WorkerSampler(SamplerBase):
    """Steps E environments in worker processes; the bits are those of `InProcessSampler`.

    A worker that fails takes the rollout with it: all workers are stopped, and the next `collect`
    starts them again with fresh episodes. They end with the sampler, with this process (however it
    ends), and leave nothing behind. A process that is forked from this one cannot use them.

    Parameters
    ----------
    env
        A Gymnasium id, or a callable without arguments that returns an ``Env``. It is sent with
        cloudpickle, so functions and classes of a script or a notebook are welcome.
    n_envs
        E.
    n_workers
        Number of processes, at least 1; never more than environments.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    env_kwargs
        Passed to ``gymnasium.make``; with an id only.
    timeout
        Seconds that a worker may take to start, or for one step of its environments; None waits for
        ever.
    restart_crashed_environments
        Replace an environment that raises or returns something wrong, and restart a worker that
        exits or hangs (with all its environments); the steps of broken episodes are dropped, and
        ``Rollout.crashes`` says why.
    action_masks
        Where the environments say which actions are allowed, see `InProcessSampler`.

    Raises
    ------
    ValueError, TypeError, ImportError
        As ``trpo_fast.envs.make_environment``.
    NoWorkers
        The environments cannot be sent, or workers cannot be started here.
    """

    def __init__(
        self,
        env: EnvSource,
        *,
        n_envs: int,
        n_workers: int,
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
        self.pool = WorkerPool(
            portable_source(env, dict(env_kwargs or {})),
            settings,
            n_envs=n_envs,
            n_workers=n_workers,
            timeout=timeout,
        )
        self._resumes = False  # whether environments were restored, which the workers do not know
        super().__init__(
            self.pool.name,
            *self.pool.spaces,
            n_envs=n_envs,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            recovers_crashes=restart_crashed_environments,
            mask_source=self.pool.mask_source,
        )
        self.busy_cores = self.n_workers

    @property
    def n_workers(self) -> int:
        """Number of worker processes."""
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
                self._bind_workers()

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
            answers = self.pool.call(function, arguments, name)
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
            runtime.rest_threads()  # the workers need the processors
            self._ensure_started()
            if start == "fresh":
                self.mask_source = self._mask_source_at_first
            for worker in self.pool.workers:
                if start:
                    self.state.write(worker.block.lasting, worker.group)
                self._send_collect(worker, budget, start, on_step is not None)
            rollout = Rollout.concatenate(self._parts(budget, on_step))
            for worker in self.pool.workers:
                self.state.read(worker.block.lasting, worker.group)
        self._started = True
        return replace(rollout, seconds=time.perf_counter() - start_time)

    def _send_collect(
        self, worker: WorkerProcess, budget: Budget, start: str, pauses: bool
    ) -> None:
        part = budget.part(worker.group)
        worker.block.reserve(first_rows(part))
        worker.write_policy(self._policy)
        settings = (self.metric_names, self.mask_source)
        worker.send("collect", part.sampling, part.steps, start, pauses, *settings)

    def _parts(self, budget: Budget, on_step: Callable[[], object] | None) -> list[Rollout]:
        """Wait for the rollouts of all workers; their arrays are the shared ones."""
        workers = self.pool.workers
        crashes: list[list[str]] = [[] for _ in workers]
        n_pauses = 0

        def restart(w: int, lost: EnvironmentFailure) -> None:
            """A process that is gone takes all its environments with it: they start anew."""
            crashes[w].append(str(lost))
            if n_pauses > 0 or len(crashes[w]) > MOST_CRASHES:
                raise lost
            counters = workers[w].block.lasting["counters"].copy()
            self.pool.replace(w)
            self._bind_workers([w])
            self._change_again([w])
            # One further than the last action drawn, so that no seed is used twice.
            workers[w].block.lasting["counters"][:] = counters + np.uint64(1)
            self._send_collect(workers[w], budget, "fresh", on_step is not None)

        answers: list[Any] = [ROW] * len(workers)
        while waiting := [w for w, answer in enumerate(answers) if answer is ROW]:
            on_loss = restart if self.recovers_crashes else None
            came = self.pool.gather(waiting, on_loss=on_loss)
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
            _view_of(worker.block, answer[:3], (*lost, *answer[3]), answer[4], self.has_masks)
            for worker, answer, lost in zip(workers, answers, crashes, strict=True)
        ]

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

    def _change_again(self, which: Sequence[int]) -> None:
        """Bring to the new environments of workers what was changed in those of before."""
        for change in self.changes.values():
            answers = self.pool.call(on_group, [change] * len(which), "environments", which=which)
            for kind, content in answers:
                if kind == "error":
                    raise content

    def _bind_workers(self, which: Sequence[int] | None = None) -> None:
        adapter = self.action_adapter
        self.pool.bind(
            self._policy,
            seed=self._seed,
            action_dim=adapter.action_dim,
            action_dtype=adapter.stored_dtype(self.observation_encoder.dtype).name,
            mask_width=self.mask_width,
            which=which,
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


def _view_of(
    block: SharedBlock,
    counts: tuple[int, int, int],
    crashes: tuple[str, ...],
    metrics: Metrics,
    has_masks: bool,
) -> Rollout:
    """The rollout of one worker. Its arrays are the shared ones: copy before the next."""
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
        episode_metrics=metrics,
    )
