"""Surrogate, its gradient, and the analytic Fisher-vector product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import (
    DTYPES,
    HEADS,
    SHAPES,
    SMALL_HEADS,
    TOLERANCE,
    assert_close,
    core_batch,
    core_policy,
    grid_problem,
    moved,
    normals,
    shape_id,
    small_problem,
)

GRID = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)


# ---- surrogate and gradient ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@GRID
@pytest.mark.parametrize("head_name", HEADS)
def test_surrogate_and_gradient(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy, tolerance = core_policy(p, dtype), TOLERANCE[dtype]
    obs, actions, advantages = core_batch(p, dtype)

    # at theta_k: the ratio is one
    gradient = policy.surrogate_gradient(obs, actions, advantages)
    expected = p.policy.surrogate_gradient(
        p.parameters, p.parameters, p.obs, p.actions, p.advantages
    )
    assert_close(gradient, expected, tolerance, what="gradient at theta_k")

    # away from it
    old = moved(p.parameters, 21, dtype)
    args = (p.parameters, old, p.obs, p.actions, p.advantages)
    old_core = old.astype(dtype)
    # terms of both signs cancel: the size of a sum is that of its absolute terms
    scale = p.policy.surrogate(*args[:-1], np.abs(p.advantages))
    value = policy.surrogate(obs, actions, advantages, old_parameters=old_core)
    assert_close(value, p.policy.surrogate(*args), tolerance, scale=scale, what="surrogate")
    gradient = policy.surrogate_gradient(obs, actions, advantages, old_parameters=old_core)
    assert_close(gradient, p.policy.surrogate_gradient(*args), tolerance, what="gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@GRID
@pytest.mark.parametrize("head_name", HEADS)
def test_surrogate_at_theta_k_is_exactly_the_mean_advantage(
    head_name: str, shape, dtype: str
) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy = core_policy(p, dtype)
    obs, actions, _ = core_batch(p, dtype)
    whole = np.round(8.0 * p.advantages)  # sums of whole numbers are exact in any order
    exact = whole.sum() / len(whole)
    assert policy.surrogate(obs, actions, whole.astype(dtype)) == exact
    same = policy.parameters
    assert policy.surrogate(obs, actions, whole.astype(dtype), old_parameters=same) == exact


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_gradient_by_central_differences(head: reference.Head) -> None:
    """The error of the central difference of the core's own surrogate shrinks as h^2."""
    p = small_problem(head, n=50)
    policy = core_policy(p, "float64")
    old, direction = p.parameters, normals(31, len(p.parameters))
    here = moved(p.parameters, 32, "float64", 0.1)

    def surrogate(step: float) -> float:
        policy.parameters = here + step * direction
        return policy.surrogate(p.obs, p.actions, p.advantages, old_parameters=old)

    policy.parameters = here
    gradient = policy.surrogate_gradient(p.obs, p.actions, p.advantages, old_parameters=old)
    slope = float(gradient @ direction)
    errors = [
        abs((surrogate(h) - surrogate(-h)) / (2.0 * h) - slope) for h in (0.02, 0.01, 0.005, 1e-5)
    ]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.15)
    assert errors[3] <= 1e-7 * max(1.0, abs(slope))


