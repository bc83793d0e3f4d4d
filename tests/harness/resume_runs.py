"""A run of N iterations equals N/2, a kill, and the other N/2, bit for bit.

    python tests/harness/resume_runs.py --iterations 200

For CartPole, HalfCheetah and an Atari game observed by its memory: `trpo-fast train` without
workers and undisturbed; then with 0 and with 2 workers, killed by SIGKILL as soon as half of the
iterations are in the log, before the last of them is in a checkpoint, and resumed. Every tensor of
the last checkpoint (parameters, value network, optimiser moments, statistics, counters,
environments), every row and the header of progress.csv but for the times, and every row of
evaluations.csv must be the same.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.kill_runs import difference, results
from harness.supervise import TESTS

ENVIRONMENTS = ("CartPole-v1", "HalfCheetah-v5", "harness.atari_ram:BoxingRam-v0")
BATCH = 256
TIMEOUT = 1800.0  # seconds; a run that has not ended by then hangs

# The command line, in a process that kills itself when a certain iteration is in the log: a killer
# from outside comes too late on a busy machine.
_PROGRAM = """
import os
import signal
import sys
from trpo_fast.cli import main
from trpo_fast.logging import CsvLogger

die_at, write = int(sys.argv.pop(1)), CsvLogger.write

def write_and_die(self, record):
    write(self, record)
    if record.get("time/iteration") == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

CsvLogger.write = write_and_die
sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One environment, and how many workers step it."""

    env: str
    workers: int
    iterations: int

    def __str__(self) -> str:
        return f"{self.env}, {self.workers} workers"

    def start(self, run: Path, *, die_at: int = 0) -> subprocess.Popen[bytes]:
        """Start the run, or resume it if there is one; 0: it is to die at no iteration."""
        steps = self.iterations * BATCH
        # named again, because a resumption imports no module of a folder's choice
        begin = [self.env, "--resume", str(run)]
        if not run.exists():
            begin = [
                self.env, "--run-dir", str(run), "--total-timesteps", str(steps), "--seed", "5",
                "--n-envs", "4", "--n-workers", str(self.workers), "--batch-size", str(BATCH),
                "--checkpoint-every", "1", "--evaluate-every", str(steps // 2),
                "--evaluation-episodes", "1",
            ]  # fmt: skip
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        with run.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(die_at), "train", *begin],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )

    def finish(self, run: Path) -> None:
        """Start or resume the run, and wait for its end."""
        status = self.start(run).wait(TIMEOUT)
        if status != 0:
            said = run.with_suffix(".log").read_text(errors="replace")
            raise RuntimeError(f"{self}: ended with {status}: {said[-3000:]}")

    def kill_half_way(self, run: Path) -> int:
        """Start the run and kill it when half of it is in the log; the iterations in the log then."""
        status = self.start(run, die_at=self.iterations // 2).wait(TIMEOUT)
        if status != -signal.SIGKILL:
            said = run.with_suffix(".log").read_text(errors="replace")
            raise RuntimeError(f"{self}: ended before it was killed: {said[-3000:]}")
        return logged(run)


def logged(run: Path) -> int:
    """Rows of progress.csv."""
    try:
        return max(0, (run / "progress.csv").read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def header(run: Path) -> bytes:
    return (run / "progress.csv").read_bytes().partition(b"\n")[0]


def resume_runs(
    env: str, iterations: int, workers: tuple[int, ...] = (0, 2)
) -> tuple[list[str], list[str]]:
    """A line for each case, and complaints."""
    lines, complaints = [], []
    with tempfile.TemporaryDirectory(prefix="trpo_fast_resume_") as temporary:
        whole = Path(temporary) / "whole"
        Case(env=env, workers=0, iterations=iterations).finish(whole)
        expected = {**results(whole), "columns": header(whole)}
        for n in workers:
            case = Case(env=env, workers=n, iterations=iterations)
            run = Path(temporary) / f"killed-{n}"
            before = case.kill_half_way(run)
            case.finish(run)
            found = {**results(run), "columns": header(run)}
            differing = sorted(k for k in expected | found if expected.get(k) != found.get(k))
            said = f"{case}: killed at {before}, resumed to {logged(run)} of {iterations}"
            lines.append(f"{said}: {len(found)} entries, {len(differing)} differ")
            if differing:
                complaints.append(f"{case}: {difference(expected, found, differing[0])}")
            if logged(run) != iterations:
                complaints.append(f"{case}: expected {iterations} rows, got {logged(run)}")
    return lines, complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=200)
    options = parser.parse_args()
    wrong = 0
    for env in ENVIRONMENTS:
        lines, complaints = resume_runs(env, options.iterations)
        print(*lines, *complaints, sep="\n", flush=True)
        wrong += len(complaints)
    print(
        f"resume: {len(ENVIRONMENTS) * 2} runs of {options.iterations} iterations, {wrong} differ"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
