"""Generalised advantage estimation and conjugate gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .checks import Float64, finite, flags, integer, numeric_array, shaped


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Float64, Float64]:
    """Generalised advantage estimation (Schulman et al. 2016, equations 16 and 18).

    ::

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)       V(s_{t+1}) = 0 where terminated
        A_t     = delta_t + gamma lambda A_{t+1}        A_{t+1} = 0 where terminated or truncated
        R_t     = A_t + V(s_t)

    All arrays are (T, E), time first. ``next_values[t, e]`` is V of the *true* successor of step t:
    at a truncation that of the final observation, not of the first one after the reset; where
    terminated it is ignored. lambda = 1 gives Monte Carlo returns, lambda = 0 one-step TD errors.

    Parameters
    ----------
    rewards
        r_t: (T, E), in any unit.
    values
        V(s_t): (T, E), in the unit of the rewards.
    next_values
        V of the true successor of step t: (T, E), in the unit of the rewards.
    terminated
        Whether step t ended in a terminal state: (T, E), booleans.
    truncated
        Whether the recursion ends at step t for another reason: (T, E), booleans.
    gamma
        Discount factor, in [0, 1].
    gae_lambda
        lambda, in [0, 1].

    Returns
    -------
    advantages, returns
        A and R: (T, E), float64, in the unit of the rewards.

    Raises
    ------
    ValueError, TypeError
        An array of another shape or of no numbers, or a number out of range.
    """
    r = numeric_array("rewards", rewards, np.float64)
    if r.ndim != 2:
        raise ValueError(f"rewards: expected shape (T, E), got {r.shape}.")
    return _core.gae(
        r,
        shaped("values", values, np.float64, r.shape),
        shaped("next_values", next_values, np.float64, r.shape),
        flags("terminated", terminated, r.shape),
        flags("truncated", truncated, r.shape),
        finite("gamma", gamma, 0.0, 1.0, "a number in [0, 1]"),
        finite("gae_lambda", gae_lambda, 0.0, 1.0, "a number in [0, 1]"),
    )


@dataclass(frozen=True, kw_only=True)
class ConjugateGradientResult:
    """What :func:`conjugate_gradient` found."""

    x: Float64
    """The last iterate that was finite, (n,)."""

    status: Literal[
        "converged", "max_iterations", "non_positive_curvature", "non_finite", "zero_rhs"
    ]
    """How it ended."""

    iterations: int
    """Products with the operator."""

    relative_residual: float
    """||b - A x|| / ||b||, by the recursion."""

    message: str
    """One sentence with the numbers."""


def conjugate_gradient(
    operator: Callable[[Float64], ArrayLike],
    b: ArrayLike,
    *,
    max_iterations: int = 10,
    tolerance: float = 1e-10,
    preconditioner: Callable[[Float64], ArrayLike] | None = None,
) -> ConjugateGradientResult:
    """Solve A x = b for a symmetric positive definite A given as ``operator(v) = A v``.

    Starts from zero, in float64 (Hestenes & Stiefel 1952). Stops when ||b - A x|| <= tolerance ||b||
    or after ``max_iterations`` products. Non-positive curvature or a non-finite number ends it with
    that status and the last good iterate: numerical trouble is data, not an exception.

    ``preconditioner(r) = M^-1 r``, with M symmetric, positive definite and near A, makes fewer
    products do (Shewchuk 1994, section 12); see :meth:`FisherOperator.kronecker_preconditioner`.

    Parameters
    ----------
    operator
        v (n,) float64 to A v (n,).
    b
        (n,).
    max_iterations
        Products at most, 0 or more.
    tolerance
        Of the relative residual, 0 or more.
    preconditioner
        r (n,) float64 to M^-1 r (n,); None: the identity.

    Returns
    -------
    ConjugateGradientResult
        x, and how it was found.

    Raises
    ------
    ValueError, TypeError
        An argument, or what a callable returned, of another shape, type or range.
    """
    for name, given in (("operator", operator), ("preconditioner", preconditioner)):
        if not callable(given) and (given is not None or name == "operator"):
            raise TypeError(f"{name}: expected a callable of a vector, got {type(given).__name__}.")
    rhs = numeric_array("b", b, np.float64)
    if rhs.ndim != 1:
        raise ValueError(f"b: expected shape (n,), got {rhs.shape}.")

    def checked(
        name: str, function: Callable[[Float64], ArrayLike]
    ) -> Callable[[Float64], Float64]:
        return lambda v: shaped(f"{name}'s result", function(v), np.float64, rhs.shape)

    result = _core.conjugate_gradient(
        checked("operator", operator),
        rhs,
        integer("max_iterations", max_iterations, 0, 2**31 - 1),
        finite("tolerance", tolerance, 0.0, math.inf, "a finite number of at least 0"),
        None if preconditioner is None else checked("preconditioner", preconditioner),
    )
    return ConjugateGradientResult(**result)
