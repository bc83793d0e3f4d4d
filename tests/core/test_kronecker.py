"""Kronecker-factored preconditioning of F x = g."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from cases import (
    DTYPES,
    HEADS,
    SHAPES,
    SMALL_HEADS,
    assert_close,
    core_batch,
    core_policy,
    grid_problem,
    normals,
    shape_id,
    small_problem,
)
from trpo_fast import TRPO, core

SIGN_STREAM = 0x4FAC7025
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}  # of an inverse: conditioned worse than a product


def expected_inverse(p: reference.Problem, damping: float, seed: int) -> np.ndarray:
    network, log_std = p.policy.split(p.parameters)
    outputs = p.policy.network.forward(network, p.obs)[0]
    signs = reference.random_signs(seed, SIGN_STREAM, *outputs.shape)
    cotangents = p.policy.head.metric_root(outputs, log_std, signs)
    return p.policy.kronecker_preconditioner(p.parameters, p.obs, damping, cotangents)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if s[2] > 2 and max((*s[1], 1)) < 32], ids=shape_id
)
@pytest.mark.parametrize("head_name", HEADS)
def test_against_the_dense_inverse(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    operator = core_policy(p, dtype).fisher_operator(p.obs.astype(dtype), damping=0.1)
    precondition = operator.kronecker_preconditioner(seed=5)
    residual = normals(3, p.policy.n_parameters)
    assert_close(
        precondition(residual), expected_inverse(p, 0.1, seed=5) @ residual, TOLERANCE[dtype]
    )


@pytest.mark.parametrize(("n", "every"), [(2047, 1), (2500, 2), (3072, 3), (3073, 3)])
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_a_large_batch_is_estimated_from_every_so_many_tiles(
    head: reference.Head, n: int, every: int
) -> None:
    p = reference.make_problem(reference.Policy(3, head, (5,), "tanh"), n, seed=4)
    network, log_std = p.policy.split(p.parameters)
    outputs = p.policy.network.forward(network, p.obs)[0]
    signs = reference.random_signs(5, SIGN_STREAM, *outputs.shape)
    cotangents = p.policy.head.metric_root(outputs, log_std, signs)
    tiles = np.arange(n) // 96
    chosen = tiles % every == 0
    expected = p.policy.kronecker_preconditioner(
        p.parameters, p.obs[chosen], 0.1, cotangents[chosen]
    )
    operator = core_policy(p, "float64").fisher_operator(p.obs, damping=0.1)
    residual = normals(3, p.policy.n_parameters)
    precondition = operator.kronecker_preconditioner(seed=5)
    assert_close(precondition(residual), expected @ residual, 1e-8)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_the_cotangents_have_the_metric_as_their_second_moment(head: reference.Head) -> None:
    """On a linear policy the factor of the outputs tends to the mean Fisher information M."""
    policy = reference.Policy(1, head, (), "tanh")
    p = reference.make_problem(policy, 1, 4)
    n = 200_000
    p = reference.Problem(policy, p.parameters, np.repeat(p.obs, n, 0), p.actions, p.advantages)
    network, log_std = policy.split(p.parameters)
    outputs = policy.network.forward(network, p.obs[:1])[0]
    eta = policy.head.eta(outputs, log_std)
    slope = policy.head.eta_slope(outputs)[0]
    metric = np.stack(
        [
            slope
            * policy.head.metric(eta, np.pad(slope * e, (0, eta.shape[1] - len(e)))[None])[0][
                : len(e)
            ]
            for e in np.eye(outputs.shape[1])
        ]
    )
    signs = reference.random_signs(1, SIGN_STREAM, n, outputs.shape[1])
    u = policy.head.metric_root(np.repeat(outputs, n, 0), log_std, signs)
    assert_close(u.T @ u / n, metric, 0.02)


def test_symmetric_and_positive() -> None:
    p = small_problem(SMALL_HEADS["categorical"], n=60)
    operator = core_policy(p, "float64").fisher_operator(p.obs, damping=0.01)
    precondition = operator.kronecker_preconditioner()
    inverse = np.stack([precondition(e) for e in np.eye(p.policy.n_parameters)])
    assert_close(inverse, inverse.T, 1e-12)
    assert np.linalg.eigvalsh(0.5 * (inverse + inverse.T)).min() > 0.0


@pytest.mark.parametrize("head_name", ["gaussian_6", "categorical_7"])
def test_fewer_products_for_the_same_residual(head_name: str) -> None:
    """Correlated inputs of different sizes, as simulators give them."""
    head = HEADS[head_name]
    policy = core.Policy(17, core.Distribution(head.kind, head.sizes), output_gain=1.0, seed=3)
    x = normals(1, 2000, 17) @ (normals(2, 17, 17) * np.geomspace(1.0, 0.05, 17))
    actions = policy.act(x.astype(np.float32), seed=2)
    g = policy.surrogate_gradient(x.astype(np.float32), actions, normals(4, 2000))
    operator = policy.fisher_operator(x.astype(np.float32), damping=0.01)
    settings = {"max_iterations": 400, "tolerance": 0.1}
    plain = core.conjugate_gradient(operator, g, **settings)
    fast = core.conjugate_gradient(
        operator, g, **settings, preconditioner=operator.kronecker_preconditioner()
    )
    assert plain.status == fast.status == "converged"
    assert 2 * fast.iterations <= plain.iterations
    assert np.linalg.norm(g - operator(fast.x)) <= 0.1001 * np.linalg.norm(g)


@pytest.mark.parametrize("fisher", ["gauss_newton", "empirical"])
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_the_update_takes_the_same_step(head: reference.Head, fisher: core.Fisher) -> None:
    """Solved to the end, the preconditioner does not matter; and the model's KL is still exact."""
    p = small_problem(head, n=80)
    settings = {"cg_iterations": 500, "cg_tolerance": 1e-12, "cg_damping": 0.05, "max_kl": 1e-4}
    results = []
    for name in core.PRECONDITIONERS:
        policy = core_policy(p, "float64")
        summary = policy.update(
            *core_batch(p, "float64"), fisher=fisher, cg_preconditioner=name, **settings
        )
        assert summary.accepted, summary.message
        assert summary.kl <= 1e-4
        results.append((policy.parameters, summary))
    (plain, plain_summary), (fast, fast_summary) = results
    assert_close(fast - p.parameters, plain - p.parameters, 1e-6)
    assert fast_summary.kl_predicted == pytest.approx(plain_summary.kl_predicted, rel=1e-6)


