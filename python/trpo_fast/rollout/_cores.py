"""Which worker runs on which processor, where these are not equally fast.

Two processors of one machine may differ by a factor of two: one has a neighbour on its other
hardware thread, or is of the slower kind of a hybrid processor. Workers that have the same to do
then all wait for the one on the slowest, and the scheduler sees nothing wrong: every processor has
one process. Changing places in the middle ends the rollout sooner. The environments stay in their
processes, so no bit depends on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Protocol

LEAST_GAIN = 0.0015  # seconds: below, two workers do not change places

# seconds between two looks, each of which takes some 50 us of a processor from a worker
_OFTEN, _SELDOM = 0.004, 0.05
_LOOKS = 5  # in a rollout, within these bounds


class Runner(Protocol):
    """A worker as it is seen here."""

    @property
    def pid(self) -> int:
        """Its process."""

    def progress(self) -> int:
        """A number that grows by the steps it has taken."""


def best_exchange(remaining: Sequence[float], speeds: Sequence[float]) -> tuple[int, int] | None:
    """The two workers, the last to end first, whose exchange lets both end soonest.

    Args:
        remaining: steps that each worker has still to take.
        speeds: steps a second of each. They are taken to be those of the processors.

    Returns:
        None where less than `LEAST_GAIN` would be gained.
    """
    ends = [steps / speed for steps, speed in zip(remaining, speeds, strict=True)]
    last = max(range(len(ends)), key=ends.__getitem__)

    def exchanged(other: int) -> float:
        return max(remaining[last] / speeds[other], remaining[other] / speeds[last])

    other = min((w for w in range(len(ends)) if w != last), key=exchanged)
    return (last, other) if exchanged(other) + LEAST_GAIN < ends[last] else None


class CoreExchange:
    """Looks after the workers of one rollout from time to time, and has two of them change places.

    Args:
        workers: at least two.
        steps: how many each of them is to take.
        expected_seconds: how long the rollout will take, about.
    """

    def __init__(
        self, workers: Sequence[Runner], steps: Sequence[int], expected_seconds: float
    ) -> None:
        self._workers = list(workers)
        begins = [worker.progress() for worker in workers]
        self._goals = [begin + n for begin, n in zip(begins, steps, strict=True)]
        self._interval = min(max(expected_seconds / _LOOKS, _OFTEN), _SELDOM)
        self._next = time.perf_counter() + self._interval
        self._before: tuple[float, list[int]] | None = None  # of the last look
        self._speeds: list[float] = []

    def seconds_to_next_look(self) -> float:
        """How long nothing is to be done."""
        return max(0.0, self._next - time.perf_counter())

    def look(self, *, at_once: bool = False) -> None:
        """Exchange two workers if that is worth it; `at_once`: one has come to its end."""
        now = time.perf_counter()
        if now < self._next and not at_once:
            return
        done = [worker.progress() for worker in self._workers]
        if now >= self._next:
            if self._before is not None:
                then, done_then = self._before
                pairs = zip(done, done_then, strict=True)
                # who has ended, or hangs, keeps the speed that it had
                speeds = self._speeds or [0.0] * len(done)
                self._speeds = [
                    (n - m) / (now - then) if n > m else speed
                    for (n, m), speed in zip(pairs, speeds, strict=True)
                ]
            self._before, self._next = (now, done), now + self._interval
        if self._speeds and min(self._speeds) > 0.0:
            remaining = [max(0, goal - n) for goal, n in zip(self._goals, done, strict=True)]
            pair = best_exchange(remaining, self._speeds)
            if pair is not None:
                first, second = pair
                _exchange(self._workers[first].pid, self._workers[second].pid)
                self._speeds[first], self._speeds[second] = (
                    self._speeds[second],
                    self._speeds[first],
                )


def can_exchange() -> bool:
    """Whether this system lets a process say where another one runs."""
    return hasattr(os, "sched_setaffinity") and os.path.exists("/proc/self/stat")


def processor_of(pid: int) -> int:
    """Where a process ran last."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        # the name, in brackets, may hold spaces
        return int(file.read().rpartition(")")[2].split()[36])


def _exchange(first: int, second: int) -> None:
    """Put each process where the other is, and leave both to the scheduler again."""
    try:
        places = {first: processor_of(second), second: processor_of(first)}
        allowed = {pid: os.sched_getaffinity(pid) for pid in places}
        if places[first] == places[second]:
            return
        if any(place not in allowed[pid] for pid, place in places.items()):
            return
        try:
            for pid, place in places.items():
                os.sched_setaffinity(pid, {place})
        finally:
            for pid in places:
                os.sched_setaffinity(pid, allowed[pid])
    except OSError:  # one of them is gone: whoever waits for it will say so
        return
