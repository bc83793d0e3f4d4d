"""The vine's objective (Schulman et al. 2015, section 5.2), and one trust-region step on it.

What is maximised is the mean over the rollout set of

::

    L_s(theta) = sum_a pi(a|s) Q(s, a)                                     all actions (equation 15)
    L_s(theta) = sum_k w_k Q_k / sum_k w_k,  w_k = pi(a_k|s)/pi_old(a_k|s)   sampled (equation 16)

under the same trust region as single-path TRPO, over the states of the rollout set. Neither form
needs a baseline from outside: the first subtracts the mean of Q under the old policy (a constant of
the state), the second is invariant under a shift of Q.
"""

from __future__ import annotations

import math
import time
from dataclasses import fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .algorithms import conjugate_gradient
from .checks import Float64, choice, finite, integer
from .distribution import Distribution
from .options import PRECONDITIONERS, Preconditioner
from .policy import Policy
from .update import UpdateSummary

Estimator = Literal["exact_sum", "self_normalized"]

__all__ = [
    "Estimator",
    "VineObjective",
    "action_space_name",
    "all_actions",
    "n_actions",
    "vine_update",
]

MOST_ACTIONS = 64  # of which branches may try all


def action_space_name(distribution: Distribution, space: Any) -> str:
    """How errors call an action space, by its own text or that of its distribution."""
    kind = f"{distribution.kind}{distribution.sizes}" if space is None else str(space)
    return f"the action space {kind}"


def n_actions(distribution: Distribution) -> int:
    """The number of actions of a discrete distribution."""
    if distribution.kind == "bernoulli":
        return 1 << distribution.sizes[0]
    return math.prod(distribution.sizes)


def all_actions(distribution: Distribution, space: Any = None) -> NDArray[np.int32]:
    """Every action of a small discrete distribution, shape (number of actions, K), int32.

    Raises
    ------
    ValueError
        A continuous distribution, or more than 64 actions.
    """
    name = action_space_name(distribution, space)
    if not distribution.is_discrete:
        raise ValueError(
            f'branches: "all" needs a discrete action space, got {name}, whose actions have no '
            "end; give a number of branches, 2 or more"
        )
    if n_actions(distribution) > MOST_ACTIONS:
        raise ValueError(
            f'branches: "all" allows up to {MOST_ACTIONS} actions, got {name} with '
            f"{n_actions(distribution)}; give a number of branches, 2 or more"
        )
    sizes = distribution.sizes
    if distribution.kind == "bernoulli":
        sizes = (2,) * sizes[0]
    return np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int32)


