"""Slow, clear float64 NumPy of one trust-region step on the vine's objective.

Nothing here imports ``trpo_fast``. N states, K branches, D parameters.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

import reference
from reference import Array

SUBSAMPLE_STREAM, SIGN_STREAM = 0xF15CE201, 0x4FAC7025


@dataclass
class Vine:
    """The objective at the old parameters (Schulman et al. 2015, equations 15 and 16)."""

    policy: reference.Policy
    old: Array  # (D,)
    obs: Array  # (N, O)
    actions: Array  # (N, K, A)
    q_values: Array  # (N, K)
    estimator: str

    def log_prob(self, parameters: Array) -> Array:
        N, K, A = self.actions.shape
        rows = np.repeat(self.obs, K, axis=0)
        flat = self.policy.log_prob(parameters, rows, self.actions.reshape(N * K, A))
        return flat.reshape(N, K)

    @property
    def old_weights(self) -> Array:
        """pi_old of all actions, or 1/K of sampled ones: (N, K)."""
        if self.estimator == "self_normalized":
            return np.full(self.q_values.shape, 1.0 / self.q_values.shape[1])
        p = np.exp(self.log_prob(self.old))
        return p / p.sum(axis=1, keepdims=True)

    @property
    def advantages(self) -> Array:
        return self.q_values - (self.old_weights * self.q_values).sum(axis=1, keepdims=True)

    def deviation(self) -> float:
        return math.sqrt(float((self.old_weights * self.advantages**2).sum(axis=1).mean()))

    def value(self, parameters: Array) -> float:
        p = np.exp(self.log_prob(parameters))
        if self.estimator == "exact_sum":
            return float((p * self.q_values).sum(axis=1).mean())
        ratio = p / np.exp(self.log_prob(self.old))
        return float(((ratio * self.q_values).sum(axis=1) / ratio.sum(axis=1)).mean())

    def output_scores(self) -> Array:
        """d log pi(a_nk|s_n) / d eta: (N, K, Q)."""
        eta = self.policy.eta(self.old, self.obs)
        K = self.actions.shape[1]
        scores = [self.policy.head.score(eta, self.actions[:, k]) for k in range(K)]
        return np.stack(scores, axis=1)

    def scores(self) -> Array:
        """grad log pi(a_nk|s_n): (N, K, D)."""
        in_eta = self.output_scores()
        return np.array(
            [
                [self.policy.eta_adjoint(self.old, row[None], u[None]) for u in of_state]
                for row, of_state in zip(self.obs, in_eta, strict=True)
            ]
        )

    def gradient(self) -> Array:
        weights = self.old_weights * self.advantages
        return np.einsum("nk,nkd->d", weights, self.scores()) / len(self.obs)

    def fisher(self, form: str) -> Array:
        """Dense F (D, D): the Hessian of the mean KL, or the covariance of the scores."""
        if form == "gauss_newton":
            return self.policy.fisher(self.old, self.obs)
        scores = self.scores()
        return np.einsum("nk,nkd,nke->de", self.old_weights, scores, scores) / len(self.obs)

    def subsample(self, fraction: float, seed: int) -> Vine:
        """A share of the states: selection sampling, in ascending order (Knuth 3.4.2 S)."""
        n = len(self.obs)
        count = max(1, math.ceil(fraction * n))
        uniforms = reference.random_uniforms(seed, SUBSAMPLE_STREAM, 0, n)
        rows: list[int] = []
        for i in range(n):
            if len(rows) < count and uniforms[i] * (n - i) < count - len(rows):
                rows.append(i)
        return Vine(
            self.policy, self.old, self.obs[rows], self.actions[rows], self.q_values[rows],
            self.estimator,
        )  # fmt: skip

    def preconditioner(self, form: str, damping: float, seed: int) -> Array:
        """M^-1 (D, D) of Martens & Grosse (2015), with one random cotangent a state."""
        N, K = self.q_values.shape
        outputs = self.policy.outputs(self.old, self.obs)
        P = outputs.shape[1]
        if form == "gauss_newton":
            signs = reference.random_signs(seed, SIGN_STREAM, N, P)
            log_std = self.policy.split(self.old)[1]
            cotangents = self.policy.head.metric_root(outputs, log_std, signs)
        else:
            signs = reference.random_signs(seed, SIGN_STREAM, N * K, 1).reshape(N, K)
            in_outputs = self.output_scores()[:, :, :P]
            in_outputs = in_outputs * self.policy.head.eta_slope(outputs)[:, None]
            cotangents = np.einsum("nk,nkp->np", signs * np.sqrt(self.old_weights), in_outputs)
        return self.policy.kronecker_preconditioner(self.old, self.obs, damping, cotangents)


@dataclass
class Step:
    """What one step did."""

    status: str
    parameters: Array
    gradient: Array
    backtracks: int = 0
    kl: float = 0.0
    kl_max: float = 0.0
    surrogate_gain: float = 0.0


def vine_update(
    vine: Vine,
    *,
    max_kl: float = 0.01,
    constraint: str = "mean",
    fisher: str = "gauss_newton",
    fisher_fraction: float = 1.0,
    cg_damping: float = 0.1,
    cg_iterations: int = 10,
    cg_preconditioner: str = "none",
    standardize_advantages: bool = True,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    seed: int = 0,
) -> Step:
    """x = (F + lambda I)^-1 g by conjugate gradient, then the line search of TRPO."""
    unit = vine.deviation() if standardize_advantages else 1.0
    g = vine.gradient() / unit
    of = vine if fisher_fraction == 1.0 else vine.subsample(fisher_fraction, seed)
    x = g
    if fisher != "identity":
        A = of.fisher(fisher) + cg_damping * np.eye(len(g))
        M = (
            np.eye(len(g))
            if cg_preconditioner == "none"
            else of.preconditioner(fisher, cg_damping, seed)
        )
        x = preconditioned_conjugate_gradient(A, g, M, cg_iterations)
    curvature = float(g @ x)
    if constraint == "max":
        damping = 0.0 if fisher == "identity" else cg_damping
        of_state = [
            float(x @ vine.policy.fisher_vector_product(vine.old, row[None], x)) for row in vine.obs
        ]
        curvature = max(of_state) + damping * float(x @ x)
    beta = math.sqrt(2.0 * max_kl / curvature)
    for j in itertools.count():
        trial = vine.old + backtrack_ratio**j * beta * x
        kl = vine.policy.kl(vine.old, trial, vine.obs)
        bounded = float(kl.max() if constraint == "max" else kl.mean())
        gain = (vine.value(trial) - vine.value(vine.old)) / unit
        if bounded <= max_kl and gain > 0.0:
            return Step("accepted", trial, g, j, float(kl.mean()), float(kl.max()), gain)
        if j == max_backtracks:
            return Step("line_search_failed", vine.old, g, j)


def preconditioned_conjugate_gradient(A: Array, b: Array, M: Array, iterations: int) -> Array:
    """x of A x = b after so many iterations from 0, with M near A^-1 (Shewchuk 1994, section 12)."""
    x, r = np.zeros_like(b), b.copy()
    z = M @ r
    p, r_z = z.copy(), float(r @ z)
    for _ in range(iterations):
        a_p = A @ p
        alpha = r_z / float(p @ a_p)
        x, r = x + alpha * p, r - alpha * a_p
        if np.linalg.norm(r) <= 1e-10 * np.linalg.norm(b):
            break
        z = M @ r
        r_z, before = float(r @ z), r_z
        p = z + r_z / before * p
    return x
