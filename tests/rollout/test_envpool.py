"""EnvPool: every valid row is a true transition, checked against the equations of motion."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import pytest

from trpo_fast import core
from trpo_fast.envs import make_environment
from trpo_fast.envs.envpool import make_pool, step_of
from trpo_fast.rollout import EnvPoolSampler, Rollout, VectorEnvSampler, make_sampler

envpool = pytest.importorskip("envpool")


def sampler_of(env: Any, **settings: Any) -> Any:
    sampler = make_sampler(env, **settings)
    policy = core.Policy(
        sampler.observation_encoder.dim, sampler.action_adapter.distribution, output_gain=1.0
    )
    sampler.bind(policy, seed=4)
    return sampler


def successor(rollout: Rollout, t: int, e: int) -> Any:
    """The true s_{t+1} of a step, where one is stored."""
    if rollout.truncated[t, e] and not rollout.terminated[t, e]:
        (m,) = np.flatnonzero((rollout.final_indices == (t, e)).all(axis=1))
        return rollout.final_observations[m]
    if rollout.terminated[t, e]:
        return None
    if t + 1 < rollout.n_steps:
        return rollout.observations[t + 1, e]
    return rollout.last_observations[e]


def test_cartpole_by_the_equations_of_motion() -> None:
    sampler = sampler_of("envpool:CartPole-v1", n_envs=4, env_kwargs={"max_episode_steps": 25})
    assert isinstance(sampler, EnvPoolSampler)
    assert sampler.name == "envpool:CartPole-v1"
    rollouts = [sampler.collect(n) for n in (60, 1, 60)]
    model = gymnasium.make("CartPole-v1").unwrapped
    model.reset()
    lengths = np.zeros(4, int)
    counted: list[int] = []
    ends = {"terminated": 0, "truncated": 0}
    for rollout in rollouts:
        for t in range(rollout.n_steps):
            for e in range(4):
                if not rollout.valid[t, e]:
                    assert lengths[e] == 0  # only after an end
                    assert rollout.rewards[t, e] == 0
                    continue
                model.state = rollout.observations[t, e].astype(float)
                model.steps_beyond_terminated = None
                expected, reward, terminated, _, _ = model.step(int(rollout.actions[t, e, 0]))
                lengths[e] += 1
                truncated = lengths[e] == 25
                assert rollout.rewards[t, e] == reward
                assert rollout.truncated[t, e] == truncated
                assert rollout.terminated[t, e] == (terminated and not truncated)
                got = successor(rollout, t, e)
                if got is not None:
                    np.testing.assert_allclose(got, expected, atol=1e-5)
                for how in ends:
                    ends[how] += int(getattr(rollout, how)[t, e])
                if terminated or truncated:
                    counted.append(lengths[e])
                    lengths[e] = 0
    assert min(ends.values()) > 2
    assert sum(rollout.n_transitions for rollout in rollouts) < 121 * 4
    got_lengths = np.concatenate([rollout.episode_lengths for rollout in rollouts])
    assert got_lengths.tolist() == counted


def test_pendulum_is_cut_at_its_time_limit() -> None:
    sampler = sampler_of("envpool:Pendulum-v1", n_envs=2)
    rollout = sampler.collect(420)
    # 200 steps, a reset, 200 steps, a reset
    for e in range(2):
        assert np.flatnonzero(rollout.truncated[:, e]).tolist() == [199, 400]
        assert np.flatnonzero(~rollout.valid[:, e]).tolist() == [200, 401]
    assert not rollout.terminated.any()
    assert rollout.final_indices.tolist() == [[199, 0], [199, 1], [400, 0], [400, 1]]
    # the true final observation: cos, sin, speed under the torque that was taken
    for (t, e), final in zip(rollout.final_indices, rollout.final_observations, strict=True):
        cosine, sine, speed = rollout.observations[t, e].astype(float)
        torque = float(np.clip(rollout.actions[t, e, 0], -2, 2))
        new_speed = np.clip(speed + (15 * sine + 3 * torque) * 0.05, -8, 8)
        angle = np.arctan2(sine, cosine) + new_speed * 0.05
        expected = [np.cos(angle), np.sin(angle), new_speed]
        np.testing.assert_allclose(final, expected, atol=1e-4)
    assert rollout.episode_lengths.tolist() == [200] * 4


def test_seeds_threads_and_state() -> None:
    first = sampler_of("envpool:CartPole-v1", n_envs=3, n_workers=1)
    second = sampler_of("envpool:CartPole-v1", n_envs=3, n_workers=2)
    one, two = first.collect(50), second.collect(50)
    np.testing.assert_array_equal(one.observations, two.observations)
    assert not np.array_equal(one.observations[:, 0], one.observations[:, 1])
    # resumed: new episodes, not those of the beginning
    second.load_state_dict(first.state_dict())
    assert not np.array_equal(second.collect(1).observations[0], one.observations[0])


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1", "HalfCheetah-v5"])
def test_steps_around_the_dictionaries_are_those_of_step(task: str) -> None:
    kwargs = {"max_episode_steps": 20}
    pools = [
        make_pool(f"envpool:{task}", seeds=[1, 2, 3], kwargs=kwargs, n_threads=2) for _ in range(2)
    ]
    direct, expected = step_of(pools[0]), pools[1].step
    assert direct != pools[0].step
    space = pools[0].action_space
    space.seed(0)
    for pool in pools:
        pool.reset()
    ends = 0
    for _ in range(100):
        actions = np.stack([space.sample() for _ in range(3)])
        got, wanted = direct(actions), expected(actions)
        for mine, theirs in zip(got[:4], wanted[:4], strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        ends += int(wanted[3].sum())
    assert ends >= 3


def test_a_pool_of_another_kind_is_stepped_by_its_step() -> None:
    several_at_a_time = envpool.make_gymnasium("CartPole-v1", num_envs=4, batch_size=2)
    assert step_of(several_at_a_time) == several_at_a_time.step
    a_dictionary = envpool.make_gymnasium("FetchReach-v4", num_envs=2)
    assert step_of(a_dictionary) == a_dictionary.step


def test_budgets() -> None:
    sampler = sampler_of("envpool:CartPole-v1", n_envs=3)
    twin = sampler_of("envpool:CartPole-v1", n_envs=3)
    rollout = sampler.collect(sampler.budget("total_steps", 200))
    # autoresets are made up for
    assert 200 <= rollout.n_transitions <= 202 < rollout.valid.size
    expected = twin.collect(rollout.n_steps)
    for name in ("observations", "valid", "final_indices", "episode_indices", "episode_lengths"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))
    with pytest.raises(
        ValueError, match="sampling: expected 'steps' or 'total_steps' for envpool:"
    ):
        sampler.budget("episodes", 200)


def test_a_pool_of_the_user_is_taken_without_a_warning() -> None:
    pool = envpool.make_gymnasium("CartPole-v1", num_envs=3, seed=1)
    sampler = sampler_of(pool)
    assert isinstance(sampler, VectorEnvSampler)
    assert sampler.n_envs == 3
    rollout = sampler.collect(60)
    assert rollout.rewards.sum() == rollout.n_transitions
    assert not rollout.valid.all()


def test_one_environment_for_evaluation() -> None:
    environment = make_environment("envpool:CartPole-v1", max_episode_steps=7)
    first, _ = environment.reset(seed=3)
    assert environment.observation_space.contains(first)
    ends = [environment.step(environment.action_space.sample())[2:4] for _ in range(7)]
    assert ends[-1] == (False, True)
    again, _ = environment.reset()
    assert not np.array_equal(again, first)
    np.testing.assert_array_equal(environment.reset(seed=3)[0], first)


def test_mistakes_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"EnvPool has no task 'CartPol-v1'; did you mean CartPole"
    ):
        make_sampler("envpool:CartPol-v1")
    with pytest.raises(ValueError, match=r"env_kwargs: expected none of .*got num_envs"):
        make_sampler("envpool:CartPole-v1", env_kwargs={"num_envs": 3})
    with pytest.raises(ValueError, match=r"EnvPool cannot make 'CartPole-v1': .*gravity"):
        make_sampler("envpool:CartPole-v1", env_kwargs={"gravity": 3})
    with pytest.raises(ValueError, match="EnvPool has no way to replace one environment"):
        make_sampler("envpool:CartPole-v1", restart_crashed_environments=True)
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(ImportError, match=r'pip install "trpo_fast\[envpool\]"'):
        make_sampler("envpool:CartPole-v1")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be bound here")
@pytest.mark.parametrize(
    ("processors", "n_threads", "kwargs", "bound_from"),
    [
        ({0, 1}, 2, {}, 0),
        ({4, 5, 6, 7}, 4, {}, 4),
        ({0, 1, 2, 3}, 2, {}, None),  # other programs may use the rest: leave it to the scheduler
        ({0, 2}, 2, {}, None),
        ({0, 1}, 2, {"num_threads": 2}, None),
        ({0, 1}, 2, {"thread_affinity_offset": -1}, -1),
    ],
)
def test_threads_are_bound_where_they_are_as_many_as_processors(
    processors: set[int],
    n_threads: int,
    kwargs: dict[str, int],
    bound_from: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Any] = {}

    def make_gymnasium(task: str, **settings: Any) -> Any:
        made.update(settings)
        raise ValueError("seen")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    monkeypatch.setattr(envpool, "make_gymnasium", make_gymnasium)
    with pytest.raises(ValueError, match="seen"):
        make_pool("envpool:CartPole-v1", seeds=[1, 2], kwargs=kwargs, n_threads=n_threads)
    assert made.get("thread_affinity_offset") == bound_from
    assert made["num_threads"] == kwargs.get("num_threads", n_threads)


@pytest.mark.skipif(
    "Game2048-v1" not in envpool.list_all_envs(), reason="EnvPool before its tasks of Jumanji"
)
def test_masks_are_a_part_of_the_observations() -> None:
    sampler = sampler_of("envpool:Game2048-v1", n_envs=4)
    assert sampler.mask_source == "observation:action_mask"
    assert sampler.observation_encoder.dim == 16  # the mask is no input
    transitions = sampler.collect(150).transitions()
    boards = transitions.observations.reshape(-1, 4, 4)
    # up, right, down, left: a move is allowed where it moves or merges something
    for board, mask in zip(boards, transitions.action_masks, strict=True):
        assert mask.tolist() == [moves(np.rot90(board, k)) for k in (1, 2, 3, 0)]
    chosen = transitions.actions[:, 0]
    assert transitions.action_masks[np.arange(len(chosen)), chosen].all()
    assert not transitions.action_masks.all()
    sampler.close()


def moves(board: Any) -> bool:
    """Whether tiles of 2048 can go left."""
    return any(
        (row[i] == 0 and row[i + 1] != 0) or (row[i] != 0 and row[i] == row[i + 1])
        for row in board
        for i in range(3)
    )
