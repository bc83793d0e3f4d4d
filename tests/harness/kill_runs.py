"""Kill training at random moments; every run must go on as if nothing had happened.

    python tests/harness/kill_runs.py --trials 200
    python tests/harness/kill_runs.py --trials 100 --kill workers

A trial starts `trpo-fast train` on CartPole, with 0 or 2 workers, checkpoints after every iteration
and evaluations between them, sends SIGKILL, SIGTERM or SIGINT at a random moment (now and then
twice, now and then to the resumed run as well), and resumes until the end. With `--kill workers`
there are always 2 workers, and SIGKILL meets a random one of them, the parent, or both. Afterwards

- every tensor of latest.safetensors and best.safetensors, every row of evaluations.csv and every
  row of progress.csv, but for the times, is that of a run that nobody has disturbed (not so after a
  second SIGINT or SIGTERM, which stops within an iteration, nor where a notice in progress.csv or
  the log says that episodes started anew: then the run goes on to its end). Where a signal met an
  evaluation, that evaluation is made later, if at all, and everything else is as it would have been;
- no process, no shared memory and no temporary file is left.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ITERATIONS, BATCH = 24, 128
TOTAL = ITERATIONS * BATCH
TIMEOUT = 300.0  # seconds; a process that has not ended by then hangs, even on a busy machine
FLAGS = [
    "--total-timesteps", str(TOTAL), "--n-envs", "4", "--batch-size", str(BATCH), "--seed", "3",
    "--hidden-sizes", "16", "--value-hidden-sizes", "16", "--value-epochs", "2",
    "--checkpoint-every", "1", "--evaluate-every", str(4 * BATCH), "--evaluation-episodes", "1",
]  # fmt: skip


@dataclass
class Tally:
    """What a number of trials found."""

    trials: int = 0
    resumed: int = 0
    exact: int = 0  # of these, with the bits of the undisturbed run
    kills: dict[str, int] = field(default_factory=dict)  # signals that met a living process
    moments: dict[str, int] = field(default_factory=dict)  # how far the run had come
    failures: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    tracebacks: int = 0  # trials in which a dying process has written one: noise, but no loss
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return self.resumed == self.trials and not self.failures and not self.leaks

    def summary(self) -> str:
        kills, moments = (
            ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            for counts in (self.kills, self.moments)
        )
        return (
            f"kill harness: {self.resumed} of {self.trials} resumed, {self.exact} bit for bit, "
            f"{len(self.leaks)} leaks, {len(self.failures)} failures, {self.tracebacks} tracebacks "
            f"({kills}; {moments}), {self.seconds:.0f} s"
        )


class Trial:
    """One run folder and whatever its processes leave; `token` marks their environment."""

    def __init__(self, folder: Path, number: int, seed: int, *, kill_workers: bool = False) -> None:
        self.rng = random.Random(f"{seed} {number}")
        self.folder = folder
        self.run = folder / "run"
        self.token = f"trial-{os.getpid()}-{number}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.kill_workers = kill_workers
        self.workers = 2 if kill_workers else self.rng.choice((0, 2))
        self.log = folder / "log"
        self.shared = _shared_memory()
        self.impatient = False  # stopped within an iteration
        self.postponed = False  # stopped within an evaluation, which was made later

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run, or resume it if there is one."""
        begin = ["--resume", str(self.run)]
        if not (self.run / "config.json").is_file():
            begin = ["CartPole-v1", "--run-dir", str(self.run), "--n-workers", str(self.workers)]
            begin += FLAGS
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TRPO_FAST_HARNESS": self.token,
            "TMPDIR": str(self.temporary),
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "trpo_fast", "train", *begin],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def steps(self) -> int:
        """Rows of progress.csv."""
        try:
            return max(0, (self.run / "progress.csv").read_bytes().count(b"\n") - 1)
        except OSError:
            return 0

    def wait_for_a_moment(self, process: subprocess.Popen[bytes], startup: float) -> None:
        """Return at a random moment: of the start, or within or between two iterations."""
        if self.rng.random() < 0.2:
            time.sleep(self.rng.uniform(0.0, startup))
            return
        target = self.steps() + self.rng.randrange(ITERATIONS)
        deadline = time.monotonic() + TIMEOUT
        while process.poll() is None and self.steps() < target and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(self.rng.uniform(0.0, 0.02))

    def disturb(self, process: subprocess.Popen[bytes]) -> str | None:
        """Send a signal, or two; its name if it met a living process."""
        if self.kill_workers:
            return self.kill(process)
        number = self.rng.choice(SIGNALS)
        if process.poll() is not None:
            return None
        process.send_signal(number)
        if number != signal.SIGKILL and self.rng.random() < 0.25:  # an impatient user
            time.sleep(self.rng.uniform(0.0, 0.03))
            second = self.rng.choice(SIGNALS)
            if process.poll() is None:
                process.send_signal(second)
                self.impatient |= second != signal.SIGKILL
        return number.name

    def kill(self, process: subprocess.Popen[bytes]) -> str | None:
        """SIGKILL for a random worker, the parent, or both; who met it."""
        who = self.rng.choice(("worker", "worker", "parent", "both"))
        deadline = time.monotonic() + TIMEOUT
        workers: list[int] = []
        while who != "parent" and not workers and process.poll() is None:
            workers = sorted(_processes(self.token).keys() - {process.pid})
            if time.monotonic() > deadline:
                raise RuntimeError(f"no worker within {TIMEOUT:g} s\n{self.said()}")
        if process.poll() is not None:
            return None
        order: list[int] = [self.rng.choice(workers)] if workers else []
        order += [process.pid] if who != "worker" else []
        self.rng.shuffle(order)
        for pid in order:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"SIGKILL of {who}"

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end, and kill what hangs."""
        try:
            return process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"did not end within {TIMEOUT:g} s\n{self.said()}") from None

    def leaks(self, *, temporary_files: bool) -> list[str]:
        """Processes, shared memory and files that should be gone; workers have half a minute."""
        deadline = time.monotonic() + 30.0
        while (left := _processes(self.token)) and time.monotonic() < deadline:
            time.sleep(0.02)
        found = [f"process {pid}: {line}" for pid, line in left.items()]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        found += [f"shared memory {name}" for name in sorted(_shared_memory() - self.shared)]
        found += [f"temporary file {file}" for file in self.temporary.iterdir()]
        if temporary_files:
            found += [f"file {file.name}" for file in self.run.glob("*") if "tmp" in file.name]
        return found

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def _processes(token: str) -> dict[int, str]:
    """Living processes whose environment holds the token."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if token.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text()[:80].replace("\0", " ")
    return found


