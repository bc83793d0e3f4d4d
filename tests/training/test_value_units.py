"""The unit of the value function: V stays what it was whenever the unit changes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from trpo_fast import TRPO, core
from trpo_fast.training.value_units import ValueUnits

DTYPES = ("float32", "float64")


def _fitted(dtype: str, hidden: tuple[int, ...] = (8, 6)) -> tuple[core.ValueFunction, np.ndarray]:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(200, 3)).astype(dtype)
    value = core.ValueFunction(3, hidden_sizes=hidden, dtype=dtype, seed=1)
    value.fit(observations, np.sin(observations[:, 0]).astype(dtype), epochs=3, minibatch_size=32)
    return value, observations


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rescaled_outputs(dtype: str, hidden: tuple[int, ...]) -> None:
    value, observations = _fitted(dtype, hidden)
    before = value.predict(observations).astype(np.float64)
    value.rescale_outputs(0.03, -7.5)
    wanted = 0.03 * before - 7.5
    tolerance = 1e-14 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(value.predict(observations), wanted, rtol=0, atol=tolerance * 10)


@pytest.mark.parametrize("hidden", [(), (8, 6)])
def test_a_fit_after_a_change_of_unit_goes_on_as_without(hidden: tuple[int, ...]) -> None:
    # moments and gradients change together: Adam's directions m / sqrt(v) are those of before,
    # so that hidden layers take the same step and the last layer the same in its own unit
    a, observations = _fitted("float64", hidden)
    b, _ = _fitted("float64", hidden)
    targets = np.cos(observations[:, 1])
    b.rescale_outputs(4.0, 1.0)
    before = a.parameters, b.parameters
    a.fit(observations, targets, epochs=1, minibatch_size=None)
    b.fit(observations, 4.0 * targets + 1.0, epochs=1, minibatch_size=None)
    steps = a.parameters - before[0], b.parameters - before[1]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-4, atol=1e-9)
    assert np.abs(steps[0]).max() > 1e-5


@pytest.mark.parametrize(
    ("scale", "shift"), [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, np.inf)]
)
def test_bad_units_are_refused(scale: float, shift: float) -> None:
    value, _ = _fitted("float64")
    before = value.parameters
    with pytest.raises(ValueError, match=r"(scale|shift): expected a"):
        value.rescale_outputs(scale, shift)
    assert np.array_equal(value.parameters, before)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e2, 1e4])
def test_values_do_not_change_with_the_unit(offset: float) -> None:
    value, observations = _fitted("float64")
    units = ValueUnits()
    rng = np.random.default_rng(1)
    units.absorb(offset + rng.normal(size=100), value)
    for growth in (1.0, 30.0, 1e3):
        before = units.to_rewards(value.predict(observations))
        units.absorb(offset * growth + growth * rng.normal(size=100), value)
        after = units.to_rewards(value.predict(observations))
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12 * units.scale)
    targets = units.to_targets(np.array([units.mean, units.mean + units.scale]))
    np.testing.assert_allclose(targets, [0.0, 1.0], atol=1e-12)


def test_constant_returns_have_a_unit() -> None:
    value, observations = _fitted("float32")
    units = ValueUnits()
    for constant in (5.0, 5.0, 1e6):
        units.absorb(np.full(50, constant), value)
        assert np.isfinite(units.to_rewards(value.predict(observations))).all()
        assert units.scale > 0.0


# ---- in training


class Flat(gymnasium.Env[Any, Any]):
    """The same reward at every step, whatever is done; only a time limit ends an episode."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, reward: float, wobble: float = 0.0) -> None:
        self._reward, self._wobble = reward, wobble

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._x = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self._x, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self._reward - self._wobble * abs(float(action[0]) - 0.7 * float(self._x[0]))
        self._x = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self._x, reward, False, False, {}


def _values(
    reward: float, limit: int, iterations: int, *, wobble: float = 0.0, **settings: Any
) -> list[float]:
    """The mean of V, in reward units, after every iteration."""
    agent = TRPO(
        lambda: gymnasium.wrappers.TimeLimit(Flat(reward, wobble), limit),
        **{"n_envs": 4, "batch_size": 256, "n_workers": 0, "seed": 0, "hidden_sizes": (8,)},
        value_hidden_sizes=(16,),
        value_epochs=10,  # of two steps: batches are small here
        **settings,
    )
    states = np.random.default_rng(0).uniform(-1, 1, (64, 2)).astype(np.float32)
    seen: list[float] = []

    def look(agent: Any, _: Any) -> None:
        network = agent.value_function.predict(agent.policy.normalize(states))
        seen.append(float(agent.value_fitting.units.to_rewards(network).mean()))

    agent.learn(256 * iterations, callback=look, progress=False)
    agent.close()
    return seen


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 50, 200])
def test_a_constant_reward_has_its_value(limit: int) -> None:
    # a time limit truncates, it does not end: V = 100 / (1 - 0.9) for every limit
    values = _values(100.0, limit, 80, gamma=0.9)
    assert max(values) < 1050.0
    assert np.abs(np.array(values[-20:]) - 1000.0).max() < 50.0


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_no_offset_makes_values_run_away(offset: float, limit: int) -> None:
    values = np.array(_values(offset, limit, 60, gamma=0.9, wobble=1.0))
    assert np.isfinite(values).all()
    lowest, highest = (offset - 1.7) / 0.1, offset / 0.1  # the worst and the best policy for ever
    assert values.max() < highest + 0.05 * abs(highest) + 1.0
    assert lowest - 0.05 * abs(lowest) - 1.0 < values[-1]
