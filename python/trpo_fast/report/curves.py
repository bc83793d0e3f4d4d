"""The curves of a report: matplotlib's SVG, made to stand within a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..extras import import_extra
from .reading import Float64, ReportedRun

__all__ = ["COLOURS", "curves"]

# Okabe and Ito's palette, told apart with any kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_POINTS = 800  # of a curve; more are averaged
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "svg.fonttype": "none",
    "path.simplify": True,
}

# title, columns drawn plain, columns drawn dashed, what the two are
_PANELS: tuple[tuple[str, str, str, str], ...] = (
    ("Return of episodes", "rollout/episode_return", "eval/return", "training; dots: evaluation"),
    ("KL of the step, nats", "policy/kl", "policy/max_kl", "exact; dashed: bound"),
    (
        "Gain of the surrogate",
        "policy/surrogate_gain",
        "policy/surrogate_gain_predicted",
        "exact; dashed: predicted",
    ),
    ("Explained variance of V", "value/explained_variance", "", "before each fit"),
    ("Standard deviation of actions", "policy/std", "", "of Gaussians, mean over dimensions"),
    ("Entropy, nats", "policy/entropy", "", "mean over states"),
)
_TIMES = (
    ("rollout", "time/rollout_seconds"),
    ("update", "time/update_seconds"),
    ("value fit", "time/value_fit_seconds"),
)


def curves(runs: Sequence[ReportedRun]) -> list[tuple[str, str, str]]:
    """Title, explanation and SVG of every panel that the runs have numbers for.

    Parameters
    ----------
    runs
        At least one; each has the colour of its place.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if matplotlib is not installed.
    """
    found = []
    for title, plain, dashed, note in _PANELS:
        if any(run.curve(plain)[0].size or (dashed and run.curve(dashed)[0].size) for run in runs):
            found.append((title, note, _svg(title, partial(_draw, runs, plain, dashed))))
    title = "Seconds of an iteration"
    note = "solid: rollout; dashed: policy update; dotted: value fit"
    found.append((title, note, _svg(title, partial(_draw_times, runs))))
    return found


def _draw(runs: Sequence[ReportedRun], plain: str, dashed: str, axis: Any) -> None:
    for place, run in enumerate(runs):
        colour = COLOURS[place % len(COLOURS)]
        if dashed == "eval/return":
            table = run.evaluation_table()
            if table:
                means = [float(returns.mean()) for _, returns, _ in table]
                axis.plot(
                    [steps for steps, _, _ in table], means, "o--", color=colour, ms=3, lw=0.8
                )
        elif dashed:
            axis.plot(*_thinned(*run.curve(dashed)), "--", color=colour, lw=0.9, alpha=0.7)
        axis.plot(*_thinned(*run.curve(plain)), color=colour, lw=1.3)
    if plain != "rollout/episode_return":
        _cut_outliers(axis, np.concatenate([run.curve(plain)[1] for run in runs]))


def _cut_outliers(axis: Any, values: Float64) -> None:
    """Leave single values far beyond all others out of the picture: they would flatten the rest."""
    if values.size < 20:
        return
    low, high = np.quantile(values, [0.01, 0.99])
    width = high - low
    if width > 0 and (values.max() > high + 2 * width or values.min() < low - 2 * width):
        axis.set_ylim(min(low - 0.3 * width, 0.0), high + 0.3 * width)
        note = "single values beyond are cut"
        axis.set_title(note, fontsize=8, color="#666666", loc="right")


def _draw_times(runs: Sequence[ReportedRun], axis: Any) -> None:
    for place, run in enumerate(runs):
        for (_, column), style in zip(_TIMES, ("-", "--", ":"), strict=True):
            steps, seconds = _thinned(*run.curve(column))
            known = seconds > 0
            colour = COLOURS[place % len(COLOURS)]
            axis.plot(steps[known], seconds[known], style, color=colour, lw=1.1)
    axis.set_yscale("log")


def _thinned(steps: Float64, values: Float64) -> tuple[Float64, Float64]:
    """At most some hundred points: means of equal stretches of rows."""
    width = -(-len(steps) // _POINTS)
    if width <= 1:
        return steps, values
    starts = np.arange(0, len(steps), width)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _svg(title: str, draw: Callable[[Any], None]) -> str:
    matplotlib = import_extra("matplotlib", what="A report", extra="plot")
    figure_class = import_extra("matplotlib.figure", what="A report", extra="plot").Figure
    ticker = import_extra("matplotlib.ticker", what="A report", extra="plot")
    # the salt makes ids of this panel, so that no two panels of a page share one
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = figure_class(figsize=(5.6, 3.0), layout="constrained")
        axis = figure.subplots()
        draw(axis)
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(6))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # the size is that of the page's column; names are of this panel alone
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}-\1"', text)
