"""Scaling where the processor is not the limit: an environment that sleeps in every step.

    python benchmarks/cluster/sleeping.py --actors 1,4,16,64
    python benchmarks/cluster/sleeping.py --actors 64 --steps 1000
    python benchmarks/cluster/sleeping.py --actors 64 --seconds 0.02  a step of 20 ms
    python benchmarks/cluster/sleeping.py --actors 1,4,16,64 --sb3    SubprocVecEnv instead

An actor an environment; a rollout of 200 steps of each, three of them after a first one. "Ideal" is the
number of environments over the time of one step of one environment in this process. Nodes that have more
cores than this machine are pretended: sleeping takes none. The last column is the processor time in use
meanwhile, as a share of all processors of this machine, whose limit is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np


class SleepingEnv(gymnasium.Env[Any, Any]):
    """Episodes of 200 steps, each of so many seconds."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.taken = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(self._seconds)
        self.taken += 1
        return np.zeros(4, np.float32), 1.0, False, self.taken == 200, {}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", default="1,4,16,64")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.005, help="of a step")
    parser.add_argument("--sb3", action="store_true", help="SubprocVecEnv of stable-baselines3")
    given = parser.parse_args(arguments)
    counts = [int(text) for text in given.actors.split(",")]
    alone = _seconds_of_a_step(given.seconds)
    print(f"one step of one environment: {1e3 * alone:.2f} ms")
    print("environments      steps/s        ideal    share   processors")
    measure = _subprocesses(given) if given.sb3 else _actors(given, max(counts))
    for count in counts:
        (seconds, busy), ideal = measure(count), count / alone
        rate = count * given.steps / seconds
        print(
            f"{count:12} {rate:12,.0f} {ideal:12,.0f} {rate / ideal:8.2f} {busy:12.2f}", flush=True
        )
    return 0


def _seconds_of_a_step(seconds: float, n_steps: int = 100) -> float:
    env = SleepingEnv(seconds)
    env.reset()
    started = time.perf_counter()
    for _ in range(n_steps):
        env.step(None)
    return (time.perf_counter() - started) / n_steps


def _medians(rounds: int, rollout: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a rollout after the first, and the share of all processors in use meanwhile."""
    seconds, busy = [], []
    for _ in range(rounds + 1):
        started, before = time.perf_counter(), _ticks()
        rollout()
        seconds.append(time.perf_counter() - started)
        ticks = _ticks() - before
        busy.append(1.0 - ticks[3:5].sum() / max(1, ticks.sum()))
    return statistics.median(seconds[1:]), statistics.median(busy[1:])


def _ticks() -> Any:
    """Ticks of all processors since the start: user, nice, system, idle, waiting, interrupts, stolen."""
    with open("/proc/stat", encoding="ascii") as file:
        return np.array(file.readline().split()[1:9], np.int64)


def _actors(given: argparse.Namespace, most: int) -> Any:
    import ray

    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local", num_cpus=most, include_dashboard=False, object_store_memory=200_000_000,
        logging_level=logging.ERROR, log_to_driver=False,
    )  # fmt: skip
    env = partial(SleepingEnv, given.seconds)

    def measure(count: int) -> tuple[float, float]:
        with make_sampler(env, n_envs=count, n_workers=count, cluster="local") as sampler:
            encoder, adapter = sampler.observation_encoder, sampler.action_adapter
            policy = core.Policy(encoder.dim, adapter.distribution, hidden_sizes=(64, 64), seed=0)
            sampler.bind(policy, seed=0)
            return _medians(given.rounds, lambda: sampler.collect(given.steps))

    return measure


def _subprocesses(given: argparse.Namespace) -> Any:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = partial(SleepingEnv, given.seconds)

    def measure(count: int) -> tuple[float, float]:
        envs = SubprocVecEnv([env] * count, start_method="forkserver")
        envs.reset()
        actions = np.zeros((count, 2), np.float32)

        def rollout() -> None:
            for _ in range(given.steps):
                envs.step(actions)

        found = _medians(given.rounds, rollout)
        envs.close()
        return found

    return measure


if __name__ == "__main__":
    sys.exit(main())
