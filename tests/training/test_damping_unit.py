"""Damping in units of the precision of a Gaussian policy: the same step whatever the unit of actions."""

from __future__ import annotations

import numpy as np
import pytest

from trpo_fast import core
from trpo_fast.config import TRPOConfig
from trpo_fast.presets import PRESETS, preset
from trpo_fast.training.trust_region import mean_precision, natural_step_options

CONFIG = TRPOConfig(cg_damping=0.1, cg_damping_unit="precision")
OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 3))


def test_precision_of_every_kind_of_action() -> None:
    free = core.Policy(3, core.Distribution("gaussian", (2,)), dtype="float64")
    parameters = free.parameters
    parameters[-2:] = np.log([0.5, 0.1])
    free.parameters = parameters
    assert mean_precision(free, OBSERVATIONS) == pytest.approx((4.0 + 100.0) / 2)

    dependent = core.Policy(
        3, core.Distribution("state_dependent_gaussian", (2,)), dtype="float64", output_gain=1.0
    )
    log_std = dependent.outputs(OBSERVATIONS)[:, 2:]
    assert log_std.std() > 0.1
    expected = np.exp(-2.0 * log_std).mean()
    assert mean_precision(dependent, OBSERVATIONS) == pytest.approx(expected)

    discrete = core.Policy(3, core.Distribution("categorical", (4,)), dtype="float64")
    assert mean_precision(discrete, OBSERVATIONS) == 1.0


def test_options_hold_the_product() -> None:
    policy = core.Policy(3, core.Distribution("gaussian", (2,)), initial_log_std=np.log(0.2))
    options = natural_step_options(CONFIG, policy, OBSERVATIONS)
    assert options.cg_damping == pytest.approx(0.1 * 25.0, rel=1e-6)
    absolute = CONFIG.replace(cg_damping_unit="absolute")
    assert natural_step_options(absolute, policy, OBSERVATIONS).cg_damping == 0.1
    noise = CONFIG.replace(cg_damping_unit="noise", initial_log_std=float(np.log(0.6)))
    options = natural_step_options(noise, policy, OBSERVATIONS)
    assert options.cg_damping == pytest.approx(0.1 * 3.0**6, rel=1e-6)  # sigma is a third of 0.6
    noise = CONFIG.replace(cg_damping_unit="noise", initial_log_std=float(np.log(2.0)))
    options = natural_step_options(noise, policy, OBSERVATIONS)
    assert options.cg_damping == pytest.approx(0.1 * 100.0 * 10.0**2, rel=1e-6)  # a tenth of 2
    averaged = CONFIG.replace(kl_convention="mean_over_action_dimensions")
    options = natural_step_options(averaged, policy, OBSERVATIONS)
    assert options.cg_damping == pytest.approx(0.1 * 25.0 * 2, rel=1e-6)


def test_direction_does_not_depend_on_the_unit_of_actions() -> None:
    """Actions, means and deviations ten times smaller: the means move ten times less."""

    def step(scale: float, unit: str) -> np.ndarray:
        policy = core.Policy(
            3,
            core.Distribution("gaussian", (2,)),
            hidden_sizes=(),  # linear, so that the means have the unit of the weights
            dtype="float64",
            initial_log_std=np.log(0.5 * scale),
            output_gain=0.0,
        )
        rng = np.random.default_rng(1)
        actions = 0.5 * scale * rng.normal(size=(50, 2))
        advantages = rng.normal(size=50) + 5.0 * actions[:, 0] / scale
        before = policy.parameters
        config = CONFIG.replace(
            cg_damping=1.0,
            cg_damping_unit=unit,
            cg_preconditioner="none",
            cg_iterations=50,
            max_kl=1e-6,
        )
        options = natural_step_options(config, policy, OBSERVATIONS)
        assert policy.update(OBSERVATIONS, actions, advantages, options).accepted
        moved = (policy.parameters - before)[:-2]  # the log-stds have a metric of their own
        return moved / np.linalg.norm(moved)

    def change(unit: str) -> float:
        return float(np.linalg.norm(step(1.0, unit) - step(0.1, unit)))

    assert change("precision") < 1e-5
    assert change("absolute") > 1e-2


def test_noise_leaves_discrete_actions_alone_and_starts_at_the_damping_itself() -> None:
    config = TRPOConfig(cg_damping=0.1)
    assert config.cg_damping_unit == "noise"
    discrete = core.Policy(3, core.Distribution("categorical", (4,)))
    assert natural_step_options(config, discrete, OBSERVATIONS).cg_damping == 0.1
    for log_std in (-0.5, 0.3):
        begun = core.Policy(3, core.Distribution("gaussian", (2,)), initial_log_std=log_std)
        options = natural_step_options(config.replace(initial_log_std=log_std), begun, OBSERVATIONS)
        assert options.cg_damping == pytest.approx(0.1, rel=1e-6)


def test_presets_keep_their_unit() -> None:
    for name in PRESETS:
        assert preset(name).cg_damping_unit == "absolute"
