"""`study`: run what is left of a plan, and say what came out."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ..checkpoint import load_checkpoint
from ..run_folder import RunFolder, RunFolderError
from .plan import Plan, PlannedRun, StudyError, as_arguments, text_of
from .processes import INTERRUPTED, TrainingProcesses, share_cores
from .results import StudyResult

_FRAME = "╭╮╰╯│─ "  # of what the command line says about wrong flags
_PATIENCE = 120  # seconds that a run of a killed study is given to stop
_USAGE = 2  # exit status of a run whose flags are wrong: no other run can be right


def study(
    envs: str | Sequence[str],
    *,
    seeds: Iterable[int],
    run_dir: str | os.PathLike[str],
    grid: Mapping[str, Iterable[Any]] | None = None,
    total_timesteps: int = 1_000_000,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = print,
    **settings: Any,
) -> StudyResult:
    """Train every environment with every setting and every seed; what is done is not done again.

    >>> result = study("CartPole-v1", seeds=range(5), grid={"max_kl": [0.01, 0.05]}, run_dir="kl")
    >>> print(*result.table(), sep="\\n")

    Every run is a process of ``trpo-fast train`` with a run folder of its own below ``run_dir``, in
    which ``study.json``, ``study.csv`` and ``study.png`` stand too. A study that was ended, killed or
    extended by seeds goes on with the same call.

    Parameters
    ----------
    envs
        Gymnasium ids, as on the command line: ``module:Id`` for those of a module of your own.
    seeds
        A run for each, each at least 0.
    run_dir
        Folder of the study: a new one, or that of this very study.
    grid
        Values by setting; all combinations are run. The first one is what the others are compared
        with.
    total_timesteps
        Environment steps of every run, at least 1.
    jobs
        Runs at once; None takes as many as there are processors.
    progress
        Is given a line of text for every run that ends; None for silence.
    **settings
        Flags of ``trpo-fast train`` by name: settings of the configuration, ``algorithm``,
        ``preset``, ``evaluate_every``, ``env_kwargs`` (texts such as "g=2.0"), ``wrapper``.

    Returns
    -------
    StudyResult
        Results by run, their table, and the pictures.

    Raises
    ------
    StudyError
        (a ``ValueError``) if the folder holds something else, or a flag is wrong.
    """
    plan = Plan(
        envs=(envs,) if isinstance(envs, str) else tuple(envs),
        seeds=tuple(seeds),
        grid={name: tuple(map(text_of, values)) for name, values in (grid or {}).items()},
        arguments=tuple(as_arguments({"total_timesteps": total_timesteps, **settings})),
        folder=Path(run_dir),
    )
    return run_plan(plan, jobs=jobs, progress=progress).result


class Outcome:
    """How the runs of a plan have ended this time.

    Parameters
    ----------
    plan
        The runs.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.done = 0
        self.failed: list[PlannedRun] = []
        self.interrupted = False

    @property
    def result(self) -> StudyResult:
        """What the study has found so far, from its files."""
        return StudyResult(self.plan)


def run_plan(
    plan: Plan, *, jobs: int | None = None, progress: Callable[[str], None] | None = print
) -> Outcome:
    """Run what is left of a plan.

    SIGINT and SIGTERM end the runs after their present iteration, the second one at once. A run that
    fails does not end the others; its lines are in ``seedN.txt`` beside its folder.

    Parameters
    ----------
    plan
        The runs.
    jobs
        Runs at once, at least 1; None takes as many as there are processors.
    progress
        Is given a line of text for every run that ends; None for silence.

    Returns
    -------
    Outcome
        Runs that are done, and those that failed.

    Raises
    ------
    StudyError
        If the folder holds something else, or a flag is wrong.
    """
    from ..rollout import available_cores

    if jobs is not None and jobs < 1:
        raise StudyError(f"jobs: expected at least 1, got {jobs}")
    plan.write()
    outcome, left = Outcome(plan), [run for run in plan.runs if not is_done(run)]
    outcome.done = len(plan.runs) - len(left)
    cores = available_cores()
    at_once, sharing = share_cores(max(1, len(left)), cores, **_named(plan))
    if jobs is not None:
        at_once = jobs
        sharing = share_cores(jobs, max(jobs, cores), **_named(plan))[1]
    runs, lines = TrainingProcesses(), _Lines(progress, len(plan.runs), len(left))
    wrong: list[str] = []

    def one(run: PlannedRun) -> None:
        if wrong or runs.signalled:
            return
        status, last = _train(run, runs, sharing)
        if status == 0:
            outcome.done += 1
        elif status == INTERRUPTED:
            outcome.interrupted = True
        else:
            outcome.failed.append(run)
            if status == _USAGE:
                wrong.append(last)
        lines.ended(run, status, last, outcome)

    with runs.taking_signals(), ThreadPoolExecutor(at_once, "run") as pool:
        ends = [pool.submit(one, run) for run in left]
        wait(ends)
    for end in ends:
        end.result()
    outcome.interrupted = outcome.interrupted or runs.signalled > 0
    if wrong:
        raise StudyError(f"study: expected flags of `trpo-fast train`, got an error: {wrong[0]}")
    return outcome


