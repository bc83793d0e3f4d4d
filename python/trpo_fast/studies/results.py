"""What came out of a study: one row a run, and what the seeds of one setting say together."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..logging import read_columns, write_atomically
from ..plotting import plot_runs
from .plan import Plan, PlannedRun
from .statistics import (
    Estimate,
    improvement,
    interquartile_estimate,
    last_tenth,
    unlearning_share,
)


@dataclass(frozen=True)
class RunResult:
    """One run: where it is, and how good its policy was."""

    run: PlannedRun
    timesteps: int
    """Environment steps done so far."""
    final: float
    """Mean return of the last evaluation; of the latest training episodes where none was made."""
    late: float
    """Mean return over the last tenth of the evaluations."""
    best: float
    unlearned: float
    """Share of the later evaluations below half of the best so far."""


@dataclass(frozen=True)
class Summary:
    """What the seeds of one setting on one environment say together."""

    env: str
    variant: str
    seeds: int
    final: Estimate
    """Interquartile mean of the final returns."""
    worst: float
    unlearned: float
    improvement: Estimate | None
    """Probability of being better than the first setting; None for that one itself."""


class StudyResult:
    """What a study has found so far.

    Parameters
    ----------
    plan
        The runs; those without results are left out.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        found = ((run, result_of(run)) for run in plan.runs)
        self.runs: list[RunResult] = [result for _, result in found if result is not None]
        """Results of the runs, in the order of the plan."""

    def finals(self, env: str, variant: str) -> list[float]:
        """Final returns of all seeds of one setting.

        Parameters
        ----------
        env, variant
            As in the plan.
        """
        return [r.final for r in self.runs if (r.run.env, r.run.variant) == (env, variant)]

    def summaries(self) -> list[Summary]:
        """One entry for every environment and setting that has results.

        Raises
        ------
        MissingExtraError
            (an ``ImportError``) without SciPy.
        """
        found = []
        for env in self.plan.envs:
            baseline: list[float] | None = None
            for variant in self.plan.variants:
                group = [r for r in self.runs if (r.run.env, r.run.variant) == (env, variant)]
                finals = [r.final for r in group if not math.isnan(r.final)]
                if not finals:
                    continue
                found.append(
                    Summary(
                        env,
                        variant,
                        len(finals),
                        interquartile_estimate(finals),
                        min(finals),
                        float(np.mean([r.unlearned for r in group])),
                        None if baseline is None else improvement([finals], [baseline]),
                    )
                )
                baseline = finals if baseline is None else baseline
        return found

    def table(self) -> list[str]:
        """The summaries as lines of text, with a head."""
        head = ("environment", "setting", "seeds", "final return (IQM, 95%)", "worst", "unlearned")
        rows = [[*head, "better than the first"]]
        for s in self.summaries():
            better = "" if s.improvement is None else _range(s.improvement, ".2f")
            share = "" if math.isnan(s.unlearned) else f"{s.unlearned:.0%}"
            final = _range(s.final, ",.1f")
            rows.append([s.env, s.variant, str(s.seeds), final, f"{s.worst:,.1f}", share, better])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
        return [line.rstrip() for line in lines]

    def write_csv(self) -> Path:
        """Write ``study.csv``, a row a run, and return its path."""
        path = self.plan.folder / "study.csv"
        settings = list(self.plan.grid)
        with write_atomically(path) as stream:
            writer = csv.writer(stream)
            numbers = ["timesteps", "final", "late", "best", "unlearned"]
            writer.writerow(["env", *settings, "seed", *numbers, "folder"])
            for r in self.runs:
                row = [r.timesteps, r.final, r.late, r.best, r.unlearned]
                folder = r.run.folder.relative_to(self.plan.folder)
                chosen = [r.run.settings[name] for name in settings]
                writer.writerow([r.run.env, *chosen, r.run.seed, *row, folder])
        return path

    def plot(self, out: str | Path | None = None) -> Path:
        """Draw the learning curves of all runs, a panel an environment.

        Parameters
        ----------
        out
            Picture to write; None is ``study.png`` in the study's folder.

        Raises
        ------
        MissingExtraError
            (an ``ImportError``) without Matplotlib.
        """
        path = Path(out) if out is not None else self.plan.folder / "study.png"
        return plot_runs([r.run.folder for r in self.runs], path)


def result_of(run: PlannedRun) -> RunResult | None:
    """Read the result of one run from its folder; None where there is none yet.

    Parameters
    ----------
    run
        The run.
    """
    progress, evaluations = run.folder / "progress.csv", run.folder / "evaluations.csv"
    if not progress.is_file():
        return None
    columns = read_columns(progress)
    if not columns.get("time/timesteps"):
        return None
    returns = _evaluations(evaluations) if evaluations.is_file() else []
    trained = [
        value for value in columns.get("rollout/episode_return", []) if not math.isnan(value)
    ]
    return RunResult(
        run,
        int(columns["time/timesteps"][-1]),
        final=returns[-1] if returns else trained[-1] if trained else math.nan,
        late=last_tenth(returns),
        best=max(returns or trained, default=math.nan),
        unlearned=unlearning_share(returns),
    )


def _evaluations(file: Path) -> list[float]:
    """Return the mean return of every evaluation, in the order of the run."""
    columns = read_columns(file)
    steps, returns = np.array(columns["timesteps"]), np.array(columns["return"])
    return [float(returns[steps == step].mean()) for step in np.unique(steps)]


def _range(estimate: Estimate, form: str) -> str:
    value: Any = format(estimate.value, form)
    if math.isnan(estimate.low):
        return str(value)
    return f"{value} [{estimate.low:{form}}, {estimate.high:{form}}]"
