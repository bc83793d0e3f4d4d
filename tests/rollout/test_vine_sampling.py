"""Trunks and branches: exact Q values, common random numbers, ends, any number of workers."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import core, tabular
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import InProcessSampler, make_sampler
from trpo_fast.rollout.vine import VineOptions
from vine_stand_ins import Noise, growing, noise_policy, sampler_of, softmax_policy


class Table(gym.Env[Any, Any]):
    """A finite process with known matrices; the observation is the one-hot state."""

    def __init__(self, mdp: tabular.FiniteMDP, noise: float = 0.0) -> None:
        self.mdp, self.noise = mdp, noise
        self.observation_space = spaces.Discrete(mdp.n_states)
        self.action_space = spaces.Discrete(mdp.n_actions)

    def _draw(self, probabilities: Any) -> int:
        return int(self.np_random.choice(len(probabilities), p=probabilities))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self._draw(self.mdp.initial_distribution)
        return self.state, {}

    def step(self, action: Any) -> Any:
        reward = self.mdp.rewards[self.state, action] + self.noise * self.np_random.normal()
        self.state = self._draw(self.mdp.transitions[self.state, action])
        return self.state, reward, False, False, {}


def deterministic_mdp(n_states: int = 5, n_actions: int = 3, seed: int = 0) -> tabular.FiniteMDP:
    rng = np.random.default_rng(seed)
    successors = rng.integers(n_states, size=(n_states, n_actions))
    successors[:, 0] = (np.arange(n_states) + 1) % n_states  # no state is out of reach
    return tabular.FiniteMDP(
        transitions=np.eye(n_states)[successors],
        rewards=rng.normal(size=(n_states, n_actions)),
        initial_distribution=np.full(n_states, 1.0 / n_states),
        gamma=0.9,
    )


# ---- branches


def test_branches_of_a_deterministic_mdp_give_the_exact_q() -> None:
    """One step and the exact V: Q is exact, in every state of a trunk that visits them all."""
    mdp = deterministic_mdp()
    policy = softmax_policy(5, 3, np.zeros((5, 3)))
    exact = tabular.evaluate(mdp, mdp.uniform_policy())
    options = VineOptions(states=120, branch_steps=1)
    sampler = sampler_of(lambda: Table(mdp), options, policy)
    branches = sampler.collect(150).branches
    states = branches.observations.argmax(axis=1)
    assert set(states) == set(range(5))
    q = branches.q_values(lambda rows: rows @ exact.V)
    np.testing.assert_allclose(q, exact.Q[states], atol=1e-12)
    assert branches.n_steps == 120 * 3
    # without V only the reward is left
    np.testing.assert_allclose(branches.q_values(None), mdp.rewards[states])


def test_longer_branches_are_unbiased() -> None:
    mdp = tabular.random_mdp(n_states=4, n_actions=2, gamma=0.8, seed=3)
    policy = softmax_policy(4, 2, np.zeros((4, 2)))
    exact = tabular.evaluate(mdp, mdp.uniform_policy())
    options = VineOptions(states=900, branch_steps=6)
    sampler = sampler_of(lambda: Table(mdp, noise=0.1), options, policy, gamma=0.8)
    branches = sampler.collect(1000).branches
    q = branches.q_values(lambda rows: rows @ exact.V)
    states = branches.observations.argmax(axis=1)
    for s in range(4):
        mine = q[states == s]
        error = 4.5 * mine.std(axis=0) / np.sqrt(len(mine))
        assert (np.abs(mine.mean(axis=0) - exact.Q[s]) < error).all()


def test_branches_of_a_state_share_their_random_numbers() -> None:
    options = VineOptions(states=10, branches=3, branch_steps=8)
    sampler = sampler_of(Noise, options, noise_policy())
    branches = sampler.collect(40).branches
    assert branches.estimator == "self_normalized"
    # only the first action tells the branches of a state apart
    ends = branches.end_observations
    np.testing.assert_array_equal(ends, np.broadcast_to(ends[:, :1], ends.shape))
    gained = branches.returns - branches.returns[:, :1]
    first = np.clip(branches.actions[..., 0], -1.0, 1.0)
    np.testing.assert_allclose(gained, first - first[:, :1], atol=1e-10)
    # but different states draw different numbers, and first actions differ
    assert len(np.unique(branches.returns)) == 30
    assert len(np.unique(branches.actions)) == 30


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_trunk_is_what_it_would_be_alone(n_envs: int) -> None:
    policy = noise_policy()
    options = VineOptions(states=7, branches=2, branch_steps=5)
    sampler = sampler_of(lambda: Noise(9), options, policy, n_envs=n_envs)
    alone = InProcessSampler([Noise(9) for _ in range(n_envs)], dtype="float64")
    alone.bind(policy, seed=11)
    again = sampler_of(lambda: Noise(9), options, policy, n_envs=n_envs)
    for _ in range(3):
        vine, trunk, twin = sampler.collect(20), alone.collect(20), again.collect(20)
        for name in ("observations", "actions", "rewards", "terminated", "last_observations"):
            np.testing.assert_array_equal(getattr(vine, name), getattr(trunk, name))
            np.testing.assert_array_equal(getattr(vine, name), getattr(twin, name))
        for name in ("actions", "returns", "discounts", "end_observations", "indices"):
            np.testing.assert_array_equal(
                getattr(vine.branches, name), getattr(twin.branches, name)
            )
        assert vine.n_transitions == 20 * n_envs + vine.branches.lengths.sum()
        # a branch starts where the trunk was
        t, e = vine.branches.indices.T
        after = np.concatenate([trunk.observations[1:], trunk.last_observations[None]])
        np.testing.assert_array_equal(vine.branches.observations, after[t, e])


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("steps", [None, 4])
def test_ends_of_branches(truncates: bool, bootstrap: bool, steps: int | None) -> None:
    options = VineOptions(states=20, branches=2, branch_steps=steps, bootstrap=bootstrap)
    sampler = sampler_of(lambda: Noise(6, truncates), options, noise_policy())
    branches = sampler.collect(30).branches
    left = 6 - (branches.indices[:, 0] + 1) % 6  # steps to the end of the episode
    lengths = np.minimum(left, 10**9 if steps is None else steps)
    np.testing.assert_array_equal(branches.lengths, np.repeat(lengths[:, None], 2, axis=1))
    ends = (lengths == left) & (not truncates)
    expected = np.where(ends | (not bootstrap), 0.0, 0.9**lengths)
    np.testing.assert_allclose(branches.discounts[:, 0], expected)
    q = branches.q_values(lambda rows: np.full(len(rows), 1000.0))
    np.testing.assert_allclose(q - branches.returns, 1000.0 * branches.discounts, atol=1e-9)


def test_how_branches_start_by_default() -> None:
    """All actions of up to 8, else 4 that the policy draws."""
    D = core.Distribution
    assert VineOptions().estimator(D("categorical", (8,))) == ("exact_sum", 8)
    assert VineOptions().estimator(D("categorical", (18,))) == ("self_normalized", 4)
    assert VineOptions().estimator(D("gaussian", (2,))) == ("self_normalized", 4)


# ---- workers


def assert_same(got: Any, expected: Any) -> None:
    """Trunk and branches, bit for bit."""
    for name in ("observations", "actions", "rewards", "truncated", "last_observations"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    for name, array in vars(expected.branches).items():
        np.testing.assert_array_equal(getattr(got.branches, name), array, err_msg=name)


def small_policy(sampler: Any) -> core.Policy:
    return core.Policy(
        sampler.observation_encoder.dim,
        sampler.action_adapter.distribution,
        hidden_sizes=(8, 8),
        seed=3,
        output_gain=1.0,
    )


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("CartPole-v1", VineOptions(states=23, branch_steps=None)),
        ("Hopper-v5", VineOptions(states=9, branches=3, branch_steps=5)),
    ],
)
def test_the_same_bits_for_any_number_of_workers(env: str, options: VineOptions) -> None:
    trunks = [make_sampler(env, n_envs=5, n_workers=n) for n in (0, 1, 2, 4)]
    policy = small_policy(trunks[0])
    reference, *others = (growing(trunk, options, policy) for trunk in trunks)
    twos = others[1]
    for n_steps in (20, 33):
        expected = reference.collect(n_steps)
        assert expected.branches.n_steps > 0
        for sampler in others:
            assert_same(sampler.collect(n_steps), expected)
    # another policy, and a hook between the steps of the trunk
    policy.parameters = policy.parameters * 1.5
    steps: list[int] = []
    expected = reference.collect(12)
    assert_same(twos.collect(12, on_step=lambda: steps.append(1)), expected)
    assert len(steps) == 12
    # stopped, and gone on with elsewhere
    state = {**twos.state_dict(), **twos.environment_state()}
    expected = reference.collect(15)
    for sampler in (reference, *others):
        sampler.load_environment_state(state)
        assert_same(sampler.collect(15), expected)
    for sampler in (reference, *others):
        sampler.close()


def test_fewer_states_than_workers() -> None:
    trunks = [make_sampler("CartPole-v1", n_envs=4, n_workers=n) for n in (0, 4)]
    policy = small_policy(trunks[0])
    here, there = (growing(trunk, VineOptions(states=1), policy) for trunk in trunks)
    assert_same(there.collect(5), here.collect(5))
    there.close()


# ---- trouble


class Slow(Noise):
    """From tick 60 on, beyond the check at the start, every step takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def step(self, action: Any) -> Any:
        if self.ticks >= 60:
            time.sleep(self.seconds)
        return super().step(action)


