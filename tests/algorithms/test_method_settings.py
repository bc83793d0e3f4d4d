"""A setting is honoured or refused, by every method; none is silently ignored."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import trpo_fast
from masked_envs import masked_factory
from trpo_fast.algorithms import ALGORITHMS, algorithm_class
from trpo_fast.config import ConfigError, TRPOConfig, field_names
from trpo_fast.presets import PRESETS

SMALL: dict[str, Any] = {
    "n_workers": 0, "n_envs": 2, "batch_size": 256, "hidden_sizes": (8,), "save_environments": False,
}  # fmt: skip
METHOD = pytest.mark.parametrize("method", ALGORITHMS)

# A Fisher matrix of a few samples overrates the step: the line search has work to do.
LONG_STEPS: dict[str, Any] = {"fisher_fraction": 0.2, "cg_damping": 1e-2, "max_kl": 2.0}

# A value for every setting that must change what is learned, and what must be set beside it.
VALUES: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (3, {}),
    "dtype": ("float64", {}),
    "n_envs": (4, {}),
    "batch_size": (128, {}),
    "sampling": ("total_steps", {"batch_size": 255}),
    "action_scaling": (False, {}),
    "schedule_timesteps": (999, {"cg_damping": "linear", "policy_learning_rate": "linear"}),
    "gamma": (0.9, {}),
    "gae_lambda": (0.5, {}),
    "hidden_sizes": ((4,), {}),
    "activation": ("relu", {}),
    "value_hidden_sizes": ((4,), {}),
    "value_activation": ("relu", {}),
    "hidden_gain": (1.0, {}),
    "policy_output_gain": (0.5, {}),
    "value_output_gain": (0.1, {}),
    "initial_log_std": (0.0, {}),
    "state_dependent_std": (True, {}),
    "max_kl": (0.002, {}),
    "kl_constraint": ("max", {}),
    "kl_convention": ("mean_over_action_dimensions", {}),
    "cg_iterations": (1, {}),
    "cg_tolerance": (0.5, {}),
    "cg_damping": (0.5, {}),
    "cg_damping_unit": ("absolute", {}),
    "cg_preconditioner": ("none", {"cg_iterations": 2}),
    "backtrack_ratio": (0.1, LONG_STEPS),
    "max_backtracks": (0, LONG_STEPS),
    "fisher": ("empirical", {}),
    "fisher_fraction": (0.2, {}),
    "standardize_advantages": (
        False,
        {"baseline": "mean"},
    ),  # it centres them, and scales the step of VPG
    "value_optimizer": ("lbfgs", {}),
    "value_learning_rate": (0.1, {}),
    "value_learning_rate_schedule": ("linear", {}),
    "value_epochs": (2, {}),
    "value_minibatch_size": (None, {}),
    "value_lbfgs_iterations": (2, {"value_optimizer": "lbfgs"}),
    "normalize_observations": (False, {}),
    "observation_clip": (0.5, {}),
    "scale_returns": (False, {}),
    "signal_guard": (0.5, {}),
    "signal_memory": (1, {"signal_guard": 0.5, "batch_size": 512, "n_envs": 8, "seed": 1}),
    "remembered_states": (32, {}),
    "step_size": (0.01, {}),
    "ascent": ("gradient", {}),
    "policy_learning_rate": (0.02, {}),
    "kl_target": (1e-6, {}),
    "kl_coefficient": (9.0, {}),
    "policy_epochs": (2, {}),
    "policy_minibatch_size": (16, {}),
    "baseline": ("mean", {}),
    "vine": ({"states": 8, "branch_steps": 3}, {}),
}

# Settings of the machine: they must change no bit.
OF_THE_MACHINE = {
    "n_threads", "n_workers", "worker_timeout", "restart_crashed_environments", "overlap_value_fit",
    "save_environments", "episode_metrics", "cluster", "runtime_env", "distribute_update",
}  # fmt: skip


# Settings that need another environment: see test_every_method_follows_masks.
OF_THE_ENVIRONMENT = {"action_masks"}


def learned(method: str, env: Any = "Pendulum-v1", **settings: Any) -> bytes:
    """What two iterations have made of policy and value function."""
    own = {"vine": {"states": 16, "branch_steps": 4}} if method == "vine" else {}
    known = field_names(algorithm_class(method).config_type)
    small = {name: value for name, value in SMALL.items() if name in known}
    agent = algorithm_class(method)(env, **{**small, **own, **settings})
    updates = 4 if method == "vine" or "signal_guard" in settings else 2
    agent.learn(updates * agent.config.batch_size, progress=False)
    parts = [agent.policy.parameters.tobytes()]
    if agent.value_fitting is not None:
        parts.append(agent.value_function.parameters.tobytes())
    agent.close()
    return b"".join(parts)


def test_every_setting_is_tried() -> None:
    every = {name for m in ALGORITHMS for name in field_names(algorithm_class(m).config_type)}
    assert every == set(VALUES) | OF_THE_MACHINE | OF_THE_ENVIRONMENT


@METHOD
@pytest.mark.parametrize("kind", ["discrete", "multi_binary"])
def test_every_method_follows_masks(method: str, kind: str) -> None:
    """The environment raises where a forbidden action is taken, unless it is lenient."""
    followed = learned(method, masked_factory(kind, "info"))
    assert learned(method, masked_factory(kind, "info", lenient=True)) == followed
    ignored = learned(method, masked_factory(kind, "info", lenient=True), action_masks="none")
    assert ignored != followed
    with pytest.raises(Exception, match="is forbidden by"):
        learned(method, masked_factory(kind, "info"), action_masks="none")


@METHOD
def test_every_setting_of_a_method_has_an_effect(method: str) -> None:
    config_type = algorithm_class(method).config_type
    without: dict[str, bytes] = {}
    for name, (value, beside) in VALUES.items():
        if name not in field_names(config_type):
            continue
        if method == "npg" and name in ("max_kl", "kl_constraint"):
            beside = {**beside, "step_size": None}
        if method == "single-path" and name in ("sampling", "batch_size"):
            # whole episodes of Pendulum are 200 steps whatever a batch asks for
            value, beside = ("steps" if name == "sampling" else 600), {"batch_size": 255}
            beside = {} if name == "batch_size" else beside
        if method == "vine" and name == "sampling":
            with pytest.raises(ValueError, match="expected 'steps' under vine sampling"):
                learned(method, sampling=value)
            continue
        # one state of sixteen: no step along such a direction is ever accepted
        idle = ("fisher_fraction",) if method == "vine" and name != "fisher_fraction" else ()
        beside = {
            k: v for k, v in beside.items() if k in field_names(config_type) and k not in idle
        }
        key = repr(beside)
        without.setdefault(key, learned(method, **beside))
        if name == "kl_convention":
            continue  # one action component: a mean over them is a sum; see test_agent
        assert learned(method, **{**beside, name: value}) != without[key], name


@METHOD
def test_what_a_method_lacks_is_refused_in_one_sentence(method: str) -> None:
    cls = algorithm_class(method)
    for name in set(field_names(TRPOConfig)) - set(field_names(cls.config_type)):
        sentence = f"^{name}: expected a setting of .*{cls.__name__} has no {name}: .*leave it out$"
        with pytest.raises(ConfigError, match=sentence):
            cls("CartPole-v1", **{name: VALUES[name][0] if name in VALUES else True})
        with pytest.raises(ConfigError, match=sentence):
            cls.config_type().replace(**{name: True})


def test_what_they_lack() -> None:
    def lacks(method: str) -> set[str]:
        return set(field_names(TRPOConfig)) - set(field_names(algorithm_class(method).config_type))

    of_trpo_alone = {"signal_guard", "signal_memory", "remembered_states"}
    assert lacks("trpo") == set()
    assert lacks("vine") == of_trpo_alone
    assert lacks("npg") == {"backtrack_ratio", "max_backtracks"} | of_trpo_alone
    assert (
        lacks("vpg") == lacks("kl-penalty") > {"max_kl", "fisher", "cg_damping", "max_backtracks"}
    )
    assert lacks("single-path") > {"gae_lambda", "value_epochs", "scale_returns"}


@pytest.mark.parametrize(
    ("method", "settings", "beside"),
    [
        ("trpo", {"value_lbfgs_iterations": 3}, "value_optimizer='adam'"),
        ("trpo", {"value_optimizer": "lbfgs", "value_epochs": 3}, "value_optimizer='lbfgs'"),
        ("trpo", {"observation_clip": 3.0, "normalize_observations": False}, "normalize_observ"),
        ("trpo", {"backtrack_ratio": 0.5, "max_backtracks": 0}, "max_backtracks=0"),
        ("npg", {"max_kl": 10.0}, "step_size=0.3"),
        ("vine", {"vine": {"bootstrap": False}, "gae_lambda": 0.5}, "vine.bootstrap=False"),
    ],
)
def test_what_has_no_effect_beside_another_setting_is_refused(
    method: str, settings: dict[str, Any], beside: str
) -> None:
    with pytest.raises(ConfigError, match=f"expected its default .* with {beside}"):
        algorithm_class(method)("CartPole-v1", **settings)


@METHOD
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_for_every_method(method: str, preset: str) -> None:
    cls = algorithm_class(method)
    config = cls.make_config(None, preset, {"gamma": 0.5}, "HalfCheetah-v5")
    known = field_names(cls.config_type)
    settings = PRESETS[preset].settings_for("HalfCheetah-v5")
    for name, value in settings.items():
        if name in known and name not in config.without_effect(vars(config)):
            assert getattr(config, name) == (0.5 if name == "gamma" else value)


def test_a_switch_beside_a_preset_drops_what_loses_its_effect() -> None:
    agent = trpo_fast.TRPO(
        "CartPole-v1", preset="tianshou", value_optimizer="lbfgs", n_workers=0, n_envs=2
    )
    assert agent.config.value_epochs == TRPOConfig().value_epochs
    assert agent.config.batch_size == 1024
    agent.close()


@METHOD
def test_files_of_before_are_read_without_what_was_ignored(method: str) -> None:
    config_type = algorithm_class(method).config_type
    own = {
        one.name: one.default for one in dataclasses.fields(config_type)
        if one.name not in field_names() and one.default is not dataclasses.MISSING
    }  # fmt: skip
    old = {
        **TRPOConfig(cg_iterations=3, gamma=0.5).to_dict(),
        "value_epochs": 3,
        "max_kl": 0.5,
        **own,
    }
    config = config_type.from_saved({**old, "sampling": "steps"})
    assert config.gamma == 0.5
    for name in ("cg_iterations", "value_epochs"):
        assert name not in field_names(config_type) or getattr(config, name) == 3
    with pytest.raises(ConfigError, match="expected known field names, got 'nonsense'"):
        config_type.from_saved({**old, "nonsense": 1})
