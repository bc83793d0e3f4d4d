"""The theorems behind TRPO, verified on hundreds of random processes solved exactly."""

# J and L are quantities here, not constants
# ruff: noqa: SIM300

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from trpo_fast import tabular

Array = np.ndarray[Any, np.dtype[np.float64]]

N_CASES = 300
DISCOUNTS = (0.0, 0.3, 0.8, 0.95, 0.99)
# concentration of the Dirichlet distribution that policies are drawn from; 0: deterministic
CONCENTRATIONS = (5.0, 1.0, 0.1, 0.0)


@dataclass(frozen=True)
class Case:
    """A random process, a policy on it, and the generator for whatever else a test needs."""

    name: str
    mdp: tabular.FiniteMDP
    old: tabular.PolicyEvaluation
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 1])

    def candidates(self, n: int) -> Iterator[Array]:
        """Random policies at all distances: mixtures of pi and a random one, and logit noise."""
        rng = self.rng
        for i in range(n):
            other = random_policy(rng, self.mdp, CONCENTRATIONS[i % 4])
            alpha = 10.0 ** rng.uniform(-4.0, 0.0)
            yield (1.0 - alpha) * self.old.policy + alpha * other
            if (self.old.policy > 0.0).all():
                noise = alpha * rng.standard_normal(self.old.policy.shape)
                yield tabular.softmax(np.log(self.old.policy) + noise)


def random_policy(rng: np.random.Generator, mdp: tabular.FiniteMDP, concentration: float) -> Array:
    if concentration == 0.0:
        return tabular.greedy_policy(rng.uniform(size=mdp.rewards.shape))
    pi = rng.dirichlet(np.full(mdp.n_actions, concentration), mdp.n_states)
    return pi / pi.sum(axis=1, keepdims=True)


