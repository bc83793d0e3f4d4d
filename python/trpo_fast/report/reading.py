"""What the files of a run tell: settings, numbers of every update, evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..logging import read_rows
from ..run_folder import RunFolder, RunFolderError

__all__ = ["ReportedRun", "number", "read_reported_run", "settings_of"]

Float64 = NDArray[np.float64]
_LARGEST_VIDEO = 30_000_000  # bytes that a page takes in


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """One run, as its folder tells it."""

    name: str
    """Of the folder."""

    record: Mapping[str, Any]
    """``config.json``."""

    rows: list[dict[str, str]]
    """``progress.csv``, a dictionary a row, as text."""

    evaluations: list[dict[str, str]]
    """``evaluations.csv``, a dictionary an episode, as text; empty without evaluations."""

    video: bytes | None
    """``video.mp4``, where it is there and no larger than 30 MB."""

    video_note: str
    """Why a film that is there is not shown, or an empty text."""

    def column(self, name: str) -> Float64:
        """One column of the rows, (n,) float64, NaN where a row has no number.

        Parameters
        ----------
        name
            Such as "policy/kl".
        """
        return np.array([number(row.get(name)) for row in self.rows], np.float64)

    def curve(self, name: str) -> tuple[Float64, Float64]:
        """Timesteps and values of a column, where both are numbers.

        Parameters
        ----------
        name
            Such as "policy/kl".
        """
        steps, values = self.column("time/timesteps"), self.column(name)
        known = np.isfinite(steps) & np.isfinite(values)
        return steps[known], values[known]

    def evaluation_table(self) -> list[tuple[int, Float64, Float64]]:
        """Timesteps, returns and lengths of each evaluation, in the order of the timesteps."""
        found: dict[int, list[tuple[float, float]]] = {}
        for row in self.evaluations:
            steps = number(row.get("timesteps"))
            if math.isfinite(steps):
                values = number(row.get("return")), number(row.get("length"))
                found.setdefault(int(steps), []).append(values)
        return [
            (steps, np.array([r for r, _ in told]), np.array([n for _, n in told]))
            for steps, told in sorted(found.items())
        ]

    def refused(self) -> list[dict[str, str]]:
        """The rows whose update left the policy as it was."""
        return [row for row in self.rows if row.get("policy/status") not in ("accepted", "", None)]

    def notices(self) -> list[tuple[str, str]]:
        """(timesteps, sentence) of what the run had to say, each sentence once."""
        found: dict[str, str] = {}
        for row in self.rows:
            if sentence := row.get("run/notice"):
                found.setdefault(sentence, row.get("time/timesteps", ""))
        return [(steps, sentence) for sentence, steps in found.items()]


def number(text: object) -> float:
    """The number of a cell, or NaN.

    Parameters
    ----------
    text
        Of the cell; None where there is none.
    """
    try:
        return float(str(text))
    except ValueError:
        return math.nan


def read_reported_run(folder: Path) -> ReportedRun:
    """Read a run's files.

    Parameters
    ----------
    folder
        The folder.

    Raises
    ------
    RunFolderError
        It is none of a run, or no update has been made yet.
    """
    run = RunFolder.open(folder)
    record = run.read_record()
    rows = _rows(run.progress_file)
    if not rows:
        raise RunFolderError(
            f"run folder: expected an update in {run.shown(run.progress_file)}, got none; train longer"
        )
    film, note = run.path / "video.mp4", ""
    video = None
    if film.is_file():
        size = film.stat().st_size
        if size <= _LARGEST_VIDEO:
            video = film.read_bytes()
        else:
            note = f"video.mp4 of {size / 1e6:.0f} MB is left out; a page takes in 30 MB"
    return ReportedRun(
        name=run.path.resolve().name,
        record=record,
        rows=rows,
        evaluations=_rows(run.evaluations_file),
        video=video,
        video_note=note,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return read_rows(path)
    except FileNotFoundError:
        return []


def settings_of(run: ReportedRun) -> dict[str, str]:
    """Every setting of a run as JSON text, those of a group beside the others.

    Parameters
    ----------
    run
        The run.
    """
    flat: dict[str, Any] = {}
    for name, value in run.record["config"].items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return {name: json.dumps(value, ensure_ascii=False) for name, value in flat.items()}
