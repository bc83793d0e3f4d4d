"""Arguments for the fuzzer of the core: numbers, layouts and values of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator


# ---- numbers


def usual(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape)


def extreme(rng: Rng, array: Array) -> Array:
    """The same shape, with numbers that nobody expects."""
    values = np.array(array, np.float64)
    flat = values.reshape(-1)
    some = rng.random(flat.size) < rng.choice((0.02, 0.3, 1.0))
    match rng.integers(9):
        case 0:
            flat[some] = np.nan
        case 1:
            flat[some] = rng.choice((np.inf, -np.inf))
        case 2:
            flat[some] = rng.choice((np.nan, np.inf, -np.inf), int(some.sum()))
        case 3:
            flat[some] *= 10.0 ** rng.uniform(-320, 307)
        case 4:
            flat[some] *= 10.0 ** rng.uniform(-45, 38)
        case 5:
            flat[some] = 5e-324
        case 6:
            flat[:] = 0.0
        case 7:
            flat[:] = rng.choice((1.0, -1e4, 1e30, np.finfo(np.float32).max, np.finfo(float).max))
        case _:
            flat[some] = -flat[some] * 1e4
    return values


# ---- layouts: the same numbers, stored otherwise


def other_layout(rng: Rng, array: Array) -> Any:
    """The numbers of `array`, perhaps rounded to another type, in another layout or container."""
    kinds = {"f": ("f8", "f4", "f2", ">f8", "g"), "i": ("i8", "i4", "u4", ">i4"), "b": ("?", "u1")}
    choices = kinds["i" if array.dtype.kind in "iu" else array.dtype.kind]
    if array.dtype.kind in "iu":  # those that hold the numbers
        limits = int(array.min(initial=0)), int(array.max(initial=0))
        choices = tuple(
            c for c in choices if np.iinfo(c).min <= limits[0] and limits[1] <= np.iinfo(c).max
        )
    with np.errstate(all="ignore"):
        array = array.astype(rng.choice(choices))
    match rng.integers(9):
        case 0:
            return np.asfortranarray(array)
        case 1:  # every second element of something larger
            larger = np.zeros([2 * n for n in array.shape], array.dtype)
            larger[tuple(slice(None, None, 2) for _ in array.shape)] = array
            return larger[tuple(slice(None, None, 2) for _ in array.shape)]
        case 2:  # negative strides
            back = tuple(slice(None, None, -1) for _ in array.shape)
            return np.ascontiguousarray(array[back])[back]
        case 3:  # at an odd address
            memory = np.zeros(array.nbytes + 1, np.uint8)
            odd = memory[1:].view(array.dtype).reshape(array.shape) if array.size else array
            if array.size:
                odd[...] = array
            return odd
        case 4:
            return array.tolist() if array.dtype.char != "g" else array
        case 5:
            frozen = array.copy()
            frozen.flags.writeable = False
            return frozen
        case 6:
            return np.broadcast_to(array, (3, *array.shape))[1]
        case 7:
            return memoryview(array.astype("f8")) if array.dtype.kind == "f" else array
        case _:
            return array


def wrong_value(rng: Rng, array: Array) -> Any:
    """Something that cannot be meant where `array` is expected."""
    shape, dtype = array.shape, array.dtype
    longer = np.zeros((*shape[:-1], shape[-1] + 1), dtype)
    choices: list[Any] = [
        longer,
        array[None],
        array[..., None],
        np.zeros((*shape, 2), dtype),
        array.reshape(-1)[: array.size - 1] if array.size > 1 else array[None, None],
        array[..., :0],
        array.astype(complex),
        array.astype(object),
        array.astype(str),
        array.astype("M8[s]") if dtype.kind in "iu" else array.astype("f8").view("V8"),
        np.zeros(shape, [("a", "f8")]),
        "text",
        b"bytes",
        None,
        {},
        {"a": 1},
        object(),
        [[1.0], [1.0, 2.0]],
        1.5j,
        lambda: None,
        float("nan"),
        np.zeros((0,) * (array.ndim + 1)),
        [None] * len(array),
    ]
    return choices[rng.integers(len(choices))]


ODD_OPTIONS = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), 0.0, -0.0, 0.5,
    1.0, 1.5, 1e-300, 5e-324, 1e300, -1e300, float("nan"), float("inf"), -float("inf"), "", "x",
    b"x", [], (1,), {}, 1j, object(), np.float32(0.5), np.float64("nan"), np.int8(3), np.uint64(7),
    np.array(1.0), np.array([1, 2]), "gaussian",
)  # fmt: skip
