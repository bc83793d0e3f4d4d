"""Policy iteration and its careful relatives, exact: each is one step, repeated.

A step maps the evaluation of pi_i to pi_{i+1}. The loop around the steps, `_iterate`, is
shared and keeps a record of what each one promised and what it brought.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .exact import (
    PolicyEvaluation,
    conservative_bound,
    conservative_step_size,
    evaluate,
    lower_bound,
    max_kl,
    max_total_variation,
    mean_kl,
    natural_gradient,
    penalty_coefficient,
    policy_advantage,
    surrogate,
)
from .mdp import FiniteMDP, FloatArray, greedy_policy, softmax
from .trust_region import check_delta, maximise_max_kl, maximise_mean_kl, maximise_penalised

Constraint = Literal["mean", "max"]
Method = Literal["exact", "natural_gradient"]
Status = Literal["converged", "stalled", "max_iterations"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A new policy and what the theory behind it promises."""

    policy: FloatArray
    """pi_{i+1}, shape (S, A)."""
    bound: float
    """What J(pi_{i+1}) is at least, by the theorem that belongs to the step."""
    size: float
    """How far it goes, in the step's own unit."""


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """One step from pi_i to pi_{i+1}, in numbers."""

    iteration: int
    """i + 1."""
    J: float
    """J(pi_{i+1})."""
    L: float
    """L_{pi_i}(pi_{i+1}), the surrogate's forecast of J."""
    bound: float
    """What J was promised to be at least; below J(pi_i) where the step takes a risk."""
    mean_kl: float
    """sum_s d(s) D_KL(pi_i || pi_{i+1})(s), in nats; infinite where an action was given up."""
    max_kl: float
    """max_s D_KL(pi_i || pi_{i+1})(s), in nats."""
    max_total_variation: float
    """max_s D_TV(pi_i, pi_{i+1})(s)."""
    step: float
    """Step.size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The last policy of an algorithm and the way to it."""

    evaluation: PolicyEvaluation
    history: tuple[Iterate, ...]
    status: Status
    """"converged": max A <= tolerance, so that V* - V <= tolerance/(1 - gamma) in every state;
    "stalled": the step left pi where it was (no move is worth its price, or the line search found
    none); "max_iterations": neither within the iterations given."""

    @property
    def policy(self) -> FloatArray:
        """pi(a|s), shape (S, A)."""
        return self.evaluation.policy

    @property
    def J(self) -> float:
        """Expected discounted return of the policy."""
        return self.evaluation.J


# ---- single steps


def greedy_step(old: PolicyEvaluation) -> Step:
    """Policy iteration: pi'(s) = argmax_a A(s, a). Bound: J(pi), as V grows in every state.

    Size: 1.

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    return Step(policy=greedy_policy(old.A), bound=old.J, size=1.0)


def conservative_policy_step(old: PolicyEvaluation) -> Step:
    """Mix the greedy policy in: pi' = (1 - alpha) pi + alpha greedy.

    alpha maximises Kakade and Langford's bound, see `conservative_step_size`. Size: alpha.

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    target = greedy_policy(old.A)
    alpha = conservative_step_size(old, target)
    return Step(
        policy=(1.0 - alpha) * old.policy + alpha * target,
        bound=conservative_bound(old, target, alpha),
        size=alpha,
    )


def penalised_step(old: PolicyEvaluation) -> Step:
    """Algorithm 1 of Schulman et al. 2015: maximise M = L_pi(pi') - C max_s D_KL(pi || pi')(s).

    C = 4 eps gamma/(1 - gamma)^2 makes M a lower bound on J that touches it at pi: maximising it
    cannot lower J. The maximisation is exact, see `maximise_penalised`. Size: 1/C.

    Parameters
    ----------
    old
        The evaluation of pi.
    """
    C = penalty_coefficient(old)
    best = maximise_penalised(old, C)
    return Step(
        policy=best.policy,
        bound=lower_bound(old, best.policy),
        size=1.0 / C if C > 0.0 else math.inf,
    )


