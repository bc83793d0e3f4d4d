"""Standard streams as they may be: closed, without Unicode, or with nobody who reads them."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import TextIO

_ASCII = {
    "±": "+-", "·": "-", "…": "...", "→": "->", "‖": "||", "≥": ">=", "≤": "<=", "×": "x",
    "│": "|", "─": "-", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "├": "+", "┤": "+",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "λ": "lambda", "θ": "theta",
    "π": "pi", "ε": "epsilon", "σ": "sigma", "“": '"', "”": '"', "‘": "'", "’": "'", "–": "-",
}  # fmt: skip


def prepare_streams() -> None:
    """Make the standard streams of this process usable, whatever they are.

    A closed one becomes the null device: otherwise the next file or socket that is opened would get
    its number, and what is printed would go there. Characters that the encoding of a stream lacks
    are written by others that look alike.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    codecs.register_error("trpo_fast", _alike)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="trpo_fast")


def write_line(text: str, stream: TextIO) -> None:
    """Write a line; if nobody reads the stream any more, this and all that follows is dropped.

    Parameters
    ----------
    text
        The line without its end.
    stream
        `sys.stdout` or `sys.stderr`.
    """
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        drop(stream)


def drop(stream: TextIO) -> None:
    """Have all that is written to a stream from now on go to the null device.

    Parameters
    ----------
    stream
        The stream.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _alike(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    written = []
    for character in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        written.append(_ASCII.get(character, plain or "?"))
    return "".join(written), error.end
