"""Learning curves from run folders: one panel per environment, seeds drawn as mean and band."""

from __future__ import annotations

import functools
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .extras import import_extra
from .logging import read_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Path_ = str | os.PathLike[str]

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # steps, values; both (n,)

# Okabe and Ito's palette, told apart with any kind of colour vision, on white and in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DARK, _GREY, _LIGHT = "#222222", "#666666", "#E6E6E6"

_GRID_POINTS = 400
# settings that make no other curve: who computed it, and the seed that the band is taken over
_NOT_A_SETTING = frozenset({"seed", "n_threads"})


@dataclass(frozen=True)
class Run:
    """What a run folder tells of one run."""

    folder: Path
    environment: str
    preset: str | None
    settings: Mapping[str, Any]
    """The configuration without the seed and without what does not change the result."""

    training: Curve
    """Mean return, or another metric, of the latest training episodes over environment steps."""

    evaluation: Curve
    """Its mean over each evaluation, over environment steps; empty if there was none."""

    metrics: tuple[str, ...] = ()
    """What the run's files tell that could be drawn."""


def plot_runs(
    run_folders: Iterable[Path_],
    out_png: Path_,
    *,
    metric: str = "return",
    title: str | None = None,
    dpi: int = 160,
) -> Path:
    """Draw the learning curves of runs into a picture; return its path.

    Runs of one environment share a panel. Runs that differ in nothing but the seed are one curve:
    the mean over seeds, with a band of one standard deviation over seeds (divided by n - 1) as far
    as all of them have come, and each seed as a thin line. Runs with other settings are another
    curve, named after the settings that tell them apart. Evaluations are drawn as points on a
    dashed line, training returns as a plain line.

    Parameters
    ----------
    run_folders
        Folders with ``config.json`` and ``progress.csv``; ``evaluations.csv`` may be missing.
    out_png
        The picture; the ending chooses the format (.png, .svg, .pdf). Its folder is made if needed.
    metric
        What is drawn: "return", "length", "success_rate" or another metric of episodes, of training and
        evaluations; or any column of ``progress.csv``, such as "policy/kl".
    title
        A line above the panels.
    dpi
        Pixels per inch; a panel is about 6 by 4 inches.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if matplotlib is not installed.
    ValueError
        if there is no run, a folder is none of a run, no episode has ended in any of them, or none
        tells the metric.
    """
    matplotlib = import_extra("matplotlib", what="Plotting", extra="plot")
    figure_class = import_extra("matplotlib.figure", what="Plotting", extra="plot").Figure
    runs = [read_run(folder, metric) for folder in run_folders]
    if not runs:
        raise ValueError("run_folders: expected at least one run folder, got none")
    drawn = [run for run in runs if run.training[0].size or run.evaluation[0].size]
    if not drawn and metric != "return" and metric not in runs[0].metrics:
        listed = ", ".join(runs[0].metrics)
        raise ValueError(
            f"metric: expected one of {listed:.2000}, got {metric!r:.80}; choose one that the runs tell"
        )
    if not drawn:
        raise ValueError(
            f"{runs[0].folder}: expected finished episodes in at least one run, got none in "
            f"{len(runs)}; train longer"
        )
    panels: dict[str, list[Run]] = defaultdict(list)
    for run in drawn:
        panels[run.environment].append(run)

    # a Figure of its own, without pyplot: no global state, no display, the Agg renderer
    columns = min(math.ceil(math.sqrt(len(panels))), 3)
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(_style()):
        figure = figure_class(figsize=(5.8 * columns, 3.9 * rows + 0.3), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # inches
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (environment, group) in zip(axes, sorted(panels.items()), strict=False):
            _draw_panel(axis, environment, group, metric)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        if title is not None:
            figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=_DARK)
        return _save(figure, Path(out_png), dpi)


