"""The Fisher-vector product of other libraries, on one synthetic problem: the peers of ``fvp.py``.

Each function returns its sides by name: the product as a callable that takes nothing, and its result as
a flat array in the order of ``Problem.flat``. What does not depend on the vector is prepared outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools import report

Array = NDArray[np.float32]
Side = Callable[[], object]

DAMPING = 0.1
LOG_STD = -0.5


class Problem:
    """Network, observations and a vector, the same for all sides."""

    def __init__(self, sizes: tuple[int, ...], n_rows: int) -> None:
        random = np.random.default_rng(0)
        pairs = list(itertools.pairwise(sizes))
        self.sizes = sizes
        self.weights: list[Array] = [
            (random.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)
            for n_in, n_out in pairs
        ]
        self.biases: list[Array] = [
            0.1 * random.standard_normal(n_out).astype(np.float32) for _, n_out in pairs
        ]
        self.log_std: Array = np.full(sizes[-1], LOG_STD, np.float32)
        self.observations: Array = random.standard_normal((n_rows, sizes[0]), np.float32)
        self.vector: Array = random.standard_normal(len(self.flat), np.float32)

    @property
    def flat(self) -> Array:
        """All parameters in the order W_0, b_0, W_1, ..., log_std."""
        layers = zip(self.weights, self.biases, strict=True)
        parts = [part.ravel() for layer in layers for part in layer]
        return np.concatenate([*parts, self.log_std])

    @property
    def operations(self) -> int:
        """Floating-point operations of one product, by the formula above."""
        layers = list(itertools.pairwise(self.sizes))
        first = layers[0][0] * layers[0][1]
        others = sum(n_in * n_out for n_in, n_out in layers[1:])
        return len(self.observations) * (4 * first + 8 * others)


# ---- the sides


def double_backprop(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """The product of ``torch_trpo.py``."""
    import torch
    from torch import nn

    from benchmarks.peers.torch_trpo import (
        DoubleBackpropFisher,
        GaussianPolicy,
        actor_parameters,
        set_flat,
    )

    obs_dim, *hidden, action_dim = problem.sizes
    policy: nn.Module = GaussianPolicy(obs_dim, action_dim, hidden, LOG_STD)
    parameters = actor_parameters(policy)
    set_flat(parameters, torch.from_numpy(problem.flat))
    observations = torch.from_numpy(problem.observations)
    product = DoubleBackpropFisher(policy, parameters, observations, damping=DAMPING)
    v = torch.from_numpy(problem.vector)
    return {"double backprop": (lambda: product(v), product(v).numpy())}


def torch_analytic(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """The product of ``analytic_torch.py`` with the block size that is fastest here."""
    import torch

    from benchmarks.peers.analytic_torch import AnalyticFisher

    v = torch.from_numpy(problem.vector)

    def build(block_rows: int | None) -> AnalyticFisher:
        return AnalyticFisher(
            [torch.from_numpy(w) for w in problem.weights],
            [torch.from_numpy(b) for b in problem.biases],
            torch.from_numpy(problem.log_std),
            torch.from_numpy(problem.observations),
            block_rows=block_rows,
        )

    candidates = {str(rows): build(rows) for rows in (None, 1024, 2048, 4096)}
    calls: dict[str, Side] = {
        name: (lambda c=c: c(v, damping=DAMPING))  # type: ignore[misc]
        for name, c in candidates.items()
    }
    times = report.time_paired(calls, rounds=3, warmup=2)
    best = candidates[min(times, key=lambda name: times[name].median)]
    del candidates, calls
    return {"torch analytic": (lambda: best(v, damping=DAMPING), best(v, damping=DAMPING).numpy())}


def torch_func(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """``torch.func.linearize`` and ``vjp``, prepared once; compiled, both passes as one function."""
    import torch

    count = len(problem.weights)
    layers = tuple(torch.from_numpy(w) for w in problem.weights)
    layers += tuple(torch.from_numpy(b) for b in problem.biases)
    observations = torch.from_numpy(problem.observations)
    precision = torch.exp(-2.0 * torch.from_numpy(problem.log_std)) / len(observations)
    v = torch.from_numpy(problem.vector)
    tangents, start = [], 0
    for w, b in zip(problem.weights, problem.biases, strict=True):
        tangents.append((v[start : start + w.size].reshape(w.shape), v[start + w.size :][: b.size]))
        start += w.size + b.size
    tangent = tuple(w for w, _ in tangents) + tuple(b for _, b in tangents)

    def network(*parameters: torch.Tensor) -> torch.Tensor:
        h = observations
        for i in range(count):
            h = torch.nn.functional.linear(h, parameters[i], parameters[count + i])
            if i + 1 < count:
                h = torch.tanh(h)
        return h

    _, push_forward = torch.func.linearize(network, *layers)
    _, pull_back = torch.func.vjp(network, *layers)

    def product(tangent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        pulled: tuple[torch.Tensor, ...] = pull_back(precision * push_forward(*tangent))
        return pulled

    def whole(tangent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        _, adjoint = torch.func.vjp(network, *layers)
        _, u = torch.func.jvp(network, layers, tangent)
        pulled: tuple[torch.Tensor, ...] = adjoint(precision * u)
        return pulled

    def flat(pulled: tuple[torch.Tensor, ...]) -> Array:
        parts = [
            part.numpy().ravel() for i in range(count) for part in (pulled[i], pulled[count + i])
        ]
        tail = 2.0 * problem.vector[-problem.sizes[-1] :]
        product_of_v: Array = np.concatenate([*parts, tail]) + DAMPING * problem.vector
        return product_of_v

    sides: dict[str, tuple[Side, Array]] = {
        "torch.func": (lambda: product(tangent), flat(product(tangent)))
    }
    try:
        compiled = torch.compile(whole)
        sides["torch.func compiled"] = (lambda: compiled(tangent), flat(compiled(tangent)))
    except Exception as error:  # it needs a C++ compiler, and not every operation is supported
        first = str(error).strip().partition("\n")[0]
        print(f"torch.func compiled: left out, {type(error).__name__}: {first}")
    return sides


def _jax_setup(problem: Problem) -> tuple[Any, Any, Any, Any]:
    import jax.numpy as jnp

    layers = [
        (jnp.asarray(w), jnp.asarray(b))
        for w, b in zip(problem.weights, problem.biases, strict=True)
    ]
    vector, start = [], 0
    for w, b in zip(problem.weights, problem.biases, strict=True):
        v_w = problem.vector[start : start + w.size].reshape(w.shape)
        v_b = problem.vector[start + w.size : start + w.size + b.size]
        vector.append((jnp.asarray(v_w), jnp.asarray(v_b)))
        start += w.size + b.size
    precision = jnp.exp(-2.0 * jnp.asarray(problem.log_std)) / len(problem.observations)
    return layers, vector, jnp.asarray(problem.observations), precision


def _jax_flat(product: Any, problem: Problem) -> Array:
    # the log_std part is 2 v and costs nothing: added here, outside the clock
    parts = [np.asarray(part).ravel() for layer in product for part in layer]
    tail = 2.0 * problem.vector[-problem.sizes[-1] :]
    flat = np.concatenate([*parts, tail]) + DAMPING * problem.vector
    product_of_v: Array = flat.astype(np.float32)
    return product_of_v


def jax_linearized(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """``jax.linearize`` once outside; the jitted product is its transpose after it."""
    import jax
    import jax.numpy as jnp

    layers, vector, observations, precision = _jax_setup(problem)

    def network(parameters: Any) -> Any:
        h = observations
        for w, b in parameters[:-1]:
            h = jnp.tanh(h @ w.T + b)
        w, b = parameters[-1]
        return h @ w.T + b

    _, tangent = jax.linearize(network, layers)
    adjoint = jax.linear_transpose(tangent, layers)
    product = jax.jit(lambda v: adjoint(precision * tangent(v))[0])
    return {
        "jax": (
            lambda: jax.block_until_ready(product(vector)),
            _jax_flat(product(vector), problem),
        )
    }


def jax_analytic(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """Hand-written tangent and adjoint passes with cached activations, jitted."""
    import jax
    import jax.numpy as jnp

    layers, vector, observations, precision = _jax_setup(problem)
    inputs = [observations]
    for w, b in layers[:-1]:
        inputs.append(jnp.tanh(inputs[-1] @ w.T + b))
    slopes = [1.0 - h * h for h in inputs[1:]]

    @jax.jit
    def product(layers: Any, inputs: Any, slopes: Any, v: Any) -> Any:
        tangent = inputs[0] @ v[0][0].T + v[0][1]
        for i in range(1, len(layers)):
            h_dot = tangent * slopes[i - 1]
            tangent = inputs[i] @ v[i][0].T + h_dot @ layers[i][0].T + v[i][1]
        u, gradient = tangent * precision, []
        for i in reversed(range(len(layers))):
            gradient.append((u.T @ inputs[i], u.sum(0)))
            if i:
                u = (u @ layers[i][0]) * slopes[i - 1]
        return gradient[::-1]

    result = _jax_flat(product(layers, inputs, slopes, vector), problem)
    return {
        "jax analytic": (
            lambda: jax.block_until_ready(product(layers, inputs, slopes, vector)),
            result,
        )
    }
