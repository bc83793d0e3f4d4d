"""Slow, clear float64 NumPy of everything that the compiled core computes.

Nothing here imports ``trpo_fast``: the core is tested against this file, this file is tested
against finite differences and exact expectations (``test_reference.py``) and against PyTorch's
automatic differentiation (``test_torch_witness.py``).

Dimension letters::

    N samples   O observation size   H hidden units   U network outputs   K action components
    A continuous actions   D distribution parameters of one sample   P network parameters
    T time steps   E environments
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # clamp of a state-dependent log-std, zero slope outside
ADVANTAGE_STD_FLOOR = 1e-8

# --------------------------------------------------------------------------------------------
# Activations
# --------------------------------------------------------------------------------------------

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))  # accurate in both tails


def _normal_cdf(x: Array) -> Array:
    return 0.5 * _erfc(-x / math.sqrt(2.0))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def activate(name: str, x: Array) -> Array:
    """Value of the activation; gelu is the exact erf form, elu has alpha = 1."""
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0.0)
    if name == "elu":
        return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))
    if name == "silu":
        return x * _sigmoid(x)
    if name == "gelu":
        return x * _normal_cdf(x)
    if name == "identity":
        return x.copy()
    raise ValueError(name)


def activation_slope(name: str, x: Array) -> Array:
    """Derivative of the activation at the pre-activation x; relu has slope 0 at 0."""
    if name == "tanh":
        return 1.0 - np.tanh(x) ** 2
    if name == "relu":
        return np.where(x > 0.0, 1.0, 0.0)
    if name == "elu":
        return np.where(x > 0.0, 1.0, np.exp(np.minimum(x, 0.0)))
    if name == "silu":
        s = _sigmoid(x)
        return s * (1.0 + x * (1.0 - s))
    if name == "gelu":
        return _normal_cdf(x) + x * _normal_pdf(x)
    if name == "identity":
        return np.ones_like(x)
    raise ValueError(name)


ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")

# --------------------------------------------------------------------------------------------
# Network: nn.Sequential(Linear, act, ..., Linear), flat parameters W0 (out, in) row-major, b0, ...
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """Sizes (O, H1, ..., U) and the activation between the linear layers."""

    sizes: tuple[int, ...]
    activation: str

    @property
    def n_parameters(self) -> int:
        return sum(o * i + o for i, o in itertools.pairwise(self.sizes))

    def unflatten(self, parameters: Array) -> list[tuple[Array, Array]]:
        """Flat (P,) -> [(W (out, in), b (out,)), ...]."""
        layers, at = [], 0
        for n_in, n_out in itertools.pairwise(self.sizes):
            w = parameters[at : at + n_out * n_in].reshape(n_out, n_in)
            at += n_out * n_in
            layers.append((w, parameters[at : at + n_out]))
            at += n_out
        return layers

    def forward(self, parameters: Array, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """Outputs (N, U) and, for each layer, its input (N, in) and pre-activation (N, out)."""
        layers = self.unflatten(parameters)
        cache = []
        for index, (w, b) in enumerate(layers):
            z = x @ w.T + b
            cache.append((x, z))
            x = activate(self.activation, z) if index + 1 < len(layers) else z
        return x, cache

    def tangent(self, parameters: Array, x: Array, direction: Array) -> Array:
        """J v: the derivative of the outputs (N, U) along a parameter direction (P,)."""
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
        """sum_n J_n^T u_n: output gradients (N, U) -> parameter gradient (P,)."""
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
        """Dense J (N, U, P), one column at a time."""
        columns = [self.tangent(parameters, x, e) for e in np.eye(self.n_parameters)]
        return np.stack(columns, axis=-1)


# --------------------------------------------------------------------------------------------
# Heads: distributions in their own parameters eta (N, D)
#   gaussian, state_dependent_gaussian: eta = [mean (A), log_std (A)]
#   categorical, multi_categorical: eta = the logits, group after group;  bernoulli: the logits
# --------------------------------------------------------------------------------------------

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
    def action_dim(self) -> int:  # K
        return len(self.sizes) if self.kind.endswith("categorical") else self.sizes[0]

    @property
    def n_outputs(self) -> int:  # U
        return sum(self.sizes) * (2 if self.kind == "state_dependent_gaussian" else 1)

    @property
    def n_distribution_parameters(self) -> int:  # D
        return sum(self.sizes) * (2 if self.is_gaussian else 1)

    def groups(self) -> list[slice]:
        """Slices of the logits, one for each action component."""
        ends = list(itertools.accumulate(self.sizes))
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    # ---- from network outputs to eta and back ------------------------------------------------

    def eta(self, outputs: Array, log_std: Array | None) -> Array:
        """Network outputs (N, U) and the free log_std (A,) -> eta (N, D)."""
        if self.kind == "gaussian":
            assert log_std is not None
            return np.concatenate([outputs, np.broadcast_to(log_std, outputs.shape)], axis=1)
        if self.kind == "state_dependent_gaussian":
            mean, raw = np.split(outputs, 2, axis=1)
            return np.concatenate([mean, np.clip(raw, LOG_STD_MIN, LOG_STD_MAX)], axis=1)
        return outputs

    def eta_slope(self, outputs: Array) -> Array:
        """d eta / d outputs, which is diagonal (N, U); for the free log_std see Policy."""
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
        """d log pi / d eta: (N, D)."""
        if self.is_gaussian:
            mean, log_std = np.split(eta, 2, axis=1)
            z = (actions - mean) * np.exp(-log_std)
            return np.concatenate([z * np.exp(-log_std), z * z - 1.0], axis=1)
        if self.kind == "bernoulli":
            return (actions != 0).astype(np.float64) - _sigmoid(eta)
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
            p = _sigmoid(eta)
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
            p = _sigmoid(old)
            log_ratio_1 = _softplus(-new) - _softplus(-old)
            log_ratio_0 = _softplus(new) - _softplus(old)
            return (p * log_ratio_1 + (1.0 - p) * log_ratio_0).sum(axis=1)
        total = np.zeros(len(old))
        for group in self.groups():
            log_p, log_q = _log_softmax(old[:, group]), _log_softmax(new[:, group])
            total += (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        return total

    def metric_root(self, outputs: Array, log_std: Array | None, u: Array) -> Array:
        """R_n u_n in network outputs (N, U), where R_n R_n^T is their Fisher information."""
        eta = self.eta(outputs, log_std)
        if self.is_gaussian:
            roots = np.exp(-eta[:, self.sizes[0] :])
            if self.kind == "state_dependent_gaussian":
                roots = np.concatenate([roots, np.full_like(roots, math.sqrt(2.0))], axis=1)
            return roots * self.eta_slope(outputs) * u
        if self.kind == "bernoulli":
            return np.sqrt(_sigmoid(eta) * _sigmoid(-eta)) * u
        pieces = []
        for group in self.groups():
            p, v = np.exp(_log_softmax(eta[:, group])), u[:, group]
            q_v = (np.sqrt(p) * v).sum(axis=1, keepdims=True)
            pieces.append(np.sqrt(p) * v - p * q_v)  # (diag(q) - p q^T) v, q = sqrt(p)
        return np.concatenate(pieces, axis=1)

    def metric(self, eta: Array, tangent: Array) -> Array:
        """M_n u_n: the Fisher information in eta applied to tangents (N, D)."""
        if self.is_gaussian:
            d_mean, d_log_std = np.split(tangent, 2, axis=1)
            log_std = eta[:, self.sizes[0] :]
            return np.concatenate([d_mean * np.exp(-2.0 * log_std), 2.0 * d_log_std], axis=1)
        if self.kind == "bernoulli":
            p = _sigmoid(eta)
            return p * (1.0 - p) * tangent
        pieces = []
        for group in self.groups():
            p, u = np.exp(_log_softmax(eta[:, group])), tangent[:, group]
            pieces.append(p * (u - (p * u).sum(axis=1, keepdims=True)))  # (diag(p) - p p^T) u
        return np.concatenate(pieces, axis=1)

    def mode(self, eta: Array) -> Array:
        """Most probable action (N, K); ties go to the lowest index, Bernoulli p = 1/2 to 0."""
        if self.is_gaussian:
            return eta[:, : self.sizes[0]].copy()
        if self.kind == "bernoulli":
            return (eta > 0.0).astype(np.int32)
        return np.stack([eta[:, group].argmax(axis=1) for group in self.groups()], axis=1).astype(
            np.int32
        )

    def sample(self, eta: Array, seed: int, envs: Array, steps: Array) -> Array:
        """Actions (N, K) from the counter stream (seed, env, step)."""
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
        """Discrete actions (N, K): the first index whose cumulative probability exceeds u.

        Bernoulli actions are counted down from 1, so that a = 1 where u < p.
        """
        if self.kind == "bernoulli":
            return (u < _sigmoid(eta)).astype(np.int32)
        columns = []
        for k, group in enumerate(self.groups()):
            cdf = np.cumsum(np.exp(_log_softmax(eta[:, group])), axis=1)[:, :-1]
            columns.append((u[:, k : k + 1] >= cdf).sum(axis=1))
        return np.stack(columns, axis=1).astype(np.int32)

    # ---- exact expectations over actions ---------------------------------------------------------

    def quadrature(self, eta: Array) -> Iterable[tuple[Array, Array]]:
        """Pairs (actions (N, K), weights (N,)) whose weighted sums are expectations over actions.

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


