"""Stored actions as what `env.step` expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import unsupported_space
from .plain_spaces import Box, Discrete, MultiBinary, MultiDiscrete, plain_space

if TYPE_CHECKING:
    from ..core import Distribution

Array: TypeAlias = npt.NDArray[Any]

_SUPPORTED = "Box, Discrete, MultiDiscrete or MultiBinary"
_NO_BOUND = 1e30  # the size of a bound that is taken for infinity


class ActionAdapter:
    """Turns stored actions into what `env.step` expects.

    Stored actions are what the distribution sampled: float rows, unclipped, for a Gaussian;
    int32 rows, counted from 0, for discrete distributions. They are clipped and shifted here, on a
    copy, because the log-probability belongs to the action that was sampled.

    * Box: with `scaling`, [-1, 1] is mapped to [low, high] in every dimension where both are finite:
      `(low + high) / 2 + (high - low) / 2 a`; then clipped to `[low, high]`, reshaped, in the dtype
      of the space (integer dtypes: rounded to the nearest integer);
    * Discrete: `int(action) + start`; MultiDiscrete: `action + start`, reshaped; MultiBinary:
      reshaped; all in the dtype of the space.

    Parameters
    ----------
    space
        The action space of one environment: Gymnasium's, or one of :mod:`.plain_spaces`.
    state_dependent_std
        The deviation of a Gaussian is an output of the network, not a free vector.
    scaling
        Map [-1, 1] to the finite bounds of a Box, where these are others. A bound of 1e30 and more
        stands for none, as users write the largest float where they mean infinity.

    Attributes
    ----------
    space
        The action space of one environment.
    kind : str
        Kind of the distribution, see `trpo_fast.core.Distribution`.
    sizes : tuple of int
        Its sizes: (A,) for a Gaussian, (n,) for Discrete, (n1, n2, ...) for MultiDiscrete, (A,) for
        MultiBinary.
    action_dim : int
        A, the length of a stored row.
    is_discrete : bool
        Stored actions are integers.
    notice : str
        Sentences about bounds that actions are mapped to, and about entries with one finite bound;
        empty where there are none.

    Raises
    ------
    TypeError
        If no distribution fits the space.
    ValueError
        If the space has no entries.
    """

    def __init__(
        self, space: Any, state_dependent_std: bool = False, scaling: bool = False
    ) -> None:
        self.space = space
        self._plain = plain = plain_space(space)
        self.state_dependent_std = bool(state_dependent_std)
        self.kind: str
        self.sizes: tuple[int, ...]
        # what is added to a stored discrete action, which counts from 0
        self._start: Array | None = None
        if isinstance(plain, Box):
            self.kind = "state_dependent_gaussian" if state_dependent_std else "gaussian"
            self.sizes = (int(np.prod(plain.shape, dtype=np.int64)),)
        elif isinstance(plain, Discrete):
            self.kind, self.sizes = "categorical", (int(plain.n),)
            self._start = np.asarray(plain.start)
        elif isinstance(plain, MultiDiscrete):
            self.kind = "multi_categorical"
            self.sizes = tuple(int(n) for n in plain.nvec.ravel())
            self._start = np.asarray(plain.start)
        elif isinstance(plain, MultiBinary):
            self.kind = "bernoulli"
            self.sizes = (int(np.prod(plain.shape, dtype=np.int64)),)
        else:
            raise unsupported_space("action", space, _SUPPORTED)
        if sum(self.sizes) == 0:
            raise ValueError(f"action space: {space} has no entries; a policy needs at least one")
        if isinstance(plain, Box) and plain.low is not None and plain.high is not None:
            _require_bounds(plain.low.ravel(), plain.high.ravel())
        self.action_dim = {"categorical": 1, "multi_categorical": len(self.sizes)}.get(
            self.kind, self.sizes[0]
        )
        self.is_discrete = "gaussian" not in self.kind
        self.scaling = bool(scaling)
        # (center, half) of the bounds of a Box; None where no action is scaled
        self._range: tuple[Array, Array] | None = None
        if scaling and not self.is_discrete:
            self._range = _range_of(plain.low.ravel(), plain.high.ravel())
        self.notice = ""
        if scaling and not self.is_discrete:
            notices = (self._range and _scaling_notice(plain), _half_bounded_notice(plain))
            self.notice = "; ".join(notice for notice in notices if notice)

    @classmethod
    def from_space(
        cls, space: Any, *, state_dependent_std: bool = False, scaling: bool = False
    ) -> ActionAdapter:
        """Return `ActionAdapter(space, state_dependent_std, scaling)`.

        Parameters
        ----------
        space
            The Gymnasium space.
        state_dependent_std
            As in the class.
        scaling
            As in the class.
        """
        return cls(space, state_dependent_std, scaling)

    @property
    def range(self) -> tuple[Array, Array] | None:
        """Center and half width (A,) of the bounds that [-1, 1] is mapped to; None without scaling."""
        return self._range

    @property
    def distribution(self) -> Distribution:
        """The action distribution that fits this space."""
        from ..core import Distribution

        return Distribution(self.kind, self.sizes)  # type: ignore[arg-type, unused-ignore]

    def stored_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the dtype of stored actions: int32, or the policy's `dtype` for a Gaussian.

        Parameters
        ----------
        dtype
            That of the policy, float32 or float64.
        """
        return np.dtype(np.int32) if self.is_discrete else np.dtype(dtype)

    def to_env(self, actions: Array) -> Any:
        """Turn stored actions into those that the environment takes.

        Parameters
        ----------
        actions
            One row (A,), or a batch (N, A), of `stored_dtype`.

        Returns
        -------
        ndarray or int
            For one row: an array of the space's shape and dtype, or an `int` for Discrete. For a
            batch: an array of shape (N, *space.shape), as `VectorEnv.step` expects. Always a new
            object, never a view of `actions`.

        Raises
        ------
        ValueError
            If the shape is another one.
        """
        actions = np.asarray(actions)
        if actions.shape[-1:] != (self.action_dim,) or actions.ndim > 2:
            raise ValueError(
                f"actions: expected shape ({self.action_dim},) or (N, {self.action_dim}), "
                f"got {actions.shape}; is the action space {self.space}?"
            )
        rows = np.ascontiguousarray(actions[np.newaxis] if actions.ndim == 1 else actions)
        converted = self.batch_converter(len(rows), rows.dtype)(rows)
        if actions.ndim == 1:
            row = converted[0, ...]
            return int(row) if self.kind == "categorical" else row
        return converted

    def from_env(self, actions: Any, dtype: npt.DTypeLike) -> Array:
        """Turn actions as the environment takes them into stored ones: the inverse of `to_env`.

        Parameters
        ----------
        actions
            A batch (N, *space.shape). Numbers of a Box may lie beyond its bounds: nothing is
            clipped, because a stored action is not.
        dtype
            dtype of a Gaussian policy.

        Returns
        -------
        ndarray
            (N, A) of `stored_dtype`.

        Raises
        ------
        ValueError
            If the shape is another one, or a discrete action lies outside the space.
        TypeError
            If discrete actions are no integers.
        """
        shape: tuple[int, ...] = self._plain.shape
        try:
            values = np.asarray(actions)
        except ValueError as error:
            raise ValueError(f"actions: expected a rectangular array ({error}).") from None
        if values.ndim == 0 or values.shape[1:] != shape:
            expected = ", ".join(["N", *map(str, shape)]) + ("" if shape else ",")
            raise ValueError(
                f"actions: expected shape ({expected}), got {values.shape}; is the action space "
                f"{self.space}?"
            )
        rows = values.reshape(len(values), -1)
        if not self.is_discrete:
            if rows.dtype.kind not in "fiu":
                raise TypeError(f"actions: expected numbers, got dtype {rows.dtype}.")
            if self._range is not None:
                center, half = self._range
                # a dimension that has one value only is the image of every stored number: 0 is one
                rows = (rows - center) / np.where(half == 0.0, 1.0, half)
            return np.ascontiguousarray(rows, dtype=dtype)
        if rows.dtype.kind not in "iub":
            raise TypeError(f"actions: expected integers, got dtype {rows.dtype}.")
        counts = np.full(self.action_dim, 2) if self.kind == "bernoulli" else np.array(self.sizes)
        counted = rows.astype(np.int64)
        if self._start is not None:
            counted = counted - self._start.ravel()
        if ((counted < 0) | (counted >= counts)).any():
            row = int(np.argmax(((counted < 0) | (counted >= counts)).any(axis=1)))
            raise ValueError(
                f"actions: expected elements of {self.space}, got {values[row]!r} in row {row}."
            )
        return counted.astype(np.int32)

    def batch_converter(
        self, n: int, dtype: npt.DTypeLike | None = None
    ) -> Callable[[Array], Array]:
        """Return the function behind `to_env` for batches of one size, without its checks.

        Parameters
        ----------
        n
            Number of actions N at every call.
        dtype
            dtype of the stored actions where the caller knows it; they must be C-contiguous then.

        Returns
        -------
        callable
            From stored actions (N, A) to a new array (N, *space.shape) of the space's dtype.
        """
        space_dtype = np.dtype(self._plain.dtype)
        shape: tuple[int, ...] = (n, *self._plain.shape)
        if self.is_discrete:
            return self._discrete_converter(space_dtype, shape)
        low, high = self._plain.low.ravel(), self._plain.high.ravel()
        is_float = space_dtype in (np.float32, np.float64)
        if is_float and dtype is not None and np.promote_types(dtype, space_dtype) == space_dtype:
            from ..core import ActionClip

            center, half = self._range or (None, None)
            native = ActionClip(low, high, dtype, center=center, half=half).clip
            return native if len(shape) == 2 else lambda actions: native(actions).reshape(shape)

        def clip(actions: Array) -> Array:
            if self._range is not None:
                center, half = self._range
                actions = center + half * actions
            clipped: Array = np.minimum(np.maximum(actions, low), high)
            return clipped

        if space_dtype.kind != "f":
            return lambda actions: np.rint(clip(actions)).astype(space_dtype).reshape(shape)
        return lambda actions: clip(actions).astype(space_dtype, copy=False).reshape(shape)

    def _discrete_converter(
        self, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Callable[[Array], Array]:
        start = self._start
        if start is None or not start.any():
            return lambda actions: actions.astype(dtype).reshape(shape)
        return lambda actions: actions.astype(dtype).reshape(shape) + start

    def step_converter(
        self, n: int, dtype: npt.DTypeLike | None = None
    ) -> Callable[[Array], Sequence[Any]]:
        """Return a function that makes N separate arguments of `env.step`.

        Parameters
        ----------
        n, dtype
            As in `batch_converter`.

        Returns
        -------
        callable
            From stored actions (N, A) to a sequence of N actions: arrays, or `int` for Discrete.
            They are new objects at every call, because an environment may keep its action.
        """
        if self.kind != "categorical":
            convert = self.batch_converter(n, dtype)
            if self._plain.shape:
                return convert  # type: ignore[return-value]
            # a Box without axes takes arrays without axes, where indexing would give NumPy scalars
            return lambda actions: list(map(np.squeeze, np.split(convert(actions), n)))
        start = int(self._plain.start)
        if n == 1:
            return lambda actions: [actions.item() + start]
        if start == 0:
            return lambda actions: actions.ravel().tolist()
        return lambda actions: (actions.ravel() + start).tolist()

    def __repr__(self) -> str:
        return f"ActionAdapter({self.space}, kind={self.kind!r}, sizes={self.sizes})"


def _require_bounds(low: Array, high: Array) -> None:
    """Raise ValueError where no number lies between two bounds; NaN is none."""
    if not (low <= high).all():
        k = int(np.argmin(low <= high))
        raise ValueError(
            f"action space: expected lower bounds up to the upper ones, got {low[k]} and {high[k]} "
            f"of entry {k}; mend the low and high of the environment's action_space"
        )


def _range_of(low: Array, high: Array) -> tuple[Array, Array] | None:
    """Return center and half width of each dimension; None where every one is [-1, 1] or unbounded.

    A dimension without two finite bounds gets center 0 and half width 1, which changes nothing.
    """
    dtype = low.dtype if low.dtype.kind == "f" else np.dtype(np.float64)
    # halves first: the difference of two large bounds may overflow
    below, above = low.astype(np.float64) / 2.0, high.astype(np.float64) / 2.0
    bounded = (np.abs(below) < _NO_BOUND / 2.0) & (np.abs(above) < _NO_BOUND / 2.0)
    below, above = np.where(bounded, below, -0.5), np.where(bounded, above, 0.5)
    center, half = above + below, above - below
    if not center.any() and (half == 1.0).all():
        return None
    return center.astype(dtype), half.astype(dtype)


def _scaling_notice(space: Any) -> str:
    return (
        f"actions of the policy are mapped from [-1, 1] to the bounds of {_bounds_of(space)}; "
        "action_scaling=False passes them on unchanged"
    )


def _half_bounded_notice(space: Any) -> str:
    """A sentence about entries with one finite bound, which have no middle and no width."""
    low, high = (np.abs(bound.astype(np.float64)) < _NO_BOUND for bound in (space.low, space.high))
    n_half = int((low ^ high).sum())
    if not n_half:
        return ""
    return (
        f"{n_half} of {low.size} entries of actions of {_bounds_of(space)} have one finite bound: "
        "they are not scaled, and are clipped at that bound; gymnasium.wrappers.TransformAction puts "
        "them into another unit"
    )


def _bounds_of(space: Any) -> str:
    low, high = np.unique(space.low), np.unique(space.high)
    return f"Box({low[0]:g}, {high[0]:g})" if len(low) == len(high) == 1 else str(space)
