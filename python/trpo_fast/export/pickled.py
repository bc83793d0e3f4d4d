"""Pickles of plain data, written by hand: no object is pickled, and nothing has to be imported.

A pickle names what it is made of. The ones that this package writes name classes of PyTorch, NumPy,
Gymnasium and Stable-Baselines3 that a reader has anyway, and numbers, text and arrays for them; there
is no code in them, and none of these packages is needed to write them.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Call", "Name", "array_call", "pickle_of", "torch_file", "zip_bytes"]


@dataclass(frozen=True)
class Name:
    """A class or function of another package, by name."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A class or function called, and items that the result is given."""

    function: Name
    arguments: tuple[Any, ...] = ()
    items: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outside:
    """What stands beside the pickle, by an identifier."""

    identifier: tuple[Any, ...]


def pickle_of(value: Any) -> bytes:
    """A pickle, protocol 2.

    Parameters
    ----------
    value
        None, bool, int, float, str, tuple, list, dict, :class:`Name` or :class:`Call` of such.
    """
    return b"\x80\x02" + _written(value) + b"."


def _written(value: Any) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_written, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_written, value)) + b"e"
    if isinstance(value, dict):
        return b"}" + _items(value)
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        made = _written(value.function) + _written(value.arguments) + b"R"
        return made + (_items(value.items) if value.items else b"")
    assert isinstance(value, _Outside), value
    return _written(value.identifier) + b"Q"


def _items(items: Mapping[Any, Any]) -> bytes:
    return b"(" + b"".join(_written(k) + _written(v) for k, v in items.items()) + b"u"


def array_call(array: NDArray[Any]) -> Call:
    """An array of numbers as a call of ``numpy.array`` on a list.

    Parameters
    ----------
    array
        Integers or reals.
    """
    return Call(Name("numpy", "array"), (array.tolist(), array.dtype.name))


_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage"}


def torch_file(value: Any) -> bytes:
    """What ``torch.save`` writes, for ``torch.load(..., weights_only=True)``.

    Parameters
    ----------
    value
        As of :func:`pickle_of`; arrays of reals in a dictionary become tensors.
    """
    storages: list[bytes] = []

    def tensor(array: NDArray[Any]) -> Call:
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        storage = ("storage", Name("torch", _STORAGES[array.dtype.name]), str(len(storages)), "cpu")
        storages.append(data.tobytes())
        strides = tuple(s // array.itemsize for s in np.empty(array.shape, array.dtype).strides)
        return Call(
            Name("torch._utils", "_rebuild_tensor_v2"),
            (
                _Outside((*storage, int(array.size))),
                0,
                tuple(int(n) for n in array.shape),
                strides,
                False,
                Call(Name("collections", "OrderedDict")),
            ),
        )

    if any(isinstance(v, np.ndarray) for v in value.values()):
        items = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in value.items()}
        value = Call(Name("collections", "OrderedDict"), (), items)
    members = {"archive/data.pkl": pickle_of(value), "archive/byteorder": b"little"}
    members |= {f"archive/data/{i}": data for i, data in enumerate(storages)}
    return zip_bytes({**members, "archive/version": b"3\n"})


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """A zip of these members, uncompressed, the same bytes every time.

    Parameters
    ----------
    members
        Contents by name.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()