# --------------------------------------------------------------------------------------------
# Policy: network and head, one flat parameter vector (network, then the free log_std)
# --------------------------------------------------------------------------------------------


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
        """Flat (P,) -> network parameters, free log_std (A,) or None."""
        n = self.network.n_parameters
        return parameters[:n], (parameters[n:] if self.head.has_free_log_std else None)

    def outputs(self, parameters: Array, obs: Array) -> Array:
        return self.network.forward(self.split(parameters)[0], obs)[0]

    def eta(self, parameters: Array, obs: Array) -> Array:
        return self.head.eta(self.outputs(parameters, obs), self.split(parameters)[1])

    def eta_tangent(self, parameters: Array, obs: Array, direction: Array) -> Array:
        """J v in eta: (N, D)."""
        net, _ = self.split(parameters)
        d_net, d_log_std = self.split(direction)
        outputs = self.outputs(parameters, obs)
        d_outputs = self.network.tangent(net, obs, d_net) * self.head.eta_slope(outputs)
        if d_log_std is None:
            return d_outputs
        return np.concatenate([d_outputs, np.broadcast_to(d_log_std, d_outputs.shape)], axis=1)

    def eta_adjoint(self, parameters: Array, obs: Array, eta_gradient: Array) -> Array:
        """sum_n J_n^T u_n: (N, D) -> (P,)."""
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
        """M^{-1} (P, P) of Martens & Grosse (2015), from a cotangent (N, U) a sample."""
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
        """Dense F (P, P), built column by column."""
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


