"""NPG, VPG and KLPenalty as agents: their steps, their settings, their files; that they learn."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.algorithms.kl_penalty import KLPenalty, KLPenaltyConfig, adapted_coefficient
from trpo_fast.algorithms.npg import NPG, NPGConfig
from trpo_fast.algorithms.vpg import VPG, VPGConfig
from trpo_fast.checkpoint import CheckpointError
from trpo_fast.config import ConfigError, TRPOConfig
from trpo_fast.presets import preset
from trpo_fast.training.agent import OnPolicyAgent

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "learning"))

SMALL: dict[str, Any] = {"n_envs": 2, "batch_size": 64, "n_workers": 0, "hidden_sizes": (8,)}
METHODS: dict[str, tuple[type[OnPolicyAgent[Any]], dict[str, Any]]] = {
    "trpo_max_kl": (TRPO, {"kl_constraint": "max"}),
    "trpo_empirical": (TRPO, {"fisher": "empirical"}),
    "npg": (NPG, {}),
    "npg_normalized": (NPG, {"step_size": None}),
    "vpg_adam": (VPG, {}),
    "vpg_gradient": (VPG, {"ascent": "gradient", "policy_learning_rate": 0.5}),
    "vpg_normalized": (VPG, {"ascent": "normalized", "policy_learning_rate": 0.05}),
    "kl_penalty": (KLPenalty, {"policy_epochs": 3, "policy_minibatch_size": 16}),
    "kl_penalty_full_batch": (KLPenalty, {"policy_minibatch_size": None}),
}
METHOD = pytest.mark.parametrize("method", METHODS)
SLOW = ["trpo_max_kl", "trpo_empirical", "npg", "npg_normalized", "vpg_adam", "kl_penalty"]


def make(method: str, env: str = "CartPole-v1", **settings: Any) -> Any:
    cls, own = METHODS[method]
    return cls(env, **{**SMALL, **own, **settings})


def everything(agent: OnPolicyAgent[Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in agent.state_tensors().items()}


# ---- steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_first_step_of_the_natural_gradient_is_trpos_first_candidate(env: str) -> None:
    agents = [TRPO(env, **SMALL, max_kl=1e-3), NPG(env, **SMALL, step_size=None, max_kl=1e-3)]
    records = []
    for agent in agents:
        agent.learn(64, callback=lambda _, record: records.append(record))
    assert records[0]["policy/status"] == records[1]["policy/status"] == "accepted"
    assert records[0]["policy/backtracks"] == 0
    assert np.array_equal(agents[0].policy.parameters, agents[1].policy.parameters)
    assert records[1]["policy/kl"] == records[0]["policy/kl"]


def test_natural_gradient_takes_the_settings_of_direction() -> None:
    common = {**SMALL, "fisher": "empirical", "kl_constraint": "max", "max_kl": 1e-3}
    trpo = TRPO("CartPole-v1", **common).learn(64)
    npg = NPG("CartPole-v1", **common, step_size=None).learn(64)
    assert trpo.last_record["policy/backtracks"] == 0
    assert np.array_equal(trpo.policy.parameters, npg.policy.parameters)
    plain = TRPO("CartPole-v1", **{**SMALL, "max_kl": 1e-3}).learn(64)
    assert not np.array_equal(trpo.policy.parameters, plain.policy.parameters)


def test_normalized_vanilla_step_has_its_length() -> None:
    agent = make("vpg_normalized", "Pendulum-v1", dtype="float64")
    before = agent.policy.parameters
    agent.learn(64)
    assert np.linalg.norm(agent.policy.parameters - before) == pytest.approx(0.05, rel=1e-9)


def test_coefficient_adapts_as_in_the_paper() -> None:
    assert adapted_coefficient(1.0, 0.0151, 0.01) == 2.0
    assert adapted_coefficient(1.0, 0.0149, 0.01) == 1.0
    assert adapted_coefficient(1.0, 0.0067, 0.01) == 1.0
    assert adapted_coefficient(1.0, 0.0066, 0.01) == 0.5
    assert adapted_coefficient(1e4, 1.0, 0.01) == 1e4
    assert adapted_coefficient(1e-4, 0.0, 0.01) == 1e-4


def test_coefficient_follows_the_kl_of_each_update() -> None:
    agent = make("kl_penalty", policy_learning_rate=1e-2)
    records: list[dict[str, Any]] = []
    agent.learn(640, callback=lambda _, record: records.append(record))
    beta = 1.0
    for record in records:
        beta = adapted_coefficient(beta, record["policy/kl"], 0.01)
        assert record["policy/kl_coefficient"] == beta
    assert agent.kl_coefficient == beta
    assert len({record["policy/kl_coefficient"] for record in records}) > 1


# ---- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [NPGConfig, VPGConfig, KLPenaltyConfig])
def test_configuration_round_trip(config: type[NPGConfig]) -> None:
    settings = config(gamma=0.9, hidden_sizes=(3,))
    assert config.from_dict(settings.to_dict()) == settings
    assert settings.replace(seed=4) == dataclasses.replace(settings, seed=4)
    with pytest.raises(ConfigError, match="expected known field names"):
        settings.replace(gama=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (NPG, {"step_size": 0.0}, r"step_size: expected a number in \(0, inf\)"),
        (NPG, {"stepsize": 0.1}, "did you mean 'step_size'"),
        (NPG, {"max_kl": -1.0}, "max_kl: expected"),
        (VPG, {"ascent": "sgd"}, "ascent: expected one of 'adam'"),
        (VPG, {"policy_learning_rate": "fast"}, "policy_learning_rate: expected a number"),
        (KLPenalty, {"kl_target": 0.0}, "kl_target: expected"),
        (KLPenalty, {"kl_coefficient": -1.0}, "kl_coefficient: expected"),
        (KLPenalty, {"policy_epochs": 0}, "policy_epochs: expected an integer"),
        (KLPenalty, {"policy_minibatch_size": 0}, "policy_minibatch_size: expected an integer"),
        (KLPenalty, {"preset": "tianshou", "config": KLPenaltyConfig()}, "got both"),
    ],
)
def test_bad_settings_get_one_sentence(
    cls: type[OnPolicyAgent[Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls("CartPole-v1", **settings)


def test_presets_and_configurations_of_trpo_are_taken() -> None:
    agent = NPG("CartPole-v1", preset="tianshou", step_size=0.25, n_workers=0)
    expected = preset("tianshou", n_workers=0)
    assert isinstance(agent.config, NPGConfig)
    assert agent.config.step_size == 0.25
    assert agent.config.batch_size == expected.batch_size
    config = TRPOConfig(gae_lambda=0.9, n_workers=0)
    assert KLPenalty("CartPole-v1", config=config).config.gae_lambda == 0.9
    with pytest.raises(ConfigError, match="KLPenalty has no max_kl"):
        KLPenalty("CartPole-v1", config=config.replace(max_kl=0.03))


# ---- files ------------------------------------------------------------------------------------


@METHOD
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_save_load_and_go_on_bit_for_bit(method: str, env: str, tmp_path: Path) -> None:
    agent = make(method, env)
    agent.learn(3 * 64)
    path = agent.save(tmp_path / "agent.safetensors")
    loaded = METHODS[method][0].load(path)
    assert type(loaded) is type(agent)
    assert loaded.config == agent.config
    assert everything(loaded) == everything(agent)
    agent.learn(2 * 64)
    loaded.learn(2 * 64)
    assert everything(loaded) == everything(agent)
    if isinstance(agent, KLPenalty):
        assert isinstance(loaded, KLPenalty)
        assert loaded.kl_coefficient == agent.kl_coefficient
    observation = agent.acting.encoder.space.sample()
    for one, other in zip(
        np.atleast_1d(agent.predict(observation, deterministic=True)[0]),
        np.atleast_1d(loaded.predict(observation, deterministic=True)[0]),
        strict=True,
    ):
        assert one == other
    assert loaded.evaluate(episodes=1, seed=1).returns == agent.evaluate(episodes=1, seed=1).returns
    assert repr(loaded).startswith(type(agent).__name__ + "(")


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    path = make("npg").save(tmp_path / "npg.safetensors")
    with pytest.raises(CheckpointError, match="expected one of VPG, got one of NPG"):
        VPG.load(path)
    assert type(TRPO.load(path)) is NPG


# ---- learning ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [NPG, VPG, KLPenalty])
def test_learns_something_in_seconds(cls: type[OnPolicyAgent[Any]]) -> None:
    agent = cls("CartPole-v1", seed=1, n_workers=0, hidden_sizes=(32,))
    agent.learn(40_000)
    assert agent.evaluate(episodes=10, seed=1).mean_return > 70.0  # a random policy makes 22


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", SLOW)
def test_solves_cart_pole(method: str, seed: int) -> None:
    cls, settings = METHODS[method]
    own = {} if method == "kl_penalty" else settings
    agent = cls("CartPole-v1", seed=seed, **own)
    agent.learn(500_000 if cls is VPG else 200_000)
    assert agent.evaluate(episodes=100, seed=1).mean_return >= 475.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", SLOW)
def test_half_cheetah_runs_forward(method: str, seed: int) -> None:
    pytest.importorskip("mujoco")
    cls, settings = METHODS[method]
    own = {} if method == "kl_penalty" else settings
    agent = cls("HalfCheetah-v5", seed=seed, **own)
    agent.learn(300_000)
    # uniformly random actions make -274 ± 55 (30 episodes)
    assert agent.evaluate(episodes=10, seed=1).mean_return > 0.0
