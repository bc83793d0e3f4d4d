"""What a snapshot is made of, and what kinds of values an environment may hold."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import logging
import pathlib
import re
import types
from collections import OrderedDict, defaultdict, deque
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
    """A number, a text, or another value that never changes."""

    value: Any  # immutable


@dataclass(slots=True)
class ConstantNode:
    """An object that never changes and is not stored."""

    target: Any  # function, class, space, model, window: never changes


@dataclass(slots=True)
class ReferenceNode:
    """An object that was recorded already."""

    number: int


@dataclass(slots=True)
class ArrayNode:
    """An array that owns its memory, or borrows it from something that is no array."""

    number: int
    data: Array
    is_borrowed: bool  # memory of something that is no array, such as a simulator
    writeable: bool
    target: Array | None


@dataclass(slots=True)
class ViewNode:
    """An array that shows part of another one's memory."""

    number: int
    base: Node  # the array that owns the memory
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int  # bytes from the start of the base
    writeable: bool


@dataclass(slots=True)
class ContainerNode:
    """A list, tuple, set, dictionary or deque."""

    number: int
    kind: str  # a key of CONTAINERS, or "namedtuple"
    items: list[Node]  # of a mapping: key, value, key, value, ...
    maxlen: int | None  # of a deque
    target: Any


@dataclass(slots=True)
class TableNode:
    """A large container of plain values that are those which the constructor set.

    The environment at hand has them, too, so they are not stored.
    """

    number: int
    digest: str  # of its values, see `trpo_fast.snapshots.tables`
    target: Any


@dataclass(slots=True)
class GeneratorNode:
    """A generator of random numbers."""

    number: int
    kind: str  # "Generator", "RandomState" or "Random"
    state: Node
    target: Any


@dataclass(slots=True)
class ObjectNode:
    """An object of a Python class."""

    number: int
    class_name: str
    attributes: dict[str, Node]
    whole: bool  # False: only these attributes are state (a space and its generator)
    target: Any


@dataclass(slots=True)
class MuJoCoNode:
    """A simulation of MuJoCo."""

    number: int
    signature: int  # of the model
    integration: Array  # mjSTATE_INTEGRATION
    computed: Array  # float arrays of mjData, one after the other
    target: Any


@dataclass(slots=True)
class ALENode:
    """A game of the Arcade Learning Environment."""

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
    | TableNode
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


# What stands behind `type(x).__mro__` and its like, read without asking the class: a metaclass, or
# a class of another language without `__module__`, may raise or do anything there.
_MRO = type.__dict__["__mro__"].__get__
_CLASS_DICT = type.__dict__["__dict__"].__get__
_MODULE = type.__dict__["__module__"].__get__
_NAME = type.__dict__["__name__"].__get__
_QUALIFIED_NAME = type.__dict__["__qualname__"].__get__
_BASIC_SIZE = type.__dict__["__basicsize__"].__get__
_ITEM_SIZE = type.__dict__["__itemsize__"].__get__


def bases_of(cls: type) -> tuple[type, ...]:
    """The method resolution order of a class.

    Parameters
    ----------
    cls
        Any class.
    """
    bases: tuple[type, ...] = _MRO(cls)
    return bases


def module_of(cls: type) -> str:
    """The module of a class; an empty text where it has none.

    Parameters
    ----------
    cls
        Any class.
    """
    try:
        module = _MODULE(cls)
    except AttributeError:
        return ""
    return module if type(module) is str else ""


def class_name(value: Any) -> str:
    """The class of a value with its module, as files and messages name it.

    Parameters
    ----------
    value
        Any object.
    """
    cls = type(value)
    name: str = _QUALIFIED_NAME(cls)
    module = module_of(cls)
    return f"{module}.{name}" if module else name


def short_name(value: Any) -> str:
    """The class of a value without its module.

    Parameters
    ----------
    value
        Any object.
    """
    name: str = _QUALIFIED_NAME(type(value))
    return name


