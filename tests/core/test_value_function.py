"""The value function: prediction, loss, Adam step for step, minibatches, L-BFGS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import DTYPES, SHAPES, TOLERANCE, Array, assert_close, core_value, normals, shape_id
from trpo_fast import core


def value_problem(
    shape, activation: str, dtype: str, seed: int = 0
) -> tuple[reference.ValueFunction, Array, Array, Array]:
    obs_dim, hidden, n = shape
    value = reference.ValueFunction(obs_dim, hidden, activation)
    # weights of a policy with one output serve as well
    policy = reference.Policy(obs_dim, reference.Head("bernoulli", (1,)), hidden, activation)
    parameters = reference.random_parameters(policy, seed).astype(dtype).astype(np.float64)
    obs = normals(seed + 1, n, obs_dim, dtype=dtype)
    targets = normals(seed + 2, n, dtype=dtype)
    return value, parameters, obs, targets


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_predict_loss_and_gradient(shape, activation: str, dtype: str) -> None:
    value, parameters, obs, targets = value_problem(shape, activation, dtype)
    function = core_value(value, parameters, dtype)
    o, y = obs.astype(dtype), targets.astype(dtype)
    tolerance = TOLERANCE[dtype]
    prediction = function.predict(o)
    assert prediction.dtype == dtype
    assert_close(prediction, value.predict(parameters, obs), tolerance)
    assert_close(function.loss(o, y), value.loss(parameters, obs, targets), tolerance)
    expected = value.loss_gradient(parameters, obs, targets)
    assert_close(function.loss_gradient(o, y), expected, tolerance)


def test_gradient_by_central_differences() -> None:
    value, parameters, obs, targets = value_problem((4, (6, 5), 30), "gelu", "float64")
    function, direction = core_value(value, parameters, "float64"), normals(9, len(parameters))
    slope = float(function.loss_gradient(obs, targets) @ direction)

    def loss(h: float) -> float:
        function.parameters = parameters + h * direction
        return function.loss(obs, targets)

    errors = [abs((loss(h) - loss(-h)) / (2.0 * h) - slope) for h in (0.02, 0.01, 1e-5)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert errors[2] <= 1e-7 * abs(slope)


def test_layout_has_no_log_std() -> None:
    function = core.ValueFunction(3, hidden_sizes=(4,))
    assert list(function.parameter_layout) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert function.n_parameters == 3 * 4 + 4 + 4 + 1


# ---- Adam ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("learning_rate", [1e-3, 0.1])
def test_full_batch_adam_equals_the_reference_step_for_step(
    learning_rate: float, dtype: str
) -> None:
    value, parameters, obs, targets = value_problem((5, (17, 3), 130), "tanh", dtype)
    function = core_value(value, parameters, dtype)
    o, y = obs.astype(dtype), targets.astype(dtype)
    adam, theta = reference.Adam(learning_rate), parameters
    tolerance = {"float64": 1e-9, "float32": 1e-3}[dtype]
    # 1, then 2, then 20 steps more: moments and count carry over from fit to fit
    for epochs in (1, 2, 20):
        before = value.loss(theta, obs, targets)
        for _ in range(epochs):
            theta = adam.step(theta, value.loss_gradient(theta, obs, targets))
        summary = function.fit(
            o, y, epochs=epochs, minibatch_size=None, learning_rate=learning_rate
        )
        assert summary.status == "ok"
        assert summary.steps == epochs
        step, expected = function.parameters - parameters, theta - parameters
        assert_close(step, expected, tolerance, what=f"after {adam.step_count} steps")
        assert summary.loss_before == pytest.approx(before, rel=tolerance)
        assert summary.loss_after == pytest.approx(value.loss(theta, obs, targets), rel=tolerance)


def test_minibatch_adam_is_deterministic_in_its_seed_and_learns() -> None:
    value, parameters, obs, targets = value_problem((5, (16,), 1000), "tanh", "float32", seed=3)
    targets = np.sin(obs[:, 0]) + 0.5 * obs[:, 1]
    o, y = obs.astype(np.float32), targets.astype(np.float32)

    def fit(seed: int, **options) -> tuple[core.FitSummary, Array]:
        function = core_value(value, parameters, "float32")
        summary = function.fit(
            o, y, epochs=5, minibatch_size=64, learning_rate=1e-2, seed=seed, **options
        )
        return summary, function.parameters

    summary, first = fit(1)
    assert np.array_equal(first, fit(1)[1])
    assert not np.array_equal(first, fit(2)[1])
    assert summary.steps == 5 * 16  # 15 minibatches of 64 and one of 40
    assert summary.loss_after < 0.5 * summary.loss_before
    assert summary.loss_after == pytest.approx(
        value.loss(first.astype(np.float64), obs, targets), rel=1e-3
    )


@given(st.integers(1, 60), st.integers(1, 70))
def test_every_sample_is_used_once_an_epoch(n: int, minibatch: int) -> None:
    """With targets zero but for sample i, one SGD-like epoch must see that sample whoever it is."""
    function = core.ValueFunction(1, hidden_sizes=(), dtype="float64", output_gain=0.0)
    before = function.parameters
    obs = np.ones((n, 1))
    summary = function.fit(obs, np.ones(n), epochs=1, minibatch_size=minibatch, seed=n)
    assert summary.steps == -(-n // minibatch)
    # every gradient is the same here up to the moving parameters: the bias grows at every step
    assert (function.parameters > before).all()


def test_minibatches_cover_the_batch() -> None:
    """One epoch over 100 orthogonal one-hot samples moves the weight of every one of them."""
    n = 100
    function = core.ValueFunction(n, hidden_sizes=(), dtype="float64", output_gain=0.0)
    function.fit(np.eye(n), np.arange(1.0, n + 1.0), epochs=1, minibatch_size=7, seed=4)
    weights = function.parameters[:n]
    assert (weights > 0.0).all()


def test_minibatch_as_large_as_the_batch_is_the_full_batch() -> None:
    value, parameters, obs, targets = value_problem((3, (5,), 40), "elu", "float64")
    results = []
    for size in (None, 40, 1000):
        function = core_value(value, parameters, "float64")
        summary = function.fit(obs, targets, epochs=3, minibatch_size=size)
        assert summary.steps == 3
        results.append(function.parameters)
    for other in results[1:]:
        assert_close(other, results[0], 1e-10)


def test_optimizer_state_is_restored_bit_for_bit() -> None:
    value, parameters, obs, targets = value_problem((3, (5,), 90), "tanh", "float32")
    o, y = obs.astype(np.float32), targets.astype(np.float32)
    original = core_value(value, parameters, "float32")
    original.fit(o, y, epochs=2, minibatch_size=32, seed=1)
    copy = core_value(value, original.parameters, "float32")
    state = original.optimizer_state()
    copy.load_optimizer_state(state)
    for function in (original, copy):
        function.fit(o, y, epochs=2, minibatch_size=32, seed=2)
    assert np.array_equal(original.parameters, copy.parameters)
    after, again = original.optimizer_state(), copy.optimizer_state()
    assert all(np.array_equal(after[name], again[name]) for name in after)
    # without the state the run differs, so the state matters
    fresh = core_value(value, parameters, "float32")
    fresh.fit(o, y, epochs=2, minibatch_size=32, seed=1)
    fresh.load_optimizer_state(core_value(value, parameters, "float32").optimizer_state())
    fresh.fit(o, y, epochs=2, minibatch_size=32, seed=2)
    assert not np.array_equal(fresh.parameters, original.parameters)


def test_zero_learning_rate_changes_nothing() -> None:
    value, parameters, obs, targets = value_problem((3, (5,), 90), "tanh", "float64")
    function = core_value(value, parameters, "float64")
    function.fit(obs, targets, learning_rate=0.0)
    assert np.array_equal(function.parameters, parameters)


# ---- L-BFGS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("obs_dim", [1, 5, 17])
def test_lbfgs_reaches_the_least_squares_optimum(obs_dim: int, dtype: str) -> None:
    value, parameters, obs, targets = value_problem((obs_dim, (), 200), "tanh", dtype)
    function = core_value(value, parameters, dtype)
    summary = function.fit(obs.astype(dtype), targets.astype(dtype), method="lbfgs", iterations=60)
    best = value.least_squares(obs, targets)
    assert summary.status == "ok"
    assert summary.loss_after == pytest.approx(best, rel={"float64": 1e-10, "float32": 1e-5}[dtype])
    reached = value.loss(function.parameters.astype(np.float64), obs, targets)
    assert reached == pytest.approx(best, rel={"float64": 1e-10, "float32": 1e-5}[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_lbfgs_on_a_network(activation: str, dtype: str) -> None:
    value, parameters, obs, _ = value_problem((3, (16, 16), 500), activation, dtype)
    targets = (np.sin(2.0 * obs[:, 0]) + obs[:, 1] * obs[:, 2]).astype(dtype).astype(np.float64)
    function = core_value(value, parameters, dtype)
    losses = [value.loss(parameters, obs, targets)]
    for _ in range(3):
        summary = function.fit(
            obs.astype(dtype), targets.astype(dtype), method="lbfgs", iterations=25
        )
        assert summary.status == "ok"
        assert summary.loss_before == pytest.approx(losses[-1], rel=1e-4)
        assert summary.loss_after <= summary.loss_before * (1.0 + 1e-6)
        losses.append(value.loss(function.parameters.astype(np.float64), obs, targets))
    if activation != "identity":
        assert losses[1] < 0.5 * losses[0]
    else:
        assert losses[-1] == pytest.approx(value.least_squares(obs, targets), rel=1e-3)


def test_lbfgs_at_the_optimum_stays_there() -> None:
    function = core.ValueFunction(2, hidden_sizes=(), dtype="float64")
    function.parameters = np.array([2.0, -1.0, 0.5])
    obs = normals(1, 50, 2)
    targets = obs @ np.array([2.0, -1.0]) + 0.5
    summary = function.fit(obs, targets, method="lbfgs")
    assert summary.status == "ok"
    assert summary.loss_after < 1e-25
    assert_close(function.parameters, [2.0, -1.0, 0.5], 1e-10)


# ---- things that go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["observations", "targets"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_non_finite_input_leaves_everything(
    activation: str, where: str, bad: float, method: str
) -> None:
    value, parameters, obs, targets = value_problem((3, (5,), 120), activation, "float64")
    function = core_value(value, parameters, "float64")
    state = function.optimizer_state()
    batch = {"observations": obs, "targets": targets}
    batch[where][110, ...] = bad
    try:
        summary = function.fit(**batch, method=method)
    except ValueError as error:
        message = str(error)
    else:
        message = summary.message
        if where == "observations" and activation == "tanh" and np.isinf(bad):
            assert np.isfinite(function.parameters).all()
            return
        assert summary.status == "non_finite", message
    assert len(message) > 20
    assert np.array_equal(function.parameters, parameters)
    assert all(np.array_equal(function.optimizer_state()[k], state[k]) for k in state)


def test_a_diverging_fit_is_undone() -> None:
    value, parameters, obs, targets = value_problem((3, (5,), 120), "identity", "float32")
    function = core_value(value, parameters, "float32")
    o, y = obs.astype(np.float32), targets.astype(np.float32)
    function.fit(o, y, epochs=2)  # so that there are moments to lose
    before, state = function.parameters, function.optimizer_state()
    summary = function.fit(o, y, learning_rate=1e30, epochs=5)
    assert summary.status == "non_finite"
    assert "learning rate" in summary.message
    assert np.array_equal(function.parameters, before)
    after = function.optimizer_state()
    assert all(np.array_equal(after[name], state[name]) for name in state)
    # and the next fit goes on as if nothing had happened
    assert function.fit(o, y).status == "ok"


def test_one_sample_can_be_fitted() -> None:
    for method in ("adam", "lbfgs"):
        function = core.ValueFunction(2, hidden_sizes=(4,), dtype="float64")
        summary = function.fit(
            np.array([[1.0, 2.0]]),
            np.array([3.0]),
            method=method,
            epochs=500,
            learning_rate=0.05,
            iterations=50,
        )
        assert summary.loss_after < 1e-3 * summary.loss_before