def read_run(folder: Path_, metric: str = "return") -> Run:
    """Read what is drawn of one run.

    Parameters
    ----------
    folder
        The folder of a run.
    metric
        What is drawn, see :func:`plot_runs`.

    Raises
    ------
    ValueError
        if the folder is none of a run: the sentence says which file is missing or wrong.
    """
    folder = Path(folder)
    record = _read_record(folder / "config.json")
    config = record.get("config", {})
    preset = record.get("preset")
    progress = _read_csv(folder / "progress.csv", ("time/timesteps",), required=True)
    evaluations = _read_csv(folder / "evaluations.csv", ("timesteps", "return"), required=False)
    in_progress, in_evaluations = _columns_of(metric)
    return Run(
        folder=folder,
        environment=str(record["env"]),
        preset=preset.get("name") if isinstance(preset, dict) else preset,
        settings={
            "algorithm": str(record.get("algorithm", "trpo")),
            **{k: v for k, v in config.items() if k not in _NOT_A_SETTING},
        },
        training=_curve(progress, "time/timesteps", in_progress),
        evaluation=_mean_per_step(_curve(evaluations, "timesteps", in_evaluations)),
        metrics=_metrics_in(progress),
    )


# ---- reading


def _columns_of(metric: str) -> tuple[str, str]:
    """The columns of progress.csv and of evaluations.csv that hold a metric."""
    if "/" in metric:
        return metric, ""
    if metric in ("return", "length"):
        return f"rollout/episode_{metric}", metric
    return f"rollout/{metric}", "success" if metric == "success_rate" else metric


def _metrics_in(progress: Mapping[str, list[float]]) -> tuple[str, ...]:
    """The names that the columns of progress.csv have as metrics, those with numbers in them."""
    told = [key for key, values in progress.items() if any(map(math.isfinite, values))]
    return tuple(
        key.removeprefix("rollout/").removeprefix("episode_")
        for key in told
        if key not in ("time/timesteps", "rollout/steps", "rollout/episodes")
    )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: expected the record of a run, got no such file; is {path.parent} the folder "
            "of a run?"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(record, dict) or "env" not in record:
        raise ValueError(f"{path}: expected an entry 'env', got none")
    return record


def _read_csv(path: Path, needed: tuple[str, ...], *, required: bool) -> dict[str, list[float]]:
    if not path.exists():
        if required:
            raise ValueError(f"{path}: expected the progress of a run, got no such file")
        return {}
    columns = read_columns(path)
    if columns and (missing := [name for name in needed if name not in columns]):
        raise ValueError(f"{path}: expected the columns {list(needed)}, got no {missing}")
    return columns


def _curve(columns: Mapping[str, list[float]], step_key: str, value_key: str) -> Curve:
    steps = np.array(columns.get(step_key, ()), np.float64)
    values = np.array(columns.get(value_key, [math.nan] * steps.size), np.float64)
    known = np.isfinite(steps) & np.isfinite(values)
    return steps[known], values[known]


def _mean_per_step(rows: Curve) -> Curve:
    steps, place = np.unique(rows[0], return_inverse=True)
    counts = np.bincount(place, minlength=steps.size)
    return steps, np.bincount(place, weights=rows[1], minlength=steps.size) / counts


# ---- grouping


