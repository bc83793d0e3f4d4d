"""The configuration and the presets: round trips, and one sentence for every mistake."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from typing import Any

import numpy as np
import pytest

from trpo_fast import config as config_module
from trpo_fast.algorithms.single_path import SinglePathConfig
from trpo_fast.config import ConfigError, TRPOConfig, field_names
from trpo_fast.presets import PRESETS, find_preset, preset


def assert_sentence(error: pytest.ExceptionInfo[ConfigError], name: str) -> None:
    message = str(error.value)
    assert message.startswith(name)
    assert "expected" in message
    assert "got" in message
    assert "; " in message  # what to do
    assert "\n" not in message


# ---- TRPOConfig


def test_default_is_valid_frozen_and_keyword_only() -> None:
    config = TRPOConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        TRPOConfig(0)  # type: ignore[misc]
    assert TRPOConfig() == config
    assert hash(TRPOConfig()) == hash(config)


def test_json_round_trip_is_exact() -> None:
    config = TRPOConfig(
        gamma=1 / 3, hidden_sizes=(3, 5, 7), value_hidden_sizes=(), value_minibatch_size=None
    )
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert TRPOConfig.from_dict(json.loads(text)) == config


def test_part_of_a_dictionary_takes_the_defaults() -> None:
    assert TRPOConfig.from_dict({"gamma": 0.5}) == TRPOConfig(gamma=0.5)


def test_values_become_plain_python() -> None:
    config = TRPOConfig(
        max_kl=np.float32(0.5), n_envs=np.int64(3), gamma=1, hidden_sizes=[np.int32(4)]
    )
    assert [type(v) for v in (config.max_kl, config.n_envs, config.gamma)] == [float, int, float]
    assert config.hidden_sizes == (4,)
    assert type(config.hidden_sizes[0]) is int


def test_replace_validates_again() -> None:
    assert TRPOConfig().replace(gamma=0.5).gamma == 0.5
    with pytest.raises(ConfigError) as error:
        TRPOConfig().replace(gamma=2)
    assert_sentence(error, "gamma")


@pytest.mark.parametrize(("batch_size", "n_envs", "steps"), [(2048, 8, 256), (10, 4, 3), (2, 1, 2)])
def test_steps_per_env_rounds_up(batch_size: int, n_envs: int, steps: int) -> None:
    assert TRPOConfig(batch_size=batch_size, n_envs=n_envs).steps_per_env == steps


INVALID: list[tuple[str, Any]] = [
    ("seed", -1),
    ("seed", 2**63),
    ("seed", True),
    ("seed", 1.5),
    ("dtype", "float16"),
    ("dtype", np.float32),
    ("n_threads", 0),
    ("n_envs", 0),
    ("n_envs", "8"),
    ("batch_size", 1),
    ("batch_size", 2**31),
    ("batch_size", 2048.0),
    ("sampling", "trajectories"),
    ("sampling", True),
    ("gamma", -0.1),
    ("gamma", 1.1),
    ("gamma", math.nan),
    ("gae_lambda", 1.0001),
    ("hidden_sizes", 64),
    ("hidden_sizes", "64"),
    ("hidden_sizes", (64, 0)),
    ("hidden_sizes", (64, 1.0)),
    ("value_hidden_sizes", (True,)),
    ("activation", "Tanh"),
    ("activation", ["tanh"]),
    ("value_activation", "swish"),
    ("hidden_gain", 0),
    ("policy_output_gain", -1.0),
    ("value_output_gain", math.inf),
    ("initial_log_std", 1000),
    ("action_scaling", "yes"),
    ("state_dependent_std", 1),
    ("max_kl", -0.01),
    ("max_kl", 0.0),
    ("max_kl", math.inf),
    ("max_kl", "0.01"),
    ("max_kl", True),
    ("max_kl", 10**400),
    ("max_kl", 1j),
    ("kl_convention", "mean"),
    ("cg_iterations", 0),
    ("cg_tolerance", 1.0),
    ("cg_damping", -0.1),
    ("cg_damping_unit", "trace"),
    ("signal_guard", -0.1),
    ("signal_memory", 0),
    ("remembered_states", -1),
    ("cg_preconditioner", "jacobi"),
    ("backtrack_ratio", 1.0),
    ("backtrack_ratio", 0.0),
    ("max_backtracks", -1),
    ("fisher_fraction", 0.0),
    ("fisher_fraction", 1.5),
    ("standardize_advantages", None),
    ("value_optimizer", "sgd"),
    ("value_learning_rate", 0.0),
    ("value_learning_rate_schedule", "cosine"),
    ("schedule_timesteps", 0),
    ("action_masks", 3),
    ("value_epochs", 0),
    ("value_minibatch_size", 0),
    ("value_lbfgs_iterations", 0),
    ("normalize_observations", "yes"),
    ("observation_clip", 0.0),
    ("scale_returns", np.bool_(True)),
    ("overlap_value_fit", 1),
    ("n_workers", -1),
    ("kl_constraint", "median"),
    ("fisher", "true"),
    ("n_workers", 1.5),
    ("worker_timeout", 0.0),
    ("worker_timeout", "1"),
    ("cluster", "somewhere"),
    ("cluster", "ray://host"),
    ("runtime_env", ["numpy"]),
    ("runtime_env", {"env_vars": object()}),
    ("distribute_update", 1),
    ("distribute_update", True),
    ("restart_crashed_environments", 1),
    ("save_environments", 1),
    ("episode_metrics", "score"),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_each_invalid_value_is_one_sentence(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        TRPOConfig.from_dict({name: value})
    assert_sentence(error, name)


def test_every_field_has_an_invalid_value_in_these_tests() -> None:
    assert {name for name, _ in INVALID} == set(field_names())


def test_a_batch_smaller_than_the_environments_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one step for each of the 16 environments"):
        TRPOConfig(n_envs=16, batch_size=15)


def test_settings_of_a_cluster() -> None:
    for address in ("local", "auto", "10.0.0.1:6379", "ray://head:10001"):
        assert TRPOConfig(cluster=address).cluster == address
    config = TRPOConfig(cluster="auto", runtime_env={"working_dir": "."})
    assert json.loads(config.runtime_env or "") == {"working_dir": "."}
    assert TRPOConfig(cluster="auto", runtime_env="env.yaml").runtime_env == "env.yaml"
    with pytest.raises(ConfigError, match="runtime_env: expected its default None with cluster"):
        TRPOConfig(runtime_env="env.yaml")
    with pytest.raises(ConfigError, match="n_workers: expected at least 1 with cluster"):
        TRPOConfig(cluster="auto", n_workers=0)
    assert config.of_the_run == TRPOConfig()


def test_unknown_field_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="got 'gama'; did you mean 'gamma'"):
        TRPOConfig.from_dict({"gama": 0.9})
    with pytest.raises(ConfigError) as error:
        TRPOConfig().replace(zzz=1)
    assert_sentence(error, "configuration")
    with pytest.raises(ConfigError) as error:
        TRPOConfig.from_dict([("gamma", 1)])  # type: ignore[arg-type]
    assert_sentence(error, "configuration")


def test_wrong_choice_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        TRPOConfig(activation="Tanh")  # type: ignore[arg-type]


def test_every_field_is_documented() -> None:
    lines = [line.strip() for line in inspect.getsource(config_module.settings).splitlines()]
    for name in field_names():
        row = next(i for i, line in enumerate(lines) if line.startswith(f"{name}: "))
        rest = lines[row:]
        assert next(line for line in rest if line.startswith('"""') or not line), name


