"""Single path: Monte Carlo returns, their baselines by hand, an agent that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast.algorithms.single_path import SinglePathTRPO
from vine_stand_ins import Noise


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


class AlwaysOne(Noise):
    """Episodes of 10 steps with a reward of 1, whatever is done."""

    def step(self, action: Any) -> Any:
        self.ticks += 1
        return self.np_random.normal(size=2), 1.0, False, self.ticks >= 10, {}


def test_paths_that_are_all_alike_teach_nothing() -> None:
    agent = SinglePathTRPO(lambda: AlwaysOne(), batch_size=40, n_envs=2, gamma=0.97, seed=0)
    before = agent.policy.parameters
    agent.learn(40, progress=False)
    assert agent.last_record["policy/status"] == "zero_gradient"
    np.testing.assert_array_equal(agent.policy.parameters, before)
    agent.close()


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


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="SinglePathTRPO has no gae_lambda: it has no value"):
        SinglePathTRPO("CartPole-v1", gae_lambda=0.5)
    with pytest.raises(ValueError, match="baseline: expected one of 'time', 'mean', got 'none'"):
        SinglePathTRPO("CartPole-v1", baseline="none")
