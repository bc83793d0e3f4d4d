"""One worker process as its parent sees it: started, talked to, watched, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from typing import Any

from ... import _core
from .memory import BlockShape, PolicyNumbers, SharedBlock, anonymous_file, beyond_standard
from .transport import ROW, Lost, WorkerTraceback, raise_error
from .worker import BOOTSTRAP

# Every worker has one numeric thread, in the libraries of its environments too.
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)


class WorkerProcess:
    """A worker as its parent sees it.

    Parameters
    ----------
    index
        Number of the worker.
    group
        Indices of its environments.
    timeout
        Seconds without a step after which it is taken to hang; may be infinite.

    Attributes
    ----------
    block
        Memory that both share; missing before the first policy.
    command
        The last command and its arguments.
    """

    block: SharedBlock

    def __init__(self, index: int, group: slice, timeout: float) -> None:
        self.index = index
        self.group = group
        self.command: tuple[Any, ...] = ("start",)
        self.timeout = timeout
        self._busy = False
        self._progress = -1
        self._moved = 0.0  # when progress was seen last
        self.memory, self._report = anonymous_file(), anonymous_file()
        self._prefix = _prefix(index, group)
        self._output, into_output = map(beyond_standard, os.pipe())
        self._pending = anonymous_file()
        os.ftruncate(self._pending, _core.line_forwarder_bytes)
        ours, theirs = (
            socket.socket(fileno=beyond_standard(end.detach())) for end in socket.socketpair()
        )
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            undo.callback(self._close_files)
            with_us = undo.enter_context(contextlib.ExitStack())
            with_us.callback(os.close, into_output)
            stderr = _standard_error()
            with_us.callback(os.close, stderr)
            files = (self.memory, self._report, self._output, stderr, self._pending)
            inherited = (theirs.fileno(), *files)
            names = ("connection", "memory", "report", "output", "stderr", "pending")
            program = BOOTSTRAP.format(
                **dict(zip(names, inherited, strict=True)), prefix=self._prefix
            )
            # The worker has a session of its own: Ctrl-C in the terminal is for the parent, and the
            # processes that environments start can be ended together with the worker.
            self.process = subprocess.Popen(
                [*_interpreter(), "-c", program],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                # What environments print is for people, not for who reads our standard output.
                stdout=into_output,
                stderr=into_output,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
            with_us.close()
            undo.pop_all()
        self.connection = Connection(ours.detach())
        self._deliver(sys.path)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def progress(self) -> int:
        """A number that changes with every time step; 0 before the first policy."""
        return self.block.progress() if "block" in self.__dict__ else 0

    def send(self, *command: Any) -> None:
        """Give a command; its answer comes with `receive`.

        Parameters
        ----------
        *command
            Its name, and its arguments, which can be pickled.
        """
        self.command = command
        self._busy = True
        self._progress, self._moved = -1, time.monotonic()
        if not self._deliver(command):
            self.command = ("between two commands",)

    def go_on(self) -> None:
        """Let it go on after a row."""
        self._moved = time.monotonic()
        self._deliver(None)

    def _deliver(self, message: Any) -> bool:
        # A worker that is gone is noticed, and named, where its answer is waited for.
        try:
            self.connection.send(message)
        except OSError:
            return False
        return True

    def receive(self, where: Callable[[], str]) -> Any:
        """The answer to the last command, or `ROW`; it must be there.

        Parameters
        ----------
        where
            Names the worker and what it is doing.

        Raises
        ------
        Lost
            The worker is gone.
        Exception
            What the worker raised.
        """
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
            raise self._lost(where()) from self._trace()
        if kind == "row":
            return ROW
        self._busy = False
        if kind == "result":
            return content[0]
        if self.command[0] == "collect":
            content[1] = f"worker {self.index}: {content[1]}"
        raise_error(*content)

    def look(self, where: Callable[[], str]) -> None:
        """Raise `Lost` if the worker ended, or has not moved for too long.

        Parameters
        ----------
        where
            Names the worker and what it is doing.
        """
        if self.process.poll() is not None and not self.connection.poll():
            raise self._lost(where()) from self._trace()
        now = time.monotonic()
        progress = self.progress()
        if progress != self._progress:
            self._progress, self._moved = progress, now
        elif now - self._moved > self.timeout:
            place = where()
            # Have the worker write down where it hangs.
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
            raise Lost(
                f"{place}: nothing came back for {self.timeout:g} seconds; mend the environment, "
                "or raise worker_timeout if it may take so long"
            ) from self._trace()

    def bind(self, facts: dict[str, Any], shape: BlockShape, seed: int) -> None:
        """Give it a twin of the policy, and map the memory that its parameters come through.

        Parameters
        ----------
        facts
            What the policy is made of.
        shape
            Of the memory.
        seed
            Of the run.
        """
        self.block = SharedBlock(self.memory, shape)
        self.send("bind", facts, asdict(shape), seed)

    def take_policy(self, published: PolicyNumbers) -> None:
        """Put the policy's numbers where the worker reads them.

        Parameters
        ----------
        published
            Of a policy of the dimensions that the worker was opened with.
        """
        published.write(self.block.lasting)

    def ask_to_end(self) -> None:
        """Have the environments closed, at once where the worker is idle."""
        if self.process.poll() is not None:
            return
        if self._busy or not self._deliver(("close",)):
            self.process.terminate()

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self.process.kill()
        self.end(time.monotonic())

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (`time.monotonic`), then kill; nothing is left afterwards.

        Parameters
        ----------
        deadline
            In seconds, as of `time.monotonic`.
        """
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self.process.poll() != 0:  # it has not ended what its environments started: end that
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.command = ("end",)
        self.connection.close()
        self._close_files()

    def _close_files(self) -> None:
        self.__dict__.pop("block", None)  # a mapping holds its file as well
        self._put_out_the_rest()
        for name in ("memory", "_report", "_output", "_pending"):
            file = getattr(self, name)
            setattr(self, name, -1)
            if file >= 0:
                os.close(file)

    def _put_out_the_rest(self) -> None:
        """Write what a worker that is gone had no time to forward."""
        if self._output < 0:
            return
        rest = os.pread(self._pending, _core.line_forwarder_bytes, 0).rstrip(b"\0")
        with contextlib.suppress(OSError):
            os.set_blocking(self._output, False)
            while part := os.read(self._output, 1 << 16):
                rest += part
        lines = rest.splitlines()
        if lines:
            text = b"".join(self._prefix.encode() + line + b"\n" for line in lines)
            with contextlib.suppress(OSError):
                os.write(2, text)

    def _lost(self, place: str) -> Lost:
        code = self.process.poll()
        if code is None:
            how = "closed its connection"
        elif code >= 0:
            how = f"ended with exit code {code}"
        else:
            names = {number.value: number.name for number in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}"
            if -code == signal.SIGKILL:
                how += " (is there enough memory?)"
        return Lost(f"{place}: the process {how}; what it wrote to stderr may say why")

    def _trace(self) -> WorkerTraceback | None:
        text = os.pread(self._report, 100_000, 0).decode(errors="replace")
        return WorkerTraceback(text) if text else None


