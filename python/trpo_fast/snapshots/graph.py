"""Walking an environment: copying everything that can change. Nothing of the environment runs."""

from __future__ import annotations

import enum
import random
import time
from typing import Any

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
    short_name,
    type_name,
)
from .simulators import Simulators

_COPY_RATE = 2e9  # bytes a second, by which the copy of a large array is judged before it is made
_LOOK_EVERY = 128  # values between two looks at the clock


class Budget:
    """Seconds of processor time that reading states may take, shared by several environments.

    Parameters
    ----------
    seconds
        At most so many, 0 or more; infinite: no limit.
    """

    def __init__(self, seconds: float = float("inf")) -> None:
        self._seconds = seconds
        self._end = time.thread_time() + seconds
        self._values = 0

    def spend(self, n_bytes: int = 0) -> None:
        """Count one value more, and an array of so many bytes.

        Parameters
        ----------
        n_bytes
            Size of the array, 0 for other values.

        Raises
        ------
        SnapshotError
            The time is over, or the array would not be copied in what is left.
        """
        self._values += 1
        if n_bytes < 1 << 16 and self._values % _LOOK_EVERY:
            return
        if time.thread_time() + n_bytes / _COPY_RATE > self._end:
            raise SnapshotError(
                f"reading their states takes longer than {1e3 * self._seconds:.0f} ms"
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
        Time for it; None: no limit.
    """

    def __init__(self, simulators: Simulators, budget: Budget | None = None) -> None:
        self._simulators = simulators
        self._budget = budget or Budget()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay taken while recording
        self.models: list[Any] = []  # MuJoCo models

    def _number(self, value: Any) -> int:
        number = self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        return number

    def record(self, value: Any, label: str) -> Node:
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
        self._budget.spend()
        cls = type(value)
        if cls in LEAF_TYPES or has_type(value, (np.generic, enum.Enum)):
            return LeafNode(value)
        known = self._numbers.get(id(value))
        if known is not None:
            return ReferenceNode(known)
        if cls is np.ndarray:
            return self._array(value, label)
        if cls in CONTAINER_NAMES or is_named_tuple(value):
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
            for name, attribute in attributes_of(value).items():
                node.attributes[name] = self.record(attribute, attribute_label(value, label, name))
            return node
        raise SnapshotError(f"{label} (type {type_name(value)}) cannot be stored")

    def _array(self, value: Array, label: str) -> Node:
        if value.dtype.hasobject:
            raise SnapshotError(f"{label} (an array of Python objects) cannot be stored")
        self._budget.spend(value.nbytes)
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

    def _container(self, value: Any, label: str) -> Node:
        kind = CONTAINER_NAMES.get(type(value), "namedtuple")
        if kind in ("tuple", "frozenset") and all(type(item) in LEAF_TYPES for item in value):
            self._budget.spend(8 * len(value))
            return LeafNode(value)
        node = ContainerNode(self._number(value), kind, [], getattr(value, "maxlen", None), value)
        if kind in MAPPINGS:
            for key, item in value.items():
                shown = repr(key) if type(key) in (int, str, bool) else short_name(key)
                node.items.append(self.record(key, f"a key of {label}"))
                node.items.append(self.record(item, f"{label}[{shown:.40}]"))
        else:
            node.items.extend(self.record(item, f"{label}[{i}]") for i, item in enumerate(value))
        return node

    def _generator(self, value: Any, label: str) -> Node:
        number = self._number(value)
        if type(value) is np.random.Generator:
            kind = "Generator"
            bits = value.bit_generator
            if type(bits) not in [getattr(np.random, name) for name in BIT_GENERATORS]:
                raise SnapshotError(
                    f"{label} (random numbers of a {type_name(bits)}) cannot be stored; only "
                    f"NumPy's {', '.join(BIT_GENERATORS)} can"
                )
            state: Any = bits.state
        elif type(value) is np.random.RandomState:
            kind, state = "RandomState", value.get_state(legacy=True)
        else:
            kind, state = "Random", value.getstate()
        return GeneratorNode(number, kind, self.record(state, label), value)

    def _space(self, value: Any, label: str) -> Node:
        """Of a space only its generator changes, and the generators of its parts."""
        node = ObjectNode(self._number(value), class_name(value), {}, False, value)
        for name, attribute in (dictionary_of(value) or {}).items():
            parts = [attribute]
            if type(attribute) in CONTAINER_NAMES:
                parts = list(attribute.values() if hasattr(attribute, "values") else attribute)
            has_space = any(is_a(part, "gymnasium.spaces", "Space") for part in parts)
            if has_space or name == "_np_random":
                node.attributes[name] = self.record(attribute, f"{label}.{name}")
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
