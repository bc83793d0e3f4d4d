"""The commands that show runs: `plot` draws curves, `report` writes a page about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..run_folder import RunFolder
from .output import DONE, UsageError, say

Runs = Annotated[
    tyro.conf.Positional[tuple[str, ...]],
    tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Plot the learning curves of runs to a PNG file."""

    runs: Runs
    """Run folders; runs of one environment share a panel."""

    metric: Annotated[str, tyro.conf.arg(metavar="return|success_rate|KEY")] = "return"
    """What to draw: a metric of episodes, or a column of progress.csv such as policy/kl."""

    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "curves.png"
    """Picture to write."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML page about runs: curves, evaluations, refused updates, settings, the film."""

    runs: Runs
    """Run folders; several stand side by side."""

    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Page to write; without it, report.html, in the run folder where there is one run."""


def plot(command: Plot) -> int:
    """Write the learning curves of runs.

    Parameters
    ----------
    command
        The parsed command.
    """
    folders = _folders(command.runs, "plot")

    from ..plotting import plot_runs

    plot_runs(folders, Path(command.out), metric=command.metric)
    say(f"saved {command.out}")
    return DONE


def report(command: Report) -> int:
    """Write a page about runs.

    Parameters
    ----------
    command
        The parsed command.
    """
    folders = _folders(command.runs, "report")

    from ..report import write_report

    alone = folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    out = alone if command.out is None else Path(command.out)
    write_report(folders, out)
    say(f"saved {out}")
    return DONE


def _folders(runs: tuple[str, ...], command: str) -> list[Path]:
    if not runs:
        raise UsageError(f"{command}: expected at least one run folder, got none; name one")
    return [RunFolder.open(run).path for run in runs]
