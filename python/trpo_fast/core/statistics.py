"""Running mean and variance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .checks import Float64, entry, integer, numeric_array, rectangular, shaped


class RunningStatistics:
    """Mean and variance of vectors seen so far, merged in a fixed order (Chan et al. 1979).

    ``update`` with the same rows in the same batches gives the same bits on any machine load.

    Parameters
    ----------
    dim
        Width of the vectors, at least 1.
    """

    def __init__(self, dim: int) -> None:
        self._stats = _core.RunningStats(integer("dim", dim, 1, 2**31 - 1))

    def __getstate__(self) -> dict[str, Any]:
        """What ``copy`` and ``pickle`` keep."""
        return dict(self.state_dict())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._stats = _core.RunningStats(len(state["mean"]))
        self.load_state_dict(state)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._stats.dim

    @property
    def count(self) -> float:
        """Rows seen."""
        return self._stats.count

    @property
    def mean(self) -> Float64:
        """(dim,) float64; zeros before the first row."""
        return self._stats.mean

    @property
    def variance(self) -> Float64:
        """(dim,) float64, population variance; ones before the first row."""
        if self.count == 0:
            return np.ones(self.dim)
        return self._stats.m2 / self.count

    def update(self, batch: ArrayLike) -> None:
        """Merge ``batch`` (N, dim).

        Parameters
        ----------
        batch
            Rows (N, dim) of finite numbers; float32 is taken as it is, every other dtype becomes
            float64.
        """
        kind = rectangular("batch", batch).dtype
        array = numeric_array("batch", batch, np.float32 if kind == np.float32 else np.float64)
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise ValueError(f"batch: expected shape (N, {self.dim}), got {array.shape}.")
        if not np.isfinite(array).all():
            raise ValueError("batch: expected finite numbers, got NaN or infinity.")
        self._stats.update(array)

    def state_dict(self) -> dict[str, Float64]:
        """Exact state: count (1,), mean (dim,), m2 (dim,)."""
        return {
            "count": np.array([self.count]),
            "mean": self._stats.mean,
            "m2": self._stats.m2,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, bit for bit.

        Parameters
        ----------
        state
            What :meth:`state_dict` returned.
        """
        self._stats.restore(
            float(shaped("count", entry("statistics", state, "count"), np.float64, (1,))[0]),
            shaped("mean", entry("statistics", state, "mean"), np.float64, (self.dim,)),
            shaped("m2", entry("statistics", state, "m2"), np.float64, (self.dim,)),
        )
