"""`study`: run what is left of a plan, and say what came out."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import load_checkpoint
from ..config import TRPOConfig
from ..run_folder import RunFolder, RunFolderError
from .plan import Plan, PlannedRun, StudyError, as_arguments, text_of
from .processes import INTERRUPTED, LOST, TrainingProcesses, share_cores
from .results import StudyResult

if TYPE_CHECKING:
    from .cluster import ClusterRuns

_FRAME = "╭╮╰╯│─ "  # of what the command line says about wrong flags
_PATIENCE = 120  # seconds that a run of a killed study is given to stop
_MOST_LOSSES = 5  # nodes that a run may lose
_USAGE = 2  # exit status of a run whose flags are wrong: no other run can be right


def study(
    envs: str | Sequence[str],
    *,
    seeds: Iterable[int],
    run_dir: str | os.PathLike[str],
    grid: Mapping[str, Iterable[Any]] | None = None,
    total_timesteps: int = 1_000_000,
    jobs: int | None = None,
    cluster: str | None = None,
    runtime_env: Any = None,
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
    cluster
        Ray cluster whose nodes make the runs: "local", "auto", "HOST:PORT" or "ray://HOST:PORT"; all
        of them must see ``run_dir``. None makes them here.
    runtime_env
        What Ray brings to the nodes: a mapping, JSON, or the name of a YAML file.
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
    where = TRPOConfig(cluster=cluster, runtime_env=runtime_env)  # checks them
    return run_plan(
        plan, jobs=jobs, progress=progress, cluster=where.cluster, runtime_env=where.runtime_env
    ).result


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
    plan: Plan,
    *,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = print,
    cluster: str | None = None,
    runtime_env: str | None = None,
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
    cluster, runtime_env
        As for `study`, the second as text.

    Returns
    -------
    Outcome
        Runs that are done, and those that failed.

    Raises
    ------
    StudyError
        If the folder holds something else, or a flag is wrong.
    """
    if jobs is not None and jobs < 1:
        raise StudyError(f"jobs: expected at least 1, got {jobs}")
    plan.write()
    outcome, left = Outcome(plan), [run for run in plan.runs if not is_done(run)]
    outcome.done = len(plan.runs) - len(left)
    lines = _Lines(progress, len(plan.runs), len(left))
    with ExitStack() as held:
        runs, cores = _runs_on(cluster, runtime_env, plan, held)
        named = _named(plan)
        at_once, sharing = share_cores(max(1, len(left)), cores, **named)
        if cluster is not None:  # a node may be full: as many threads as a run has cores there
            sharing = share_cores(1, runs_cores(named), **named)[1]
        if jobs is not None:
            at_once = jobs
            if cluster is None:
                sharing = share_cores(jobs, max(jobs, cores), **named)[1]
        _run_all(left, runs, at_once, sharing, outcome, lines)
    return outcome


def runs_cores(named: Mapping[str, Any]) -> int:
    """Cores that a run of a plan asks for: what its settings name, or one.

    Parameters
    ----------
    named
        ``n_threads`` and ``n_workers``, where a plan names them.
    """
    return max([1, *(int(named[name]) for name in ("n_threads", "n_workers") if name in named)])


def _runs_on(
    cluster: str | None, runtime_env: str | None, plan: Plan, held: ExitStack
) -> tuple[TrainingProcesses | ClusterRuns, int]:
    """What makes the runs, and how many cores it has."""
    if cluster is None:
        from ..rollout import available_cores

        return TrainingProcesses(), available_cores()
    from ..rollout.cluster import Connection
    from .cluster import ClusterRuns

    connection = Connection(cluster, runtime_env)
    held.callback(connection.close)
    n_cores = runs_cores(_named(plan))
    connection.require_cores(n_cores, at_most=n_cores, name="study")
    return ClusterRuns(connection, plan.folder, n_cores), connection.cores()


def _run_all(
    left: Sequence[PlannedRun],
    runs: TrainingProcesses | ClusterRuns,
    at_once: int,
    sharing: Sequence[str],
    outcome: Outcome,
    lines: _Lines,
) -> None:
    wrong: list[str] = []

    def one(run: PlannedRun) -> None:
        if wrong or runs.signalled:
            return
        status, last = _train(run, runs, sharing)
        for _ in range(_MOST_LOSSES):
            if status != LOST:
                break
            status, last = _train(run, runs, sharing)  # from its last checkpoint, elsewhere
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


def _train(
    run: PlannedRun, runs: TrainingProcesses | ClusterRuns, sharing: Sequence[str]
) -> tuple[int, str]:
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
                ended = f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
                said = f"failed: {last or f'its process {ended}'}"
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