class VineObjective:
    """mean over states of L_s(theta), equations 15 and 16, in reward units.

    Parameters
    ----------
    policy
        At the old parameters; later calls look at its parameters of that moment.
    observations
        (N, O), normalised, as ``policy.normalize`` returns them.
    actions
        (N, B, K): all actions in every state, or samples of the policy.
    q_values
        (N, B).
    estimator
        ``"exact_sum"`` over all actions, or ``"self_normalized"`` over samples.
    """

    def __init__(
        self,
        policy: Policy,
        observations: ArrayLike,
        actions: ArrayLike,
        q_values: ArrayLike,
        estimator: Estimator,
    ) -> None:
        if estimator not in ("exact_sum", "self_normalized"):
            raise ValueError(
                f"estimator: expected 'exact_sum' or 'self_normalized', got {estimator!r}"
            )
        self.policy = policy
        self.estimator: Estimator = estimator
        self.observations = np.asarray(observations)
        actions, Q = np.asarray(actions), np.asarray(q_values, np.float64)
        if Q.ndim != 2 or 0 in Q.shape:
            raise ValueError(
                f"q_values: expected shape (N, B) with at least one state and one branch, got "
                f"{Q.shape}; an empty rollout set has nothing to learn from"
            )
        N, B = Q.shape
        K = policy.distribution.action_dim
        if actions.shape != (N, B, K):
            raise ValueError(f"actions: expected shape {(N, B, K)}, got {actions.shape}")
        if self.observations.shape != (N, policy.obs_dim):
            raise ValueError(
                f"observations: expected shape {(N, policy.obs_dim)}, got {self.observations.shape}"
            )
        if estimator == "exact_sum":
            every = len(all_actions(policy.distribution))
            if every != B:
                raise ValueError(f"actions: expected all {every} in every state, got {B}")
        elif B < 2:
            raise ValueError(
                "actions: expected at least 2 samples in every state, got 1: its weight is always "
                "1, and nothing is learned"
            )
        self._shape = (N, B)
        self._rows = np.repeat(self.observations, B, axis=0)
        self._actions = actions.reshape(N * B, K)
        self._old = self._log_prob()

        # Q = baseline + advantages: the mean of the advantages under the old policy is 0
        weights = np.exp(self._old) if estimator == "exact_sum" else np.full((N, B), 1.0 / B)
        self.old_weights = weights / weights.sum(axis=1, keepdims=True)
        self.baseline = (self.old_weights * Q).sum(axis=1)  # (N,)
        self.advantages = Q - self.baseline[:, np.newaxis]

    def _log_prob(self) -> Float64:
        return self.policy.log_prob(self._rows, self._actions, normalized=True).reshape(self._shape)

    def value(self) -> float:
        """L at the policy's parameters of this moment."""
        return float(self.baseline.mean()) + self.gain()

    def gain(self) -> float:
        """L(theta) - L(theta_old), computed from the differences."""
        A = self.advantages
        with np.errstate(all="ignore"):  # far from the old parameters: inf or NaN is an answer
            log_ratio = self._log_prob() - self._old
            if self.estimator == "exact_sum":
                # sum_a (pi - pi_old) A
                return float((self.old_weights * np.expm1(log_ratio) * A).sum(axis=1).mean())
            ratio = np.exp(log_ratio - log_ratio.max(axis=1, keepdims=True))
            return float(((ratio * A).sum(axis=1) / ratio.sum(axis=1)).mean())

    def gradient(self) -> Float64:
        """Gradient of L at the old parameters, (D,): a weighted sum of scores.

        ::

            all actions    1/N sum_n sum_a pi_old(a|s_n) A_na  grad log pi(a|s_n)
            sampled        1/N sum_n sum_k 1/K           A_nk  grad log pi(a_nk|s_n)
        """
        B = self._shape[1]
        weights = self.old_weights * self.advantages * B  # the core takes the mean over N B rows
        return self.policy.surrogate_gradient(
            self._rows, self._actions, weights.ravel(), normalized=True
        )

    def deviation(self) -> float:
        """Standard deviation of the advantages under the old policy; 0 where they are all alike."""
        Q = self.advantages + self.baseline[:, np.newaxis]
        spread = float(np.abs(self.advantages).max())
        if not spread > 64.0 * np.finfo(np.float64).eps * float(np.abs(Q).max()):
            return 0.0 if math.isfinite(spread) else math.nan
        return math.sqrt(float((self.old_weights * self.advantages**2).sum(axis=1).mean()))


