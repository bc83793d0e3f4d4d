"""Snapshots as arrays and JSON values, and back, without pickle."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .nodes import (
    CONTAINERS,
    MAPPINGS,
    MISSING,
    ALENode,
    Array,
    ArrayNode,
    ConstantNode,
    ContainerNode,
    EnumName,
    GeneratorNode,
    LeafNode,
    MuJoCoNode,
    Node,
    ObjectNode,
    ReferenceNode,
    SnapshotError,
    TableNode,
    ViewNode,
    attribute_label,
    type_name,
)

_BITS_AS_DIGITS = 4096  # of an integer; Python refuses to read and write very many decimal digits
_RAW_KINDS = "fiubcSUMm"  # kinds of dtypes that are stored as bytes


def _timedelta(text: str) -> datetime.timedelta:
    days, seconds, microseconds = (int(part) for part in text.split())
    return datetime.timedelta(days, seconds, microseconds)


# immutable values that are stored as text: class, writer, reader
_TEXTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "path": (type(pathlib.Path()), str, pathlib.Path),
    "timedelta": (
        datetime.timedelta,
        lambda value: f"{value.days} {value.seconds} {value.microseconds}",
        _timedelta,
    ),
    "datetime": (datetime.datetime, str, datetime.datetime.fromisoformat),
    "date": (datetime.date, str, datetime.date.fromisoformat),
    "time": (datetime.time, str, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (fractions.Fraction, str, fractions.Fraction),
}


class Writer:
    """Nodes as JSON values; arrays aside, by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def _add(self, array: Array, path: str) -> str:
        # no file holds every name that an attribute may have
        name = path if path.isascii() else path.encode("ascii", "backslashreplace").decode()
        while name in self.arrays:
            name += "'"
        self.arrays[name] = array
        return name

    def write(self, node: Node, path: str, label: str = "") -> Any:
        """The JSON value of a node; `path` names its arrays, `label` is what messages call it.

        Parameters
        ----------
        node
            What was recorded.
        path
            What its arrays are called in the file.
        label
            What messages call it; the path if empty.
        """
        label = label or path
        match node:
            case LeafNode():
                return self._leaf(node.value, path, label)
            case ConstantNode():
                return ["constant"]
            case ReferenceNode():
                return ["reference", node.number]
            case ArrayNode():
                stored = self._array(node.data, path, label)
                return ["array", node.number, stored, node.is_borrowed, node.writeable]
            case ViewNode():
                base = self.write(node.base, path + ".base", label)
                place = [node.dtype, list(node.shape), list(node.strides), node.offset]
                return ["view", node.number, base, *place, node.writeable]
            case ContainerNode():
                items = [
                    self.write(item, f"{path}.{i}", f"{label}[{i}]")
                    for i, item in enumerate(node.items)
                ]
                return ["container", node.number, node.kind, items, node.maxlen]
            case TableNode():
                return ["table", node.number, node.digest]
            case GeneratorNode():
                state = self.write(node.state, path, label)
                return ["generator", node.number, node.kind, state]
            case ObjectNode():
                attributes = {
                    name: self.write(
                        child, f"{path}.{name}", attribute_label(node.target, label, name)
                    )
                    for name, child in node.attributes.items()
                }
                return ["object", node.number, node.class_name, attributes, node.whole]
            case MuJoCoNode():
                names = [
                    self._add(node.integration, f"{path}.integration"),
                    self._add(node.computed, f"{path}.computed"),
                ]
                return ["mujoco", node.number, node.signature, *names]
            case ALENode():
                name = self._add(np.frombuffer(node.state, np.uint8).copy(), f"{path}.ale")
                return ["ale", node.number, name, node.last_action]

    def _array(self, array: Array, path: str, label: str) -> Any:
        """The name of an array, or its bytes, dtype and shape where no checkpoint has its dtype."""
        dtype = array.dtype
        if dtype.kind in "fiub" and dtype.isnative and dtype.itemsize <= 8:
            return self._add(array, path)
        if dtype.kind not in _RAW_KINDS:
            raise SnapshotError(f"{label} (an array of {dtype}) cannot be stored")
        data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).copy()
        return ["raw", self._add(data, path), dtype.str, list(array.shape)]

    def _leaf(self, value: Any, path: str, label: str) -> Any:
        if type(value) is int and value.bit_length() > _BITS_AS_DIGITS:
            return ["int", hex(value)]
        if value is None or type(value) in (bool, str, int):
            return value
        if type(value) is float:
            return ["float", value.hex()]
        if type(value) is complex:
            return ["complex", value.real.hex(), value.imag.hex()]
        if type(value) is bytes:
            return ["bytes", self._add(np.frombuffer(value, np.uint8).copy(), path)]
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return ["scalar", self._array(np.array(value), path, label)]
        if isinstance(value, enum.Enum):
            return ["enum", str(value.name)]
        if type(value) in (tuple, frozenset):
            return [
                "leaves",
                type(value).__name__,
                [self._leaf(item, path, label) for item in value],
            ]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        for name, (cls, write, _) in _TEXTS.items():
            if type(value) is cls and getattr(value, "tzinfo", None) is None:
                return ["text", name, write(value)]
        raise SnapshotError(f"{label} (type {type_name(value)}) cannot be stored")


