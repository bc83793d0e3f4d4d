"""Actors of a cluster: the bits of one process, whatever is lost, and a sentence for every mishap.

The actors are those of a stand-in for Ray, see `fake_ray`; `test_ray_cluster.py` has a few tests with
Ray itself.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from fake_ray import FakeRay, fake_ray
from fragile_env import ClosedEnv, fragile
from masked_envs import masked_factory
from trpo_fast import TRPO, VineTRPO
from trpo_fast.config import ConfigError
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import ClusterError, make_sampler
from trpo_fast.rollout.cluster import block
from trpo_fast.rollout.cluster import sampler as cluster_sampler
from worker_envs import BrokenEnv, UnevenEnv, assert_same, with_policy

SMALL: dict[str, Any] = {"n_envs": 4, "batch_size": 240, "hidden_sizes": (8,), "seed": 3}
ACTORS: dict[str, Any] = {"cluster": "local", "n_workers": 2}

__all__ = ["fake_ray"]  # a fixture is found where it is imported

pytestmark = pytest.mark.usefixtures("fake_ray")


def trained(env: Any = "CartPole-v1", agent_type: Any = TRPO, **settings: Any) -> tuple[Any, Any]:
    """What a short run has made of parameters, evaluation and environments; and its notices."""
    notices: list[str] = []
    agent = agent_type(env, **{**SMALL, **settings})

    def note(_: Any, record: dict[str, Any]) -> None:
        notices.extend(filter(None, [record.get("run/notice")]))

    try:
        agent.learn(4 * agent.config.batch_size, callback=note, progress=False)
        evaluated = agent.evaluate(3, seed=1, max_steps=300).returns.tolist()
        sampler = getattr(agent.sampler, "trunk", agent.sampler)
        state = {**sampler.state_dict(), "observations": sampler.state.observations.copy()}
    finally:
        agent.close()
    bits = {name: array.tobytes() for name, array in state.items()}
    return (agent.policy.parameters.tobytes(), evaluated, bits), notices


@pytest.mark.parametrize("n_workers", [2, 5])
def test_rollouts_have_the_bits_of_one_process(fake_ray: FakeRay, n_workers: int) -> None:
    reference = make_sampler(UnevenEnv, n_envs=5)
    with make_sampler(UnevenEnv, n_envs=5, n_workers=n_workers, cluster="local") as sampler:
        assert sampler.n_workers == n_workers
        for one in (reference, sampler):
            with_policy(one)
        for budget in (40, 7, reference.budget("episodes", 90)):
            assert_same(sampler.collect(budget), reference.collect(budget))


def test_training_has_the_bits_of_one_process(fake_ray: FakeRay) -> None:
    expected, _ = trained(n_workers=0)
    assert trained(cluster="local", n_workers=3) == (expected, [])
    large = {"hidden_sizes": (128, 128), "batch_size": 8_000}  # beyond what goes as bytes
    assert trained(**ACTORS, **large)[0] == trained(n_workers=0, **large)[0]
    masked = masked_factory("discrete", "info")
    assert trained(masked, cluster="local", n_workers=2)[0] == trained(masked, n_workers=0)[0]


def test_a_vine_grows_on_actors(fake_ray: FakeRay) -> None:
    small = {"vine": {"states": 8, "branch_steps": 4}}
    expected, _ = trained("Pendulum-v1", VineTRPO, n_workers=0, **small)
    assert trained("Pendulum-v1", VineTRPO, cluster="local", n_workers=2, **small)[0] == expected


def test_a_checkpoint_goes_on_anywhere_and_names_no_cluster(
    fake_ray: FakeRay, tmp_path: Path
) -> None:
    agents = [TRPO("CartPole-v1", **SMALL, **where) for where in ({"n_workers": 0}, ACTORS)]
    for agent in agents:
        agent.learn(480, progress=False)
    saved = agents[1].save(tmp_path / "agent.safetensors")
    assert TRPO.load(saved, n_workers=0).config.cluster is None
    there = TRPO.load(saved, **ACTORS)
    copied = TRPO.load(agents[0].save(tmp_path / "other.safetensors"), **ACTORS)
    for agent in (*agents, there, copied):
        agent.learn(480, progress=False)
        assert agent.policy.parameters.tobytes() == agents[0].policy.parameters.tobytes()
        agent.close()


# ---- losses


@pytest.mark.parametrize("at", [100, 200])
def test_an_actor_lost_in_a_rollout_costs_no_bit(
    fake_ray: FakeRay, tmp_path: Path, at: int
) -> None:
    """In the first rollout, a later one, and in the evaluation, whose environment counts anew."""
    (never := tmp_path / "never").write_text("x")
    expected, _ = trained(fragile(never, at), n_workers=0)
    found, notices = trained(fragile(tmp_path / "flag", at), **ACTORS)
    assert (tmp_path / "flag").exists()
    assert found == expected
    assert len(notices) == 1
    assert "the actor on node" in notices[0]
    assert "made again, with the same bits" in notices[0]


def test_where_states_cannot_be_stored_episodes_start_anew(
    fake_ray: FakeRay, tmp_path: Path
) -> None:
    _, notices = trained(fragile(tmp_path / "flag", 100, ClosedEnv), **ACTORS)
    (notice,) = [n for n in notices if "actor" in n]
    assert "its episodes start anew, because" in notice


def test_losses_between_rollouts_cost_no_bit(fake_ray: FakeRay) -> None:
    """While nothing is asked, in changes, in an evaluation, and while saving."""
    (never := Path(os.devnull)).exists()
    results = []
    for where in ({"n_workers": 0}, ACTORS):
        agent = TRPO(fragile(never, 0), **SMALL, **where)
        told = []
        for _ in range(3):
            agent.learn(240, progress=False)
            told += agent.environments.call("raise_level", 2)
            _lose_an_actor(agent)
            told += agent.environments.call("raise_level", 1)
            told += agent.environments.get_attr("level")
            _lose_an_actor(agent)
            told.append(agent.evaluate(2, seed=0, max_steps=50).returns.tolist())
            _lose_an_actor(agent)
            told.append(agent.environments.get_attr("taken"))
            _lose_an_actor(agent)
            state = agent.sampler.environment_state()
            # The metadata hold a specification that Gymnasium caches where somebody asks for it.
            told.append({k: v.tobytes() for k, v in state.items() if "metadata" not in k})
        results.append((agent.policy.parameters.tobytes(), told))
        agent.close()
    assert results[0][0] == results[1][0]
    for here, there in zip(results[0][1], results[1][1], strict=True):
        assert here == there


def _lose_an_actor(agent: Any) -> None:
    for worker in agent.sampler.pool.workers[:1] if agent.sampler.n_workers else ():
        worker._actor.lose()


def test_a_part_that_is_lost_again_and_again_ends_the_run(
    fake_ray: FakeRay, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFailure, match=r"^worker \d: a rollout of .*: the actor on node"):
        trained(fragile(tmp_path / "flag", 100, times=99), **ACTORS)
    assert len((tmp_path / "flag").read_text()) in range(6, 13)  # by one actor, or by each of two


def test_an_actor_without_a_core_shares_one_until_a_node_joins(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = trained(n_workers=0)
    agent = TRPO("CartPole-v1", **SMALL, **ACTORS)
    agent.learn(480, progress=False)
    (worker, _) = agent.sampler.pool.workers
    worker.shares_a_core = True  # as after a loss that found no free core
    first = worker._actor
    agent.learn(480, progress=False)
    (worker, _) = agent.sampler.pool.workers
    assert worker._actor is not first
    assert not worker.shares_a_core
    assert agent.policy.parameters.tobytes() == expected[0]
    agent.close()


@pytest.mark.parametrize("is_large", [False, True])
def test_large_parameters_are_put_once_an_iteration(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    if is_large:
        monkeypatch.setattr(block, "_MOST_BYTES", 100)
    with make_sampler("CartPole-v1", n_envs=6, n_workers=6, cluster="local") as sampler:
        with_policy(sampler)
        for n in range(1, 4):
            sampler.collect(10)
            assert fake_ray.puts == n * is_large
        states = [pickle.loads(arguments[1])[0] for arguments in fake_ray.calls]
        assert all(state is not None for state in states[:6])  # where a fresh start begins
        assert states[6:] == [None] * 12


# ---- sentences


def test_an_environment_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = r"^worker \d on node \S+: environment \d \(\S+\), step 17: .*simulator lost"
    with pytest.raises(EnvironmentFailure, match=sentence):
        trained(lambda: BrokenEnv("raises"), **ACTORS)
    monkeypatch.setattr(cluster_sampler, "MOST_LOSSES", 0)
    with pytest.raises(EnvironmentFailure, match=r"environment 0 .*nothing came back for 0.2 sec"):
        trained(SlowEnv, worker_timeout=0.2, n_workers=1, cluster="local")


class SlowEnv(UnevenEnv):
    """Its step takes longer than it may."""

    def step(self, action: Any) -> Any:
        time.sleep(1.5)
        return super().step(action)


def test_what_a_cluster_cannot_do_is_said(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=r"expected 12 free cores, .* got 8 on 1 node; ask for"):
        make_sampler("CartPole-v1", n_envs=12, n_workers=12, cluster="local")
    for env in (
        gymnasium.make("CartPole-v1"),
        gymnasium.make_vec("CartPole-v1"),
        "envpool:Pong-v5",
    ):
        with pytest.raises(ValueError, match=r"^cluster: expected the id .*leave out cluster"):
            make_sampler(env, cluster="local")
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"^env: cannot be sent .*, or leave out cluster$"):
        make_sampler(lambda: lock, cluster="local")
    with make_sampler("CartPole-v1", n_envs=2, n_workers=1, cluster="local") as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"^cluster: expected callbacks of iterations"):
            sampler.collect(5, on_step=lambda: None)
        fake_ray.store_bytes = 10**8
        with pytest.raises(ClusterError, match=r"^batch_size: .* 100 MB, got one of \d+ MB; start"):
            sampler.collect(3_000_000)
        assert sampler.collect(5).n_steps == 5
    fake_ray.init()
    with pytest.raises(ClusterError, match="runtime_env: this process is connected to Ray already"):
        make_sampler("CartPole-v1", cluster="local", runtime_env='{"working_dir": "."}')
    fake_ray.shutdown()
    with pytest.raises(ClusterError, match=r"runtime_env: expected a JSON object or a YAML file"):
        make_sampler("CartPole-v1", cluster="local", runtime_env="no_such_file.yaml")


def test_a_cluster_of_another_level_is_refused(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trpo_fast.rollout.cluster import transport

    here = transport.facts()
    for name, words in (
        ("level", "TRPO_FAST_SIMD_LEVEL here"),
        ("version", "one version on every"),
    ):
        monkeypatch.setattr(transport, "facts", lambda name=name: {**here, name: "other"})
        with pytest.raises(ClusterError, match=rf"^cluster: expected .* other of this .*{words}"):
            make_sampler("CartPole-v1", n_envs=2, n_workers=1, cluster="local")


def test_a_node_that_lacks_the_package_is_said() -> None:
    from trpo_fast.rollout.cluster.transport import sentence_of_a_start

    said = sentence_of_a_start("...\nModuleNotFoundError: No module named 'trpo_fast'")
    assert said.startswith("cluster: a node cannot start a worker: ")
    assert said.endswith(
        "install trpo_fast and what the environments need on every node, or name them "
        "in runtime_env"
    )


def test_settings_are_refused_before_anything_is_started() -> None:
    with pytest.raises(ConfigError, match="cluster: expected 'local'"):
        TRPO("CartPole-v1", cluster="somewhere")


def test_the_states_that_come_back_are_those_of_the_environments(fake_ray: FakeRay) -> None:
    with make_sampler("CartPole-v1", n_envs=3, n_workers=2, cluster="local") as sampler:
        with_policy(sampler)
        sampler.prepare_states()
        sampler.collect(20)
        kept = sampler.environment_state()
        sampler.map_environments(_step_beside)
        moved = sampler.environment_state()
        assert any(not np.array_equal(kept[name], moved[name]) for name in kept)


def _step_beside(environment: Any) -> None:
    environment.step(0)
