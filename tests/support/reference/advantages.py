"""Generalised advantage estimates."""

from __future__ import annotations

import numpy as np

from .types import Array


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
