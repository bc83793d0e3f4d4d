"""What came out of ``learning.py``: statistics over seeds, the table and the picture."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.learning import method_runs
from benchmarks.tools import report
from trpo_fast.studies.statistics import (
    Estimate,
    improvement,
    interquartile_estimate,
    interquartile_mean,
    last_tenth,
    second_half,
    unlearnt,
)

if TYPE_CHECKING:
    from benchmarks.learning.learning import Task

ALL = "all tasks"
Runs = Sequence[dict[str, Any]]


def seconds_to_reach(
    seconds: Sequence[float], returns: Sequence[float], target: float
) -> float | None:
    """Seconds of training until an evaluation first reached a return; None if none did.

    Parameters
    ----------
    seconds
        Of training until each evaluation, without those of evaluations.
    returns
        Of the evaluations.
    target
        The return to reach.
    """
    return next((s for s, value in zip(seconds, returns, strict=True) if value >= target), None)


def baseline(said: str | None, variants: Sequence[str]) -> Runs | str | None:
    """What to compare with: the name of a variant, or the runs of a folder of an earlier call.

    Raises
    ------
    ValueError
        Neither a variant nor a folder with runs of exactly one.
    """
    if said is None or said in variants:
        return said
    runs = [json.loads(path.read_text()) for path in sorted(Path(said).glob("runs/*.json"))]
    names = {run["job"]["method"] for run in runs}
    if len(names) != 1:
        raise ValueError(
            f"--baseline: expected one of {', '.join(variants)} or a folder with runs of one "
            f"variant, got {said!r} with runs of {', '.join(sorted(names)) or 'none'}"
        )
    return runs


def returns_on_the_way(run: dict[str, Any]) -> list[float]:
    """Mean returns of the evaluations, in their order."""
    return [point["mean_return"] for point in run["curve"]]


def _of(runs: Runs, variant: str, env: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["job"]["method"], run["job"]["env"]) == (variant, env)]


def summaries(
    tasks: Sequence[Task], variants: Sequence[str], runs: Runs, stored: Runs | str | None
) -> list[dict[str, Any]]:
    """One row for each task and variant, and one for each variant over all tasks."""
    rows = []
    for task in tasks:
        against = _baseline_of(task.env, runs, stored)
        for variant in variants:
            if own := _of(runs, variant, task.env):
                rows.append(summarize(task, variant, own, [] if variant == stored else against))
    for variant in variants:
        if stored is None or variant == stored:
            continue
        pairs = [(_of(runs, variant, t.env), _baseline_of(t.env, runs, stored)) for t in tasks]
        pairs = [(own, theirs) for own, theirs in pairs if own and theirs]
        if len(pairs) > 1:
            better = improvement(
                [[method_runs.final_mean(run) for run in own] for own, _ in pairs],
                [[method_runs.final_mean(run) for run in theirs] for _, theirs in pairs],
            )
            rows.append({"env": ALL, "variant": variant, "better": better, "passed": True})
    return rows


def _baseline_of(env: str, runs: Runs, stored: Runs | str | None) -> list[dict[str, Any]]:
    if stored is None:
        return []
    if isinstance(stored, str):
        return _of(runs, stored, env)
    return [run for run in stored if run["job"]["env"] == env]


def summarize(task: Task, variant: str, runs: Runs, against: Runs) -> dict[str, Any]:
    """Statistics over the seeds of one variant on one task, and whether they pass."""
    final = [method_runs.final_mean(run) for run in runs]
    curves = [returns_on_the_way(run) for run in runs]
    looked = sum(second_half(curve) for curve in curves)
    row: dict[str, Any] = {
        "env": task.env,
        "variant": variant,
        "timesteps": max(run["timesteps"] for run in runs),
        "seeds": sorted(run["job"]["seed"] for run in runs),
        "final_means": final,
        "final": interquartile_estimate(final),
        "worst": min(final),
        "last_tenth": interquartile_mean([last_tenth(curve) for curve in curves]),
        "unlearnt": sum(unlearnt(curve) for curve in curves) / looked if looked else 0.0,
        "steps_per_second": statistics.median(run["timesteps"] / run["seconds"] for run in runs),
        "passed": True,
    }
    if all("best_returns" in run for run in runs):
        best = [statistics.fmean(run["best_returns"]) for run in runs]
        row["best"] = interquartile_mean(best)
    if all("max_kl_over_bound" in run for run in runs):
        row["max_kl_over_bound"] = max(run["max_kl_over_bound"] for run in runs)
        row["passed"] = row["max_kl_over_bound"] <= 1.0
    if against:
        theirs = [method_runs.final_mean(run) for run in against]
        row["better"] = improvement([final], [theirs])
        row["seconds_to_baseline"] = _median_seconds(runs, interquartile_mean(theirs))
    if variant == "default":
        row["passed"] = row["passed"] and _reaches(task, final)
    return row


def _reaches(task: Task, final: Sequence[float]) -> bool:
    """Whether the default is where the task asks it to be."""
    if task.threshold is not None:
        needed = (task.seeds_needed or task.seeds) / task.seeds
        return sum(value >= task.threshold for value in final) >= needed * len(final)
    return task.aim is None or interquartile_mean(final) >= task.aim


def _median_seconds(runs: Runs, target: float) -> float | None:
    """Median over the runs; None where the half of them, or more, has not got there."""
    found = [
        seconds_to_reach([p["seconds"] for p in run["curve"]], returns_on_the_way(run), target)
        for run in runs
    ]
    infinite = [float("inf") if seconds is None else seconds for seconds in found]
    median = statistics.median_high(infinite)
    return median if median < float("inf") else None


# ---- shown


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row with estimates as dictionaries."""
    return {
        name: dataclasses.asdict(value) if isinstance(value, Estimate) else value
        for name, value in row.items()
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _estimate(estimate: Estimate | None, form: str = "") -> str:
    if estimate is None:
        return ""
    if math.isnan(estimate.low):  # one seed
        return f"{estimate.value:{form}}" if form else _number(estimate.value)
    if form:
        return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
    low, high = _number(estimate.low), _number(estimate.high)
    return f"{_number(estimate.value)} ({low} to {high})"


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the learning table."""
    columns = [
        "task",
        "variant",
        "seeds",
        "final",
        "worst",
        "last tenth",
        "best",
        "unlearnt",
        "better",
        "to baseline",
        "KL/δ",
        "steps/s",
        "",
    ]
    cells = [
        [
            row["env"],
            row["variant"],
            len(row["seeds"]) if "seeds" in row else "",
            _estimate(row.get("final")),
            _number(row.get("worst")),
            _number(row.get("last_tenth")),
            _number(row.get("best")),
            f"{row['unlearnt']:.1%}" if "unlearnt" in row else "",
            _estimate(row.get("better"), ".2f"),
            f"{row['seconds_to_baseline']:.0f} s" if row.get("seconds_to_baseline") else "",
            f"{row['max_kl_over_bound']:.4f}" if "max_kl_over_bound" in row else "",
            f"{row['steps_per_second']:,.0f}" if "steps_per_second" in row else "",
            "pass" if row["passed"] else "FAIL",
        ]
        for row in rows
    ]
    report.print_table(
        columns,
        cells,
        title="Deterministic evaluation; interquartile means over seeds, 95% intervals",
    )


def plot(path: Path, runs: Runs) -> None:
    """Draw a panel per task: interquartile mean over seeds, band of its bootstrap, for each variant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = method_runs.places(runs)
    colors = {method: f"C{i}" for i, method in enumerate(method_runs.by_method(runs))}
    columns = min(3, len(names))
    height = -(-len(names) // columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(4.2 * columns, 3.1 * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for method, own in method_runs.by_method(runs, name).items():
            grid, curves = method_runs.common_grid(own)
            points = [interquartile_estimate(column) for column in curves.T]
            label = f"{method} (n = {len(own)})"
            axis.plot(grid, [p.value for p in points], color=colors[method], lw=1.6, label=label)
            low, high = [p.low for p in points], [p.high for p in points]
            axis.fill_between(grid, low, high, color=colors[method], alpha=0.18, lw=0)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, loc="best")
    figure.savefig(path, dpi=130)
    plt.close(figure)