def _shared_memory() -> set[str]:
    """Names in /dev/shm that this package or multiprocessing could have made."""
    folder = Path("/dev/shm")
    names = (file.name for file in folder.iterdir()) if folder.is_dir() else ()
    return {name for name in names if name.startswith(("trpo_fast.", "psm_trpo", "sem.trpo"))}


def tensors(file: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    from trpo_fast.checkpoint import load_checkpoint

    return {
        name: (str(tensor.dtype), tensor.shape, tensor.tobytes())
        for name, tensor in load_checkpoint(file)[0].items()
    }


def evaluation_is_due(file: Path) -> bool:
    """Whether the run of a checkpoint was stopped within an evaluation."""
    from trpo_fast.checkpoint import load_checkpoint

    callbacks = load_checkpoint(file)[1]["callbacks"]["callbacks"]
    return any(callback["state"].get("is_due", False) for callback in callbacks)


def without_evaluations(found: dict[str, Any]) -> dict[str, Any]:
    """Results but for what evaluations have written."""
    learned = {
        name: value
        for name, value in found.items()
        if name != "evaluations.csv" and not name.startswith("best.safetensors")
    }
    progress = [
        {key: value for key, value in row.items() if not key.startswith("eval/")}
        for row in found["progress.csv"]
    ]
    return {**learned, "progress.csv": progress}


def rows(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file without what a clock has measured."""
    counted = ("time/iteration", "time/timesteps")
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {k: v for k, v in row.items() if k in counted or not k.startswith("time/")}
            for row in csv.DictReader(stream)
        ]


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {file: rows(run / file) for file in ("progress.csv", "evaluations.csv")}
    for file in ("latest.safetensors", "best.safetensors"):
        found |= {f"{file}: {name}": tensor for name, tensor in tensors(run / file).items()}
    return found


def difference(expected: dict[str, Any], found: dict[str, Any], name: str) -> str:
    """Where two results differ first."""
    one, two = expected.get(name), found.get(name)
    if not isinstance(one, list) or not isinstance(two, list) or len(one) != len(two):
        return f"{name}: expected {str(one)[:100]}, got {str(two)[:100]}"
    for i, (a, b) in enumerate(zip(one, two, strict=True)):
        for key in a.keys() | b.keys():
            if a.get(key) != b.get(key):
                return f"{name}, row {i}, {key}: expected {a.get(key)}, got {b.get(key)}"
    return name


@functools.cache
def undisturbed() -> tuple[dict[str, Any], float]:
    """Results of a run that nobody has disturbed, and the seconds it took to start."""
    with tempfile.TemporaryDirectory(prefix="trpo_fast_kill_") as folder:
        trial = Trial(Path(folder), 0, 0)
        trial.workers = 0
        started = time.monotonic()
        process = trial.start()
        while trial.steps() == 0 and process.poll() is None:
            time.sleep(0.001)
        startup = time.monotonic() - started
        if trial.finish(process) != 0:
            raise RuntimeError(f"the undisturbed run failed: {trial.said()}")
        return results(trial.run), startup


def run_trial(
    folder: Path, number: int, seed: int, tally: Tally, *, kill_workers: bool = False
) -> None:
    """One run, disturbed until it is finished."""
    expected, startup = undisturbed()
    trial = Trial(folder, number, seed, kill_workers=kill_workers)
    where = f"trial {number} (--seed {seed} --first {number} --trials 1), {trial.workers} workers"
    disturbances = trial.rng.choice((1, 1, 1, 2, 3))
    try:
        for _ in range(disturbances):
            process = trial.start()
            trial.wait_for_a_moment(process, startup)
            name = trial.disturb(process)
            if name is not None:
                tally.kills[name] = tally.kills.get(name, 0) + 1
                moment = "starting" if trial.steps() == 0 else "training"
                tally.moments[moment] = tally.moments.get(moment, 0) + 1
            trial.finish(process)
            # before a resumption clears what a killed writer has left in the run folder
            tally.leaks += [f"{where}: {leak}" for leak in trial.leaks(temporary_files=False)]
            if (trial.run / "config.json").is_file():
                # at every moment there is a good one
                trial.postponed |= evaluation_is_due(trial.run / "latest.safetensors")
        process = trial.start()
        status = trial.finish(process)
        complete = status == 2 and "steps already" in trial.said()
        if status != 0 and not complete:
            raise RuntimeError(f"resumption ended with {status}: {trial.said()}")
        found = results(trial.run)
        if trial.postponed:
            expected, found = without_evaluations(expected), without_evaluations(found)
        # a worker that was killed in the very last save is told of in the log alone
        noticed = any(row.get("run/notice") for row in found["progress.csv"])
        if trial.impatient or noticed or "notice: episodes start anew" in trial.said():
            last = found["progress.csv"][-1]["time/timesteps"]
            if last != str(TOTAL):
                raise RuntimeError(f"ended at {last} of {TOTAL} steps")
            tally.resumed += 1
            return
        differing = [
            name for name in expected.keys() | found if expected.get(name) != found.get(name)
        ]
        if differing:
            raise RuntimeError(
                f"other results: {difference(expected, found, sorted(differing)[0])}"
            )
        tally.resumed += 1
        tally.exact += 1
    except Exception as error:
        tally.failures.append(f"{where}: {type(error).__name__}: {error}")
    finally:
        tally.leaks += [f"{where}: {leak}" for leak in trial.leaks(temporary_files=True)]
        tally.tracebacks += "Traceback" in trial.said()
        tally.trials += 1


def run_trials(
    trials: int,
    seed: int = 0,
    first: int = 0,
    *,
    kill_workers: bool = False,
    keep: bool = False,
) -> Tally:
    """All trials, one after the other."""
    tally, started = Tally(), time.monotonic()
    for number in range(first, first + trials):
        folder = Path(tempfile.mkdtemp(prefix="trpo_fast_kill_"))
        run_trial(folder, number, seed, tally, kill_workers=kill_workers)
        if keep:
            print(f"{number}: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    tally.seconds = time.monotonic() - started
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill", choices=("runs", "workers"), default="runs")
    parser.add_argument("--keep", action="store_true", help="leave the run folders")
    options = parser.parse_args()
    tally = run_trials(
        options.trials,
        options.seed,
        options.first,
        kill_workers=options.kill == "workers",
        keep=options.keep,
    )
    for finding in [*tally.failures, *tally.leaks][:20]:
        print(finding)
    print(tally.summary())
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main())
