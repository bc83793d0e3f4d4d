"""Exact quantities of a policy, and what they say about another one: J, L, divergences, bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .mdp import FiniteMDP, FloatArray

Divergence = Literal["kl", "tv"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyEvaluation:
    """A policy pi with all that follows from it exactly. S states, A actions."""

    mdp: FiniteMDP
    policy: FloatArray
    """pi(a|s), shape (S, A)."""
    J: float
    """Expected discounted return, sum_s rho_0(s) V(s)."""
    V: FloatArray
    """V(s) = E[sum_t gamma^t R(s_t, a_t) | s_0 = s], shape (S,)."""
    Q: FloatArray
    """Q(s, a) = R(s, a) + gamma sum_s' P(s'|s, a) V(s'), shape (S, A)."""
    A: FloatArray
    """Advantage Q(s, a) - V(s), shape (S, A); its mean under pi is 0 in every state."""
    visitation: FloatArray
    """rho(s) = sum_t gamma^t P(s_t = s), shape (S,), *unnormalised*: it sums to 1/(1 - gamma)."""

    @property
    def state_distribution(self) -> FloatArray:
        """d(s) = (1 - gamma) rho(s), the *normalised* visitation: it sums to 1."""
        return (1.0 - self.mdp.gamma) * self.visitation

    @property
    def epsilon(self) -> float:
        """eps = max over s, a of |A(s, a)|."""
        return float(np.abs(self.A).max())


def evaluate(mdp: FiniteMDP, policy: npt.ArrayLike) -> PolicyEvaluation:
    """Evaluate a policy exactly, by two dense linear solves.

        V   = (I - gamma P_pi)^-1 r_pi          P_pi(s'|s) = sum_a pi(a|s) P(s'|s, a)
        rho = (I - gamma P_pi^T)^-1 rho_0       r_pi(s)    = sum_a pi(a|s) R(s, a)

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    policy
        pi(a|s), shape (S, A), rows that sum to 1.

    Raises
    ------
    ValueError
        where the policy has another shape or a row is no probability distribution.
    """
    pi = mdp.check_policy(policy)
    P_pi = np.einsum("sa,sat->st", pi, mdp.transitions)
    r_pi = (pi * mdp.rewards).sum(axis=1)
    system = np.eye(mdp.n_states) - mdp.gamma * P_pi
    V = np.linalg.solve(system, r_pi)
    rho = np.linalg.solve(system.T, mdp.initial_distribution)
    Q = mdp.rewards + mdp.gamma * mdp.transitions @ V
    return PolicyEvaluation(
        mdp=mdp,
        policy=pi,
        J=float(mdp.initial_distribution @ V),
        V=V,
        Q=Q,
        A=Q - V[:, None],
        visitation=np.maximum(rho, 0.0),  # an unreachable state may come out as -1e-18
    )


# ---- the return of another policy, exactly and to first order


def performance_difference(old: PolicyEvaluation, new: PolicyEvaluation) -> float:
    """Return J(pi') - J(pi) as the new policy's visitation of the old policy's advantages.

        J(pi') - J(pi) = sum_s rho_pi'(s) sum_a pi'(a|s) A_pi(s, a)

    Kakade and Langford 2002, lemma 6.1; Schulman et al. 2015, equation 2.

    Parameters
    ----------
    old
        The evaluation of pi.
    new
        The evaluation of pi'.
    """
    return float(new.visitation @ (new.policy * old.A).sum(axis=1))


def surrogate(old: PolicyEvaluation, policy: npt.ArrayLike) -> float:
    """Return L_pi(pi'), the performance difference with the *old* visitation.

        L_pi(pi') = J(pi) + sum_s rho_pi(s) sum_a pi'(a|s) A_pi(s, a)

    Equal to J in value and gradient at pi' = pi. Schulman et al. 2015, equation 3.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    """
    return old.J + policy_advantage(old, policy) / (1.0 - old.mdp.gamma)


def policy_advantage(old: PolicyEvaluation, policy: npt.ArrayLike) -> float:
    """Return sum_s d_pi(s) sum_a pi'(a|s) A_pi(s, a), with the *normalised* visitation.

    Kakade and Langford 2002, definition 3.2, where values are scaled by 1 - gamma; ours are not.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    """
    candidate = old.mdp.check_policy(policy)
    # A has mean 0 under pi: the difference says the same, and is exactly 0 at pi' = pi
    gain = ((candidate - old.policy) * old.A).sum(axis=1)
    return float(old.state_distribution @ gain)


def policy_gradient(old: PolicyEvaluation) -> FloatArray:
    """Return dJ/dtheta(s, a) = rho(s) pi(a|s) A(s, a), shape (S, A), for pi = softmax(theta).

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    return old.visitation[:, None] * old.policy * old.A


def natural_gradient(old: PolicyEvaluation) -> FloatArray:
    """Return F^-1 dJ/dtheta = A(s, a) / (1 - gamma), shape (S, A), for pi = softmax(theta).

    F is the Hessian of the mean KL, block diagonal in the states: d(s) (diag(pi) - pi pi^T).
    It maps A to d pi A, since A has mean 0 under pi. Kakade 2001, theorem 1.

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    return old.A / (1.0 - old.mdp.gamma)


# ---- distances between policies


def kl_divergence(old: npt.ArrayLike, new: npt.ArrayLike) -> FloatArray:
    """Return D_KL(pi(.|s) || pi'(.|s)) for each state, in nats: (..., A), (..., A) -> (...).

    Written as sum_a pi(a) (z - log(1 + z)) with z = pi'(a)/pi(a) - 1, plus pi'(a) for an action
    that pi never takes: the same sum, because the changes pi' - pi add up to 0. No term is
    negative, so that tiny divergences keep their digits. Infinite where pi takes an action that
    pi' never takes.

    Parameters
    ----------
    old
        pi(a|s), (..., A).
    new
        pi'(a|s), (..., A).
    """
    p, q = np.asarray(old, np.float64), np.asarray(new, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        terms = p * kl_term((q - p) / p, np.log(q) - np.log(p))
    # the limit p -> 0, for subnormal p too, whose ratios overflow
    terms = np.where(p >= np.finfo(np.float64).tiny, terms, q)
    return np.asarray(terms.sum(axis=-1))


def kl_term(z: FloatArray, log_ratio: FloatArray) -> FloatArray:
    """Return z - log(1 + z) >= 0 to full relative precision; log_ratio is log(1 + z).

    Near 0, with r = z/(2 + z), log(1 + z) = 2 atanh(r) and z - 2r = z r leave
    z r - 2 (r^3/3 + r^5/5 + ...).

    Parameters
    ----------
    z
        pi'(a)/pi(a) - 1, any shape.
    log_ratio
        log(1 + z), of the same shape.
    """
    near = np.abs(z) < 0.1
    z_near = np.where(near, z, 0.0)
    r = z_near / (2.0 + z_near)
    s = r * r
    tail = 1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11))))
    return np.where(near, z_near * r - 2.0 * r * s * tail, z - log_ratio)