class Processes:
    """Starts worker processes on this machine, and waits for what they answer through their pipes.

    Parameters
    ----------
    timeout
        Seconds without a step after which a worker is taken to hang; may be infinite.
    """

    patience = 0.0

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def launch(self, index: int, group: slice) -> WorkerProcess:
        """Start a worker, see `Transport.launch`.

        Parameters
        ----------
        index
            Number of the worker.
        group
            Indices of its environments.
        """
        return WorkerProcess(index, group, self._timeout)

    def ready(self, workers: Sequence[WorkerProcess], timeout: float) -> set[int]:
        """Wait for answers, see `Transport.ready`.

        Parameters
        ----------
        workers
            Those that were given a command.
        timeout
            Seconds after which none may be ready.
        """
        ready = wait([worker.connection for worker in workers], timeout=timeout)
        return {i for i, worker in enumerate(workers) if worker.connection in ready}

    def publish(self, policy: Any) -> PolicyNumbers:
        """The numbers of a policy, see `Transport.publish`: each worker's memory gets a copy.

        Parameters
        ----------
        policy
            A `PortablePolicy`.
        """
        return PolicyNumbers.of(policy)

    def check(self, opened: Sequence[Mapping[str, Any]]) -> None:
        """Processes of one machine compute alike, see `Transport.check`.

        Parameters
        ----------
        opened
            What `Commands.open` returned in each of them.
        """


def _prefix(index: int, group: slice) -> str:
    """What stands before each line that a worker prints: whose it may be."""
    last = group.stop - 1
    which = f"environment {last}" if group.start == last else f"environments {group.start}-{last}"
    return f"[{which}, worker {index}] "


def _standard_error() -> int:
    """A new descriptor of this process's standard error, or of nothing where that is closed."""
    try:
        return beyond_standard(os.dup(2))
    except OSError:
        return beyond_standard(os.open(os.devnull, os.O_WRONLY))


def _interpreter() -> list[str]:
    """The command that starts a Python like this one."""
    from multiprocessing.spawn import get_executable

    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    return [os.fsdecode(get_executable()), *flags]
