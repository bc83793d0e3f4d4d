"""Walking an environment: copying everything that can change. Nothing of the environment runs."""

from __future__ import annotations

import enum
import random
from collections.abc import Set
from typing import Any, TypeAlias

import numpy as np

from .nodes import (
    BIT_GENERATORS,
    CONTAINER_NAMES,
    LEAF_TYPES,
    MAPPINGS,
    MEMORY_LEAF_TYPES,
    Array,
    ArrayNode,
    ConstantNode,
    ContainerNode,
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
    attributes_of,
    class_name,
    dictionary_of,
    has_type,
    is_a,
    is_constant,
    is_named_tuple,
    is_python_object,
    type_name,
)
from .simulators import Simulators
from .tables import known_table

_BYTES_A_VALUE = 4096  # of an array, which take as long to copy as a value to be read
_LEAVES = frozenset(LEAF_TYPES)
_LONG = frozenset({str, bytes, int})  # of these, values may be of any size

# What messages call a value: a text, or a label and the key or index behind it. Texts are only made
# when there is something to say.
Label: TypeAlias = "str | tuple[Label, Any]"


def shown(label: Label) -> str:
    """A label as text.

    Parameters
    ----------
    label
        A text, or a label and the key or index behind it.
    """
    if isinstance(label, str):
        return label
    inner, key = label
    return f"{shown(inner)}[{key!r:.40}]"


def _length(value: str | bytes | int) -> int:
    """Bytes of a plain value, or nearly so."""
    return value.bit_length() // 8 if isinstance(value, int) else len(value)


class Budget:
    """How much may be read at a save, shared by several environments.

    Values are counted, not seconds, so that the same environments are saved on every machine: a
    value takes some 3 us to be read and written.

    Parameters
    ----------
    values
        At most so many, 0 or more; None: no limit.
    """

    def __init__(self, values: int | None = None) -> None:
        self._limit = values
        self._values = 0

    def spend(self, values: int, n_bytes: int = 0) -> None:
        """Count so many values, and an array of so many bytes.

        Parameters
        ----------
        values
            How many, 0 or more.
        n_bytes
            Size of the array, 0 for other values.

        Raises
        ------
        SnapshotError
            They are too many.
        """
        self._values += values + n_bytes // _BYTES_A_VALUE
        if self._limit is not None and self._values > self._limit:
            raise SnapshotError(
                f"the environments hold more than {self._limit} values, too many to be read at "
                "every save"
            )


