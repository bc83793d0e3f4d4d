"""Slow float64 NumPy of a policy whose choices are masked, by another way than the core's.

Where the core gives forbidden choices a logit, this file leaves them out: the probabilities of a
component are the softmax over the allowed logits alone. Scores and Fisher matrices are sums over these
choices. Nothing here imports ``trpo_fast``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import reference
from reference import Array


def random_masks(sizes: tuple[int, ...], n: int, seed: int = 0, share: float = 0.6) -> Array:
    """(n, W) bool, with at least one choice for every component.

    They depend on each other: where a component has its first choice, the next one has not.
    """
    u = reference.random_uniforms(seed, 11, 0, n * sum(sizes)).reshape(n, sum(sizes))
    masks = u < share
    begin = 0
    previous = np.zeros(n, np.bool_)
    for k, size in enumerate(sizes):
        group = masks[:, begin : begin + size]
        if k > 0 and size > 1:
            group[:, 0] &= ~previous
        nothing = ~group.any(axis=1)
        group[nothing, (np.arange(n)[nothing] + k) % size] = True
        previous = group[:, 0].copy()
        begin += size
    return masks


@dataclass(frozen=True)
class MaskedPolicy(reference.Policy):
    """The reference's policy with masks (N, W) of the rows that it is asked about."""

    masks: Array | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices of each component."""
        head = self.head
        return (2,) * head.sizes[0] if head.kind == "bernoulli" else head.sizes

    def components(self, eta: Array, n: int) -> Iterator[tuple[list[int], Array, Array]]:
        """Allowed choices of row n, their probabilities, and their scores in eta (choices, Q)."""
        assert self.masks is not None
        begin = 0
        for k, size in enumerate(self.sizes):
            allowed = [a for a in range(size) if self.masks[n, begin + a]]
            if self.head.kind == "bernoulli":
                logits = np.array([0.0, eta[n, k]])[allowed]
                slopes = np.zeros((len(allowed), eta.shape[1]))
                slopes[:, k] = allowed  # d (logit of 1) / d eta = 1
            else:
                logits = eta[n, begin : begin + size][allowed]
                slopes = np.zeros((len(allowed), eta.shape[1]))
                slopes[np.arange(len(allowed)), begin + np.array(allowed)] = 1.0
            p = np.exp(logits - logits.max())
            p /= p.sum()
            yield allowed, p, slopes - p @ slopes
            begin += size

    def log_prob(self, parameters: Array, obs: Array, actions: Array) -> Array:
        eta = self.eta(parameters, obs)
        return np.array(
            [
                sum(
                    np.log(p[allowed.index(int(a))])
                    for a, (allowed, p, _) in zip(actions[n], self.components(eta, n), strict=True)
                )
                for n in range(len(obs))
            ]
        )

    def entropy(self, parameters: Array, obs: Array) -> Array:
        eta = self.eta(parameters, obs)
        return np.array(
            [
                -sum(float(p @ np.log(p)) for _, p, _ in self.components(eta, n))
                for n in range(len(obs))
            ]
        )

    def kl(self, old: Array, new: Array, obs: Array) -> Array:
        old_eta, eta = self.eta(old, obs), self.eta(new, obs)
        return np.array(
            [
                sum(
                    float(p @ (np.log(p) - np.log(q)))
                    for (_, p, _), (_, q, _) in zip(
                        self.components(old_eta, n), self.components(eta, n), strict=True
                    )
                )
                for n in range(len(obs))
            ]
        )

    def scores(self, parameters: Array, obs: Array, actions: Array) -> Array:
        """d log pi(a_n|s_n) / d eta: (N, Q)."""
        eta = self.eta(parameters, obs)
        rows = []
        for n in range(len(obs)):
            parts = zip(actions[n], self.components(eta, n), strict=True)
            rows.append(sum(scores[allowed.index(int(a))] for a, (allowed, _, scores) in parts))
        return np.array(rows)

    def surrogate_gradient(
        self, parameters: Array, old: Array, obs: Array, actions: Array, advantages: Array
    ) -> Array:
        weight = self._ratio(parameters, old, obs, actions) * advantages / len(obs)
        scores = self.scores(parameters, obs, actions)
        return self.eta_adjoint(parameters, obs, weight[:, None] * scores)

    def fisher(self, parameters: Array, obs: Array) -> Array:
        """mean_n of the sum over components and choices of p grad log p grad log p^T, (D, D)."""
        eta = self.eta(parameters, obs)
        total = np.zeros((len(parameters), len(parameters)))
        for n in range(len(obs)):
            for _, p, scores in self.components(eta, n):
                for weight, score in zip(p, scores, strict=True):
                    g = self.eta_adjoint(parameters, obs[n : n + 1], score[None])
                    total += weight * np.outer(g, g)
        return total / len(obs)

    def empirical_fisher(self, parameters: Array, obs: Array, actions: Array) -> Array:
        """mean_n of grad log pi(a_n|s_n) grad log pi(a_n|s_n)^T, (D, D)."""
        scores = self.scores(parameters, obs, actions)
        rows = [
            self.eta_adjoint(parameters, obs[n : n + 1], scores[n : n + 1]) for n in range(len(obs))
        ]
        return np.array(rows).T @ np.array(rows) / len(obs)

    def fisher_vector_product(
        self, parameters: Array, obs: Array, vector: Array, damping: float = 0.0
    ) -> Array:
        return self.fisher(parameters, obs) @ vector + damping * vector
