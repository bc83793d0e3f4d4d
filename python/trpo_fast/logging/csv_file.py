"""Records as rows of a CSV file that can be continued after an interruption."""

from __future__ import annotations

import csv
import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from ._atomic import write_atomically
from .base import Record, Scalar, ScalarFilter


class CsvLogger:
    """Append records to a CSV file, one line each, flushed at once.

    The header is the keys of the first record. A key that appears later becomes a further column:
    the file is rewritten and replaced as a whole, with empty cells in the older rows. Floats are
    written with as many digits as restore them exactly.

    Parameters
    ----------
    path
        The file. Its folder is made if needed.
    resume_timesteps
        None starts a new file. A number continues an existing file after that many environment
        steps: rows beyond it are dropped, and so is a last line that an interruption cut short,
        so that the log goes on without gaps and without repeated rows.
    step_key
        The column that counts environment steps.

    Raises
    ------
    FileExistsError
        if the file exists and ``resume_timesteps`` is None.
    ValueError
        if the file to be continued has no such column or a row that is no number there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_timesteps: int | None = None,
        step_key: str = "time/timesteps",
    ) -> None:
        self.path = Path(path).absolute()
        self.step_key = step_key
        self._filter = ScalarFilter("CsvLogger")
        self._columns: list[str] = []
        self._stream: TextIO | None = None
        self._closed = False
        if self.path.exists() and self.path.stat().st_size > 0:
            if resume_timesteps is None:
                raise FileExistsError(
                    f"{self.path}: expected no such file yet, got one with "
                    f"{self.path.stat().st_size:,} bytes; choose another folder, or continue it "
                    "with resume_timesteps=<steps already taken>"
                )
            self._keep_until(resume_timesteps)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Append one row and flush it.

        Parameters
        ----------
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.

        Raises
        ------
        ValueError
            if the logger is closed.
        """
        if self._closed:
            raise ValueError(f"{self.path}: expected an open log, got one that has been closed")
        record = self._filter(record)
        new_columns = [key for key in record if key not in self._columns]
        if new_columns:
            self._extend(new_columns)
        if self._stream is None:
            self._stream = self.path.open("a", encoding="utf-8", newline="")
        self._stream.write(_line(_cell(record.get(key, "")) for key in self._columns))
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        self._close_stream()

    def _keep_until(self, timesteps: int) -> None:
        rows = read_rows(self.path)
        self._columns = _header(self.path)
        if self._columns and self.step_key not in self._columns:
            raise ValueError(
                f"{self.path}: expected a column {self.step_key!r}, got {self._columns}; "
                "is this the log of a run?"
            )
        kept = [row for row in rows if self._steps(row) <= timesteps]
        self._rewrite(kept)

    def _steps(self, row: dict[str, str]) -> float:
        try:
            return float(row[self.step_key])
        except ValueError:
            raise ValueError(
                f"{self.path}: expected numbers in column {self.step_key!r}, "
                f"got {row[self.step_key]!r}; repair that row or remove it"
            ) from None

    def _extend(self, new_columns: list[str]) -> None:
        rows = read_rows(self.path) if self._columns else []
        self._columns = [*self._columns, *new_columns]
        self._rewrite(rows)

    def _rewrite(self, rows: Iterable[dict[str, str]]) -> None:
        self._close_stream()
        with write_atomically(self.path) as stream:
            stream.write(_line(self._columns))
            stream.writelines(_line(row.get(key, "") for key in self._columns) for row in rows)

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a CSV file as text; a last line that was cut short is left out.

    Parameters
    ----------
    path
        The CSV file.

    Raises
    ------
    OSError
        if the file cannot be read.
    """
    lines = _whole_lines(path)
    header, *body = list(csv.reader(lines)) or [[]]
    return [dict(zip(header, row, strict=True)) for row in body if len(row) == len(header)]


def read_columns(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Columns of a CSV file as numbers; empty and non-numeric cells become NaN.

    All columns have the same length, the number of rows.

    Parameters
    ----------
    path
        The CSV file.

    Raises
    ------
    OSError
        if the file cannot be read.
    """
    rows = read_rows(path)
    return {key: [_number(row[key]) for row in rows] for key in _header(path)}


def _header(path: str | os.PathLike[str]) -> list[str]:
    lines = _whole_lines(path)
    return next(csv.reader(lines[:1]), [])


def _whole_lines(path: str | os.PathLike[str]) -> list[str]:
    with open(path, encoding="utf-8", newline="") as stream:
        return [line for line in stream if line.endswith("\n")]


def _line(cells: Iterable[str]) -> str:
    # One row is one line, so that a line without its end is known to be cut short.
    return ",".join(_quote(" ".join(cell.splitlines())) for cell in cells) + "\n"


def _quote(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"') else cell


def _cell(value: Scalar) -> str:
    if isinstance(value, str):
        return value
    try:
        return str(int(operator.index(value)))  # type: ignore[arg-type]
    except TypeError:  # no integer, so a float, of Python or of NumPy
        return repr(float(value))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
