"""Agents that learn by vine: what they learn, their files, workers, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from trpo_fast.algorithms.vine import VineTRPO
from trpo_fast.rollout.vine import VineOptions
from trpo_fast.snapshots import SnapshotError
from vine_stand_ins import Noise

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


def test_samplers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="expected at most the 64 states of a trunk, got 65"):
        VineTRPO("CartPole-v1", vine={"states": 65}, batch_size=64).learn(1, progress=False)
    with pytest.raises(ValueError, match="states of single environments, got a VectorEnv"):
        VineTRPO(gym.make_vec("CartPole-v1", num_envs=2))
    for n_workers in (0, 2):
        with pytest.raises(ValueError, match="restart_crashed_environments: expected False"):
            VineTRPO("CartPole-v1", restart_crashed_environments=True, n_workers=n_workers)
