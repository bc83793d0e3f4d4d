"""Writing recorded values back into an environment."""

from __future__ import annotations

import enum
import random
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..words import words_of
from .generators import checked_state
from .nodes import (
    BIT_GENERATORS,
    CONTAINER_NAMES,
    CONTAINERS,
    LEAF_TYPES,
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
    attributes_of,
    bases_of,
    class_name,
    dictionary_of,
    is_a,
    is_constant,
    is_named_tuple,
    is_python_object,
    slots_of,
)
from .simulators import Simulators
from .tables import table_digest

# read without asking a metaclass
_ATTRIBUTES_OF_CLASS = type.__dict__["__dict__"].__get__


class Restorer:
    """Writes recorded values back.

    `same` says that the snapshot was taken from this very environment: then every object is put
    back into its place, whatever the environment did with it since. Otherwise values are written
    into the objects that stand in the same places.

    Parameters
    ----------
    simulators
        Writers of simulators written in another language.
    same
        Whether the snapshot was taken from this very environment.
    """

    def __init__(self, simulators: Simulators, same: bool) -> None:
        self._simulators = simulators
        self._same = same
        self._objects: dict[int, Any] = {}
        self._classes: dict[str, type] = {}  # of objects here, before anything is written
        self._written: dict[int, Any] = {}  # by id: objects that hold the state of a node already

    def restore_all(self, node: Node, env: Any) -> None:
        """Write a whole snapshot into an environment.

        Parameters
        ----------
        node
            What was recorded of an environment.
        env
            The environment.
        """
        if not self._same:
            self._classes = classes_in(env)
        self.restore(node, env, "env")

    def restore(self, node: Node, current: Any, path: str) -> Any:
        """The value that belongs where `current` is.

        Parameters
        ----------
        node
            What was recorded.
        current
            What stands in its place now.
        path
            What messages call that place.
        """
        match node:
            case LeafNode():
                return self._leaf(node, current, path)
            case ConstantNode():
                return node.target if self._same else current
            case ReferenceNode():
                if node.number not in self._objects:
                    raise SnapshotError(f"{path}: the snapshot refers to an object that it lacks")
                return self._objects[node.number]
            case ArrayNode():
                return self._array(node, current)
            case ViewNode():
                return self._view(node, current, path)
            case ContainerNode():
                return self._container(node, current, path)
            case TableNode():
                return self._table(node, current, path)
            case GeneratorNode():
                return self._generator(node, current, path)
            case ObjectNode():
                return self._object(node, current, path)
            case MuJoCoNode():
                return self._mujoco(node, current, path)
            case ALENode():
                target = self._counterpart(node, current, path, "ale_py", "ALEInterface")
                self._simulators.ale(target).restore(node)
                return target

    def _leaf(self, node: LeafNode, current: Any, path: str) -> Any:
        value = node.value
        if isinstance(value, EnumName):
            if not isinstance(current, enum.Enum) or value.name not in type(current).__members__:
                raise SnapshotError(
                    f"{path}: expected an enumeration with the member {value.name!r}, "
                    f"got {current!r}; is it the same environment?"
                )
            return type(current)[value.name]
        return value

    def _array(self, node: ArrayNode, current: Any) -> Array:
        place = node.target if self._same else current
        if node.is_borrowed and isinstance(place, np.ndarray) and _fits(place, node):
            # memory of another object: written where it is
            place[...] = node.data
            self._objects[node.number] = place
            return place
        array = node.data.copy()
        array.flags.writeable = node.writeable
        self._objects[node.number] = array
        return array

    def _view(self, node: ViewNode, current: Any, path: str) -> Array:
        base = self.restore(node.base, getattr(current, "base", None), f"{path}.base")
        if not isinstance(base, np.ndarray) or not lies_within(node, base):
            raise SnapshotError(f"{path}: the stored view does not lie within its array")
        try:
            view: Array = np.ndarray(node.shape, node.dtype, base, node.offset, node.strides)
            view.flags.writeable = node.writeable
        except (TypeError, ValueError) as error:
            raise SnapshotError(
                f"{path}: the stored view does not fit its array ({error})"
            ) from None
        self._objects[node.number] = view
        return view

    def _container(self, node: ContainerNode, current: Any, path: str) -> Any:
        if node.kind in MAPPINGS:
            return self._mapping(node, current, path)
        here: list[Any] = [MISSING] * len(node.items)
        if isinstance(current, list | tuple | deque) and len(current) == len(here):
            here = list(current)
        result: Any = MISSING
        if node.kind == "list":
            result = []
        elif node.kind == "deque":
            result = deque(maxlen=node.maxlen)
        if result is not MISSING:
            self._objects[node.number] = result  # before its items, which may refer to it
        items = (
            self._item(item, old, f"{path}[{i}]")
            for i, (item, old) in enumerate(zip(node.items, here, strict=True))
        )
        if result is not MISSING:
            result.extend(items)
            return result
        try:
            if node.kind == "namedtuple":
                result = self._named_tuple(node, current, path)._make(items)
            else:
                result = CONTAINERS[node.kind](items)
        except TypeError:
            raise SnapshotError(f"{path}: the stored {node.kind} does not fit") from None
        self._objects[node.number] = result
        return result

    def _table(self, node: TableNode, current: Any, path: str) -> Any:
        target = node.target if self._same else current
        if type(target) not in (list, tuple, dict) or table_digest(target) != node.digest:
            raise SnapshotError(
                f"{path}: the snapshot was taken where the constructor had set other values; make the "
                "environment as the other one was made"
            )
        self._objects[node.number] = target
        return target

    def _item(self, node: Node, current: Any, path: str) -> Any:
        value = self.restore(node, current, path)
        if value is MISSING:
            raise SnapshotError(
                f"{path}: the snapshot has a function, class or other constant there, which a file "
                "cannot hold, and this environment has none in its place"
            )
        return value

    def _named_tuple(self, node: ContainerNode, current: Any, path: str) -> Any:
        source = node.target if self._same else current
        if not is_named_tuple(source):
            raise SnapshotError(f"{path}: expected a named tuple, got {type(source).__name__}")
        return type(source)

    def _mapping(self, node: ContainerNode, current: Any, path: str) -> Any:
        if node.kind == "defaultdict":
            source = node.target if self._same else current
            if not isinstance(source, defaultdict):
                raise SnapshotError(f"{path}: expected a defaultdict, got {type(source).__name__}")
            result: Any = defaultdict(source.default_factory)
        else:
            result = CONTAINERS[node.kind]()
        self._objects[node.number] = result
        here = current if isinstance(current, Mapping) else {}
        for key_node, item in zip(node.items[::2], node.items[1::2], strict=True):
            key = self.restore(key_node, MISSING, f"{path} key")
            try:
                old = here.get(key, MISSING)
            except TypeError:
                raise SnapshotError(f"{path}: the snapshot has a list for a key") from None
            result[key] = self._item(item, old, f"{path}[{key!r}]")
        return result

    def _generator(self, node: GeneratorNode, current: Any, path: str) -> Any:
        target = node.target if self._same else current
        state = self.restore(node.state, None, path)
        if type(target).__name__ != node.kind or id(target) in self._written:
            # not there before the first reset, or one that stands for another one here
            target = {"Random": random.Random, "RandomState": np.random.RandomState}.get(
                node.kind, np.random.default_rng
            )()
        # NumPy does not look at every number of a state before it uses it as an index
        checked = checked_state(node.kind, state, path)
        try:
            if node.kind == "Generator":
                name = checked["bit_generator"]
                if type(target.bit_generator).__name__ != name:
                    assert name in BIT_GENERATORS
                    target = np.random.Generator(getattr(np.random, name)())
                target.bit_generator.state = checked
            elif node.kind == "RandomState":
                target.set_state(checked)
            else:
                target.setstate(checked)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise SnapshotError(
                f"{path}: the snapshot's random state does not fit ({error})"
            ) from None
        self._objects[node.number] = self._written[id(target)] = target
        return target

    def _object(self, node: ObjectNode, current: Any, path: str) -> Any:
        target = node.target if self._same else current
        found = "nothing" if target is MISSING else class_name(target)
        if found != node.class_name:
            kind = self._classes.get(node.class_name)
            if kind is None:
                raise SnapshotError(
                    f"{path}: the snapshot was taken from a {node.class_name}, this environment has "
                    f"{found}; make it as the other one was made, and reset it once"
                )
            target = _blank(node, kind, path)
        elif id(target) in self._written:
            # it stands in two places here, where the snapshot had two objects
            target = _blank(node, type(target), path)
        self._objects[node.number] = self._written[id(target)] = target
        here = attributes_of(target)
        values = {
            name: self.restore(child, here.get(name, MISSING), f"{path}.{name}")
            for name, child in node.attributes.items()
        }
        dictionary = dictionary_of(target)
        dictionary = {} if dictionary is None else dictionary
        slots = slots_of(type(target))
        if node.whole:
            for name in here.keys() - values.keys():
                if name in dictionary:
                    del dictionary[name]
                else:
                    slots[name].__delete__(target)
        for name, value in values.items():
            if value is MISSING:
                continue  # a constant of the other environment that this one does not have
            if name in slots:
                slots[name].__set__(target, value)
            else:
                dictionary[name] = value
        return target

    def _counterpart(
        self, node: MuJoCoNode | ALENode, current: Any, path: str, module: str, name: str
    ) -> Any:
        target = node.target if self._same else current
        if target is MISSING or not is_a(target, module, name):
            raise SnapshotError(
                f"{path}: the snapshot holds the state of a {module} {name}, this environment has "
                "none there; make it as the other one was made"
            )
        if id(target) in self._written:
            raise SnapshotError(f"{path}: the snapshot has two simulators, this environment one")
        self._objects[node.number] = self._written[id(target)] = target
        return target

    def _mujoco(self, node: MuJoCoNode, current: Any, path: str) -> Any:
        data = self._counterpart(node, current, path, "mujoco", "MjData")
        state, views = self._simulators.mujoco(data)
        computed = sum(view.size for view in views)
        saved = (node.signature, node.integration.size, node.computed.size)
        if saved != (state.signature, state.size, computed):
            raise SnapshotError(
                f"{path}: the snapshot was taken from another MuJoCo model, or by another version "
                "of MuJoCo; use those that it was taken with"
            )
        if not self._same and (state.has_indices or not np.isfinite(node.integration).all()):
            raise SnapshotError(
                f"{path}: the state of MuJoCo has numbers that a file must not bring: indices of "
                "delays, or what is not finite"
            )
        state.write(node.integration)
        at = 0
        for view in views:
            view.ravel()[:] = node.computed[at : at + view.size]
            at += view.size
        return data