def trust_region_step(
    old: PolicyEvaluation, *, delta: float = 0.01, constraint: Constraint = "mean"
) -> Step:
    """Maximise L_pi(pi') exactly subject to a KL constraint. Schulman et al. 2015, section 4.

        "max":   max_s         D_KL(pi || pi')(s) <= delta          equation 11
        "mean":  sum_s d_pi(s) D_KL(pi || pi')(s) <= delta          equation 12

    Over all policies, so that the parameters play no part. The bound is theorem 1's and may lie
    below J(pi): a radius larger than the theory's is the point of the method.
    Size: 1/(the constraint's multiplier), 0 where nothing can be gained.

    Parameters
    ----------
    old
        The evaluation of pi.
    delta
        Radius of the trust region, in nats, > 0.
    constraint
        "mean" bounds the KL averaged over d_pi, "max" the largest one of any state.
    """
    _check_constraint(constraint)
    maximise = maximise_mean_kl if constraint == "mean" else maximise_max_kl
    best = maximise(old, delta)
    return Step(
        policy=best.policy,
        bound=lower_bound(old, best.policy),
        size=1.0 / best.price if best.price > 0.0 else 0.0,
    )


def natural_gradient_step(
    old: PolicyEvaluation,
    *,
    delta: float = 0.01,
    constraint: Constraint = "mean",
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
) -> Step:
    """TRPO as it is run: natural gradient, then a line search. Schulman et al. 2015, appendix C.

    On softmax-tabular policies the search direction x = F^-1 g is A(s, a)/(1 - gamma), so that a
    step beta along it gives pi'(a|s) proportional to pi(a|s) exp(beta x(s, a)). The quadratic
    model of the KL is

        beta^2 x^T F x / 2,   x^T F x = sum_s d(s) sum_a pi(a|s) x(s, a)^2     (max_s for "max")

    and beta = sqrt(2 delta / x^T F x) starts the search: shrink by backtrack_ratio until the exact
    KL is within delta and the surrogate improves; after max_backtracks pi stays. Size: beta.

    Parameters
    ----------
    old
        The evaluation of pi.
    delta
        Radius of the trust region, in nats, > 0.
    constraint
        "mean" bounds the KL averaged over d_pi, "max" the largest one of any state.
    backtrack_ratio
        Factor in (0, 1) by which the line search shrinks the step.
    max_backtracks
        Most times that it does, >= 0.
    """
    _check_constraint(constraint)
    check_delta(delta)
    divergence = mean_kl if constraint == "mean" else max_kl
    x = natural_gradient(old)
    state_xFx = (old.policy * x * x).sum(axis=1)
    xFx = float(old.state_distribution @ state_xFx if constraint == "mean" else state_xFx.max())
    if xFx > 0.0:
        with np.errstate(divide="ignore"):
            theta = np.log(old.policy)  # -inf for an action never taken: it stays so
        for j in range(max_backtracks + 1):
            beta = backtrack_ratio**j * math.sqrt(2.0 * delta / xFx)
            policy = softmax(theta + beta * x)
            if divergence(old, policy) <= delta and policy_advantage(old, policy) > 0.0:
                return Step(policy=policy, bound=lower_bound(old, policy), size=beta)
    return Step(policy=old.policy, bound=old.J, size=0.0)


# ---- the algorithms: a step, repeated


def policy_iteration(
    mdp: FiniteMDP,
    policy: npt.ArrayLike | None = None,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-9,
) -> Solution:
    """Repeat `greedy_step`: evaluate exactly, then be greedy (Howard 1960).

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    policy
        pi_0, (S, A); uniform where None.
    iterations
        Most steps, >= 0.
    tolerance
        Stops once max A is at most this, >= 0.
    """
    return _iterate(mdp, policy, greedy_step, iterations, tolerance)


def conservative_policy_iteration(
    mdp: FiniteMDP,
    policy: npt.ArrayLike | None = None,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-9,
) -> Solution:
    """Repeat `conservative_policy_step`. J never falls. Kakade and Langford 2002, section 4.

    Departure from the paper: policy and advantages are exact, so that the greedy policy is too.

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    policy
        pi_0, (S, A); uniform where None.
    iterations
        Most steps, >= 0.
    tolerance
        Stops once max A is at most this, >= 0.
    """
    return _iterate(mdp, policy, conservative_policy_step, iterations, tolerance)


def monotonic_improvement(
    mdp: FiniteMDP,
    policy: npt.ArrayLike | None = None,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-9,
) -> Solution:
    """Repeat `penalised_step`: algorithm 1 of Schulman et al. 2015. J never falls.

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    policy
        pi_0, (S, A); uniform where None.
    iterations
        Most steps, >= 0.
    tolerance
        Stops once max A is at most this, >= 0.
    """
    return _iterate(mdp, policy, penalised_step, iterations, tolerance)


