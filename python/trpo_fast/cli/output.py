"""What the commands say, to whom, and with which exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, TextIO

from .._version import __version__
from ..words import words_of
from .streams import write_line

_results: TextIO | None = None  # standard output, while environments must not have it

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# libraries whose versions a run's config.json and a bug report name
_LIBRARIES = ("numpy", "gymnasium", "safetensors", "tyro", "mujoco", "ale-py", "tensorboard")


class UsageError(ValueError):
    """Flags that contradict each other or miss a value."""


def say(text: str) -> None:
    """Print a line of the result to standard output.

    Parameters
    ----------
    text
        What to print, without the end of the line.
    """
    write_line(text, _results or sys.stdout)


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """While entered, standard output is for `say` alone: what environments print goes to stderr.

    In Python and below it: their C libraries and child processes write to the descriptor.
    """
    global _results
    if sys.stdout is None or sys.stderr is None:
        yield
        return
    stream = sys.stdout
    sys.stdout.flush()
    with contextlib.ExitStack() as undo:
        try:
            is_ours = stream.fileno() == 1
        except (OSError, ValueError):  # a stream in memory has no descriptor
            is_ours = False
        if is_ours:
            kept = os.dup(1)
            undo.callback(os.close, kept)
            os.dup2(2, 1)
            undo.callback(os.dup2, kept, 1)
            own = open(  # noqa: SIM115  (closed behind what it has written)
                kept, "w", encoding=stream.encoding, errors=stream.errors, closefd=False
            )
            undo.callback(own.close)
            stream = own
        undo.callback(setattr, sys, "stdout", sys.stdout)
        sys.stdout, _results = sys.stderr, stream
        undo.callback(_results_are_over)
        yield


def _results_are_over() -> None:
    global _results
    _results = None


def say_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values as two columns; a list is printed on one line.

    Parameters
    ----------
    facts
        Values by name, in the order to print them in.
    """
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        say(f"{name:<{width}}  {text}")


def fail(problem: object, status: int) -> int:
    """Print one sentence to standard error, and return the exit status.

    Parameters
    ----------
    problem
        A sentence or an exception. With `TRPO_FAST_DEBUG=1` in the environment the traceback of an
        exception is printed before its sentence.
    status
        The exit status.
    """
    if os.environ.get("TRPO_FAST_DEBUG") == "1" and isinstance(problem, Exception):
        traceback.print_exception(problem)
    if isinstance(problem, BaseException):
        sentence = words_of(problem, 4000)
        if not sentence:
            from ..envs.errors import error_sentence

            sentence = error_sentence(problem)
    else:
        sentence = " ".join(str(problem).split())
    write_line(f"trpo-fast: {sentence}", sys.stderr)
    return status


def version() -> str:
    """Return the version of the package."""
    return __version__


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed, by name."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