def _group_by_settings(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Runs that differ only in the seed belong together; each group is named by what is its own."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[json.dumps(run.settings, sort_keys=True, default=str)].append(run)
    firsts = [group[0] for group in groups.values()]
    keys = sorted({key for run in firsts for key in run.settings})
    telling = [k for k in keys if any(r.settings.get(k) != firsts[0].settings.get(k) for r in runs)]
    named = [(_name(group[0], telling, firsts), group) for group in groups.values()]
    return sorted(named, key=lambda item: item[0])


def _name(run: Run, telling: list[str], firsts: list[Run]) -> str:
    if not telling:
        return ""
    algorithms = [other.settings["algorithm"] for other in firsts]
    if len(set(algorithms)) == len(algorithms):  # the algorithms alone tell them apart
        return str(run.settings["algorithm"])
    presets = [other.preset for other in firsts]
    if len(set(presets)) == len(presets):  # or the presets
        return run.preset or "default"
    words = [f"{key} {_setting(run.settings.get(key))}" for key in telling]
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _over_seeds(curves: list[Curve]) -> tuple[Curve, npt.NDArray[np.float64]]:
    """Mean curve and standard deviation over seeds, on steps that all of the curves cover."""
    shared = functools.reduce(np.intersect1d, [steps for steps, _ in curves])
    if 2 * shared.size >= min(steps.size for steps, _ in curves):
        grid = shared  # the runs were logged at the same steps: nothing is interpolated
    else:
        first = max(float(steps[0]) for steps, _ in curves)
        last = min(float(steps[-1]) for steps, _ in curves)
        grid = np.linspace(first, last, _GRID_POINTS if last >= first else 0)
    values = np.array([np.interp(grid, steps, values) for steps, values in curves])
    spread = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(grid)
    return (grid, values.mean(axis=0)), spread


# ---- drawing


def _style() -> dict[str, Any]:
    return {
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": _GREY,
        "axes.labelcolor": _DARK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _LIGHT,
        "grid.linewidth": 0.8,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
        "xtick.labelcolor": _DARK,
        "ytick.labelcolor": _DARK,
        "svg.fonttype": "none",
    }


def _draw_panel(axis: Axes, environment: str, runs: list[Run], metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    groups = _group_by_settings(runs)
    for number, (name, group) in enumerate(groups):
        _draw_group(axis, COLOURS[number % len(COLOURS)], name, group)
    axis.set_title(environment, loc="left", fontweight="bold", color=_DARK, pad=10)
    axis.set_xlabel("environment steps")
    axis.set_ylabel(_label(metric))
    axis.set_xlim(left=0.0)
    axis.margins(x=0.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _compact(value)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.tick_params(length=3)
    axis.legend(frameon=False, fontsize=9, labelcolor=_DARK, handlelength=2.2)


def _label(metric: str) -> str:
    if "/" in metric:
        return metric
    words = metric.replace("_", " ")
    return words if metric.endswith("_rate") else f"{words} per episode"


def _draw_group(axis: Axes, colour: str, name: str, runs: list[Run]) -> None:
    training = [run.training for run in runs if run.training[0].size]
    evaluation = [run.evaluation for run in runs if run.evaluation[0].size]
    prefix = f"{name}: " if name else ""
    if training:
        (steps, mean), spread = _over_seeds(training)
        if len(training) > 1:
            for own_steps, values in training:
                axis.plot(own_steps, values, color=colour, alpha=0.3, linewidth=0.7, zorder=2)
            axis.fill_between(
                steps, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
        label = f"{prefix}training{_seeds(len(training))}"
        axis.plot(steps, mean, color=colour, linewidth=2.0, zorder=3, label=label)
    if evaluation:
        (steps, mean), _ = _over_seeds(evaluation)
        axis.plot(
            steps,
            mean,
            color=colour,
            linewidth=1.0,
            linestyle=(0, (3, 2)),
            marker="o",
            markersize=4.5,
            markevery=max(1, steps.size // 25),
            markerfacecolor="white",
            markeredgewidth=1.2,
            zorder=4,
            label=f"{prefix}evaluation{_seeds(len(evaluation), band=False)}",
        )


def _seeds(n: int, *, band: bool = True) -> str:
    if n == 1:
        return ""
    return f", mean {'± s.d. ' if band else ''}of {n} seeds"


def _compact(steps: float) -> str:
    """Write 250,000 as 250k and 1,500,000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= size:
            return f"{steps / size:g}{letter}"
    return f"{steps:g}"


def _save(figure: Figure, path: Path, dpi: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=dpi, facecolor="white")
    except ValueError as error:  # an ending that matplotlib does not know
        raise ValueError(
            f"{path}: expected an ending such as .png, .svg or .pdf: {error}"
        ) from None
    return path
