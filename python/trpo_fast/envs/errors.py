"""What can be wrong with an environment: exceptions that name it, and where it went wrong."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..words import words_of

_NUMERIC = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
_PACKAGE = Path(__file__).resolve().parent.parent


class EnvironmentFailure(RuntimeError):
    """An environment raised, or broke the Gymnasium interface; `__cause__` holds the original."""


class ObservationError(ValueError):
    """An observation that does not belong to the observation space."""


def is_of_old_gym(value: object) -> bool:
    """Return whether an object's class, or one of its bases, is of `gym`, Gymnasium's forerunner.

    Parameters
    ----------
    value
        Any object.
    """
    return any(base.__module__.partition(".")[0] == "gym" for base in type(value).__mro__)


def error_sentence(error: BaseException) -> str:
    """Say what an environment's code raised, and where in it.

    Parameters
    ----------
    error
        The exception, with its traceback.

    Returns
    -------
    str
        Such as ``KeyError: 'goal' (plant.py, line 12, in step)``.
    """
    text = words_of(error, 1000)
    place = place_of(error)
    return f"{type(error).__name__}{f': {text}' if text else ''}{f' ({place})' if place else ''}"


def place_of(error: BaseException) -> str:
    """Return where an exception came up: the last line of a user's file, or else of a library.

    Parameters
    ----------
    error
        The exception, with its traceback.

    Returns
    -------
    str
        Such as ``plant.py, line 12, in step``; empty if only this package is on the way.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_of_a_library(frame.filename)]
    frame = (own or frames)[-1]
    return f"{_short(frame.filename)}, line {frame.lineno}, in {frame.name}"


def is_of_users_code(error: BaseException) -> bool:
    """Return whether an exception passed through code that is neither ours nor a library's.

    Parameters
    ----------
    error
        The exception, with its traceback.
    """
    return any(
        not _is_ours(f.filename) and not _is_of_a_library(f.filename)
        for f in traceback.extract_tb(error.__traceback__)
    )


def unsupported_space(kind: str, space: Any, supported: str) -> TypeError:
    """Return the error about a space that no policy can read or act in.

    Parameters
    ----------
    kind
        "observation" or "action".
    space
        The whole space.
    supported
        The spaces that are supported, as words.
    """
    wrapper = f"gymnasium.{kind.capitalize()}Wrapper"
    remedy = f"Wrap the environment ({wrapper}) so that its {kind} space is one of these"
    leaves = list(_leaves(space, ""))
    old = next((leaf for _, leaf in leaves if is_of_old_gym(leaf)), None)
    others = [(name, leaf) for name, leaf in leaves if type(leaf).__name__ not in _NUMERIC]
    if old is not None:
        remedy = (
            f"It is a space of the old gym: make it of gymnasium.spaces.{type(old).__name__}, or "
            "wrap the environment with shimmy"
        )
    elif kind == "observation" and others:
        name, leaf = others[0]
        which = f"Its part {name}" if name else "It"
        what = "a text" if type(leaf).__name__ == "Text" else f"of type {type(leaf).__name__}"
        remedy = (
            f"{which} is {what}: wrap the environment so that it is left out or encoded "
            "(gymnasium.wrappers.FilterObservation; of MiniGrid, minigrid.wrappers.FlatObsWrapper "
            "or ImgObsWrapper)"
        )
    return TypeError(f"{kind} space: {space} is not supported; expected {supported}. {remedy}")


def _leaves(space: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a space that have none themselves, with the way to them."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        for key, part in parts.items():
            yield from _leaves(part, f"{name}[{key!r}]")
    elif isinstance(parts, (tuple, list)):
        for k, part in enumerate(parts):
            yield from _leaves(part, f"{name}[{k}]")
    else:
        yield name, space


def _is_ours(file: str) -> bool:
    return Path(file).is_absolute() and _PACKAGE in Path(file).resolve().parents


def _is_of_a_library(file: str) -> bool:
    if file.startswith("<frozen"):
        return True
    import sysconfig

    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return "site-packages" in file or any(file.startswith(f + os.sep) for f in folders)


def _short(file: str) -> str:
    """Return a path relative to the working folder where it lies in it."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