class Recorder:
    """Copies the state of everything that can be reached from an environment.

    No method, property or `__getattr__` of the environment is called: what lies in `__dict__` and
    slots is read directly.

    Parameters
    ----------
    simulators
        Readers of simulators written in another language.
    budget
        How much may be read; None: no limit.
    tables
        What `tables_in` found when the environment was made: they are compared, not read.
    """

    def __init__(
        self,
        simulators: Simulators,
        budget: Budget | None = None,
        tables: Set[str] = frozenset(),
    ) -> None:
        self._simulators = simulators
        self._tables = tables
        self._budget = budget or Budget()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay taken while recording
        self.models: list[Any] = []  # MuJoCo models

    def _number(self, value: Any) -> int:
        number = self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        return number

    def record(self, value: Any, label: Label) -> Node:
        """The state of a value; `label` is what messages call it.

        Parameters
        ----------
        value
            Anything that the environment refers to.
        label
            What messages call it.

        Raises
        ------
        SnapshotError
            Something holds state that cannot be read, or the budget is spent.
        """
        cls = type(value)
        if cls in _LEAVES:
            return self._leaf(value, cls)
        self._budget.spend(1)
        known = self._numbers.get(id(value))
        if known is not None:
            return ReferenceNode(known)
        if cls in CONTAINER_NAMES:
            return self._container(value, label)
        if cls is np.ndarray:
            return self._array(value, label)
        if has_type(value, (np.generic, enum.Enum)):
            return LeafNode(value)
        if is_named_tuple(value):
            return self._container(value, label)
        if has_type(value, MEMORY_LEAF_TYPES):
            return LeafNode(value)
        if cls in (np.random.Generator, np.random.RandomState, random.Random):
            return self._generator(value, label)
        if is_a(value, "mujoco", "MjData"):
            return self._mujoco(value)
        if is_a(value, "ale_py", "ALEInterface"):
            number = self._number(value)
            return self._simulators.ale(value).record(number)
        if is_constant(value):
            if is_a(value, "mujoco", "MjModel"):
                self.models.append(value)
            return ConstantNode(value)
        if is_a(value, "gymnasium.spaces", "Space"):
            return self._space(value, label)
        if is_python_object(value):
            node = ObjectNode(self._number(value), class_name(value), {}, True, value)
            attributes = attributes_of(value)
            self._budget.spend(len(attributes))
            for name, attribute in attributes.items():
                node.attributes[name] = self.record(
                    attribute, attribute_label(value, shown(label), name)
                )
            return node
        raise SnapshotError(f"{shown(label)} (type {type_name(value)}) cannot be stored")

    def _leaf(self, value: Any, cls: type) -> LeafNode:
        if cls in _LONG and (length := _length(value)) > _BYTES_A_VALUE:
            self._budget.spend(0, length)
        return LeafNode(value)

    def _array(self, value: Array, label: Label) -> Node:
        if value.dtype.hasobject:
            raise SnapshotError(f"{shown(label)} (an array of Python objects) cannot be stored")
        self._budget.spend(1, value.nbytes)
        flags, base = value.flags, value.base
        number = self._number(value)
        if type(base) is np.ndarray and base.flags.owndata and base.flags.c_contiguous:
            # a part of another array: it stays one
            offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            node = self.record(base, label)
            return ViewNode(
                number, node, value.dtype.str, value.shape, value.strides, offset, flags.writeable
            )
        return ArrayNode(number, value.copy(), not flags.owndata, flags.writeable, value)

    def _container(self, value: Any, label: Label) -> Node:
        kind = CONTAINER_NAMES.get(type(value), "namedtuple")
        if kind in ("tuple", "frozenset") and _LEAVES.issuperset(map(type, value)):
            return LeafNode(value)
        if self._tables and kind in ("list", "tuple", "dict"):
            digest = known_table(value, self._tables)
            if digest is not None:
                return TableNode(self._number(value), digest, value)
        self._budget.spend(len(value))
        node = ContainerNode(self._number(value), kind, [], getattr(value, "maxlen", None), value)
        items, record = node.items, self.record
        if kind in MAPPINGS:
            for key, item in value.items():
                leaf = type(key) in _LEAVES
                items.append(self._leaf(key, type(key)) if leaf else record(key, (label, "a key")))
                items.append(record(item, (label, key if leaf else "...")))
        else:
            for i, item in enumerate(value):
                cls = type(item)
                leaf = cls in _LEAVES
                items.append(self._leaf(item, cls) if leaf else record(item, (label, i)))
        return node

    def _generator(self, value: Any, label: Label) -> Node:
        number = self._number(value)
        if type(value) is np.random.Generator:
            kind = "Generator"
            bits = value.bit_generator
            if type(bits) not in [getattr(np.random, name) for name in BIT_GENERATORS]:
                raise SnapshotError(
                    f"{shown(label)} (random numbers of a {type_name(bits)}) cannot be stored; only "
                    f"NumPy's {', '.join(BIT_GENERATORS)} can"
                )
            state: Any = bits.state
        elif type(value) is np.random.RandomState:
            kind, state = "RandomState", value.get_state(legacy=True)
        else:
            kind, state = "Random", value.getstate()
        return GeneratorNode(number, kind, self.record(state, label), value)

    def _space(self, value: Any, label: Label) -> Node:
        """Of a space only its generator changes, and the generators of its parts."""
        node = ObjectNode(self._number(value), class_name(value), {}, False, value)
        for name, attribute in (dictionary_of(value) or {}).items():
            parts = [attribute]
            if type(attribute) in CONTAINER_NAMES:
                parts = list(attribute.values() if hasattr(attribute, "values") else attribute)
            has_space = any(is_a(part, "gymnasium.spaces", "Space") for part in parts)
            if has_space or name == "_np_random":
                node.attributes[name] = self.record(attribute, f"{shown(label)}.{name}")
        return node

    def _mujoco(self, data: Any) -> Node:
        state, views = self._simulators.mujoco(data)
        return MuJoCoNode(
            self._number(data),
            state.signature,
            state.read(),
            np.concatenate([view.ravel() for view in views]) if views else np.empty(0),
            data,
        )
