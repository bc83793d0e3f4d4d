"""Worker processes that run whole rollouts: nothing crosses a process boundary per step.

Every worker holds a contiguous group of the environments and a policy of its own. Before a rollout
it reads the parameters from memory that it shares with the parent; then it steps, exactly as
`InProcessSampler` does; then the parent copies whole arrays out. Since every environment has random
streams of its own, the result has the same bits for any number of workers.

Workers are fresh interpreters, not forks and not `multiprocessing` children: they start safely in a
process that has threads, never import the user's main script again, and so need no
`if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ... import runtime
from ...envs import EnvironmentFailure
from ..budget import Budget
from ..crashes import MOST_CRASHES
from ..data import Rollout
from ..filling import first_rows
from ..interface import ActingPolicy
from ..sampler import SamplerBase
from .memory import BlockShape, SharedBlock
from .process import ROW, Lost, WorkerProcess, stop_workers

if TYPE_CHECKING:
    from ...envs import EnvSource

Array: TypeAlias = npt.NDArray[Any]

DEFAULT_TIMEOUT = 300.0  # seconds

_LOOK_SECONDS = 0.5  # how often a parent that waits looks whether its workers live and move


class NoWorkers(ValueError):
    """These environments cannot be stepped by workers; the sentence says why.

    `is_vector_env`: because the factory makes a whole vector environment, which needs none.
    """

    def __init__(self, sentence: str, *, is_vector_env: bool = False) -> None:
        super().__init__(sentence)
        self.is_vector_env = is_vector_env


class PortablePolicy(ActingPolicy, Protocol):
    """What a policy must tell so that a worker can have its twin, see `trpo_fast.core.Policy`."""

    distribution: Any
    hidden_sizes: tuple[int, ...]
    activation: str

    @property
    def n_parameters(self) -> int:
        """P."""

    @property
    def parameters(self) -> Array:
        """(P,)."""

    @property
    def normalizer(self) -> Any:
        """None, or what has `mean` and `variance` (O,), `clip` and `epsilon`."""


def available_cores() -> int:
    """Processors that this process may use: its affinity and the limit of its control group."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


