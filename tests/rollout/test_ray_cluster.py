"""Ray itself, on one small cluster of three nodes: starting one takes seconds, an actor one or two."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fragile_env import fragile
from trpo_fast import TRPO, core
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.core.parts import PolicyPart, bounds_of_parts, update_parts
from trpo_fast.core.value_parts import ValuePart, fit_parts
from trpo_fast.rollout import ClusterError, make_sampler
from trpo_fast.rollout.cluster import Connection
from trpo_fast.rollout.cluster.holders import Holders, RayParts

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.filterwarnings(
    "default"
)  # Ray leaves sockets and futures to the collector

SMALL: dict[str, Any] = {"n_envs": 4, "batch_size": 240, "hidden_sizes": (8,), "seed": 3}
STORE = 100_000_000
HAS_CLIENT = importlib.util.find_spec("grpc") is not None
CLIENT_PORT = 10001  # below the ports of Ray's workers


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of 1 + 2 + 2 cores that this process is connected to; others may be by Ray's client."""
    from ray.cluster_utils import Cluster

    # as quick as the tests themselves: Ray's processes give way to others by default
    os.environ.setdefault("RAY_worker_niceness", "0")
    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": STORE,
            "include_dashboard": False,
            "ray_client_server_port": CLIENT_PORT if HAS_CLIENT else None,
        },
    )
    for _ in range(2):
        made.add_node(num_cpus=2, object_store_memory=STORE)
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made.address
    ray.shutdown()
    made.shutdown()


def bits(env: Any, **where: Any) -> tuple[bytes, list[float], list[str], list[int]]:
    """What a short run has made, what it said, and the processes of its actors."""
    notices: list[str] = []
    agent = TRPO(env, **SMALL, **where)

    def note(_: Any, record: dict[str, Any]) -> None:
        notices.extend(filter(None, [record.get("run/notice")]))

    agent.learn(4 * 240, callback=note, progress=False)
    returns = agent.evaluate(3, seed=1, max_steps=300).returns.tolist()
    pids = [worker.pid for worker in agent.sampler.pool.workers] if agent.sampler.n_workers else []
    agent.close()
    return agent.policy.parameters.tobytes(), returns, notices, pids


def test_the_bits_are_those_of_one_process_and_a_loss_costs_none(
    cluster: str, tmp_path: Path
) -> None:
    (never := tmp_path / "never").write_text("x")
    *expected, _, _ = bits(fragile(never, 100), n_workers=0)
    *found, notices, pids = bits(fragile(tmp_path / "flag", 100), cluster="auto", n_workers=4)
    assert set((tmp_path / "flag").read_text()) == {"x"}  # by one actor, or by some at once
    assert found == expected
    assert notices
    assert all("is gone (Actor" in notice for notice in notices)
    assert all("made again, with the same bits" in notice for notice in notices)
    deadline = time.monotonic() + 30.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def held(_: Any, kind: str, begin: int, end: int, n: int) -> Any:
    """A part of a batch that every node makes for itself."""
    policy, critic, x, actions, advantages = made(n)
    rows = slice(begin, end)
    where = {"whole_size": n, "first_row": begin}
    if kind == "policy":
        return PolicyPart(policy, x[rows], actions[rows], advantages[rows], **where)
    return ValuePart(critic, x[rows], advantages[rows], **where)