# ---- the product --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@GRID
@pytest.mark.parametrize("head_name", HEADS)
def test_fisher_vector_product(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy = core_policy(p, dtype)
    obs = p.obs.astype(dtype)
    v = normals(41, len(p.parameters), dtype=dtype)
    for damping in (0.0, 0.1):
        product = policy.fisher_vector_product(obs, v.astype(dtype), damping=damping)
        expected = p.policy.fisher_vector_product(p.parameters, p.obs, v, damping)
        assert_close(product, expected, TOLERANCE[dtype], what=f"F v, damping {damping}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_every_activation_with_every_head(
    head: reference.Head, activation: str, dtype: str
) -> None:
    policy = reference.Policy(5, head, (17, 9), activation)
    p = reference.make_problem(policy, 130, seed=3, dtype=dtype)
    compiled = core_policy(p, dtype)
    obs, actions, advantages = core_batch(p, dtype)
    v = normals(42, len(p.parameters), dtype=dtype)
    product = compiled.fisher_vector_product(obs, v.astype(dtype))
    expected = policy.fisher_vector_product(p.parameters, p.obs, v)
    assert_close(product, expected, TOLERANCE[dtype], what="F v")
    gradient = compiled.surrogate_gradient(obs, actions, advantages)
    expected = policy.surrogate_gradient(p.parameters, p.parameters, p.obs, p.actions, p.advantages)
    assert_close(gradient, expected, TOLERANCE[dtype], what="gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(40, 33), (19, 40, 24), (24, 40, 33, 17)], ids=str)
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 6, 7, 8])
def test_product_through_the_jacobian_of_the_outputs(
    outputs: int, hidden: tuple[int, ...], activation: str, dtype: str
) -> None:
    """Many products: the same matrix to rounding, the second product the same bits as the first."""
    policy = reference.Policy(5, reference.Head("gaussian", (outputs,)), hidden, activation)
    p = reference.make_problem(policy, 203, seed=outputs, dtype=dtype)
    obs, v = p.obs.astype(dtype), normals(44, len(p.parameters), dtype=dtype)
    compiled = core_policy(p, dtype)
    plain = compiled.fisher_operator(obs, expected_products=1)(v)
    operator = compiled.fisher_operator(obs, expected_products=1000)
    first = operator(v)
    operator(-v)
    assert operator(v).tobytes() == first.tobytes()
    assert outputs == 1 or first.tobytes() != plain.tobytes()  # one output pays at once
    uncached = compiled.fisher_operator(obs, expected_products=1000, activation_budget=0)
    assert uncached(v).tobytes() == first.tobytes()
    expected = policy.fisher_vector_product(p.parameters, p.obs, v)
    for product in (plain, first):
        assert_close(product, expected, TOLERANCE[dtype], what="F v")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_dense_fisher_column_by_column(head: reference.Head, dtype: str) -> None:
    """The compiled product builds the Gauss-Newton matrix and the exact E[score score^T]."""
    p = small_problem(head, n=5, dtype=dtype)
    policy, obs = core_policy(p, dtype), p.obs.astype(dtype)
    columns = [policy.fisher_vector_product(obs, e) for e in np.eye(len(p.parameters), dtype=dtype)]
    dense = np.stack(columns, axis=1)
    tolerance = TOLERANCE[dtype]
    assert_close(dense, p.policy.fisher(p.parameters, p.obs), tolerance, what="Gauss-Newton")
    expected = p.policy.fisher_from_scores(p.parameters, p.obs)
    assert_close(dense, expected, tolerance, what="E[score score^T]")
    assert_close(dense, dense.T.astype(np.float64), tolerance, what="symmetry")
    eigenvalues = np.linalg.eigvalsh(dense.astype(np.float64))
    assert eigenvalues[0] >= -tolerance * eigenvalues[-1]


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_product_is_the_curvature_of_the_kl(head: reference.Head) -> None:
    """d^2/dh^2 mean KL(theta_k || theta_k + h v) at h = 0 is v^T F v."""
    p = small_problem(head, n=40)
    policy, v = core_policy(p, "float64"), normals(43, len(p.parameters))
    quadratic = float(v @ policy.fisher_vector_product(p.obs, v))

    def kl(h: float) -> float:
        policy.parameters = p.parameters + h * v
        return float(np.mean(policy.kl(p.obs, p.parameters)))

    errors = [abs((kl(h) + kl(-h)) / h**2 - quadratic) for h in (0.02, 0.01)]
    assert errors[1] <= 1e-2 * quadratic
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)


widths = st.integers(min_value=1, max_value=40)


@st.composite
def problems(draw: st.DrawFn) -> reference.Problem:
    head = draw(st.sampled_from(list(SMALL_HEADS.values())))
    hidden = tuple(draw(st.lists(widths, max_size=3)))
    activation = draw(st.sampled_from(reference.ACTIVATIONS))
    policy = reference.Policy(draw(widths), head, hidden, activation)
    n = draw(st.integers(min_value=1, max_value=220))
    return reference.make_problem(policy, n, seed=draw(st.integers(0, 2**31)))


@given(problems())
def test_product_is_symmetric_positive_and_linear(p: reference.Problem) -> None:
    policy = core_policy(p, "float64")
    u, v = normals(51, len(p.parameters)), normals(52, len(p.parameters))

    def f(x):
        return policy.fisher_vector_product(p.obs, x)

    f_u, f_v = f(u), f(v)
    size = float(np.linalg.norm(u) * np.linalg.norm(f_v))
    assert abs(float(u @ f_v - v @ f_u)) <= 1e-12 * size
    assert float(v @ f_v) >= -1e-13 * size
    # linear: F (2 u - 3 v) = 2 F u - 3 F v, and damping adds lambda v
    assert_close(f(2.0 * u - 3.0 * v), 2.0 * f_u - 3.0 * f_v, 1e-12)
    damped = policy.fisher_vector_product(p.obs, v, damping=0.25)
    assert_close(damped, f_v + 0.25 * v, 1e-12)
    assert not f(np.zeros_like(u)).any()


@given(problems())
def test_any_shape_agrees_with_the_reference(p: reference.Problem) -> None:
    policy = core_policy(p, "float64")
    obs, actions, advantages = core_batch(p, "float64")
    assert_close(policy.outputs(obs), p.policy.outputs(p.parameters, p.obs), 1e-10)
    v = normals(53, len(p.parameters))
    expected = p.policy.fisher_vector_product(p.parameters, p.obs, v)
    assert_close(policy.fisher_vector_product(obs, v), expected, 1e-10)
    expected = p.policy.surrogate_gradient(
        p.parameters, p.parameters, p.obs, p.actions, p.advantages
    )
    assert_close(policy.surrogate_gradient(obs, actions, advantages), expected, 1e-10)


def test_calls_do_not_disturb_each_other() -> None:
    """Large batch, small batch, large batch again: workspaces are reused without a trace."""
    p = small_problem(HEADS["multi_categorical_2_5_3"], n=500)
    policy, v = core_policy(p, "float64"), normals(54, len(p.parameters))
    first = policy.fisher_vector_product(p.obs, v)
    policy.surrogate_gradient(p.obs[:3], p.actions[:3], p.advantages[:3])
    policy.kl(p.obs[:100], moved(p.parameters, 1, "float64"))
    assert np.array_equal(policy.parameters, p.parameters)
    assert np.array_equal(policy.fisher_vector_product(p.obs, v), first)
