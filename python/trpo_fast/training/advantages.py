"""From a rollout to a batch: how much better each action was than the policy's average."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from .batch import Batch

if TYPE_CHECKING:
    from ..rollout import Rollout

Float64 = NDArray[np.float64]


def generalized_advantages(
    rollout: Rollout,
    *,
    normalize: Callable[[NDArray[Any]], NDArray[Any]],
    values: Callable[[NDArray[Any]], Float64],
    gamma: float,
    gae_lambda: float,
) -> Batch:
    """V of every state and of its true successor, then A by GAE (Schulman et al. 2016).

    ::

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)      V(s_{t+1}) = 0 where the episode terminated
        A_t     = delta_t + gamma lambda A_{t+1}       restarts where it ended or was truncated

    Parameters
    ----------
    rollout
        T steps of E environments.
    normalize
        Observations (N, O) as the networks see them.
    values
        V (N,) of normalised observations (N, O), in the units of the rewards.
    gamma
        Discount factor, in [0, 1].
    gae_lambda
        Lambda, in [0, 1]: 0 is one-step TD, 1 is Monte Carlo.

    Returns
    -------
    Batch
        The transitions, by time, then by environment.
    """
    T, E = rollout.rewards.shape
    observations = normalize(rollout.observations.reshape(T * E, -1))
    state_values = values(observations).reshape(T, E)
    next_values = rollout.next_values(
        state_values,
        last_values=values(normalize(rollout.last_observations)),
        final_values=values(normalize(rollout.final_observations))
        if len(rollout.final_observations)
        else np.zeros(0),
    )
    advantages, returns = core.gae(
        rollout.rewards,
        state_values,
        next_values,
        rollout.terminated,
        rollout.boundaries,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    return Batch(
        observations=rollout.select(observations.reshape(T, E, -1)),
        actions=rollout.select(rollout.actions),
        advantages=rollout.select(advantages),
        returns=rollout.select(returns),
        values=rollout.select(state_values),
        action_masks=rollout.select(rollout.action_masks) if rollout.has_masks else None,
    )


def no_values(observations: NDArray[Any]) -> Float64:
    """V = 0 for every state (N, O), for methods without a value function.

    Parameters
    ----------
    observations
        Shape (N, O).
    """
    return np.zeros(len(observations))
