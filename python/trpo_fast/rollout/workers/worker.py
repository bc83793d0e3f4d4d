"""The inside of a worker process: an `InProcessSampler` that takes commands.

The parent starts ``python -c BOOTSTRAP``, see `WorkerProcess`. What is large goes
through the shared block, what is rare through the connection: ``(command, *arguments)`` in, and one
of ``("result", value)`` and ``("error", kind, sentence, traceback)`` out; in between, where the parent
has something to do after every row, ``("row",)`` out and anything in. The worker ends when it is told to,
at SIGTERM, or when its parent is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from ... import _core

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..metrics import Metrics

# Only what is installed beside the interpreter is imported before the parent's own path is known.
# A parent that is gone by then has nobody to tell.
BOOTSTRAP = """
import sys
sys.path[:] = filter(None, sys.path)
from multiprocessing.connection import Connection
connection = Connection({connection})
try:
    sys.path[:] = connection.recv()
except (EOFError, OSError):
    sys.exit()
from trpo_fast.rollout.workers.worker import main
main(connection, {memory}, {report}, {output}, {stderr}, {prefix!r}, {pending})
"""

# What an error may be in the parent; the first of its base classes that is listed counts.
ERROR_KINDS = ("EnvironmentFailure", "ValueError", "TypeError", "ImportError", "MemoryError")

GRACE_SECONDS = 3.0  # for environments to close before they are killed

_IMPORT_SECONDS = 0.01  # between two looks whether an import has ended


class _Terminated(BaseException):
    """SIGTERM: leave whatever is running and close the environments.

    Raised where the signal comes, but never out of an import, see `_terminate`. Inside a destructor
    Python drops what is raised, so `came` is looked at before the next command as well.
    """

    came = False


def main(
    connection: Connection,
    memory: int,
    report: int,
    output: int,
    stderr: int,
    prefix: str,
    pending: int,
) -> None:
    """Serve the parent until it says goodbye.

    Parameters
    ----------
    connection
        To the parent.
    memory
        Descriptor of the file that both map.
    report
        Descriptor of the file that tells the parent where this process is.
    output
        Descriptor of the pipe that standard output and error of this process go into.
    stderr
        Descriptor of the parent's standard error.
    prefix
        What stands before every line there.
    pending
        Descriptor of the file that tells the parent what has not been forwarded yet.
    """
    _core.forward_lines(output, stderr, prefix, pending)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _survive_only_the_parent(connection.fileno())
    # A crash, or SIGUSR1, writes where the process is into a file that the parent reads.
    faulthandler.enable(report, all_threads=False)
    faulthandler.register(signal.SIGUSR1, report, all_threads=False)

    worker = _Worker(connection, memory)
    try:
        sys.unraisablehook = _report_unraisable
        with contextlib.suppress(_Terminated):  # wherever between these two lines it comes
            signal.signal(signal.SIGTERM, _terminate)
            _serve(connection, worker)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        # Closing is what remains to do anyhow; who cannot wait sends SIGKILL.
        with contextlib.suppress(Exception):
            worker.close()


def _serve(connection: Connection, worker: _Worker) -> None:
    """Answer commands until the parent says goodbye, or is gone."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while not _Terminated.came:
            command, *arguments = connection.recv()
            if command == "close":
                break
            connection.send(_answer(getattr(worker, command), arguments))


def _answer(function: Callable[..., Any], arguments: list[Any]) -> tuple[Any, ...]:
    try:
        result = function(*arguments)
    except Exception as error:
        names = [base.__name__ for base in type(error).__mro__]
        kind = next((name for name in names if name in ERROR_KINDS), "RuntimeError")
        return "error", kind, str(error), traceback.format_exc()
    return "result", result


