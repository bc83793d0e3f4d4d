"""The core against slower ways to the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from .tools import (
    HEADS,
    HIDDEN,
    OBS_DIM,
    Array,
    Check,
    CheckFailed,
    N,
    compare,
    differences,
    normals,
    problem,
)

GRADIENT_TOLERANCE = 1e-6  # central differences in float64, relative to the largest entry
FISHER_TOLERANCE = 1e-6
SINGLE_TOLERANCE = 1e-4  # float32 against float64

# Philox4x32-10 of seed 1, environment 2, step 3, as the slow NumPy reference gives it
KNOWN_UNIFORMS = (0.5499156871336808, 0.6693505605436644)
KNOWN_NORMALS = (-0.6132487587992617, -1.104792588460163)


def check_random_streams() -> str:
    """The first numbers of a stream, known from elsewhere."""
    uniforms = core.random_uniforms(1, 2, 3, 2)
    normals = core.random_normals(1, 2, 3, 2)
    compare("uniforms", uniforms, np.array(KNOWN_UNIFORMS), 0.0)
    worst = compare("normals", normals, np.array(KNOWN_NORMALS), 1e-14)
    return f"known numbers, error {worst:.0e}"


def check_gradients() -> str:
    """Surrogate and value loss: analytic gradients against central differences, float64."""
    worst = 0.0
    for head in HEADS:
        policy, observations, actions, weights = problem(head)
        worst = max(worst, _surrogate_error(policy, observations, actions, weights))
    for activation in core.ACTIVATIONS:
        policy, observations, actions, weights = problem(HEADS[0], activation=activation)
        worst = max(worst, _surrogate_error(policy, observations, actions, weights))
        worst = max(worst, _value_error(activation))
    return f"against finite differences: relative error {worst:.1e}"


def _surrogate_error(
    policy: core.Policy, observations: Array, actions: NDArray[Any], weights: Array
) -> float:
    old = policy.parameters
    policy.parameters = old + 0.1 * normals(5, len(old))  # the ratio is not 1

    def surrogate(parameters: Array) -> float:
        policy.parameters = parameters
        return policy.surrogate(observations, actions, weights, old_parameters=old)

    gradient = policy.surrogate_gradient(observations, actions, weights, old_parameters=old)
    numerical = differences(surrogate, np.asarray(policy.parameters, np.float64))
    what = f"surrogate gradient of {policy.distribution.kind}, {policy.activation}"
    return compare(what, gradient, numerical, GRADIENT_TOLERANCE)


def _value_error(activation: str) -> float:
    value = core.ValueFunction(
        OBS_DIM, hidden_sizes=HIDDEN, activation=activation, dtype="float64", seed=1
    )
    observations, targets = normals(2, N, OBS_DIM), normals(3, N)
    # biases of zero would stand exactly on relu's kink
    value.parameters = value.parameters + 0.1 * normals(5, value.n_parameters)

    def loss(parameters: Array) -> float:
        value.parameters = parameters
        return value.loss(observations, targets)

    gradient = value.loss_gradient(observations, targets)
    numerical = differences(loss, np.asarray(value.parameters, np.float64))
    return compare(f"value gradient, {activation}", gradient, numerical, GRADIENT_TOLERANCE)


def check_fisher() -> str:
    """F e_i for every i, against mean_n J_n^T M_n J_n with a numerical J_n; and (F + I) x = g."""
    worst = 0.0
    for head in HEADS:
        policy, observations, _, _ = problem(head)
        dense = _dense_fisher(policy, observations)
        operator = policy.fisher_operator(observations)
        columns = np.stack([operator(e) for e in np.eye(len(dense))])
        worst = max(worst, compare(f"Fisher of {head.kind}", columns, dense, FISHER_TOLERANCE))

        damped = policy.fisher_operator(observations, damping=1.0)
        b = normals(4, len(dense))
        x = core.conjugate_gradient(damped, b, max_iterations=200, tolerance=1e-12).x
        solution = np.linalg.solve(dense + np.eye(len(dense)), b)
        compare(f"conjugate gradient of {head.kind}", x, solution, FISHER_TOLERANCE)
    return f"against dense matrices: relative error {worst:.1e}"


def _dense_fisher(policy: core.Policy, observations: Array) -> Array:
    theta = np.asarray(policy.parameters, np.float64)
    outputs = np.asarray(policy.outputs(observations), np.float64)  # (N, P)

    def moved(parameters: Array) -> Array:
        policy.parameters = parameters
        return np.asarray(policy.outputs(observations), np.float64)

    J = differences(moved, theta)  # (D, N, P)
    policy.parameters = theta
    M = np.stack([_metric(policy, row) for row in outputs])  # (N, P, P)
    F: Array = np.einsum("inp,npq,jnq->ij", J, M, J) / len(outputs)
    if policy.distribution.n_free_parameters:
        where, _ = policy.parameter_layout["log_std"]
        F[where, where] = 2.0 * np.eye(where.stop - where.start)
    return F


def _metric(policy: core.Policy, outputs: Array) -> Array:
    """Fisher information in the outputs: of means 1/s^2, of log s 2, of logits their covariance."""
    head, A = policy.distribution, policy.distribution.sizes[0]
    if head.kind == "gaussian":
        where, _ = policy.parameter_layout["log_std"]
        return np.diag(np.exp(-2.0 * np.asarray(policy.parameters[where], np.float64)))
    if head.kind == "state_dependent_gaussian":
        return np.diag(np.concatenate([np.exp(-2.0 * outputs[A:]), np.full(A, 2.0)]))
    if head.kind == "bernoulli":
        p = 1.0 / (1.0 + np.exp(-outputs))
        return np.diag(p * (1.0 - p))
    M = np.zeros((len(outputs), len(outputs)))
    at = 0
    for size in head.sizes:
        group = slice(at, at + size)
        p = np.exp(outputs[group]) / np.exp(outputs[group]).sum()
        M[group, group] = np.diag(p) - np.outer(p, p)
        at += size
    return M


def check_single_precision() -> str:
    """What float32 networks give, against float64 at the same parameters."""
    worst = 0.0
    for head in HEADS:
        double, observations, actions, weights = problem(head, hidden=(64, 33), n=500)
        single, *_ = problem(head, hidden=(64, 33), n=500, dtype="float32")
        double.parameters = single.parameters
        observations = observations.astype(np.float32)
        actions = actions.astype(single.action_dtype)
        batch = (observations, actions, weights)
        for what, arguments in (("outputs", 1), ("log_prob", 2), ("surrogate_gradient", 3)):
            got, expected = (
                getattr(policy, what)(*batch[:arguments]) for policy in (single, double)
            )
            name = f"float32 {what} of {head.kind}"
            worst = max(worst, compare(name, got, expected, SINGLE_TOLERANCE))
    return f"against float64: relative error {worst:.1e}"


def check_trust_region() -> str:
    """Updates that are accepted keep the mean KL within the bound; the others change nothing."""
    worst = 0.0
    for head in HEADS:
        for dtype in ("float64", "float32"):
            policy, observations, actions, weights = problem(head, n=500, dtype=dtype)
            for seed in range(3):
                before = policy.parameters
                summary = policy.update(observations, actions, weights, max_kl=0.01, seed=seed)
                kl = float(policy.kl(observations, before).mean())
                if summary.accepted:
                    worst = max(worst, kl)
                    # the float32 outputs are read again here: another rounding of the same KL
                    if not kl <= 0.01 * (1.0 + 1e-3):
                        raise CheckFailed(f"expected a KL of at most 0.01, got {kl} ({head.kind})")
                elif not np.array_equal(before, policy.parameters):
                    raise CheckFailed(f"expected parameters unchanged after {summary.message}")
    return f"largest KL {worst:.5f} of 0.01 allowed"


NUMERICS = (
    Check("random streams", check_random_streams),
    Check("gradients", check_gradients),
    Check("Fisher", check_fisher),
    Check("single precision", check_single_precision),
    Check("trust region", check_trust_region),
)
