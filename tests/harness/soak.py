"""Train for a long time and watch what every process holds.

    python tests/harness/soak.py --minutes 60

Trains on CartPole with workers, checkpoints and logs, and reads resident memory and open files of
the training process and of every worker after each iteration. Time starts with the first of them,
however long the workers took to come up. After the warm-up, a tenth of the time, both must stay
flat: memory within 2% (medians of the first and of the last fifth of what follows), the number of
open files exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

TOLERANCE = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


class Watcher:
    """A callback that reads /proc about once a second, and stops when time is up."""

    def __init__(self, seconds: float) -> None:
        self._start: float | None = None  # until the first iteration is over
        self._seconds = seconds
        self._next = 0.0
        self.times: list[float] = []
        self.resident: dict[int, list[int]] = defaultdict(list)  # bytes
        self.files: dict[int, list[int]] = defaultdict(list)
        self.steps = 0

    def __call__(self, agent: Any, record: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        if self._start is None:
            self._start = now
        elapsed = now - self._start
        self.steps = agent.timesteps
        if elapsed >= self._next:
            self._next = elapsed + min(1.0, self._seconds / 200.0)
            self.times.append(elapsed)
            for process in family():
                self.resident[process].append(resident_bytes(process))
                self.files[process].append(len(os.listdir(f"/proc/{process}/fd")))
        return elapsed < self._seconds

    def findings(self) -> tuple[list[str], list[str]]:
        """A line for each process, and complaints."""
        lines, complaints = [], []
        warm = sum(t < 0.1 * self._seconds for t in self.times)
        for process, resident in sorted(self.resident.items()):
            who = "trainer" if process == os.getpid() else f"worker {process}"
            if len(resident) != len(self.times):
                complaints.append(f"{who}: seen {len(resident)} of {len(self.times)} times")
                continue
            after = resident[warm:]
            fifth = max(1, len(after) // 5)
            first, last = (statistics.median(part) for part in (after[:fifth], after[-fifth:]))
            growth = last / first - 1.0
            files = sorted(set(self.files[process][warm:]))
            lines.append(
                f"{who}: {first / 2**20:.1f} -> {last / 2**20:.1f} MB ({growth:+.2%}), "
                f"open files {files}"
            )
            if growth > TOLERANCE:
                complaints.append(f"{who}: resident memory grew by {growth:.2%}")
            if self.files[process][-1] > min(files):
                complaints.append(f"{who}: open files grew from {min(files)} to {max(files)}")
        return lines, complaints


def family() -> list[int]:
    """This process and its children."""
    me = os.getpid()
    processes = [me]
    for children in Path(f"/proc/{me}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            processes += map(int, children.read_text().split())
    return processes


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def soak(minutes: float, workers: int = 2, env: str = "CartPole-v1") -> tuple[str, list[str]]:
    """Train that long; a report and complaints."""
    from trpo_fast import TRPO
    from trpo_fast.callbacks import CheckpointEvery
    from trpo_fast.logging import CsvLogger

    watcher = Watcher(60.0 * minutes)
    with tempfile.TemporaryDirectory(prefix="trpo_fast_soak_") as folder:
        with closing(TRPO(env, n_workers=workers, seed=0)) as agent:
            agent.learn(
                10**12,
                callback=[CheckpointEvery(20_000, f"{folder}/latest.safetensors"), watcher],
                loggers=[CsvLogger(f"{folder}/progress.csv")],
                progress=False,
            )
        left = sorted(file.name for file in Path(folder).iterdir())
    lines, complaints = watcher.findings()
    if left != ["latest.safetensors", "latest.safetensors.previous", "progress.csv"]:
        complaints.append(f"other files than expected: {left}")
    if len(lines) != workers + 1:
        complaints.append(f"expected {workers + 1} processes, saw {len(lines)}")
    summary = (
        f"soak: {watcher.times[-1] / 60.0:.1f} minutes, {watcher.steps} steps, "
        f"{len(lines)} processes, {len(complaints)} complaints"
    )
    return "\n".join([*lines, *complaints, summary]), complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--env", default="CartPole-v1")
    options = parser.parse_args()
    report, complaints = soak(options.minutes, options.workers, options.env)
    print(report)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