def trpo(
    mdp: FiniteMDP,
    policy: npt.ArrayLike | None = None,
    *,
    delta: float = 0.01,
    constraint: Constraint = "mean",
    method: Method = "exact",
    iterations: int = 1000,
    tolerance: float = 1e-9,
) -> Solution:
    """Repeat `trust_region_step` or `natural_gradient_step`.

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    policy
        pi_0, shape (S, A); uniform where None.
    delta
        Radius of the trust region, in nats: of the KL averaged over d_pi, or of its maximum.
    constraint
        "mean" bounds the KL averaged over d_pi, "max" the largest one of any state.
    method
        "exact" maximises over all policies, "natural_gradient" takes TRPO's step.
    iterations, tolerance
        Stops after so many steps, or once max A <= tolerance.
    """
    if method not in ("exact", "natural_gradient"):
        raise ValueError(f"method: expected 'exact' or 'natural_gradient', got {method!r}")
    step = trust_region_step if method == "exact" else natural_gradient_step
    return _iterate(
        mdp,
        policy,
        lambda old: step(old, delta=delta, constraint=constraint),
        iterations,
        tolerance,
    )


def _iterate(
    mdp: FiniteMDP,
    policy: npt.ArrayLike | None,
    step: Callable[[PolicyEvaluation], Step],
    iterations: int,
    tolerance: float,
) -> Solution:
    if iterations < 0:
        raise ValueError(f"iterations: expected a count >= 0, got {iterations}")
    old = evaluate(mdp, mdp.uniform_policy() if policy is None else policy)
    history: list[Iterate] = []
    while old.A.max() > tolerance:
        if len(history) == iterations:
            return Solution(evaluation=old, history=tuple(history), status="max_iterations")
        move = step(old)
        if np.array_equal(move.policy, old.policy):
            return Solution(evaluation=old, history=tuple(history), status="stalled")
        new = evaluate(mdp, move.policy)
        history.append(
            Iterate(
                iteration=len(history) + 1,
                J=new.J,
                L=surrogate(old, new.policy),
                bound=move.bound,
                mean_kl=mean_kl(old, new.policy),
                max_kl=max_kl(old, new.policy),
                max_total_variation=max_total_variation(old, new.policy),
                step=move.size,
            )
        )
        old = new
    return Solution(evaluation=old, history=tuple(history), status="converged")


# ---- value iteration, the independent check


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueIterationResult:
    """The optimal values, found without evaluating any policy."""

    V: FloatArray
    """V*(s) within error_bound, shape (S,)."""
    policy: FloatArray
    """Greedy for V, shape (S, A)."""
    sweeps: int
    error_bound: float
    """max_s |V(s) - V*(s)| is at most this."""


def value_iteration(
    mdp: FiniteMDP, *, tolerance: float = 1e-10, sweeps: int = 1_000_000
) -> ValueIterationResult:
    """Repeat V(s) <- max_a R(s, a) + gamma sum_s' P(s'|s, a) V(s') (Bellman 1957).

    A sweep that changes V by at most c leaves it within c gamma/(1 - gamma) of V*; stops once
    that is at most ``tolerance``, or after so many sweeps.

    Parameters
    ----------
    mdp
        The process, with S states and A actions.
    tolerance
        Largest error of V that is good enough, >= 0.
    sweeps
        Most sweeps over all states, >= 1.
    """
    V = np.zeros(mdp.n_states)
    error_bound, used = math.inf, 0
    while error_bound > tolerance and used < sweeps:
        new_V = (mdp.rewards + mdp.gamma * mdp.transitions @ V).max(axis=1)
        error_bound = float(np.abs(new_V - V).max()) * mdp.gamma / (1.0 - mdp.gamma)
        V, used = new_V, used + 1
    Q = mdp.rewards + mdp.gamma * mdp.transitions @ V
    return ValueIterationResult(V=V, policy=greedy_policy(Q), sweeps=used, error_bound=error_bound)


def _check_constraint(constraint: str) -> None:
    if constraint not in ("mean", "max"):
        raise ValueError(f"constraint: expected 'mean' or 'max', got {constraint!r}")
