"""Kill random actors and nodes of a cluster at random moments of runs; compare the final bits.

    python tests/harness/kill_actors.py --runs 50

Several Ray nodes are started on this machine. A run trains, evaluates and saves; meanwhile a thread
kills an actor, or all processes of a node, once or twice. Its parameters, its evaluation and the states
of its environments must have the bits of a run in one process that nothing happened to. Afterwards no
actor and no object may be left in the cluster.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

_STORE_BYTES = 100_000_000
_STEPS = {"CartPole-v1": (8_000, 500), "HalfCheetah-v5": (5_400, 600)}


def bits_of(env: str, **where: Any) -> tuple[str, list[str]]:
    """Train, evaluate and save; a hash of what came out, and the notices."""
    with tempfile.TemporaryDirectory() as folder:
        return _bits_of(env, folder, where)


def _bits_of(env: str, folder: str, where: dict[str, Any]) -> tuple[str, list[str]]:
    from trpo_fast import TRPO
    from trpo_fast.callbacks import CheckpointEvery, EvaluateEvery

    total, batch = _STEPS[env]
    notices: list[str] = []

    def note(_: Any, record: dict[str, Any]) -> None:
        if record.get("run/notice"):
            notices.append(str(record["run/notice"]))

    agent = TRPO(env, n_envs=6, batch_size=batch, seed=5, hidden_sizes=(16,), **where)
    try:
        callbacks = [
            note,
            CheckpointEvery(3 * batch, f"{folder}/run.safetensors"),
            EvaluateEvery(4 * batch, 4, f"{folder}/best.safetensors"),
        ]
        agent.learn(total, callback=callbacks)
        found = hashlib.sha256(agent.policy.parameters.tobytes())
        found.update(agent.evaluate(4, seed=1).returns.tobytes())
        state = {**agent.sampler.state_dict(), **agent.sampler.environment_state()}
        for name in sorted(state):
            found.update(name.encode() + np.ascontiguousarray(state[name]).tobytes())
    finally:
        agent.close()
    return found.hexdigest()[:16], notices


class Killer(threading.Thread):
    """Kills something of a cluster at random moments, until it is told to stop."""

    def __init__(self, cluster: Any, rng: random.Random, seconds: float, times: int) -> None:
        super().__init__(daemon=True)
        self.killed: list[str] = []
        self._cluster = cluster
        self._rng, self._moments = (
            rng,
            sorted(rng.uniform(0.0, 0.9 * seconds) for _ in range(times)),
        )
        self.begin, self.stop = threading.Event(), threading.Event()

    def run(self) -> None:
        self.begin.wait()
        started = time.monotonic()
        for moment in self._moments:
            if self.stop.wait(max(0.0, started + moment - time.monotonic())):
                return
            others = [n for n in self._cluster.list_all_nodes() if n is not self._cluster.head_node]
            if self._rng.random() < 0.3 and others:
                self._kill_node(self._rng.choice(others))
            else:
                self._kill_actor()

    def _kill_node(self, node: Any) -> None:
        self.killed.append("node")
        self._cluster.remove_node(node, allow_graceful=False)

    def _kill_actor(self) -> None:
        found = _actor_pids()
        if found:
            self.killed.append("actor")
            os.kill(self._rng.choice(found), signal.SIGKILL)


def _actor_pids() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::RolloutActor"):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def main() -> int:
    """Compare some runs; the exit status is the number of those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env", choices=sorted(_STEPS), default="HalfCheetah-v5")
    given = parser.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    wrong = killed = 0
    node = {"num_cpus": 2, "object_store_memory": _STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**node)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    expected, _ = bits_of(given.env, n_workers=0)
    where = {"cluster": "auto", "n_workers": 4}
    started = time.monotonic()
    found, _ = bits_of(given.env, **where)
    seconds = time.monotonic() - started
    print(f"in process {expected}, undisturbed on 3 nodes {found}, {seconds:.1f} s", flush=True)
    wrong += found != expected
    for run in range(given.runs):
        for _ in range(3 - len(cluster.list_all_nodes())):
            cluster.add_node(**node)
        rng = random.Random(1000 * given.seed + run)
        killer = Killer(cluster, rng, seconds, times=rng.choice((1, 1, 2)))
        killer.start()
        killer.begin.set()
        started = time.monotonic()
        try:
            found, notices = bits_of(given.env, **where)
        except Exception as error:
            found, notices = f"{type(error).__name__}: {error}", []
        killer.stop.set()
        killer.join()
        killed += len(killer.killed)
        wrong += found != expected
        print(
            f"run {run}: {'same bits' if found == expected else found}, killed "
            f"{killer.killed}, {len(notices)} notices, {time.monotonic() - started:.1f} s",
            flush=True,
        )
    time.sleep(1.0)
    left = len(_actor_pids())
    ray.shutdown()
    cluster.shutdown()
    print(
        f"{given.runs - wrong} of {given.runs} with the same bits, {killed} killed, {left} actors left"
    )
    return wrong + left


if __name__ == "__main__":
    sys.exit(main())