def total_variation(old: npt.ArrayLike, new: npt.ArrayLike) -> FloatArray:
    """Return D_TV(pi, pi') = 1/2 sum_a |pi(a|s) - pi'(a|s)| for each state: (..., A) -> (...).

    Parameters
    ----------
    old
        pi(a|s), (..., A).
    new
        pi'(a|s), (..., A).
    """
    difference = np.asarray(old, np.float64) - np.asarray(new, np.float64)
    return np.asarray(0.5 * np.abs(difference).sum(axis=-1))


def mean_kl(old: PolicyEvaluation, policy: npt.ArrayLike) -> float:
    """Return sum_s d_pi(s) D_KL(pi || pi')(s), in nats. Schulman et al. 2015, equation 12.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    """
    weight = old.state_distribution
    visited = weight > 0.0  # a state never seen may diverge without limit
    return float(weight[visited] @ kl_divergence(old.policy, policy)[visited])


def max_kl(old: PolicyEvaluation, policy: npt.ArrayLike) -> float:
    """Return max_s D_KL(pi || pi')(s), in nats, over all states, visited or not.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    """
    return float(kl_divergence(old.policy, policy).max())


def max_total_variation(old: PolicyEvaluation, policy: npt.ArrayLike) -> float:
    """Return alpha = max_s D_TV(pi, pi')(s), over all states, visited or not.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    """
    return float(total_variation(old.policy, policy).max())


# ---- lower bounds on J(pi')


