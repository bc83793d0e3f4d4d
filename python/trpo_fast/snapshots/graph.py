"""Walking an environment: copying everything that can change, and writing it back."""

from __future__ import annotations

import enum
import random
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .nodes import (
    BIT_GENERATORS,
    CONTAINER_NAMES,
    CONTAINERS,
    LEAF_TYPES,
    MAPPINGS,
    MEMORY_LEAF_TYPES,
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
    ViewNode,
    attributes_of,
    class_name,
    is_a,
    is_constant,
    is_named_tuple,
    is_python_object,
    slot_names,
)
from .simulators import Simulators


class Recorder:
    """Copies the state of everything that can be reached from an environment."""

    def __init__(self, simulators: Simulators) -> None:
        self._simulators = simulators
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay taken while recording
        self.models: list[Any] = []  # MuJoCo models

    def _number(self, value: Any) -> int:
        number = self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        return number

    def record(self, value: Any, path: str) -> Node:
        cls = type(value)
        if cls in LEAF_TYPES or isinstance(value, np.generic | enum.Enum):
            return LeafNode(value)
        known = self._numbers.get(id(value))
        if known is not None:
            return ReferenceNode(known)
        if cls is np.ndarray:
            return self._array(value, path)
        if cls in CONTAINER_NAMES or is_named_tuple(value):
            return self._container(value, path)
        if isinstance(value, MEMORY_LEAF_TYPES):
            return LeafNode(value)
        if cls in (np.random.Generator, np.random.RandomState, random.Random):
            return self._generator(value, path)
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
            return self._space(value, path)
        if is_python_object(value):
            node = ObjectNode(self._number(value), class_name(value), {}, True, value)
            for name, attribute in attributes_of(value).items():
                node.attributes[name] = self.record(attribute, f"{path}.{name}")
            return node
        raise SnapshotError(
            f"{path} is a {class_name(value)}, whose state cannot be read; "
            "give its class __deepcopy__, or keep such objects out of the environment"
        )

    def _array(self, value: Array, path: str) -> Node:
        if value.dtype.hasobject:
            raise SnapshotError(
                f"{path} is an array of Python objects, which cannot be saved; use a list"
            )
        flags, base = value.flags, value.base
        number = self._number(value)
        if type(base) is np.ndarray and base.flags.owndata and base.flags.c_contiguous:
            # a part of another array: it stays one
            offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            node = self.record(base, f"{path}.base")
            return ViewNode(
                number, node, value.dtype.str, value.shape, value.strides, offset, flags.writeable
            )
        return ArrayNode(number, value.copy(), not flags.owndata, flags.writeable, value)

    def _container(self, value: Any, path: str) -> Node:
        kind = CONTAINER_NAMES.get(type(value), "namedtuple")
        if kind in ("tuple", "frozenset") and all(type(item) in LEAF_TYPES for item in value):
            return LeafNode(value)
        node = ContainerNode(self._number(value), kind, [], getattr(value, "maxlen", None), value)
        if kind in MAPPINGS:
            for key, item in value.items():
                node.items.append(self.record(key, f"{path} key"))
                node.items.append(self.record(item, f"{path}[{key!r}]"))
        else:
            node.items.extend(self.record(item, f"{path}[{i}]") for i, item in enumerate(value))
        return node

    def _generator(self, value: Any, path: str) -> Node:
        number = self._number(value)
        if isinstance(value, np.random.Generator):
            kind = "Generator"
            bits = value.bit_generator
            if type(bits).__name__ not in BIT_GENERATORS:
                raise SnapshotError(
                    f"{path} draws from a {class_name(bits)}, whose state is not known here; "
                    f"use one of NumPy's {', '.join(BIT_GENERATORS)}"
                )
            state: Any = bits.state
        elif isinstance(value, np.random.RandomState):
            kind, state = "RandomState", value.get_state(legacy=True)
        else:
            kind, state = "Random", value.getstate()
        return GeneratorNode(number, kind, self.record(state, path), value)

    def _space(self, value: Any, path: str) -> Node:
        """Of a space only its generator changes, and the generators of its parts."""
        node = ObjectNode(self._number(value), class_name(value), {}, False, value)
        for name, attribute in vars(value).items():
            parts = attribute.values() if isinstance(attribute, Mapping) else attribute
            is_part = is_a(attribute, "gymnasium.spaces", "Space") or (
                isinstance(attribute, Mapping | Sequence)
                and any(is_a(part, "gymnasium.spaces", "Space") for part in parts)
            )
            if is_part or name == "_np_random":
                node.attributes[name] = self.record(attribute, f"{path}.{name}")
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


class Restorer:
    """Writes recorded values back.

    `same` says that the snapshot was taken from this very environment: then every object is put
    back into its place, whatever the environment did with it since. Otherwise values are written
    into the objects that stand in the same places.
    """

    def __init__(self, simulators: Simulators, same: bool) -> None:
        self._simulators = simulators
        self._same = same
        self._objects: dict[int, Any] = {}

    def restore(self, node: Node, current: Any, path: str) -> Any:
        """The value that belongs where `current` is."""
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
        if target is None or target is MISSING or type(target).__name__ != node.kind:
            # not there before the first reset
            target = {"Random": random.Random, "RandomState": np.random.RandomState}.get(
                node.kind, np.random.default_rng
            )()
        try:
            if node.kind == "Generator":
                name = state["bit_generator"]
                if type(target.bit_generator).__name__ != name:
                    if name not in BIT_GENERATORS:
                        raise ValueError(f"unknown bit generator {name!r}")
                    target = np.random.Generator(getattr(np.random, name)())
                target.bit_generator.state = state
            elif node.kind == "RandomState":
                target.set_state(state)
            else:
                target.setstate(state)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise SnapshotError(
                f"{path}: the snapshot's random state does not fit ({error})"
            ) from None
        self._objects[node.number] = target
        return target

    def _object(self, node: ObjectNode, current: Any, path: str) -> Any:
        target = node.target if self._same else current
        found = "nothing" if target is MISSING else class_name(target)
        if found != node.class_name:
            raise SnapshotError(
                f"{path}: the snapshot was taken from a {node.class_name}, this environment has "
                f"{found}; make it as the other one was made, and reset it once"
            )
        self._objects[node.number] = target
        here = attributes_of(target)
        values = {
            name: self.restore(child, here.get(name, MISSING), f"{path}.{name}")
            for name, child in node.attributes.items()
        }
        dictionary = getattr(target, "__dict__", {})
        slots = slot_names(type(target))
        if node.whole:
            for name in here.keys() - values.keys():
                if name in dictionary:
                    del dictionary[name]
                else:
                    delattr(target, name)
        for name, value in values.items():
            if value is MISSING:
                continue  # a constant of the other environment that this one does not have
            if name in slots:
                object.__setattr__(target, name, value)
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
        self._objects[node.number] = target
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
        state.write(node.integration)
        at = 0
        for view in views:
            view.ravel()[:] = node.computed[at : at + view.size]
            at += view.size
        return data


def _fits(place: Array, node: ArrayNode) -> bool:
    same_kind = place.shape == node.data.shape and place.dtype == node.data.dtype
    return same_kind and place.flags.writeable and node.writeable
