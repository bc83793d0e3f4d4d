"""The command line, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from trpo_fast import cli

TINY = [
    "--n-envs", "4", "--n-workers", "0", "--batch-size", "512", "--value-epochs", "2",
    "--hidden-sizes", "16",
]  # fmt: skip

# wide enough that no line is broken, and no traceback
_SETTINGS = {"PYTHONUTF8": "1", "COLUMNS": "100", "TRPO_FAST_DEBUG": ""}


def trpo_fast(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: what it prints, and its exit status."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        mock.patch.dict(os.environ, _SETTINGS),
        _working_in(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # of the parser: help, or wrong usage
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, _written(out), _written(errors))


def trpo_fast_process(
    *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trpo_fast", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **_SETTINGS},
        cwd=cwd,
        timeout=300,
        check=False,
    )


def _written(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _working_in(folder: Path | None) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(before if folder is None else folder)
    try:
        yield
    finally:
        os.chdir(before)


def assert_error(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