class WorkerSampler(SamplerBase):
    """Steps E environments in worker processes; the bits are those of `InProcessSampler`.

    A worker that fails takes the rollout with it: all workers are stopped, and the next `collect`
    starts them again with fresh episodes. They end with the sampler, with this process (however it
    ends), and leave nothing behind.

    Args:
        env: a Gymnasium id, or a callable without arguments that returns an `Env`. It is sent with
            cloudpickle, so functions and classes of a script or a notebook are welcome.
        n_envs: E.
        n_workers: number of processes; never more than environments.
        dtype: dtype of observations and continuous actions.
        state_dependent_std: the Gaussian's deviation is a network output.
        action_scaling: map [-1, 1] to the finite bounds of continuous actions.
        env_kwargs: passed to `gymnasium.make`; with an id only.
        timeout: seconds that a worker may take to start, or for one step of its environments; None
            waits for ever.
        restart_crashed_environments: replace an environment that raises or returns something wrong,
            and restart a worker that exits or hangs (with all its environments); the steps of
            broken episodes are dropped, and `Rollout.crashes` says why.

    Raises:
        ValueError, TypeError, ImportError: as `trpo_fast.envs.make_environment`.
        NoWorkers: the environments cannot be sent, or workers cannot be started here.
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
    ) -> None:
        self._source = _portable_source(env, dict(env_kwargs or {}))
        self._settings = {
            "dtype": np.dtype(dtype).name,
            "state_dependent_std": state_dependent_std,
            "action_scaling": action_scaling,
            "restart_crashed_environments": restart_crashed_environments,
        }
        self._timeout = math.inf if timeout is None else timeout
        self._workers: list[WorkerProcess] = []
        self._resumes = False  # the environments were restored, the workers do not know it yet
        self._stop = weakref.finalize(self, stop_workers, self._workers, os.getpid())
        # contiguous groups, as even as can be
        n_workers = min(n_workers, n_envs)
        bounds = [n_envs * w // n_workers for w in range(n_workers + 1)]
        self._groups = [slice(*bounds[w : w + 2]) for w in range(n_workers)]
        name, spaces = self._start()
        super().__init__(
            name,
            *spaces,
            n_envs=n_envs,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            recovers_crashes=restart_crashed_environments,
        )
        self.busy_cores = len(self._groups)

    @property
    def n_workers(self) -> int:
        """Number of worker processes."""
        return len(self._groups)

    @property
    def groups(self) -> list[slice]:
        """Which environments are stepped together, one group a worker."""
        return list(self._groups)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers]

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts, and the seed of environments and action noise.

        The workers take its parameters and its normaliser anew before every rollout.
        """
        super().bind(policy, seed=seed)
        if self._workers:
            with self._stops_on_error():
                self._bind_workers()

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where `{**state_dict(), **environment_state()}` was taken."""
        super().load_environment_state(state)
        self._resumes = self._started

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Call `function(sampler)`, or `function(sampler, arguments[w])`, in every worker.

        The sampler is the `InProcessSampler` of the worker's group. Function, arguments and results
        are sent with cloudpickle; `name` is what errors call it.

        Returns:
            The results in the order of `groups`.

        Raises:
            Exception: what the function raised.
            EnvironmentFailure: a worker ended, or hangs.
        """
        import cloudpickle

        sent = cloudpickle.dumps(function)
        with self._stops_on_error():
            self._ensure_started()
            for w, worker in enumerate(self._workers):
                given = () if arguments is None else (arguments[w],)
                worker.send("call", name, sent, cloudpickle.dumps(given))
            answers = [cloudpickle.loads(answer) for answer in self._gather()]
        # what the function raised is no fault of the workers
        for kind, content in answers:
            if kind == "error":
                raise content
        return [cloudpickle.loads(packed) for _, packed in answers]

    # --- one rollout ---

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        start_time = time.perf_counter()
        start = "fresh" if not self._started else "resume" if self._resumes else ""
        self._started = self._resumes = False
        runtime.rest_threads()  # the workers need the processors
        with self._stops_on_error():
            self._ensure_started()
            for worker in self._workers:
                if start:
                    self.state.write(worker.block.lasting, worker.group)
                self._send_collect(worker, budget, start, on_step is not None)
            rollout = Rollout.concatenate(self._parts(budget, on_step))
            self._read_state()
        self._started = True
        return replace(rollout, seconds=time.perf_counter() - start_time)

    def _send_collect(
        self, worker: WorkerProcess, budget: Budget, start: str, pauses: bool
    ) -> None:
        part = budget.part(worker.group)
        worker.block.reserve(first_rows(part))
        worker.write_policy(self._policy)
        worker.send("collect", part.sampling, part.steps, start, pauses)

    def _parts(self, budget: Budget, on_step: Callable[[], object] | None) -> list[Rollout]:
        """Wait for the rollouts of all workers; their arrays are the shared ones."""
        crashes: list[list[str]] = [[] for _ in self._workers]
        n_pauses = 0

        def restart(w: int, lost: EnvironmentFailure) -> None:
            """A process that is gone takes all its environments with it: they start anew."""
            crashes[w].append(str(lost))
            if n_pauses > 0 or len(crashes[w]) > MOST_CRASHES:
                raise lost
            counters = self._workers[w].block.lasting["counters"].copy()
            self._workers[w].process.kill()
            self._workers[w].end(time.monotonic())
            self._workers[w] = self._launch(w)
            self._gather([w])
            self._bind_workers([w])
            # one further than the last action drawn: no seed is used twice
            self._workers[w].block.lasting["counters"][:] = counters + np.uint64(1)
            self._send_collect(self._workers[w], budget, "fresh", on_step is not None)

        answers: list[Any] = [ROW] * len(self._workers)
        while waiting := [w for w, answer in enumerate(answers) if answer is ROW]:
            on_loss = restart if self.recovers_crashes else None
            came = self._gather(waiting, on_loss=on_loss)
            for w, answer in zip(waiting, came, strict=True):
                answers[w] = answer
            if ROW in answers and on_step is not None:
                on_step()
                n_pauses += 1
                for w, worker in enumerate(self._workers):
                    if answers[w] is ROW:
                        worker.go_on()
        return [
            _view_of(worker.block, n_rows, n_finals, n_episodes, (*lost, *sentences))
            for worker, (n_rows, n_finals, n_episodes, sentences), lost in zip(
                self._workers, answers, crashes, strict=True
            )
        ]

    def _read_state(self) -> None:
        for worker in self._workers:
            self.state.read(worker.block.lasting, worker.group)

    # --- processes ---

    def _ensure_started(self) -> None:
        if self._closed:
            raise RuntimeError("the sampler is closed; make a new one")
        if not self._workers:
            self._start()
            if self._policy is not None:
                self._bind_workers()

    def _start(self) -> tuple[str, tuple[Any, Any]]:
        """Start all workers; returns the name and the spaces of the environments."""
        import cloudpickle

        with self._stops_on_error():
            for w in range(len(self._groups)):
                self._workers.append(self._launch(w))
            answers = self._gather()
            if None in answers:
                raise NoWorkers(
                    "env: the factory makes a whole vector environment, which worker processes "
                    "cannot share: use n_workers=0",
                    is_vector_env=True,
                )
            spaces = [cloudpickle.loads(answer["spaces"]) for answer in answers]
            for worker, (mine, first) in zip(
                self._workers, ((s, spaces[0]) for s in spaces), strict=True
            ):
                for kind, got, expected in zip(("observation", "action"), mine, first, strict=True):
                    if got != expected:
                        raise ValueError(
                            f"environment {worker.group.start}: expected the {kind}_space of "
                            f"environment 0, {expected}, got {got}; all environments must be alike"
                        )
        return answers[0]["name"], spaces[0]

    def _launch(self, w: int) -> WorkerProcess:
        group = self._groups[w]
        worker = WorkerProcess(w, group, self._timeout)
        size = {"n_envs": group.stop - group.start, "first_index": group.start}
        worker.send("open", self._source, {**self._settings, **size})
        return worker

    def _bind_workers(self, which: Sequence[int] | None = None) -> None:
        policy: Any = self._policy
        missing = [name for name in _POLICY_FACTS if not hasattr(policy, name)]
        if missing:
            raise TypeError(
                f"policy: expected a trpo_fast.core.Policy, got {type(policy).__name__} without "
                f"{missing[0]}; worker processes make their own copy of it (or use n_workers=0)"
            )
        facts = {
            "obs_dim": policy.obs_dim,
            "kind": policy.distribution.kind,
            "sizes": policy.distribution.sizes,
            "hidden_sizes": policy.hidden_sizes,
            "activation": policy.activation,
            "dtype": np.dtype(policy.dtype).name,
        }
        which = range(len(self._workers)) if which is None else which
        for w in which:
            worker = self._workers[w]
            shape = BlockShape(
                n_envs=worker.group.stop - worker.group.start,
                obs_dim=self.observation_encoder.dim,
                action_dim=self.action_adapter.action_dim,
                n_parameters=policy.n_parameters,
                dtype=self.observation_encoder.dtype.name,
                action_dtype=self.action_adapter.stored_dtype(self.observation_encoder.dtype).name,
            )
            worker.block = SharedBlock(worker.memory, shape)
            worker.send("bind", facts, asdict(shape), self._seed)
        self._gather(which)

    def _gather(
        self,
        which: Sequence[int] | None = None,
        *,
        on_loss: Callable[[int, EnvironmentFailure], None] | None = None,
    ) -> list[Any]:
        """One answer of each worker, in their order.

        `on_loss` is called for a worker that is gone or hangs, and must make it answer after all.

        Raises:
            EnvironmentFailure: a worker ended or hangs.
            Exception: what a worker raised.
        """
        which = range(len(self._workers)) if which is None else which
        answers: dict[int, Any] = {}
        while len(answers) < len(which):
            waiting = {self._workers[w].connection: w for w in which if w not in answers}
            ready = wait(list(waiting), timeout=_LOOK_SECONDS)
            for connection, w in waiting.items():
                worker = self._workers[w]
                try:
                    if connection in ready:
                        answers[w] = worker.receive(self._where_is(w))
                    else:
                        worker.look(self._where_is(w))
                except Lost as lost:
                    failure = EnvironmentFailure(str(lost))
                    if on_loss is None:
                        raise failure from lost.__cause__
                    on_loss(w, failure)
        return [answers[w] for w in which]

    def _where_is(self, w: int) -> Callable[[], str]:
        """Names worker w and the environment and step that it stands at."""

        def where() -> str:
            worker = self._workers[w]
            kind, *rest = worker.command
            if kind != "collect":
                return f"worker {w} ({rest[0] if kind == 'call' else kind})"
            e, resetting = worker.block.position()
            counter = int(worker.block.lasting["counters"][e])
            index = self._groups[w].start + e
            if resetting:
                return f"worker {w}: reset before environment {index} ({self.name}), step {counter}"
            # the action of the running step is drawn already
            return f"worker {w}: environment {index} ({self.name}), step {max(0, counter - 1)}"

        return where

    @contextlib.contextmanager
    def _stops_on_error(self) -> Iterator[None]:
        """Whatever goes wrong, Ctrl-C included: no worker is left in the middle of something."""
        try:
            yield
        except BaseException:
            self._started = self._resumes = False
            for worker in self._workers:
                # what was drawn is drawn, though nobody will see it
                if worker.command[0] == "collect":
                    counters = self.state.counters[worker.group]
                    np.maximum(counters, worker.block.lasting["counters"], out=counters)
            stop_workers(self._workers, os.getpid())
            raise

    def _close(self) -> None:
        self._stop()


