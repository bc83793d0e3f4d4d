"""The relatives' pieces: score covariance, penalised gradient, maximum KL, step rules, Adam."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import reference
from cases import (
    DTYPES,
    HEADS,
    SMALL_HEADS,
    Array,
    assert_close,
    core_batch,
    core_policy,
    moved,
    normals,
    small_problem,
)
from trpo_fast import core, runtime, tabular

TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
HEAD = pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
DTYPE = pytest.mark.parametrize("dtype", DTYPES)
SHAPES = ((3, (), 97), (5, (16, 9), 400), (4, (31,), 1), (3, (64,), 1000))


# ---- references: as slow and plain as they can be ---------------------------------------------


def scores(p: reference.Problem) -> Array:
    """grad log pi(a_n|s_n), one row a sample: (N, D)."""
    score = p.policy.head.score(p.policy.eta(p.parameters, p.obs), p.actions)
    rows = [
        p.policy.eta_adjoint(p.parameters, p.obs[n : n + 1], score[n : n + 1])
        for n in range(len(p.obs))
    ]
    return np.stack(rows)


def kl_gradient(p: reference.Problem, old: Array) -> Array:
    """grad of mean_n KL(pi_old || pi) at p.parameters: differentiate each KL in eta by hand."""
    head, n = p.policy.head, len(p.obs)
    eta_old, eta = p.policy.eta(old, p.obs), p.policy.eta(p.parameters, p.obs)
    if head.is_gaussian:
        m_old, l_old = np.split(eta_old, 2, axis=1)
        m, log_std = np.split(eta, 2, axis=1)
        z2 = (m - m_old) ** 2 * np.exp(-2.0 * log_std)
        d_log_std = 1.0 - np.exp(2.0 * (l_old - log_std)) - z2
        d_eta = np.concatenate([(m - m_old) * np.exp(-2.0 * log_std), d_log_std], axis=1)
    elif head.kind == "bernoulli":
        d_eta = 1.0 / (1.0 + np.exp(-eta)) - 1.0 / (1.0 + np.exp(-eta_old))
    else:
        groups = head.groups()
        d_eta = np.concatenate(
            [tabular.softmax(eta[:, g]) - tabular.softmax(eta_old[:, g]) for g in groups], axis=1
        )
    return p.policy.eta_adjoint(p.parameters, p.obs, d_eta) / n


def penalised_objective(p: reference.Problem, theta: Array, old: Array, beta: float) -> float:
    surrogate = p.policy.surrogate(theta, old, p.obs, p.actions, p.advantages)
    return surrogate - beta * float(p.policy.kl(old, theta, p.obs).mean())


# ---- empirical Fisher -------------------------------------------------------------------------


@DTYPE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("head_name", HEADS)
def test_score_covariance_is_the_sum_of_outer_products(
    head_name: str, shape: tuple[int, tuple[int, ...], int], dtype: str
) -> None:
    obs_dim, hidden, n = shape
    p = reference.make_problem(reference.Policy(obs_dim, HEADS[head_name], hidden), n, dtype=dtype)
    s = scores(p)
    v = normals(3, s.shape[1], dtype=dtype)
    obs, actions, _ = core_batch(p, dtype)
    F = core_policy(p, dtype).fisher_operator(obs, actions=actions, fisher="empirical", damping=0.1)
    expected = s.T @ (s @ v) / n + 0.1 * v
    assert_close(F(v), expected, 10 * TOLERANCE[dtype], what="empirical F v")


@HEAD
def test_score_covariance_expects_the_fisher_matrix(head: reference.Head) -> None:
    """Weighted over every action of a quadrature, mean_n s s^T is the Gauss-Newton form."""
    p = small_problem(head, n=6)
    policy = core_policy(p, "float64")
    v = normals(5, len(p.parameters))
    eta = p.policy.eta(p.parameters, p.obs)
    action_dtype = np.float64 if head.is_gaussian else np.int32
    total = np.zeros_like(v)
    for actions, weights in head.quadrature(eta):
        for n in range(len(p.obs)):
            F = policy.fisher_operator(
                p.obs[n : n + 1],
                actions=actions[n : n + 1].astype(action_dtype),
                fisher="empirical",
            )
            total += weights[n] * F(v)
    assert_close(total / len(p.obs), policy.fisher_vector_product(p.obs, v), 1e-9)


def test_empirical_fisher_needs_actions() -> None:
    p = small_problem(SMALL_HEADS["gaussian"])
    policy = core_policy(p, "float64")
    with pytest.raises(ValueError, match="actions: expected the sampled actions"):
        policy.fisher_operator(p.obs, fisher="empirical")
    with pytest.raises(ValueError, match="fisher: expected one of"):
        policy.fisher_operator(p.obs, fisher="identity")
    with pytest.raises(ValueError, match="fisher: expected one of"):
        policy.update(p.obs, p.actions, p.advantages, fisher="exact")  # type: ignore[arg-type]


@HEAD
def test_update_with_the_empirical_fisher_solves_its_own_system(head: reference.Head) -> None:
    p = small_problem(head, n=300)
    policy = core_policy(p, "float64")
    summary = policy.update(
        *core_batch(p, "float64"), fisher="empirical", cg_iterations=500, cg_tolerance=1e-13
    )
    assert summary.accepted
    s = scores(p)
    g = p.policy.surrogate_gradient(
        p.parameters, p.parameters, p.obs, p.actions, reference.standardize(p.advantages)
    )
    x = np.linalg.solve(s.T @ s / len(s) + 0.1 * np.eye(len(g)), g)
    step = policy.parameters - p.parameters
    assert_close(step, summary.step_size * x, 1e-8, what="step")
    assert summary.step_size == pytest.approx(
        0.8**summary.backtracks * np.sqrt(2.0 * 0.01 / (g @ x)), rel=1e-9
    )
    assert summary.kl <= summary.max_kl


def test_empirical_fisher_on_a_subsample() -> None:
    p = small_problem(SMALL_HEADS["multi_categorical"], n=500)
    batch, results = core_batch(p, "float64"), []
    for fraction in (1.0, 0.2, 0.2):
        policy = core_policy(p, "float64")
        assert policy.update(*batch, fisher="empirical", fisher_fraction=fraction, seed=3).accepted
        results.append(policy.parameters)
    assert np.array_equal(results[1], results[2])
    assert not np.array_equal(results[0], results[1])


# ---- the gradient of L - beta KL --------------------------------------------------------------


@DTYPE
@pytest.mark.parametrize("beta", [0.0, 0.7, 30.0])
@pytest.mark.parametrize("head_name", HEADS)
def test_penalised_gradient(head_name: str, beta: float, dtype: str) -> None:
    p = reference.make_problem(reference.Policy(5, HEADS[head_name], (16, 9)), 300, dtype=dtype)
    old = moved(p.parameters, 11, dtype, 0.1)
    gradient = core_policy(p, dtype).penalised_gradient(
        *core_batch(p, dtype), old_parameters=old.astype(dtype), kl_coefficient=beta
    )
    surrogate = p.policy.surrogate_gradient(p.parameters, old, p.obs, p.actions, p.advantages)
    expected = surrogate - beta * kl_gradient(p, old)
    assert_close(gradient, expected, 10 * TOLERANCE[dtype], what="penalised gradient")


@HEAD
def test_penalised_gradient_by_central_differences(head: reference.Head) -> None:
    p = small_problem(head, n=50)
    old, direction = moved(p.parameters, 12, "float64", 0.1), normals(13, len(p.parameters))
    gradient = core_policy(p, "float64").penalised_gradient(
        *core_batch(p, "float64"), old_parameters=old, kl_coefficient=2.0
    )
    slope = float(gradient @ direction)

    def difference(h: float) -> float:
        ahead = penalised_objective(p, p.parameters + h * direction, old, 2.0)
        behind = penalised_objective(p, p.parameters - h * direction, old, 2.0)
        return (ahead - behind) / (2.0 * h)

    errors = [abs(difference(h) - slope) for h in (0.02, 0.01, 1e-5)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)
    assert errors[2] <= 1e-7 * max(1.0, abs(slope))


@DTYPE
@HEAD
def test_at_theta_k_the_kl_is_exactly_flat(head: reference.Head, dtype: str) -> None:
    p = small_problem(head, n=200, dtype=dtype)
    policy = core_policy(p, dtype)
    batch = core_batch(p, dtype)
    penalised = policy.penalised_gradient(
        *batch, old_parameters=policy.parameters, kl_coefficient=100.0
    )
    assert np.array_equal(penalised, policy.surrogate_gradient(*batch))


def test_clamped_log_std_has_no_kl_gradient() -> None:
    head = SMALL_HEADS["state_dependent_gaussian"]
    p = small_problem(head, n=30)
    p.parameters[-2:] = 5.0  # the biases of both log_std outputs, beyond the clamp at 2
    old = p.parameters.copy()
    old[-4:-2] += 0.5
    gradient = core_policy(p, "float64").penalised_gradient(
        *core_batch(p, "float64"), old_parameters=old, kl_coefficient=1.0
    )
    assert np.array_equal(gradient[-2:], [0.0, 0.0])
    assert np.any(gradient[-4:-2] != 0.0)


# ---- maximum KL -------------------------------------------------------------------------------


@DTYPE
@pytest.mark.parametrize("head_name", HEADS)
def test_maximum_kl_holds_in_every_state(head_name: str, dtype: str) -> None:
    p = reference.make_problem(reference.Policy(5, HEADS[head_name], (16, 9)), 400, dtype=dtype)
    policy = core_policy(p, dtype)
    summary = policy.update(*core_batch(p, dtype), constraint="max", max_kl=0.02)
    assert summary.accepted
    kl = p.policy.kl(p.parameters, policy.parameters.astype(np.float64), p.obs)
    assert kl.max() <= 0.02 * (1.0 + 1e-3)
    assert summary.kl_max <= 0.02
    assert summary.kl_max == pytest.approx(kl.max(), rel=1e-2)
    assert summary.kl == pytest.approx(kl.mean(), rel=1e-2)
    assert summary.kl < summary.kl_max
    assert summary.surrogate_gain > 0.0
    assert "largest KL" in summary.message


@HEAD
def test_largest_curvature_models_the_largest_kl(head: reference.Head) -> None:
    """max_n v^T F_n v from the dense F of every sample; a small full step lands on the boundary."""
    p = small_problem(head, n=20)
    policy = core_policy(p, "float64")
    v = normals(17, len(p.parameters))
    F = policy.fisher_operator(p.obs)
    expected = max(
        float(v @ p.policy.fisher_vector_product(p.parameters, row[None], v)) for row in p.obs
    )
    assert F.largest_curvature(v) == pytest.approx(expected, rel=1e-12)
    summary = policy.update(
        *core_batch(p, "float64"), constraint="max", max_kl=1e-8, cg_damping=0.0, step="boundary"
    )
    assert summary.kl_max == pytest.approx(1e-8, rel=1e-2)


def test_maximum_kl_refuses_what_the_mean_allows() -> None:
    for seed in range(50):
        p = small_problem(SMALL_HEADS["categorical"], n=30, seed=seed)
        batch = core_batch(p, "float64")
        options = {"max_kl": 1.0, "cg_damping": 0.0, "cg_iterations": 20, "max_backtracks": 0}
        policy = core_policy(p, "float64")
        before = policy.parameters
        summary = policy.update(*batch, constraint="max", **options)
        if summary.status == "line_search_failed" and "1 left the trust region" in summary.message:
            assert "largest KL" in summary.message
            assert policy.parameters.tobytes() == before.tobytes()
            return
    raise AssertionError("no such batch among 50")


# ---- natural gradient -------------------------------------------------------------------------


@DTYPE
@HEAD
def test_natural_gradient_equals_the_first_candidate_bit_for_bit(
    head: reference.Head, dtype: str
) -> None:
    p = small_problem(head, n=300, dtype=dtype)
    batch = core_batch(p, dtype)
    trpo = core_policy(p, dtype)
    for max_kl in (0.01, 1e-3, 1e-4):  # until the first candidate is the accepted one
        trpo.parameters = p.parameters
        first = trpo.update(*batch, max_kl=max_kl)
        if first.backtracks == 0:
            break
    assert first.accepted
    assert first.backtracks == 0

    normalised = core_policy(p, dtype)
    summary = normalised.update(*batch, max_kl=max_kl, step="boundary")
    assert np.array_equal(normalised.parameters, trpo.parameters)
    assert (summary.kl, summary.surrogate_gain) == (first.kl, first.surrogate_gain)

    fixed = core_policy(p, dtype)
    summary = fixed.update(*batch, step="fixed", step_size=first.step_size)
    assert np.array_equal(fixed.parameters, trpo.parameters)
    assert summary.step_size == first.step_size
    assert summary.kl_predicted == first.kl_predicted
    assert summary.max_kl == np.inf


@HEAD
def test_natural_gradient_takes_the_step_as_it_is(head: reference.Head) -> None:
    """theta_k + step_size x, with x of the reference, whatever the KL."""
    p = small_problem(head, n=100)
    g = p.policy.surrogate_gradient(
        p.parameters, p.parameters, p.obs, p.actions, reference.standardize(p.advantages)
    )
    x = np.linalg.solve(p.policy.fisher(p.parameters, p.obs) + 0.1 * np.eye(len(g)), g)
    policy = core_policy(p, "float64")
    summary = policy.update(
        *core_batch(p, "float64"), step="fixed", step_size=3.0, cg_iterations=300
    )
    assert summary.accepted
    assert_close(policy.parameters - p.parameters, 3.0 * x, 1e-6, what="step")
    assert summary.kl > 0.01


def test_a_step_to_infinity_is_undone() -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=100, dtype="float32")
    policy = core_policy(p, "float32")
    before = policy.parameters
    summary = policy.update(*core_batch(p, "float32"), step="fixed", step_size=1e300)
    assert summary.status == "non_finite"
    assert policy.parameters.tobytes() == before.tobytes()
    assert summary.kl == summary.surrogate_gain == 0.0
    assert "smaller step" in summary.message


def test_step_size_belongs_to_the_fixed_step() -> None:
    p = small_problem(SMALL_HEADS["gaussian"])
    policy = core_policy(p, "float64")
    for options in ({"step": "fixed"}, {"step_size": 0.1}, {"step": "boundary", "step_size": 0.1}):
        with pytest.raises(ValueError, match="step_size: expected a number for step='fixed'"):
            policy.update(p.obs, p.actions, p.advantages, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step: expected one of"):
        policy.update(p.obs, p.actions, p.advantages, step="long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="constraint: expected one of"):
        policy.update(p.obs, p.actions, p.advantages, constraint="sum")  # type: ignore[arg-type]


# ---- vanilla policy gradient ------------------------------------------------------------------


@DTYPE
@HEAD
def test_identity_walks_along_the_gradient(head: reference.Head, dtype: str) -> None:
    p = small_problem(head, n=200, dtype=dtype)
    g = p.policy.surrogate_gradient(
        p.parameters, p.parameters, p.obs, p.actions, reference.standardize(p.advantages)
    )
    fixed = core_policy(p, dtype)
    summary = fixed.update(*core_batch(p, dtype), fisher="identity", step="fixed", step_size=0.3)
    assert_close(fixed.parameters - p.parameters, 0.3 * g, 1e-3 if dtype == "float32" else 1e-9)
    assert summary.cg_iterations == 0
    # to the boundary of the L2 ball ||s||^2 / 2 <= delta (the paper, equation 20)
    ball = core_policy(p, dtype)
    summary = ball.update(*core_batch(p, dtype), fisher="identity", step="boundary", max_kl=0.02)
    assert summary.step_norm == pytest.approx(0.2, rel=1e-12)
    s = ball.parameters.astype(np.float64) - p.parameters
    assert np.linalg.norm(s) == pytest.approx(0.2, rel=1e-4)
    s_F_s = s @ p.policy.fisher_vector_product(p.parameters, p.obs, s)
    assert summary.kl_predicted == pytest.approx(0.5 * s_F_s, rel=1e-3)


def test_vanilla_gradient_is_exact_on_a_tabular_softmax_policy() -> None:
    """Every state and action with its exact weight: the core's gradient is dJ/dtheta."""
    for seed in range(20):
        mdp = tabular.random_mdp(6, 4, seed=seed)
        S, n_actions = mdp.n_states, mdp.n_actions
        policy = core.Policy(
            S, core.Distribution("categorical", (n_actions,)), hidden_sizes=(), dtype="float64"
        )
        theta = np.random.default_rng(seed).normal(size=(S, n_actions))
        policy.parameters = np.concatenate([theta.T.ravel(), np.zeros(n_actions)])
        evaluation = tabular.evaluate(mdp, tabular.softmax(theta))

        # one row a pair (s, a): E[.] = sum_s rho(s) sum_a pi(a|s) (.), no sampling anywhere
        states, actions = np.divmod(np.arange(S * n_actions), n_actions)
        weights = (evaluation.visitation[:, None] * evaluation.policy * evaluation.A).ravel()
        batch = (np.eye(S)[states], actions.astype(np.int32), S * n_actions * weights)
        gradient = policy.surrogate_gradient(*batch)

        exact = tabular.policy_gradient(evaluation)
        assert_close(gradient[: S * n_actions], exact.T.ravel(), 1e-12, what="dJ/dtheta")
        # and that is what one vanilla step adds
        before = policy.parameters
        policy.update(
            *batch, fisher="identity", step="fixed", step_size=0.1, standardize_advantages=False
        )
        assert_close(policy.parameters - before, 0.1 * gradient, 1e-9, what="step")


