"""An update, and value fits, of a batch that several nodes hold, against one process.

    python benchmarks/cluster/parts.py --rows 2000000 --nodes 4

Several Ray nodes are started on this machine; each makes its own rows of a batch, so that no process
has all of them. Then one process makes the same rows, and the same update. Printed are whether all
parameters have the same bits, seconds, and the peak memory of the process that makes the update, of each
node's, and of the one beside them that makes steps on minibatches, each of which includes Python, Ray and
the interpreter's libraries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

_O, _A = 17, 6  # HalfCheetah's
_BLOCK = 10_000  # rows that a seed makes
_UPDATE: dict[str, Any] = {"cg_iterations": 6, "cg_preconditioner": "kronecker", "cg_damping": 0.03}
_FITS: dict[str, dict[str, Any]] = {
    "L-BFGS": {"method": "lbfgs", "iterations": 5},
    "minibatches": {"epochs": 1},  # of the default size
}


def rows(begin: int, end: int) -> tuple[Any, Any, Any, Any]:
    """Observations, actions, advantages and targets of some rows of the batch, float32."""
    blocks = []
    for block in range(begin // _BLOCK, -(-end // _BLOCK)):
        made = np.random.default_rng(block).standard_normal((_BLOCK, _O + _A + 2), np.float32)
        first = block * _BLOCK
        blocks.append(made[max(begin - first, 0) : end - first])
    whole = np.concatenate(blocks)
    x, a, advantages, targets = np.split(whole, [_O, _O + _A, _O + _A + 1], axis=1)
    return (
        np.ascontiguousarray(x),
        np.ascontiguousarray(a),
        advantages.ravel().copy(),
        targets.ravel().copy(),
    )


def networks() -> tuple[Any, Any]:
    """A policy and a value function."""
    from trpo_fast import core

    policy = core.Policy(_O, core.Distribution("gaussian", [_A]), seed=1)
    return policy, core.ValueFunction(_O, seed=2)


def policy_part(_: Any, begin: int, end: int, n: int) -> Any:
    """The part of the update that a node holds."""
    from trpo_fast.core.parts import PolicyPart

    x, a, advantages, _ = rows(begin, end)
    return PolicyPart(networks()[0], x, a, advantages, whole_size=n, first_row=begin)


def value_part(_: Any, begin: int, end: int, n: int) -> Any:
    """The part of the value fit that a node holds."""
    from trpo_fast.core.value_parts import ValuePart

    x, _, _, targets = rows(begin, end)
    return ValuePart(networks()[1], x, targets, whole_size=n, first_row=begin)


def in_parts(n: int, n_nodes: int) -> dict[str, Any]:
    """Make both on a cluster of this machine."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the process that is compared
    import ray
    from ray.cluster_utils import Cluster

    from trpo_fast.core.parts import bounds_of_parts, update_parts
    from trpo_fast.core.value_parts import fit_parts
    from trpo_fast.rollout.cluster.connection import Connection
    from trpo_fast.rollout.cluster.holders import Holders, RayParts

    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(n_nodes - 1):
        cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        connection = Connection("auto")
        holders = Holders(connection, n_nodes)
        policy, critic = networks()
        bounds = bounds_of_parts(n, len(holders), policy.n_parameters, critic.n_parameters)
        places = list(itertools.pairwise(bounds))
        seconds = {}
        makes = {"update": policy_part, **dict.fromkeys(_FITS, value_part)}
        for name, make in makes.items():
            holders.ask_each("make", [[name, make, begin, end, n] for begin, end in places])
            parts = RayParts(holders, name, bounds)
            started = time.perf_counter()
            if name == "update":
                update_parts(policy, parts, **_UPDATE)
            else:
                fit_parts(critic, parts, **_FITS[name])
            seconds[name] = time.perf_counter() - started
            holders.ask_all("forget", name)
        peaks = [*holders.ask_all("peak_bytes"), holders.peak_bytes_beside()]
        holders.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {**_found(policy, critic, seconds), "node_peaks": peaks, "bounds": bounds}


def in_one(n: int) -> dict[str, Any]:
    """Make both in this process."""
    policy, critic = networks()
    x, a, advantages, targets = rows(0, n)
    seconds = {}
    started = time.perf_counter()
    policy.update(x, a, advantages, normalized=True, **_UPDATE)
    seconds["update"] = time.perf_counter() - started
    for name, settings in _FITS.items():
        started = time.perf_counter()
        critic.fit(x, targets, **settings)
        seconds[name] = time.perf_counter() - started
    return _found(policy, critic, seconds)


def _found(policy: Any, critic: Any, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "bits": [policy.parameters.tobytes().hex(), critic.parameters.tobytes().hex()],
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0 where all bits are equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--side", choices=["parts", "one"], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        found = in_parts(given.rows, given.nodes) if given.side == "parts" else in_one(given.rows)
        print(json.dumps(found))
        return 0
    sides = {}
    for side in ("parts", "one"):  # each in a process of its own, for its peak of memory
        command = [sys.executable, __file__, f"--side={side}", f"--rows={given.rows}"]
        run = subprocess.run(
            [*command, f"--nodes={given.nodes}"], check=True, stdout=subprocess.PIPE, text=True
        )
        sides[side] = json.loads(run.stdout.splitlines()[-1])
    parts, one = sides["parts"], sides["one"]
    print(f"{given.rows:,} rows of {_O} + {_A} numbers, parts at {parts['bounds']}")
    for name, there in parts["seconds"].items():
        here = one["seconds"][name]
        print(f"{name:11} {there:7.1f} s on {given.nodes} nodes, {here:7.1f} s in one process")
    same = [a == b for a, b in zip(parts["bits"], one["bits"], strict=True)]
    print(f"the same bits: policy {same[0]}, value function after both fits {same[1]}")
    *nodes, beside = (f"{peak / 1e6:,.0f}" for peak in parts["node_peaks"])
    print(f"peak memory, MB: {parts['peak'] / 1e6:,.0f} of the updating process")
    print(f"                 {', '.join(nodes)} on nodes, {beside} of the process beside them")
    print(f"                 {one['peak'] / 1e6:,.0f} in one process")
    return int(parts["bits"] != one["bits"])


if __name__ == "__main__":
    sys.exit(main())
