"""Vine sampling and single path: estimators by hand and against exact MDPs, sampling, agents."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import core, tabular
from trpo_fast.algorithms.single_path import SinglePathTRPO
from trpo_fast.algorithms.vine import VineTRPO
from trpo_fast.core import all_actions, vine_gradient, vine_update, vine_value
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import InProcessSampler, Sampler, make_sampler
from trpo_fast.rollout.vine import VineOptions, VineSampler
from trpo_fast.snapshots import SnapshotError


def softmax_policy(n_states: int, n_actions: int, logits: Any) -> core.Policy:
    """pi(a|s) = softmax of a table, as a network without hidden layers on one-hot states."""
    policy = core.Policy(
        n_states,
        core.Distribution("categorical", (n_actions,)),
        hidden_sizes=(),
        dtype="float64",
    )
    table = np.asarray(logits, np.float64)
    policy.parameters = np.concatenate([table.T.ravel(), np.zeros(n_actions)])
    return policy


def gaussian_policy(seed: int = 0) -> core.Policy:
    return core.Policy(
        3,
        core.Distribution("gaussian", (2,)),
        hidden_sizes=(8,),
        dtype="float64",
        output_gain=1.0,
        seed=seed,
    )


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


def sampler_of(
    env: Any, options: VineOptions, policy: core.Policy, gamma: float = 0.9, n_envs: int = 1
) -> VineSampler:
    def make() -> Any:
        return env() if callable(env) else copy.deepcopy(env)

    environments = [make() for _ in range(n_envs)]
    trunk = InProcessSampler(environments, dtype=policy.dtype, make_copy=make)
    return growing(trunk, options, policy, gamma)


def growing(
    trunk: Sampler, options: VineOptions, policy: core.Policy, gamma: float = 0.9
) -> VineSampler:
    sampler = VineSampler(trunk, options, gamma=gamma)
    sampler.bind(policy, seed=11)
    return sampler


# ---- estimators


def test_sum_over_all_actions_by_hand() -> None:
    """Two states, two actions, probabilities 1/4 and 3/4, then 1/2 and 1/2."""
    policy = softmax_policy(2, 2, np.log([[0.25, 0.75], [0.5, 0.5]]))
    old = policy.parameters
    actions = np.broadcast_to([[0], [1]], (2, 2, 1))
    vine: Any = (np.eye(2), actions, [[4.0, 8.0], [1.0, 3.0]])
    assert vine_value(policy, *vine, estimator="exact_sum") == pytest.approx(4.5)  # V is 7 and 2
    # d L / d logit(s, a) = 1/N pi(a|s) A(s, a), A = [-3, 1], [-1, 1]; W is (action, state), then biases
    expected = np.array([[-0.375, -0.25], [0.375, 0.25]])
    np.testing.assert_allclose(
        vine_gradient(policy, *vine, estimator="exact_sum"),
        [*expected.ravel(), *expected.sum(1)],
        atol=1e-15,
    )
    policy.parameters = np.concatenate([np.log([[0.5, 0.2], [0.5, 0.8]]).ravel(), np.zeros(2)])
    # sum pi Q: (4 + 8)/2 = 6 and 0.2 + 2.4 = 2.6, whatever the old policy was
    for parameters in (None, old):
        value = vine_value(policy, *vine, estimator="exact_sum", old_parameters=parameters)
        assert value == pytest.approx(4.3)


def test_self_normalised_estimator_by_hand() -> None:
    """One state, three samples; the ratio of pi to the old one is 2 for action 0, 2/3 for 1."""
    policy = softmax_policy(1, 2, np.log([[0.25, 0.75]]))
    old = policy.parameters
    vine: Any = ([[1.0]], [[[0], [1], [1]]], [[10.0, 1.0, 4.0]])
    assert vine_value(policy, *vine, estimator="self_normalized") == pytest.approx(5.0)
    # 1/K sum (Q_k - 5) grad log pi(a_k): scores for logit 0: 0.75 for action 0, -0.25 for action 1
    slope = (5 * 0.75 + (-4 - 1) * -0.25) / 3
    np.testing.assert_allclose(
        vine_gradient(policy, *vine, estimator="self_normalized"),
        [slope, -slope, slope, -slope],
        atol=1e-15,
    )
    policy.parameters = np.concatenate([np.log([0.5, 0.5]), np.zeros(2)])
    w = np.array([2.0, 2 / 3, 2 / 3])
    value = vine_value(policy, *vine, estimator="self_normalized", old_parameters=old)
    assert value == pytest.approx((w @ [10.0, 1.0, 4.0]) / w.sum())


@pytest.mark.parametrize("estimator", ["exact_sum", "self_normalized"])
def test_gradient_is_the_derivative_of_the_value(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    if estimator == "exact_sum":
        policy = softmax_policy(4, 3, rng.normal(size=(4, 3)))
        x, actions = rng.normal(size=(6, 4)), np.broadcast_to([[0], [1], [2]], (6, 3, 1))
    else:
        policy = gaussian_policy()
        x, actions = rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 2))
    vine: Any = (x, actions, rng.normal(size=(6, 3)))
    theta, direction = policy.parameters, rng.normal(size=policy.n_parameters)
    values = []
    for sign in (1, -1):
        policy.parameters = theta + sign * 1e-5 * direction
        values.append(vine_value(policy, *vine, estimator=estimator, old_parameters=theta))
    policy.parameters = theta
    slope = (values[0] - values[1]) / 2e-5
    gradient = vine_gradient(policy, *vine, estimator=estimator)
    assert gradient @ direction == pytest.approx(slope, rel=1e-7)


def test_a_shift_of_q_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    x, actions, Q = rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 4))
    shifted = Q + rng.normal(size=(5, 1)) * 10
    one, other = gaussian_policy(), gaussian_policy()
    a = vine_update(one, x, actions, Q, estimator="self_normalized")
    b = vine_update(other, x, actions, shifted, estimator="self_normalized")
    assert a.accepted
    assert b.accepted
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(200))
def test_full_support_equals_the_exact_surrogate_of_an_mdp(seed: int) -> None:
    """L_pi(pi') = J(pi) + sum_s rho(s) sum_a pi'(a|s) A(s, a), state by state from the vine."""
    rng = np.random.default_rng(seed)
    mdp = tabular.random_mdp(n_states=6, n_actions=3, gamma=rng.uniform(0.5, 0.98), seed=seed)
    old_logits, new_logits = rng.normal(size=(2, 6, 3))
    policy = softmax_policy(6, 3, old_logits)
    exact = tabular.evaluate(mdp, tabular.softmax(old_logits))
    actions = np.broadcast_to(np.arange(3)[:, None], (1, 3, 1))
    vines: list[Any] = [(np.eye(6)[[s]], actions, exact.Q[[s]]) for s in range(6)]
    old = policy.parameters
    values = [vine_value(policy, *vine, estimator="exact_sum") for vine in vines]
    np.testing.assert_allclose(values, exact.V, atol=1e-12)
    gradient = sum(
        exact.visitation[s] * vine_gradient(policy, *vine, estimator="exact_sum")
        for s, vine in enumerate(vines)
    )
    policy.parameters = np.concatenate([new_logits.T.ravel(), np.zeros(3)])
    vine_sum = exact.J + sum(
        exact.visitation[s]
        * (vine_value(policy, *vine, estimator="exact_sum", old_parameters=old) - values[s])
        for s, vine in enumerate(vines)
    )
    surrogate = tabular.surrogate(exact, tabular.softmax(new_logits))
    assert vine_sum == pytest.approx(surrogate, abs=1e-11)
    np.testing.assert_allclose(
        np.asarray(gradient)[:18].reshape(3, 6).T, tabular.policy_gradient(exact), atol=1e-12
    )


# ---- sampling


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


class Noise(gym.Env[Any, Any]):
    """Rewards are the action plus noise; the observation is noise."""

    def __init__(self, ends_after: int = 10**9, truncates: bool = False) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.ends_after, self.truncates = ends_after, truncates

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.ticks = 0
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> Any:
        self.ticks += 1
        end = self.ticks >= self.ends_after
        reward = float(action[0]) + 100.0 * self.np_random.normal()
        observation = self.np_random.normal(size=2)
        return observation, reward, end and not self.truncates, end and self.truncates, {}


def noise_policy() -> core.Policy:
    return core.Policy(2, core.Distribution("gaussian", (1,)), dtype="float64", seed=3)


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


def test_all_actions_of_discrete_spaces() -> None:
    D = core.Distribution
    np.testing.assert_array_equal(all_actions(D("categorical", (3,))), [[0], [1], [2]])
    multi = all_actions(D("multi_categorical", (2, 3)))
    np.testing.assert_array_equal(multi, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    np.testing.assert_array_equal(
        all_actions(D("bernoulli", (2,))), [[0, 0], [0, 1], [1, 0], [1, 1]]
    )
    assert VineOptions().estimator(D("categorical", (8,))) == ("exact_sum", 8)
    assert VineOptions().estimator(D("categorical", (18,))) == ("self_normalized", 4)
    assert VineOptions().estimator(D("gaussian", (2,))) == ("self_normalized", 4)


# ---- the step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_trust_region_holds(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        policy = core.Policy(3, core.Distribution("gaussian", (2,)), dtype=dtype, seed=trial)
        before = policy.parameters
        x = rng.normal(size=(12, 3)).astype(dtype)
        actions = np.stack([policy.act(x, seed=k) for k in range(4)], axis=1)
        Q = rng.normal(size=(12, 4)) * 10.0 ** rng.integers(-3, 4)
        update = vine_update(policy, x, actions, Q, estimator="self_normalized", max_kl=0.02)
        if update.accepted:
            assert policy.kl(x, before).mean() <= 0.02
            assert update.kl == pytest.approx(policy.kl(x, before).mean())
            assert update.surrogate_gain > 0
        else:
            np.testing.assert_array_equal(policy.parameters, before)


def test_refused_steps_leave_every_bit() -> None:
    policy = gaussian_policy()
    before = policy.parameters
    x, actions = np.ones((2, 3)), np.arange(8.0).reshape(2, 2, 2)
    alike = vine_update(policy, x, actions, [[0.1, 0.1], [3.0, 3.0]], estimator="self_normalized")
    assert alike.status == "zero_gradient"
    nan = vine_update(policy, x, actions, [[0.1, np.nan], [3, 3]], estimator="self_normalized")
    assert nan.status == "non_finite"
    hard = vine_update(
        policy,
        x,
        actions,
        [[1.0, 2.0], [3.0, 1.0]],
        estimator="self_normalized",
        max_kl=1e6,
        max_backtracks=0,
        cg_damping=0.0,
    )
    assert hard.status == "line_search_failed"
    np.testing.assert_array_equal(policy.parameters, before)


def test_the_step_is_that_of_the_core() -> None:
    """One sampled pair a state, far apart: the same direction as the core on the same rows."""
    rng = np.random.default_rng(5)
    policy, twin = softmax_policy(3, 2, np.zeros((3, 2))), softmax_policy(3, 2, np.zeros((3, 2)))
    actions = np.broadcast_to([[0], [1]], (3, 2, 1))
    Q = rng.normal(size=(3, 2))
    update = vine_update(policy, np.eye(3), actions, Q, estimator="exact_sum", max_backtracks=0)
    advantages = (Q - Q.mean(axis=1, keepdims=True)).ravel()
    core_update = twin.update(np.repeat(np.eye(3), 2, axis=0), actions.reshape(6, 1), advantages)
    assert update.accepted
    assert core_update.backtracks == 0
    np.testing.assert_allclose(policy.parameters, twin.parameters, atol=1e-12)
    for name in ("kl", "surrogate_gain", "step_norm", "kl_predicted", "gradient_norm", "entropy"):
        assert getattr(update, name) == pytest.approx(getattr(core_update, name), rel=1e-9)


# ---- agents


def test_cartpole_learns_by_vine() -> None:
    returns = []
    for seed in (0, 1):
        agent = VineTRPO(
            "CartPole-v1",
            vine={"states": 64, "branch_steps": 32},
            batch_size=512,
            n_envs=4,
            seed=seed,
        )
        agent.learn(60_000, progress=False)
        returns.append(agent.evaluate(5).mean_return)
        record = agent.last_record
        assert record["vine/branches"] == 2
        assert record["vine/branch_steps"] <= 64 * 2 * 32
        assert record["time/timesteps"] == agent.timesteps >= 60_000
        agent.close()
    # one run hangs on the last digits: twelve seeds gave 500 nine times, and 279, 358 and 492
    assert np.mean(returns) > 300


def test_cartpole_learns_without_a_value_function() -> None:
    options = VineOptions(states=32, branch_steps=None, bootstrap=False)
    agent = VineTRPO("CartPole-v1", vine=options, batch_size=512, n_envs=4, seed=1)
    first = agent.value_function.parameters
    agent.learn(60_000, progress=False)
    np.testing.assert_array_equal(agent.value_function.parameters, first)
    assert agent.evaluate(5).mean_return > 150
    agent.close()


def test_continuous_actions_and_a_checkpoint(tmp_path: Path) -> None:
    options = VineOptions(states=8, branches=3, branch_steps=4)
    settings: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "hidden_sizes": (8,), "seed": 2}
    agent = VineTRPO("Hopper-v5", vine=options, **settings)
    agent.learn(300, progress=False)
    path = agent.save(tmp_path / "vine.safetensors")
    loaded = VineTRPO.load(path)
    assert isinstance(loaded, VineTRPO)
    assert loaded.config.vine == options
    np.testing.assert_array_equal(loaded.policy.parameters, agent.policy.parameters)
    # both go on alike, from the middle of their episodes
    for continued in (agent, loaded):
        continued.learn(300, progress=False)
    np.testing.assert_array_equal(loaded.policy.parameters, agent.policy.parameters)
    assert loaded.timesteps == agent.timesteps
    # twice the same
    twin = VineTRPO("Hopper-v5", vine=options, **settings)
    twin.learn(agent.timesteps, progress=False)
    np.testing.assert_array_equal(twin.policy.parameters, agent.policy.parameters)
    for a in (agent, loaded, twin):
        a.close()


def test_single_path_takes_whole_episodes() -> None:
    agent = SinglePathTRPO(
        "CartPole-v1", batch_size=256, n_envs=2, seed=0, gamma=1.0, baseline="mean"
    )
    rollout = agent.collect()
    batch = agent.advantages(rollout)
    # Q at the first step of an episode is its return
    for e in range(2):
        rows = rollout.valid[:, e]
        ends = np.flatnonzero((rollout.terminated | rollout.truncated)[rows, e])
        assert ends[-1] == rows.sum() - 1
        q = np.full(rollout.valid.shape, np.nan)
        q[rollout.valid] = batch.advantages
        starts = np.concatenate([[0], ends[:-1] + 1])
        mine = rollout.episode_returns[rollout.episode_indices[:, 1] == e]
        np.testing.assert_array_equal(q[starts, e], mine)
    agent.close()


@pytest.mark.parametrize("sampling", ["episodes", "steps"])
def test_baseline_of_a_single_path_by_hand(sampling: Any) -> None:
    settings: dict[str, Any] = {"batch_size": 300, "n_envs": 3, "seed": 1, "sampling": sampling}
    agents = [SinglePathTRPO("CartPole-v1", baseline=b, **settings) for b in ("time", "mean")]
    rollouts = [agent.collect() for agent in agents]
    advantages, q = (a.advantages(r).advantages for a, r in zip(agents, rollouts, strict=True))
    rollout = rollouts[0]
    T, E = rollout.rewards.shape
    by_time: dict[int, list[int]] = {}
    row = 0
    since = [0] * E
    for t in range(T):
        for e in range(E):
            if rollout.valid[t, e]:
                by_time.setdefault(since[e], []).append(row)
                row += 1
            since[e] = 0 if rollout.terminated[t, e] or rollout.truncated[t, e] else since[e] + 1
    assert len(by_time[0]) > E
    for rows in by_time.values():
        np.testing.assert_allclose(advantages[rows], q[rows] - q[rows].mean(), atol=1e-9)
    for agent in agents:
        agent.close()


def test_paths_that_are_all_alike_teach_nothing() -> None:
    agent = SinglePathTRPO(lambda: AlwaysOne(), batch_size=40, n_envs=2, gamma=0.97, seed=0)
    before = agent.policy.parameters
    agent.learn(40, progress=False)
    assert agent.last_record["policy/status"] == "zero_gradient"
    np.testing.assert_array_equal(agent.policy.parameters, before)
    agent.close()


class AlwaysOne(Noise):
    """Episodes of 10 steps with a reward of 1, whatever is done."""

    def step(self, action: Any) -> Any:
        self.ticks += 1
        return self.np_random.normal(size=2), 1.0, False, self.ticks >= 10, {}


def test_single_path_uses_monte_carlo_returns(tmp_path: Path) -> None:
    agent = SinglePathTRPO(
        "CartPole-v1", batch_size=256, sampling="steps", n_envs=2, seed=0, gamma=0.9,
        baseline="mean",
    )  # fmt: skip
    rollout = agent.sampler.collect(128)
    batch = agent.advantages(rollout)
    q = np.zeros(2)
    expected = np.zeros((128, 2))
    for t in reversed(range(128)):
        q = rollout.rewards[t] + 0.9 * q * ~(rollout.terminated[t] | rollout.truncated[t])
        expected[t] = q
    np.testing.assert_allclose(batch.advantages.reshape(128, 2), expected)
    assert agent.value_fitting is None
    agent.learn(15_000, progress=False)
    assert agent.evaluate(5).mean_return > 60
    loaded = SinglePathTRPO.load(agent.save(tmp_path / "single.safetensors"))
    np.testing.assert_array_equal(loaded.policy.parameters, agent.policy.parameters)
    assert not any(name.startswith("value") for name in loaded.state_tensors())
    agent.close()
    loaded.close()


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


def test_an_agent_trains_alike_in_workers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "vine": {"states": 16, "branch_steps": 4}, "batch_size": 64, "n_envs": 4, "seed": 2,
    }  # fmt: skip
    here = VineTRPO("CartPole-v1", n_workers=0, **settings)
    there = VineTRPO("CartPole-v1", n_workers=2, **settings)
    path = there.learn(400, progress=False).save(tmp_path / "vine.safetensors")
    back = VineTRPO.load(path, n_workers=0)
    here.learn(400, progress=False)
    np.testing.assert_array_equal(here.policy.parameters, there.policy.parameters)
    for agent in (here, there, back):
        agent.learn(300, progress=False)
        np.testing.assert_array_equal(agent.policy.parameters, here.policy.parameters)
        agent.close()


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


# ---- bad input


class Stateless(Noise):
    """Its state cannot be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = (float(i) for i in range(10**9))

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, next(self.stream), *rest


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_environment_without_restorable_state() -> None:
    for n_workers in (0, 2):
        with pytest.raises(
            SnapshotError, match="vine sampling goes back to saved states, but"
        ) as e:
            VineTRPO(Stateless, n_workers=n_workers, n_envs=2)
        assert "Stateless.stream (type generator) cannot be stored" in sentence(e)


def test_an_object_is_not_tried_out() -> None:
    """Promise: nothing but training steps a training environment."""
    with pytest.raises(SnapshotError, match="only tried on a separate copy") as e:
        VineTRPO(Noise(), batch_size=64)
    sentence(e)
    VineTRPO(gym.make("CartPole-v1"), batch_size=64).close()  # Gymnasium makes another one


@pytest.mark.parametrize(
    ("env_id", "vine", "text"),
    [
        ("Pendulum-v1", {"branches": 1}, "branches: expected at least 2 sampled actions"),
        ("CartPole-v1", {"branches": 1}, r'take 2 or more, or branches="all"'),
        ("Pendulum-v1", {"branches": "all"}, 'branches: "all" needs a discrete action space'),
        ("CartPole-v1", {"states": 0}, "states: expected at least 1; a rollout set without"),
        ("CartPole-v1", {"branches": 2.5}, "branches: expected a whole number"),
        ("CartPole-v1", {"branch_steps": 0}, "branch_steps: expected at least 1, or None"),
        ("CartPole-v1", {"bootstrap": 1}, "bootstrap: expected True or False, got 1"),
        ("CartPole-v1", {"k": 3}, "vine: expected the options states, branches, .* got 'k'"),
    ],
)
def test_options_that_cannot_be(env_id: str, vine: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text) as e:
        VineTRPO(env_id, vine=vine, batch_size=64)
    sentence(e)


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match="expected at most the 64 states of a trunk, got 65"):
        VineTRPO("CartPole-v1", vine={"states": 65}, batch_size=64).learn(1, progress=False)
    with pytest.raises(ValueError, match="states of single environments, got a VectorEnv"):
        VineTRPO(gym.make_vec("CartPole-v1", num_envs=2))
    for n_workers in (0, 2):
        with pytest.raises(ValueError, match="restart_crashed_environments: expected False"):
            VineTRPO("CartPole-v1", restart_crashed_environments=True, n_workers=n_workers)
    with pytest.raises(ValueError, match="SinglePathTRPO has no gae_lambda: it has no value"):
        SinglePathTRPO("CartPole-v1", gae_lambda=0.5)
    with pytest.raises(ValueError, match="baseline: expected one of 'time', 'mean', got 'none'"):
        SinglePathTRPO("CartPole-v1", baseline="none")
    policy = gaussian_policy()
    with pytest.raises(ValueError, match="an empty rollout set has nothing to learn from"):
        vine_update(
            policy, np.empty((0, 3)), np.empty((0, 4, 2)), np.empty((0, 4)), estimator="exact_sum"
        )
    x, one, two = np.ones((2, 3)), np.ones((2, 1, 2)), np.ones((2, 2, 2))
    with pytest.raises(ValueError, match="at least 2 samples in every state, got 1"):
        vine_update(policy, x, one, np.ones((2, 1)), estimator="self_normalized")
    with pytest.raises(ValueError, match="max_kl: expected a positive number, got 0"):
        vine_update(policy, x, two, np.ones((2, 2)), estimator="self_normalized", max_kl=0)
    with pytest.raises(ValueError, match=r'branches: "all" needs a discrete action space'):
        vine_update(policy, x, two, np.ones((2, 2)), estimator="exact_sum")


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
