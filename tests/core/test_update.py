"""The TRPO update: equal to the reference, inside the trust region, or nothing changed at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import (
    DTYPES,
    HEADS,
    SMALL_HEADS,
    Array,
    assert_close,
    core_batch,
    core_policy,
    small_problem,
)
from trpo_fast import core

ACCEPTED_TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
# Ten iterations turn a relative 1e-6 in the products into up to 5e-2 in the solution where its
# residual is still large; four keep the comparison in float32 sharp.
CG_ITERATIONS = {"float64": 10, "float32": 4}


def reference_update(p: reference.Problem, **options) -> reference.Update:
    return reference.trpo_update(p.policy, p.parameters, p.obs, p.actions, p.advantages, **options)


def assert_inside_the_trust_region(
    p: reference.Problem, policy: core.Policy, summary: core.UpdateSummary, dtype: str
) -> None:
    """Recomputed in float64 from nothing but the parameters before and after."""
    after = policy.parameters.astype(np.float64)
    kl = p.policy.kl(p.parameters, after, p.obs)
    slack = {"float64": 1e-10, "float32": 1e-3}[dtype]
    assert kl.mean() <= summary.max_kl * (1.0 + slack)
    assert summary.kl <= summary.max_kl
    assert summary.kl == pytest.approx(kl.mean(), rel=slack * 10, abs=1e-7 * summary.max_kl)
    assert summary.kl_max == pytest.approx(kl.max(), rel=slack * 10)
    advantages = reference.standardize(p.advantages)
    gain = p.policy.surrogate(after, p.parameters, p.obs, p.actions, advantages) - np.mean(
        advantages
    )
    assert gain > 0.0
    assert summary.surrogate_gain == pytest.approx(gain, rel=slack * 10)


# ---- agreement with the reference ------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_equals_the_reference(head_name: str, dtype: str, standardize: bool) -> None:
    policy = reference.Policy(5, HEADS[head_name], (16, 9), "tanh")
    p = reference.make_problem(policy, 400, seed=2, dtype=dtype)
    compiled = core_policy(p, dtype)
    options = {"max_kl": 0.02, "cg_damping": 0.1, "cg_tolerance": 1e-10}
    options["cg_iterations"] = CG_ITERATIONS[dtype]
    options["standardize_advantages"] = standardize
    expected = reference_update(p, **options)
    summary = compiled.update(*core_batch(p, dtype), **options)
    assert summary.status == expected.status == "accepted"
    assert summary.backtracks == expected.backtracks
    tolerance = ACCEPTED_TOLERANCE[dtype]
    step = compiled.parameters.astype(np.float64) - p.parameters
    assert_close(step, expected.parameters - p.parameters, tolerance, what="step")
    assert expected.cg is not None
    assert summary.cg_iterations == expected.cg.iterations
    assert summary.cg_status == expected.cg.status
    for name in (
        "kl",
        "kl_max",
        "kl_predicted",
        "surrogate_gain",
        "surrogate_gain_predicted",
        "entropy",
        "entropy_before",
    ):
        value = getattr(expected, name)
        assert getattr(summary, name) == pytest.approx(value, rel=10 * tolerance, abs=1e-9), name
    assert summary.gradient_norm == pytest.approx(np.linalg.norm(expected.gradient), rel=tolerance)
    assert summary.step_norm == pytest.approx(np.linalg.norm(step), rel=tolerance)
    assert summary.step_scale == pytest.approx(0.8**summary.backtracks, rel=1e-12)
    assert summary.max_kl == 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_several_updates_in_a_row(head_name: str, dtype: str) -> None:
    """One updater, batches of changing size: each update starts from where the last one ended."""
    policy = reference.Policy(4, HEADS[head_name], (7,), "silu")
    p = reference.make_problem(policy, 97, seed=5, dtype=dtype)
    compiled = core_policy(p, dtype)
    for iteration, n in enumerate((97, 300, 10)):
        p = dataclasses.replace(
            reference.make_problem(policy, n, seed=6 + iteration, dtype=dtype),
            parameters=compiled.parameters.astype(np.float64),
        )
        options = {"cg_tolerance": 1e-10, "cg_iterations": CG_ITERATIONS[dtype]}
        expected = reference_update(p, **options)
        summary = compiled.update(*core_batch(p, dtype), **options)
        assert summary.status == expected.status
        if summary.status == "accepted":
            assert_inside_the_trust_region(p, compiled, summary, dtype)
        if summary.backtracks == expected.backtracks:
            step = compiled.parameters.astype(np.float64) - p.parameters
            # conjugate gradient magnifies the rounding of its products: 1.6e-8 with NumPy 1.26
            tolerance = {"float64": 1e-7, "float32": 2e-3}[dtype]
            assert_close(step, expected.parameters - p.parameters, tolerance, what="step")


def test_standardising_is_invariant_to_scale_and_offset() -> None:
    p = small_problem(HEADS["gaussian_6"], n=200)
    results = []
    for scale, offset in [(1.0, 0.0), (1e6, 0.0), (1e-6, 0.0), (1.0, 100.0)]:
        policy = core_policy(p, "float64")
        summary = policy.update(p.obs, p.actions, scale * p.advantages + offset)
        assert summary.status == "accepted"
        results.append(policy.parameters)
    for other in results[1:]:
        assert_close(other - p.parameters, results[0] - p.parameters, 1e-8)


def test_the_step_is_on_the_boundary_of_the_model() -> None:
    """Undamped, the accepted step has predicted KL max_kl alpha^(2 j)."""
    p = small_problem(SMALL_HEADS["gaussian"], n=300)
    policy = core_policy(p, "float64")
    summary = policy.update(
        p.obs, p.actions, p.advantages, max_kl=1e-10, cg_damping=0.0, cg_iterations=200
    )
    assert summary.status == "accepted"
    assert summary.kl_predicted == pytest.approx(1e-10 * 0.64**summary.backtracks, rel=1e-4)
    assert summary.kl == pytest.approx(summary.kl_predicted, rel=0.02)
    assert summary.surrogate_gain == pytest.approx(summary.surrogate_gain_predicted, rel=0.02)


# ---- the trust region holds -------------------------------------------------------------------


@given(
    st.sampled_from(list(SMALL_HEADS.values())),
    st.sampled_from(DTYPES),
    st.integers(2, 300),
    st.integers(0, 2**31),
    st.sampled_from([1e-4, 0.01, 0.3, 2.0]),
    st.sampled_from([0.0, 1e-3, 0.1]),
    st.sampled_from([1, 3, 10]),
)
def test_accepted_or_bitwise_unchanged(
    head: reference.Head, dtype: str, n: int, seed: int, max_kl: float, damping: float, cg: int
) -> None:
    p = small_problem(head, n=n, seed=seed, dtype=dtype)
    policy = core_policy(p, dtype)
    before = policy.parameters
    summary = policy.update(
        *core_batch(p, dtype),
        max_kl=max_kl,
        cg_damping=damping,
        cg_iterations=cg,
        max_backtracks=5,
    )
    if summary.status == "accepted":
        assert summary.accepted
        assert not np.array_equal(policy.parameters, before)
        assert_inside_the_trust_region(p, policy, summary, dtype)
    else:
        assert not summary.accepted
        assert np.array_equal(policy.parameters, before)
        assert summary.kl == summary.surrogate_gain == 0.0
    assert len(summary.message) > 20


def rejected_problem(head: reference.Head, dtype: str) -> tuple[reference.Problem, dict]:
    """A batch on which the full step leaves the trust region by a clear margin."""
    options = {"max_kl": 1.0, "cg_damping": 0.0, "cg_iterations": 20, "max_backtracks": 0}
    for seed in range(100):
        p = small_problem(head, n=30, seed=seed, dtype=dtype)
        expected = reference_update(p, **options)
        if expected.status == "line_search_failed" and expected.trials[0][0] > 1.1:
            return p, options
    raise AssertionError("no such batch among 100")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_rejected_steps_leave_every_bit(head: reference.Head, dtype: str) -> None:
    p, options = rejected_problem(head, dtype)
    policy = core_policy(p, dtype)
    obs = p.obs.astype(dtype)
    before, outputs = policy.parameters, policy.outputs(obs)
    summary = policy.update(*core_batch(p, dtype), **options)
    assert summary.status == "line_search_failed"
    assert policy.parameters.tobytes() == before.tobytes()
    assert np.array_equal(policy.outputs(obs), outputs)  # what the kernels use was restored too
    assert (summary.kl, summary.surrogate_gain) == (0.0, 0.0)
    assert summary.entropy == summary.entropy_before
    assert "KL" in summary.message
    # with backtracking the very same batch is accepted
    summary = policy.update(*core_batch(p, dtype), **{**options, "max_backtracks": 30})
    assert summary.status == "accepted"
    assert summary.backtracks >= 1
    assert_inside_the_trust_region(p, policy, summary, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_a_step_that_does_not_improve_is_refused(head: reference.Head, dtype: str) -> None:
    """Well inside a wide trust region, but past the point where the surrogate still gains."""
    options = {"max_kl": 10.0, "cg_damping": 0.1, "max_backtracks": 0}
    for seed in range(200):
        p = small_problem(head, n=4, seed=seed, dtype=dtype)
        expected = reference_update(p, **options)
        if expected.trials and expected.trials[0][0] < 9.0 and expected.trials[0][1] < -0.02:
            break
    else:
        raise AssertionError("no such batch among 200")
    policy = core_policy(p, dtype)
    before = policy.parameters
    summary = policy.update(*core_batch(p, dtype), **options)
    assert summary.status == "line_search_failed"
    assert_untouched(policy, before, summary)
    options["max_backtracks"] = 50
    summary = policy.update(*core_batch(p, dtype), **options)
    assert summary.status == "accepted"
    assert summary.backtracks == reference_update(p, **options).backtracks >= 1
    assert summary.surrogate_gain > 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_backtracks_are_the_smallest_that_do(dtype: str) -> None:
    p, options = rejected_problem(SMALL_HEADS["categorical"], dtype)
    options = {**options, "max_backtracks": 30, "backtrack_ratio": 0.7}
    expected = reference_update(p, **options)
    summary = core_policy(p, dtype).update(*core_batch(p, dtype), **options)
    assert summary.status == expected.status == "accepted"
    assert summary.backtracks == expected.backtracks >= 1


# ---- nothing to do, and things that went wrong -----------------------------------------------


def assert_untouched(policy: core.Policy, before: Array, summary: core.UpdateSummary) -> None:
    assert policy.parameters.tobytes() == before.tobytes()
    assert summary.kl == 0.0
    assert summary.surrogate_gain == 0.0
    assert len(summary.message) > 20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 97, 1000])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -1234.567, 1e-30, 1e30])
def test_constant_advantages(constant: float, n: int, dtype: str) -> None:
    """Rounding in the mean must not be scaled up to a full step."""
    p = small_problem(SMALL_HEADS["gaussian"], n=n, dtype=dtype)
    policy = core_policy(p, dtype)
    obs, actions, _ = core_batch(p, dtype)
    before = policy.parameters
    summary = policy.update(obs, actions, np.full(n, constant, dtype=dtype))
    assert summary.status == "zero_gradient"
    assert_untouched(policy, before, summary)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_advantages_without_standardising(dtype: str) -> None:
    p = small_problem(SMALL_HEADS["bernoulli"], n=20, dtype=dtype)
    policy = core_policy(p, dtype)
    obs, actions, advantages = core_batch(p, dtype)
    before = policy.parameters
    summary = policy.update(obs, actions, 0.0 * advantages, standardize_advantages=False)
    assert summary.status == "zero_gradient"
    assert_untouched(policy, before, summary)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_a_batch_of_one(head: reference.Head, dtype: str) -> None:
    p = small_problem(head, n=1, dtype=dtype)
    policy = core_policy(p, dtype)
    before = policy.parameters
    summary = policy.update(*core_batch(p, dtype))  # standardised: nothing to learn
    assert summary.status == "zero_gradient"
    assert_untouched(policy, before, summary)
    summary = policy.update(*core_batch(p, dtype), standardize_advantages=False)
    assert summary.status in ("accepted", "line_search_failed")
    after = policy.parameters.astype(np.float64)
    assert p.policy.kl(p.parameters, after, p.obs).mean() <= 0.01 * 1.001


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["observations", "actions", "advantages"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_non_finite_input(
    activation: str, dtype: str, where: str, bad: float, standardize: bool
) -> None:
    policy = reference.Policy(3, SMALL_HEADS["gaussian"], (4, 3), activation)
    p = reference.make_problem(policy, 130, dtype=dtype)
    compiled = core_policy(p, dtype)
    batch = dict(zip(("observations", "actions", "advantages"), core_batch(p, dtype), strict=True))
    batch[where][101, ...] = bad
    before = compiled.parameters
    try:
        summary = compiled.update(**batch, standardize_advantages=standardize)
    except ValueError as error:
        message = str(error)
    else:
        message = summary.message
        if where == "observations" and activation == "tanh" and np.isinf(bad):
            # an infinite observation saturates tanh: whatever happens, it happens safely
            assert summary.status != "accepted" or np.isfinite(compiled.parameters).all()
            return
        assert summary.status == "non_finite", message
    assert compiled.parameters.tobytes() == before.tobytes()
    assert len(message) > 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_advantages_do_not_break_it(dtype: str) -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=50, dtype=dtype)
    for scale in (1e-30, 1e30):
        policy = core_policy(p, dtype)
        before = policy.parameters
        obs, actions, advantages = core_batch(p, dtype)
        summary = policy.update(
            obs, actions, (scale * advantages).astype(dtype), standardize_advantages=False
        )
        after = policy.parameters.astype(np.float64)
        assert np.isfinite(after).all()
        if summary.status == "accepted":
            assert p.policy.kl(p.parameters, after, p.obs).mean() <= 0.01 * 1.001
        else:
            assert_untouched(policy, before, summary)


def test_saturated_categorical_has_nothing_to_learn_from() -> None:
    """A policy that is certain of what it did: the gradient is exactly zero."""
    policy = core.Policy(
        1, core.Distribution("categorical", (2,)), hidden_sizes=(), dtype="float64"
    )
    policy.parameters = np.array([0.0, 0.0, 2000.0, -2000.0])
    before = policy.parameters
    obs, actions = np.ones((4, 1)), np.zeros((4, 1), dtype=np.int32)
    summary = policy.update(obs, actions, np.array([1.0, -1.0, 2.0, 0.5]))
    assert summary.status == "zero_gradient"
    assert_untouched(policy, before, summary)


# ---- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_fisher_on_a_subsample(dtype: str) -> None:
    p = small_problem(HEADS["gaussian_6"], n=500, dtype=dtype)

    def run(**options) -> tuple[core.UpdateSummary, Array]:
        policy = core_policy(p, dtype)
        summary = policy.update(*core_batch(p, dtype), **options)
        assert summary.status == "accepted"
        assert_inside_the_trust_region(p, policy, summary, dtype)
        return summary, policy.parameters

    full = run()[1]
    tenth, again = run(fisher_fraction=0.1, seed=1)[1], run(fisher_fraction=0.1, seed=1)[1]
    assert np.array_equal(tenth, again)
    assert not np.array_equal(tenth, run(fisher_fraction=0.1, seed=2)[1])
    assert not np.array_equal(tenth, full)
    assert np.array_equal(run(fisher_fraction=1.0, seed=7)[1], full)
    # a tenth of the samples points in nearly the same direction
    a, b = tenth - p.parameters, full - p.parameters
    assert float(a @ b) > 0.7 * np.linalg.norm(a) * np.linalg.norm(b)


@pytest.mark.parametrize("fraction", [1e-9, 0.002, 0.5, 0.999])
def test_any_fraction_leaves_at_least_one_sample(fraction: float) -> None:
    p = small_problem(SMALL_HEADS["categorical"], n=10)
    policy = core_policy(p, "float64")
    summary = policy.update(
        p.obs, p.actions.astype(np.int32), p.advantages, fisher_fraction=fraction
    )
    assert summary.status in ("accepted", "line_search_failed")


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_same_input_same_bits(head: reference.Head) -> None:
    p = small_problem(head, n=400, dtype="float32")
    results = []
    for _ in range(3):
        policy = core_policy(p, "float32")
        policy.update(*core_batch(p, "float32"))
        results.append(policy.parameters.tobytes())
    assert len(set(results)) == 1


def test_activation_budget_changes_memory_and_not_one_bit() -> None:
    p = small_problem(HEADS["multi_categorical_2_5_3"], n=600)
    batch, results = core_batch(p, "float64"), []
    for budget in (0, 20_000, 1 << 30):
        policy = core_policy(p, "float64")
        policy.update(*batch, activation_budget=budget)
        results.append(policy.parameters.tobytes())
    assert len(set(results)) == 1


def test_the_batch_is_not_changed() -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=64, dtype="float32")
    batch = core_batch(p, "float32")
    copies = [x.copy() for x in batch]
    core_policy(p, "float32").update(*batch)
    for x, copy in zip(batch, copies, strict=True):
        assert np.array_equal(x, copy)


def test_large_batch_of_many_tiles() -> None:
    """20,000 samples: more tiles than chunks, so that several tiles share a partial sum."""
    policy = reference.Policy(17, HEADS["gaussian_6"], (31,), "tanh")
    p = reference.make_problem(policy, 20_000, seed=9)
    compiled = core_policy(p, "float64")
    expected = reference_update(p, cg_iterations=3)
    summary = compiled.update(*core_batch(p, "float64"), cg_iterations=3)
    assert summary.status == "accepted"
    assert_close(compiled.parameters, expected.parameters, 1e-9)
