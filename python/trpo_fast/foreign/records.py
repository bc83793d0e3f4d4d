"""Pickled data read without running it: every object of a file becomes an inert record.

A pickle is a program that calls what it names. Here nothing that it names is looked up: each name
becomes a :class:`Record` class of its own, and calling it, giving it a state, or putting items into it
only writes down what was given. The arrays of NumPy and the tensors of PyTorch are then rebuilt from
what stands in the records.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ForeignFileError", "Record", "array_of", "read_records", "typed_array"]

_KINDS = "fiub"  # dtypes that are plain numbers
_LARGEST = 2**31  # bytes of one array


class ForeignFileError(ValueError):
    """A file of another library that cannot be read; the message is one sentence."""


class Record:
    """What a file says of one object: the name of its class, arguments, state and items.

    Parameters
    ----------
    *arguments, **keywords
        What the file would have called the class with.
    """

    name = ""
    """The dotted name that the file gave."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    state: Any
    items: dict[Any, Any]
    entries: list[Any]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments = arguments
        self.keywords = keywords

    def __new__(cls, *_: Any, **__: Any) -> Record:
        """Make one that nothing is known of yet; a pickle may leave ``__init__`` out."""
        self = super().__new__(cls)
        self.arguments, self.keywords = (), {}
        self.state, self.items, self.entries = None, {}, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Write down one entry.

        Parameters
        ----------
        value
            The entry.
        """
        self.entries.append(value)

    def extend(self, values: Any) -> None:
        """Write down several entries.

        Parameters
        ----------
        values
            The entries.
        """
        self.entries.extend(values)


class _Reader(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(stream)
        self._persistent = persistent
        self._classes: dict[str, type[Record]] = {}

    def find_class(self, module_name: str, global_name: str) -> type[Record]:
        """A class of records for a name; nothing is imported."""
        name = f"{module_name}.{global_name}"
        if name not in self._classes:
            self._classes[name] = type("NamedRecord", (Record,), {"name": name})
        return self._classes[name]

    def persistent_load(self, pid: Any) -> Any:
        """What stands outside of the pickle."""
        if self._persistent is None:
            raise ForeignFileError("expected a pickle that is complete, got a reference out of it")
        return self._persistent(pid)


def read_records(data: bytes, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read a pickle: plain values as they are, every other object as a :class:`Record`.

    Parameters
    ----------
    data
        The pickle.
    persistent
        Gives what a persistent id stands for, where the pickle may have some.

    Raises
    ------
    ForeignFileError
        Bytes that are no pickle, or one that is cut or forged.
    """
    try:
        return _Reader(io.BytesIO(data), persistent).load()
    except ForeignFileError:
        raise
    except Exception as error:  # whatever a forged pickle makes of the stack
        raise ForeignFileError(
            f"expected a pickle, got something else ({type(error).__name__}: {error})"
        ) from None


def array_of(value: Any) -> NDArray[Any]:
    """The array of numbers that a record of NumPy stands for, or a plain number.

    Parameters
    ----------
    value
        Of :func:`read_records`.

    Raises
    ------
    ForeignFileError
        It is no array of numbers.
    """
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)
    if isinstance(value, Record):
        last = value.name.rpartition(".")[2]
        if last == "scalar" and len(value.arguments) == 2:
            return typed_array(value.arguments[1], _dtype(value.arguments[0]), ())
        if last == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
            _, shape, dtype, fortran, data = value.state
            array = typed_array(data, _dtype(dtype), tuple(shape)[:: -1 if fortran else 1])
            return array.T if fortran else array
        if last == "_frombuffer" and len(value.arguments) == 4:  # protocol 5
            data, dtype, shape, order = value.arguments
            fortran = order == "F"
            array = typed_array(data, _dtype(dtype), tuple(shape)[:: -1 if fortran else 1])
            return array.T if fortran else array
    what = value.name if isinstance(value, Record) else type(value).__name__
    raise ForeignFileError(f"expected an array of numbers, got {what:.80}")


def typed_array(data: Any, dtype: np.dtype[Any], shape: tuple[Any, ...]) -> NDArray[Any]:
    """A fresh array of these bytes in C order.

    Parameters
    ----------
    data
        Bytes.
    dtype
        Of plain numbers.
    shape
        Sizes, at least 0.

    Raises
    ------
    ForeignFileError
        More or fewer bytes than the shape needs.
    """
    if isinstance(data, Record) and data.name == "_codecs.encode" and len(data.arguments) == 2:
        data = str(data.arguments[0]).encode("latin1", "replace")  # how protocol 2 writes bytes
    sizes = [size for size in shape if isinstance(size, int) and 0 <= size < _LARGEST]
    count = math.prod(sizes) * dtype.itemsize
    if (
        len(sizes) != len(shape)
        or not isinstance(data, (bytes, bytearray))
        or len(data) != count
        or count > _LARGEST
    ):
        raise ForeignFileError(f"expected {count} bytes of an array of shape {shape}, got others")
    return np.frombuffer(bytes(data), dtype).reshape(sizes).astype(dtype.newbyteorder("="))


def _dtype(record: Any) -> np.dtype[Any]:
    if isinstance(record, Record) and record.name == "numpy.dtype" and record.arguments:
        code, order = record.arguments[0], "="
        if isinstance(record.state, tuple) and len(record.state) > 1:
            order = record.state[1]
        if isinstance(code, str) and code[:1] in _KINDS and code[1:].isdigit():
            if order in ("<", ">"):
                return np.dtype(order + code)
            return np.dtype(code)
    raise ForeignFileError("expected an array of plain numbers, got another dtype")
