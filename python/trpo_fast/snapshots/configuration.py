"""What a constructor set, told apart from state: it belongs to the environment at hand."""

from __future__ import annotations

import enum
import hashlib
import marshal
import types
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .code import code_behind, code_differs, is_of_code, short_digest
from .graph import Budget
from .nodes import (
    MAPPINGS,
    Array,
    ArrayNode,
    ConstantNode,
    ContainerNode,
    LeafNode,
    Node,
    ObjectNode,
    SnapshotError,
    TableNode,
    ViewNode,
    attribute_label,
    class_name,
    has_type,
    module_of,
    short_name,
    type_name,
)
from .replay import model_bytes
from .snapshot import inner_name, take
from .tables import tables_in

if TYPE_CHECKING:
    from .snapshot import Environment, Snapshot

Configuration: TypeAlias = dict[str, str]

# what Gymnasium notes for itself of what stands in other attributes
_NOTES = ("_saved_kwargs", "_cached_spec")
_MOST_CONSTRUCTED = 60_000  # values of a new environment, read once: some 0.2 s
_MOST_ITEMS = 200  # of a container, by name
_MOST_SHOWN = 10_000  # characters of a text that are looked at to show its beginning
_LONGEST = 60  # characters of a value that are kept as they are; of longer ones, a digest


def configuration_of(
    env: Environment, budget: Budget | None = None, *, snapshot: Snapshot | None = None
) -> Configuration:
    """Every value that can be reached from an environment, by name, as short texts.

    Read before the first reset, these are what its constructor set. Random generators and the data
    of simulators are left out: they are state from the beginning.

    Parameters
    ----------
    env
        The environment; none of its methods is called.
    budget
        How much may be read; None: no limit.
    snapshot
        What `take` has just read of it; by default it is taken here.

    Returns
    -------
    dict
        Such as `{"PendulumEnv.g": "10.0"}`. A name that occurs again has a number behind it.

    Raises
    ------
    SnapshotError
        It holds something that cannot be read.
    """
    snapshot = snapshot or take(env, budget=budget)
    found: Configuration = {}
    assert snapshot.node is not None
    for label, text in _values(snapshot.node, short_name(env)):
        name, number = label, 2
        while name in found:
            name, number = f"{label} ({number})", number + 1
        found[name] = text
    for i, model in enumerate(model_bytes(snapshot)):
        found[f"MuJoCo model {i}"] = short_digest(model)
    # last: a value that differs tells more than the code which made it
    for target, label in _coded(snapshot.node, short_name(env)):
        for name, text in code_behind(target, label):
            found.setdefault(name, text)
    return found


def constructed_by(
    env: Environment, tables: Set[str] = frozenset()
) -> tuple[Configuration, frozenset[str]]:
    """What the constructor of an environment set, and the tables in it.

    Parameters
    ----------
    env
        An environment before its first reset; none of its methods is called.
    tables
        Those of environments made alike, which are compared, not read.

    Returns
    -------
    configuration, tables
        As of `configuration_of`, and as of `tables_in`, with those given.

    Raises
    ------
    SnapshotError
        It holds something that cannot be read, or too much.
    """
    try:
        snapshot = take(env, budget=Budget(_MOST_CONSTRUCTED), tables=tables)
        assert snapshot.node is not None
        new = tables_in(snapshot.node)
        if new:
            tables = tables | new
            snapshot = take(env, budget=Budget(_MOST_CONSTRUCTED), tables=tables)
        return configuration_of(env, snapshot=snapshot), frozenset(tables)
    except SnapshotError:
        raise
    except Exception as error:  # whatever a foreign value says of itself
        raise SnapshotError(
            f"reading what the constructor of {inner_name(env)} set raised {type_name(error)}"
        ) from error


def difference(
    here: Mapping[str, str], saved: Mapping[str, str], *, but: Set[str] = frozenset()
) -> str | None:
    """The first value that differs, as a clause behind "because"; None where there is none.

    Parameters
    ----------
    here
        The environment at hand.
    saved
        The one that was saved; names that only `here` has do not count.
    but
        Names to leave out.
    """
    for name, value in saved.items():
        if is_of_code(name):
            clause = None if name in but else code_differs(name, here.get(name), value)
            if clause is not None:
                return clause
        elif name not in but and here.get(name) != value:
            return f"{name} is {here.get(name, 'missing')} now and was {value} when it was saved"
    return None


def places_of(snapshot: Snapshot) -> dict[str, Any]:
    """Every object, container and array that can be reached from an environment, by name.

    Two results tell which of them were replaced in between; hold on to both while comparing.

    Parameters
    ----------
    snapshot
        What `take` has read of it in this process.

    Returns
    -------
    dict
        The objects themselves, by the names of `configuration_of`.
    """
    found: dict[str, Any] = {}
    assert isinstance(snapshot.node, ObjectNode)
    waiting: list[tuple[Node | None, str]] = [(snapshot.node, short_name(snapshot.node.target))]
    while waiting:
        node, label = waiting.pop()
        if isinstance(node, ObjectNode | ContainerNode | TableNode | ArrayNode):
            found.setdefault(label, node.target)
        if isinstance(node, ObjectNode):
            for name, child in node.attributes.items():
                waiting.append((child, attribute_label(node.target, label, name)))
    return found


