"""What came out of ``learning.py``: statistics over seeds, the table, the CSV and the picture."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tools import report

if TYPE_CHECKING:
    from benchmarks.learning.learning import Task

STANDARD_ERRORS = 5.0  # what "clearly over random" means


def summarize(task: Task, runs: Sequence[dict[str, Any]], randoms: list[float]) -> dict[str, Any]:
    """Statistics over seeds of one environment, and whether they pass."""
    final = [statistics.mean(run["final_returns"]) for run in runs]
    best = [statistics.mean(run["best_returns"]) for run in runs]
    summary: dict[str, Any] = {
        "env": task.env,
        "timesteps": max(run["timesteps"] for run in runs),
        "seeds": len(runs),
        "episodes": task.episodes,
        "final_means": final,
        "best_means": best,
        "max_kl_over_bound": max(run["max_kl_over_bound"] for run in runs),
        "updates": sum(sum(run["statuses"].values()) for run in runs),
        "refused": sum(sum(run["statuses"].values()) for run in runs)
        - sum(run["statuses"].get("accepted", 0) for run in runs),
        "steps_per_second": statistics.median(run["timesteps"] / run["seconds"] for run in runs),
    }
    if task.aim is not None:
        mean = statistics.mean(final)
        summary["goal"] = f"mean > {task.aim:,.0f}"
        summary["passed"] = len(runs) >= task.seeds and mean > task.aim
        summary["reached"] = f"{mean:,.0f}"
    else:
        if task.threshold is not None:
            reached = sum(value >= task.threshold for value in final)
            goal = f">= {task.threshold:g}"
        else:
            reached = sum(_over_random(run["final_returns"], randoms) for run in runs)
            goal = f"over random ({statistics.mean(randoms):.1f})"
            summary["random_mean"] = statistics.mean(randoms)
        summary["goal"] = f"{goal} on {task.seeds_needed} of {task.seeds}"
        summary["passed"] = reached >= (task.seeds_needed or task.seeds)
        summary["reached"] = f"{reached} of {len(runs)}"
    summary["passed"] = summary["passed"] and summary["max_kl_over_bound"] <= 1.0
    return summary


def _over_random(returns: Sequence[float], randoms: Sequence[float]) -> bool:
    # by so many standard errors of the difference of the means
    error = sum(statistics.variance(sample) / len(sample) for sample in (returns, randoms)) ** 0.5
    return bool(statistics.mean(returns) - statistics.mean(randoms) > STANDARD_ERRORS * error)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 0 if abs(statistics.mean(values)) >= 1000 else 1
    return f"{statistics.mean(values):,.{digits}f} ± {deviation:,.{digits}f}"


def show(summaries: Sequence[dict[str, Any]]) -> None:
    """Print the learning table."""
    report.print_table(
        [
            "environment",
            "steps",
            "seeds",
            "final",
            "best",
            "goal",
            "reached",
            "KL/δ",
            "refused",
            "steps/s",
            "",
        ],
        [
            [
                s["env"],
                f"{s['timesteps']:,}",
                s["seeds"],
                _mean_and_deviation(s["final_means"]),
                _mean_and_deviation(s["best_means"]),
                s["goal"],
                s["reached"],
                f"{s['max_kl_over_bound']:.4f}",
                f"{s['refused']} of {s['updates']}",
                f"{s['steps_per_second']:,.0f}",
                "pass" if s["passed"] else "FAIL",
            ]
            for s in summaries
        ],
        title="Deterministic evaluation, mean over seeds ± standard deviation over seeds",
    )


def write_csv(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Write one row per evaluation of every run."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["env", "seed", "kind", "timesteps", "mean_return", "std_return"])
        for run in runs:
            for point in run["curve"]:
                numbers = (point["timesteps"], point["mean_return"], point["std_return"])
                writer.writerow([run["env"], run["seed"], "evaluation", *numbers])
            for kind, timesteps in (("final", run["timesteps"]), ("best", run["best_timesteps"])):
                returns = run[f"{kind}_returns"]
                numbers = (timesteps, statistics.mean(returns), statistics.pstdev(returns))
                writer.writerow([run["env"], run["seed"], kind, *numbers])


def plot(path: Path, tasks: Mapping[str, Task], runs: Sequence[dict[str, Any]]) -> None:
    """Draw the evaluations on the way: one panel per environment, a line per seed and the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({run["env"] for run in runs}, key=list(tasks).index)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.1 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        task = tasks[name]
        curves = [run["curve"] for run in runs if run["env"] == name]
        for curve in curves:
            steps = [point["timesteps"] for point in curve]
            axis.plot(steps, [p["mean_return"] for p in curve], color="C0", alpha=0.35, lw=0.8)
        shared = list(zip(*curves, strict=False))
        axis.plot(
            [points[0]["timesteps"] for points in shared],
            [statistics.mean(p["mean_return"] for p in points) for points in shared],
            color="C0",
            lw=1.8,
            label=f"mean over seeds (n = {len(curves)})",
        )
        goal = task.threshold if task.threshold is not None else task.aim
        if goal is not None:
            axis.axhline(goal, color="0.4", lw=0.8, ls="--", label=f"goal {goal:g}")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)
