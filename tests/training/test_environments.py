"""Environments that are changed amid a run: methods, attributes, options of resets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from trpo_fast import TRPO, VineTRPO
from trpo_fast.callbacks import EvaluateEvery

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 4, "hidden_sizes": (8,), "seed": 3}


class Game(gymnasium.Env[Any, Any]):
    """Episodes of 4 steps; the observation tells the level, the reward is the option of the reset."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.level = 0

    def set_level(self, level: int, *, plus: int = 0) -> int:
        self.level = level + plus
        return self.level

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.bonus = float((options or {}).get("bonus", 0.0))
        return self.seen(), {}

    def seen(self) -> Any:
        return np.array([self.level, self.np_random.uniform()], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.seen(), self.bonus + self.level, self.t == 4, False, {}


def game() -> Any:
    return gymnasium.wrappers.TimeLimit(Game(), 100)


def vector() -> Any:
    return SyncVectorEnv([Game] * 4)


def levels(agent: Any) -> set[float]:
    return set(agent.collect().observations[1:, :, 0].ravel().tolist())


@pytest.mark.parametrize(("env", "n_workers"), [(game, 0), (game, 2), (vector, 0)])
def test_every_environment_is_reached(env: Any, n_workers: int) -> None:
    agent = TRPO(env, n_workers=n_workers, **SMALL).learn(64, progress=False)
    assert levels(agent) == {0.0}
    assert agent.environments.call("set_level", 3, plus=1) == [4] * 4
    assert agent.environments.get_attr("level") == [4] * 4
    assert levels(agent) == {4.0}
    agent.environments.set_attr("level", 2)
    assert levels(agent) == {2.0}
    with pytest.raises(AttributeError, match="levle"):
        agent.environments.set_attr("levle", 2)
    with pytest.raises(AttributeError, match="set_levle"):
        agent.environments.call("set_levle", 2)
    agent.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_options_go_to_every_reset(n_workers: int, tmp_path: Path) -> None:
    agent = TRPO(game, n_workers=n_workers, **SMALL)
    agent.environments.reset_options({"bonus": 7.0})
    assert set(agent.collect().rewards.ravel().tolist()) == {7.0}
    path = agent.save(tmp_path / "agent.safetensors")
    loaded = TRPO.load(path, env=game)
    assert set(loaded.collect().rewards.ravel().tolist()) == {7.0}
    agent.environments.reset_options(None)
    assert set(agent.collect().rewards[4:].ravel().tolist()) == {0.0}
    agent.close()
    loaded.close()
    inside = TRPO(vector, **SMALL)
    with pytest.raises(NotImplementedError, match="expected options of resets in the vector"):
        inside.environments.reset_options({"bonus": 7.0})


@pytest.mark.parametrize("n_workers", [0, 2])
def test_evaluations_get_it_on_a_switch(n_workers: int) -> None:
    agent = TRPO(game, n_workers=n_workers, **SMALL)
    every = EvaluateEvery(64, 2)
    agent.learn(64, callback=every, progress=False)
    assert agent.last_record["eval/return"] == 0.0
    agent.environments.call("set_level", 1)
    assert agent.evaluate(2, seed=0).mean_return == 0.0
    agent.environments.call("set_level", 2, evaluation=True)
    assert agent.evaluate(2, seed=0).mean_return == 8.0
    agent.environments.set_attr("level", 3, evaluation=True)
    agent.environments.reset_options({"bonus": 0.5}, evaluation=True)
    assert agent.evaluate(2, seed=0).mean_return == 14.0
    seen: list[float] = []

    def harder(agent: Any, record: dict[str, Any]) -> None:
        seen.append(record["eval/return"])
        agent.environments.set_attr("level", 4, evaluation=True)

    agent.learn(128, callback=[every, harder], progress=False)
    assert seen == [14.0, 18.0]
    agent.close()


class Fragile(Game):
    def step(self, action: Any) -> Any:
        if self.level == 5 and not getattr(self, "held", False):
            raise RuntimeError("boom")
        return super().step(action)

    def hold(self) -> None:
        self.held = True


def test_replaced_environments_get_it_too() -> None:
    settings: Any = {**SMALL, "restart_crashed_environments": True}
    agent = TRPO(Fragile, n_workers=0, **settings)
    agent.environments.call("set_level", 1)
    agent.collect()
    agent.sampler.environments[2].level = 5  # breaks at its next step
    rollout = agent.collect()
    assert len(rollout.crashes) == 1
    assert agent.environments.get_attr("level") == [1] * 4


def test_workers_that_start_again_get_it_too() -> None:
    agent = TRPO(Fragile, n_workers=2, **SMALL)
    agent.environments.call("set_level", 5)
    with pytest.raises(Exception, match="boom"):
        agent.collect()
    agent.environments.call("hold")
    assert levels(agent) == {5.0}
    agent.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_resumed_run_goes_on_as_changed(n_workers: int, tmp_path: Path) -> None:
    def learned(agent: Any, steps: int) -> Any:
        return agent.learn(steps, progress=False)

    def changed() -> Any:
        agent = learned(TRPO(game, n_workers=n_workers, **SMALL), 64)
        agent.environments.call("set_level", 3, evaluation=True)
        return learned(agent, 64)

    whole, stopped = changed(), changed()
    path = stopped.save(tmp_path / "agent.safetensors")
    loaded = TRPO.load(path, env=game)
    learned(whole, 64), learned(loaded, 64)
    assert loaded.policy.parameters.tobytes() == whole.policy.parameters.tobytes()
    notice = (
        "the evaluation environments are without set_level(3): repeat it with agent.environments"
    )
    assert loaded.last_record["run/notice"] == notice
    assert loaded.state_metadata()["environment_changes"]["evaluation"] == ["set_level(3)"]
    loaded.environments.call("set_level", 3, evaluation=True)
    assert loaded.evaluate(1, seed=0).mean_return == 12.0
    assert loaded.state_metadata()["environment_changes"]["training"] == ["set_level(3)"]
    for agent in (whole, stopped, loaded):
        agent.close()


def test_where_states_cannot_be_saved_the_record_says_what_is_missing(tmp_path: Path) -> None:
    agent = TRPO(game, n_workers=0, save_environments=False, **SMALL).learn(64, progress=False)
    agent.environments.set_attr("level", 3)
    loaded = TRPO.load(agent.save(tmp_path / "agent.safetensors"), env=game)
    notice = loaded.learn(64, progress=False).last_record["run/notice"]
    assert "episodes start anew" in notice
    assert "the training environments are without level = 3: repeat it" in notice


def test_not_in_the_middle_of_a_rollout() -> None:
    agent = TRPO(game, n_workers=0, **SMALL)
    with pytest.raises(RuntimeError, match="environments: expected to be between two rollouts"):
        agent.collect(lambda: agent.environments.call("set_level", 1))
    agent.close()
    with pytest.raises(RuntimeError, match="the environments are closed"):
        agent.environments.get_attr("level")


def test_the_vine_is_reached_too() -> None:
    agent = VineTRPO(game, n_workers=0, vine={"states": 4, "branch_steps": 2}, **SMALL)
    agent.environments.call("set_level", 2)
    assert set(agent.collect().rewards.ravel().tolist()) == {2.0}
