"""Runs as processes of ``trpo-fast train``: how many at once, and how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import FrameType
from typing import IO

INTERRUPTED = 130  # exit status of a run that a signal has ended
LOST = 1000  # of a run whose node is gone, which no process ends with
# name of the variable of the environment that asks `train` to stop at the end of standard input
STOP_WITH_INPUT = "TRPO_FAST_STOP_WITH_INPUT"


def share_cores(
    n_runs: int,
    cores: int,
    *,
    n_threads: int | None = None,
    n_workers: int | None = None,
    n_envs: int = 1,
    env: str | None = None,
) -> tuple[int, list[str]]:
    """Decide how many runs train at once, and how many processors each of them uses.

    The results of a run do not depend on it.

    Parameters
    ----------
    n_runs
        Runs in all, at least 1.
    cores
        Processors that may be used, at least 1.
    n_threads, n_workers
        What the settings of every run name; they are kept.
    n_envs
        Environments of a run, at least 1.
    env
        The id of the environment.

    Returns
    -------
    tuple
        Runs at once, at least 1, and the flags that each run is given.
    """
    named = [number for number in (n_workers, n_threads) if number is not None]
    at_once = min(n_runs, max(1, cores // max([1, *named])))
    each = max(1, cores // at_once)
    flags: list[str] = []
    if n_threads is None:
        flags += ["--n-threads", str(each)]
    if n_workers is None:
        # one processor steps its environments itself; EnvPool would take 0 for all processors
        alone = 1 if str(env).startswith("envpool:") else 0
        flags += ["--n-workers", str(min(each, n_envs) if each > 1 else alone)]
    return at_once, flags


@contextmanager
def signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While entered, SIGINT and SIGTERM go to a function instead of ending this process.

    Signals reach the main thread of a program only; entered in another one, this changes nothing.

    Parameters
    ----------
    handler
        As of ``signal.signal``.
    """
    with ExitStack() as held:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                held.callback(signal.signal, number, signal.signal(number, handler))
        yield


class TrainingProcesses:
    """Processes that train, each run by one thread of the caller, and the signals passed on to them."""

    def __init__(self) -> None:
        self.signalled = 0
        """How many signals have come; after the first no process is started."""
        self._processes: set[subprocess.Popen[str]] = set()
        # a signal may come while the lock is held by this very thread
        self._lock = threading.RLock()

    def taking_signals(self) -> AbstractContextManager[None]:
        """While entered, SIGINT and SIGTERM go to the processes instead of ending this one.

        The first one ends every run after its present iteration, the second one at once.
        """
        return signals_go_to(self._forward)

    def run(
        self,
        arguments: Sequence[str],
        on_output: Callable[[str], None],
        on_error: Callable[[str], None],
    ) -> int:
        """Start one process, wait for its end, and return its exit status.

        Parameters
        ----------
        arguments
            Of ``python -m trpo_fast``.
        on_output, on_error
            Called with every line of its output and of its errors, without the end of the line; from
            two threads.

        Returns
        -------
        int
            0 where it is done, ``INTERRUPTED`` where a signal ended it or kept it from starting.
        """
        with self._lock:
            if self.signalled:
                return INTERRUPTED
            safe = ["-P"] if getattr(sys.flags, "safe_path", False) else []
            # in a session of its own: Ctrl-C reaches it once, through `_forward`
            process = subprocess.Popen(
                [sys.executable, *safe, "-m", "trpo_fast", *arguments],
                stdin=subprocess.PIPE,  # ends with this process, however it ends
                env={**os.environ, STOP_WITH_INPUT: "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._processes.add(process)
        if self.signalled:  # it came while the process was being made
            process.terminate()
        errors = threading.Thread(target=_read_lines, args=(process.stderr, on_error))
        errors.start()
        _read_lines(process.stdout, on_output)
        errors.join()
        status = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        with self._lock:
            self._processes.discard(process)
        # before a run takes over the signals, they end it as any process
        ended_early = self.signalled and -status in (signal.SIGINT, signal.SIGTERM)
        return INTERRUPTED if ended_early else status

    def end(self) -> None:
        """Do as at a SIGTERM: the first call ends every run after its present iteration."""
        self._forward(signal.SIGTERM, None)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.signalled += 1
        for process in list(self._processes):
            with suppress(OSError):
                process.send_signal(number)


def _read_lines(stream: IO[str] | None, to: Callable[[str], None]) -> None:
    if stream is not None:
        with stream:
            for line in stream:
                to(line.rstrip())
