"""The surrogate maximised exactly under a KL divergence old || new: the inner problem of TRPO.

In one state, write p for pi(.|s), q for pi'(.|s) and A for A(s, .). The linear objective against a
Kullback-Leibler term with the *old* policy first,

    maximise over q   sum_a q(a) A(a) - eta D_KL(p || q),

has the stationarity condition A(a) + eta p(a)/q(a) = nu, hence

    q(a) = eta p(a) / (nu - A(a)),      nu > max A chosen so that q sums to 1.

(With the new policy first it would be the familiar q ∝ p exp(A/eta); the two agree to first order.)
With the gap g(a) = max A - A(a) >= 0 and t = 1/(nu - max A), everything about the solution is

    q(a) = p(a) u(a) / f,   u(a) = 1/(1 + t g(a)),   f = sum_b p(b) u(b),   eta = 1/(t f),

a path from p (t = 0) to the greedy policy (t -> infinity) on which D_KL(p || q) grows and eta
falls. The three problems below differ only in how the states' positions on their paths are
tied together:

    max_s KL <= delta        every state at the same KL
    mean_d KL <= delta       every state at the same eta
    penalty C max_s KL       every state at the same KL, and sum_s rho(s) eta(s) = C

because eta(s) is the derivative of the state's best gain in its KL, and the objective sums these
gains with weights rho. Each is a concave problem in one number; its root is found by a safeguarded
Newton iteration in logarithms, where the functions are close to straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .exact import PolicyEvaluation, kl_term, mean_kl, penalty_coefficient
from .mdp import FloatArray, greedy_policy

# An action that pi never takes costs no KL by itself and may enter. Lifted to this probability it
# obeys the same formulas, and 1e-140 is far below rounding everywhere else.
_LIFT = 1e-140
# Advantages this small relative to the largest |Q| are rounding: the state has nothing to gain.
_NOISE = 1e-13
# Brackets of the roots, in logarithms. The last t is greedy to the last bit, even for lifted
# actions; the first KL counts as no step at all.
_LOG_T = (-100.0, 350.0)
_LOG_ETA = (-700.0, 700.0)
_LOG_KL = (-270.0, 6.0)
# Constraints are solved for a level this much smaller, relatively, so that rounding stays inside.
_MARGIN = 1e-10
# Logarithms are solved to this, that is t, eta and KL relatively.
_ROOT_TOLERANCE = 1e-12
_ROOT_STEPS = 100
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True, eq=False)
class Maximum:
    """The maximiser of a surrogate under a KL constraint or penalty, with its certificate.

    L is linear in pi' and the divergences are convex, so that the multipliers prove optimality: pi'
    is best in every state for its own multiplier, and the multipliers add up to the price.
    """

    policy: FloatArray
    """pi'(a|s), shape (S, A)."""
    multipliers: FloatArray
    """mu(s) >= 0, shape (S,), in units of return per nat: pi'(.|s) maximises
    rho(s) sum_a pi'(a|s) A(s, a) - mu(s) D_KL(pi || pi')(s)."""
    price: float
    """d(best L)/d(delta): sum_s mu(s) for a maximum KL, mu(s)/d(s), the same in all s, for a mean
    KL, C for the penalty (also sum_s mu(s))."""


def maximise_max_kl(old: PolicyEvaluation, delta: float) -> Maximum:
    """Maximise L_pi(pi') subject to max_s D_KL(pi || pi')(s) <= delta, in nats.

    Every state moves to the level delta, unvisited ones too (they change neither L nor the
    constraint). States where no action is better than another keep their policy.

    Parameters
    ----------
    old
        The evaluation of pi.
    delta
        Radius of the trust region, in nats, > 0.
    """
    check_delta(delta)
    paths = _Paths(old)
    log_t = paths.at_level(_inside(delta))
    mu = paths.rho * paths.point(log_t).eta
    return Maximum(policy=paths.policy(log_t), multipliers=paths.scatter(mu), price=float(mu.sum()))