def lies_under(name: str, prefixes: Set[str]) -> bool:
    """Whether a name is of something inside one of some objects.

    Parameters
    ----------
    name
        As in `configuration_of`.
    prefixes
        Names of objects.

    Returns
    -------
    bool
        True for the names of the objects themselves, too.
    """
    return any(name == p or name.startswith((f"{p}.", f"{p}[", f"{p} (")) for p in prefixes)


def _coded(node: Node, label: str) -> Iterator[tuple[Any, str]]:
    """Classes of the objects in a snapshot, and functions that stand in attributes, each once."""
    seen: set[int] = set()
    waiting: list[tuple[Node, str]] = [(node, label)]
    while waiting:
        inner, name = waiting.pop()
        target: Any = None
        if isinstance(inner, ObjectNode):
            target = type(inner.target) if inner.whole else None
            waiting += [
                (child, attribute_label(inner.target, name, key))
                for key, child in reversed(inner.attributes.items())
            ]
        elif isinstance(inner, ContainerNode):
            waiting += [(item, name) for item in reversed(inner.items)]
        elif isinstance(inner, ConstantNode):
            target = inner.target
            if not has_type(target, (types.FunctionType, types.MethodType, type)):
                continue
        if target is not None and id(target) not in seen:
            seen.add(id(target))
            yield target, name


def _values(node: Node, label: str) -> Iterator[tuple[str, str]]:
    match node:
        case LeafNode():
            yield label, _leaf(node.value)
        case ArrayNode():
            yield label, _array(node.data)
        case ViewNode(base=ArrayNode(data=base)):
            # a part of an array and an array of its own are alike: constructors make both
            yield label, _array(np.ndarray(node.shape, node.dtype, base, node.offset, node.strides))
        case ContainerNode():
            yield from _items(node, label)
        case TableNode():
            yield label, f"{type(node.target).__name__} of {len(node.target)} ({node.digest[:16]})"
        case ObjectNode():
            yield label, f"a {node.class_name}"
            for name, child in node.attributes.items():
                if name not in _NOTES:
                    yield from _values(child, attribute_label(node.target, label, name))
        case ConstantNode():
            target = node.target
            if has_type(target, (types.FunctionType, types.BuiltinFunctionType)):
                yield label, f"function {target.__module__}.{target.__qualname__}"
            elif has_type(target, (type,)):
                yield label, f"class {module_of(target)}.{target.__qualname__}"


def _array(array: Array) -> str:
    if array.size <= 6 and array.dtype.kind in "fiub":
        return f"{array.tolist()}"
    shape = "x".join(map(str, array.shape))
    return f"an array of {shape} {array.dtype} ({short_digest(array.tobytes())})"


def _items(node: ContainerNode, label: str) -> Iterator[tuple[str, str]]:
    """The items of a container by name; of a large one of plain values, a digest of all."""
    digest = hashlib.sha256()
    if len(node.items) > _MOST_ITEMS or _size(node) > _MOST_ITEMS:
        if _digest_plain(node, digest):
            yield label, f"{node.kind} of {len(node.items)} ({digest.hexdigest()[:16]})"
            return
    elif all(isinstance(item, LeafNode) for item in node.items) and node.kind not in MAPPINGS:
        items = ", ".join(_leaf(item.value) for item in node.items if isinstance(item, LeafNode))
        yield label, _short(f"{node.kind} of {items}" if items else f"empty {node.kind}")
        return
    if node.kind in MAPPINGS:
        yield label, f"{node.kind} of {len(node.items) // 2}"
        for key, item in zip(node.items[::2], node.items[1::2], strict=True):
            name = _leaf(key.value) if isinstance(key, LeafNode) else "..."
            yield from _values(item, f"{label}[{name}]")
        return
    yield label, f"{node.kind} of {len(node.items)}"
    for i, item in enumerate(node.items):
        yield from _values(item, f"{label}[{i}]")


def _size(node: Node) -> int:
    """Values in nested containers, counted as far as it matters."""
    count, waiting = 0, [node]
    while waiting and count <= _MOST_ITEMS:
        inner = waiting.pop()
        count += 1
        if isinstance(inner, ContainerNode):
            waiting.extend(inner.items)
    return count


def _digest_plain(node: ContainerNode, digest: Any) -> bool:
    """Add everything in nested containers to a digest; False where it is not all plain values."""
    digest.update(f"{node.kind}{len(node.items)}".encode())
    for item in node.items:
        if isinstance(item, LeafNode):
            digest.update(repr(item.value).encode(errors="replace"))
        elif not isinstance(item, ContainerNode) or not _digest_plain(item, digest):
            return False
    return True


def _leaf(value: Any) -> str:
    if has_type(value, (enum.Enum,)):
        return f"{short_name(value)}.{value.name}"
    if isinstance(value, np.generic):
        return _short(f"{value.dtype} {value!r}")
    if type(value) in (str, bytes) and len(value) > _MOST_SHOWN:
        content = value if type(value) is bytes else value.encode(errors="replace")
        return f"a {type(value).__name__} of {len(value)} ({short_digest(content)})"
    if type(value) in (str, bytes, int, float, complex, bool, type(None), tuple, frozenset):
        try:
            text = repr(sorted(value, key=repr) if type(value) is frozenset else value)
        except ValueError:  # Python writes no integers of very many digits
            text = f"a {type(value).__name__} of {short_digest(marshal.dumps(value, 2))}"
        return _short(text)
    return _short(f"{class_name(value)} {value!r}")


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 20]}... ({short_digest(text.encode(errors='replace'))})"
