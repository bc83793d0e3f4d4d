"""Conjugate gradient, line search, the TRPO update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .policy import Policy
from .types import Array

ADVANTAGE_STD_FLOOR = 1e-8


@dataclass
class ConjugateGradientResult:
    x: Array
    status: str
    iterations: int
    relative_residual: float


def conjugate_gradient(
    operator: Callable[[Array], Array],
    b: Array,
    *,
    max_iterations: int = 10,
    tolerance: float = 1e-6,
) -> ConjugateGradientResult:
    """Solve A x = b from x = 0; stop at |r| <= tolerance |b| (Hestenes and Stiefel, 1952)."""
    x, r = np.zeros_like(b), b.copy()
    if not np.all(np.isfinite(b)):
        return ConjugateGradientResult(x, "non_finite", 0, math.nan)
    b_norm = float(np.linalg.norm(b))
    if b_norm == 0.0:
        return ConjugateGradientResult(x, "zero_rhs", 0, 0.0)
    p, r_r = r.copy(), float(r @ r)
    for iteration in range(max_iterations):
        a_p = operator(p)
        curvature = float(p @ a_p)
        residual = math.sqrt(r_r) / b_norm
        if not math.isfinite(curvature):
            return ConjugateGradientResult(x, "non_finite", iteration, residual)
        if not curvature > 0.0:
            return ConjugateGradientResult(x, "non_positive_curvature", iteration, residual)
        alpha = r_r / curvature
        x = x + alpha * p
        r = r - alpha * a_p
        r_r_new = float(r @ r)
        residual = math.sqrt(r_r_new) / b_norm
        if residual <= tolerance:
            return ConjugateGradientResult(x, "converged", iteration + 1, residual)
        p = r + (r_r_new / r_r) * p
        r_r = r_r_new
    return ConjugateGradientResult(x, "max_iterations", max_iterations, math.sqrt(r_r) / b_norm)


def standardize(advantages: Array) -> Array:
    """(A - mean) / max(std, floor), population deviation."""
    centred = advantages - advantages.mean()
    return centred / max(float(advantages.std()), ADVANTAGE_STD_FLOOR)


@dataclass
class Update:
    status: str
    parameters: Array
    gradient: Array
    direction: Array | None = None  # x
    full_step: Array | None = None  # beta x
    cg: ConjugateGradientResult | None = None
    backtracks: int = 0
    kl: float = 0.0
    kl_max: float = 0.0
    kl_predicted: float = 0.0
    surrogate_gain: float = 0.0
    surrogate_gain_predicted: float = 0.0
    entropy_before: float = 0.0
    entropy: float = 0.0
    trials: list[tuple[float, float]] = field(default_factory=list)  # (KL, gain) of each j


def trpo_update(
    policy: Policy,
    parameters: Array,
    obs: Array,
    actions: Array,
    advantages: Array,
    *,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-6,
    cg_damping: float = 0.1,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    standardize_advantages: bool = True,
) -> Update:
    """One TRPO update (Schulman et al., 2015, appendix C), with the damped quadratic model.

    x = (F + lambda I)^-1 g;  beta = sqrt(2 delta / x^T (F + lambda I) x);
    theta = theta_k + alpha^j beta x with the smallest j in 0..max_backtracks for which
    KL <= delta and L improves. Otherwise theta_k.
    """
    if standardize_advantages:
        advantages = standardize(advantages)
    gradient = policy.surrogate_gradient(parameters, parameters, obs, actions, advantages)
    entropy = float(policy.entropy(parameters, obs).mean())
    result = Update("zero_gradient", parameters.copy(), gradient)
    result.entropy = result.entropy_before = entropy
    if not np.any(gradient):
        return result

    def damped_fisher(vector: Array) -> Array:
        return policy.fisher_vector_product(parameters, obs, vector, cg_damping)

    cg = conjugate_gradient(
        damped_fisher, gradient, max_iterations=cg_iterations, tolerance=cg_tolerance
    )
    x = cg.x
    result.cg, result.direction = cg, x
    x_ax = float(gradient @ x)
    if not x_ax > 0.0:
        result.status = "non_positive_curvature"
        return result
    step = math.sqrt(2.0 * max_kl / x_ax) * x
    result.full_step = step

    before = policy.surrogate(parameters, parameters, obs, actions, advantages)
    for j in range(max_backtracks + 1):
        scale = backtrack_ratio**j
        trial = parameters + scale * step
        kl_samples = policy.kl(parameters, trial, obs)
        kl = float(kl_samples.mean())
        gain = policy.surrogate(trial, parameters, obs, actions, advantages) - before
        result.trials.append((kl, gain))
        if kl <= max_kl and gain > 0.0:
            result.status, result.parameters, result.backtracks = "accepted", trial, j
            result.kl, result.kl_max, result.surrogate_gain = kl, float(kl_samples.max()), gain
            s = scale * step
            f_s = policy.fisher_vector_product(parameters, obs, s)
            result.kl_predicted = 0.5 * float(s @ f_s)
            result.surrogate_gain_predicted = float(gradient @ s)
            result.entropy = float(policy.entropy(trial, obs).mean())
            return result
    result.status, result.backtracks = "line_search_failed", max_backtracks
    return result
