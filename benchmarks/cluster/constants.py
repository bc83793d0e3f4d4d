"""Measure what the model of a cluster is made of, on this machine.

    python benchmarks/cluster/constants.py

Actors of a local Ray cluster step an environment that does nothing, one step a rollout, so that a rollout
is its messages. The least time of one actor is the fixed part of a message. The processor time of this
process, which grows with the number of actors, is what each of them costs the machine that trains: it is
no time of other processes, so it does not matter that the actors share few cores here. The action, and
the update (policy and value function of 17-64-64, the default settings of TRPO), are processor time of
one core. The last line is what `model.py` takes.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from typing import Any

import gymnasium
import numpy as np

_O, _A = 17, 6  # HalfCheetah's


class NothingEnv(gymnasium.Env[Any, Any]):
    """Episodes of 1,000 steps in which nothing happens."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (_O,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (_A,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self.taken, self.seen = 0, np.zeros(_O, np.float32)
        return self.seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count."""
        self.taken += 1
        return self.seen, 1.0, False, self.taken == 1_000, {}


def messages(counts: list[int], rounds: int) -> tuple[float, float]:
    """Seconds of a rollout of one actor, and processor seconds here for each further actor."""
    import ray

    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local", num_cpus=max(counts), include_dashboard=False, log_to_driver=False,
        object_store_memory=200_000_000, logging_level=logging.ERROR,
    )  # fmt: skip
    walls, works = [], []
    for count in counts:
        with make_sampler(NothingEnv, n_envs=count, n_workers=count, cluster="local") as sampler:
            adapter = sampler.action_adapter
            policy = core.Policy(_O, adapter.distribution, hidden_sizes=(64, 64), seed=0)
            sampler.bind(policy, seed=0)
            sampler.prepare_states()  # which come back with every rollout
            sampler.collect(1)
            wall, work = [], []
            for _ in range(rounds):
                began, worked = time.perf_counter(), time.process_time()
                sampler.collect(1)
                wall.append(time.perf_counter() - began)
                work.append(time.process_time() - worked)
        walls.append(min(wall))
        works.append(statistics.median(work))
        print(
            f"{count:3} actors: {1e3 * walls[-1]:7.2f} ms a rollout of one step at the least, "
            f"{1e3 * statistics.median(wall):7.2f} by the median; {1e3 * works[-1]:7.2f} ms of work here",
            flush=True,
        )
    ray.shutdown()
    return walls[0], float(np.polyfit(counts, works, 1)[0])


def action(n_steps: int = 20_000) -> float:
    """Seconds of a step of a rollout in this process, less one of the environment alone."""
    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    with make_sampler(NothingEnv, n_envs=8, n_workers=0) as sampler:
        policy = core.Policy(_O, sampler.action_adapter.distribution, hidden_sizes=(64, 64), seed=0)
        sampler.bind(policy, seed=0)
        sampler.collect(100)
        began = time.process_time()
        sampler.collect(n_steps // 8)
        whole = time.process_time() - began
    env = NothingEnv()
    env.reset()
    began = time.process_time()
    for _ in range(n_steps):
        env.step(None)
    return max(0.0, whole - (time.process_time() - began)) / n_steps


def update(n: int = 65_536) -> float:
    """Seconds a sample of the policy update and the value fit of a batch, on one core."""
    from trpo_fast import TRPO, core, runtime

    runtime.set_num_threads(1)
    with TRPO("CartPole-v1", n_workers=0) as agent:
        options = agent.config
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, _O), np.float32)
    policy = core.Policy(_O, core.Distribution("gaussian", [_A]), seed=1)
    critic = core.ValueFunction(_O, seed=2)
    actions = rng.standard_normal((n, _A), np.float32)
    advantages = rng.standard_normal(n, np.float32)
    began = time.process_time()
    policy.update(
        x, actions, advantages, normalized=True,
        cg_iterations=options.cg_iterations, cg_preconditioner=options.cg_preconditioner,
        cg_damping=options.cg_damping,
    )  # fmt: skip
    critic.fit(
        x, advantages, epochs=options.value_epochs, minibatch_size=options.value_minibatch_size
    )
    return (time.process_time() - began) / n


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", default="1,4,8,16,24")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args(arguments)
    per_step, per_sample = action(), update()
    print(f"{1e6 * per_step:.1f} µs an action, {1e6 * per_sample:.1f} µs a sample of an update")
    message, actor = messages([int(n) for n in given.actors.split(",")], given.rounds)
    print(
        f"--policy {per_step:.2g} --message {message:.2g} --actor {actor:.2g} "
        f"--update {per_sample:.2g}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
