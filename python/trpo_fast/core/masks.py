"""Action masks: which choices of a discrete action are allowed, as rows of flags.

A row has W flags, one for every choice of every component of an action, one component after the other:
n of Discrete, n1 + n2 + ... of MultiDiscrete, and two (may be 0, may be 1) for each bit of MultiBinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .distribution import Distribution

Masks = NDArray[np.bool_]


def mask_rows(
    distribution: Distribution, masks: Any, n: int, *, name: str = "action_masks"
) -> Masks:
    """Return masks as rows of flags, (n, W) bool, C-contiguous.

    Parameters
    ----------
    distribution
        Of the actions.
    masks
        n masks of 0 and 1, or False and True: (n, W); of MultiBinary also (n, A, 2), which is the same,
        and (n, A), whether each bit may be 1 (0 is allowed then); of MultiDiscrete also a tuple of
        arrays (n, n_i), one a component.
    n
        How many there must be.
    name
        What errors call them.

    Raises
    ------
    ValueError
        A continuous distribution, another shape or another value, or a component without any allowed
        choice.
    """
    sizes = distribution.mask_sizes
    if not sizes:
        raise ValueError(
            f"{name}: expected None for the continuous distribution {distribution.kind}"
            f"{distribution.sizes}, got masks; only choices can be forbidden."
        )
    W = sum(sizes)
    array = _joined(masks, len(sizes))
    widths = (W, len(sizes)) if distribution.kind == "bernoulli" else (W,)
    width = -1 if array is None or array.shape[:1] != (n,) else array[:1].size
    if array is None or array.dtype.kind not in "biuf" or width not in widths:
        raise ValueError(
            f"{name}: expected {_expected(distribution, n)}, got {_got(masks, array)}."
        )
    rows = array.reshape(n, width)
    if rows.dtype.kind != "b":
        wrong = np.argwhere((rows != 0) & (rows != 1))
        if len(wrong):
            row, entry = (int(i) for i in wrong[0])
            at = f" of row {row}" if n > 1 else ""
            raise ValueError(
                f"{name}: expected 0 or 1 in every entry, got {rows[row, entry]} in entry {entry}{at}."
            )
        rows = rows != 0
    if width != W:  # whether each bit may be 1
        rows = np.stack([np.ones_like(rows), rows], axis=2).reshape(n, W)
    allowed = np.logical_or.reduceat(rows, _starts(sizes), axis=1)
    if not allowed.all():
        row, component = (int(i) for i in np.argwhere(~allowed)[0])
        where = f" of component {component}" if len(sizes) > 1 else ""
        at = f" in row {row}" if n > 1 else ""
        raise ValueError(
            f"{name}: expected at least one allowed choice{where}, got none of its "
            f"{sizes[component]}{at}."
        )
    return np.ascontiguousarray(rows)


def refuse_forbidden(
    distribution: Distribution, actions: NDArray[Any], masks: Masks | None
) -> None:
    """Raise ValueError where a mask forbids an action that was taken.

    Parameters
    ----------
    distribution
        Of the actions.
    actions
        (N, A) int32.
    masks
        (N, W) bool, or None: nothing is forbidden.
    """
    if masks is None:
        return
    wrong = np.argwhere(~_chosen(distribution, actions, masks))
    if len(wrong):
        row, component = (int(i) for i in wrong[0])
        raise ValueError(
            f"actions: expected what action_masks allow, got {actions[row, component]} in column "
            f"{component} of row {row}, which is forbidden there; do masks and actions belong together?"
        )


def allowed_choices(
    distribution: Distribution, actions: NDArray[Any], masks: Masks | None
) -> NDArray[np.bool_]:
    """Return which of several actions a state are allowed, (N, K) bool.

    Parameters
    ----------
    distribution
        Of the actions.
    actions
        (N, K, A).
    masks
        (N, W) bool, or None: all are allowed.
    """
    N, K, A = actions.shape
    if masks is None:
        return np.ones((N, K), np.bool_)
    repeated = np.repeat(masks, K, axis=0)
    return _chosen(distribution, actions.reshape(N * K, A), repeated).all(axis=1).reshape(N, K)


def _chosen(distribution: Distribution, actions: NDArray[Any], masks: Masks) -> NDArray[np.bool_]:
    """Whether each component of each action is allowed, (N, A) bool."""
    sizes = np.array(distribution.mask_sizes)
    columns = np.clip(actions, 0, sizes - 1) + _starts(sizes.tolist())
    return np.take_along_axis(masks, columns, axis=1)


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _joined(masks: Any, components: int) -> NDArray[Any] | None:
    """One array (n, ...) of whatever was given, or None where it is ragged."""
    try:
        if isinstance(masks, tuple | list) and len(masks) == components > 1:
            parts = [np.asarray(part) for part in masks]
            if all(part.ndim == 2 for part in parts) and len({len(part) for part in parts}) == 1:
                return np.concatenate(parts, axis=1)
        array = np.asarray(masks)
    except ValueError:
        return None
    return array if array.ndim else None


def _expected(distribution: Distribution, n: int) -> str:
    sizes = distribution.mask_sizes
    W = sum(sizes)
    shapes: list[tuple[int, ...]] = [(n, W)] if n > 1 else [(W,)]
    if distribution.kind == "bernoulli":
        A = len(sizes)
        shapes = [(n, A), (n, A, 2)] if n > 1 else [(A,), (A, 2)]
    return f"0 and 1 of shape {' or '.join(map(str, shapes))}"


def _got(masks: Any, array: NDArray[Any] | None) -> str:
    if array is None:
        return type(masks).__name__
    if array.dtype.kind not in "biuf":
        return f"dtype {array.dtype}"
    return f"shape {array.shape[1:] if array.shape[:1] == (1,) else array.shape}"