# ---- Adam on L - beta KL ----------------------------------------------------------------------


def reference_ascent(
    p: reference.Problem, *, epochs: int, learning_rate: float, beta: float, calls: int = 1
) -> Array:
    """Full-batch Adam on the penalised objective, ``calls`` times from where the last one ended."""
    adam = reference.Adam(learning_rate=learning_rate)
    theta, advantages = p.parameters.copy(), reference.standardize(p.advantages)
    for _ in range(calls):
        old = theta.copy()
        for _ in range(epochs):
            here = reference.Problem(p.policy, theta, p.obs, p.actions, p.advantages)
            gradient = p.policy.surrogate_gradient(theta, old, p.obs, p.actions, advantages)
            theta = adam.step(theta, -(gradient - beta * kl_gradient(here, old)))
    return theta


@HEAD
@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_ascent_is_adam_on_the_penalised_objective(head: reference.Head, beta: float) -> None:
    p = small_problem(head, n=150)
    policy = core_policy(p, "float64")
    for _ in range(2):  # moments carry over
        before = policy.parameters
        summary = policy.ascend(
            *core_batch(p, "float64"), epochs=5, learning_rate=0.01, kl_coefficient=beta
        )
        assert summary.accepted
    expected = reference_ascent(p, epochs=5, learning_rate=0.01, beta=beta, calls=2)
    assert_close(policy.parameters - p.parameters, expected - p.parameters, 1e-6, what="ascent")
    kl = p.policy.kl(before, policy.parameters, p.obs)
    assert summary.kl == pytest.approx(kl.mean(), rel=1e-8)
    assert summary.kl_max == pytest.approx(kl.max(), rel=1e-8)
    s = policy.parameters - before
    s_F_s = s @ p.policy.fisher_vector_product(before, p.obs, s)
    assert summary.kl_predicted == pytest.approx(0.5 * s_F_s, rel=1e-8)
    assert summary.step_norm == pytest.approx(np.linalg.norm(s), rel=1e-12)
    assert policy.optimizer_state()["steps"] == [10]


