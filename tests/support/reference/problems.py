"""Synthetic problems that do not depend on NumPy's generators."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .policy import Policy
from .rng import random_normals, random_uniforms
from .types import Array


@dataclass
class Problem:
    """A policy, its parameters and a batch on which to update it."""

    policy: Policy
    parameters: Array  # (D,)
    obs: Array  # (N, O)
    actions: Array  # (N, A)
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
