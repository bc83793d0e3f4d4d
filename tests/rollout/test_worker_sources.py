"""Which environments go to worker processes, and how many workers there are."""

from __future__ import annotations

import os
import threading
from typing import Any

import gymnasium
import pytest
from gymnasium.vector import SyncVectorEnv

from trpo_fast.rollout import (
    InProcessSampler,
    NoWorkers,
    VectorEnvSampler,
    WorkerSampler,
    available_cores,
    make_sampler,
)
from worker_envs import UnevenEnv

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_sources_that_stay_here() -> None:
    environment = gymnasium.make("CartPole-v1")
    assert isinstance(make_sampler(environment, n_workers=2), InProcessSampler)
    vector_env = SyncVectorEnv([UnevenEnv, UnevenEnv])
    assert isinstance(make_sampler(vector_env, n_workers=2), VectorEnvSampler)
    sampler = make_sampler(lambda: SyncVectorEnv([UnevenEnv] * 2), n_envs=2, n_workers=2)
    assert isinstance(sampler, VectorEnvSampler)
    with pytest.raises(ValueError, match=r"exists already, .* is not made again"):
        make_sampler(environment, restart_crashed_environments=True)

    lock = threading.Lock()

    def unsendable() -> Any:
        with lock:
            return UnevenEnv()

    with pytest.raises(NoWorkers, match=r"cannot be sent to worker processes: .*lock.*n_workers=0"):
        make_sampler(unsendable, n_envs=2, n_workers=2)


def test_the_default_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr("trpo_fast.rollout.making.available_cores", lambda: 1)
    assert isinstance(make_sampler(UnevenEnv, n_envs=4, n_workers=None), InProcessSampler)
    monkeypatch.setattr("trpo_fast.rollout.making.available_cores", lambda: 2)
    assert isinstance(make_sampler(UnevenEnv, n_envs=1, n_workers=None), InProcessSampler)
    with make_sampler(UnevenEnv, n_envs=3, n_workers=None) as sampler:
        assert isinstance(sampler, WorkerSampler)
        assert sampler.n_workers == 2
    # as few as have no more environments each than among all cores
    monkeypatch.setattr("trpo_fast.rollout.making.available_cores", lambda: 3)
    with make_sampler(UnevenEnv, n_envs=4, n_workers=None) as sampler:
        assert [(g.start, g.stop) for g in sampler.groups] == [(0, 2), (2, 4)]
    monkeypatch.setattr("trpo_fast.rollout.making.available_cores", lambda: 2)
    lock = threading.Lock()
    with pytest.warns(UserWarning, match="cannot be sent .*; stepping it in this process"):
        made = make_sampler(lambda: UnevenEnv() if lock else None, n_envs=2, n_workers=None)
    assert isinstance(made, InProcessSampler)
    with pytest.raises(ValueError, match="n_workers: expected at least 0, or None, got -1"):
        make_sampler(UnevenEnv, n_workers=-1)


def _no_licence() -> Any:
    raise RuntimeError("no licence")


def test_errors_of_making_environments_are_those_of_this_process() -> None:
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        make_sampler("CartPol-v1", n_envs=2, n_workers=2)
    with pytest.raises(TypeError, match=r"factory must return a gymnasium\.Env, got NoneType"):
        make_sampler(lambda: None, n_envs=2, n_workers=2)
    with pytest.raises(RuntimeError, match="no licence"):
        make_sampler(_no_licence, n_envs=2, n_workers=2)
