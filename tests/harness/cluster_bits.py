"""Train on clusters of one and of three nodes, and compare the bits with those of one process.

    python tests/harness/cluster_bits.py

Several Ray nodes are started on this machine. Each environment is trained in this process, by two worker
processes, by three actors on one node and by four on three nodes, with `distribute_update` as well.
Printed is a table: the first digits of a hash of the parameters, moments, statistics, evaluation and
states of the environments, or the sentence of a refusal.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "HalfCheetah-v5": {},
    "ALE/Boxing-v5": {"obs_type": "ram"},
}
_SETTINGS: dict[str, Any] = {"n_envs": 8, "batch_size": 1600, "seed": 4, "value_epochs": 3}
_STORE_BYTES = 100_000_000


def trained(env: str, iterations: int, **where: Any) -> str:
    """A hash of what training has made."""
    from trpo_fast import TRPO

    kwargs = _ENVIRONMENTS[env] or None
    with TRPO(env, env_kwargs=kwargs, **_SETTINGS, **where) as agent:
        agent.learn(iterations * _SETTINGS["batch_size"], progress=False)
        found = hashlib.sha256(agent.evaluate(3, seed=1, max_steps=100).returns.tobytes())
        tensors, _ = agent.state()
        state = agent.sampler.environment_state()
    for name, values in sorted({**tensors, **state}.items()):
        if not name.endswith(("metadata", "configuration")):
            found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:12]


@contextmanager
def cluster(cores: list[int]) -> Iterator[None]:
    """Nodes of so many cores each, which this process is connected to meanwhile."""
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": _STORE_BYTES}
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cores[0], "include_dashboard": False, **store},
    )
    for n in cores[1:]:
        made.add_node(num_cpus=n, **store)
    ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def main() -> int:
    """Print the table; the exit status is the number of cells that differ from the first of their row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--env", choices=sorted(_ENVIRONMENTS), action="append")
    given = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    envs = given.env or list(_ENVIRONMENTS)
    rows: dict[str, dict[str, str]] = {env: {} for env in envs}

    def column(name: str, **where: Any) -> None:
        for env in envs:
            try:
                rows[env][name] = trained(env, given.iterations, **where)
            except (RuntimeError, ValueError) as error:
                rows[env][name] = f"{type(error).__name__}: {error}"
            print(f"{env}, {name}: {rows[env][name]}", file=sys.stderr, flush=True)

    column("in process", n_workers=0)
    column("2 workers", n_workers=2)
    for cores, n_actors in (([3], 3), ([1, 2, 1], 4)):
        with cluster(cores):
            nodes = f"{n_actors} actors, {len(cores)} node{'s' * (len(cores) > 1)}"
            there: dict[str, Any] = {"cluster": "auto", "n_workers": n_actors}
            column(nodes, **there)
            column(f"{nodes}, rows there", **there, distribute_update=True)
    names = list(rows[envs[0]])
    print("| environment | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for env in envs:
        print(f"| {env} | " + " | ".join(rows[env].values()) + " |")
    others = sum(found != rows[env][names[0]] for env in envs for found in rows[env].values())
    print(f"{others} other bits")
    return others


if __name__ == "__main__":
    sys.exit(main())
