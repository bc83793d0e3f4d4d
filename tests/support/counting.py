"""Environments whose every number can be worked out by hand.

`CountingEnv` counts: its observation is (episode, steps taken in it), its reward is
100 episode + steps, and it writes down the actions it was given. `CountingPolicy` counts too:
action = 1000 env + counter.
"""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_fast.rollout import (
    InProcessSampler,
    Rollout,
    VectorEnvSampler,
    make_sampler,
)

SCRIPT = ((2, "terminated"), (3, "truncated"))


OTHER_SCRIPT = ((4, "truncated"), (1, "both"), (2, "truncated"))


LONG_SCRIPT = ((30, "terminated"), (1, "truncated"))


SCRIPTS = (SCRIPT, OTHER_SCRIPT, LONG_SCRIPT, SCRIPT[::-1])


MODES = [None, *AutoresetMode]


ARRAYS = ("observations", "actions", "rewards", "terminated", "truncated", "valid")


class CountingEnv(gymnasium.Env[Any, Any]):
    """Episode number k ends as script[k mod len(script)] says: after how many steps, and how."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, script: tuple[tuple[int, str], ...] = SCRIPT) -> None:
        self.script = script
        self.episode = -1
        self.steps = 0
        self.seeds: list[int | None] = []
        self.given: dict[tuple[int, int], float] = {}
        self.closed = 0

    def observe(self) -> Any:
        return np.array([self.episode, self.steps], np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode += 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given[self.episode, self.steps] = float(action[0])
        reward = 100.0 * self.episode + self.steps
        self.steps += 1
        length, how = self.script[self.episode % len(self.script)]
        ends = self.steps == length
        return (
            self.observe(),
            reward,
            ends and how in ("terminated", "both"),
            ends and how in ("truncated", "both"),
            {},
        )

    def close(self) -> None:
        self.closed += 1


class BrokenEnv(CountingEnv):
    """Counts until step `at` (over all episodes), where it does `what`."""

    def __init__(self, what: str, at: int = 3) -> None:
        super().__init__()
        self.what, self.at, self.total = what, at, 0

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        if self.what == "raise at first reset":
            raise OSError("no display")
        if self.what == "raise at reset" and self.total > 0:
            raise OSError("no display")
        if self.what == "old reset" and self.total > 0:
            return observation[:1]
        if self.what == "nan at reset" and self.total > 0:
            return observation * np.nan, info
        return observation, info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.total += 1
        what = self.what if self.total == self.at + 1 else ""
        if self.what == "nan, then raise" and self.total == self.at + 2:
            raise FloatingPointError("unstable")
        if what == "raise":
            raise OSError("simulator lost")
        if what in ("nan observation", "nan, then raise"):
            observation[1] = np.nan
        if what == "huge observation":
            observation[1] = 1e300
        if what == "nan reward":
            reward = np.nan
        if what == "infinite reward":
            reward = -np.inf
        if what == "reward None":
            reward = None
        if what == "short":
            observation = observation[:1]
        if what == "column":
            observation = observation[:, None]
        if what == "nothing":
            observation = None
        if what == "nan final":
            return observation * np.nan, reward, False, True, info
        if what == "four values":
            return observation, reward, terminated, info
        return observation, reward, terminated, truncated, info


class CountingPolicy:
    """action = 1000 env + counter."""

    obs_dim = 2
    dtype = np.dtype(np.float32)

    def actor(self, observations: Any, actions: Any, counters: Any, envs: Any, *, seed: int) -> Any:
        assert observations.flags.c_contiguous
        assert actions.flags.c_contiguous

        class CountingActor:
            def step(self, t: int) -> None:
                actions[t, :, 0] = 1000.0 * envs + counters
                counters[:] += np.uint64(1)

        return CountingActor()


def in_process(*scripts: Any, policy: Any = None, first_index: int = 0) -> InProcessSampler:
    sampler = InProcessSampler([CountingEnv(s) for s in scripts], first_index=first_index)
    sampler.bind(policy or CountingPolicy(), seed=7)
    return sampler


def vector(mode: AutoresetMode, *scripts: Any) -> VectorEnvSampler:
    environments = [lambda s=s: CountingEnv(s) for s in scripts]
    sampler = VectorEnvSampler(SyncVectorEnv(environments, autoreset_mode=mode))
    sampler.bind(CountingPolicy(), seed=7)
    return sampler


def sampler_for(mode: AutoresetMode | None, *scripts: Any) -> Any:
    return in_process(*scripts) if mode is None else vector(mode, *scripts)


def counting_environments(sampler: Any) -> list[CountingEnv]:
    if isinstance(sampler, InProcessSampler):
        return list(sampler.environments)
    return list(sampler.vector_env.envs)


def check_transitions(rollout: Rollout, environments: list[CountingEnv]) -> None:
    """Every valid row is a true transition: s, the action that env got in s, r, s'."""
    finals = {(t, e): n for n, (t, e) in enumerate(rollout.final_indices.tolist())}
    for t, e in itertools.product(range(rollout.n_steps), range(rollout.n_envs)):
        if not rollout.valid[t, e]:
            continue
        episode, steps = rollout.observations[t, e].tolist()
        assert rollout.actions[t, e, 0] == environments[e].given[episode, steps]
        assert rollout.rewards[t, e] == 100 * episode + steps
        length, how = environments[e].script[int(episode) % len(environments[e].script)]
        ends = steps + 1 == length
        assert rollout.terminated[t, e] == (ends and how in ("terminated", "both"))
        assert rollout.truncated[t, e] == (ends and how in ("truncated", "both"))
        if ends and how == "truncated":
            successor = rollout.final_observations[finals.pop((t, e))]
        elif ends:
            continue
        elif t + 1 < rollout.n_steps:
            successor = rollout.observations[t + 1, e]
        else:
            successor = rollout.last_observations[e]
        assert successor.tolist() == [episode, steps + 1]
    assert not finals


def collect_twos(sampler: Any) -> None:
    for _ in range(4):
        sampler.collect(2)


def core_sampler(env: Any, *, n_envs: int = 1, seed: int = 0, dtype: str = "float32") -> Any:
    core = pytest.importorskip("trpo_fast.core")
    sampler = make_sampler(env, n_envs=n_envs, dtype=dtype)
    policy = core.Policy(
        sampler.observation_encoder.dim,
        sampler.action_adapter.distribution,
        hidden_sizes=(8,),
        dtype=dtype,
        output_gain=1.0,
    )
    sampler.bind(policy, seed=seed)
    return sampler
