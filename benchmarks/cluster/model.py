"""Steps a second to expect of a cluster, on paper: from measured constants, which options replace.

    python benchmarks/cluster/model.py

A model, not a measurement. Its seconds of a message, an actor, an action and a sample of an update are
those that `benchmarks/cluster/constants.py` has measured on a machine of two cores; bytes are those of
the page "From a laptop to a cluster". The link, and by how much 32 cores speed an update up, are
assumed.

Nodes of 32 cores, an environment a core, 64 steps of each an iteration, the
network of HalfCheetah (17-64-64-6) and its arrays. An iteration is the sum of

- rollout: 64 steps of simulator and policy;
- barrier: the fixed part of a message, and what the machine that trains does for each actor;
- network: the arrays, 103 bytes a step and 2,500 an environment, and the policy, 23,128 an actor, through
  its one link;
- update: policy and value function, on its 32 cores.

"Limit" names the largest. The update's share is what holding the rows where they were sampled would
divide by the number of nodes.
"""

from __future__ import annotations

import argparse
import sys

NODES = (1, 4, 16, 64, 256, 1_000)
SIMULATORS = {"50 µs": 50e-6, "1 ms": 1e-3, "100 ms": 0.1}


def main(arguments: list[str] | None = None) -> int:
    """Print the table as Markdown; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=32, help="of a node")
    parser.add_argument("--steps", type=int, default=64, help="of an environment an iteration")
    parser.add_argument("--policy", type=float, default=9.1e-7, help="seconds of an action")
    parser.add_argument("--message", type=float, default=1.6e-3, help="seconds of a message")
    parser.add_argument("--actor", type=float, default=4.4e-4, help="seconds here for each actor")
    parser.add_argument("--link", type=float, default=1.25e9, help="bytes a second (10 Gbit/s)")
    parser.add_argument("--row", type=float, default=103.0, help="bytes of a step")
    parser.add_argument("--state", type=float, default=2_500.0, help="bytes of an environment")
    parser.add_argument("--out", type=float, default=23_128.0, help="bytes to an actor")
    parser.add_argument("--update", type=float, default=7.3e-6, help="seconds of a step, one core")
    parser.add_argument("--speedup", type=float, default=16.0, help="of the update on all cores")
    given = parser.parse_args(arguments)
    print("| nodes | actors | " + " | ".join(f"{name} a step" for name in SIMULATORS) + " |")
    print("|---:|---:|" + "---|" * len(SIMULATORS))
    for nodes in NODES:
        cells = []
        for seconds in SIMULATORS.values():
            parts = _seconds(given, nodes, seconds)
            rate = nodes * given.cores * given.steps / sum(parts.values())
            limit = max(parts, key=lambda name: parts[name])
            share = parts[limit] / sum(parts.values())
            cells.append(f"{rate:,.0f} ({limit} {share:.0%})")
        print(f"| {nodes:,} | {nodes * given.cores:,} | " + " | ".join(cells) + " |")
    return 0


def _seconds(given: argparse.Namespace, nodes: int, simulator: float) -> dict[str, float]:
    """Seconds of the parts of an iteration."""
    actors = nodes * given.cores
    steps = actors * given.steps
    return {
        "rollout": given.steps * (simulator + given.policy),
        "barrier": given.message + actors * given.actor,
        "network": (steps * given.row + actors * (given.state + given.out)) / given.link,
        "update": steps * given.update / given.speedup,
    }


if __name__ == "__main__":
    sys.exit(main())
