"""What a cluster costs on one machine: actors against worker processes, and bytes an iteration.

    python benchmarks/cluster/overhead.py

Two actors of a local Ray cluster and two worker processes train the same agent in turns; steps a
second of whole iterations, medians, and their ratio. Then the bytes of an iteration by the formula of
the page "From a laptop to a cluster", and as counted in what came back.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    from trpo_fast import TRPO

    common: dict[str, Any] = {"n_envs": given.envs, "batch_size": given.batch_size}
    common |= {"n_workers": given.workers}
    sides = {
        "workers": TRPO(given.env, **common),
        "actors": TRPO(given.env, cluster="local", **common),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for agent in sides.values():
        agent.learn(2 * given.batch_size, progress=False)  # first states, first threads
    for _ in range(given.rounds):
        for name, agent in sides.items():
            started = time.perf_counter()
            agent.learn(2 * given.batch_size, progress=False)
            rates[name].append(2 * given.batch_size / (time.perf_counter() - started))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"{name:8} {medians[name]:10,.0f} steps/s  ({spread})")
    print(f"ratio    {medians['actors'] / medians['workers']:10.2f}")
    same = np.array_equal(sides["workers"].policy.parameters, sides["actors"].policy.parameters)
    print(f"the same bits: {same}")
    _say_bytes(sides["actors"], given.batch_size)
    for agent in sides.values():
        agent.close()
    return int(not same)


def _say_bytes(agent: Any, batch_size: int) -> None:
    sampler, policy = agent.sampler, agent.policy
    b, steps = np.dtype(policy.dtype).itemsize, batch_size
    width = sampler.observation_encoder.dim
    action = sampler.action_adapter.action_dim * b
    out = policy.n_parameters * b + 16 * width + 24
    back = steps * (width * b + action + 11 + sampler.mask_width)
    back += sampler.n_envs * (2 * width * b + 24)
    counted = sum(
        values.nbytes
        for worker in sampler.pool.workers
        for values in (*worker.block.arrays.values(), *worker.block.lasting.values())
    )
    states = sum(
        values.nbytes
        for group in sampler._saved_states()
        for state in group
        for values in state.values()
    )
    print(f"out, a message        {out:12,} bytes")
    print(f"back, by the formula  {back:12,} bytes")
    print(f"back, as counted      {counted:12,} bytes (episodes among them)")
    print(
        f"states, as counted    {states:12,} bytes, {states / sampler.n_envs:,.0f} an environment"
    )


if __name__ == "__main__":
    sys.exit(main())