# --------------------------------------------------------------------------------------------
# Conjugate gradient, line search, the TRPO update
# --------------------------------------------------------------------------------------------


@dataclass
class ConjugateGradientResult:
    x: Array
    status: str
    iterations: int
    relative_residual: float


def conjugate_gradient(
    operator: Callable[[Array], Array],
    b: Array,
    *,
    max_iterations: int = 10,
    tolerance: float = 1e-6,
) -> ConjugateGradientResult:
    """Solve A x = b from x = 0; stop at |r| <= tolerance |b| (Hestenes and Stiefel, 1952)."""
    x, r = np.zeros_like(b), b.copy()
    if not np.all(np.isfinite(b)):
        return ConjugateGradientResult(x, "non_finite", 0, math.nan)
    b_norm = float(np.linalg.norm(b))
    if b_norm == 0.0:
        return ConjugateGradientResult(x, "zero_rhs", 0, 0.0)
    p, r_r = r.copy(), float(r @ r)
    for iteration in range(max_iterations):
        a_p = operator(p)
        curvature = float(p @ a_p)
        residual = math.sqrt(r_r) / b_norm
        if not math.isfinite(curvature):
            return ConjugateGradientResult(x, "non_finite", iteration, residual)
        if not curvature > 0.0:
            return ConjugateGradientResult(x, "non_positive_curvature", iteration, residual)
        alpha = r_r / curvature
        x = x + alpha * p
        r = r - alpha * a_p
        r_r_new = float(r @ r)
        residual = math.sqrt(r_r_new) / b_norm
        if residual <= tolerance:
            return ConjugateGradientResult(x, "converged", iteration + 1, residual)
        p = r + (r_r_new / r_r) * p
        r_r = r_r_new
    return ConjugateGradientResult(x, "max_iterations", max_iterations, math.sqrt(r_r) / b_norm)


def standardize(advantages: Array) -> Array:
    """(A - mean) / max(std, floor), population deviation."""
    centred = advantages - advantages.mean()
    return centred / max(float(advantages.std()), ADVANTAGE_STD_FLOOR)


@dataclass
class Update:
    status: str
    parameters: Array
    gradient: Array
    direction: Array | None = None  # x
    full_step: Array | None = None  # beta x
    cg: ConjugateGradientResult | None = None
    backtracks: int = 0
    kl: float = 0.0
    kl_max: float = 0.0
    kl_predicted: float = 0.0
    surrogate_gain: float = 0.0
    surrogate_gain_predicted: float = 0.0
    entropy_before: float = 0.0
    entropy: float = 0.0
    trials: list[tuple[float, float]] = field(default_factory=list)  # (KL, gain) of each j