def test_the_predicted_kl_holds_on_the_way() -> None:
    """x^T (F + lambda I) x = g^T x at every preconditioned iterate too."""
    p = small_problem(SMALL_HEADS["gaussian"], n=80)
    policy = core_policy(p, "float64")
    old = policy.parameters
    F = policy.fisher_operator(p.obs)
    summary = policy.update(
        *core_batch(p, "float64"), cg_iterations=2, cg_preconditioner="kronecker", max_kl=1e-3
    )
    assert summary.cg_iterations == 2
    assert summary.cg_relative_residual > 1e-6
    step = policy.parameters - old
    assert summary.kl_predicted == pytest.approx(0.5 * step @ F(step), rel=1e-9)


def test_a_policy_without_curvature_is_left_alone() -> None:
    """Logits so far apart that every probability is 0 or 1: M = 0, and no factor to invert."""
    policy = core.Policy(3, core.Distribution("categorical", (2,)), hidden_sizes=())
    policy.parameters = np.array([0, 0, 0, 0, 0, 0, 1e4, -1e4], np.float32)
    operator = policy.fisher_operator(np.ones((5, 3), np.float32), damping=0.1)
    residual = normals(1, 8)
    assert np.array_equal(operator.kronecker_preconditioner()(residual), residual)


def test_a_layer_with_factors_far_larger_than_itself_is_left_alone() -> None:
    """5,000 inputs and 4 units: 25 million numbers for 20,000 parameters. The other layer has some."""
    policy = core.Policy(5_000, core.Distribution("gaussian", (2,)), hidden_sizes=(4,))
    operator = policy.fisher_operator(normals(1, 20, 5_000).astype(np.float32), damping=0.1)
    residual = normals(2, policy.n_parameters)
    solved = operator.kronecker_preconditioner()(residual)
    first = 5_001 * 4
    assert np.array_equal(solved[:first], residual[:first])
    assert not np.any(solved[first:] == residual[first:])


def test_an_agent_uses_it() -> None:
    def learnt(**settings: object) -> np.ndarray:
        agent = TRPO("CartPole-v1", n_envs=2, batch_size=256, n_workers=0, **settings)  # type: ignore[arg-type]
        agent.learn(512, progress=False)
        agent.close()
        return agent.policy.parameters

    assert np.array_equal(learnt(), learnt(cg_preconditioner="kronecker"))
    assert not np.array_equal(learnt(), learnt(cg_preconditioner="none"))


# ---- bad input ------------------------------------------------------------------------------


def test_an_unknown_name_and_a_wrong_shape() -> None:
    p = small_problem(SMALL_HEADS["gaussian"])
    policy = core_policy(p, "float64")
    with pytest.raises(ValueError, match="cg_preconditioner: expected one of"):
        policy.update(*core_batch(p, "float64"), cg_preconditioner="jacobi")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="residual"):
        policy.fisher_operator(p.obs).kronecker_preconditioner()(np.zeros(3))
