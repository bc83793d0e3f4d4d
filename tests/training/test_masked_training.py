"""An agent in environments with masks, from end to end: learning, predicting, evaluating, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masked_envs import SIZES, SOURCES, MaskedEnv, Wrapped, masked_factory
from trpo_fast import TRPO, Policy
from trpo_fast.checkpoint import CheckpointError
from trpo_fast.config import ConfigError
from trpo_fast.evaluation import evaluate_policy

SMALL: dict[str, Any] = {"n_envs": 2, "n_workers": 0, "batch_size": 128, "hidden_sizes": (8,)}
FOUND = {"observation": "observation:action_mask"}


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_is_told_once_and_evaluated_with_masks(source: str, tmp_path: Path) -> None:
    """The environments raise where a forbidden action is taken."""
    agent = TRPO(masked_factory("multi_discrete", source), **SMALL)
    notices: list[str] = []
    agent.learn(3 * 128, callback=lambda _, record: notices.append(record.get("run/notice", "")))
    assert sum("actions are masked by" in notice for notice in notices) == 1
    assert agent.mask_source == FOUND.get(source, source)
    for deterministic in (True, False):
        assert agent.evaluate(5, deterministic=deterministic, seed=1).lengths.sum() > 5
    policy = Policy.load(agent.save(tmp_path / "agent.safetensors"))
    copies = [policy, agent.frozen_policy(), Policy.load(policy.save(tmp_path / "p.safetensors"))]
    for other in copies:
        assert other.mask_source == agent.mask_source
        evaluation = evaluate_policy(other, MaskedEnv("multi_discrete", source), 5, seed=1)
        np.testing.assert_array_equal(evaluation.returns, agent.evaluate(5, seed=1).returns)
    agent.close()


def test_evaluations_in_workers_are_those_of_this_process() -> None:
    returns = []
    for n_workers in (0, 2):
        agent = TRPO(masked_factory("discrete", "info"), **{**SMALL, "n_workers": n_workers})
        agent.learn(128)
        returns.append(agent.evaluate(6, seed=3).returns)
        agent.close()
    np.testing.assert_array_equal(*returns)


@pytest.mark.parametrize("source", SOURCES)
def test_a_stored_run_goes_on_bit_for_bit(source: str, tmp_path: Path) -> None:
    make = masked_factory("discrete", source)
    agent = TRPO(make, **SMALL).learn(2 * 128)
    path = agent.save(tmp_path / "agent.safetensors")
    agent.learn(2 * 128)
    resumed = TRPO.load(path, env=make)
    assert resumed.notice == ""
    assert resumed.mask_source == agent.mask_source
    resumed.learn(2 * 128)
    np.testing.assert_array_equal(resumed.policy.parameters, agent.policy.parameters)
    agent.close()
    resumed.close()


def test_files_of_before_have_no_masks() -> None:
    make = masked_factory("discrete", "info", lenient=True)
    agent = TRPO(make, **SMALL, action_masks="none").learn(128)
    tensors, metadata = agent.state()
    del metadata["config"]["action_masks"]
    del metadata["mask_source"]
    resumed = TRPO.from_state(tensors, metadata, make)
    assert resumed.config.action_masks == "none"
    resumed.learn(128)
    assert resumed.mask_source == "none"
    metadata["mask_source"] = "elsewhere"
    with pytest.raises(CheckpointError, match="mask_source: expected where masks are"):
        TRPO.from_state(tensors, metadata, make)
    agent.close()
    resumed.close()


@pytest.mark.parametrize("kind", SIZES)
def test_predictions_and_judgements(kind: str) -> None:
    agent = TRPO(masked_factory(kind, "info"), **SMALL)
    env = MaskedEnv(kind)
    observation, info = env.reset(seed=0)
    mask = info["action_mask"]
    for _ in range(30):  # the environment raises where an action is forbidden
        action, _ = agent.predict(observation, action_masks=mask)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset()
        mask = info["action_mask"]
    value, log_prob, entropy = agent.evaluate_actions(observation, action, action_masks=mask)
    policy = agent.frozen_policy()
    assert policy.log_prob(observation, action, action_masks=mask) == log_prob
    assert policy.entropy(observation, action_masks=mask) == entropy
    assert policy.entropy(observation, action_masks=mask) <= policy.entropy(observation)
    assert value == policy.values(observation)
    # a batch
    rows, masks = np.stack([observation] * 3), np.stack([mask] * 3)
    actions, _ = policy.predict(rows, action_masks=masks, deterministic=True)
    one, _ = policy.predict(observation, action_masks=mask, deterministic=True)
    np.testing.assert_array_equal(actions, [one] * 3)
    told = policy.distribution_parameters(observation, action_masks=mask)["probabilities"]
    if kind != "multi_binary":
        assert not told[mask == 0].any()
    assert np.isfinite(told).all()
    with pytest.raises(ValueError, match="action_masks: expected 0 and 1 of shape"):
        agent.predict(observation, action_masks=mask[:-1])
    agent.close()


def test_a_mask_in_the_observation_needs_no_argument() -> None:
    agent = TRPO(masked_factory("discrete", "observation"), **SMALL)
    env = MaskedEnv("discrete", "observation")
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        observation, _, terminated, truncated, _ = env.step(agent.predict(observation)[0])
        if terminated or truncated:
            observation, _ = env.reset()
    batch = {key: np.stack([value] * 2) for key, value in observation.items()}
    assert agent.predict(batch)[0].shape == (2,)
    del observation["action_mask"]
    with pytest.raises(ValueError, match="expected a part 'action_mask' of the observation"):
        agent.predict(observation)
    agent.close()


def test_an_evaluation_names_the_step_whose_mask_is_none() -> None:
    agent = TRPO(masked_factory("discrete", "info"), **SMALL).learn(128)
    env = Wrapped(MaskedEnv("discrete", "info", spoil="nothing allowed", at=-1))
    with pytest.raises(ValueError, match=r"evaluation, step 0 of episode 0: .*at least one"):
        agent.evaluate(5, env=env, seed=0)
    with pytest.raises(ValueError, match=r"expected info\['action_mask'\] at every reset"):
        agent.evaluate(1, env=MaskedEnv("discrete", "silent"))
    agent.close()


def test_rollouts_hold_masks() -> None:
    agent = TRPO(masked_factory("multi_binary", "method"), **SMALL)
    transitions = agent.collect().transitions()
    assert transitions.action_masks is not None
    assert transitions.action_masks.shape == (len(transitions), 6)
    agent.close()


@pytest.mark.parametrize("value", ["infos", "observation:", "observation", True, None])
def test_settings_that_mean_nothing(value: Any) -> None:
    with pytest.raises(ConfigError, match="action_masks: expected 'auto', 'none', 'info'"):
        TRPO("CartPole-v1", **SMALL, action_masks=value)