def trpo_update(
    policy: Policy,
    parameters: Array,
    obs: Array,
    actions: Array,
    advantages: Array,
    *,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    cg_tolerance: float = 1e-6,
    cg_damping: float = 0.1,
    backtrack_ratio: float = 0.8,
    max_backtracks: int = 10,
    standardize_advantages: bool = True,
) -> Update:
    """One TRPO update (Schulman et al., 2015, appendix C), with the damped quadratic model.

    x = (F + lambda I)^-1 g;  beta = sqrt(2 delta / x^T (F + lambda I) x);
    theta = theta_k + alpha^j beta x with the smallest j in 0..max_backtracks for which
    KL <= delta and L improves. Otherwise theta_k.
    """
    if standardize_advantages:
        advantages = standardize(advantages)
    gradient = policy.surrogate_gradient(parameters, parameters, obs, actions, advantages)
    entropy = float(policy.entropy(parameters, obs).mean())
    result = Update("zero_gradient", parameters.copy(), gradient)
    result.entropy = result.entropy_before = entropy
    if not np.any(gradient):
        return result

    def damped_fisher(vector: Array) -> Array:
        return policy.fisher_vector_product(parameters, obs, vector, cg_damping)

    cg = conjugate_gradient(
        damped_fisher, gradient, max_iterations=cg_iterations, tolerance=cg_tolerance
    )
    x = cg.x
    result.cg, result.direction = cg, x
    x_ax = float(gradient @ x)
    if not x_ax > 0.0:
        result.status = "non_positive_curvature"
        return result
    step = math.sqrt(2.0 * max_kl / x_ax) * x
    result.full_step = step

    before = policy.surrogate(parameters, parameters, obs, actions, advantages)
    for j in range(max_backtracks + 1):
        scale = backtrack_ratio**j
        trial = parameters + scale * step
        kl_samples = policy.kl(parameters, trial, obs)
        kl = float(kl_samples.mean())
        gain = policy.surrogate(trial, parameters, obs, actions, advantages) - before
        result.trials.append((kl, gain))
        if kl <= max_kl and gain > 0.0:
            result.status, result.parameters, result.backtracks = "accepted", trial, j
            result.kl, result.kl_max, result.surrogate_gain = kl, float(kl_samples.max()), gain
            s = scale * step
            f_s = policy.fisher_vector_product(parameters, obs, s)
            result.kl_predicted = 0.5 * float(s @ f_s)
            result.surrogate_gain_predicted = float(gradient @ s)
            result.entropy = float(policy.entropy(trial, obs).mean())
            return result
    result.status, result.backtracks = "line_search_failed", max_backtracks
    return result


# --------------------------------------------------------------------------------------------
# Advantages
# --------------------------------------------------------------------------------------------


def gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Array, Array]:
    """Generalised advantage estimates (Schulman et al., 2016), all arrays (T, E).

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t), with V(s_{t+1}) = 0 where terminated;
    A_t = delta_t + gamma lambda A_{t+1}, restarted after terminated or truncated.
    """
    n_steps, n_envs = rewards.shape
    advantages = np.zeros((n_steps, n_envs))
    for e in range(n_envs):
        following = 0.0
        for t in reversed(range(n_steps)):
            bootstrap = 0.0 if terminated[t, e] else float(next_values[t, e])
            delta = float(rewards[t, e]) + gamma * bootstrap - float(values[t, e])
            restart = bool(terminated[t, e]) or bool(truncated[t, e])
            following = delta if restart else delta + gamma * gae_lambda * following
            advantages[t, e] = following
    return advantages, advantages + values


# --------------------------------------------------------------------------------------------
# Value function
# --------------------------------------------------------------------------------------------


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


# --------------------------------------------------------------------------------------------
# Running statistics
# --------------------------------------------------------------------------------------------


def running_moments(batches: Sequence[Array]) -> tuple[float, Array, Array]:
    """Count, mean and population variance by Welford's recurrence, one sample after another."""
    count = 0.0
    mean = np.zeros(batches[0].shape[1])
    m2 = np.zeros(batches[0].shape[1])
    for batch in batches:
        for row in batch.astype(np.float64):
            count += 1.0
            delta = row - mean
            mean = mean + delta / count
            m2 = m2 + delta * (row - mean)
    return count, mean, m2 / count


def normalize(
    obs: Array, mean: Array, variance: Array, clip: float = 10.0, epsilon: float = 1e-8
) -> Array:
    return np.clip((obs - mean) / np.sqrt(variance + epsilon), -clip, clip)


# --------------------------------------------------------------------------------------------
# Counter-based random stream: Philox4x32-10 (Salmon et al., 2011)
# --------------------------------------------------------------------------------------------

_MASK32 = np.uint64(0xFFFFFFFF)


