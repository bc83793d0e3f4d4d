"""Every stored row is a true transition, whatever resets the environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from counting import (
    ARRAYS,
    MODES,
    OTHER_SCRIPT,
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
    Rollout,
    VectorEnvSampler,
)


@pytest.mark.parametrize("mode", [None, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_episodes_by_hand(mode: AutoresetMode | None) -> None:
    sampler = in_process(SCRIPT) if mode is None else vector(mode, SCRIPT)
    r = sampler.collect(7)
    # episode 0: two steps, terminated; episode 1: three steps, truncated; episode 2: two steps
    states = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]
    assert r.observations[:, 0].tolist() == states
    assert r.actions[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert r.rewards[:, 0].tolist() == [0, 1, 100, 101, 102, 200, 201]
    assert np.flatnonzero(r.terminated).tolist() == [1, 6]
    assert np.flatnonzero(r.truncated).tolist() == [4]
    assert r.valid.all()
    assert r.last_observations.tolist() == [[3, 0]]
    assert r.final_indices.tolist() == [[4, 0]]
    assert r.final_observations.tolist() == [[1, 3]]
    assert r.episode_returns.tolist() == [1, 303, 401]
    assert r.episode_lengths.tolist() == [2, 3, 2]
    assert r.episode_indices.tolist() == [[1, 0], [4, 0], [6, 0]]
    check_transitions(r, counting_environments(sampler))


def test_next_step_autoreset_by_hand() -> None:
    sampler = vector(AutoresetMode.NEXT_STEP, SCRIPT)
    r = sampler.collect(7)
    # rows 2 and 6 are resets: the action is ignored, no reward is given
    states = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert r.observations[:, 0].tolist() == states
    assert r.valid[:, 0].tolist() == [True, True, False, True, True, True, False]
    assert r.rewards[:, 0].tolist() == [0, 1, 0, 100, 101, 102, 0]
    assert np.flatnonzero(r.terminated).tolist() == [1]
    assert np.flatnonzero(r.truncated).tolist() == [5]
    assert r.last_observations.tolist() == [[2, 0]]
    assert r.final_indices.tolist() == [[5, 0]]
    assert r.final_observations.tolist() == [[1, 3]]
    assert r.episode_returns.tolist() == [1, 303]
    assert r.episode_lengths.tolist() == [2, 3]
    assert r.n_transitions == 5
    check_transitions(r, counting_environments(sampler))


def test_next_step_reset_may_fall_on_the_next_rollout() -> None:
    sampler = vector(AutoresetMode.NEXT_STEP, SCRIPT)
    first, second = sampler.collect(2), sampler.collect(2)
    assert first.valid.all()
    assert first.terminated[1, 0]
    assert second.valid[:, 0].tolist() == [False, True]
    assert second.observations[:, 0].tolist() == [[0, 2], [1, 0]]


def test_terminated_and_truncated_at_once_needs_no_final_observation() -> None:
    r = in_process(((2, "both"),)).collect(4)
    assert r.terminated[:, 0].tolist() == r.truncated[:, 0].tolist() == [False, True] * 2
    assert len(r.final_indices) == 0
    assert r.final_observations.shape == (0, 2)
    assert r.final_indices.shape == (0, 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [[60], [1] * 60, [7, 13, 1, 39]])
def test_every_row_is_a_transition(mode: Any, chunks: list[int]) -> None:
    sampler = sampler_for(mode, SCRIPT, OTHER_SCRIPT, SCRIPT[::-1])
    for n in chunks:
        rollout = sampler.collect(n)
        assert rollout.observations.shape == (n, 3, 2)
        assert rollout.observations.flags.c_contiguous
        check_transitions(rollout, counting_environments(sampler))


@pytest.mark.parametrize("mode", MODES)
def test_chunks_do_not_matter(mode: Any) -> None:
    scripts = (SCRIPT, OTHER_SCRIPT)
    whole = sampler_for(mode, *scripts).collect(24)
    sampler = sampler_for(mode, *scripts)
    chunks = [1, 5, 2, 16]
    parts = [sampler.collect(n) for n in chunks]
    for name in ARRAYS:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    begins = np.cumsum([0, *chunks[:-1]])
    for name in ("final_observations", "episode_returns", "episode_lengths"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for name in ("final_indices", "episode_indices"):
        shifted = [getattr(p, name) + np.array([b, 0]) for p, b in zip(parts, begins, strict=True)]
        np.testing.assert_array_equal(np.concatenate(shifted), getattr(whole, name))
    np.testing.assert_array_equal(parts[-1].last_observations, whole.last_observations)


def test_rollouts_own_their_arrays() -> None:
    sampler = in_process(SCRIPT)
    first = sampler.collect(5)
    kept = {name: getattr(first, name).copy() for name in (*ARRAYS, "last_observations")}
    sampler.collect(5)
    for name, values in kept.items():
        np.testing.assert_array_equal(getattr(first, name), values)


def test_groups_of_environments_give_the_same_bits_as_the_whole() -> None:
    scripts = (SCRIPT, OTHER_SCRIPT, SCRIPT)
    whole_sampler = in_process(*scripts)
    whole = whole_sampler.collect(30)
    left, right = in_process(*scripts[:1]), in_process(*scripts[1:], first_index=1)
    joined = Rollout.concatenate([left.collect(30), right.collect(30)])
    for name in vars(whole):
        if name != "seconds":
            np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    seeds = [env.seeds for env in counting_environments(whole_sampler)]
    assert seeds == [env.seeds for s in (left, right) for env in counting_environments(s)]


def test_async_vector_environments_give_the_same_rollout() -> None:
    environments = [lambda s=s: CountingEnv(s) for s in (SCRIPT, OTHER_SCRIPT)]
    vector_env = AsyncVectorEnv(environments, autoreset_mode=AutoresetMode.SAME_STEP)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=7)
    rollout = sampler.collect(12)
    sampler.close()
    expected = in_process(SCRIPT, OTHER_SCRIPT).collect(12)
    for name in (*ARRAYS, "final_observations", "final_indices", "episode_returns"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))


class AnySpaces(gymnasium.Env[Any, Any]):
    """Random observations of any space; accepts actions of any space and checks them."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, bool(self.np_random.random() < 0.2), {}


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), spaces.Discrete(3, start=2)),
        (spaces.Discrete(5, start=1), spaces.MultiDiscrete([2, 3], start=[1, 0])),
        (spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)),
        (spaces.MultiBinary([2, 2]), spaces.Box(-0.1, 0.1, (2, 2), np.float64)),
        (
            spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2, 2))}),
            spaces.Box(-0.1, 0.1, (1,)),
        ),
        (spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,)))), spaces.Discrete(2)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_all_spaces_run_end_to_end(observation_space: Any, action_space: Any, mode: Any) -> None:
    def make() -> AnySpaces:
        return AnySpaces(observation_space, action_space)

    env = make if mode is None else SyncVectorEnv([make, make], autoreset_mode=mode)
    sampler = core_sampler(env, n_envs=2)
    rollout = sampler.collect(40)
    adapter = sampler.action_adapter
    assert rollout.actions.shape == (40, 2, adapter.action_dim)
    assert rollout.actions.dtype == adapter.stored_dtype("float32")
    assert rollout.truncated.any()
    assert len(rollout.final_observations) == rollout.truncated.sum()
    if not adapter.is_discrete:
        # clipped for the environment, stored as they were sampled
        assert np.abs(rollout.actions).max() > 0.1
