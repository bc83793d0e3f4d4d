"""The reference is tested against finite differences, exact expectations and known answers."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from cases import SMALL_HEADS, Array, assert_close, moved, normals, small_problem


def central_difference(function, x: Array, direction: Array, h: float) -> Array:
    return (function(x + h * direction) - function(x - h * direction)) / (2.0 * h)


def observed_order(function, x: Array, direction: Array, exact: Array, h: float) -> float:
    """log2 of the error at h over the error at h / 2: two for a correct derivative."""
    errors = [
        np.max(np.abs(central_difference(function, x, direction, step) - exact))
        for step in (h, h / 2)
    ]
    return float(np.log2(errors[0] / errors[1]))


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activation_slope_is_the_derivative(name: str) -> None:
    x = np.linspace(-4.0, 4.0, 400)  # 0 is not among them
    exact = reference.activation_slope(name, x)
    difference = central_difference(lambda y: reference.activate(name, y), x, np.ones_like(x), 1e-5)
    assert_close(difference, exact, 1e-9)


def test_activation_known_values() -> None:
    one = np.array([1.0, -1.0])
    assert_close(reference.activate("gelu", one), [0.8413447460685429, -0.15865525393145707], 1e-15)
    assert_close(reference.activate("silu", one), [0.7310585786300049, -0.2689414213699951], 1e-15)
    assert_close(reference.activate("elu", one), [1.0, -0.6321205588285577], 1e-15)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3), (3, 5, 2)])
def test_network_tangent_and_adjoint(name: str, hidden: tuple[int, ...]) -> None:
    net = reference.Network((3, *hidden, 2), name)
    parameters, direction = normals(1, net.n_parameters), normals(2, net.n_parameters)
    obs, weight = normals(3, 5, 3), normals(4, 5, 2)
    tangent = net.tangent(parameters, obs, direction)
    difference = central_difference(lambda p: net.forward(p, obs)[0], parameters, direction, 1e-6)
    assert_close(difference, tangent, 1e-8)
    # the adjoint is the transpose of the tangent: u . (J v) = (J^T u) . v
    left = float((weight * tangent).sum())
    right = float(net.adjoint(parameters, obs, weight) @ direction)
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_surrogate_gradient_by_central_differences(head: reference.Head) -> None:
    p = small_problem(head)
    at, direction = moved(p.parameters, 5, "float64", 0.1), normals(6, len(p.parameters))

    def surrogate(theta: Array) -> Array:
        return np.array(p.policy.surrogate(theta, p.parameters, p.obs, p.actions, p.advantages))

    gradient = p.policy.surrogate_gradient(at, p.parameters, p.obs, p.actions, p.advantages)
    exact = gradient @ direction
    assert_close(central_difference(surrogate, at, direction, 1e-5), exact, 1e-7)
    assert 1.9 < observed_order(surrogate, at, direction, exact, 0.02) < 2.1


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_probabilities_sum_to_one_and_scores_to_zero(head: reference.Head) -> None:
    p = small_problem(head)
    eta = p.policy.eta(p.parameters, p.obs)
    pairs = list(head.quadrature(eta))
    assert_close(sum(w for _, w in pairs), np.ones(len(eta)), 1e-13)
    mean_score = sum(w[:, None] * head.score(eta, a) for a, w in pairs)
    assert_close(mean_score, np.zeros_like(mean_score), 1e-13, scale=1.0)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_entropy_kl_and_metric_are_expectations(head: reference.Head) -> None:
    p = small_problem(head)
    eta = p.policy.eta(p.parameters, p.obs)
    other = p.policy.eta(moved(p.parameters, 8, "float64", 0.3), p.obs)
    pairs = list(head.quadrature(eta))
    # H = -E[log pi], KL(old || new) = E_old[log old - log new]; both polynomial for Gaussians
    entropy = -sum(w * head.log_prob(eta, a) for a, w in pairs)
    assert_close(head.entropy(eta), entropy, 1e-13)
    kl = sum(w * (head.log_prob(eta, a) - head.log_prob(other, a)) for a, w in pairs)
    assert_close(head.kl(eta, other), kl, 1e-12)
    # M = E[score score^T]
    u = normals(9, *eta.shape)
    metric = sum(
        w[:, None] * head.score(eta, a) * (head.score(eta, a) * u).sum(axis=1, keepdims=True)
        for a, w in pairs
    )
    assert_close(head.metric(eta, u), metric, 1e-12)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_dense_fisher_three_ways(head: reference.Head) -> None:
    p = small_problem(head, n=3)
    gauss_newton = p.policy.fisher(p.parameters, p.obs)
    assert_close(p.policy.fisher_from_scores(p.parameters, p.obs), gauss_newton, 1e-12)

    # and as the second derivative of the KL at theta_k
    direction = normals(10, len(p.parameters))
    h = 1e-3

    def kl(step: float) -> float:
        return float(p.policy.kl(p.parameters, p.parameters + step * direction, p.obs).mean())

    curvature = (kl(h) - 2.0 * kl(0.0) + kl(-h)) / h**2
    assert curvature == pytest.approx(float(direction @ gauss_newton @ direction), rel=1e-4)


def test_state_dependent_log_std_is_clamped_with_zero_slope() -> None:
    head = reference.Head("state_dependent_gaussian", (1,))
    outputs = np.array([[0.5, -30.0], [0.5, 1.5], [0.5, 3.0]])
    assert head.eta(outputs, None)[:, 1].tolist() == [-20.0, 1.5, 2.0]
    assert head.eta_slope(outputs).tolist() == [[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]


def test_inverse_cdf_by_hand() -> None:
    head = reference.Head("multi_categorical", (2, 3))
    eta = np.log(np.array([[0.25, 0.75, 0.2, 0.3, 0.5]]))
    for u, expected in [
        ((0.0, 0.0), [0, 0]),
        ((0.24, 0.19), [0, 0]),
        ((0.26, 0.21), [1, 1]),
        ((0.99, 0.51), [1, 2]),
    ]:
        assert head.inverse_cdf(eta, np.array([u])).tolist() == [expected]


def test_conjugate_gradient_reaches_the_solution_of_a_small_system() -> None:
    a = normals(11, 6, 6)
    a = a @ a.T + 6.0 * np.eye(6)
    b = normals(12, 6)
    result = reference.conjugate_gradient(lambda v: a @ v, b, max_iterations=6, tolerance=1e-12)
    assert_close(result.x, np.linalg.solve(a, b), 1e-10)


@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_update_stays_in_the_trust_region_and_follows_the_model(head: reference.Head) -> None:
    p = small_problem(head, n=200)
    update = reference.trpo_update(
        p.policy, p.parameters, p.obs, p.actions, p.advantages, max_kl=1e-5, cg_damping=1e-3
    )
    assert update.status == "accepted"
    assert 0.0 < update.kl <= 1e-5
    # on a step this small the quadratic model holds to a few per cent
    assert update.kl == pytest.approx(update.kl_predicted, rel=0.05)
    assert update.surrogate_gain == pytest.approx(update.surrogate_gain_predicted, rel=0.05)


def test_adam_first_step_is_the_learning_rate() -> None:
    adam = reference.Adam(learning_rate=0.1)
    moved_by = adam.step(np.zeros(3), np.array([1e-3, -5.0, 0.0]))
    assert_close(moved_by, [-0.1, 0.1, 0.0], 2e-5)


def test_running_moments_are_the_moments_of_everything_seen() -> None:
    batches = [normals(13, n, 3) * 4.0 + 100.0 for n in (1, 5, 17)]
    count, mean, variance = reference.running_moments(batches)
    everything = np.concatenate(batches)
    assert count == 23
    assert_close(mean, everything.mean(axis=0), 1e-14)
    assert_close(variance, everything.var(axis=0), 1e-12)


def test_value_loss_gradient_by_central_differences() -> None:
    value = reference.ValueFunction(3, (4,), "gelu")
    parameters = normals(14, value.network.n_parameters)
    obs, targets, direction = normals(15, 9, 3), normals(16, 9), normals(17, len(parameters))

    def loss(theta: Array) -> Array:
        return np.array(value.loss(theta, obs, targets))

    exact = value.loss_gradient(parameters, obs, targets) @ direction
    assert_close(central_difference(loss, parameters, direction, 1e-5), exact, 1e-8)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of the authors' own library
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected) -> None:
    assert tuple(int(word) for word in reference.philox4x32(counter, key)) == expected
