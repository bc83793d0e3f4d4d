"""States of random generators from a file: every number in its range before NumPy sees it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..words import words_of
from .nodes import BIT_GENERATORS, SnapshotError

_MT_WORDS = 624  # of a Mersenne twister


def checked_state(kind: str, state: Any, path: str) -> Any:
    """The state of a generator, built anew from numbers that lie in their ranges.

    Parameters
    ----------
    kind
        "Generator", "RandomState" (of NumPy) or "Random" (of Python).
    state
        What the file holds.
    path
        How messages call it.

    Raises
    ------
    SnapshotError
        A number is missing or lies outside its range.
    """
    try:
        if kind == "Generator":
            return _bit_generator(state)
        if kind == "RandomState":
            name, key, position, has_gauss, gauss = state
            if name != "MT19937":
                raise ValueError(f"unknown bit generator {name!r:.40}")
            return (
                name,
                _words(key, _MT_WORDS, np.uint32),
                _integer(position, _MT_WORDS),
                _integer(has_gauss, 1),
                float(gauss),
            )
        version, words, gauss = state
        if type(words) is not tuple or len(words) != _MT_WORDS + 1:
            raise ValueError(f"expected {_MT_WORDS + 1} words")
        limits = [2**32 - 1] * _MT_WORDS + [_MT_WORDS]
        words = tuple(_integer(word, limit) for word, limit in zip(words, limits, strict=True))
        return _integer(version, 3), words, None if gauss is None else float(gauss)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise SnapshotError(
            f"{path}: the snapshot's random state does not fit ({words_of(error)})"
        ) from None


def _bit_generator(state: Any) -> dict[str, Any]:
    if type(state) is not dict or state.get("bit_generator") not in BIT_GENERATORS:
        raise ValueError("unknown bit generator")
    name, inner = state["bit_generator"], state["state"]
    if name == "MT19937":
        key = _words(inner["key"], _MT_WORDS, np.uint32)
        state = {"key": key, "pos": _integer(inner["pos"], _MT_WORDS)}
        return {"bit_generator": name, "state": state}
    half = {
        "has_uint32": _integer(state["has_uint32"], 1),
        "uinteger": _integer(state["uinteger"], 2**32 - 1),
    }
    if name == "SFC64":
        inner = {"state": _words(inner["state"], 4, np.uint64)}
    elif name == "Philox":
        inner = {
            "counter": _words(inner["counter"], 4, np.uint64),
            "key": _words(inner["key"], 2, np.uint64),
        }
        half["buffer"] = _words(state["buffer"], 4, np.uint64)
        half["buffer_pos"] = _integer(state["buffer_pos"], 4)
    else:
        inner = {part: _integer(inner[part], 2**128 - 1) for part in ("state", "inc")}
        if inner["inc"] % 2 == 0:
            raise ValueError("expected an odd increment")
    return {"bit_generator": name, "state": inner, **half}


def _integer(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"expected an integer, got {type(value).__name__}")
    if not 0 <= int(value) <= most:
        raise ValueError(f"expected an integer from 0 to {most}, got {value!r:.40}")
    return int(value)


def _words(value: Any, length: int, dtype: type) -> Any:
    if type(value) is not np.ndarray or value.shape != (length,) or value.dtype != dtype:
        raise ValueError(f"expected {length} words of {np.dtype(dtype).name}")
    return value.copy()
