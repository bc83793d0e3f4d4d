"""A policy: network and head; one flat parameter vector holds the network, then the free log_std."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .activations import activation_slope
from .distribution import Head
from .network import Network
from .types import Array


@dataclass(frozen=True)
class Policy:
    obs_dim: int
    head: Head
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    @property
    def network(self) -> Network:
        return Network((self.obs_dim, *self.hidden_sizes, self.head.n_outputs), self.activation)

    @property
    def n_parameters(self) -> int:
        return self.network.n_parameters + (self.head.sizes[0] if self.head.has_free_log_std else 0)

    def split(self, parameters: Array) -> tuple[Array, Array | None]:
        """Flat (D,) -> network parameters, free log_std (A,) or None."""
        n = self.network.n_parameters
        return parameters[:n], (parameters[n:] if self.head.has_free_log_std else None)

    def outputs(self, parameters: Array, obs: Array) -> Array:
        return self.network.forward(self.split(parameters)[0], obs)[0]

    def eta(self, parameters: Array, obs: Array) -> Array:
        return self.head.eta(self.outputs(parameters, obs), self.split(parameters)[1])

    def eta_tangent(self, parameters: Array, obs: Array, direction: Array) -> Array:
        """J v in eta: (N, Q)."""
        net, _ = self.split(parameters)
        d_net, d_log_std = self.split(direction)
        outputs = self.outputs(parameters, obs)
        d_outputs = self.network.tangent(net, obs, d_net) * self.head.eta_slope(outputs)
        if d_log_std is None:
            return d_outputs
        return np.concatenate([d_outputs, np.broadcast_to(d_log_std, d_outputs.shape)], axis=1)

    def eta_adjoint(self, parameters: Array, obs: Array, eta_gradient: Array) -> Array:
        """sum_n J_n^T u_n: (N, Q) -> (D,)."""
        net, _ = self.split(parameters)
        outputs = self.outputs(parameters, obs)
        n_outputs = self.head.n_outputs
        d_outputs = eta_gradient[:, :n_outputs] * self.head.eta_slope(outputs)
        gradient = self.network.adjoint(net, obs, d_outputs)
        if not self.head.has_free_log_std:
            return gradient
        return np.concatenate([gradient, eta_gradient[:, n_outputs:].sum(axis=0)])

    def log_prob(self, parameters: Array, obs: Array, actions: Array) -> Array:
        return self.head.log_prob(self.eta(parameters, obs), actions)

    def entropy(self, parameters: Array, obs: Array) -> Array:
        return self.head.entropy(self.eta(parameters, obs))

    def kl(self, old: Array, new: Array, obs: Array) -> Array:
        """D_KL(pi_old(.|s_n) || pi_new(.|s_n)): (N,)."""
        return self.head.kl(self.eta(old, obs), self.eta(new, obs))

    def surrogate(
        self, parameters: Array, old: Array, obs: Array, actions: Array, advantages: Array
    ) -> float:
        """L(theta) = mean_n( pi(a_n|s_n) / pi_old(a_n|s_n) * A_n )."""
        ratio = self._ratio(parameters, old, obs, actions)
        return float(np.mean(ratio * advantages))

    def surrogate_gradient(
        self, parameters: Array, old: Array, obs: Array, actions: Array, advantages: Array
    ) -> Array:
        """mean_n( ratio_n A_n J_n^T score_n )."""
        weight = self._ratio(parameters, old, obs, actions) * advantages / len(obs)
        score = self.head.score(self.eta(parameters, obs), actions)
        return self.eta_adjoint(parameters, obs, weight[:, None] * score)

    def _ratio(self, parameters: Array, old: Array, obs: Array, actions: Array) -> Array:
        return np.exp(self.log_prob(parameters, obs, actions) - self.log_prob(old, obs, actions))

    def fisher_vector_product(
        self, parameters: Array, obs: Array, vector: Array, damping: float = 0.0
    ) -> Array:
        """(F + damping I) v with F = mean_n J_n^T M_n J_n."""
        eta = self.eta(parameters, obs)
        tangent = self.eta_tangent(parameters, obs, vector)
        product = self.eta_adjoint(parameters, obs, self.head.metric(eta, tangent))
        return product / len(obs) + damping * vector

    def kronecker_preconditioner(
        self, parameters: Array, obs: Array, damping: float, cotangents: Array
    ) -> Array:
        """M^{-1} (D, D) of Martens & Grosse (2015), from a cotangent (N, P) a sample."""
        network, log_std = self.split(parameters)
        layers, (_, cache) = self.network.unflatten(network), self.network.forward(network, obs)
        inverse = np.zeros((self.n_parameters, self.n_parameters))
        ends = np.cumsum([w.size + b.size for w, b in layers])
        delta = cotangents
        for index in reversed(range(len(layers))):
            w, b = layers[index]
            h = np.concatenate([cache[index][0], np.ones((len(obs), 1))], axis=1)
            a, g = h.T @ h / len(obs), delta.T @ delta / len(obs)
            mean_a, mean_g = np.trace(a) / len(a), np.trace(g) / len(g)
            pi, root = math.sqrt(mean_a / mean_g), math.sqrt(max(damping, 1e-8 * mean_a * mean_g))
            a_inverse = np.linalg.inv(a + pi * root * np.eye(len(a)))
            g_inverse = np.linalg.inv(g + root / pi * np.eye(len(g)))
            # rows of [W, b], one after the other, to the flat order W, b
            places = np.arange(ends[index] - w.size - b.size, ends[index])
            order = np.concatenate(
                [places[: w.size].reshape(w.shape), places[w.size :, np.newaxis]], axis=1
            ).ravel()
            inverse[np.ix_(order, order)] = np.kron(g_inverse, a_inverse)
            if index > 0:
                slope = activation_slope(self.activation, cache[index - 1][1])
                delta = (delta @ w) * slope
        if log_std is not None:
            free = np.arange(ends[-1], self.n_parameters)
            inverse[free, free] = 1.0 / (2.0 + damping)
        return inverse

    def fisher(self, parameters: Array, obs: Array) -> Array:
        """Dense F (D, D), built column by column."""
        columns = [self.fisher_vector_product(parameters, obs, e) for e in np.eye(len(parameters))]
        return np.stack(columns, axis=1)

    def fisher_from_scores(self, parameters: Array, obs: Array) -> Array:
        """Dense F as mean_n E_a[ grad log pi grad log pi^T ]: no metric, no tangent pass."""
        eta = self.eta(parameters, obs)
        total = np.zeros((len(parameters), len(parameters)))
        for actions, weights in self.head.quadrature(eta):
            scores = self.head.score(eta, actions)
            for n in range(len(obs)):
                g = self.eta_adjoint(parameters, obs[n : n + 1], scores[n : n + 1])
                total += weights[n] * np.outer(g, g)
        return total / len(obs)
