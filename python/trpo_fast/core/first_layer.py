"""Which batches of observations the first layer of a network takes as sums of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .checks import numeric_array, rectangular


def sums_columns(observations: ArrayLike) -> bool:
    """Whether updates and value fits take sums of columns for the first layer on these rows.

    Rows do where they are at least 64 numbers wide, at least 32 many, and differ, from what most of some
    rows have in a column, in an eighth of the numbers at most: as one-hots do, normalised or not. The
    answer depends on the rows alone, never on the machine or its threads; an actor, which sees few
    rows, decides for each by what the policy's normaliser makes of zeros.

    Parameters
    ----------
    observations
        (N, O), as the network sees them: normalised where it normalises. float64 is taken as it is,
        every other dtype becomes float32.

    Returns
    -------
    bool
        False also where :func:`trpo_fast.runtime.set_first_layer` says "dense".

    Examples
    --------
    >>> sums_columns(np.eye(500))
    True
    """
    kind = rectangular("observations", observations).dtype
    dtype = np.float64 if kind == np.float64 else np.float32
    return _core.sums_columns(numeric_array("observations", observations, dtype))