class _Worker:
    """The commands, one method each."""

    def __init__(self, connection: Connection, memory: int) -> None:
        self._connection = connection
        self._memory = memory
        self._sampler: Any = None
        self._policy: Any = None
        self._block: Any = None

    def open(self, source: bytes, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Make a group of the environments of the run.

        Parameters
        ----------
        source
            See `portable_source`.
        settings
            ``n_envs``, ``first_index``, and arguments of `InProcessSampler`.

        Returns
        -------
        dict or None
            Their name, spaces and source of masks; None where the factory makes a whole vector
            environment.
        """
        import cloudpickle
        import gymnasium

        from ... import runtime
        from ...envs import copy_environment, open_environments
        from ..in_process import InProcessSampler

        runtime.set_num_threads(1)
        try:
            env, kwargs, registration = pickle.loads(source)
        except Exception as error:
            raise ValueError(
                f"env: cannot be rebuilt in a worker process: {type(error).__name__}: {error}; "
                "define it in a module that can be imported, or step it in this process with "
                "n_workers=0"
            ) from error
        if registration is not None:
            gymnasium.registry.setdefault(registration.id, registration)
        opened = open_environments(
            env,
            n_envs=settings["n_envs"],
            env_kwargs=kwargs,
            are_copies=settings["first_index"] > 0,
        )
        if opened.vector_env is not None or opened.parallel:
            for whole in filter(None, (opened.vector_env, *opened.parallel)):
                whole.close()
            return None
        recovers = settings["restart_crashed_environments"]
        self._sampler = InProcessSampler(
            opened.environments,
            name=opened.name,
            first_index=settings["first_index"],
            dtype=settings["dtype"],
            state_dependent_std=settings["state_dependent_std"],
            action_scaling=settings["action_scaling"],
            remake=(lambda _: copy_environment(env, **kwargs)) if recovers else None,
            make_copy=partial(copy_environment, env, **kwargs),
            action_masks=settings["action_masks"],
        )
        # What exists now stays: the collector of cycles need not look at it again.
        gc.collect()
        gc.freeze()
        spaces = (self._sampler.observation_space, self._sampler.action_space)
        return {
            "name": opened.name,
            "spaces": cloudpickle.dumps(spaces),
            "mask_source": self._sampler.mask_source,
        }

    def bind(self, policy: dict[str, Any], shape: dict[str, Any], seed: int) -> None:
        """Make the policy, and map the memory that its parameters come through."""
        from ...core import Distribution, Policy
        from .memory import BlockShape, SharedBlock

        distribution = Distribution(policy.pop("kind"), policy.pop("sizes"))
        self._policy = Policy(policy.pop("obs_dim"), distribution, **policy)
        self._block = SharedBlock(self._memory, BlockShape(**shape))
        self._sampler.state.keep_in(self._block.lasting)
        self._sampler.bind(self._policy, seed=seed)

    def collect(
        self,
        sampling: Any,
        steps: tuple[int, ...],
        start: str,
        pauses: bool,
        metric_names: tuple[str, ...],
        mask_source: str,
    ) -> tuple[int, int, int, tuple[str, ...], Metrics, str]:
        """Collect a rollout within a budget, in the shared block, which the parent has made ready.

        Parameters
        ----------
        sampling, steps
            The budget.
        start
            "fresh": with new episodes; "resume": with restored environments, and the state that the
            parent wrote; "": where the last rollout ended.
        pauses
            Whether to wait for the parent after every row.
        metric_names, mask_source
            See `SamplerBase`.

        Returns
        -------
        tuple
            The number of rows, of final observations, of episodes that ended; sentences of crashes;
            metrics of those episodes; where the environments have masks.
        """
        from ..budget import Budget
        from ..filling import RolloutBuffers

        block, sampler = self._block, self._sampler
        block.follow()
        first = len(block.arrays["rewards"])
        self._take_policy()
        sampler.metric_names, sampler.mask_source = metric_names, mask_source
        if start == "fresh":
            sampler.load_state_dict({"counters": block.lasting["counters"].copy()})
        if start == "resume":
            sampler.resume()

        def allocate(n_steps: int) -> RolloutBuffers:
            if n_steps > first:
                block.grow(n_steps)
            buffers: RolloutBuffers = block.buffers(fresh=start == "fresh" and n_steps == first)
            return buffers

        rollout = sampler.fill(Budget(sampling, steps), allocate, self._pause if pauses else None)
        counts = rollout.n_steps, len(rollout.final_indices), len(rollout.episode_indices)
        _, n_finals, n_episodes = counts
        for name in ("final_observations", "final_indices"):
            block.arrays[name][:n_finals] = getattr(rollout, name)
        for name in ("episode_returns", "episode_lengths", "episode_indices"):
            block.arrays[name][:n_episodes] = getattr(rollout, name)
        return *counts, rollout.crashes, rollout.episode_metrics, sampler.mask_source

    def _pause(self) -> None:
        self._connection.send(("row",))
        self._connection.recv()

    def call(self, name: str, function: bytes, arguments: bytes) -> bytes:
        """Call a function on the sampler, see `WorkerPool.call`; only the parent uses ``name``."""
        import cloudpickle

        outcome: tuple[str, Any]
        try:
            result = pickle.loads(function)(self._sampler, *pickle.loads(arguments))
            outcome = "result", cloudpickle.dumps(result)
        except Exception as error:
            outcome = "error", error
        try:
            answer: bytes = cloudpickle.dumps(outcome)
        except Exception:  # the error itself cannot be sent
            answer = cloudpickle.dumps(("error", RuntimeError(repr(outcome[1]))))
        return answer

    def close(self) -> None:
        """Close the environments."""
        if self._sampler is not None:
            self._sampler.close()

    def _take_policy(self) -> None:
        lasting = self._block.lasting
        self._policy.parameters = lasting["parameters"]
        enabled, clip, epsilon = lasting["normalizer"].tolist()
        if enabled:
            self._policy.set_normalizer(
                lasting["mean"], lasting["variance"], clip=clip, epsilon=epsilon
            )
        else:
            self._policy.clear_normalizer()


def _terminate(_: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        # The C++ of a module that is being made may not survive an exception: look again soon.
        signal.signal(signal.SIGALRM, _terminate)
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_SECONDS)
        return
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    _Terminated.came = True
    raise _Terminated


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, _Terminated):
        sys.__unraisablehook__(unraisable)


def _survive_only_the_parent(connection: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        # No events are asked for: poll only tells that the other side hung up. A process that the
        # parent forked may keep that side open, so look who the parent is as well.
        poll = select.poll()
        poll.register(connection, 0)
        while not poll.poll(1000.0) and os.getppid() == parent:
            pass
        # Give the environments time to close; then end in a way that nothing can hold up.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="trpo_fast parent watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit("trpo_fast.rollout.workers.worker: started by trpo_fast itself, not by hand")
