"""Scaling where the processor is not the limit: an environment that sleeps in every step.

    python benchmarks/cluster/sleeping.py --actors 1,4,16,64
    python benchmarks/cluster/sleeping.py --actors 1,4,16,64 --sb3    SubprocVecEnv instead

An actor an environment; a rollout of 200 steps of each, three of them after a first one. "Ideal" is the
number of environments over the time of one step of one environment in this process. Nodes that have more
cores than this machine are pretended: sleeping takes none.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from typing import Any

import gymnasium
import numpy as np


class SleepingEnv(gymnasium.Env[Any, Any]):
    """Episodes of 200 steps of 5 ms."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    seconds = 0.005

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.taken = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(self.seconds)
        self.taken += 1
        return np.zeros(4, np.float32), 1.0, False, self.taken == 200, {}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", default="1,4,16,64")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sb3", action="store_true", help="SubprocVecEnv of stable-baselines3")
    given = parser.parse_args(arguments)
    counts = [int(text) for text in given.actors.split(",")]
    alone = _seconds_of_a_step()
    print(f"one step of one environment: {1e3 * alone:.2f} ms")
    print("environments      steps/s        ideal    share")
    measure = _subprocesses(given) if given.sb3 else _actors(given, max(counts))
    for count in counts:
        rate, ideal = measure(count), count / alone
        print(f"{count:12} {rate:12,.0f} {ideal:12,.0f} {rate / ideal:8.2f}", flush=True)
    return 0


def _seconds_of_a_step(n_steps: int = 100) -> float:
    env = SleepingEnv()
    env.reset()
    started = time.perf_counter()
    for _ in range(n_steps):
        env.step(None)
    return (time.perf_counter() - started) / n_steps


def _actors(given: argparse.Namespace, most: int) -> Any:
    import ray

    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    ray.init(
        address="local", num_cpus=most, include_dashboard=False, object_store_memory=200_000_000,
        logging_level=logging.ERROR,
    )  # fmt: skip

    def measure(count: int) -> float:
        with make_sampler(SleepingEnv, n_envs=count, n_workers=count, cluster="local") as sampler:
            encoder, adapter = sampler.observation_encoder, sampler.action_adapter
            policy = core.Policy(encoder.dim, adapter.distribution, hidden_sizes=(64, 64), seed=0)
            sampler.bind(policy, seed=0)
            seconds = []
            for _ in range(given.rounds + 1):
                started = time.perf_counter()
                sampler.collect(given.steps)
                seconds.append(time.perf_counter() - started)
        return count * given.steps / statistics.median(seconds[1:])

    return measure


def _subprocesses(given: argparse.Namespace) -> Any:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    def measure(count: int) -> float:
        envs = SubprocVecEnv([SleepingEnv] * count, start_method="forkserver")
        envs.reset()
        actions, seconds = np.zeros((count, 2), np.float32), []
        for _ in range(given.rounds + 1):
            started = time.perf_counter()
            for _ in range(given.steps):
                envs.step(actions)
            seconds.append(time.perf_counter() - started)
        envs.close()
        return count * given.steps / statistics.median(seconds[1:])

    return measure


if __name__ == "__main__":
    sys.exit(main())
