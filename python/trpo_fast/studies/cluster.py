"""Runs of a study as tasks of a Ray cluster: the same processes, on other machines.

A task starts ``trpo-fast train`` on its node and waits for it, as a thread of `TrainingProcesses` does
here. Run folders lie on a disk that all nodes share, so what is kept, resumed and counted is the same.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ..rollout.cluster import ClusterError, Connection
from ..words import end_of
from .processes import INTERRUPTED, LOST, TrainingProcesses, signals_go_to
from .trials import TrialTraining, Tuning

_NO_DISK = 1001  # what a task answers that does not see the folder
_TOKEN = ".cluster"  # file in the folder of a study, by which a node sees that it shares the disk
_LOOK_SECONDS = 0.5
_MOST_LOSSES = 5  # of actors in one part of a trial


class ClusterRuns:
    """As `TrainingProcesses`, with the processes on the nodes of a cluster.

    Parameters
    ----------
    connection
        With the cluster.
    folder
        Of the study, on a disk that all nodes share.
    n_cores
        Cores that each run uses.
    """

    def __init__(self, connection: Connection, folder: Path, n_cores: int) -> None:
        self.signalled = 0
        """How many signals have come; after the first no process is started."""
        self._ray, self._folder = connection.ray, folder.resolve()
        (self._folder / _TOKEN).touch()
        self._task = connection.ray.remote(_train_there).options(
            num_cpus=n_cores, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._running: set[Any] = set()
        self._lock = threading.RLock()

    def taking_signals(self) -> AbstractContextManager[None]:
        """While entered, SIGINT and SIGTERM go to the runs, see `TrainingProcesses.taking_signals`."""
        return signals_go_to(self._forward)

    def run(
        self,
        arguments: Sequence[str],
        on_output: Callable[[str], None],
        on_error: Callable[[str], None],
    ) -> int:
        """Have a node run one process, wait for its end, and return its exit status.

        Parameters
        ----------
        arguments
            Of ``python -m trpo_fast``.
        on_output, on_error
            Called with every line of its output and of its errors, after its end.

        Returns
        -------
        int
            As `TrainingProcesses.run`; `LOST` where its node is gone.

        Raises
        ------
        ClusterError
            The node does not see the folder of the study.
        """
        with self._lock:
            if self.signalled:
                return INTERRUPTED
            answer = self._task.remote(list(arguments), str(self._folder), os.getcwd(), sys.path)
            self._running.add(answer)
        errors = self._ray.exceptions
        try:
            while not self._ray.wait([answer], timeout=_LOOK_SECONDS)[0]:
                pass
            status, lines = self._ray.get(answer)
        except errors.TaskCancelledError:
            return INTERRUPTED
        except errors.RayError as error:
            if self.signalled:
                return INTERRUPTED
            on_error(f"its node is gone: {end_of(str(error))}")
            return LOST
        finally:
            with self._lock:
                self._running.discard(answer)
        for is_error, line in lines:
            (on_error if is_error else on_output)(line)
        if status == _NO_DISK:
            raise ClusterError(
                f"study: expected a folder on a disk that all nodes share, got {self._folder}, which "
                f"{lines[0][1]} does not see; name one by --run-dir"
            )
        return int(status)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.signalled += 1
        for answer in list(self._running):
            with suppress(Exception):  # it has ended, or its node has
                self._ray.cancel(answer, force=self.signalled > 1)


class RemoteTraining:
    """As `TrialTraining`, in an actor of one core.

    Parameters
    ----------
    connection
        With the cluster.
    tuning, chosen
        As for `TrialTraining`.
    """

    def __init__(self, connection: Connection, tuning: Tuning, chosen: Mapping[str, Any]) -> None:
        self._ray, self._given = connection.ray, (tuning, dict(chosen))
        self._start()

    def _start(self) -> None:
        actors = self._ray.remote(TrialTraining).options(num_cpus=1, max_restarts=0)
        self._actor = actors.remote(*self._given)

    def advance(self, report: int) -> float:
        """Train up to a report, see `TrialTraining.advance`; anew, where the actor was lost.

        Parameters
        ----------
        report
            In [1, REPORTS].
        """
        for losses in itertools.count(1):
            try:
                return float(self._ray.get(self._actor.advance.remote(report)))
            except self._ray.exceptions.RayActorError:
                if losses > _MOST_LOSSES:
                    raise
                self._start()
        raise AssertionError

    def close(self) -> None:
        """End the actor."""
        with suppress(Exception):  # it is gone
            self._ray.kill(self._actor)


def _train_there(
    arguments: list[str], folder: str, cwd: str, paths: list[str]
) -> tuple[int, list[tuple[bool, str]]]:
    """Run a process on this node; its exit status, and its lines: whether of errors, and what."""
    import socket

    if not (Path(folder) / _TOKEN).exists():
        return _NO_DISK, [(True, socket.gethostname())]
    if os.path.isdir(cwd):
        os.chdir(cwd)
    added = [path for path in (os.environ.get("PYTHONPATH"), *paths) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(os.path.isdir, added)))
    runs, lines, statuses = TrainingProcesses(), list[tuple[bool, str]](), list[int]()

    def work() -> None:
        statuses.append(
            runs.run(
                arguments,
                lambda line: lines.append((False, line)),
                lambda line: lines.append((True, line)),
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        try:
            thread.join(_LOOK_SECONDS)
        except KeyboardInterrupt:  # Ray's way to cancel a task
            runs.end()
    return statuses[0] if statuses else INTERRUPTED, lines
