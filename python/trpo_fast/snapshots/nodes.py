"""What a snapshot is made of, and what kinds of values an environment may hold."""

from __future__ import annotations

import datetime
import decimal
import fractions
import logging
import pathlib
import re
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class SnapshotError(ValueError):
    """A state that cannot be saved, or cannot be put back; the message is one sentence."""


# One node a value. `number` identifies what may be reached twice, so that shared objects stay
# shared; `target` is the object that was recorded, known only to the process that recorded it.


@dataclass(slots=True)
class LeafNode:
    value: Any  # immutable


@dataclass(slots=True)
class ConstantNode:
    target: Any  # function, class, space, model, window: never changes


@dataclass(slots=True)
class ReferenceNode:
    number: int


@dataclass(slots=True)
class ArrayNode:
    number: int
    data: Array
    is_borrowed: bool  # memory of something that is no array, such as a simulator
    writeable: bool
    target: Array | None


@dataclass(slots=True)
class ViewNode:
    number: int
    base: Node  # the array that owns the memory
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int  # bytes from the start of the base
    writeable: bool


@dataclass(slots=True)
class ContainerNode:
    number: int
    kind: str  # a key of CONTAINERS, or "namedtuple"
    items: list[Node]  # of a mapping: key, value, key, value, ...
    maxlen: int | None  # of a deque
    target: Any


@dataclass(slots=True)
class GeneratorNode:
    number: int
    kind: str  # "Generator", "RandomState" or "Random"
    state: Node
    target: Any


@dataclass(slots=True)
class ObjectNode:
    number: int
    class_name: str
    attributes: dict[str, Node]
    whole: bool  # False: only these attributes are state (a space and its generator)
    target: Any


@dataclass(slots=True)
class MuJoCoNode:
    number: int
    signature: int  # of the model
    integration: Array  # mjSTATE_INTEGRATION
    computed: Array  # float arrays of mjData, one after the other
    target: Any


@dataclass(slots=True)
class ALENode:
    number: int
    state: bytes
    last_action: int | None  # None: no sticky actions
    target: Any


Node: TypeAlias = (
    LeafNode
    | ConstantNode
    | ReferenceNode
    | ArrayNode
    | ViewNode
    | ContainerNode
    | GeneratorNode
    | ObjectNode
    | MuJoCoNode
    | ALENode
)


@dataclass(frozen=True, slots=True)
class EnumName:
    """A member of an enumeration, read from a file: the class is that of the value it replaces."""

    name: str


LEAF_TYPES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
)
# immutable as well, but not found in files
MEMORY_LEAF_TYPES = (
    range,
    slice,
    type(Ellipsis),
    type(NotImplemented),
    datetime.timedelta,
    datetime.date,
    datetime.time,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    np.dtype,
    re.Pattern,
)
_CONSTANT_TYPES = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    types.GenericAlias,
    np.ufunc,
    property,
    staticmethod,
    classmethod,
    logging.Logger,
)
# drawing, registration, MuJoCo's model: (module prefix, class name or "" for all)
_CONSTANT_CLASSES = (
    ("pygame", ""),
    ("glfw", ""),
    ("OpenGL", ""),
    ("matplotlib", ""),
    ("gymnasium.envs.registration", ""),
    ("gymnasium.envs.mujoco.mujoco_rendering", ""),
    ("mujoco", "MjModel"),
    ("mujoco", "MjvCamera"),
    ("mujoco", "MjvOption"),
    ("mujoco", "MjvScene"),
    ("mujoco", "MjrContext"),
    ("mujoco", "Renderer"),
)
CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "dict": dict,
    "OrderedDict": OrderedDict,
    "defaultdict": defaultdict,
}
CONTAINER_NAMES = {cls: name for name, cls in CONTAINERS.items()}
MAPPINGS = ("dict", "OrderedDict", "defaultdict")
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
MISSING: Any = object()
_POINTER = tuple.__itemsize__


def class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_a(value: Any, module: str, name: str) -> bool:
    """Without importing the module: some class of the value is `name` of a package `module`."""
    for cls in type(value).__mro__:
        home = cls.__module__
        if (home == module or home.startswith(module + ".")) and name in ("", cls.__name__):
            return True
    return False


def is_constant(value: Any) -> bool:
    return isinstance(value, _CONSTANT_TYPES) or any(
        is_a(value, module, name) for module, name in _CONSTANT_CLASSES
    )


def is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(type(value), "_make")


def is_python_object(value: Any) -> bool:
    """All its state lies in `__dict__` and `__slots__`: no memory of another language behind it."""
    cls = type(value)
    if cls.__itemsize__ or isinstance(value, Iterator | types.FrameType | types.CoroutineType):
        return False
    # what a Python class adds to `object`; a class of C adds more
    allowed = object.__basicsize__ + 2 * _POINTER + _POINTER * len(slot_names(cls))
    return cls.__basicsize__ <= allowed and (hasattr(value, "__dict__") or bool(slot_names(cls)))


def slot_names(cls: type) -> list[str]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot in ("__dict__", "__weakref__"):
                continue
            private = slot.startswith("__") and not slot.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{slot}" if private else slot)
    return names


def attributes_of(value: Any) -> dict[str, Any]:
    """`__dict__` and filled `__slots__`."""
    attributes = {
        name: getattr(value, name) for name in slot_names(type(value)) if hasattr(value, name)
    }
    attributes.update(getattr(value, "__dict__", {}))
    return attributes