def is_done(run: PlannedRun) -> bool:
    """Whether a run has made all of its steps and has been saved.

    Parameters
    ----------
    run
        The run.
    """
    folder = RunFolder(run.folder)
    if not folder.config_file.is_file() or not folder.latest.is_file():
        return False
    total = folder.read_record().get("total_timesteps")
    _, metadata = load_checkpoint(folder.latest)
    return isinstance(total, int) and metadata.get("timesteps", 0) >= total


def _train(run: PlannedRun, runs: TrainingProcesses, sharing: Sequence[str]) -> tuple[int, str]:
    """Start or resume a run; return its exit status and what it said at last."""
    if RunFolder(run.folder).config_file.is_file():
        _wait_until_free(RunFolder(run.folder))
        arguments = ["train", "--resume", str(run.folder), *sharing]
    else:
        seed = ["--seed", str(run.seed), "--run-dir", str(run.folder)]
        arguments = ["train", *run.arguments, *sharing, *seed]
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    lines: deque[str] = deque(maxlen=20)
    lock = threading.Lock()
    with open(run.folder.with_name(f"{run.folder.name}.txt"), "a", encoding="utf-8") as file:

        def keep(line: str) -> None:
            with lock:
                file.write(line + "\n")
                lines.append(line.strip(_FRAME))

        status = runs.run(arguments, keep, keep)
    said = [line for line in lines if line]
    return status, " ".join(said if status == _USAGE else said[-1:])


def _wait_until_free(folder: RunFolder) -> None:
    """Wait for the process of a study that was killed: it stops after its present iteration."""
    for _ in range(_PATIENCE):
        try:
            with folder.locked():
                return
        except RunFolderError:
            time.sleep(1.0)


def _named(plan: Plan) -> dict[str, Any]:
    """What the plan says of processors: the largest number, where a grid names several."""
    found: dict[str, Any] = {"env": plan.envs[0]}
    for name in ("n_threads", "n_workers", "n_envs"):
        flag = f"--{name.replace('_', '-')}="
        values = [a.removeprefix(flag) for a in plan.arguments if a.startswith(flag)]
        numbers = [int(v) for v in (*values, *plan.grid.get(name, ())) if v.isdecimal()]
        if numbers:
            found[name] = max(numbers)
    return found


class _Lines:
    """A line for every run that ends: what came out, how many are left, how long that may take."""

    def __init__(self, write: Callable[[str], None] | None, n_runs: int, n_left: int) -> None:
        self._write, self._n_runs, self._n_left = write, n_runs, n_left
        self._started, self._ended, self._lock = time.monotonic(), 0, threading.Lock()

    def ended(self, run: PlannedRun, status: int, last: str, outcome: Outcome) -> None:
        with self._lock:
            self._ended += 1
            if self._write is None:
                return
            if status == 0:
                said = _score(run)
            elif status == INTERRUPTED:
                said = "interrupted"
            else:
                said = f"failed: {last}"
            seconds = (time.monotonic() - self._started) / self._ended
            left = seconds * (self._n_left - self._ended)
            rest = f", about {_duration(left)} left" if left > 0 else ""
            self._write(f"{run.name}: {said} ({outcome.done} of {self._n_runs}{rest})")


def _score(run: PlannedRun) -> str:
    from .results import result_of

    result = result_of(run)
    return "done" if result is None else f"return {result.final:,.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
