"""Seeds, state, interruptions: what a sampler goes on from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from counting import (
    ARRAYS,
    MODES,
    SCRIPT,
    CountingEnv,
    CountingPolicy,
    check_transitions,
    core_sampler,
    counting_environments,
    in_process,
    sampler_for,
    vector,
)
from trpo_fast.rollout import (
    InProcessSampler,
    Rollout,
    environment_seed,
    make_sampler,
)
from trpo_fast.seeds import Purpose, derive_reset
from trpo_fast.snapshots import SnapshotError


@pytest.mark.parametrize("mode", MODES)
def test_seeds_follow_the_documented_rule(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT, SCRIPT)
    sampler.collect(6)
    for e, environment in enumerate(counting_environments(sampler)):
        assert environment.seeds[0] == derive_reset(7, Purpose.RESETS, e) == environment_seed(7, e)
        # later resets go on with the environment's own generator
        assert set(environment.seeds[1:]) == {None}


def test_state_survives_and_environments_restart_with_fresh_seeds() -> None:
    sampler = in_process(SCRIPT)
    sampler.collect(4)
    state = sampler.state_dict()
    assert state["counters"].tolist() == [4]
    assert state["episode_returns"].tolist() == [201]  # steps 0 and 1 of episode 1
    assert state["episode_lengths"].tolist() == [2]

    resumed = in_process(SCRIPT)
    resumed.load_state_dict(state)
    rollout = resumed.collect(2)
    (environment,) = counting_environments(resumed)
    assert environment.seeds[0] == environment_seed(7, 0, 4) != environment_seed(7, 0)
    assert rollout.actions[:, 0, 0].tolist() == [4, 5]
    # nobody can finish the episode that was running: the new one is counted from its own start
    assert rollout.episode_returns.tolist() == [1]
    assert rollout.episode_lengths.tolist() == [2]

    with pytest.raises(ValueError, match=r"expected counters of shape \(2,\), got shape \(1,\)"):
        in_process(SCRIPT, SCRIPT).load_state_dict(state)
    with pytest.raises(ValueError, match="got nothing"):
        in_process(SCRIPT).load_state_dict({})


def test_vector_environments_have_no_state_to_save() -> None:
    sampler = vector(AutoresetMode.SAME_STEP, SCRIPT)
    sampler.collect(2)
    with pytest.raises(SnapshotError, match="inside a vector environment cannot be reached"):
        sampler.environment_state()


@pytest.mark.parametrize("mode", MODES)
def test_interruption_leaves_a_usable_sampler(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT)
    calls = itertools.count()

    def interrupt() -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.collect(10, on_step=interrupt)
    rollout = sampler.collect(8)
    check_transitions(rollout, counting_environments(sampler))
    assert rollout.observations[0, 0, 1] == 0
    sampler.close()
    sampler.close()
    if mode is None:
        assert counting_environments(sampler)[0].closed == 1
    with pytest.raises(RuntimeError, match="closed"):
        sampler.collect(1)


@pytest.mark.parametrize("mode", MODES)
def test_on_step_is_called_once_a_vector_step(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT, SCRIPT)
    calls: list[int] = []
    sampler.collect(5, on_step=lambda: calls.append(1))
    assert len(calls) == 5


@pytest.mark.parametrize("mode", MODES)
def test_errors_of_on_step_are_not_blamed_on_the_environment(mode: Any) -> None:
    def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        sampler_for(mode, SCRIPT).collect(5, on_step=fail)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_seed_alone_decides(env_id: str, dtype: str) -> None:
    whole = core_sampler(env_id, n_envs=3, dtype=dtype).collect(60)
    sampler = core_sampler(env_id, n_envs=3, dtype=dtype)
    parts = [sampler.collect(n) for n in (1, 20, 39)]
    for name in ARRAYS:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    other = core_sampler(env_id, n_envs=3, dtype=dtype, seed=1).collect(60)
    assert not np.array_equal(other.observations, whole.observations)
    assert whole.observations.dtype == np.dtype(dtype)
    # environments differ from each other
    assert not np.array_equal(whole.observations[:, 0], whole.observations[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cuts", [(0, 1, 5), (0, 2, 3, 5)])
def test_who_steps_which_environment_does_not_matter(cuts: tuple[int, ...], dtype: str) -> None:
    core = pytest.importorskip("trpo_fast.core")

    def collect(begin: int, end: int) -> Rollout:
        environments = [gymnasium.make("Pendulum-v1") for _ in range(begin, end)]
        sampler = InProcessSampler(environments, first_index=begin, dtype=dtype)
        distribution = sampler.action_adapter.distribution
        sampler.bind(core.Policy(3, distribution, dtype=dtype, output_gain=1.0), seed=3)
        return sampler.collect(40)

    whole = collect(0, 5)
    joined = Rollout.concatenate([collect(*ends) for ends in itertools.pairwise(cuts)])
    for name in (*ARRAYS, "last_observations"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("make", "busy"),
    [
        (lambda: make_sampler(CountingEnv, n_envs=3), 1),
        (lambda: make_sampler("CartPole-v1", n_envs=3, n_workers=2), 2),
        (lambda: make_sampler(SyncVectorEnv([CountingEnv] * 3)), 1),
        (lambda: make_sampler(AsyncVectorEnv([CountingEnv] * 3)), 3),
    ],
    ids=["in process", "workers", "sync", "async"],
)
def test_a_sampler_knows_how_many_cores_it_keeps_busy(make: Callable[[], Any], busy: int) -> None:
    with make() as sampler:
        assert sampler.busy_cores == busy


def test_misuse_gets_a_sentence() -> None:
    sampler = InProcessSampler([CountingEnv()])
    with pytest.raises(RuntimeError, match="no policy is bound"):
        sampler.collect(1)
    with pytest.raises(ValueError, match="seed: expected an integer in"):
        sampler.bind(CountingPolicy(), seed=-1)
    policy = CountingPolicy()
    policy.obs_dim = 3
    with pytest.raises(ValueError, match=r"policy: expected obs_dim 2 .*, got 3"):
        sampler.bind(policy, seed=0)
    policy = CountingPolicy()
    policy.dtype = np.dtype(np.float64)
    with pytest.raises(ValueError, match="policy: expected dtype float32, got float64"):
        sampler.bind(policy, seed=0)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(ValueError, match="n_steps: expected at least 1, got 0"):
        sampler.collect(0)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        InProcessSampler([])
    with pytest.raises(ValueError, match="environment 1: expected the observation_space"):
        InProcessSampler([CountingEnv(), gymnasium.make("CartPole-v1")])
    with pytest.raises(ValueError, match="parts: expected at least one rollout, got none"):
        Rollout.concatenate([])