@functools.cache
def case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    n_states, n_actions = int(rng.integers(2, 13)), int(rng.integers(2, 6))
    gamma = DISCOUNTS[seed % 5]
    mdp = tabular.random_mdp(
        n_states,
        n_actions,
        branching=int(rng.integers(1, min(4, n_states + 1))),
        gamma=gamma,
        seed=rng,
    )
    if seed % 3 == 0:  # one start state: some states may never be visited
        mdp = replace(mdp, initial_distribution=np.eye(n_states)[0])
    pi = random_policy(rng, mdp, CONCENTRATIONS[seed // 5 % 4])
    name = f"seed {seed}: {n_states} states, {n_actions} actions, gamma {gamma}"
    return Case(name, mdp, tabular.evaluate(mdp, pi), seed)


def cases(n: int = N_CASES, *, stochastic: bool = False) -> list[Case]:
    chosen = [case(seed) for seed in range(n)]
    return [c for c in chosen if not stochastic or (c.old.policy > 0.0).all()]


def scale(old: tabular.PolicyEvaluation) -> float:
    """Size of returns, for relative tolerances."""
    return float(np.abs(old.mdp.rewards).max()) / (1.0 - old.mdp.gamma)


# ---- exact evaluation


def test_values_by_hand() -> None:
    # stay (pays 1) or leave (pays 0) into an absorbing state
    mdp = tabular.FiniteMDP(
        transitions=np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        rewards=np.array([[1.0, 0.0], [0.0, 0.0]]),
        initial_distribution=np.array([1.0, 0.0]),
        gamma=0.5,
    )
    old = tabular.evaluate(mdp, mdp.uniform_policy())
    # V = (1 + V/2)/2 in state 0
    np.testing.assert_allclose(old.V, [2 / 3, 0.0], atol=1e-15)
    np.testing.assert_allclose(old.Q, [[4 / 3, 0.0], [0.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(old.A, [[2 / 3, -2 / 3], [0.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(old.visitation, [4 / 3, 2 / 3], atol=1e-15)
    np.testing.assert_allclose(old.state_distribution, [2 / 3, 1 / 3], atol=1e-15)
    assert old.J == pytest.approx(2 / 3, abs=1e-15)
    assert old.epsilon == pytest.approx(2 / 3, abs=1e-15)


def test_values_and_visitation_are_the_discounted_sums() -> None:
    for c in cases(40):
        mdp, pi = c.mdp, c.old.policy
        p, rho, J = mdp.initial_distribution, np.zeros(mdp.n_states), 0.0
        horizon = 1 if mdp.gamma == 0.0 else math.ceil(math.log(1e-14) / math.log(mdp.gamma))
        for t in range(horizon):
            rho += mdp.gamma**t * p
            J += mdp.gamma**t * float(p @ (pi * mdp.rewards).sum(axis=1))
            p = np.einsum("s,sa,sat->t", p, pi, mdp.transitions)
        np.testing.assert_allclose(c.old.visitation, rho, atol=1e-11, err_msg=c.name)
        assert abs(c.old.J - J) <= 1e-12 * scale(c.old), c.name


def test_visitations_are_told_apart() -> None:
    for c in cases():
        assert c.old.visitation.sum() == pytest.approx(1.0 / (1.0 - c.mdp.gamma), rel=1e-12)
        assert c.old.state_distribution.sum() == pytest.approx(1.0, rel=1e-12)
        assert (c.old.visitation >= 0.0).all()
        # J is also the visitation's sum of rewards
        J = c.old.visitation @ (c.old.policy * c.mdp.rewards).sum(axis=1)
        assert abs(J - c.old.J) <= 1e-12 * scale(c.old), c.name


def test_performance_difference_identity() -> None:
    for c in cases():
        for pi in c.candidates(2):
            new = tabular.evaluate(c.mdp, pi)
            difference = tabular.performance_difference(c.old, new)
            size = max(abs(c.old.J), abs(new.J), 1.0)
            assert abs(new.J - c.old.J - difference) <= 1e-10 * size, c.name


# ---- the surrogate is J to first order


def test_surrogate_equals_return_to_first_order() -> None:
    """J - L along a line of policies vanishes with its square: halving the step quarters it."""
    for c in cases(200):
        assert tabular.surrogate(c.old, c.old.policy) == c.old.J, c.name
        direction = random_policy(c.rng, c.mdp, 1.0) - c.old.policy

        def error(alpha: float, c: Case = c, direction: Array = direction) -> float:
            pi = c.old.policy + alpha * direction
            return tabular.evaluate(c.mdp, pi).J - tabular.surrogate(c.old, pi)

        h = 0.02 * (1.0 - c.mdp.gamma)
        coarse, fine = error(h), error(h / 2)
        if abs(coarse) < 1e-9 * scale(c.old):  # gamma = 0: L is J
            assert abs(fine) < 1e-9 * scale(c.old), c.name
        else:
            assert 3.7 < coarse / fine < 4.3, c.name


def test_gradients_by_central_differences() -> None:
    for c in cases(200, stochastic=True):
        theta = np.log(c.old.policy)
        direction = c.rng.standard_normal(theta.shape)
        slope = float((tabular.policy_gradient(c.old) * direction).sum())
        h = 1e-5

        def along(
            step: float, c: Case = c, theta: Array = theta, direction: Array = direction
        ) -> tuple[float, float]:
            pi = tabular.softmax(theta + step * direction)
            return tabular.evaluate(c.mdp, pi).J, tabular.surrogate(c.old, pi)

        (J_plus, L_plus), (J_minus, L_minus) = along(h), along(-h)
        size = max(abs(slope), scale(c.old))
        assert abs((J_plus - J_minus) / (2 * h) - slope) <= 1e-7 * size, c.name
        assert abs((L_plus - L_minus) / (2 * h) - slope) <= 1e-7 * size, c.name


def test_natural_gradient_solves_the_fisher_system() -> None:
    for c in cases(100, stochastic=True):
        pi, x = c.old.policy, tabular.natural_gradient(c.old)
        d = c.old.state_distribution[:, None]
        # F x = d (diag(pi) - pi pi^T) x, state by state
        Fx = d * pi * (x - (pi * x).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(
            Fx, tabular.policy_gradient(c.old), atol=1e-12 * scale(c.old), err_msg=c.name
        )


# ---- divergences


def test_kl_divergence_known_values() -> None:
    half, tilted = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert tabular.kl_divergence(half, half) == 0.0
    expected = 0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0)
    assert tabular.kl_divergence(half, tilted) == pytest.approx(expected, rel=1e-15)
    assert tabular.kl_divergence([1.0, 0.0], half) == pytest.approx(math.log(2.0), rel=1e-15)
    assert tabular.kl_divergence(half, [1.0, 0.0]) == math.inf
    # of tiny differences too: chi^2/2 = (2e-9)^2/2
    nudged = np.array([0.5 + 1e-9, 0.5 - 1e-9])
    assert tabular.kl_divergence(half, nudged) == pytest.approx(2e-18, rel=1e-6)
    assert tabular.total_variation(half, tilted) == 0.25


def test_total_variation_squared_is_at_most_the_divergence() -> None:
    for c in cases():
        for pi in c.candidates(4):
            tv = tabular.total_variation(c.old.policy, pi)
            kl = tabular.kl_divergence(c.old.policy, pi)
            assert (tv**2 <= 0.5 * kl + 1e-15).all(), c.name  # Pinsker, twice as strong
            assert (kl >= 0.0).all(), c.name
            assert tabular.mean_kl(c.old, pi) <= tabular.max_kl(c.old, pi) * (1 + 1e-12), c.name


# ---- lower bounds


def test_lower_bounds_hold() -> None:
    """Schulman et al. 2015, theorem 1, with the total variation and with the KL divergence."""
    for c in cases():
        slack = 1e-12 * scale(c.old)
        for pi in c.candidates(6):
            J = tabular.evaluate(c.mdp, pi).J
            by_tv = tabular.lower_bound(c.old, pi, "tv")
            by_kl = tabular.lower_bound(c.old, pi, "kl")
            assert by_kl <= by_tv + slack, c.name
            assert by_tv <= J + slack, c.name
        assert tabular.lower_bound(c.old, c.old.policy) == c.old.J, c.name


def test_conservative_bound_holds() -> None:
    """Kakade and Langford 2002, theorem 4.1, for mixtures with any policy and any alpha."""
    for c in cases():
        targets = [tabular.greedy_policy(c.old.A), *c.candidates(2)]
        for target in targets:
            for alpha in (0.0, 0.01, 0.1, 0.5, 1.0):
                pi = (1.0 - alpha) * c.old.policy + alpha * target
                J = tabular.evaluate(c.mdp, pi).J
                bound = tabular.conservative_bound(c.old, target, alpha)
                assert bound <= J + 1e-12 * scale(c.old), c.name


def test_conservative_step_size_maximises_its_bound() -> None:
    for c in cases(200):
        target = tabular.greedy_policy(c.old.A)
        alpha = tabular.conservative_step_size(c.old, target)
        best = tabular.conservative_bound(c.old, target, alpha)
        grid = [tabular.conservative_bound(c.old, target, a) for a in np.linspace(0.0, 1.0, 51)]
        assert max(grid) <= best + 1e-12 * scale(c.old), c.name
        near = [tabular.conservative_bound(c.old, target, min(alpha * f, 1.0)) for f in (0.9, 1.1)]
        assert max(near) <= best + 1e-12 * scale(c.old), c.name


def test_conservative_step_size_to_first_order() -> None:
    """Where the advantage is small against eps': (1 - gamma) A_bar / (4 gamma eps')."""
    old = tabular.evaluate(mdp := tabular.random_mdp(6, 3, gamma=0.9, seed=3), mdp.uniform_policy())
    # visited with weight 1e-6 only
    rare = int(old.state_distribution.argmin())
    target = old.policy.copy()
    target[rare] = tabular.greedy_policy(old.A)[rare]
    mdp = replace(mdp, initial_distribution=np.where(np.arange(6) == rare, 1e-6, (1 - 1e-6) / 5))
    old = tabular.evaluate(mdp, old.policy)
    epsilon = float(((target - old.policy) * old.A).sum(axis=1)[rare])
    share = tabular.policy_advantage(old, target) / epsilon
    alpha = tabular.conservative_step_size(old, target)
    assert alpha == pytest.approx(0.1 * share / (4.0 * 0.9), rel=share)


# ---- the inner maximisations


def maximise(name: str, old: tabular.PolicyEvaluation, delta: float) -> tabular.Maximum:
    if name == "penalised":
        return tabular.maximise_penalised(old)
    if name == "mean":
        return tabular.maximise_mean_kl(old, delta)
    return tabular.maximise_max_kl(old, delta)


def objective(name: str, old: tabular.PolicyEvaluation, pi: Array, delta: float) -> float:
    """What the maximiser maximises; -inf outside the constraint."""
    if name == "penalised":
        return tabular.lower_bound(old, pi)
    divergence = tabular.mean_kl if name == "mean" else tabular.max_kl
    return tabular.surrogate(old, pi) if divergence(old, pi) <= delta else -math.inf


@pytest.mark.parametrize("name", ["penalised", "mean", "max"])
def test_no_candidate_beats_the_maximiser(name: str) -> None:
    """Random policies, steps from the maximiser itself, and mixtures of it with pi."""
    for c in cases(150):
        delta = 10.0 ** c.rng.uniform(-4.0, 0.5)
        best = maximise(name, c.old, delta).policy
        value = objective(name, c.old, best, delta)
        assert value >= c.old.J - 1e-12 * scale(c.old), c.name
        near = (
            (1.0 - alpha) * best + alpha * pi
            for alpha, pi in zip(10.0 ** -np.arange(6.0), c.candidates(3), strict=False)
        )
        shorter = ((1.0 - a) * c.old.policy + a * best for a in (0.5, 0.9, 0.99, 1.01))
        for pi in (*c.candidates(6), *near, *(p for p in shorter if (p >= 0.0).all())):
            # the maximiser stops 1e-10 short of delta, relatively
            slack = 1e-9 * scale(c.old)
            assert objective(name, c.old, pi, delta) <= value + slack, c.name


@pytest.mark.parametrize("name", ["penalised", "mean", "max"])
def test_maximiser_carries_a_certificate_of_optimality(name: str) -> None:
    """Stationarity: rho A + mu pi/pi' is the same for all actions of a state. Prices add up.

    With L linear in pi' and the divergences convex, that proves the maximum.
    """
    for c in cases(200, stochastic=True):
        if name == "penalised" and c.mdp.gamma == 0.0:
            continue  # C = 0: the greedy policy, without price
        delta = 10.0 ** c.rng.uniform(-4.0, 0.5)
        best = maximise(name, c.old, delta)
        rho, mu, d = c.old.visitation, best.multipliers, c.old.state_distribution
        nu = rho[:, None] * c.old.A + mu[:, None] * c.old.policy / best.policy
        spread = nu.max(axis=1) - nu.min(axis=1)
        assert (spread <= 1e-7 * np.abs(nu).max(axis=1) + 1e-12 * scale(c.old)).all(), c.name
        if name == "mean":
            np.testing.assert_allclose(mu, best.price * d, rtol=1e-9, atol=1e-14, err_msg=c.name)
        else:
            assert mu.sum() == pytest.approx(best.price, rel=1e-9), c.name
            # all states at one level, except those that float64 cannot take there
            kl = tabular.kl_divergence(c.old.policy, best.policy)
            greedy = ((best.policy < 1e-100) | (best.policy == 1.0)).all(axis=1)
            at_level = np.abs(kl - kl.max()) <= 1e-8 * kl.max()
            assert (at_level | greedy).all(), c.name


@pytest.mark.parametrize("name", ["penalised", "mean", "max"])
def test_two_states_two_actions_by_brute_force(name: str) -> None:
    grid = np.linspace(0.0005, 0.9995, 1000)
    for seed in range(8):
        mdp = tabular.random_mdp(2, 2, branching=2, gamma=0.3, seed=seed)
        old = tabular.evaluate(mdp, random_policy(np.random.default_rng(seed), mdp, 2.0))
        delta = 0.05
        # every pair (pi'(0|0), pi'(0|1)) at once
        first, second = grid[:, None], grid[None, :]
        kl_0, kl_1 = (
            tabular.kl_divergence(old.policy[s], np.stack([grid, 1 - grid], axis=1)) for s in (0, 1)
        )
        kl_0, kl_1 = kl_0[:, None], kl_1[None, :]
        rho, A, d = old.visitation, old.A, old.state_distribution
        L = (
            old.J
            + rho[0] * (first * A[0, 0] + (1 - first) * A[0, 1])
            + rho[1] * (second * A[1, 0] + (1 - second) * A[1, 1])
        )
        highest = np.maximum(kl_0, kl_1)
        if name == "penalised":
            values = L - tabular.penalty_coefficient(old) * highest
        else:
            divergence = highest if name == "max" else d[0] * kl_0 + d[1] * kl_1
            values = np.where(divergence <= delta, L, -np.inf)
        best = objective(name, old, maximise(name, old, delta).policy, delta)
        resolution = 2e-3 * scale(old)
        assert values.max() <= best + 1e-9
        assert values.max() >= best - resolution


def test_constraints_hold_and_bind() -> None:
    """Whenever something can be gained, all of the trust region is used and nothing more."""
    for c in cases(150):
        for delta in (1e-6, 0.01, 0.5):
            for name, divergence in (("mean", tabular.mean_kl), ("max", tabular.max_kl)):
                best = maximise(name, c.old, delta)
                used = divergence(c.old, best.policy)
                assert used <= delta, c.name
                if best.price > 1e-9 * scale(c.old):
                    assert used >= delta * (1.0 - 1e-6), c.name


def test_price_is_the_slope_of_the_best_surrogate() -> None:
    for c in cases(60, stochastic=True):
        for name in ("mean", "max"):
            delta, h = 0.02, 1e-5
            above = tabular.surrogate(c.old, maximise(name, c.old, delta + h).policy)
            below = tabular.surrogate(c.old, maximise(name, c.old, delta - h).policy)
            price = maximise(name, c.old, delta).price
            assert (above - below) / (2 * h) == pytest.approx(price, rel=1e-4), c.name


def test_actions_never_taken_may_enter() -> None:
    """KL(old || new) puts no price on new actions themselves, only on the room they take."""
    mdp = tabular.FiniteMDP(
        transitions=np.ones((1, 3, 1)),
        rewards=np.array([[0.0, 1.0, 2.0]]),
        initial_distribution=np.ones(1),
        gamma=0.0,
    )
    old = tabular.evaluate(mdp, np.array([[1.0, 0.0, 0.0]]))
    pi = tabular.maximise_max_kl(old, 0.1).policy
    # KL = -log pi'(0) and the best action takes the rest
    np.testing.assert_allclose(pi, [[math.exp(-0.1), 0.0, 1.0 - math.exp(-0.1)]], atol=1e-9)
    # a penalty that costs more than the first step brings: pi stays
    assert (tabular.maximise_penalised(old, 2.0 + 1e-9).policy == old.policy).all()
    pi = tabular.maximise_penalised(old, 1.0).policy
    np.testing.assert_allclose(pi, [[0.5, 0.0, 0.5]], atol=1e-9)  # 2 pi'(0) = C


# ---- algorithms


def test_policy_iteration_reaches_the_optimum_of_value_iteration() -> None:
    for c in cases():
        if c.mdp.gamma > 0.95:
            continue
        found = tabular.policy_iteration(c.mdp, c.old.policy)
        optimum = tabular.value_iteration(c.mdp, tolerance=1e-10)
        assert found.status == "converged", c.name
        assert optimum.error_bound <= 1e-10, c.name
        np.testing.assert_allclose(found.evaluation.V, optimum.V, atol=1e-8, err_msg=c.name)
        greedy = tabular.evaluate(c.mdp, optimum.policy)
        np.testing.assert_allclose(greedy.V, optimum.V, atol=1e-8, err_msg=c.name)


Algorithm = Callable[..., tabular.Solution]


@pytest.mark.parametrize(
    "algorithm",
    [
        tabular.policy_iteration,
        tabular.conservative_policy_iteration,
        tabular.monotonic_improvement,
    ],
)
def test_return_never_falls_and_keeps_its_promise(algorithm: Algorithm) -> None:
    for c in cases():
        solution = algorithm(c.mdp, c.old.policy, iterations=5)
        J, slack = c.old.J, 1e-12 * scale(c.old)
        for i, at in enumerate(solution.history, start=1):
            assert at.iteration == i
            assert at.bound >= J - slack, c.name
            assert at.J >= at.bound - slack, c.name
            J = at.J
        assert solution.J == pytest.approx(J, abs=slack)


def test_algorithm_1_stands_still_at_deterministic_policies() -> None:
    """There the first nat is worth at most max A/(1 - gamma), which C exceeds for gamma > 0.2."""
    for c in cases():
        if c.mdp.gamma > 0.2 and ((c.old.policy == 0.0) | (c.old.policy == 1.0)).all():
            solution = tabular.monotonic_improvement(c.mdp, c.old.policy, iterations=5)
            assert solution.status in ("stalled", "converged"), c.name
            assert solution.history == ()


def test_algorithm_1_converges_where_its_penalty_is_mild() -> None:
    mdp = tabular.random_mdp(5, 3, branching=2, gamma=0.05, seed=2)
    solution = tabular.monotonic_improvement(mdp, iterations=100)
    assert solution.J == pytest.approx(tabular.policy_iteration(mdp).J, rel=1e-2)


@pytest.mark.parametrize("method", ["exact", "natural_gradient"])
@pytest.mark.parametrize("constraint", ["mean", "max"])
def test_trpo_stays_inside_and_improves(method: Any, constraint: Any) -> None:
    for c in cases(80):
        delta = (0.001, 0.01, 0.1)[c.seed % 3]
        solution = tabular.trpo(
            c.mdp, c.old.policy, delta=delta, constraint=constraint, method=method, iterations=6
        )
        for before, at in zip(
            (c.old.J, *(i.J for i in solution.history)), solution.history, strict=False
        ):
            used = at.mean_kl if constraint == "mean" else at.max_kl
            assert used <= delta, c.name
            assert at.L >= before - 1e-12 * scale(c.old), c.name
            assert at.J >= at.bound - 1e-12 * scale(c.old), c.name


def test_natural_gradient_step_is_the_exact_one_to_first_order() -> None:
    """For a small radius the two gain the same; for any radius the exact one gains more."""
    for c in cases(100, stochastic=True):
        for constraint in ("mean", "max"):
            for delta, share in ((1e-8, 0.99), (0.1, 0.0)):
                exact = tabular.trust_region_step(c.old, delta=delta, constraint=constraint)
                step = tabular.natural_gradient_step(c.old, delta=delta, constraint=constraint)
                best = tabular.policy_advantage(c.old, exact.policy)
                gain = tabular.policy_advantage(c.old, step.policy)
                assert gain <= best * (1.0 + 1e-9) + 1e-14, c.name
                # the line search may have shortened the step by its ratio 0.8 once
                if constraint == "mean" and c.old.policy.min() > 1e-2:
                    assert gain >= 0.79 * share * best, c.name


def test_trpo_solves_the_gridworld() -> None:
    mdp = tabular.gridworld_mdp()
    best = tabular.policy_iteration(mdp).J
    for constraint in ("mean", "max"):
        for method in ("exact", "natural_gradient"):
            found = tabular.trpo(
                mdp, delta=0.1, constraint=constraint, method=method, iterations=300
            )
            assert found.J == pytest.approx(best, rel=1e-3)


def test_chain_is_crossed() -> None:
    mdp = tabular.chain_mdp(6, slip=0.1, gamma=0.9)
    solution = tabular.policy_iteration(mdp)
    assert (solution.policy.argmax(axis=1)[:-1] == 1).all()
    assert solution.J > tabular.evaluate(mdp, mdp.uniform_policy()).J


def test_uniform_rewards_leave_nothing_to_gain() -> None:
    mdp = replace(tabular.random_mdp(4, 3, seed=0), rewards=np.ones((4, 3)))
    for solve in (
        tabular.policy_iteration,
        tabular.conservative_policy_iteration,
        tabular.monotonic_improvement,
        tabular.trpo,
    ):
        solution = solve(mdp)
        assert solution.status == "converged"
        assert solution.history == ()
        assert solution.J == pytest.approx(10.0)


# ---- refusals and imports


def arrays() -> dict[str, Any]:
    mdp = tabular.random_mdp(3, 2, branching=2, seed=0)
    return {
        "transitions": mdp.transitions.copy(),
        "rewards": mdp.rewards.copy(),
        "initial_distribution": mdp.initial_distribution.copy(),
        "gamma": 0.9,
    }


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("transitions", np.ones((3, 2)), r"transitions: expected shape \(S, A, S\).*\(3, 2\)"),
        ("transitions", np.ones((3, 2, 3)), "transitions: .* got the sum 3 at s=0, a=0; divide"),
        (
            "transitions",
            np.full((3, 2, 3), np.nan),
            r"transitions: .* nan at \(0, 0, 0\)",
        ),
        ("rewards", np.zeros((2, 3)), r"rewards: expected shape .*\(3, 2\).* got \(2, 3\)"),
        ("rewards", np.zeros((3, 2, 3)), "rewards: .* average a reward that depends on s'"),
        ("initial_distribution", np.ones(2) / 2, "initial_distribution: expected shape"),
        ("initial_distribution", np.array([1.5, -0.5, 0.0]), "got the entry -0.5; divide"),
        ("gamma", 1.0, r"gamma: expected a number in \[0, 1\), got 1.0"),
        ("gamma", -0.1, "gamma: expected"),
        ("gamma", math.nan, "gamma: expected"),
    ],
)
def test_process_is_checked(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tabular.FiniteMDP(**{**arrays(), field: value})


def test_arguments_are_checked() -> None:
    mdp = tabular.random_mdp(3, 2, branching=2, seed=0)
    old = tabular.evaluate(mdp, mdp.uniform_policy())
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: tabular.evaluate(mdp, np.ones((2, 3)) / 3), r"policy: expected .* \(3, 2\), got"),
        (lambda: tabular.evaluate(mdp, np.ones((3, 2))), "policy: .* got the sum 2 at s=0"),
        (lambda: tabular.lower_bound(old, old.policy, "js"), "divergence: expected 'kl' or 'tv'"),
        (lambda: tabular.conservative_bound(old, old.policy, 1.5), "alpha: expected"),
        (lambda: tabular.maximise_max_kl(old, 0.0), "delta: expected .* > 0 in nats, got 0.0"),
        (lambda: tabular.maximise_mean_kl(old, math.nan), "delta: expected"),
        (lambda: tabular.natural_gradient_step(old, delta=-1.0), "delta: expected"),
        (lambda: tabular.maximise_penalised(old, -1.0), "C: expected"),
        (lambda: tabular.trpo(mdp, constraint="median"), "constraint: expected 'mean' or 'max'"),
        (lambda: tabular.trpo(mdp, method="adam"), "method: expected"),
        (lambda: tabular.trpo(mdp, iterations=-1), "iterations: expected"),
        (lambda: tabular.random_mdp(3, branching=4), "branching: expected between 1 and"),
        (lambda: tabular.chain_mdp(slip=2.0), "slip: expected a probability"),
        (lambda: tabular.gridworld_mdp(["S?"]), "layout: expected the characters"),
        (lambda: tabular.gridworld_mdp(["..G"]), "layout: expected at least one start"),
    ]
    for call, sentence in refused:
        with pytest.raises(ValueError, match=sentence):
            call()


def test_arrays_are_copied_and_read_only() -> None:
    given = arrays()
    mdp = tabular.FiniteMDP(**given)
    given["rewards"][:] = 7.0
    assert (mdp.rewards != 7.0).any()
    with pytest.raises(ValueError, match="read-only"):
        mdp.rewards[0, 0] = 1.0


def test_imports_numpy_only() -> None:
    code = (
        "import sys; import trpo_fast.tabular; "
        "print([m for m in ('gymnasium', 'torch', 'matplotlib', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