class Reader:
    """The inverse of `Writer`. Any mistake in the input is a SnapshotError.

    Parameters
    ----------
    arrays
        Those of `Writer`, by name.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def read(self, value: Any) -> Node:
        """The node that a JSON value stands for.

        Parameters
        ----------
        value
            What `Writer.write` returned.
        """
        try:
            return self._read(value)
        except SnapshotError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise SnapshotError(
                f"snapshot: the stored state is damaged ({type(error).__name__}: {error})"
            ) from None
        except RecursionError:
            raise SnapshotError("snapshot: the stored state is nested without end") from None

    def _read(self, value: Any) -> Node:
        if value is None or isinstance(value, bool | str | int):
            return LeafNode(value)
        if not isinstance(value, list):
            raise SnapshotError(f"snapshot: expected a list, got {type(value).__name__}")
        match value:
            case ["constant"]:
                return ConstantNode(MISSING)
            case ["reference", int(number)]:
                return ReferenceNode(number)
            case ["array", int(number), stored, bool(borrowed), bool(writeable)]:
                return ArrayNode(number, self._array(stored), borrowed, writeable, None)
            case ["view", int(number), base, str(dtype), list(shape), list(strides), int(at), flag]:
                node, place = self._read(base), (tuple(map(int, shape)), tuple(map(int, strides)))
                if np.dtype(dtype).hasobject or not isinstance(node, ArrayNode | ReferenceNode):
                    raise SnapshotError("snapshot: expected a view of an array of numbers")
                return ViewNode(number, node, dtype, *place, at, bool(flag))
            case ["container", int(number), str(kind), list(items), maxlen]:
                if kind not in (*CONTAINERS, "namedtuple"):
                    raise SnapshotError(f"snapshot: unknown container {kind!r}")
                if not (maxlen is None or isinstance(maxlen, int)):
                    raise SnapshotError(f"snapshot: unknown length {maxlen!r}")
                if kind in MAPPINGS and len(items) % 2:
                    raise SnapshotError("snapshot: a mapping has a key without a value")
                nodes = [self._read(item) for item in items]
                return ContainerNode(number, kind, nodes, maxlen, None)
            case ["table", int(number), str(digest)]:
                return TableNode(number, digest, None)
            case ["generator", int(number), str(kind), state]:
                if kind not in ("Generator", "RandomState", "Random"):
                    raise SnapshotError(f"snapshot: unknown random generator {kind!r}")
                return GeneratorNode(number, kind, self._read(state), None)
            case ["object", int(number), str(name), dict(attributes), bool(whole)]:
                children = {key: self._read(child) for key, child in attributes.items()}
                return ObjectNode(number, name, children, whole, None)
            case ["mujoco", int(number), int(signature), str(state), str(computed)]:
                arrays = (self._floats(state), self._floats(computed))
                return MuJoCoNode(number, signature, *arrays, None)
            case ["ale", int(number), str(name), last]:
                if not (last is None or (isinstance(last, int) and 0 <= last < 18)):
                    raise SnapshotError(f"snapshot: unknown Atari action {last!r}")
                return ALENode(number, self._bytes(name), last, None)
        return LeafNode(self._leaf(value))

    def _leaf(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | str | int):
            return value
        match value:
            case ["float", str(number)]:
                return float.fromhex(number)
            case ["int", str(digits)]:
                return int(digits, 16)
            case ["complex", str(real), str(imaginary)]:
                return complex(float.fromhex(real), float.fromhex(imaginary))
            case ["bytes", str(name)]:
                return self._bytes(name)
            case ["scalar", name]:
                return self._array(name).reshape(())[()]
            case ["enum", str(name)]:
                return EnumName(name)
            case ["leaves", str(kind), list(items)] if kind in ("tuple", "frozenset"):
                return CONTAINERS[kind](self._leaf(item) for item in items)
            case ["range", int(start), int(stop), int(step)]:
                return range(start, stop, step)
            case ["text", str(name), str(text)] if name in _TEXTS and len(text) < 10_000:
                return _TEXTS[name][2](text)
        raise SnapshotError(f"snapshot: unknown entry {str(value)[:60]}")

    def _array(self, stored: Any) -> Array:
        match stored:
            case str(name):
                return np.array(self._arrays[name])
            case ["raw", str(name), str(text), list(shape)]:
                dtype, data = np.dtype(text), self._bytes(name)
                sizes = [int(n) for n in shape]
                if dtype.kind not in _RAW_KINDS or dtype.hasobject or min(sizes, default=0) < 0:
                    raise SnapshotError(f"snapshot: unknown array of {text!r:.40}")
                if math.prod(sizes) * dtype.itemsize != len(data) or max(sizes, default=0) > 2**40:
                    raise SnapshotError("snapshot: the bytes of an array do not fit its shape")
                return np.ndarray(sizes, dtype, data).copy()
        raise SnapshotError("snapshot: expected an array")

    def _bytes(self, name: str) -> bytes:
        return np.ascontiguousarray(self._arrays[name], np.uint8).tobytes()

    def _floats(self, name: str) -> Array:
        array = self._arrays[name]
        if array.dtype != np.float64 or array.ndim != 1:
            raise SnapshotError(f"snapshot: expected float64 numbers in {name!r}")
        return np.array(array)
