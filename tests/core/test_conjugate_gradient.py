"""Conjugate gradient on operators given as Python callables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import SMALL_HEADS, Array, assert_close, core_policy, normals, small_problem
from trpo_fast import core


def spd_matrix(n: int, seed: int, condition: float = 100.0) -> Array:
    """Symmetric positive definite, eigenvalues from 1 down to 1 / condition in equal ratios."""
    q = np.linalg.qr(normals(seed, n, n))[0]
    matrix = (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T
    return 0.5 * (matrix + matrix.T)


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([1.0, 10.0, 1000.0]))
def test_exact_after_n_steps(n: int, seed: int, condition: float) -> None:
    a, b = spd_matrix(n, seed, condition), normals(seed + 1, n)
    result = core.conjugate_gradient(lambda v: a @ v, b, max_iterations=n, tolerance=0.0)
    assert result.status in ("converged", "max_iterations")
    assert result.iterations <= n
    assert_close(result.x, np.linalg.solve(a, b), 1e-8)


@given(st.integers(1, 60), st.integers(0, 2**31), st.integers(1, 15))
def test_follows_the_reference_step_for_step(n: int, seed: int, iterations: int) -> None:
    a, b = spd_matrix(n, seed, 50.0), normals(seed + 1, n)
    iterations = min(iterations, max(1, n // 2))  # after n steps only rounding is left to compare
    result = core.conjugate_gradient(lambda v: a @ v, b, max_iterations=iterations, tolerance=1e-6)
    expected = reference.conjugate_gradient(
        lambda v: a @ v, b, max_iterations=iterations, tolerance=1e-6
    )
    assert (result.status, result.iterations) == (expected.status, expected.iterations)
    assert_close(result.x, expected.x, 1e-8)
    assert result.relative_residual == pytest.approx(expected.relative_residual, rel=1e-4)


@pytest.mark.parametrize("exponent", [-450, -40, 0, 40, 450])
def test_tolerance_is_relative(exponent: int) -> None:
    """Scaling b by a power of two scales every number of the solve exactly."""
    scale = 2.0**exponent
    a, b = spd_matrix(30, 1), normals(2, 30)
    result = core.conjugate_gradient(lambda v: a @ v, scale * b, max_iterations=100, tolerance=1e-6)
    plain = core.conjugate_gradient(lambda v: a @ v, b, max_iterations=100, tolerance=1e-6)
    assert result.status == "converged"
    assert result.iterations == plain.iterations < 100
    assert np.array_equal(result.x / scale, plain.x)
    true_residual = np.linalg.norm(b - a @ plain.x) / np.linalg.norm(b)
    assert true_residual <= 1.01e-6
    assert result.relative_residual == plain.relative_residual <= 1e-6


def test_a_looser_tolerance_stops_earlier() -> None:
    a, b = spd_matrix(40, 3, 1e4), normals(4, 40)
    counts = [
        core.conjugate_gradient(lambda v: a @ v, b, max_iterations=500, tolerance=t).iterations
        for t in (1e-1, 1e-3, 1e-6, 1e-9)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_zero_right_hand_side() -> None:
    def never(v: Array) -> Array:
        raise AssertionError("no product is needed")

    result = core.conjugate_gradient(never, np.zeros(5))
    assert result.status == "zero_rhs"
    assert result.iterations == 0
    assert result.relative_residual == 0.0
    assert not result.x.any()


@pytest.mark.parametrize("diagonal", [[-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]])
def test_non_positive_curvature_at_once(diagonal: list[float]) -> None:
    d = np.array(diagonal)
    result = core.conjugate_gradient(lambda v: d * v, np.ones(3))
    assert result.status == "non_positive_curvature"
    assert not result.x.any()  # the last good iterate is the start
    assert len(result.message) > 20


def test_non_positive_curvature_later_keeps_the_last_good_iterate() -> None:
    d = np.array([4.0, 1.0, -0.1])
    b = np.array([1.0, 1.0, 1.0])
    result = core.conjugate_gradient(lambda v: d * v, b, max_iterations=10)
    expected = reference.conjugate_gradient(lambda v: d * v, b, max_iterations=10)
    assert result.status == expected.status == "non_positive_curvature"
    assert np.isfinite(result.x).all()
    assert_close(result.x, expected.x, 1e-12)
    assert float(b @ result.x) > 0.0  # still a direction of ascent


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_operator_and_right_hand_side(bad: float) -> None:
    result = core.conjugate_gradient(lambda v: np.full_like(v, bad), np.ones(3))
    assert result.status == "non_finite"
    assert not result.x.any()

    result = core.conjugate_gradient(lambda v: v, np.array([1.0, bad]))
    assert result.status == "non_finite"
    assert np.isfinite(result.x).all()


def test_operator_that_breaks_later() -> None:
    a, b = spd_matrix(10, 5), normals(6, 10)
    calls = []

    def operator(v: Array) -> Array:
        calls.append(v.copy())
        return a @ v if len(calls) < 4 else np.full(10, np.nan)

    result = core.conjugate_gradient(operator, b, max_iterations=20)
    assert result.status == "non_finite"
    assert len(calls) == result.iterations == 4
    expected = reference.conjugate_gradient(lambda v: a @ v, b, max_iterations=3, tolerance=0.0)
    assert_close(result.x, expected.x, 1e-10)


def test_callable_may_keep_and_change_what_it_is_given() -> None:
    """No memory is shared between the search directions and the caller."""
    a, b = spd_matrix(8, 7), normals(8, 8)
    kept = []

    def operator(v: Array) -> Array:
        kept.append(v)
        product = a @ v
        v[:] = np.nan
        return product

    result = core.conjugate_gradient(operator, b, max_iterations=8, tolerance=0.0)
    assert_close(result.x, np.linalg.solve(a, b), 1e-8)
    assert len({id(v) for v in kept}) == len(kept)


def test_operator_may_answer_into_the_same_array_each_time() -> None:
    a, b, out = spd_matrix(8, 9), normals(10, 8), np.empty(8)
    result = core.conjugate_gradient(
        lambda v: np.matmul(a, v, out=out), b, max_iterations=8, tolerance=0.0
    )
    assert_close(result.x, np.linalg.solve(a, b), 1e-8)


@pytest.mark.parametrize("answer", [lambda y: y.astype(np.float32), list, lambda y: y.tolist()])
def test_operator_may_answer_any_array_like(answer) -> None:
    d, b = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0])
    result = core.conjugate_gradient(lambda v: answer(d * v), b, max_iterations=3)
    assert_close(result.x, np.ones(3), 1e-6)


def test_exceptions_of_the_operator_come_through() -> None:
    class MyError(Exception):
        pass

    def operator(v: Array) -> Array:
        raise MyError("mine")

    with pytest.raises(MyError, match="mine"):
        core.conjugate_gradient(operator, np.ones(3))


@pytest.mark.parametrize("wrong", [np.ones(4), np.ones((3, 1)), np.ones(()), 1.0])
def test_operator_of_the_wrong_shape(wrong) -> None:
    with pytest.raises(ValueError, match=r"operator.*\(3,\)"):
        core.conjugate_gradient(lambda v: wrong, np.ones(3))


@pytest.mark.parametrize("wrong", ["abc", object(), {"a": 1}, np.ones(3) * 1j])
def test_operator_that_answers_no_numbers(wrong) -> None:
    with pytest.raises((ValueError, TypeError), match="operator"):
        core.conjugate_gradient(lambda v: wrong, np.ones(3))


def test_right_hand_side_is_not_changed() -> None:
    b = normals(11, 5)
    before = b.copy()
    core.conjugate_gradient(lambda v: 2.0 * v, b)
    assert np.array_equal(b, before)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_natural_gradient_from_the_pieces(head: reference.Head) -> None:
    """(F + damping I)^-1 g with the core's own product as the operator."""
    p = small_problem(head, n=60)
    policy = core_policy(p, "float64")
    g = policy.surrogate_gradient(p.obs, p.actions, p.advantages)
    x = core.conjugate_gradient(
        lambda v: policy.fisher_vector_product(p.obs, v, damping=0.1),
        g,
        max_iterations=200,
        tolerance=1e-12,
    ).x
    dense = p.policy.fisher(p.parameters, p.obs) + 0.1 * np.eye(len(g))
    assert_close(x, np.linalg.solve(dense, g), 1e-9)


