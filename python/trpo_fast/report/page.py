"""The page: a template that is filled with what the runs tell."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from .._version import __version__
from ..logging import write_atomically
from .curves import COLOURS, curves
from .reading import ReportedRun, number, read_reported_run, settings_of

__all__ = ["write_report"]

_SHOWN = 30  # refused updates that a page lists


def write_report(
    run_folders: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> Path:
    """Write a page about runs; return its path.

    Parameters
    ----------
    run_folders
        Folders that ``trpo-fast train`` has made; several stand side by side.
    out
        The HTML file. Its folder is made if needed.

    Raises
    ------
    RunFolderError
        (a ``ValueError``) No folder is given, or one is none of a run.
    MissingExtraError
        (an ``ImportError``) if matplotlib is not installed.
    """
    runs = [read_reported_run(Path(folder)) for folder in run_folders]
    if not runs:
        raise ValueError("run_folders: expected at least one run folder, got none; name one")
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(target) as stream:
        stream.write(page(runs))
    return target


def page(runs: Sequence[ReportedRun]) -> str:
    """The HTML of a page.

    Parameters
    ----------
    runs
        At least one.
    """
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    environments = sorted({str(run.record["env"]) for run in runs})
    return template.substitute(
        title=escape(", ".join(environments)),
        version=escape(__version__),
        summary=_summary(runs),
        curves="\n".join(
            f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(note)}</span></figcaption>"
            f"{svg}</figure>"
            for title, note, svg in curves(runs)
        ),
        evaluations="\n".join(map(_evaluations, runs)),
        refused="\n".join(map(_refused, runs)),
        films="\n".join(_film(run) for run in runs if run.video or run.video_note),
        settings=_settings(runs),
        machine=_machine(runs),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first of a row is its name."""
    body = "\n".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    top = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _names(runs: Sequence[ReportedRun]) -> list[str]:
    return [
        f'<i style="background:{COLOURS[place % len(COLOURS)]}"></i>{escape(run.name)}'
        for place, run in enumerate(runs)
    ]


def _summary(runs: Sequence[ReportedRun]) -> str:
    def last(run: ReportedRun, name: str) -> str:
        values = run.curve(name)[1]
        return _text(float(values[-1])) if values.size else "–"

    def evaluation(run: ReportedRun, best: bool) -> str:
        table = run.evaluation_table()
        if not table:
            return "–"
        steps, returns, _ = max(table, key=lambda one: one[1].mean()) if best else table[-1]
        return f"{_mean(returns)} <small>at {steps:,}</small>"

    def kl(run: ReportedRun) -> str:
        ratio = run.column("policy/kl") / run.column("policy/max_kl")
        known = ratio[np.isfinite(ratio) & (ratio > 0)]
        if not known.size:
            return "–"
        return f"{np.median(known):.2f}, largest {known.max():.2f}"

    def refused(run: ReportedRun) -> str:
        count = len(run.refused())
        return f"{count} of {len(run.rows):,}"

    lines: dict[str, Callable[[ReportedRun], str]] = {
        "environment": lambda run: escape(str(run.record["env"])),
        "method": lambda run: escape(str(run.record.get("algorithm", "trpo"))),
        "seed": lambda run: escape(str(run.record["config"].get("seed", ""))),
        "environment steps": lambda run: f"{number(run.rows[-1].get('time/timesteps')):,.0f}",
        "updates": lambda run: f"{len(run.rows):,}",
        "refused": refused,
        "seconds": lambda run: last(run, "time/elapsed_seconds"),
        "steps per second, last": lambda run: last(run, "time/steps_per_second"),
        "training return, last 100 episodes": lambda run: last(run, "rollout/episode_return"),
        "success rate": lambda run: last(run, "rollout/success_rate"),
        "evaluation, last": lambda run: evaluation(run, best=False),
        "evaluation, best": lambda run: evaluation(run, best=True),
        "KL over its bound, median": kl,
        "explained variance, last": lambda run: last(run, "value/explained_variance"),
    }
    rows = [[name, *(cell(run) for run in runs)] for name, cell in lines.items()]
    return _table(["", *_names(runs)], [row for row in rows if set(row[1:]) != {"–"}])