def test_workers_that_hang_in_a_branch_are_told_from_slow_ones() -> None:
    # 60 steps of trunk, then 2 branches of 8 steps
    options = VineOptions(states=1, branches=2, branch_steps=8)
    for seconds in (0.25, 60.0):
        trunk = make_sampler(lambda seconds=seconds: Slow(seconds), n_envs=1, n_workers=1)
        policy = small_policy(trunk)
        sampler = growing(trunk, options, policy)
        trunk.pool.workers[0].timeout = 3.0  # a busy machine may take longer to start it
        sampler._rollout_set = lambda *_: np.array([[59, 0]])  # type: ignore[method-assign]
        if seconds < 1.0:
            assert sampler.collect(60).branches.n_steps == 16
        else:
            text = r"worker 0 \(branches of the vine\): nothing came back for 3 seconds"
            with pytest.raises(EnvironmentFailure, match=text):
                sampler.collect(60)
        sampler.close()


class Broken(Noise):
    def __init__(self, value: float, after: int) -> None:
        super().__init__()
        self.value, self.after = value, after

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        if self.ticks > self.after and self.value == 0.0:
            raise RuntimeError("arm fell off")
        return observation, self.value if self.ticks > self.after else reward, *rest


@pytest.mark.parametrize("value", [0.0, np.inf])
@pytest.mark.parametrize("n_workers", [0, 1])
def test_trouble_inside_a_branch_is_named(value: float, n_workers: int) -> None:
    options = VineOptions(states=30, branches=2, branch_steps=60)
    trunk = make_sampler(lambda: Broken(value, 55), n_envs=1, n_workers=n_workers, dtype="float64")
    sampler = growing(trunk, options, noise_policy())
    text = "the environment raised RuntimeError: arm fell off" if value == 0.0 else "is NaN or inf"
    with pytest.raises((RuntimeError, ValueError), match=r"branch 0 from step \d+.*" + text):
        sampler.collect(40)
    sampler.close()