# ---- presets


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid_and_says_its_source(name: str) -> None:
    info = find_preset(name)
    assert info.name == name
    assert info.source
    for env in (None, *(f"{base}-v5" for base in info.by_environment)):
        assert preset(name, env=env) == TRPOConfig.from_dict(info.settings_for(env))


def test_six_presets() -> None:
    assert set(PRESETS) == {
        "sb3", "rl-zoo-mujoco", "tianshou", "spinningup", "baselines", "paper",
    }  # fmt: skip


def test_preset_knows_single_environments() -> None:
    assert preset("rl-zoo-mujoco").max_kl == 0.01
    assert preset("rl-zoo-mujoco", env="HalfCheetah-v5").max_kl == 0.04
    assert preset("rl-zoo-mujoco", env="package.module:space/Swimmer-v5").gamma == 0.9999
    assert preset("paper", env="Hopper-v5").batch_size == 1_000_000


def test_overrides_win_over_a_preset() -> None:
    assert preset("rl-zoo-mujoco", env="HalfCheetah-v5", max_kl=0.02).max_kl == 0.02


def test_sb3_averages_the_kl_over_action_dimensions() -> None:
    assert preset("sb3").kl_convention == "mean_over_action_dimensions"
    assert preset("tianshou").kl_convention == "sum"


def test_unknown_preset_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="got 'tianshu'; did you mean 'tianshou'"):
        preset("tianshu")
    with pytest.raises(ConfigError) as error:
        preset("x")
    assert_sentence(error, "preset")
    with pytest.raises(ConfigError, match="did you mean 'max_kl'"):
        preset("sb3", max_lk=0.1)


def test_a_field_younger_than_a_file_means_what_was_done_then() -> None:
    stored = TRPOConfig().to_dict()
    assert TRPOConfig.from_saved(stored) == TRPOConfig()
    del stored["cg_preconditioner"], stored["sampling"]
    stored["gae_lambda"] = 1.0
    assert TRPOConfig.from_saved(stored).cg_preconditioner == "none"
    assert TRPOConfig.from_dict(stored).cg_preconditioner == "kronecker"
    path = SinglePathConfig.from_saved(stored)
    assert (path.sampling, path.baseline) == ("steps", "mean")


def test_lambda_is_longer_where_gamma_is_near_1() -> None:
    assert [TRPOConfig(gamma=gamma).lam for gamma in (0.99, 0.999, 0.9999, 1.0)] == [
        0.95,
        0.95,
        0.98,
        0.98,
    ]
    assert TRPOConfig(gamma=0.9999, gae_lambda=0.9).lam == 0.9
    assert preset("rl-zoo-mujoco").lam == 0.95
