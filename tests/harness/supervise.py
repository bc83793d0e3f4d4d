"""Run numbered cases in a child process, so that a crash or a hang is one more finding.

A harness gives `supervise` its own command line. The child calls `run_cases`, which writes the
number of the case under way into a small shared file before it starts it; the parent reads it when
the child dies or stands still, notes the case, and starts another child behind it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Outcome:
    """What a range of cases did."""

    cases: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # how cases ended, by name
    failures: list[str] = field(default_factory=list)  # wrong answers, as sentences
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    peak_megabytes: float = 0.0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.failures or self.crashes or self.hangs)

    def summary(self, name: str) -> str:
        """One line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{name}: {self.cases} cases, {len(self.crashes)} crashes, {len(self.hangs)} hangs, "
            f"{len(self.failures)} wrong ({kinds}); peak {self.peak_megabytes:.0f} MB, "
            f"{self.seconds:.0f} s"
        )

    def details(self) -> str:
        """Up to ten findings, a line or more each."""
        findings = [*self.crashes, *self.hangs, *self.failures]
        return "\n".join(findings[:40])


def supervise(
    command: list[str], *, first: int, cases: int, seed: int, case_timeout: float = 30.0
) -> Outcome:
    """Run cases first to first + cases - 1 of `python command --child FILE ...`."""
    outcome, started = Outcome(), time.monotonic()
    at, end = first, first + cases
    with tempfile.TemporaryDirectory(prefix="trpo_fast_harness_") as folder:
        while at < end and len(outcome.crashes) + len(outcome.hangs) < 20:
            at = _one_child(command, Path(folder), at, end, seed, case_timeout, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def _one_child(
    command: list[str],
    folder: Path,
    at: int,
    end: int,
    seed: int,
    case_timeout: float,
    outcome: Outcome,
) -> int:
    marker, report, errors = folder / "marker", folder / "report", folder / "errors"
    marker.write_bytes(at.to_bytes(8, "little"))
    report.write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    options = {"child": folder, "first": at, "cases": end - at, "seed": seed}
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with errors.open("wb") as stderr:
        child = subprocess.Popen([sys.executable, *command, *flags], stderr=stderr, env=environment)
    hung = False
    try:
        seen, moved = at, time.monotonic()
        while child.poll() is None:
            time.sleep(0.02)
            case, now = int.from_bytes(marker.read_bytes(), "little"), time.monotonic()
            if case != seen:
                seen, moved = case, now
            elif now - moved > case_timeout + (30.0 if case == at else 0.0):  # imports come first
                hung = True
                child.send_signal(signal.SIGABRT)  # faulthandler writes where it stands
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(5.0)
                break
    finally:
        child.kill()
        child.wait()
    case = int.from_bytes(marker.read_bytes(), "little")
    _read_report(report, outcome)
    if child.returncode == 0:
        outcome.cases += end - at
        return end
    trace = errors.read_text(errors="replace")[-2000:]
    finding = f"case {case} (--seed {seed} --first {case} --cases 1): {trace}"
    if hung:
        outcome.hangs.append(f"hang of {case_timeout:g} s in {finding}")
    else:
        outcome.crashes.append(f"exit code {child.returncode} in {finding}")
    outcome.cases += case + 1 - at
    return case + 1


def _read_report(report: Path, outcome: Outcome) -> None:
    for line in report.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "failure" in entry:
            outcome.failures.append(entry["failure"])
        else:
            outcome.peak_megabytes = max(outcome.peak_megabytes, entry["megabytes"])
            for kind, count in entry["kinds"].items():
                outcome.kinds[kind] = outcome.kinds.get(kind, 0) + count


def run_cases(
    folder: Path, case: Callable[[int], str], *, first: int, cases: int, memory_megabytes: int = 0
) -> None:
    """In the child: run the cases; `case(i)` returns how it ended, or raises AssertionError."""
    faulthandler.enable()
    if memory_megabytes and sys.platform == "linux":
        import resource

        limit = memory_megabytes << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    kinds: dict[str, int] = {}
    with (
        (folder / "marker").open("r+b") as file,
        mmap.mmap(file.fileno(), 8) as marker,
        (folder / "report").open("w", encoding="utf-8") as report,
    ):

        def tell(entry: dict[str, object]) -> None:
            report.write(json.dumps(entry) + "\n")
            report.flush()

        def tell_kinds() -> None:
            tell({"kinds": kinds, "megabytes": _peak_megabytes()})
            kinds.clear()

        for i in range(first, first + cases):
            marker[:] = i.to_bytes(8, "little")
            try:
                kind = case(i)
            except Exception as error:
                kind = "wrong"
                where = traceback.extract_tb(error.__traceback__)[-1]
                sentence = f"{type(error).__name__}: {str(error)[:500]}"
                tell({"failure": f"case {i}: {sentence} ({where.name}:{where.lineno})"})
            kinds[kind] = kinds.get(kind, 0) + 1
            if i % 1000 == 999:
                tell_kinds()
        tell_kinds()


def _peak_megabytes() -> float:
    # Linux counts what the parent had before the exec in ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / (1 << 10)
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on a Mac