@HEAD
def test_a_minibatch_of_everything_is_the_full_batch(head: reference.Head) -> None:
    p = small_problem(head, n=64)
    expected = None
    for size in (None, 64, 1000):
        policy = core_policy(p, "float64")
        policy.ascend(*core_batch(p, "float64"), epochs=3, minibatch_size=size, kl_coefficient=1.0)
        expected = policy.parameters if expected is None else expected
        assert np.array_equal(policy.parameters, expected)


@HEAD
def test_a_minibatch_step_uses_the_rows_own_weight_and_old_policy(head: reference.Head) -> None:
    """Two samples, one a step: what comes out is one of the two possible orders, exactly."""
    p = small_problem(head, n=2)
    policy = core_policy(p, "float64")
    policy.ascend(
        *core_batch(p, "float64"), minibatch_size=1, learning_rate=0.05, kl_coefficient=3.0
    )
    weights, errors = reference.standardize(p.advantages), []
    for order in ((0, 1), (1, 0)):
        adam, theta = reference.Adam(learning_rate=0.05), p.parameters.copy()
        for n in order:
            row = reference.Problem(
                p.policy, theta, p.obs[n : n + 1], p.actions[n : n + 1], weights[n : n + 1]
            )
            surrogate = p.policy.surrogate_gradient(
                theta, p.parameters, row.obs, row.actions, row.advantages
            )
            theta = adam.step(theta, -(surrogate - 3.0 * kl_gradient(row, p.parameters)))
        errors.append(np.abs(policy.parameters - theta).max())
    assert min(errors) < 1e-6 < max(errors)
    assert policy.optimizer_state()["steps"] == [2]