def test_a_curvature_next_to_zero_leaves_the_last_finite_iterate() -> None:
    result = core.conjugate_gradient(lambda v: 1e-300 * v, np.full(3, 1e30))
    assert result.status == "non_finite"
    assert np.array_equal(result.x, np.zeros(3))
    assert "step is not finite" in result.message


# ---- preconditioned -------------------------------------------------------------------------


def test_the_exact_inverse_needs_one_product() -> None:
    a, b = spd_matrix(20, 5, 1e4), normals(6, 20)
    inverse = np.linalg.inv(a)
    result = core.conjugate_gradient(
        lambda v: a @ v, b, tolerance=1e-9, preconditioner=lambda r: inverse @ r
    )
    assert (result.status, result.iterations) == ("converged", 1)
    assert_close(result.x, inverse @ b, 1e-8)


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_preconditioned_converges_to_the_solution(n: int, seed: int) -> None:
    """Within n steps but for rounding, which here has a condition number of 1,000 to work with."""
    a, b, m = spd_matrix(n, seed), normals(seed + 1, n), spd_matrix(n, seed + 2, 10.0)
    result = core.conjugate_gradient(
        lambda v: a @ v, b, max_iterations=4 * n, tolerance=1e-9, preconditioner=lambda r: m @ r
    )
    assert result.status == "converged"
    assert result.iterations <= 2 * n
    assert_close(result.x, np.linalg.solve(a, b), 1e-6)


def test_the_identity_as_preconditioner_changes_no_bit() -> None:
    a, b = spd_matrix(30, 1), normals(2, 30)
    plain = core.conjugate_gradient(lambda v: a @ v, b)
    same = core.conjugate_gradient(lambda v: a @ v, b, preconditioner=lambda r: r)
    assert np.array_equal(plain.x, same.x)
    assert plain.relative_residual == same.relative_residual


@pytest.mark.parametrize("factor", [-1.0, 0.0, np.nan])
def test_a_preconditioner_that_is_not_positive_definite(factor: float) -> None:
    result = core.conjugate_gradient(lambda v: v, np.ones(3), preconditioner=lambda r: factor * r)
    assert result.status == "non_positive_curvature"
    assert "preconditioner" in result.message
    assert np.array_equal(result.x, np.zeros(3))


def test_a_preconditioner_must_be_a_callable_of_the_right_shape() -> None:
    with pytest.raises(TypeError, match="preconditioner: expected a callable"):
        core.conjugate_gradient(lambda v: v, np.ones(3), preconditioner=np.eye(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="preconditioner's result"):
        core.conjugate_gradient(lambda v: v, np.ones(3), preconditioner=lambda r: r[:2])