def penalty_coefficient(old: PolicyEvaluation) -> float:
    """Return C = 4 eps gamma / (1 - gamma)^2. Schulman et al. 2015, theorem 1 and equation 9.

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    gamma = old.mdp.gamma
    return 4.0 * old.epsilon * gamma / (1.0 - gamma) ** 2


def lower_bound(
    old: PolicyEvaluation, policy: npt.ArrayLike, divergence: Divergence = "kl"
) -> float:
    """Return what J(pi') is at least, for any pi'. Schulman et al. 2015, theorem 1.

        "tv":  J(pi') >= L_pi(pi') - C alpha^2,  alpha = max_s D_TV(pi, pi')(s)
        "kl":  J(pi') >= L_pi(pi') - C max_s D_KL(pi || pi')(s)

    The second follows from the first, because D_TV^2 <= D_KL.

    Parameters
    ----------
    old
        The evaluation of pi.
    policy
        pi'(a|s), (S, A), rows that sum to 1.
    divergence
        "kl" or "tv": which of the two bounds.
    """
    if divergence == "kl":
        distance = max_kl(old, policy)
    elif divergence == "tv":
        distance = max_total_variation(old, policy) ** 2
    else:
        raise ValueError(f"divergence: expected 'kl' or 'tv', got {divergence!r}")
    C = penalty_coefficient(old)
    penalty = C * distance if C > 0.0 else 0.0  # gamma = 0: no penalty at any distance
    return surrogate(old, policy) - penalty


def conservative_bound(old: PolicyEvaluation, target: npt.ArrayLike, alpha: float) -> float:
    """Return what J((1 - alpha) pi + alpha pi') is at least, for 0 <= alpha <= 1.

        J(pi_new) >= J(pi) + alpha/(1 - gamma) (A_bar - 2 alpha gamma eps'/(1 - gamma (1 - alpha)))

    with A_bar the policy advantage of pi' and eps' = max_s |sum_a pi'(a|s) A(s, a)|.
    Kakade and Langford 2002, theorem 4.1 (their values are scaled by 1 - gamma; the inequality is
    homogeneous, so that it holds in either scale). Schulman et al. 2015, equation 6 is its
    weakening with 1 - gamma in the inner denominator.

    Parameters
    ----------
    old
        The evaluation of pi.
    target
        The policy to mix in, (S, A), rows that sum to 1.
    alpha
        Weight of the target, in [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected a mixture weight in [0, 1], got {alpha}")
    gamma = old.mdp.gamma
    A_bar = policy_advantage(old, target)
    penalty = 2.0 * alpha * gamma * _mixture_epsilon(old, target) / (1.0 - gamma * (1.0 - alpha))
    return old.J + alpha / (1.0 - gamma) * (A_bar - penalty)


def conservative_step_size(old: PolicyEvaluation, target: npt.ArrayLike) -> float:
    """Return the alpha in [0, 1] that maximises `conservative_bound`.

        alpha = (1 - gamma)/gamma (1/sqrt(1 - A_bar/(2 eps')) - 1),  at most 1

    The bound is concave in alpha; this is where its derivative vanishes. To first order it is
    (1 - gamma) A_bar / (4 gamma eps'), and Kakade and Langford's corollary 4.2 is that with
    eps' replaced by the largest reward in their scale. 0 where A_bar <= 0.

    Parameters
    ----------
    old
        The evaluation of pi.
    target
        The policy to mix in, (S, A), rows that sum to 1.
    """
    gamma = old.mdp.gamma
    A_bar, epsilon = policy_advantage(old, target), _mixture_epsilon(old, target)
    if A_bar <= 0.0:
        return 0.0
    if gamma == 0.0:
        return 1.0
    # A_bar is a mean of what epsilon is the maximum of: the root is at least sqrt(1/2)
    shrink = 0.5 * min(A_bar / epsilon, 1.0)
    # 1/sqrt(1 - shrink) - 1 without cancellation
    excess = math.expm1(-0.5 * math.log1p(-shrink))
    return min((1.0 - gamma) / gamma * excess, 1.0)


def _mixture_epsilon(old: PolicyEvaluation, target: npt.ArrayLike) -> float:
    """eps' = max_s |sum_a pi'(a|s) A(s, a)|."""
    candidate = old.mdp.check_policy(target, "target")
    return float(np.abs(((candidate - old.policy) * old.A).sum(axis=1)).max())
