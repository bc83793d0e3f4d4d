"""Large containers of plain values that no step changes, such as the transitions of a grid world."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Set
from typing import Any

import numpy as np

from .nodes import ContainerNode, LeafNode, Node, ObjectNode

_LEAST_ITEMS = 16  # of a table itself
_LEAST_VALUES = 200  # with those of the containers inside: fewer are stored as fast as compared
_PLAIN_KINDS = ("list", "tuple", "dict")
_PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})


def table_digest(container: Any) -> str | None:
    """A digest of the values in a large container; None where it is small or holds other things.

    It takes some 0.1 us a value, and runs no code of theirs. Equal texts say that the values are
    equal only where both containers hold nothing but plain values, see `tables_in`.

    Parameters
    ----------
    container
        A list, tuple or dictionary.
    """
    if len(container) < _LEAST_ITEMS:
        return None
    try:
        written = marshal.dumps(container, 2)  # of version 2: the values alone decide
    except ValueError:
        return None
    return hashlib.sha256(written).hexdigest()


def tables_in(node: Node) -> frozenset[str]:
    """Digests of the large containers of plain values in a snapshot that was just taken.

    Parameters
    ----------
    node
        What was recorded, of an environment that is as its constructor has left it.
    """
    found: set[str] = set()
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, ObjectNode):
            waiting.extend(inner.attributes.values())
        elif isinstance(inner, ContainerNode):
            digest = None
            if len(inner.items) >= _LEAST_ITEMS and _is_plain(inner, _LEAST_VALUES):
                digest = table_digest(inner.target)
            if digest is None:
                waiting.extend(inner.items)
            else:
                found.add(digest)
    return frozenset(found)


def known_table(container: Any, tables: Set[str]) -> str | None:
    """The digest of a container if it is one of some tables.

    Parameters
    ----------
    container
        A list, tuple or dictionary.
    tables
        What `tables_in` returned.
    """
    digest = table_digest(container) if tables else None
    return digest if digest in tables else None


def _is_plain(node: ContainerNode, least: int) -> bool:
    """Whether nested containers hold so many values, all plain, and each container stands there once."""
    waiting: list[Node] = [node]
    count = 0
    while waiting:
        count += 1
        inner = waiting.pop()
        if isinstance(inner, LeafNode):
            values = inner.value if type(inner.value) is tuple else (inner.value,)
            if not all(map(_is_plain_leaf, values)):
                return False
        elif isinstance(inner, ContainerNode) and inner.kind in _PLAIN_KINDS:
            waiting.extend(inner.items)
        else:
            return False
    return count >= least


def _is_plain_leaf(value: Any) -> bool:
    """Whether marshal writes a value by its content; it writes the bytes of NumPy's scalars."""
    if type(value) in _PLAIN_TYPES:
        return True
    return isinstance(value, np.generic) and value.dtype.kind in "biufc"