def type_name(value: Any) -> str:
    """The class of a value for a sentence: built-in types without their module.

    Parameters
    ----------
    value
        Any object.
    """
    return class_name(value).removeprefix("builtins.")


def attribute_label(value: Any, label: str, name: str) -> str:
    """What messages call an attribute: `CartPole.simulator.handle`, from the environment on.

    Parameters
    ----------
    value
        The object that has the attribute.
    label
        What messages call the object.
    name
        Of the attribute.
    """
    base = short_name(value) if is_a(value, "gymnasium", "Env") else label
    return f"{base}.{name}"


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether some class of the value is `name` (or any, where it is empty) of package `module`.

    The package is not imported for it.

    Parameters
    ----------
    value
        Any object.
    module
        Name of a package.
    name
        Of a class in it, or empty.
    """
    for cls in bases_of(type(value)):
        home = module_of(cls)
        if (home == module or home.startswith(module + ".")) and name in ("", _NAME(cls)):
            return True
    return False


def has_type(value: Any, types_: Any) -> bool:
    """`isinstance` by the true class of the value, without asking for its `__class__`.

    Parameters
    ----------
    value
        Any object.
    types_
        Classes.
    """
    bases = bases_of(type(value))
    return any(cls in bases for cls in types_)


def is_constant(value: Any) -> bool:
    """Whether the value never changes: a function, a class, a model, a window.

    Parameters
    ----------
    value
        Any object.
    """
    return has_type(value, _CONSTANT_TYPES) or any(
        is_a(value, module, name) for module, name in _CONSTANT_CLASSES
    )


def is_named_tuple(value: Any) -> bool:
    """Whether the value is of a class that `typing.NamedTuple` or `collections.namedtuple` made.

    Parameters
    ----------
    value
        Any object.
    """
    bases = bases_of(type(value))
    return tuple in bases and any("_make" in _CLASS_DICT(cls) for cls in bases)


def is_python_object(value: Any) -> bool:
    """All its state lies in `__dict__` and `__slots__`: no memory of another language behind it.

    Parameters
    ----------
    value
        Any object.
    """
    cls = type(value)
    if _ITEM_SIZE(cls) or has_type(value, (types.FrameType, types.CoroutineType)):
        return False
    if any("__next__" in _CLASS_DICT(base) for base in bases_of(cls)):
        return False
    # what a Python class adds to `object`; a class of C adds more
    slots = slots_of(cls)
    allowed = object.__basicsize__ + 2 * _POINTER + _POINTER * len(slots)
    return _BASIC_SIZE(cls) <= allowed and (dictionary_of(value) is not None or bool(slots))


def slots_of(cls: type) -> dict[str, Any]:
    """The slots of a class: name to descriptor.

    Parameters
    ----------
    cls
        Any class.
    """
    return {
        name: member
        for base in reversed(bases_of(cls))
        if "__slots__" in _CLASS_DICT(base)
        for name, member in _CLASS_DICT(base).items()
        if type(member) is types.MemberDescriptorType
    }


def dictionary_of(value: Any) -> dict[str, Any] | None:
    """The `__dict__` of an object, without asking the object; None where it has none.

    Parameters
    ----------
    value
        Any object.
    """
    for base in bases_of(type(value)):
        getter = _CLASS_DICT(base).get("__dict__")
        if type(getter) is types.GetSetDescriptorType:
            found = getter.__get__(value)
            return found if type(found) is dict else None
    return None


def attributes_of(value: Any) -> dict[str, Any]:
    """The `__dict__` and the filled `__slots__` of an object, without asking the object.

    Parameters
    ----------
    value
        Any object.
    """
    attributes: dict[str, Any] = {}
    for name, member in slots_of(type(value)).items():
        with contextlib.suppress(AttributeError):  # an empty slot
            attributes[name] = member.__get__(value)
    attributes.update(dictionary_of(value) or {})
    return attributes
