"""Replace a file by a new one as a whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def file_to_replace(path: str | os.PathLike[str]) -> Path:
    """The file that a rename would replace: behind links, and nothing else than a file.

    Parameters
    ----------
    path
        Where a file is to be written.

    Returns
    -------
    pathlib.Path
        A file, or a place where nothing is.

    Raises
    ------
    ValueError
        If a folder, a pipe, a socket or a device stands there.
    """
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    if target.exists() and not target.is_file():
        raise ValueError(
            f"path: expected {target} to be a file or not to be there, got a folder, a pipe, a socket "
            "or a device; choose another path"
        )
    return target


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a temporary UTF-8 text file beside ``path``; rename it to ``path`` if all went well.

    Whoever reads ``path`` sees the old file or the new one, never a part, even after a crash.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        if the folder cannot be written; ``path`` is then unchanged.
    ValueError
        See `file_to_replace`.
    """
    path = file_to_replace(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
