"""An update whose trust region covers further states: F and KL over both, L and g of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parted import HEADS, assert_same_update, make_batch, make_policy
from trpo_fast import core, runtime

EXACT: dict[str, Any] = {"cg_iterations": 400, "cg_tolerance": 1e-12, "cg_damping": 0.05}


def further_states(policy: core.Policy, k: int, *, masked: bool = False) -> dict[str, Any]:
    """Far from those of the batch, and more of them than there are parameters."""
    rng = np.random.default_rng(k)
    x = (2.0 + 3.0 * rng.normal(size=(k, policy.obs_dim))).astype(policy.dtype)
    masks = None
    if masked:
        masks = rng.random((k, policy.distribution.mask_width)) < 0.7
        masks[:, [0, -1]] = True
    return {"further_observations": x, "further_masks": masks}


def dense(operator: core.FisherOperator) -> Any:
    return np.stack([operator(row) for row in np.eye(operator.shape[0])])


@pytest.mark.parametrize("fisher", ["gauss_newton", "empirical"])
@pytest.mark.parametrize(
    ("head", "masked"),
    [
        ("gaussian", False),
        ("state_std", False),
        ("categorical", False),
        ("categorical", True),
        ("several", True),
    ],
)
def test_the_step_is_that_of_both_matrices(head: str, masked: bool, fisher: Any) -> None:
    policy = core.Policy(
        5, HEADS[head], hidden_sizes=(7,), dtype="float64", output_gain=1.0, seed=2
    )
    n, k = 150, 90
    batch, further = make_batch(policy, n, masked=masked), further_states(policy, k, masked=masked)
    before = policy.parameters.copy()
    rows = {name: batch[name] for name in ("observations", "actions", "action_masks")}
    F_n = dense(policy.fisher_operator(**rows, fisher=fisher, normalized=True))
    F_k = dense(
        policy.fisher_operator(
            further["further_observations"], action_masks=further["further_masks"], normalized=True
        )
    )
    F = (n * F_n + k * F_k) / (n + k)
    advantages = (batch["advantages"] - batch["advantages"].mean()) / batch["advantages"].std()
    g = policy.surrogate_gradient(**{**batch, "advantages": advantages}, normalized=True)
    x = np.linalg.solve(F + 0.05 * np.eye(len(g)), g)
    beta = np.sqrt(2.0 * 0.01 / (x @ g))
    summary = policy.update(
        **batch, **further, normalized=True, step="boundary", fisher=fisher, max_kl=0.01, **EXACT
    )
    assert summary.accepted
    np.testing.assert_allclose(policy.parameters - before, beta * x, rtol=1e-6, atol=1e-9)
    assert summary.kl_predicted == pytest.approx(0.5 * beta**2 * (x @ F @ x), rel=1e-6)
    alone, there = (
        policy.kl(states, before, normalized=True, action_masks=masks)
        for states, masks in (
            (batch["observations"], batch["action_masks"]),
            (further["further_observations"], further["further_masks"]),
        )
    )
    assert summary.kl == pytest.approx((alone.sum() + there.sum()) / (n + k), rel=1e-9)
    assert summary.kl_max == pytest.approx(max(alone.max(), there.max()), rel=1e-9)
    gain = policy.surrogate(
        **{**batch, "advantages": advantages}, normalized=True, old_parameters=before
    )
    assert summary.surrogate_gain == pytest.approx(gain, rel=1e-6)


def test_the_largest_kl_is_that_of_all() -> None:
    policy = make_policy(dtype="float64")
    batch, further = make_batch(policy, 300), further_states(policy, 60)
    before = policy.parameters.copy()
    summary = policy.update(**batch, **further, normalized=True, constraint="max", max_kl=0.01)
    assert summary.accepted
    rows = np.concatenate([batch["observations"], further["further_observations"]])
    assert summary.kl_max == pytest.approx(policy.kl(rows, before, normalized=True).max(), rel=1e-9)
    assert summary.kl_max <= 0.01


def test_a_preconditioner_leads_to_the_same_step() -> None:
    steps = []
    for kind in ("none", "kronecker"):
        policy = make_policy(dtype="float64")
        batch, further = make_batch(policy, 300), further_states(policy, 90)
        before = policy.parameters.copy()
        policy.update(**batch, **further, normalized=True, cg_preconditioner=kind, **EXACT)
        steps.append(policy.parameters - before)
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("head", ["gaussian", "several"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_have_the_bits_of_one_piece(head: str, dtype: str) -> None:
    policies = [make_policy(head, dtype), make_policy(head, dtype)]
    masked = head == "several"
    batch = make_batch(policies[0], masked=masked)
    further = further_states(policies[0], 700, masked=masked)
    bounds = core.parts.bounds_of_parts(6100, 3, policies[0].n_parameters)
    found = assert_same_update(
        batch, bounds, policies, **further, cg_damping=0.1, cg_preconditioner="kronecker"
    )
    assert found.accepted


def test_threads_and_recomputed_activations_change_no_bit() -> None:
    found = []
    for threads, budget in ((1, 1 << 29), (2, 1 << 29), (2, 0)):
        runtime.set_num_threads(threads)
        policy = make_policy()
        batch, further = make_batch(policy), further_states(policy, 900)
        policy.update(**batch, **further, normalized=True, activation_budget=budget)
        found.append(policy.parameters.tobytes())
    assert found[0] == found[1] == found[2]


def test_raw_states_are_normalised() -> None:
    found = []
    for normalized in (False, True):
        policy = make_policy(dtype="float64")
        policy.set_normalizer(np.full(5, 0.5), np.full(5, 2.0))
        batch, further = make_batch(policy, 300), further_states(policy, 90)
        if normalized:
            batch["observations"] = policy.normalize(batch["observations"])
            further["further_observations"] = policy.normalize(further["further_observations"])
        policy.update(**batch, **further, normalized=normalized)
        found.append(policy.parameters.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("further", "sentence"),
    [
        ({"further_observations": np.zeros((3, 4))}, r"expected shape \(N, 5\), got \(3, 4\)"),
        ({"further_observations": np.zeros((0, 5))}, "expected at least one row"),
        (
            {"further_masks": np.ones((3, 5), bool)},
            "^further_masks: expected None without further_observations",
        ),
        (
            {"further_observations": np.zeros((3, 5)), "further_masks": np.ones((2, 5), bool)},
            "^further_masks: expected",
        ),
        (
            {"further_observations": np.zeros((3, 5)), "further_masks": np.zeros((3, 5), bool)},
            "^further_masks: ",
        ),
    ],
)
def test_what_does_not_fit_is_refused(further: dict[str, Any], sentence: str) -> None:
    policy = make_policy("several")
    before = policy.parameters.copy()
    with pytest.raises(ValueError, match=sentence):
        policy.update(**make_batch(policy, 100), **further)
    np.testing.assert_array_equal(policy.parameters, before)


def test_a_nan_among_them_is_no_step() -> None:
    policy = make_policy()
    before = policy.parameters.copy()
    summary = policy.update(
        **make_batch(policy, 100), further_observations=np.full((3, 5), np.nan), normalized=True
    )
    assert not summary.accepted
    np.testing.assert_array_equal(policy.parameters, before)