def maximise_mean_kl(old: PolicyEvaluation, delta: float) -> Maximum:
    """Maximise L_pi(pi') subject to sum_s d_pi(s) D_KL(pi || pi')(s) <= delta, in nats.

    Parameters
    ----------
    old
        The evaluation of pi.
    delta
        Radius of the trust region, in nats, > 0.
    """
    check_delta(delta)
    paths = _Paths(old)
    d = (1.0 - old.mdp.gamma) * paths.rho
    variance = float(d @ paths.deviation**2)
    if variance == 0.0:
        return paths.nothing_to_gain()

    def log_mean_kl(minus_log_eta: FloatArray) -> tuple[FloatArray, FloatArray]:
        # dKL/dlog t = Var(u)/f and dlog eta/dlog t = -E[u^2]/f, expectations under p
        at = paths.point(paths.at_multiplier(-float(minus_log_eta[0])))
        kl = max(float(d @ at.kl), _TINY)
        slope = float(d @ (at.variance / at.square)) / kl
        return np.array([math.log(kl)]), np.array([slope])

    # a small step of a state has KL = Var_p(A)/(2 eta^2)
    start = 0.5 * math.log(2.0 * delta / variance)
    minus_log_eta = _root(log_mean_kl, _inside(delta), start, *_LOG_ETA)
    eta = math.exp(-float(minus_log_eta[0]))
    policy = paths.policy(paths.at_multiplier(-float(minus_log_eta[0])))
    # near-deterministic states magnify the rounding of eta; where that led outside, go back
    # towards pi: the KL is convex, so that the part delta/KL of the way is inside
    limit, used = delta * (1.0 - _MARGIN), mean_kl(old, policy)
    if used > limit:
        policy = old.policy + limit / used * (policy - old.policy)
    return Maximum(
        policy=policy,
        multipliers=paths.scatter(eta * paths.rho),
        price=eta / (1.0 - old.mdp.gamma),
    )


def maximise_penalised(old: PolicyEvaluation, C: float | None = None) -> Maximum:
    """Maximise M(pi') = L_pi(pi') - C max_s D_KL(pi || pi')(s). Schulman et al. 2015, algorithm 1.

    C defaults to 4 eps gamma/(1 - gamma)^2, with which M is a lower bound on J. With C = 0 the
    maximiser is the greedy policy.

    From a policy that is random where it matters, the first nat is worth infinitely much and pi'
    always moves. From a deterministic one it is worth at most sum_s rho(s) max_a A(s, a): with a
    larger C, which is the rule, pi itself is the maximiser.

    Parameters
    ----------
    old
        The evaluation of pi.
    C
        Price of the largest KL of any state, >= 0.
    """
    if C is None:
        C = penalty_coefficient(old)
    if not (math.isfinite(C) and C >= 0.0):
        raise ValueError(f"C: expected a finite penalty coefficient >= 0, got {C}")
    paths = _Paths(old)
    mean_deviation = float(paths.rho @ paths.deviation)
    if mean_deviation == 0.0:
        return paths.nothing_to_gain()
    if C == 0.0:
        no_multipliers = np.zeros(old.mdp.n_states)
        return Maximum(policy=greedy_policy(old.A), multipliers=no_multipliers, price=0.0)

    def minus_log_price(log_kl: FloatArray) -> tuple[FloatArray, FloatArray]:
        # log of sum_s rho eta at a common KL; dlog eta/dKL = -E[u^2]/Var(u)
        at = paths.point(paths.at_level(float(log_kl[0])))
        mu = paths.rho * at.eta
        price = max(float(mu.sum()), _TINY)
        slope = float((mu * at.kl * at.square / np.maximum(at.variance, _TINY)).sum()) / price
        return np.array([-math.log(price)]), np.array([slope])

    no_step = np.array([_LOG_KL[0]])
    if minus_log_price(no_step)[0][0] >= -math.log(C):
        return paths.nothing_to_gain()
    # for a small step of a state eta = sd_p(A)/sqrt(2 KL)
    start = 2.0 * math.log(mean_deviation / C) - math.log(2.0)
    log_kl = _root(minus_log_price, -math.log(C), start, *_LOG_KL)
    log_t = paths.at_level(float(log_kl[0]))
    mu = paths.rho * paths.point(log_t).eta
    return Maximum(policy=paths.policy(log_t), multipliers=paths.scatter(mu), price=C)


# ---- the paths from pi to greedy, one a state


@dataclass(frozen=True, kw_only=True, eq=False)
class _Point:
    """Where each state stands on its path. Expectations are under p; n states."""

    q: FloatArray
    """p u / f, shape (n, A)."""
    f: FloatArray
    """E[u], shape (n,), like all below."""
    square: FloatArray
    """E[u^2]."""
    variance: FloatArray
    """Var(u)."""
    eta: FloatArray
    """1/(t f), in units of A."""
    kl_terms: tuple[FloatArray, FloatArray, FloatArray]
    """p, z = q/p - 1 and log(q/p), shape (n, A)."""

    @property
    def kl(self) -> FloatArray:
        """D_KL(p || q) = sum_a p (z - log(1 + z)), shape (n,)."""
        p, z, log_ratio = self.kl_terms
        return np.asarray((p * kl_term(z, log_ratio)).sum(axis=1))


