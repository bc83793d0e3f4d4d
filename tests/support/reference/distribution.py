"""Action distributions in their own parameters eta (N, Q).

gaussian, state_dependent_gaussian: eta = [mean (A), log_std (A)];
categorical, multi_categorical: eta = the logits, group after group; bernoulli: the logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .activations import sigmoid
from .rng import random_normals, random_uniforms
from .types import Array

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # clamp of a state-dependent log-std, zero slope outside

HEAD_KINDS = (
    "gaussian",
    "state_dependent_gaussian",
    "categorical",
    "multi_categorical",
    "bernoulli",
)


@dataclass(frozen=True)
class Head:
    kind: str
    sizes: tuple[int, ...]

    @property
    def is_gaussian(self) -> bool:
        return self.kind.endswith("gaussian")

    @property
    def has_free_log_std(self) -> bool:
        return self.kind == "gaussian"

    @property
    def action_dim(self) -> int:  # A
        return len(self.sizes) if self.kind.endswith("categorical") else self.sizes[0]

    @property
    def n_outputs(self) -> int:  # P
        return sum(self.sizes) * (2 if self.kind == "state_dependent_gaussian" else 1)

    @property
    def n_distribution_parameters(self) -> int:  # Q
        return sum(self.sizes) * (2 if self.is_gaussian else 1)

    def groups(self) -> list[slice]:
        """Slices of the logits, one for each action component."""
        ends = list(itertools.accumulate(self.sizes))
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    # ---- from network outputs to eta and back ------------------------------------------------

    def eta(self, outputs: Array, log_std: Array | None) -> Array:
        """Network outputs (N, P) and the free log_std (A,) -> eta (N, Q)."""
        if self.kind == "gaussian":
            assert log_std is not None
            return np.concatenate([outputs, np.broadcast_to(log_std, outputs.shape)], axis=1)
        if self.kind == "state_dependent_gaussian":
            mean, raw = np.split(outputs, 2, axis=1)
            return np.concatenate([mean, np.clip(raw, LOG_STD_MIN, LOG_STD_MAX)], axis=1)
        return outputs

    def eta_slope(self, outputs: Array) -> Array:
        """d eta / d outputs, which is diagonal (N, P); for the free log_std see Policy."""
        slope = np.ones_like(outputs)
        if self.kind == "state_dependent_gaussian":
            raw = outputs[:, self.sizes[0] :]
            inside = (raw >= LOG_STD_MIN) & (raw <= LOG_STD_MAX)
            slope[:, self.sizes[0] :] = np.where(inside, 1.0, 0.0)
        return slope

    # ---- the distribution itself ---------------------------------------------------------------

    def log_prob(self, eta: Array, actions: Array) -> Array:
        """log pi(a | s), summed over action components: (N,)."""
        if self.is_gaussian:
            mean, log_std = np.split(eta, 2, axis=1)
            z = (actions - mean) * np.exp(-log_std)
            return (-0.5 * z * z - log_std - 0.5 * math.log(2.0 * math.pi)).sum(axis=1)
        if self.kind == "bernoulli":
            # log p = -softplus(-l), log(1 - p) = -softplus(l)
            return -(np.where(actions != 0, _softplus(-eta), _softplus(eta))).sum(axis=1)
        rows = np.arange(len(eta))
        return sum(
            _log_softmax(eta[:, group])[rows, actions[:, k].astype(np.int64)]
            for k, group in enumerate(self.groups())
        )

    def score(self, eta: Array, actions: Array) -> Array:
        """d log pi / d eta: (N, Q)."""
        if self.is_gaussian:
            mean, log_std = np.split(eta, 2, axis=1)
            z = (actions - mean) * np.exp(-log_std)
            return np.concatenate([z * np.exp(-log_std), z * z - 1.0], axis=1)
        if self.kind == "bernoulli":
            return (actions != 0).astype(np.float64) - sigmoid(eta)
        pieces = [
            np.eye(size)[actions[:, k].astype(np.int64)] - np.exp(_log_softmax(eta[:, group]))
            for k, (group, size) in enumerate(zip(self.groups(), self.sizes, strict=True))
        ]
        return np.concatenate(pieces, axis=1)

    def entropy(self, eta: Array) -> Array:
        """Differential (Gaussian) or Shannon entropy in nats: (N,)."""
        if self.is_gaussian:
            log_std = eta[:, self.sizes[0] :]
            return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(axis=1)
        if self.kind == "bernoulli":
            p = sigmoid(eta)
            return (p * _softplus(-eta) + (1.0 - p) * _softplus(eta)).sum(axis=1)
        total = np.zeros(len(eta))
        for group in self.groups():
            log_p = _log_softmax(eta[:, group])
            total -= (np.exp(log_p) * log_p).sum(axis=1)
        return total

    def kl(self, old: Array, new: Array) -> Array:
        """D_KL(old || new), summed over action components: (N,)."""
        if self.is_gaussian:
            mean_old, log_std_old = np.split(old, 2, axis=1)
            mean_new, log_std_new = np.split(new, 2, axis=1)
            d = log_std_old - log_std_new
            shift = (mean_old - mean_new) * np.exp(-log_std_new)
            # log(s1/s0) + (s0^2 + (m0 - m1)^2) / (2 s1^2) - 1/2
            return (0.5 * np.expm1(2.0 * d) - d + 0.5 * shift * shift).sum(axis=1)
        if self.kind == "bernoulli":
            p = sigmoid(old)
            log_ratio_1 = _softplus(-new) - _softplus(-old)
            log_ratio_0 = _softplus(new) - _softplus(old)
            return (p * log_ratio_1 + (1.0 - p) * log_ratio_0).sum(axis=1)
        total = np.zeros(len(old))
        for group in self.groups():
            log_p, log_q = _log_softmax(old[:, group]), _log_softmax(new[:, group])
            total += (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        return total

    def metric_root(self, outputs: Array, log_std: Array | None, u: Array) -> Array:
        """R_n u_n in network outputs (N, P), where R_n R_n^T is their Fisher information."""
        eta = self.eta(outputs, log_std)
        if self.is_gaussian:
            roots = np.exp(-eta[:, self.sizes[0] :])
            if self.kind == "state_dependent_gaussian":
                roots = np.concatenate([roots, np.full_like(roots, math.sqrt(2.0))], axis=1)
            return roots * self.eta_slope(outputs) * u
        if self.kind == "bernoulli":
            return np.sqrt(sigmoid(eta) * sigmoid(-eta)) * u
        pieces = []
        for group in self.groups():
            p, v = np.exp(_log_softmax(eta[:, group])), u[:, group]
            q_v = (np.sqrt(p) * v).sum(axis=1, keepdims=True)
            pieces.append(np.sqrt(p) * v - p * q_v)  # (diag(q) - p q^T) v, q = sqrt(p)
        return np.concatenate(pieces, axis=1)

    def metric(self, eta: Array, tangent: Array) -> Array:
        """M_n u_n: the Fisher information in eta applied to tangents (N, Q)."""
        if self.is_gaussian:
            d_mean, d_log_std = np.split(tangent, 2, axis=1)
            log_std = eta[:, self.sizes[0] :]
            return np.concatenate([d_mean * np.exp(-2.0 * log_std), 2.0 * d_log_std], axis=1)
        if self.kind == "bernoulli":
            p = sigmoid(eta)
            return p * (1.0 - p) * tangent
        pieces = []
        for group in self.groups():
            p, u = np.exp(_log_softmax(eta[:, group])), tangent[:, group]
            pieces.append(p * (u - (p * u).sum(axis=1, keepdims=True)))  # (diag(p) - p p^T) u
        return np.concatenate(pieces, axis=1)

    def mode(self, eta: Array) -> Array:
        """Most probable action (N, A); ties go to the lowest index, Bernoulli p = 1/2 to 0."""
        if self.is_gaussian:
            return eta[:, : self.sizes[0]].copy()
        if self.kind == "bernoulli":
            return (eta > 0.0).astype(np.int32)
        return np.stack([eta[:, group].argmax(axis=1) for group in self.groups()], axis=1).astype(
            np.int32
        )

    def sample(self, eta: Array, seed: int, envs: Array, steps: Array) -> Array:
        """Actions (N, A) from the counter stream (seed, env, step)."""
        k = self.action_dim
        if self.is_gaussian:
            z = np.stack(
                [random_normals(seed, int(e), int(s), k) for e, s in zip(envs, steps, strict=True)]
            )
            mean, log_std = np.split(eta, 2, axis=1)
            return mean + np.exp(log_std) * z
        u = np.stack(
            [random_uniforms(seed, int(e), int(s), k) for e, s in zip(envs, steps, strict=True)]
        )
        return self.inverse_cdf(eta, u)

    def inverse_cdf(self, eta: Array, u: Array) -> Array:
        """Discrete actions (N, A): the first index whose cumulative probability exceeds u.

        Bernoulli actions are counted down from 1, so that a = 1 where u < p.
        """
        if self.kind == "bernoulli":
            return (u < sigmoid(eta)).astype(np.int32)
        columns = []
        for k, group in enumerate(self.groups()):
            cdf = np.cumsum(np.exp(_log_softmax(eta[:, group])), axis=1)[:, :-1]
            columns.append((u[:, k : k + 1] >= cdf).sum(axis=1))
        return np.stack(columns, axis=1).astype(np.int32)

    # ---- exact expectations over actions ---------------------------------------------------------

    def quadrature(self, eta: Array) -> Iterable[tuple[Array, Array]]:
        """Pairs (actions (N, A), weights (N,)) whose weighted sums are expectations over actions.

        Discrete heads: every joint action with its probability (exact). Gaussians: the tensor
        Gauss-Hermite grid with five nodes a dimension, exact up to degree nine in each action.
        """
        n = len(eta)
        if self.is_gaussian:
            nodes, weights = np.polynomial.hermite_e.hermegauss(5)
            weights = weights / weights.sum()
            mean, log_std = np.split(eta, 2, axis=1)
            for index in itertools.product(range(5), repeat=self.sizes[0]):
                z = nodes[list(index)]
                yield mean + np.exp(log_std) * z, np.full(n, np.prod(weights[list(index)]))
            return
        choices = (2,) * self.sizes[0] if self.kind == "bernoulli" else self.sizes
        for joint in itertools.product(*(range(c) for c in choices)):
            actions = np.tile(np.array(joint, dtype=np.int32), (n, 1))
            yield actions, np.exp(self.log_prob(eta, actions))


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
