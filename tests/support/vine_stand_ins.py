"""Small policies, environments and samplers for vines, worked out by hand."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from trpo_fast import core
from trpo_fast.rollout import InProcessSampler, Sampler
from trpo_fast.rollout.vine import VineOptions, VineSampler


def softmax_policy(n_states: int, n_actions: int, logits: Any) -> core.Policy:
    """pi(a|s) = softmax of a table, as a network without hidden layers on one-hot states."""
    policy = core.Policy(
        n_states,
        core.Distribution("categorical", (n_actions,)),
        hidden_sizes=(),
        dtype="float64",
    )
    table = np.asarray(logits, np.float64)
    policy.parameters = np.concatenate([table.T.ravel(), np.zeros(n_actions)])
    return policy


def gaussian_policy(seed: int = 0) -> core.Policy:
    return core.Policy(
        3,
        core.Distribution("gaussian", (2,)),
        hidden_sizes=(8,),
        dtype="float64",
        output_gain=1.0,
        seed=seed,
    )


class Noise(gym.Env[Any, Any]):
    """Rewards are the action plus noise; the observation is noise."""

    def __init__(self, ends_after: int = 10**9, truncates: bool = False) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.ends_after, self.truncates = ends_after, truncates

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.ticks = 0
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> Any:
        self.ticks += 1
        end = self.ticks >= self.ends_after
        reward = float(action[0]) + 100.0 * self.np_random.normal()
        observation = self.np_random.normal(size=2)
        return observation, reward, end and not self.truncates, end and self.truncates, {}


def noise_policy() -> core.Policy:
    return core.Policy(2, core.Distribution("gaussian", (1,)), dtype="float64", seed=3)


def sampler_of(
    env: Any, options: VineOptions, policy: core.Policy, gamma: float = 0.9, n_envs: int = 1
) -> VineSampler:
    def make() -> Any:
        return env() if callable(env) else copy.deepcopy(env)

    environments = [make() for _ in range(n_envs)]
    trunk = InProcessSampler(environments, dtype=policy.dtype, make_copy=make)
    return growing(trunk, options, policy, gamma)


def growing(
    trunk: Sampler, options: VineOptions, policy: core.Policy, gamma: float = 0.9
) -> VineSampler:
    sampler = VineSampler(trunk, options, gamma=gamma)
    sampler.bind(policy, seed=11)
    return sampler
