"""One side of a comparison in a process of its own, and what that process and its children cost.

Libraries in one process share a memory peak and a set of threads; in processes of their own they do
not. A side is built and imported outside the clock, waits, works a turn when told to, and reports
wall time and CPU time; the caller tells the sides one after the other, turn by turn, so that all of
them see the same moods of the machine.

CPU time is that of the whole family of processes. Memory is the sum of each process's own peak,
where files and shared memory that processes map in common count once. Both need Linux's /proc;
elsewhere the CPU time is that of the one process, and the memory is not known.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PATIENCE_SECONDS = 1800.0  # with a side that does not answer

Work = Callable[[], int]  # one turn; returns the environment steps taken
Side = Callable[[], AbstractContextManager[Work]]


# ---- a family of processes


def end_with_parent() -> None:
    """Let this process, which multiprocessing has started, end when its parent does, however that ends.

    The initializer of every pool here: a run of an hour whose table was killed would go on alone.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def family(pid: int) -> list[int]:
    """A process and its living descendants; the process alone where /proc is missing."""
    pids = [pid]
    for parent in pids:
        try:
            tasks = list((PROC / str(parent) / "task").iterdir())
            children = [
                int(child) for task in tasks for child in (task / "children").read_text().split()
            ]
        except OSError:  # it has ended, or there is no /proc
            continue
        pids += children
    return pids


def children_cpu_seconds(pid: int) -> float:
    """CPU time of all descendants, those included that ended and were waited for."""
    ticks = 0
    for member in family(pid):
        try:
            # the name, in brackets, may hold spaces
            fields = (PROC / str(member) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        own, waited_for = fields[11:13], fields[13:15]
        counted = waited_for if member == pid else [*own, *waited_for]
        ticks += sum(int(value) for value in counted)
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def peak_memory(pid: int) -> float | None:
    """Bytes: each process's own peak, plus the largest share of files and of shared memory."""
    own: list[int] = []
    files: list[int] = []
    shared: list[int] = []
    for member in family(pid):
        try:
            lines = (PROC / str(member) / "status").read_text().splitlines()
        except OSError:
            continue
        kilobytes = {
            name: int(value.split()[0])
            for name, _, value in (line.partition(":") for line in lines)
            if name in ("VmHWM", "RssFile", "RssShmem")
        }
        if len(kilobytes) == 3:
            own.append(kilobytes["VmHWM"] - kilobytes["RssFile"] - kilobytes["RssShmem"])
            files.append(kilobytes["RssFile"])
            shared.append(kilobytes["RssShmem"])
    return 1024.0 * (sum(own) + max(files) + max(shared)) if own else None


# ---- one side


@dataclass(frozen=True)
class Measurement:
    """What one turn of a side took."""

    steps: int
    seconds: float
    cpu_seconds: float
    peak_bytes: float | None  # since the side's process began


class SideFailed(RuntimeError):
    """A side could not be built or run."""


class SideProcess:
    """A side in a fresh interpreter, which goes through :meth:`open`, turns, :meth:`shut`, again."""

    def __init__(self, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(side, theirs))
        self._process.start()
        theirs.close()

    def open(self) -> None:
        """Build the side anew, outside the clock.

        Raises
        ------
        SideFailed
            It cannot be built.
        """
        self._ask("open")

    def turn(self) -> Measurement:
        """Let the side work for a turn, and measure it.

        Raises
        ------
        SideFailed
            The work raised, or its process ended.
        """
        measurement = self._ask("turn")
        assert isinstance(measurement, Measurement)
        return measurement

    def shut(self) -> None:
        """Take the side down; its process stays for the next :meth:`open`.

        Raises
        ------
        SideFailed
            It cannot be taken down.
        """
        self._ask("shut")

    def _ask(self, what: str) -> Measurement | None:
        try:
            self._connection.send(what)
            if not self._connection.poll(PATIENCE_SECONDS):
                raise SideFailed(f"no answer within {PATIENCE_SECONDS:.0f} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(5.0)
            raise SideFailed(f"its process ended with {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise SideFailed(answer)
        assert answer is None or isinstance(answer, Measurement)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(side: Side, connection: Connection) -> None:
    # the sides' libraries warn about each other's versions; their errors come through
    warnings.simplefilter("ignore")
    with contextlib.ExitStack() as opened, contextlib.suppress(KeyboardInterrupt):
        work: Work | None = None
        while True:
            answer: Measurement | str | None = None
            try:
                # whoever asked may have been interrupted: nobody listens any more
                asked = connection.recv()
            except (EOFError, ConnectionError):
                return
            try:
                if asked == "open":
                    work = opened.enter_context(side())
                elif asked == "turn":
                    assert work is not None
                    answer = _measured(work)
                else:
                    work = None
                    opened.close()
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                answer = f"{type(error).__name__}: {error} ({place})"
            try:
                connection.send(answer)
            except ConnectionError:
                return


def _measured(work: Work) -> Measurement:
    pid = os.getpid()
    on_linux = PROC.is_dir()
    gc.collect()
    children = children_cpu_seconds(pid) if on_linux else 0.0
    cpu, start = time.process_time(), time.perf_counter()
    steps = work()
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    if on_linux:
        cpu += children_cpu_seconds(pid) - children
    return Measurement(steps, seconds, cpu, peak_memory(pid))


# ---- parts of a side that run in parallel


class Crew:
    """Persistent processes, each of which prepares its part once and does a turn of it when told to.

    Parameters
    ----------
    parts
        One for each process: called there, it prepares and returns the work.
    """

    def __init__(self, parts: Sequence[Callable[[], Work]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[Any, Connection]] = []
        for part in parts:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve_part, args=(part, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        for _, connection in self._members:
            connection.recv()  # prepared

    def __call__(self) -> int:
        for _, connection in self._members:
            connection.send("go")
        return sum(int(connection.recv()) for _, connection in self._members)

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._members:
            connection.close()
            process.join()


def _serve_part(part: Callable[[], Work], connection: Connection) -> None:
    warnings.simplefilter("ignore")
    work = part()
    connection.send(0)
    while True:
        try:
            connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        connection.send(work())
