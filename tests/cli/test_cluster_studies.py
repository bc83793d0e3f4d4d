"""Studies and tuning over a cluster: the runs of local processes, made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fake_ray import FakeRay, fake_ray
from trpo_fast import study, tune
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.config import ConfigError
from trpo_fast.rollout import ClusterError
from trpo_fast.studies import cluster as of_studies
from trpo_fast.studies.cluster import ClusterRuns, RemoteTraining
from trpo_fast.studies.processes import INTERRUPTED

__all__ = ["fake_ray"]  # a fixture is found where it is imported

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "evaluate_every": 0, "hidden_sizes": (8,)}
SMALL |= {"total_timesteps": 128, "progress": None}


def test_a_study_makes_the_runs_of_local_processes(fake_ray: FakeRay, tmp_path: Path) -> None:
    fake_ray.lost_tasks = 1  # the first node dies before it has done anything
    bits = []
    for where, name in (({}, "here"), ({"cluster": "local"}, "there")):
        result = study("CartPole-v1", seeds=[0, 1], run_dir=tmp_path / name, **where, **SMALL)
        assert len(result.runs) == 2
        files = sorted((tmp_path / name).rglob("latest.safetensors"))
        bits.append([load_checkpoint(file)[0]["policy"].tobytes() for file in files])
    assert bits[0] == bits[1]
    assert len(bits[0]) == 2
    assert fake_ray.lost_tasks == 0


def test_a_folder_that_a_node_does_not_see_is_named(
    fake_ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        of_studies, "_train_there", lambda *_: (of_studies._NO_DISK, [(True, "node7")])
    )
    with pytest.raises(ClusterError, match=r"disk that all nodes share, got .*, which node7 does"):
        study("CartPole-v1", seeds=[0], run_dir=tmp_path, cluster="local", **SMALL)


def test_no_run_begins_after_a_signal(fake_ray: FakeRay, tmp_path: Path) -> None:
    connection = of_studies.Connection("local")
    runs = ClusterRuns(connection, tmp_path, 1)
    with runs.taking_signals():
        runs._forward(2, None)
    assert runs.run(["info"], print, print) == INTERRUPTED
    connection.close()


def test_tuning_trains_trials_on_the_cluster(fake_ray: FakeRay, tmp_path: Path) -> None:
    fake_ray.cores = fake_ray.free = 1  # one trial at once: the order of the local search
    given: dict[str, Any] = {"trials": 2, "total_timesteps": 128, "seeds": (0,), "progress": None}
    given |= {"batch_size": 64, "n_envs": 2, "evaluation_episodes": 1, "hidden_sizes": (8,)}
    given |= {"search": None, "max_kl": 0.01}
    here = tune("CartPole-v1", run_dir=tmp_path / "here", **given)
    assert fake_ray.handles == []
    there = tune("CartPole-v1", run_dir=tmp_path / "there", cluster="local", **given)
    assert len(fake_ray.handles) == there.n_done == 2
    assert there.study.trials[0].params == here.study.trials[0].params


def test_a_trial_that_is_lost_begins_anew(fake_ray: FakeRay, tmp_path: Path) -> None:
    given: dict[str, Any] = {"trials": 1, "total_timesteps": 128, "seeds": (0,), "progress": None}
    tuning = tune("CartPole-v1", run_dir=tmp_path, batch_size=64, n_envs=2, **given).tuning
    connection = of_studies.Connection("local")
    values = []
    for loses in (False, True):
        training = RemoteTraining(connection, tuning, {})
        training.advance(5)
        if loses:
            fake_ray.alive[0].lose()
        training.advance(10)
        (agent,) = fake_ray.alive[0]._object._agents
        values.append(agent.policy.parameters.tobytes())
        training.close()
    assert values[0] == values[1]
    connection.close()


def test_where_the_cluster_is_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cluster: expected 'local'"):
        study("CartPole-v1", seeds=[0], run_dir=tmp_path, cluster="moon", **SMALL)
