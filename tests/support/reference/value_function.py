"""The value function, its loss, and Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .network import Network
from .types import Array


@dataclass(frozen=True)
class ValueFunction:
    obs_dim: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    @property
    def network(self) -> Network:
        return Network((self.obs_dim, *self.hidden_sizes, 1), self.activation)

    def predict(self, parameters: Array, obs: Array) -> Array:
        return self.network.forward(parameters, obs)[0][:, 0]

    def loss(self, parameters: Array, obs: Array, targets: Array) -> float:
        """Mean squared error, without the one half."""
        return float(np.mean((self.predict(parameters, obs) - targets) ** 2))

    def loss_gradient(self, parameters: Array, obs: Array, targets: Array) -> Array:
        residual = self.predict(parameters, obs) - targets
        return self.network.adjoint(parameters, obs, (2.0 * residual / len(obs))[:, None])

    def least_squares(self, obs: Array, targets: Array) -> float:
        """Smallest loss that a linear value function (no hidden layer) can reach."""
        design = np.concatenate([obs, np.ones((len(obs), 1))], axis=1)
        solution = np.linalg.lstsq(design, targets, rcond=None)[0]
        return float(np.mean((design @ solution - targets) ** 2))


@dataclass
class Adam:
    """Adam as PyTorch writes it (Kingma and Ba, 2015): epsilon outside the corrected root."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    step_count: int = 0
    first: Array | None = None
    second: Array | None = None

    def step(self, parameters: Array, gradient: Array) -> Array:
        if self.first is None or self.second is None:
            self.first, self.second = np.zeros_like(gradient), np.zeros_like(gradient)
        self.step_count += 1
        self.first = self.beta1 * self.first + (1.0 - self.beta1) * gradient
        self.second = self.beta2 * self.second + (1.0 - self.beta2) * gradient**2
        correction1 = 1.0 - self.beta1**self.step_count
        correction2 = 1.0 - self.beta2**self.step_count
        denominator = np.sqrt(self.second) / math.sqrt(correction2) + self.epsilon
        return parameters - self.learning_rate / correction1 * self.first / denominator