def vine_update(
    policy: Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    *,
    estimator: Estimator,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-10,
    cg_damping: float = 0.1,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    cg_preconditioner: Preconditioner = "none",
    seed: int = 0,
) -> UpdateSummary:
    """One TRPO step, in place, on the vine objective; see :class:`VineObjective` for the arguments.

    The step is that of :meth:`trpo_fast.core.Policy.update`, with the same promises: Fisher matrix
    and mean KL are over the N states of the rollout set; an accepted step has KL <= max_kl and a
    better objective; after any other the parameters are, bit for bit, those before. Gains are in
    standard deviations of the advantages.
    """
    positive = 5e-324
    max_kl = finite("max_kl", max_kl, positive, math.inf, "a positive number")
    backtrack_ratio = finite(
        "backtrack_ratio", backtrack_ratio, positive, 1.0 - 1e-16, "a number in (0, 1)"
    )
    max_backtracks = integer("max_backtracks", max_backtracks, 0)
    choice("cg_preconditioner", cg_preconditioner, PRECONDITIONERS)
    objective = VineObjective(policy, observations, actions, q_values, estimator)
    scale = objective.deviation()
    clock = _Clock()
    old = policy.parameters
    x = objective.observations
    entropy = float(policy.entropy(x, normalized=True).mean())
    report: dict[str, Any] = dict.fromkeys((field.name for field in fields(UpdateSummary)), 0.0)
    report |= {"max_kl": max_kl, "entropy": entropy, "entropy_before": entropy}
    report |= {"cg_iterations": 0, "cg_status": "", "backtracks": 0}

    def finish(status: str, message: str) -> UpdateSummary:
        report.update(status=status, message=message, seconds_total=clock.total())
        return UpdateSummary(**report)

    if not (math.isfinite(scale) and math.isfinite(entropy)):
        return finish(
            "non_finite",
            "Q or the policy's outputs hold a NaN or an infinity, so no update was made; look at "
            "rewards, values and observations",
        )
    if scale == 0.0:
        return finish(
            "zero_gradient",
            "in every state all branches are equally good, so there is nothing to improve and no "
            "update was made",
        )

    # g = grad L(theta_k) / scale
    g = objective.gradient() / scale
    report["gradient_norm"] = float(np.linalg.norm(g))
    report["seconds_gradient"] = clock.lap()
    if not math.isfinite(report["gradient_norm"]):
        return finish("non_finite", "the gradient is not finite, so no update was made")

    # x = (F + lambda I)^{-1} g
    F = policy.fisher_operator(
        x, normalized=True, damping=cg_damping, expected_products=cg_iterations
    )
    kronecker = cg_preconditioner == "kronecker"
    cg = conjugate_gradient(
        F,
        g,
        max_iterations=cg_iterations,
        tolerance=cg_tolerance,
        preconditioner=F.kronecker_preconditioner(seed=seed) if kronecker else None,
    )
    report["cg_iterations"], report["cg_status"] = cg.iterations, cg.status
    report["cg_relative_residual"] = cg.relative_residual
    report["seconds_cg"] = clock.lap()
    if cg.status == "zero_rhs":
        return finish("zero_gradient", "the gradient is zero, so no update was made")
    g_x, x_x = float(g @ cg.x), float(cg.x @ cg.x)  # g^T x = x^T (F + lambda I) x
    if not (g_x > 0.0 and math.isfinite(g_x)):
        bent = cg.status == "non_positive_curvature"
        return finish(
            "non_positive_curvature" if bent else "non_finite",
            f"conjugate gradient found no direction of ascent ({cg.message}), so no update was "
            "made; a larger cg_damping helps when the Fisher matrix is nearly singular",
        )

    # theta = theta_k + alpha^j beta x
    beta = math.sqrt(2.0 * max_kl / g_x)
    kl = gain = 0.0
    accepted = False
    try:
        for j in range(max_backtracks + 1):
            step = backtrack_ratio**j * beta
            report["backtracks"], report["step_scale"] = j, backtrack_ratio**j
            report["step_norm"] = step * math.sqrt(x_x)
            report["kl_predicted"] = 0.5 * step * step * (g_x - cg_damping * x_x)
            report["surrogate_gain_predicted"] = step * g_x
            candidate = (old.astype(np.float64) + step * cg.x).astype(old.dtype)
            if not np.isfinite(candidate).all():
                continue
            policy.parameters = candidate
            divergence = policy.kl(x, old, normalized=True)
            kl, gain = float(divergence.mean()), objective.gain() / scale
            if kl <= max_kl and gain > 0.0 and math.isfinite(gain):  # false for NaN
                accepted = True
                break
    finally:
        if not accepted:
            policy.parameters = old
    report["seconds_line_search"] = clock.lap()
    if not accepted:
        return finish(
            "line_search_failed",
            f"none of {max_backtracks + 1} candidate steps was accepted; the last had KL {kl:.4g} "
            f"of {max_kl:.4g} and gain {gain:.4g}; the parameters are those before",
        )
    report |= {"kl": kl, "kl_max": float(divergence.max()), "surrogate_gain": gain}
    report["entropy"] = float(policy.entropy(x, normalized=True).mean())
    return finish(
        "accepted",
        f"accepted after {report['backtracks']} backtracks: KL {kl:.4g} of {max_kl:.4g}, "
        f"surrogate gain {gain:.4g}",
    )


class _Clock:
    def __init__(self) -> None:
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def total(self) -> float:
        return time.perf_counter() - self._start
