"""Time a whole short training: environment steps per second, side by side in one run.

The table of the README:

    python benchmarks/training.py --envs CartPole-v1,HalfCheetah-v5 --json training.json

Everybody trains a fresh agent on the same environment for the same number of steps, a multiple of
the 2,048 steps of an update; building the agent is left out of the clock.

- ``environment only``: one environment, random actions drawn beforehand, resets included: the
  ceiling for whoever steps environments one after the other.
- ``sb3-contrib``: its defaults. ``torch_trpo``: the same settings in ``torch_trpo.py``.
- ``trpo_fast, sb3 settings``: preset "sb3", one environment. ``trpo_fast``: our defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

import report

UPDATE_STEPS = 2048


Train = Callable[[], int]  # returns the environment steps taken


class Side:
    """Builds a fresh agent outside the clock; a call trains it."""

    def __init__(self, build: Callable[[], Train], steps: int) -> None:
        self._build = build
        self._steps = steps
        self._train: Train | None = None

    def prepare(self) -> None:
        """Build a fresh agent."""
        self._train = None  # let go of the old one first
        self._train = self._build()

    def __call__(self) -> None:
        """Train the agent that prepare() built."""
        if self._train is None:
            raise RuntimeError("prepare() builds the agent and comes first")
        taken = self._train()
        if taken != self._steps:
            raise RuntimeError(f"steps: expected {self._steps}, took {taken}; not the same work")


def environment_only(env_id: str, steps: int) -> Train:
    """Step one environment with random actions drawn beforehand."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(steps)]

    def run() -> int:
        env.reset(seed=0)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        env.close()
        return len(actions)

    return run


def sb3_contrib(env_id: str, steps: int) -> Train:
    """sb3-contrib with its defaults."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.logger import Logger

    model = TRPO("MlpPolicy", env_id, device="cpu", seed=0)
    model.set_logger(Logger(None, []))  # its default leaves a folder behind for every run
    return lambda: model.learn(steps).num_timesteps


def torch_trpo(env_id: str, steps: int) -> Train:
    """The plain PyTorch baseline with the settings of sb3-contrib."""
    from torch_trpo import Settings, TorchTRPO

    # sb3-contrib averages the KL over action dimensions: the same trust region in true KL
    env = gym.make(env_id)
    space = env.action_space
    dimensions = int(np.prod(space.shape)) if isinstance(space, gym.spaces.Box) else 1
    env.close()
    settings = Settings(max_kl=0.01 * dimensions, cg_damping=0.1 * dimensions)
    agent = TorchTRPO(env_id, settings, seed=0)
    return lambda: agent.learn(steps).timesteps


def trpo_fast_sb3(env_id: str, steps: int) -> Train:
    """trpo_fast with the settings of sb3-contrib, one environment."""
    from trpo_fast import TRPO

    agent = TRPO(env_id, preset="sb3", n_envs=1, seed=0)
    return lambda: agent.learn(steps, progress=False).timesteps


def trpo_fast_default(env_id: str, steps: int) -> Train:
    """trpo_fast as it comes."""
    from trpo_fast import TRPO

    agent = TRPO(env_id, seed=0)
    return lambda: agent.learn(steps, progress=False).timesteps


SIDES: dict[str, tuple[str, Callable[[str, int], Train]]] = {
    "environment only": ("gymnasium", environment_only),
    "sb3-contrib": ("sb3-contrib", sb3_contrib),
    "torch_trpo": ("torch", torch_trpo),
    "trpo_fast, sb3 settings": ("trpo-fast", trpo_fast_sb3),
    "trpo_fast": ("trpo-fast", trpo_fast_default),
}


def measure(env_id: str, steps: int, rounds: int) -> dict[str, Any]:
    """Train every side once per round."""
    sides: dict[str, Side] = {}
    for name, (package, build) in SIDES.items():
        if report.have(package):
            sides[name] = Side(partial(build, env_id, steps), steps)
        else:
            print(f"{name}: left out, {package} is not installed")
    times = report.time_paired(
        sides,
        rounds=rounds,
        warmup=1,
        prepare={name: side.prepare for name, side in sides.items()},
    )
    ceiling = times["environment only"]
    ours = times.get("trpo_fast")
    return {
        "env": env_id,
        "steps": steps,
        "sides": {
            name: {
                **timing.to_dict(),
                "steps_per_second": steps / timing.median,
                "share_of_ceiling": report.ratio(ceiling, timing).median,
                "slower_than_trpo_fast": report.ratio(timing, ours).to_dict() if ours else None,
            }
            for name, timing in times.items()
        },
    }


def show(result: dict[str, Any], threads: int) -> None:
    """Print the table of one environment."""
    rows = []
    for name, data in result["sides"].items():
        low, high = (result["steps"] / seconds for seconds in data["quartile_seconds"][::-1])
        times = data["slower_than_trpo_fast"]
        rows.append(
            [
                name,
                f"{data['steps_per_second']:,.0f} ({low:,.0f} to {high:,.0f})",
                f"{data['share_of_ceiling']:.2f}",
                f"{data['busy_cores']:.2f}",
                f"{times['median']:.2f}" if times else "",
            ]
        )
    report.print_table(
        ["training", "steps/s", "of ceiling", "busy cores", "time / trpo_fast"],
        rows,
        title=f"{result['env']}, {result['steps']:,} steps, {threads} thread(s)",
    )


def main() -> None:
    """Parse flags, run each thread count in its own process, print and write."""
    parser = argparse.ArgumentParser(description="time whole short trainings side by side")
    parser.add_argument("--envs", type=report.comma_list, default=["CartPole-v1", "HalfCheetah-v5"])
    parser.add_argument("--steps", type=int, default=8 * UPDATE_STEPS)
    parser.add_argument("--threads", type=report.comma_integers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", type=int, default=None, help=argparse.SUPPRESS)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if flags.steps < 1 or flags.steps % UPDATE_STEPS:
        parser.error(
            f"--steps: expected a multiple of {UPDATE_STEPS} (whole updates), got {flags.steps}"
        )

    if flags.in_process is None:
        arguments = ["--envs", ",".join(flags.envs), "--steps", str(flags.steps)]
        arguments += ["--rounds", str(flags.rounds)]
        runs = report.rerun_per_thread_count(flags.threads, arguments)
        report.write_json(flags.json, runs)
        return

    threads = flags.in_process
    report.use_threads(threads)
    facts = report.machine_facts(threads)
    report.print_facts(facts)
    results = []
    for env_id in flags.envs:
        results.append(measure(env_id, flags.steps, flags.rounds))
        show(results[-1], threads)
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
