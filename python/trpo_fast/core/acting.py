"""Objects bound to rollout arrays: one native call a time step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _core

SingleOrDouble = NDArray[Any]  # float32 or float64


class Clip(Protocol):
    """``clip(actions)``: min(max(a, low), high) of C-contiguous actions (E, A), a new array."""

    def __call__(self, actions: SingleOrDouble) -> SingleOrDouble: ...


class NativeClip(Protocol):
    """A compiled clip."""

    @property
    def clip(self) -> Clip:
        """Brings actions within the bounds that it was made with."""


class WriteRow(Protocol):
    """``write(t, ...)``: fill row t, and row t + 1 of the observations.

    Returns whether an episode ended there; None where what is given is not (E, O), (E,), (E,), (E,),
    C-contiguous, of float32 or float64 and bool: whatever an environment returned may be tried.
    """

    def __call__(
        self,
        t: int,
        observations: object,
        rewards: object,
        terminated: object,
        truncated: object,
    ) -> bool | None: ...


class Actor:
    """Samples actions for the rows of preallocated rollout arrays, one native call a step.

    Parameters
    ----------
    impl
        The compiled actor, see :meth:`Policy.actor`.
    """

    def __init__(self, impl: _core.ActorF32 | _core.ActorF64) -> None:
        #: ``step(t)``: read observations[t] (raw), write actions[t] (unclipped), counters += 1.
        self.step: Callable[[int], None] = impl.step


# by the dtypes of stored actions and of bounds; the classes check the arrays that they are given
_CLIPS: dict[tuple[str, str], Callable[..., NativeClip]] = {
    ("float32", "float32"): _core.ActionClipF32ToF32,
    ("float32", "float64"): _core.ActionClipF32ToF64,
    ("float64", "float64"): _core.ActionClipF64ToF64,
}


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
        low: SingleOrDouble,
        high: SingleOrDouble,
        dtype: DTypeLike,
        *,
        center: SingleOrDouble | None = None,
        half: SingleOrDouble | None = None,
    ) -> None:
        native = _CLIPS.get((np.dtype(dtype).name, low.dtype.name))
        if native is None or high.dtype != low.dtype:
            raise TypeError(
                f"low, high: expected float bounds at least as wide as actions of "
                f"{np.dtype(dtype)}, got {low.dtype} and {high.dtype}."
            )
        arrays = (None if a is None else a.copy("C") for a in (low, high, center, half))
        self.clip: Clip = native(*arrays).clip


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
        observations: SingleOrDouble,
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        single = observations.dtype == np.float32
        native = _core.RowWriterF32 if single else _core.RowWriterF64
        self.write: WriteRow = native(observations, rewards, terminated, truncated).write


class StepWriter:
    """Writes what single environments return into rollout arrays, one native call a step.

    Parameters
    ----------
    rewards
        (T, E), float64, C-contiguous like the others; written to.
    observations
        (T + 1, E, O), float32 or float64; written to. None: they are left to somebody else.
    """

    def __init__(
        self, rewards: NDArray[np.float64], observations: SingleOrDouble | None = None
    ) -> None:
        single = observations is not None and observations.dtype == np.float32
        native = _core.StepWriterF32 if single else _core.StepWriterF64
        #: ``write(i, returned)``: store r_t and s_{t+1} of environment e, with i = t E + e. False, and
        #: either may be written, where what step() returned is not a tuple of an observation (O,),
        #: C-contiguous, of float32, float64, int64 or uint8, one number, False, False, and a dict:
        #: an end of an episode, or something that Python has to look at.
        self.write: Callable[[int, object], bool] = native(rewards, observations).write


class MaskWriter:
    """Writes action masks as environments give them into rows of flags, one native call a mask.

    Parameters
    ----------
    rows
        (R, W) bool, C-contiguous; written to.
    sizes
        Choices of each component of an action, W in all.
    """

    def __init__(self, rows: NDArray[np.bool_], sizes: Sequence[int]) -> None:
        #: ``write(row, mask)``: False, and the row may be partly written, where the mask is not a
        #: C-contiguous array (W,) of bool, int8 or int64 of 0 and 1, with a 1 for every component.
        self.write: Callable[[int, object], bool] = _core.MaskWriter(rows, list(sizes)).write
