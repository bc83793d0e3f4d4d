"""Settings of an agent that exists: changed between two calls of learn, and while it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import NPG, TRPO, KLPenalty, NPGConfig, VineTRPO
from trpo_fast.config import ConfigError
from trpo_fast.training.agent import OnPolicyAgent

SMALL: dict[str, Any] = {"n_workers": 0, "n_envs": 2, "batch_size": 64, "hidden_sizes": (8,)}
NEVER: dict[str, Any] = {
    "seed": 4, "dtype": "float64", "n_envs": 4, "hidden_sizes": (3,), "activation": "relu",
    "value_hidden_sizes": (3,), "value_activation": "relu", "initial_log_std": 0.0,
    "state_dependent_std": True, "hidden_gain": 1.0, "policy_output_gain": 1.0,
    "value_output_gain": 0.0, "normalize_observations": False, "scale_returns": False,
    "action_scaling": False,
}  # fmt: skip
AT_LOAD: dict[str, Any] = {
    "n_workers": 2, "worker_timeout": 5.0, "restart_crashed_environments": True,
    "episode_metrics": ("score",),
}  # fmt: skip


def small(cls: type[OnPolicyAgent[Any]] = TRPO, **settings: Any) -> Any:
    return cls("CartPole-v1", **{**SMALL, **settings})


def bits(agent: OnPolicyAgent[Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in agent.state_tensors().items()}


def test_a_change_takes_effect_in_the_next_iteration() -> None:
    agent = small(max_kl=0.01).learn(64, progress=False)
    assert agent.last_record["policy/max_kl"] == pytest.approx(0.01)
    assert agent.set(max_kl=0.02, batch_size=128) is agent
    agent.learn(1, progress=False)
    assert agent.last_record["policy/max_kl"] == pytest.approx(0.02)
    assert agent.last_record["rollout/steps"] == 128
    assert agent.timesteps == 64 + 128


def test_assigning_a_configuration_is_the_same() -> None:
    one, other = small(), small()
    changes = {"max_kl": 0.02, "value_learning_rate": 0.1, "gamma": 0.9, "observation_clip": 1.0}
    for agent in (one, other):
        agent.learn(64, progress=False)
    one.set(**changes)
    other.config = other.config.replace(**changes)
    for agent in (one, other):
        agent.learn(128, progress=False)
    assert bits(one) == bits(other)
    assert bits(one) != bits(small().learn(192, progress=False))


def test_a_change_is_what_the_setting_would_have_been() -> None:
    """Changed before anything was learned, an agent is the one that was made so."""
    changes = {
        "max_kl": 0.02, "batch_size": 100, "sampling": "total_steps", "gamma": 0.9,
        "gae_lambda": 0.8, "value_optimizer": "lbfgs", "observation_clip": 0.5,
        "fisher": "empirical", "overlap_value_fit": False,
    }  # fmt: skip
    changed = small().set(**changes).learn(300, progress=False)
    made = small(**changes).learn(300, progress=False)
    assert bits(changed) == bits(made)


def test_more_steps_go_to_workers_too() -> None:
    changed = small(n_workers=2).learn(64, progress=False).set(batch_size=256)
    alone = small().learn(64, progress=False).set(batch_size=256)
    for agent in (changed, alone):
        agent.learn(512, progress=False)
    assert bits(changed) == bits(alone)
    changed.close()


def test_a_callback_may_change_settings() -> None:
    def halve(agent: Any, record: dict[str, Any]) -> None:
        agent.set(max_kl=agent.config.max_kl / 2)

    agent = small(max_kl=0.01)
    agent.learn(3 * 64, callback=halve, progress=False)
    assert agent.last_record["policy/max_kl"] == pytest.approx(0.01 / 4)


@pytest.mark.parametrize("name", NEVER)
def test_what_an_agent_was_built_with_cannot_change(name: str, tmp_path: Path) -> None:
    agent = small()
    before = agent.config
    sentence = f"^{name}: expected the .* that the agent was made with, got .*; make a new agent"
    with pytest.raises(ConfigError, match=sentence):
        agent.set(max_kl=0.5, **{name: NEVER[name]})
    with pytest.raises(ConfigError, match=sentence):
        agent.config = agent.config.replace(**{name: NEVER[name]})
    assert agent.config == before
    path = agent.save(tmp_path / "agent.safetensors")
    with pytest.raises(ConfigError, match=sentence):
        TRPO.load(path, **{name: NEVER[name]})
    # the same value is no change
    agent.set(**{name: getattr(before, name)})


@pytest.mark.parametrize("name", AT_LOAD)
def test_what_belongs_to_the_machine_changes_at_load(name: str, tmp_path: Path) -> None:
    agent = small()
    with pytest.raises(ConfigError, match=f"{name}: .*; pass {name} to load"):
        agent.set(**{name: AT_LOAD[name]})
    loaded = TRPO.load(agent.save(tmp_path / "agent.safetensors"), **{name: AT_LOAD[name]})
    assert getattr(loaded.config, name) == AT_LOAD[name]
    loaded.close()


def test_bad_changes_are_refused_and_change_nothing() -> None:
    agent = small()
    before = agent.config
    for changes, words in (
        ({"max_kl": -1.0}, "max_kl: expected"),
        ({"max_lk": 1.0}, "did you mean 'max_kl'"),
        ({"batch_size": 1, "max_kl": 0.5}, "batch_size: expected"),
        ({"value_lbfgs_iterations": 3}, "value_lbfgs_iterations: expected its default"),
    ):
        with pytest.raises(ConfigError, match=words):
            agent.set(**changes)
    with pytest.raises(ConfigError, match="config: expected a TRPOConfig, got a NPGConfig"):
        agent.config = NPGConfig()
    assert agent.config == before


def test_changes_at_load(tmp_path: Path) -> None:
    agent = small().learn(64, progress=False)
    path = agent.save(tmp_path / "agent.safetensors")
    loaded = TRPO.load(path, max_kl=0.02, batch_size=128, n_threads=2)
    agent.set(max_kl=0.02, batch_size=128)
    for each in (agent, loaded):
        each.learn(256, progress=False)
    assert bits(loaded) == bits(agent)
    again = TRPO.load(loaded.save(tmp_path / "again.safetensors"))
    assert again.config.max_kl == 0.02  # it is the file's from now on


def test_changes_of_other_methods(tmp_path: Path) -> None:
    npg = small(NPG).learn(64, progress=False)
    npg.set(step_size=None, max_kl=0.02)
    npg.learn(64, progress=False)
    assert npg.last_record["policy/max_kl"] == pytest.approx(0.02)
    penalty = small(KLPenalty)
    with pytest.raises(ConfigError, match=r"kl_coefficient: expected the 1\.0"):
        penalty.set(kl_coefficient=2.0)
    vine = small(VineTRPO, vine={"states": 4, "branch_steps": 2}).learn(64, progress=False)
    vine.set(vine={"states": 8, "branches": 2, "branch_steps": 3}, gamma=0.5)
    vine.learn(1, progress=False)
    assert vine.last_record["vine/states"] == 8
    assert vine.sampler.gamma == 0.5
    before = vine.config
    with pytest.raises(ValueError, match="sampling: expected 'steps' under vine sampling"):
        vine.set(sampling="episodes")
    with pytest.raises(ValueError, match="at least 2 sampled actions"):
        vine.set(vine={"branches": 1}, gamma=0.9)
    assert vine.config == before
    assert vine.sampler.gamma == 0.5
    assert np.isfinite(vine.policy.parameters).all()