def philox4x32(counter: Sequence[Any], key: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """Ten rounds on four 32-bit counter words (scalars or arrays) and two 32-bit key words."""
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        high0, high1 = product0 >> np.uint64(32), product1 >> np.uint64(32)
        c0, c1, c2, c3 = (
            high1 ^ c1 ^ np.uint64(k0),
            product1 & _MASK32,
            high0 ^ c3 ^ np.uint64(k1),
            product0 & _MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def random_signs(seed: int, stream: int, n: int, width: int) -> Array:
    """Bits of the streams (seed, stream, 0 ... n - 1), lowest first, as -1 or 1: (n, width)."""
    step, block = np.meshgrid(np.arange(n), np.arange(-(-width // 128)), indexing="ij")
    words = philox4x32((block, stream, step, 0), (seed % 2**32, seed >> 32))
    bits = np.stack(words, axis=-1)[..., np.newaxis] >> np.arange(32, dtype=np.uint64)
    return 2.0 * (bits.reshape(n, -1)[:, :width] & np.uint64(1)).astype(np.float64) - 1.0


def _uniform_pairs(seed: int, env: int, step: int, n_blocks: int) -> tuple[Array, Array]:
    """Two uniforms in [0, 1), 53 bits each, from each block 0, 1, ... of the stream."""
    block = np.arange(n_blocks, dtype=np.uint64)
    counter = (block, env, step % 2**32, step >> 32)
    w0, w1, w2, w3 = philox4x32(counter, (seed % 2**32, seed >> 32))

    def to_uniform(high: Array, low: Array) -> Array:
        bits = ((high >> np.uint64(5)) << np.uint64(26)) + (low >> np.uint64(6))
        return bits.astype(np.float64) / 2.0**53

    return to_uniform(w0, w1), to_uniform(w2, w3)


def random_uniforms(seed: int, env: int, step: int, n: int) -> Array:
    """(n,) uniforms in [0, 1) of the stream (seed, env, step)."""
    return np.stack(_uniform_pairs(seed, env, step, (n + 1) // 2), axis=1).ravel()[:n]


def random_normals(seed: int, env: int, step: int, n: int) -> Array:
    """(n,) standard normals of the stream, by Box-Muller from the two uniforms of each block."""
    u1, u2 = _uniform_pairs(seed, env, step, (n + 1) // 2)
    radius, angle = np.sqrt(-2.0 * np.log1p(-u1)), 2.0 * np.pi * u2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:n]


# --------------------------------------------------------------------------------------------
# Synthetic problems that do not depend on NumPy's generators
# --------------------------------------------------------------------------------------------


@dataclass
class Problem:
    """A policy, its parameters and a batch on which to update it."""

    policy: Policy
    parameters: Array  # (P,)
    obs: Array  # (N, O)
    actions: Array  # (N, K)
    advantages: Array  # (N,)


def make_problem(
    policy: Policy, n: int, seed: int = 0, *, dtype: str = "float64", scale: float = 1.0
) -> Problem:
    """Random parameters, observations, actions of the policy itself, advantages.

    Every number is representable in `dtype`, so that a core that works in `dtype` and this
    reference start from exactly the same values; everything is returned as float64.
    """

    def rounded(x: Array) -> Array:
        return x.astype(dtype).astype(np.float64)

    parameters = rounded(random_parameters(policy, seed, scale))
    obs = rounded(random_normals(seed, 1, 0, n * policy.obs_dim).reshape(n, policy.obs_dim))
    advantages = rounded(random_normals(seed, 2, 0, n))
    eta = policy.eta(parameters, obs)
    k = policy.head.action_dim
    if policy.head.is_gaussian:
        mean, log_std = np.split(eta, 2, axis=1)
        noise = random_normals(seed, 3, 0, n * k).reshape(n, k)
        actions = rounded(mean + np.exp(log_std) * noise)
    else:
        actions = policy.head.inverse_cdf(eta, random_uniforms(seed, 3, 0, n * k).reshape(n, k))
    return Problem(policy, parameters, obs, actions, advantages)


def random_parameters(policy: Policy, seed: int, scale: float = 1.0) -> Array:
    """Weights of deviation scale / sqrt(fan in), biases 0.1 scale, log_std about -0.3."""
    values = random_normals(seed, 0, 0, policy.n_parameters)
    net, log_std = policy.split(values)
    for w, b in policy.network.unflatten(net):
        w *= scale / math.sqrt(w.shape[1])
        b *= 0.1 * scale
    if log_std is not None:
        log_std[:] = -0.3 + 0.2 * log_std
    return values