def classes_in(env: Any) -> dict[str, type]:
    """Classes of the Python objects that can be reached from an environment, by their full names.

    Parameters
    ----------
    env
        The environment; none of its methods is called.
    """
    found: dict[str, type] = {}
    seen: dict[int, Any] = {}
    waiting = [env]
    while waiting:
        value = waiting.pop()
        if type(value) in LEAF_TYPES or id(value) in seen:
            continue
        if type(value) in CONTAINER_NAMES:
            seen[id(value)] = value
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif is_python_object(value) and not is_constant(value):
            seen[id(value)] = value
            found[class_name(value)] = type(value)
            waiting.extend(attributes_of(value).values())
    return found


def _blank(node: ObjectNode, kind: type, path: str) -> Any:
    """A new object of a class, for all the attributes of a snapshot's one. Nothing of the class runs."""
    bare = not any("__del__" in _ATTRIBUTES_OF_CLASS(base) for base in bases_of(kind))
    if not node.whole or not bare or any(type(c) is ConstantNode for c in node.attributes.values()):
        raise SnapshotError(
            f"{path}: the snapshot has a {node.class_name} of its own there, which this environment has "
            "not, and which cannot be made of a file alone"
        )
    try:
        return object.__new__(kind)
    except TypeError as error:  # its class is built in, or compiled
        raise SnapshotError(
            f"{path}: another {node.class_name} cannot be made ({words_of(error)})"
        ) from None


def _fits(place: Array, node: ArrayNode) -> bool:
    same_kind = place.shape == node.data.shape and place.dtype == node.data.dtype
    return same_kind and place.flags.writeable and node.writeable


def lies_within(node: ViewNode, base: Array) -> bool:
    """Whether a view stays inside its array: in Python's integers, which do not overflow.

    Parameters
    ----------
    node
        What is said of the view.
    base
        The array that owns the memory.
    """
    itemsize = np.dtype(node.dtype).itemsize
    if (
        len(node.shape) != len(node.strides)
        or len(node.shape) > 32
        or min(node.shape, default=0) < 0
    ):
        return False
    count = 1
    for length in node.shape:
        count *= length
    if count == 0:
        return max(node.shape, default=0) < 2**31 and 0 <= node.offset <= base.nbytes
    steps = [(n - 1) * stride for n, stride in zip(node.shape, node.strides, strict=True)]
    low = node.offset + sum(step for step in steps if step < 0)
    high = node.offset + sum(step for step in steps if step > 0) + itemsize
    # strides of 0 repeat what is there: not more often than any real view would
    return low >= 0 and high <= base.nbytes and count <= max(2**24, base.nbytes)