def _evaluations(run: ReportedRun) -> str:
    table = run.evaluation_table()
    if not table:
        return f"<h3>{escape(run.name)}</h3><p>No evaluation was made.</p>"
    rows = [
        [
            f"{steps:,}",
            f"{len(returns)}",
            _mean(returns),
            f"{_text(returns.min())} to {_text(returns.max())}",
            _text(lengths.mean()),
        ]
        for steps, returns, lengths in table
    ]
    head = ["steps", "episodes", "return", "range", "length"]
    return _folded(run.name, _table(head, rows), len(table) > 12)


def _refused(run: ReportedRun) -> str:
    refused = run.refused()
    parts = []
    if not refused:
        parts.append("<p>Every update was accepted.</p>")
    else:
        reasons: dict[str, int] = {}
        for row in refused:
            reasons[row["policy/status"]] = reasons.get(row["policy/status"], 0) + 1
        told = ", ".join(f"{count} × {escape(reason)}" for reason, count in reasons.items())
        parts.append(f"<p>{len(refused)} of {len(run.rows):,} updates were refused: {told}.</p>")
        rows = [
            [
                escape(row.get("time/iteration", "")),
                escape(row.get("time/timesteps", "")),
                escape(row.get("policy/message", "")),
            ]
            for row in refused[:_SHOWN]
        ]
        parts.append(_table(["update", "steps", "why"], rows))
        if len(refused) > _SHOWN:
            parts.append(f"<p>The first {_SHOWN}; progress.csv has the rest.</p>")
    if notices := run.notices():
        items = "".join(f"<li>at {escape(at)}: {escape(text)}</li>" for at, text in notices)
        parts.append(f"<p>What the run said:</p><ul>{items}</ul>")
    return f"<h3>{escape(run.name)}</h3>" + "".join(parts)


def _film(run: ReportedRun) -> str:
    if run.video is None:
        return f"<h3>{escape(run.name)}</h3><p>{escape(run.video_note)}</p>"
    data = base64.b64encode(run.video).decode()
    return (
        f"<h3>{escape(run.name)}</h3>"
        f'<video controls muted loop src="data:video/mp4;base64,{data}"></video>'
    )


def _settings(runs: Sequence[ReportedRun]) -> str:
    columns = [settings_of(run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows, differing = [], []
    for name in names:
        values = [column.get(name, "–") for column in columns]
        row = [escape(name), *(f"<code>{escape(value)}</code>" for value in values)]
        rows.append(row)
        if len(set(values)) > 1:
            differing.append(row)
    head = ["", *_names(runs)]
    told = ""
    if len(runs) > 1:
        told = (
            f"<p>What differs:</p>{_table(head, differing)}"
            if differing
            else "<p>All settings are the same.</p>"
        )
    extra = [
        [escape(key), *(f"<code>{escape(str(run.record.get(key) or '–'))}</code>" for run in runs)]
        for key in ("env_kwargs", "wrapper", "env_factory", "preset", "best_by")
        if any(run.record.get(key) for run in runs)
    ]
    return (
        told + (_table(head, extra) if extra else "") + _folded("All settings", _table(head, rows))
    )


def _machine(runs: Sequence[ReportedRun]) -> str:
    facts = [
        {
            **run.record.get("machine", {}),
            "platform": run.record.get("platform", "–"),
            **run.record.get("versions", {}),
        }
        for run in runs
    ]
    names = list(dict.fromkeys(name for one in facts for name in one))
    rows = [[escape(n), *(escape(str(one.get(n, "–"))) for one in facts)] for n in names]
    return _table(["", *_names(runs)], rows)


def _folded(title: str, content: str, folded: bool = True) -> str:
    state = "" if folded else " open"
    return f"<details{state}><summary>{escape(title)}</summary>{content}</details>"


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    return f"{_text(values.mean())} ± {_text(values.std())}"


def _text(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
