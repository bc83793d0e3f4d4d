"""Workers that exchange processors: when, whom, and that nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.rollout import _cores, workers
from trpo_fast.rollout._cores import LEAST_GAIN, CoreExchange, best_exchange

needs_affinity = pytest.mark.skipif(not _cores.can_exchange(), reason="Linux only")


@pytest.mark.parametrize(
    ("remaining", "speeds", "expected"),
    [
        ([100, 100], [1000.0, 1000.0], None),  # alike
        ([100, 200], [1000.0, 1000.0], None),  # the second has more to do: nobody can help it
        ([80, 110], [2000.0, 1000.0], (1, 0)),  # half-way on unequal cores: both end after 0.08 s
        ([0, 60], [2000.0, 1000.0], (1, 0)),  # the first has ended, and its core is free
        ([0, 60], [1000.0, 2000.0], None),  # but that is the slower one
        ([100, 101], [1000.0, 1000.0 * (1 - LEAST_GAIN)], None),  # not worth it
        ([50, 100, 90, 100], [900.0, 500.0, 900.0, 1000.0], (1, 0)),  # the last with the first
    ],
)
def test_who_changes_places(
    remaining: list[int], speeds: list[float], expected: tuple[int, int] | None
) -> None:
    assert best_exchange(remaining, speeds) == expected


class Runner:
    def __init__(self, pid: int, speed: float) -> None:
        self.pid, self.speed, self.done = pid, speed, 1000.0

    def progress(self) -> int:
        return int(self.done)


class Race:
    """Two workers on cores of different speeds, and a clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speeds: tuple[float, float]) -> None:
        self.now = 0.0
        self.runners = [Runner(pid, speed) for pid, speed in enumerate(speeds)]
        self.exchanges: list[tuple[int, int]] = []
        monkeypatch.setattr(_cores.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(_cores, "_exchange", self._exchange)
        self.watch = CoreExchange(self.runners, [1000, 1000], expected_seconds=0.1)

    def _exchange(self, first: int, second: int) -> None:
        self.exchanges.append((first, second))
        a, b = self.runners
        a.speed, b.speed = b.speed, a.speed

    def run(self) -> float:
        """The time at which both have taken their 1000 steps."""
        while any(runner.done < 2000.0 for runner in self.runners):
            self.now += 0.0005
            before = [runner.done >= 2000.0 for runner in self.runners]
            for runner in self.runners:
                runner.done = min(2000.0, runner.done + 0.0005 * runner.speed)
            ended = before != [runner.done >= 2000.0 for runner in self.runners]
            if ended or self.watch.seconds_to_next_look() == 0.0:
                self.watch.look(at_once=ended)
        return self.now


def test_unequal_cores_end_a_rollout_together(monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(monkeypatch, (20_000.0, 10_000.0))
    # 0.1 s without, 0.075 s at best with one exchange, 0.067 s if the work could be shared out
    assert race.run() == pytest.approx(0.075, abs=0.006)
    assert 1 <= len(race.exchanges) <= 3


def test_equal_cores_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(monkeypatch, (10_000.0, 10_200.0))
    assert race.run() == pytest.approx(0.1, abs=0.001)
    assert race.exchanges == []


def test_a_worker_without_progress_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(monkeypatch, (10_000.0, 0.0))
    for _ in range(20):
        race.now += 0.02
        race.runners[0].done += 200.0
        race.watch.look()
    assert race.exchanges == []


@pytest.fixture
def two_processes() -> Iterator[list[int]]:
    sleeping = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    started = [subprocess.Popen(sleeping, stdout=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    yield [process.pid for process in started]
    for process in started:
        process.kill()
        process.communicate()


@needs_affinity
def test_an_exchange_leaves_no_process_bound(two_processes: list[int]) -> None:
    allowed = os.sched_getaffinity(0)
    first, second = two_processes
    places = sorted(allowed)[:2]
    if len(places) == 2:
        for pid, place in zip(two_processes, places, strict=True):
            os.sched_setaffinity(pid, {place})
            assert _cores.processor_of(pid) in allowed
            os.sched_setaffinity(pid, allowed)
    _cores._exchange(first, second)
    assert os.sched_getaffinity(first) == os.sched_getaffinity(second) == allowed
    # a process that was bound by others stays so
    os.sched_setaffinity(first, {places[0]})
    _cores._exchange(first, second)
    assert os.sched_getaffinity(first) == {places[0]}
    assert os.sched_getaffinity(second) == allowed


@needs_affinity
def test_a_process_that_is_gone_is_no_error(two_processes: list[int]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    _cores._exchange(two_processes[0], ended.pid)
    _cores._exchange(ended.pid, two_processes[0])


@needs_affinity
def test_exchanges_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"n_envs": 4, "batch_size": 2048, "seed": 1}

    def trained(n_workers: int) -> np.ndarray:
        agent = TRPO("CartPole-v1", n_workers=n_workers, **settings)  # type: ignore[arg-type]
        parameters = agent.learn(5 * 2048, progress=False).policy.parameters
        agent.close()
        return parameters

    exchanged: list[tuple[int, int]] = []

    def exchange(first: int, second: int) -> None:
        exchanged.append((first, second))
        real(first, second)

    real = _cores._exchange
    expected = trained(0)
    monkeypatch.setattr(_cores, "_exchange", exchange)
    monkeypatch.setattr(_cores, "best_exchange", lambda *_: (0, 1))
    monkeypatch.setattr(_cores, "_OFTEN", 0.0005)
    monkeypatch.setattr(_cores, "_LOOKS", 50)
    monkeypatch.setattr(workers, "LEAST_ROLLOUT", 1e-6)
    np.testing.assert_array_equal(trained(2), expected)
    assert exchanged  # how often depends on the machine