class _Paths:
    """The paths q(a) = p(a) u(a) / f of the n states in which some action beats another."""

    def __init__(self, old: PolicyEvaluation) -> None:
        gap = old.A.max(axis=1, keepdims=True) - old.A
        self._old = old
        self._moves = gap.max(axis=1) > _NOISE * np.abs(old.Q).max()
        self._p = np.maximum(old.policy[self._moves], _LIFT)
        # gaps in units of the state's largest one, so that t has no unit
        self._unit = gap[self._moves].max(axis=1)
        self._gap = gap[self._moves] / self._unit[:, None]
        mean_gap = (self._p * self._gap).sum(axis=1, keepdims=True)
        self._spread = np.sqrt((self._p * (self._gap - mean_gap) ** 2).sum(axis=1))
        self.rho = old.visitation[self._moves]
        self.deviation = self._unit * self._spread  # sd_p(A)

    def point(self, log_t: FloatArray) -> _Point:
        """Return the point of each state's path at t = exp(log_t), shape (n,)."""
        p, t = self._p, np.exp(log_t)
        t_gap = t[:, None] * self._gap
        u = 1.0 / (1.0 + t_gap)
        f = (p * u).sum(axis=1, keepdims=True)
        # u - f, through 1 - u where u and f are both close to 1
        w = t_gap * u
        excess = np.where(f > 0.5, (p * w).sum(axis=1, keepdims=True) - w, u - f)
        return _Point(
            q=p * u / f,
            f=f[:, 0],
            square=(p * u * u).sum(axis=1),
            variance=(p * excess**2).sum(axis=1),
            eta=self._unit / (t * f[:, 0]),
            kl_terms=(p, excess / f, -np.log1p(t_gap) - np.log(f)),
        )

    def at_level(self, log_kl: float) -> FloatArray:
        """Return log t where D_KL(p || q) = exp(log_kl), or the greedy end where it never is."""

        def log_kl_at(log_t: FloatArray) -> tuple[FloatArray, FloatArray]:
            # dKL/dlog t = Var(u)/f
            at = self.point(log_t)
            kl = np.maximum(at.kl, _TINY)
            return np.log(kl), at.variance / at.f / kl

        # a small step has KL = t^2 Var_p(gap)/2
        start = 0.5 * (log_kl + math.log(2.0)) - np.log(self._spread)
        return _root(log_kl_at, log_kl, start, *_LOG_T)

    def at_multiplier(self, log_eta: float) -> FloatArray:
        """Return log t where eta = exp(log_eta), or an end of the path."""

        def minus_log_eta_at(log_t: FloatArray) -> tuple[FloatArray, FloatArray]:
            # dlog eta/dlog t = -E[u^2]/f
            at = self.point(log_t)
            return -np.log(at.eta), at.square / at.f

        start = np.log(self._unit) - log_eta  # f = 1
        return _root(minus_log_eta_at, -log_eta, start, *_LOG_T)

    def policy(self, log_t: FloatArray) -> FloatArray:
        """Return pi' with these states moved to t = exp(log_t) and the others left as they are."""
        policy = self._old.policy.copy()
        policy[self._moves] = self.point(log_t).q
        return policy

    def scatter(self, values: FloatArray) -> FloatArray:
        """Return an array over all states, 0 in those without a path."""
        everywhere = np.zeros(self._old.mdp.n_states)
        everywhere[self._moves] = values
        return everywhere

    def nothing_to_gain(self) -> Maximum:
        """Return the old policy: no step is worth its price."""
        zeros = np.zeros(self._old.mdp.n_states)
        return Maximum(policy=self._old.policy.copy(), multipliers=zeros, price=0.0)


# ---- roots


def _root(
    function: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    target: float,
    start: FloatArray | float,
    low: float,
    high: float,
) -> FloatArray:
    """Return x with function(x) = target, elementwise, for increasing functions on [low, high].

    ``function`` returns values and slopes, both shape (n,). Newton steps; where one would leave
    the bracket, or the last did not halve the error, the bracket is halved instead. An end of the
    bracket where the target lies beyond it.
    """
    x = np.clip(np.atleast_1d(np.asarray(start, np.float64)), low, high)
    below, above = np.full_like(x, low), np.full_like(x, high)
    # targets beyond the upper end: their bracket is that point
    beyond = function(above)[0] <= target
    x[beyond] = below[beyond] = high
    last_error = np.full_like(x, np.inf)
    for _ in range(_ROOT_STEPS):
        value, slope = function(x)
        error = target - value
        below = np.where(error >= 0.0, x, below)
        above = np.where(error <= 0.0, x, above)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = x + error / slope
        settled = (np.abs(newton - x) <= _ROOT_TOLERANCE) | (above - below <= _ROOT_TOLERANCE)
        if settled.all():
            break
        inside = (newton > below) & (newton < above)  # false for NaN
        halved = np.abs(error) <= 0.5 * last_error
        last_error = np.abs(error)
        step_to = np.where(inside & halved, newton, 0.5 * (below + above))
        x = np.where(settled, x, step_to)
    return x


def _inside(delta: float) -> float:
    return math.log(delta) + math.log1p(-_MARGIN)


def check_delta(delta: float) -> None:
    """Raise ValueError unless delta can be the radius of a trust region.

    Parameters
    ----------
    delta
        Radius of the trust region, in nats, > 0.
    """
    if not (math.isfinite(delta) and delta > 0.0):
        raise ValueError(f"delta: expected a finite trust-region radius > 0 in nats, got {delta}")