def made(n: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    policy = core.Policy(4, core.Distribution("gaussian", [2]), hidden_sizes=(96, 96), seed=1)
    rows = (rng.normal(size=(n, k)).astype("float32") for k in (4, 2))
    advantages = rng.normal(size=n).astype("float32")
    return policy, core.ValueFunction(4, hidden_sizes=(96, 96), seed=2), *rows, advantages


@pytest.mark.parametrize(("n", "n_parts"), [(6100, 3), (90, 1)])
def test_parts_on_nodes_have_the_bits_of_one_piece(cluster: str, n: int, n_parts: int) -> None:
    policy, critic, x, actions, advantages = made(n)
    bounds = bounds_of_parts(n, 3, policy.n_parameters, critic.n_parameters)
    assert len(bounds) == n_parts + 1
    holders = Holders(Connection("auto"))
    assert len(holders) == 3
    try:
        for kind in ("policy", "value"):
            places = itertools.pairwise(bounds)
            holders.ask_each("make", [[kind, held, kind, *place, n] for place in places])
        others = made(n)[:2]
        found = update_parts(others[0], RayParts(holders, "policy", bounds))
        assert found.status == "accepted"
        policy.update(x, actions, advantages, normalized=True)
        assert others[0].parameters.tobytes() == policy.parameters.tobytes()
        fit_parts(others[1], RayParts(holders, "value", bounds), epochs=2)
        critic.fit(x, advantages, epochs=2)
        assert others[1].parameters.tobytes() == critic.parameters.tobytes()
        ray.kill(holders.actors[0])
        with pytest.raises(ClusterError, match=r"are lost with .*; resume from the last"):
            update_parts(policy, RayParts(holders, "policy", bounds))
    finally:
        holders.close()
    assert len(holders) == 0


class Losing(TRPO):
    """With a cluster, kills an actor while rows move, and a holder of rows in an update."""

    def advantages(self, rollout: Any) -> Any:
        """Rows move to the nodes."""
        if self.parted is not None and self.iteration == 1:
            ray.kill(self.sampler.pool.workers[0]._actor)
        return super().advantages(rollout)

    def improve_policy(self, batch: Any) -> Any:
        """The update."""
        if self.parted is not None and self.iteration == 2:
            ray.kill(self.parted.holders.actors[1])
        return super().improve_policy(batch)


def test_rows_that_stay_on_the_nodes_have_the_bits_of_one_process(cluster: str) -> None:
    found = []
    for where in ({"n_workers": 0}, {"cluster": "auto", "n_workers": 3, "distribute_update": True}):
        settings = {**SMALL, "batch_size": 1200, "hidden_sizes": (48, 40)}
        with Losing("Pendulum-v1", **settings, **where) as agent:
            agent.learn(3 * 1200, progress=False)
            parameters = [
                network.parameters.tobytes() for network in (agent.policy, agent.value_function)
            ]
            found.append([*parameters, agent.last_record["value/explained_variance"]])
            if agent.parted is not None:
                assert len(agent.parted.holders or ()) == 3
    assert found[0] == found[1]


def test_a_level_that_is_forced_here_is_forced_there(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRPO_FAST_SIMD_LEVEL", "v2")
    with pytest.raises(ClusterError, match=r"this machine on every node, got v2 on"):
        make_sampler("CartPole-v1", n_envs=2, n_workers=1, cluster="auto")


BROUGHT = '''
import os
import numpy as np
import gymnasium

class Scaled(gymnasium.Env):
    """Random observations; the reward has a scale that the nodes are told."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = 0
        return self._seen(), {}

    def step(self, action):
        self.taken += 1
        reward = float(os.environ["TOLD_SCALE"]) * float(action[0])
        return self._seen(), reward, False, self.taken == 20, {}

    def _seen(self):
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)

gymnasium.register("Scaled-v0", Scaled)
'''

OUTSIDE = """
import sys
from trpo_fast import TRPO
where = {"n_workers": 0}
if len(sys.argv) > 1:
    where = {"cluster": sys.argv[1], "n_workers": 2, "runtime_env": "brought.yaml"}
for more in ({}, {"distribute_update": True})[: 1 + ("cluster" in where)]:
    settings = {"n_envs": 4, "batch_size": 400, "hidden_sizes": (48, 40), "seed": 3}
    with TRPO("brought:Scaled-v0", **settings, **where, **more) as agent:
        agent.learn(800, progress=False)
        returns = agent.evaluate(2, seed=1).returns.tolist()
    print(agent.policy.parameters.tobytes().hex(), returns)
"""


@pytest.mark.skipif(not HAS_CLIENT, reason="Ray's client is not installed")
def test_from_outside_with_files_and_variables_that_the_nodes_are_brought(
    cluster: str, tmp_path: Path
) -> None:
    (there := tmp_path / "there").mkdir()
    (tmp_path / "brought.py").write_text(BROUGHT)
    (there / "brought.py").write_text(BROUGHT)
    (tmp_path / "brought.yaml").write_text("working_dir: there\nenv_vars: {TOLD_SCALE: '2.5'}\n")
    found = []
    environ = dict(os.environ)  # with RAY_AUTH_MODE, where Ray has given the cluster tokens
    environ.pop("RAY_ADDRESS", None)
    for arguments, scale in (([], "2.5"), ([f"ray://127.0.0.1:{CLIENT_PORT}"], "0")):
        run = subprocess.run(
            [sys.executable, "-c", OUTSIDE, *arguments],
            env={**environ, "TOLD_SCALE": scale},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        found.append(run.stdout.splitlines())
    assert len(found[0]) == 1
    assert found[1] == found[0] * 2


def test_a_study_that_is_killed_goes_on(cluster: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trpo_fast", "study", "CartPole-v1", "--seeds", "0-3"]
    command += ["--total-timesteps", "3000", "--batch-size", "500", "--n-envs", "2"]
    files = []
    for name, where in (("here", []), ("there", ["--cluster", cluster])):
        folder = tmp_path / name
        if where:
            first = subprocess.Popen([*command, "--run-dir", folder, *where])
            deadline = time.monotonic() + 120.0
            while not list(folder.rglob("latest.safetensors")) and time.monotonic() < deadline:
                time.sleep(0.05)
            first.kill()
            first.wait()
            assert not (folder / "study.csv").exists()
        subprocess.run([*command, "--run-dir", folder, *where], check=True)
        assert (folder / "study.csv").exists()
        found = sorted(folder.rglob("latest.safetensors"))
        files.append([load_checkpoint(file)[0]["policy"].tobytes() for file in found])
    assert len(files[0]) == 4
    assert files[0] == files[1]


ALONE = """
import time
from trpo_fast import TRPO
from trpo_fast.rollout import ClusterError
for cluster in ("127.0.0.1:9", "ray://127.0.0.1:9", "auto"):
    started = time.monotonic()
    try:
        TRPO("CartPole-v1", cluster=cluster)
    except (ClusterError, ImportError) as error:
        print(type(error).__name__, error, time.monotonic() - started < 10)
"""


def test_a_head_that_is_not_there_is_said_within_seconds(tmp_path: Path) -> None:
    (folder := tmp_path / "ray").mkdir()
    (folder / "ray_current_cluster").write_text("127.0.0.1:9")
    environ = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    environ.pop("RAY_ADDRESS", None)
    run = subprocess.run([sys.executable, "-c", ALONE], env=environ, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 3, run.stderr
    for line in lines:
        assert line.startswith("ClusterError cluster: nothing answers at 127.0.0.1:9")
        assert line.endswith("True")
    (folder / "ray_current_cluster").unlink()
    run = subprocess.run([sys.executable, "-c", ALONE], env=environ, capture_output=True, text=True)
    assert "that this machine belongs to, got none; start one with" in run.stdout.splitlines()[2]
