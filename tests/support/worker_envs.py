"""Environments that worker processes step, and what to compare their rollouts by."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from trpo_fast import core
from trpo_fast.rollout import (
    Rollout,
)


class UnevenEnv(gymnasium.Env[Any, Any]):
    """Episodes of 1 to 60 steps that terminate, or are truncated, or both; noisy everything."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 61))
        return self.np_random.normal(size=3), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        ends = self.left == 0
        how = self.np_random.integers(3)
        reward = float(action.sum() + self.np_random.normal())
        observation = self.np_random.normal(size=3)
        return observation, reward, bool(ends and how != 1), bool(ends and how != 0), {}


class BrokenEnv(gymnasium.Env[Any, Any]):
    """Episodes of 10 steps; it breaks at step `at` of its life, counted from 0."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)
    made = 0  # in this process

    def __init__(self, what: str, at: int = 17) -> None:
        self.what, self.at, self.steps = what, at, 0
        BrokenEnv.made += 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.what == "hangs in reset" and self.steps > self.at:
            time.sleep(60)
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation: Any = np.full(2, self.steps)
        reward = 1.0
        if self.steps == self.at:
            if self.what == "raises":
                raise OSError("simulator lost")
            if self.what == "exits":
                os._exit(3)
            if self.what == "crashes":
                signal.raise_signal(signal.SIGSEGV)
            if self.what == "leaks":
                self.leak()
            if self.what == "leaks until it is killed":
                signal.raise_signal(signal.SIGKILL)  # as the system does with the largest process
            if self.what == "hangs":
                time.sleep(60)
            if self.what == "nan":
                observation = np.full(2, np.nan)
            if self.what == "nan reward":
                reward = np.nan
            if self.what == "wrong shape":
                observation = np.zeros(3)
        self.steps += 1
        return observation, reward, self.steps % 10 == 0, False, {}

    def leak(self) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, limits[1]))
        try:
            leaked = []
            while True:
                leaked.append(np.ones(2**20))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def second_breaks(what: str) -> Callable[[], BrokenEnv]:
    """A factory whose second environment breaks (the second of every worker)."""
    made: list[int] = []

    def make() -> BrokenEnv:
        made.append(1)
        return BrokenEnv(what if len(made) == 2 else "")

    return make


def with_policy(sampler: Any, *, seed: int = 3) -> Any:
    policy = core.Policy(
        sampler.observation_encoder.dim,
        sampler.action_adapter.distribution,
        hidden_sizes=(8,),
        output_gain=1.0,
        dtype=sampler.observation_encoder.dtype,
    )
    sampler.bind(policy, seed=seed)
    return policy


def assert_same(got: Rollout, expected: Rollout) -> None:
    for name in vars(expected):
        if name == "episode_metrics":
            told = got.episode_metrics
            assert told.keys() == expected.episode_metrics.keys()
            assert all(
                told[key].tobytes() == v.tobytes() for key, v in expected.episode_metrics.items()
            )
        elif name not in ("seconds", "crashes", "notices"):
            mine, other = getattr(got, name), getattr(expected, name)
            assert mine.dtype == other.dtype
            assert mine.tobytes() == other.tobytes(), name


def now_impatient(sampler: Any) -> None:
    """The timeout of half a second, but not for a busy machine to start the processes."""
    for worker in sampler.pool.workers:
        worker.timeout = 0.5
