"""Spaces as plain data: what encoding and decoding need to know of them, without Gymnasium.

A Gymnasium space becomes one of these classes by :func:`plain_space`, what a checkpoint says of a
space by :func:`described_space`. Names and attributes are Gymnasium's.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

_INT64: np.dtype[Any] = np.dtype(np.int64)
_INT8: np.dtype[Any] = np.dtype(np.int8)
_LARGEST_SIZE = 2**31 - 1
_NUMERIC = "fiub"  # kinds of dtype: floating point, signed and unsigned integers, booleans


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays of one shape and dtype; the bounds are None where nothing needs them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: Array | None = None
    high: Array | None = None

    def __str__(self) -> str:
        return f"Box({self.shape}, {self.dtype})"


@dataclass(frozen=True, eq=False)
class Discrete:
    """The integers start, ..., start + n - 1."""

    n: int
    start: int = 0
    dtype: np.dtype[Any] = _INT64
    shape: tuple[()] = ()

    def __str__(self) -> str:
        return f"Discrete({self.n})" if self.start == 0 else f"Discrete({self.n}, {self.start})"


@dataclass(frozen=True, eq=False)
class MultiDiscrete:
    """Arrays of integers: entry k is one of start[k], ..., start[k] + nvec[k] - 1."""

    nvec: Array
    start: Array
    dtype: np.dtype[Any] = _INT64

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``nvec``, which is that of an element."""
        return self.nvec.shape

    def __str__(self) -> str:
        return f"MultiDiscrete({self.nvec.tolist()})"


@dataclass(frozen=True, eq=False)
class MultiBinary:
    """Arrays of zeros and ones."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] = _INT8

    def __str__(self) -> str:
        return f"MultiBinary({self.shape})"


@dataclass(frozen=True, eq=False)
class Dict:
    """Dictionaries with one part for each key; the order of the keys is that of the parts in a row."""

    spaces: Mapping[Any, Any]

    def __str__(self) -> str:
        return "Dict(" + ", ".join(f"{key!r}: {part}" for key, part in self.spaces.items()) + ")"


@dataclass(frozen=True, eq=False)
class Tuple:
    """Tuples of parts."""

    spaces: tuple[Any, ...]

    def __str__(self) -> str:
        return "Tuple(" + ", ".join(map(str, self.spaces)) + ")"


PlainSpace: TypeAlias = Box | Discrete | MultiDiscrete | MultiBinary | Dict | Tuple


def plain_space(space: Any) -> Any:
    """Return a space as one of the classes of this module.

    Parameters
    ----------
    space
        A Gymnasium space, or one of this module, which is returned as it is.

    Returns
    -------
    PlainSpace or object
        A space that no class stands for is returned as it is, also where it is a part.
    """
    # whoever has a Gymnasium space has imported Gymnasium
    if isinstance(space, PlainSpace) or "gymnasium" not in sys.modules:
        return space
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return Box(tuple(space.shape), np.dtype(space.dtype), space.low, space.high)
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start), np.dtype(space.dtype))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscrete(np.asarray(space.nvec), np.asarray(space.start), np.dtype(space.dtype))
    if isinstance(space, spaces.MultiBinary):
        return MultiBinary(tuple(space.shape), np.dtype(space.dtype))
    if isinstance(space, spaces.Dict):
        return Dict({key: plain_space(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return Tuple(tuple(plain_space(part) for part in space.spaces))
    return space


def described_space(description: Any) -> PlainSpace:
    """Return the space that one entry of `describe_spaces` describes.

    Parameters
    ----------
    description
        What `describe_spaces` gave under "observation" or "action", possibly read from a file.

    Returns
    -------
    PlainSpace
        Box bounds are None where the description has none.

    Raises
    ------
    ValueError
        If the description is not one that `describe_spaces` makes.
    """
    try:
        return _described(description)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"space: expected a description that a checkpoint holds, got {reprlib.repr(description):.80} "
            f"({type(error).__name__}: {error!s:.80}); was the file written by trpo_fast?"
        ) from error


def _described(d: Any) -> PlainSpace:
    if not isinstance(d, Mapping):
        raise TypeError("expected a dictionary")
    # by its entries and not by its type, which is the name of the class: it may be a subclass
    if "spaces" in d:
        parts = [(str(key), _described(part)) for key, part in d["spaces"]]
        keys = [key for key, _ in parts]
        if d["type"] == "Tuple":
            return Tuple(tuple(part for _, part in parts))
        if len(set(keys)) != len(keys):
            raise ValueError("expected every key once")
        return Dict(dict(parts))
    if "n" in d:
        return Discrete(_size(d["n"]), _integer(d["start"]), _dtype(d.get("dtype", "int64")))
    shape = tuple(_size(n) for n in d["shape"])
    if "nvec" in d:
        nvec = np.array([_size(n) for n in d["nvec"]], np.int64).reshape(shape)
        start = np.array([_integer(n) for n in d["start"]], np.int64).reshape(shape)
        return MultiDiscrete(nvec, start, _dtype(d.get("dtype", "int64")))
    # MultiBinary has a dtype only where it is not int8, and then says its type
    if d["type"] == "MultiBinary" or "dtype" not in d:
        return MultiBinary(shape, _dtype(d.get("dtype", "int8")))
    dtype = _dtype(d["dtype"])
    if "low" not in d:
        return Box(shape, dtype)
    low, high = (
        np.array([_bound(x) for x in d[name]], np.float64).astype(dtype).reshape(shape)
        for name in ("low", "high")
    )
    return Box(shape, dtype, low, high)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise ValueError(f"expected an integer, got {value!r:.40}")
    return value


def _size(value: Any) -> int:
    if not 0 <= _integer(value) <= _LARGEST_SIZE:
        raise ValueError(f"expected a size, got {value!r:.40}")
    return int(value)


def _bound(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"expected a bound, got {value!r:.40}")
    return float(value)


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in _NUMERIC:
        raise ValueError(f"expected a numeric dtype, got {name!r:.40}")
    return dtype
