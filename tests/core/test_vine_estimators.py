"""The vine's estimators by hand and against exact MDPs, and what its step keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trpo_fast import core, tabular
from trpo_fast.core import all_actions, vine_gradient, vine_update, vine_value
from vine_stand_ins import gaussian_policy, softmax_policy

# ---- estimators


def test_sum_over_all_actions_by_hand() -> None:
    """Two states, two actions, probabilities 1/4 and 3/4, then 1/2 and 1/2."""
    policy = softmax_policy(2, 2, np.log([[0.25, 0.75], [0.5, 0.5]]))
    old = policy.parameters
    actions = np.broadcast_to([[0], [1]], (2, 2, 1))
    vine: Any = (np.eye(2), actions, [[4.0, 8.0], [1.0, 3.0]])
    assert vine_value(policy, *vine, estimator="exact_sum") == pytest.approx(4.5)  # V is 7 and 2
    # d L / d logit(s, a) = 1/N pi(a|s) A(s, a), A = [-3, 1], [-1, 1]; W is (action, state), then biases
    expected = np.array([[-0.375, -0.25], [0.375, 0.25]])
    np.testing.assert_allclose(
        vine_gradient(policy, *vine, estimator="exact_sum"),
        [*expected.ravel(), *expected.sum(1)],
        atol=1e-15,
    )
    policy.parameters = np.concatenate([np.log([[0.5, 0.2], [0.5, 0.8]]).ravel(), np.zeros(2)])
    # sum pi Q: (4 + 8)/2 = 6 and 0.2 + 2.4 = 2.6, whatever the old policy was
    for parameters in (None, old):
        value = vine_value(policy, *vine, estimator="exact_sum", old_parameters=parameters)
        assert value == pytest.approx(4.3)


def test_self_normalised_estimator_by_hand() -> None:
    """One state, three samples; the ratio of pi to the old one is 2 for action 0, 2/3 for 1."""
    policy = softmax_policy(1, 2, np.log([[0.25, 0.75]]))
    old = policy.parameters
    vine: Any = ([[1.0]], [[[0], [1], [1]]], [[10.0, 1.0, 4.0]])
    assert vine_value(policy, *vine, estimator="self_normalized") == pytest.approx(5.0)
    # 1/K sum (Q_k - 5) grad log pi(a_k): scores for logit 0: 0.75 for action 0, -0.25 for action 1
    slope = (5 * 0.75 + (-4 - 1) * -0.25) / 3
    np.testing.assert_allclose(
        vine_gradient(policy, *vine, estimator="self_normalized"),
        [slope, -slope, slope, -slope],
        atol=1e-15,
    )
    policy.parameters = np.concatenate([np.log([0.5, 0.5]), np.zeros(2)])
    w = np.array([2.0, 2 / 3, 2 / 3])
    value = vine_value(policy, *vine, estimator="self_normalized", old_parameters=old)
    assert value == pytest.approx((w @ [10.0, 1.0, 4.0]) / w.sum())


@pytest.mark.parametrize("estimator", ["exact_sum", "self_normalized"])
def test_gradient_is_the_derivative_of_the_value(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    if estimator == "exact_sum":
        policy = softmax_policy(4, 3, rng.normal(size=(4, 3)))
        x, actions = rng.normal(size=(6, 4)), np.broadcast_to([[0], [1], [2]], (6, 3, 1))
    else:
        policy = gaussian_policy()
        x, actions = rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 2))
    vine: Any = (x, actions, rng.normal(size=(6, 3)))
    theta, direction = policy.parameters, rng.normal(size=policy.n_parameters)
    values = []
    for sign in (1, -1):
        policy.parameters = theta + sign * 1e-5 * direction
        values.append(vine_value(policy, *vine, estimator=estimator, old_parameters=theta))
    policy.parameters = theta
    slope = (values[0] - values[1]) / 2e-5
    gradient = vine_gradient(policy, *vine, estimator=estimator)
    assert gradient @ direction == pytest.approx(slope, rel=1e-7)


def test_a_shift_of_q_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    x, actions, Q = rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 4))
    shifted = Q + rng.normal(size=(5, 1)) * 10
    one, other = gaussian_policy(), gaussian_policy()
    a = vine_update(one, x, actions, Q, estimator="self_normalized")
    b = vine_update(other, x, actions, shifted, estimator="self_normalized")
    assert a.accepted
    assert b.accepted
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(200))
def test_full_support_equals_the_exact_surrogate_of_an_mdp(seed: int) -> None:
    """L_pi(pi') = J(pi) + sum_s rho(s) sum_a pi'(a|s) A(s, a), state by state from the vine."""
    rng = np.random.default_rng(seed)
    mdp = tabular.random_mdp(n_states=6, n_actions=3, gamma=rng.uniform(0.5, 0.98), seed=seed)
    old_logits, new_logits = rng.normal(size=(2, 6, 3))
    policy = softmax_policy(6, 3, old_logits)
    exact = tabular.evaluate(mdp, tabular.softmax(old_logits))
    actions = np.broadcast_to(np.arange(3)[:, None], (1, 3, 1))
    vines: list[Any] = [(np.eye(6)[[s]], actions, exact.Q[[s]]) for s in range(6)]
    old = policy.parameters
    values = [vine_value(policy, *vine, estimator="exact_sum") for vine in vines]
    np.testing.assert_allclose(values, exact.V, atol=1e-12)
    gradient = sum(
        exact.visitation[s] * vine_gradient(policy, *vine, estimator="exact_sum")
        for s, vine in enumerate(vines)
    )
    policy.parameters = np.concatenate([new_logits.T.ravel(), np.zeros(3)])
    vine_sum = exact.J + sum(
        exact.visitation[s]
        * (vine_value(policy, *vine, estimator="exact_sum", old_parameters=old) - values[s])
        for s, vine in enumerate(vines)
    )
    surrogate = tabular.surrogate(exact, tabular.softmax(new_logits))
    assert vine_sum == pytest.approx(surrogate, abs=1e-11)
    np.testing.assert_allclose(
        np.asarray(gradient)[:18].reshape(3, 6).T, tabular.policy_gradient(exact), atol=1e-12
    )


def test_all_actions_of_discrete_spaces() -> None:
    D = core.Distribution
    np.testing.assert_array_equal(all_actions(D("categorical", (3,))), [[0], [1], [2]])
    multi = all_actions(D("multi_categorical", (2, 3)))
    np.testing.assert_array_equal(multi, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    np.testing.assert_array_equal(
        all_actions(D("bernoulli", (2,))), [[0, 0], [0, 1], [1, 0], [1, 1]]
    )


# ---- the step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_trust_region_holds(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        policy = core.Policy(3, core.Distribution("gaussian", (2,)), dtype=dtype, seed=trial)
        before = policy.parameters
        x = rng.normal(size=(12, 3)).astype(dtype)
        actions = np.stack([policy.act(x, seed=k) for k in range(4)], axis=1)
        Q = rng.normal(size=(12, 4)) * 10.0 ** rng.integers(-3, 4)
        update = vine_update(policy, x, actions, Q, estimator="self_normalized", max_kl=0.02)
        if update.accepted:
            assert policy.kl(x, before).mean() <= 0.02
            assert update.kl == pytest.approx(policy.kl(x, before).mean())
            assert update.surrogate_gain > 0
        else:
            np.testing.assert_array_equal(policy.parameters, before)


def test_refused_steps_leave_every_bit() -> None:
    policy = gaussian_policy()
    before = policy.parameters
    x, actions = np.ones((2, 3)), np.arange(8.0).reshape(2, 2, 2)
    alike = vine_update(policy, x, actions, [[0.1, 0.1], [3.0, 3.0]], estimator="self_normalized")
    assert alike.status == "zero_gradient"
    nan = vine_update(policy, x, actions, [[0.1, np.nan], [3, 3]], estimator="self_normalized")
    assert nan.status == "non_finite"
    hard = vine_update(
        policy,
        x,
        actions,
        [[1.0, 2.0], [3.0, 1.0]],
        estimator="self_normalized",
        max_kl=1e6,
        max_backtracks=0,
        cg_damping=0.0,
    )
    assert hard.status == "line_search_failed"
    np.testing.assert_array_equal(policy.parameters, before)


def test_the_step_is_that_of_the_core() -> None:
    """One sampled pair a state, far apart: the same direction as the core on the same rows."""
    rng = np.random.default_rng(5)
    policy, twin = softmax_policy(3, 2, np.zeros((3, 2))), softmax_policy(3, 2, np.zeros((3, 2)))
    actions = np.broadcast_to([[0], [1]], (3, 2, 1))
    Q = rng.normal(size=(3, 2))
    update = vine_update(policy, np.eye(3), actions, Q, estimator="exact_sum", max_backtracks=0)
    advantages = (Q - Q.mean(axis=1, keepdims=True)).ravel()
    core_update = twin.update(np.repeat(np.eye(3), 2, axis=0), actions.reshape(6, 1), advantages)
    assert update.accepted
    assert core_update.backtracks == 0
    np.testing.assert_allclose(policy.parameters, twin.parameters, atol=1e-12)
    for name in ("kl", "surrogate_gain", "step_norm", "kl_predicted", "gradient_norm", "entropy"):
        assert getattr(update, name) == pytest.approx(getattr(core_update, name), rel=1e-9)


def test_bad_input() -> None:
    policy = gaussian_policy()
    with pytest.raises(ValueError, match="an empty rollout set has nothing to learn from"):
        vine_update(
            policy, np.empty((0, 3)), np.empty((0, 4, 2)), np.empty((0, 4)), estimator="exact_sum"
        )
    x, one, two = np.ones((2, 3)), np.ones((2, 1, 2)), np.ones((2, 2, 2))
    with pytest.raises(ValueError, match="at least 2 samples in every state, got 1"):
        vine_update(policy, x, one, np.ones((2, 1)), estimator="self_normalized")
    with pytest.raises(ValueError, match="max_kl: expected a positive number, got 0"):
        vine_update(policy, x, two, np.ones((2, 2)), estimator="self_normalized", max_kl=0)
    with pytest.raises(ValueError, match=r'branches: "all" needs a discrete action space'):
        vine_update(policy, x, two, np.ones((2, 2)), estimator="exact_sum")
