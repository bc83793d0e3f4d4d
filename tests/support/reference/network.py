"""A multilayer perceptron: ``nn.Sequential(Linear, act, ..., Linear)``, all parameters in one vector.

Flat order: W_0 (out, in) row-major, b_0, W_1, b_1, ...
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .activations import activate, activation_slope
from .types import Array


@dataclass(frozen=True)
class Network:
    """Sizes (O, H1, ..., P) and the activation between the linear layers."""

    sizes: tuple[int, ...]
    activation: str

    @property
    def n_parameters(self) -> int:
        return sum(o * i + o for i, o in itertools.pairwise(self.sizes))

    def unflatten(self, parameters: Array) -> list[tuple[Array, Array]]:
        """Flat (D,) -> [(W (out, in), b (out,)), ...]."""
        layers, at = [], 0
        for n_in, n_out in itertools.pairwise(self.sizes):
            w = parameters[at : at + n_out * n_in].reshape(n_out, n_in)
            at += n_out * n_in
            layers.append((w, parameters[at : at + n_out]))
            at += n_out
        return layers

    def forward(self, parameters: Array, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """Outputs (N, P) and, for each layer, its input (N, in) and pre-activation (N, out)."""
        layers = self.unflatten(parameters)
        cache = []
        for index, (w, b) in enumerate(layers):
            z = x @ w.T + b
            cache.append((x, z))
            x = activate(self.activation, z) if index + 1 < len(layers) else z
        return x, cache

    def tangent(self, parameters: Array, x: Array, direction: Array) -> Array:
        """J v: the derivative of the outputs (N, P) along a parameter direction (D,)."""
        layers, directions = self.unflatten(parameters), self.unflatten(direction)
        _, cache = self.forward(parameters, x)
        dx = np.zeros_like(x)
        for index, ((w, _), (dw, db), (x_in, z)) in enumerate(
            zip(layers, directions, cache, strict=True)
        ):
            dz = dx @ w.T + x_in @ dw.T + db
            last = index + 1 == len(layers)
            dx = dz if last else activation_slope(self.activation, z) * dz
        return dx

    def adjoint(self, parameters: Array, x: Array, output_gradient: Array) -> Array:
        """sum_n J_n^T u_n: output gradients (N, P) -> parameter gradient (D,)."""
        layers = self.unflatten(parameters)
        _, cache = self.forward(parameters, x)
        pieces: list[Array] = []
        delta = output_gradient
        for index in reversed(range(len(layers))):
            x_in, _ = cache[index]
            pieces = [(delta.T @ x_in).ravel(), delta.sum(axis=0), *pieces]
            if index > 0:
                delta = (delta @ layers[index][0]) * activation_slope(
                    self.activation, cache[index - 1][1]
                )
        return np.concatenate(pieces)

    def jacobian(self, parameters: Array, x: Array) -> Array:
        """Dense J (N, P, D), one column at a time."""
        columns = [self.tangent(parameters, x, e) for e in np.eye(self.n_parameters)]
        return np.stack(columns, axis=-1)