def test_a_large_penalty_keeps_the_policy_near() -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=400)
    kls = []
    for beta in (0.0, 1.0, 30.0):
        policy = core_policy(p, "float64")
        summary = policy.ascend(
            *core_batch(p, "float64"), epochs=300, learning_rate=3e-3, kl_coefficient=beta
        )
        kls.append(summary.kl)
    assert kls[0] > kls[1] > kls[2]
    assert kls[2] < 0.05 * kls[0]


@DTYPE
def test_optimizer_state_round_trip(dtype: str) -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=100, dtype=dtype)
    batch = core_batch(p, dtype)
    one = core_policy(p, dtype)
    assert one.optimizer_state()["steps"] == [0]
    one.ascend(*batch, epochs=2, minibatch_size=32)
    other = core_policy(p, dtype)
    other.parameters = one.parameters
    other.load_optimizer_state(one.optimizer_state())
    for policy in (one, other):
        policy.ascend(*batch, epochs=2, minibatch_size=32, seed=5)
    assert one.parameters.tobytes() == other.parameters.tobytes()
    with pytest.raises(ValueError, match="first_moment: expected shape"):
        one.load_optimizer_state({**one.optimizer_state(), "first_moment": np.zeros(3)})


def test_ascent_to_infinity_is_undone() -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=100, dtype="float32")
    policy = core_policy(p, "float32")
    policy.ascend(*core_batch(p, "float32"))
    before, state = policy.parameters, policy.optimizer_state()
    summary = policy.ascend(*core_batch(p, "float32"), learning_rate=1e38, epochs=3)
    assert summary.status == "non_finite"
    assert policy.parameters.tobytes() == before.tobytes()
    for name, array in policy.optimizer_state().items():
        assert np.array_equal(array, state[name])


