"""What environments return: sentences about it, rewards of one entry, lists of infos, SuperSuit."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers.vector import DictInfoToList

from trpo_fast import TRPO
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import make_sampler

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "hidden_sizes": (8,), "value_epochs": 1}
X = np.zeros(3, np.float32)


class Told(gymnasium.Env[Any, Any]):
    """Returns from `step` and `reset` what it is told to; raises if that is an exception."""

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, step: Any = (X, 1.0, False, False, {}), reset: Any = (X, {})) -> None:
        self._step, self._reset = step, reset

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._reset

    def step(self, action: Any) -> Any:
        if isinstance(self._step, Exception):
            raise self._step
        return self._step


class WithoutSeed(Told):
    def reset(self) -> Any:  # type: ignore[override]
        return X, {}


CASES = {
    "four values": (lambda: Told((X, 1.0, False, {})), "step 0: step.*got 4 values, as old gym"),
    "six values": (lambda: Told((X, 1.0, False, False, {}, 1)), "step 0: step.*5 values.*got 6"),
    "no tuple": (lambda: Told(X), r"step 0: step\(\) must return .*got an array of shape \(3,\)"),
    "reward vector": (lambda: Told((X, np.ones(2), False, False, {})), "LinearReward"),
    "reward None": (lambda: Told((X, None, False, False, {})), "expected one number, got None"),
    "no reward": (
        lambda: Told((X, np.array([]), False, False, {})),
        r"array of shape \(0,\)[^;]*$",
    ),
    "terminated None": (
        lambda: Told((X, 1.0, None, False, {})),
        "terminated: .*True or False, got None",
    ),
    "truncated NaN": (lambda: Told((X, 1.0, False, np.nan, {})), "truncated: .*got nan"),
    "a text": (lambda: Told((X, 1.0, "False", False, {})), "terminated: .*got 'False'"),
    "two flags": (
        lambda: Told((X, 1.0, np.array([True, False]), False, {})),
        "terminated: .*array",
    ),
    "info None": (
        lambda: Told((X, 1.0, False, False, None)),
        "info: expected a dictionary.*got None",
    ),
    "list of infos": (lambda: Told((X, 1.0, False, False, [{}])), "info: expected a dictionary"),
    "info None of a reset": (
        lambda: Told(reset=(X, None)),
        "info: expected a dictionary.*got None",
    ),
    "two rows of a reset": (lambda: Told(reset=np.zeros((2, 3))), r"array of shape \(2, 3\)"),
    "observation only": (
        lambda: Told(reset=X),
        r"got only an array of shape \(3,\)",
    ),
    "three of a reset": (lambda: Told(reset=(X, {}, 0)), "2 values.*got 3"),
    "no seed": (WithoutSeed, "does not take seed"),
    "raises": (lambda: Told(KeyError("goal")), r"raised KeyError: 'goal' \(.*, in step\)"),
    "raises nothing more": (lambda: Told(AssertionError()), r"raised AssertionError \(.*, in step"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n_workers", [0, 1])
def test_what_is_wrong_is_named_with_environment_and_step(case: str, n_workers: int) -> None:
    make, words = CASES[case]
    with (
        closing(TRPO(make, n_workers=n_workers, **SMALL)) as agent,
        pytest.raises(EnvironmentFailure, match=f"environment 0 .*{words}"),
    ):
        agent.learn(64)


def test_a_wrong_observation_is_told_from_a_wrong_tuple() -> None:
    with (
        closing(TRPO(lambda: Told((X[:2], 1.0, False, False, {})), n_workers=0, **SMALL)) as agent,
        pytest.raises(ValueError, match=r"step 0: observation: expected shape \(3,\), got \(2,\)"),
    ):
        agent.learn(64)


@pytest.mark.parametrize("flag", [1, np.True_, np.array(True), np.array([True]), np.uint8(1)])
def test_flags_of_every_kind_of_truth_end_an_episode(flag: Any) -> None:
    with closing(TRPO(lambda: Told((X, 1.0, flag, False, {})), n_workers=0, **SMALL)) as agent:
        agent.learn(64)
        assert agent.last_record["rollout/episode_length"] == 1.0


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ([[1.0], [1.0, 2.0], 3.0], "got a ragged sequence"),
        ([1e308, 0.0, 0.0], "entry 0 is inf as float32"),
    ],
)
def test_observations_that_do_not_become_numbers_are_named(observation: Any, words: str) -> None:
    make = lambda: Told((observation, 1.0, False, False, {}))  # noqa: E731
    with (
        closing(TRPO(make, n_workers=0, **SMALL)) as agent,
        pytest.raises(ValueError, match=f"environment 0 .*, step 0: observation.*{words}"),
    ):
        agent.learn(64)


def test_complex_observations_are_refused_at_the_first_one() -> None:
    with (
        closing(TRPO(lambda: Told(reset=(1j * X, {})), n_workers=0, **SMALL)) as agent,
        pytest.raises(
            ValueError, match=r"reset before environment 0 .*real numbers, got complex64"
        ),
    ):
        agent.learn(64)


class Far(Told):
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)


@pytest.mark.parametrize("at", ["reset", "step"])
@pytest.mark.parametrize("n_workers", [0, 1])
def test_observations_whose_squares_overflow_are_named(at: str, n_workers: int) -> None:
    def make() -> Any:
        far = np.array([0.0, -1e308, 0.0])
        if at == "reset":
            return Far(reset=(far, {}))
        return Far(step=(far, 1.0, False, False, {}))

    where = "reset before environment 0" if at == "reset" else r"environment 0 .*, step 0"
    with (
        closing(TRPO(make, n_workers=n_workers, dtype="float64", **SMALL)) as agent,
        pytest.raises(ValueError, match=rf"{where}.*entry 1 is -1e\+308.*TransformObservation"),
    ):
        agent.learn(64)


@pytest.mark.parametrize("reward", [[1.0], np.array([1.0]), np.array([[1.0]]), np.float32(1)])
def test_a_reward_of_one_entry_is_a_number(reward: Any) -> None:
    with closing(TRPO(lambda: Told((X, reward, True, False, {})), n_workers=0, **SMALL)) as agent:
        agent.learn(64)
        assert agent.last_record["rollout/episode_return"] == 1.0


# ---- vector environments


def rollout_of(vector: Any, steps: int = 60) -> Any:
    sampler = make_sampler(vector)
    with closing(sampler):
        from trpo_fast import core

        encoder = sampler.observation_encoder
        sampler.bind(core.Policy(encoder.dim, sampler.action_adapter.distribution), seed=3)
        return sampler.collect(steps)


def test_a_list_of_infos_gives_the_same_rollout() -> None:
    def make() -> Any:
        vector = gymnasium.make_vec(
            "CartPole-v1",
            num_envs=3,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
            max_episode_steps=9,
        )
        return vector

    expected, got = rollout_of(make()), rollout_of(DictInfoToList(make()))
    assert len(expected.final_observations) > 3
    np.testing.assert_array_equal(got.final_observations, expected.final_observations)
    np.testing.assert_array_equal(got.observations, expected.observations)


class MarkovVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """As SuperSuit makes of three agents: spaces of one, a list of infos, no autoreset mode."""

    __module__ = "supersuit.vector.markov_vector_wrapper"

    def __init__(self) -> None:
        self.metadata = {"name": "meet"}
        self.observation_space = spaces.Box(-1, 1, (2,))
        self.action_space = spaces.Discrete(2)
        self.num_envs = 3
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros((3, 2), np.float32), [{} for _ in range(3)]

    def step(self, actions: Any) -> Any:
        self.t += 1
        observations = np.full((3, 2), self.t / 10, np.float32)
        rewards = np.asarray(actions, np.float32)
        truncated = np.array([self.t == 4, self.t == 7, self.t == 7], np.uint8)
        infos: list[dict[str, Any]] = [{} for _ in range(3)]
        if self.t == 7:
            for info, row in zip(infos, observations, strict=True):
                info["terminal_observation"] = row.copy()
            observations, _ = self.reset()
        return observations, rewards, np.zeros(3, np.uint8), truncated, infos


def test_supersuits_vector_environments_give_whole_rollouts() -> None:
    rollout = rollout_of(MarkovVectorEnv(), 14)
    # of agents 1 and 2 every seventh step, of agent 0 the fourth of them
    assert {(t, e) for t, e in rollout.final_indices.tolist()} == {
        (3, 0), (6, 1), (6, 2), (10, 0), (13, 1), (13, 2)
    }  # fmt: skip
    finals = dict(
        zip(map(tuple, rollout.final_indices.tolist()), rollout.final_observations, strict=True)
    )
    np.testing.assert_allclose(finals[3, 0], 0.4)
    np.testing.assert_allclose(finals[6, 1], 0.7)
    np.testing.assert_allclose(rollout.observations[7], 0.0)
    with closing(TRPO(MarkovVectorEnv(), **{**SMALL, "batch_size": 63})) as agent:
        agent.learn(63)
        assert agent.sampler.n_envs == 3


# ---- rewards and crashes that leave nothing to learn from


@pytest.mark.parametrize("reward", [1e308, -1e308, 1e305])
@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_reward_that_is_too_large_is_named(reward: float, n_workers: int) -> None:
    with (
        closing(
            TRPO(lambda: Told((X, reward, True, False, {})), n_workers=n_workers, **SMALL)
        ) as agent,
        pytest.raises(
            ValueError, match=r"environment [01] \(Told\), step 0: the reward is .*scale"
        ),
    ):
        agent.learn(64)


def test_a_large_reward_is_learned_from() -> None:
    with closing(TRPO(lambda: Told((X, 1e30, True, False, {})), n_workers=0, **SMALL)) as agent:
        agent.learn(192)
        assert np.isfinite(agent.policy.parameters).all()
        assert np.isfinite(agent.value_function.parameters).all()


class CrashesLater(Told):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._t = 0
        return super().reset()

    def step(self, action: Any) -> Any:
        self._t += 1
        if self._t == 5:
            raise RuntimeError("boom")
        return super().step(action)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_rollout_whose_every_episode_crashed_is_named(n_workers: int) -> None:
    settings = {**SMALL, "batch_size": 30, "restart_crashed_environments": True}
    with (
        closing(TRPO(CrashesLater, n_workers=n_workers, **settings)) as agent,
        pytest.raises(EnvironmentFailure, match=r"got none in 15 steps.*RuntimeError: boom \("),
    ):
        agent.learn(30)


# ---- standard streams that are closed

PROGRAM = """
from trpo_fast import TRPO
agent = TRPO("CartPole-v1", n_workers=2, batch_size=64, n_envs=2)
agent.learn(64)
agent.evaluate(2)
agent.close()
"""


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_workers_of_a_script_with_closed_streams(closed: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PROGRAM)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} script.py {closed}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
