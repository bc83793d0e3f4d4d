"""The vine's trust-region step: equal to float64 NumPy for every estimator and setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vine_reference
from cases import DTYPES, SMALL_HEADS, Array, core_policy, normals, small_problem
from trpo_fast import core

ESTIMATORS = ("exact_sum", "self_normalized")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "max": {"constraint": "max"},
    "empirical": {"fisher": "empirical"},
    "identity": {"fisher": "identity"},
    "fraction": {"fisher_fraction": 0.4, "seed": 3},
    "empirical fraction": {"fisher": "empirical", "fisher_fraction": 0.4, "seed": 3},
    "kronecker": {"cg_preconditioner": "kronecker", "seed": 5},
    "empirical kronecker": {"fisher": "empirical", "cg_preconditioner": "kronecker", "seed": 5},
    "reward units": {"standardize_advantages": False},
    "all": {
        "constraint": "max", "fisher": "empirical", "fisher_fraction": 0.6, "seed": 9,
        "cg_preconditioner": "kronecker", "standardize_advantages": False,
    },
}  # fmt: skip
CASES = [(e, h) for e in ESTIMATORS for h in SMALL_HEADS if e != ESTIMATORS[0] or "gauss" not in h]


def make(estimator: str, head_name: str, dtype: str) -> tuple[vine_reference.Vine, core.Policy]:
    """A vine of 13 states and the compiled policy at its parameters."""
    p = small_problem(SMALL_HEADS[head_name], n=13, seed=4, dtype=dtype)
    compiled = core_policy(p, dtype)
    if estimator == "exact_sum":
        every = core.all_actions(compiled.distribution)
        actions: Array = np.broadcast_to(every, (13, *every.shape))
    else:
        actions = np.stack([compiled.act(p.obs.astype(dtype), seed=k) for k in range(4)], axis=1)
    q = 3.0 + 10.0 * normals(21, *actions.shape[:2])
    vine = vine_reference.Vine(
        p.policy, p.parameters, p.obs, actions.astype(np.float64), q, estimator
    )
    return vine, compiled


def update(vine: vine_reference.Vine, compiled: core.Policy, **settings: Any) -> core.UpdateSummary:
    actions = vine.actions.astype(compiled.action_dtype)
    obs = vine.obs.astype(compiled.dtype)
    return core.vine_update(
        compiled, obs, actions, vine.q_values, estimator=vine.estimator, **settings
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("estimator", "head_name"), CASES)
def test_equals_the_reference(
    estimator: str, head_name: str, settings: dict[str, Any], dtype: str
) -> None:
    vine, compiled = make(estimator, head_name, dtype)
    # a few products: more would amplify the rounding of float32 where the residual is still large
    settings = {"cg_iterations": {"float64": 6, "float32": 3}[dtype], **settings}
    expected = vine_reference.vine_update(vine, **settings)
    summary = update(vine, compiled, **settings)
    assert summary.status == expected.status
    assert summary.backtracks == expected.backtracks
    tolerance = {"float64": 1e-9, "float32": 2e-3}[dtype]
    assert summary.gradient_norm == pytest.approx(np.linalg.norm(expected.gradient), rel=tolerance)
    step = compiled.parameters.astype(np.float64) - vine.old
    difference = np.abs(step - (expected.parameters - vine.old)).max()
    assert difference <= tolerance * np.abs(step).max()
    for name in ("kl", "kl_max", "surrogate_gain"):
        assert getattr(summary, name) == pytest.approx(getattr(expected, name), rel=10 * tolerance)


@pytest.mark.parametrize(("estimator", "head_name"), CASES)
def test_value_and_gradient(estimator: str, head_name: str) -> None:
    vine, compiled = make(estimator, head_name, "float64")
    arguments: Any = (vine.obs, vine.actions.astype(compiled.action_dtype), vine.q_values)
    gradient = core.vine_gradient(compiled, *arguments, estimator=estimator)
    np.testing.assert_allclose(gradient, vine.gradient(), rtol=1e-10, atol=1e-12)
    compiled.parameters = vine.old + 0.1 * normals(8, len(vine.old))
    value = core.vine_value(compiled, *arguments, estimator=estimator, old_parameters=vine.old)
    assert value == pytest.approx(vine.value(compiled.parameters), rel=1e-12)


@pytest.mark.parametrize("head_name", [h for h in SMALL_HEADS if "gauss" not in h])
def test_over_all_actions_the_empirical_fisher_is_that_of_gauss_and_newton(head_name: str) -> None:
    vine, one = make("exact_sum", head_name, "float64")
    _, other = make("exact_sum", head_name, "float64")
    np.testing.assert_allclose(vine.fisher("empirical"), vine.fisher("gauss_newton"), atol=1e-12)
    a, b = update(vine, one, fisher="gauss_newton"), update(vine, other, fisher="empirical")
    assert a.accepted
    assert b.accepted
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_gains_in_reward_units(unit: float) -> None:
    vine, compiled = make("self_normalized", "gaussian", "float64")
    vine.q_values = vine.q_values * unit
    summary = update(vine, compiled, standardize_advantages=False)
    gain = vine.value(compiled.parameters) - vine.value(vine.old)
    assert summary.accepted
    assert summary.surrogate_gain == pytest.approx(gain, rel=1e-8)


def test_reference_problem_is_no_special_case() -> None:
    """Neither every step of the settings is accepted at once, nor are they the same step."""
    steps = []
    for settings in SETTINGS.values():
        vine, compiled = make("self_normalized", "gaussian", "float64")
        update(vine, compiled, cg_iterations=6, **settings)
        steps.append(compiled.parameters.tobytes())
    assert len(set(steps)) >= len(SETTINGS) - 1