@DTYPE
def test_nothing_to_ascend(dtype: str) -> None:
    p = small_problem(SMALL_HEADS["categorical"], n=20, dtype=dtype)
    policy = core_policy(p, dtype)
    obs, actions, advantages = core_batch(p, dtype)
    before = policy.parameters
    assert policy.ascend(obs, actions, 0.0 * advantages).status == "zero_gradient"
    summary = policy.ascend(obs, actions, 0.0 * advantages, standardize_advantages=False)
    assert summary.status == "zero_gradient"
    advantages[3] = np.nan
    assert policy.ascend(obs, actions, advantages).status == "non_finite"
    assert policy.parameters.tobytes() == before.tobytes()


# ---- the promises -----------------------------------------------------------------------------


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    before = runtime.get_num_threads()
    yield
    runtime.set_num_threads(before)


@DTYPE
@pytest.mark.parametrize("head_name", ["gaussian_6", "multi_categorical_2_5_3"])
@pytest.mark.usefixtures("_threads_as_before")
def test_same_bits_for_any_number_of_threads_and_budget(head_name: str, dtype: str) -> None:
    p = reference.make_problem(reference.Policy(17, HEADS[head_name], (64, 64)), 9_001, dtype=dtype)
    batch = core_batch(p, dtype)
    old = moved(p.parameters, 4, dtype, 0.1).astype(dtype)

    def everything(**budget: int) -> list[bytes]:
        results = []
        for options in (
            {"constraint": "max"},
            {"fisher": "empirical"},
            {"fisher": "empirical", "fisher_fraction": 0.5, "step": "boundary"},
            {"fisher": "identity", "step": "fixed", "step_size": 0.1},
        ):
            policy = core_policy(p, dtype)
            policy.update(*batch, **options, **budget)  # type: ignore[arg-type]
            results.append(policy.parameters.tobytes())
        policy = core_policy(p, dtype)
        gradient = policy.penalised_gradient(*batch, old_parameters=old, kl_coefficient=0.5)
        policy.ascend(*batch, epochs=1, minibatch_size=4_000, kl_coefficient=1.0, **budget)
        policy.ascend(*batch, epochs=2, kl_coefficient=1.0, **budget)
        return [*results, gradient.tobytes(), policy.parameters.tobytes()]

    runtime.set_num_threads(1)
    expected = everything()
    for n in (2, 3, 7):
        runtime.set_num_threads(n)
        assert everything() == expected, f"{n} threads"
    assert everything(activation_budget=200_000) == expected
