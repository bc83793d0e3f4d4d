"""Checks of arguments: each returns the value as the compiled core needs it, or raises.

An error is a ``ValueError`` or a ``TypeError`` of one sentence, which names the argument, what was
expected and what was given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Float = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]


def rectangular(name: str, value: ArrayLike) -> NDArray[Any]:
    """The value as an array; an error if it is ragged.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a rectangular array of numbers ({error}).") from None


def numeric_array(name: str, value: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """C-contiguous array of ``dtype``; an error if the value is not numeric.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    dtype
        What the core works in.
    """
    array = rectangular(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype}.")
    if array.dtype == dtype:
        return np.asarray(array, order="C")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite
        return np.asarray(array, dtype=dtype, order="C")


def borrowed(
    name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...], *, writeable: bool
) -> NDArray[Any]:
    """An array that the core reads or writes in place, so that nothing may be converted.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    array
        What was given.
    dtype
        What it must have.
    shape
        What it must have; None fits any length.
    writeable
        Whether the core writes to it.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name}: expected a NumPy array to work on in place, got {type(array).__name__}."
        )
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}.")
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        text = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({text}), got {array.shape}.")
    if not array.flags.c_contiguous or (writeable and not array.flags.writeable):
        raise ValueError(
            f"{name}: expected a C-contiguous{' writeable' if writeable else ''} array, because it "
            "is used in place; pass np.ascontiguousarray(...) and keep that array."
        )
    return array


def coordinates(name: str, value: ArrayLike, dtype: DTypeLike, n: int) -> NDArray[Any]:
    """(n,) non-negative integers, refused rather than wrapped around.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    dtype
        An unsigned integer dtype.
    n
        How many.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == (n,):
        return np.ascontiguousarray(value)  # nothing to convert: the usual case
    array = rectangular(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}.")
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), got {array.shape}.")
    if n and (int(array.min()) < 0 or int(array.max()) > np.iinfo(dtype).max):
        raise ValueError(
            f"{name}: expected integers between 0 and {np.iinfo(dtype).max}, "
            f"got {array.min()} to {array.max()}."
        )
    return np.asarray(array, dtype=dtype, order="C")


def entry(owner: str, state: Any, key: str) -> Any:
    """One entry of a state that was given; an error if there is none.

    Parameters
    ----------
    owner
        What the sentence calls the state.
    state
        What was given for a dictionary.
    key
        Name of the entry.
    """
    try:
        return state[key]
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{owner}: expected an entry {key!r}, got none.") from None


def shaped(name: str, value: ArrayLike, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """C-contiguous array of this dtype and shape.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    dtype
        What the core works in.
    shape
        What it must have.
    """
    array = numeric_array(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}.")
    return array


def flags(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Booleans as bytes, 0 or 1.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    shape
        What it must have.
    """
    array = rectangular(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of booleans, got dtype {array.dtype}.")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}.")
    return np.ascontiguousarray(array != 0).astype(np.uint8)


def finite(name: str, value: float, low: float, high: float, text: str) -> float:
    """A finite number within limits.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    low, high
        Limits, both allowed.
    text
        The limits in words.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}.")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name}: expected {text}, got {value}.")
    return number


def integer(name: str, value: int, low: int, high: int = 2**63 - 1) -> int:
    """An integer within limits.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    low, high
        Limits, both allowed.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}.")
    if not low <= int(value) <= high:
        limit = f"at least {low}" if high >= 2**63 - 1 else f"between {low} and {high}"
        raise ValueError(f"{name}: expected an integer of {limit}, got {value}.")
    return int(value)


def integers(name: str, values: Any) -> tuple[int, ...]:
    """Integers in [1, 2**20].

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    values
        What was given.
    """
    try:
        items = None if isinstance(values, (str, bytes)) else tuple(values)
    except TypeError:  # a number, or an array without dimensions
        items = None
    if items is None:
        raise TypeError(f"{name}: expected a sequence of integers, got {type(values).__name__}.")
    return tuple(integer(name, n, 1, 2**20) for n in items)


def boolean(name: str, value: bool) -> bool:
    """True or False; numbers do not count.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}.")
    return bool(value)


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless the value is one of the choices.

    Parameters
    ----------
    name
        What the sentence of an error calls the argument.
    value
        What was given.
    choices
        All that are known.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def seed_number(value: int) -> int:
    """A seed in [0, 2**64).

    Parameters
    ----------
    value
        What was given.
    """
    return integer("seed", value, 0, 2**64 - 1)


def stream_numbers(seed: int, env: int, step: int) -> tuple[int, int, int]:
    """The three numbers that name a random stream.

    Parameters
    ----------
    seed
        In [0, 2**64).
    env
        In [0, 2**32).
    step
        In [0, 2**64).
    """
    return (
        seed_number(seed),
        integer("env", env, 0, 2**32 - 1),
        integer("step", step, 0, 2**64 - 1),
    )


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype float32 or float64.

    Parameters
    ----------
    dtype
        Anything that NumPy takes for a dtype.
    """
    try:
        resolved = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}.") from None
    if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype: expected float32 or float64, got {resolved}.")
    return resolved
