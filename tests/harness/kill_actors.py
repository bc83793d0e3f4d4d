"""Kill random actors and nodes of a cluster at random moments of a training; compare the bits.

    python tests/harness/kill_actors.py --runs 50
    python tests/harness/kill_actors.py --runs 50 --distribute-update

Several Ray nodes are started on this machine. An agent trains, evaluates and saves in short runs, one
after the other; in each of them a thread kills an actor, or all processes of a node, at a random moment,
sometimes twice. With `--distribute-update` the rows stay on the nodes, and the actors that hold them may
be killed as well. After each, the parameters, the evaluation and the states of the environments must have
the bits of an agent in one process that nothing happened to. Afterwards no actor may be left, and no
object in the stores of the nodes.
"""

from __future__ import annotations

import argparse
import gc
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
_BATCH = {"CartPole-v1": 400, "HalfCheetah-v5": 600}


class Trained:
    """An agent that is trained run by run.

    Parameters
    ----------
    env
        Its environment.
    **where
        ``n_workers`` and ``cluster``.
    """

    def __init__(self, env: str, **where: Any) -> None:
        from trpo_fast import TRPO

        self.batch, self.notices = _BATCH[env], list[str]()
        # so large that a batch with --distribute-update is cut into parts
        sizes = {"hidden_sizes": (64, 64), "value_hidden_sizes": (64, 64)}
        self.agent = TRPO(env, n_envs=6, batch_size=self.batch, seed=5, **sizes, **where)

    def run(self, folder: str) -> str:
        """Train for three iterations, save, evaluate; a hash of what has come out."""
        agent = self.agent
        agent.learn(3 * self.batch, callback=self._note, progress=False)
        agent.save(f"{folder}/agent.safetensors")
        found = hashlib.sha256(agent.policy.parameters.tobytes())
        found.update(agent.value_function.parameters.tobytes())
        found.update(agent.evaluate(3, seed=1, max_steps=200).returns.tobytes())
        state = {**agent.sampler.state_dict(), **agent.sampler.environment_state()}
        for name in sorted(state):
            found.update(name.encode() + np.ascontiguousarray(state[name]).tobytes())
        return found.hexdigest()[:16]

    def _note(self, _: Any, record: dict[str, Any]) -> None:
        if record.get("run/notice"):
            self.notices.append(str(record["run/notice"]))


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


_seen: set[int] = set()  # processes of actors that this run has found


def _actor_pids() -> list[int]:
    """Processes of actors of this run: those that its nodes have started, and that run still."""
    parents, actors = dict[int, int](), set[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(status[1])
            if (folder / "cmdline").read_bytes().startswith((b"ray::RolloutActor", b"ray::Holder")):
                actors.add(int(folder.name))
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    # one whose node is gone has another parent
    _seen.update(pid for pid in actors if is_ours(pid))
    return sorted(actors & _seen)


def _bytes_in_stores() -> int:
    """Bytes of the nodes' object stores that are in use, once that has settled."""
    import ray

    for _ in range(20):
        names = ("object_store_memory",)
        total, free = ray.cluster_resources(), ray.available_resources()
        used = sum(total.get(name, 0) - free.get(name, 0) for name in names)
        if used <= 0:
            return 0
        time.sleep(0.5)
    return int(used)


def main() -> int:
    """Compare some runs; the exit status is the number of those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distribute-update", action="store_true")
    parser.add_argument("--env", choices=sorted(_BATCH), default="HalfCheetah-v5")
    given = parser.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    right = killed = 0
    node = {"num_cpus": 2, "object_store_memory": _STORE_BYTES}
    with tempfile.TemporaryDirectory() as folder:
        reference = Trained(given.env, n_workers=0)
        expected = [reference.run(folder) for _ in range(given.runs + 2)]
        reference.agent.close()
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(**node)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        distributes = given.distribute_update
        trained = Trained(given.env, cluster="auto", n_workers=4, distribute_update=distributes)
        found = [trained.run(folder)]
        started = time.monotonic()
        found.append(trained.run(folder))
        seconds = time.monotonic() - started
        same = "same bits" if found == expected[:2] else "OTHER BITS"
        print(f"undisturbed: {same}, {seconds:.1f} s", flush=True)
        for run in range(given.runs):
            for _ in range(3 - len(cluster.list_all_nodes())):
                cluster.add_node(**node)
            rng = random.Random(1000 * given.seed + run)
            killer = Killer(cluster, rng, seconds, times=rng.choice((1, 1, 2)))
            killer.start()
            killer.begin.set()
            started = time.monotonic()
            try:
                got = trained.run(folder)
            except Exception as error:
                print(f"run {run}: {type(error).__name__}: {error}, killed {killer.killed}")
                break
            finally:
                killer.stop.set()
                killer.join()
            killed += len(killer.killed)
            if not killer.killed:  # the machine has become faster
                seconds = min(seconds, time.monotonic() - started)
            right += got == expected[run + 2]
            print(
                f"run {run}: {'same bits' if got == expected[run + 2] else 'OTHER BITS'}, killed "
                f"{' and '.join(killer.killed) or 'nothing'}, {time.monotonic() - started:.1f} s",
                flush=True,
            )
        trained.agent.close()
    gc.collect()  # what a caught exception's frames refer to
    time.sleep(2.0)
    left, objects = len(_actor_pids()), _bytes_in_stores()
    ray.shutdown()
    cluster.shutdown()
    print(
        f"{right} of {given.runs} with the same bits, {killed} killed, {len(trained.notices)} notices, "
        f"{left} actors left, {objects:,} bytes of objects left"
    )
    return given.runs - right + left + (objects > 0)


if __name__ == "__main__":
    sys.exit(main())
