"""What users brought when they evaluated, acted and learned: small stand-ins, public names alone."""

from __future__ import annotations

import contextlib
import copy
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import trpo_fast
from endless import Endless
from stand_ins import Plain
from trpo_fast import TRPO
from trpo_fast.evaluation import evaluate_policy

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "n_workers": 0, "hidden_sizes": (4,)}


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what goes on for ever."""

    def end(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def trained(env: Any, n_steps: int = 64, **settings: Any) -> TRPO:
    return TRPO(env, **{**SMALL, **settings}).learn(n_steps, progress=False)


# --- evaluation


def test_an_episode_that_never_ends_is_cut() -> None:
    agent = trained(Endless)
    with at_most(60.0):
        result = evaluate_policy(agent, Endless, 1)
    assert result.lengths[0] == 10_000


def test_the_environment_of_training_is_not_evaluated_in() -> None:
    environment = Plain()
    agent = trained(environment)
    with pytest.raises(ValueError, match="the one that the agent trains in"):
        evaluate_policy(agent, environment, 1)


# --- the policy


def test_log_prob_reads_the_observations_that_act_reads() -> None:
    """At the mean, the density of a Gaussian is that of no deviation."""
    agent = trained("Pendulum-v1", 640)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = agent.policy.act(observations, deterministic=True)
    log_std = agent.policy.parameters[-1]
    expected = -log_std - 0.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(agent.policy.log_prob(observations, actions), expected, atol=1e-5)


def test_a_policy_is_loaded_where_there_is_no_gymnasium(tmp_path: Path) -> None:
    agent = trained("Pendulum-v1")
    agent.save(tmp_path / "a")
    program = (
        "import sys\nsys.modules['gymnasium'] = None\nimport trpo_fast\n"
        f"policy = trpo_fast.Policy.load({str(tmp_path / 'a')!r})\n"
        "print(policy.predict([0.1, 0.2, 0.3], deterministic=True)[0][0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-300:]
    action = agent.predict([0.1, 0.2, 0.3], deterministic=True)[0]
    assert np.float32(done.stdout) == action[0]


def test_policies_are_pickled_and_agents_copied() -> None:
    agent = trained("CartPole-v1")
    again = pickle.loads(pickle.dumps(agent.policy))
    assert np.array_equal(again.parameters, agent.policy.parameters)
    twin = copy.deepcopy(agent)
    twin.learn(64, progress=False)
    assert agent.timesteps == 64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((np.zeros(4), {}), "the tuple \\(observation, info\\) that env.reset\\(\\) returns"),
        (np.zeros((0, 4)), "got an empty batch"),
    ],
)
def test_what_is_no_observation_gets_a_sentence(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trained("CartPole-v1").predict(given)


def test_a_wrapper_that_normalises_is_noticed() -> None:
    def normalising() -> Any:
        return gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))

    notice = str(trained(normalising).last_record.get("run/notice"))
    assert "wrapped in NormalizeObservation" in notice


# --- learning


class Constant(Plain):
    """A reward of 100 for ever, cut after every step."""

    def step(self, action: Any) -> Any:
        observation, *_ = super().step(action)
        return observation, 100.0, False, True, {}


def test_the_values_of_a_constant_reward_do_not_run_away() -> None:
    agent = TRPO(
        Constant, n_envs=2, n_workers=0, batch_size=256, gamma=0.9, hidden_sizes=(8,),
        value_hidden_sizes=(8,), value_learning_rate=1e-2,
    )  # fmt: skip
    agent.learn(60 * 256, progress=False)
    seen = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    seen[:, 1] = 0.0
    rows = agent.policy.normalize(seen)
    fitting = getattr(agent, "value_fitting", None)
    values = agent._values(rows) if fitting is None else fitting.predict(rows)
    assert 0.0 < values.min() <= values.max() < 1050.0  # 100 / (1 - 0.9)


class Heater(Plain):
    """Actions in watts."""

    taken: list[float]

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(0.0, 1000.0, (1,))

    def step(self, action: Any) -> Any:
        self.taken.append(float(action[0]))
        return super().step(0)


def test_actions_reach_the_whole_of_their_range() -> None:
    Heater.taken = []
    trained(Heater)
    assert np.std(Heater.taken) > 100.0
    assert 300.0 < np.mean(Heater.taken) < 700.0


class Pictures(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (210, 160, 3), np.uint8)


def test_pictures_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="expected at most 10,000 entries, got 100,800"):
        TRPO(Pictures, **SMALL)


def test_settings_change_at_a_load_or_are_refused(tmp_path: Path) -> None:
    trained("CartPole-v1").save(tmp_path / "a")
    assert TRPO.load(tmp_path / "a", max_kl=0.5).config.max_kl == 0.5
    with pytest.raises(ValueError, match="hidden_sizes"):
        TRPO.load(tmp_path / "a", hidden_sizes=(5,))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("VPG", {"max_kl": 0.5}), ("NPG", {"max_backtracks": 3}), ("VPG", {"cg_damping": 0.5})],
)
def test_a_setting_that_a_method_lacks_is_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(settings))):
        getattr(trpo_fast, name)("CartPole-v1", **SMALL, **settings)


class Rich(Plain):
    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, 1e308, *rest


def test_a_reward_that_cannot_be_squared_is_named() -> None:
    with pytest.raises(ValueError, match=r"environment 0 \(Rich\), step 0: the reward is 1e\+308"):
        trained(Rich)