_POLICY_FACTS = ("distribution", "hidden_sizes", "activation", "parameters", "normalizer")


def _view_of(
    block: SharedBlock, n_rows: int, n_finals: int, n_episodes: int, crashes: tuple[str, ...]
) -> Rollout:
    """The rollout of one worker. Its arrays are the shared ones: copy before the next."""
    block.follow()
    arrays = block.arrays
    rows = ("actions", "rewards", "terminated", "truncated", "valid")
    return Rollout(
        observations=arrays["observations"][:n_rows],
        **{name: arrays[name][:n_rows] for name in rows},
        last_observations=arrays["observations"][n_rows],
        final_observations=arrays["final_observations"][:n_finals],
        final_indices=arrays["final_indices"][:n_finals],
        episode_returns=arrays["episode_returns"][:n_episodes],
        episode_lengths=arrays["episode_lengths"][:n_episodes],
        episode_indices=arrays["episode_indices"][:n_episodes],
        seconds=0.0,
        crashes=crashes,
    )


def _portable_source(env: EnvSource, kwargs: dict[str, Any]) -> bytes:
    """What a worker needs to make the environments, pickled: source, arguments, registration."""
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(env, gymnasium.Env | VectorEnv):
        raise NoWorkers(
            "env: an environment that exists already cannot move to worker processes; pass an id "
            "or a function that makes it, or use n_workers=0"
        )
    if os.name != "posix" or getattr(sys, "frozen", False) or not sys.executable:
        raise NoWorkers(
            "worker processes cannot be started by this interpreter (they need a POSIX system and "
            "a Python executable); use n_workers=0"
        )
    try:
        import cloudpickle
    except ModuleNotFoundError:
        raise NoWorkers(
            "worker processes need cloudpickle, which is not installed: pip install cloudpickle, "
            "or use n_workers=0"
        ) from None
    registration = None
    if isinstance(env, str):
        # what this process has registered, a worker need not find again
        registration = gymnasium.registry.get(env.rpartition(":")[2])
        entry = getattr(registration, "entry_point", None)
        if registration and isinstance(entry, str) and entry.startswith("__main__:"):
            main = sys.modules["__main__"]
            registration = copy.copy(registration)
            registration.entry_point = getattr(main, entry.partition(":")[2])
    try:
        pickled: bytes = cloudpickle.dumps((env, kwargs, registration))
    except Exception as error:
        raise NoWorkers(
            f"env: cannot be sent to worker processes: {type(error).__name__}: {error}; make what "
            "it needs inside the function, or use n_workers=0"
        ) from error
    return pickled
