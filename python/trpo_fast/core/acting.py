"""Objects bound to rollout arrays: one native call a time step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _core


class Actor:
    """Samples actions for the rows of preallocated rollout arrays, one native call a step.

    Parameters
    ----------
    impl
        The compiled actor, see :meth:`Policy.actor`.
    """

    def __init__(self, impl: Any) -> None:
        #: ``step(t)``: read observations[t] (raw), write actions[t] (unclipped), counters += 1.
        self.step: Callable[[int], None] = impl.step


class ActionClip:
    """Brings the stored actions of a group of environments within bounds, one native call a step.

    Parameters
    ----------
    low, high
        (A,), float32 or float64: what comes out has their dtype.
    dtype
        dtype of stored actions: float32, or that of the bounds.
    center, half
        (A,), of the dtype of the bounds, or None for both. With them, ``center + half a`` is clipped
        instead of ``a``.

    Raises
    ------
    TypeError
        If the dtypes do not agree.
    ValueError
        If the shapes do not.
    """

    def __init__(
        self,
        low: NDArray[Any],
        high: NDArray[Any],
        dtype: DTypeLike,
        *,
        center: NDArray[Any] | None = None,
        half: NDArray[Any] | None = None,
    ) -> None:
        names = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64"}
        stored, bound = names.get(np.dtype(dtype)), names.get(low.dtype)
        kind = f"ActionClip{stored}To{bound}"
        if stored is None or bound is None or high.dtype != low.dtype or not hasattr(_core, kind):
            raise TypeError(
                f"low, high: expected float bounds at least as wide as actions of "
                f"{np.dtype(dtype)}, got {low.dtype} and {high.dtype}."
            )
        arrays = (None if a is None else a.copy("C") for a in (low, high, center, half))
        impl = getattr(_core, kind)(*arrays)
        #: ``clip(actions)``: min(max(a, low), high) of C-contiguous (E, A), a new array.
        self.clip: Callable[[NDArray[Any]], NDArray[Any]] = impl.clip


class RowWriter:
    """Writes what a vector environment returns into rollout arrays, one native call a step.

    Parameters
    ----------
    observations
        (T + 1, E, O), float32 or float64, C-contiguous like the others; written to.
    rewards
        (T, E), float64.
    terminated, truncated
        (T, E), bool.
    """

    def __init__(
        self,
        observations: NDArray[Any],
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        suffix = "F32" if observations.dtype == np.float32 else "F64"
        impl = getattr(_core, f"RowWriter{suffix}")(observations, rewards, terminated, truncated)
        #: ``write(t, observations, rewards, terminated, truncated)``: fill row t, and row t + 1 of
        #: the observations. Returns whether an episode ended there; None where what is given is not
        #: (E, O), (E,), (E,), (E,), C-contiguous, of float32 or float64 and bool.
        self.write: Callable[..., bool | None] = impl.write
