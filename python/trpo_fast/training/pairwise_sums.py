"""The order in which NumPy adds up an array, where parts of the array are in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["added", "leaves_of", "pairwise_ranges"]

_LEAF = 128  # entries that NumPy adds up without halving them


def pairwise_ranges(begin: int, end: int, bounds: Any) -> Any:
    """How NumPy adds up the entries of an array, as far as no part holds all of a range.

    Parameters
    ----------
    begin, end
        Of the range.
    bounds
        Where parts begin and end.

    Returns
    -------
    tuple
        A range, or a pair of such tuples and None.
    """
    n = end - begin
    if n <= _LEAF or not any(begin < bound < end for bound in bounds):
        return begin, end
    half = n // 2
    half -= half % 8
    middle = begin + half
    return pairwise_ranges(begin, middle, bounds), pairwise_ranges(middle, end, bounds), None


def leaves_of(tree: Any) -> list[tuple[int, int]]:
    """Return the ranges of a tree, in their order.

    Parameters
    ----------
    tree
        What :func:`pairwise_ranges` has returned.
    """
    if len(tree) == 2:
        return [tree]
    return leaves_of(tree[0]) + leaves_of(tree[1])


def added(tree: Any, sums: Mapping[tuple[int, int], float]) -> float:
    """Return the sum of all ranges, added as NumPy does.

    Parameters
    ----------
    tree
        What :func:`pairwise_ranges` has returned.
    sums
        Of each of its ranges.
    """
    if len(tree) == 2:
        return sums[tree]
    return added(tree[0], sums) + added(tree[1], sums)
