"""Actions in physical units are learned as well as those in [-1, 1]."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO, TRPOConfig, VineTRPO
from trpo_fast.presets import PRESETS, preset
from trpo_fast.training.notices import first_notices

OLD = Path(__file__).parent / "data" / "checkpoint_schema_1.safetensors"


class Valve(gymnasium.Env[Any, Any]):
    """Open a valve by 0.7 x of its range; 20 steps, reward 1 - (difference)^2 each."""

    observation_space = spaces.Box(-1, 1, (1,))

    def __init__(self, low: float, high: float, dtype: Any = np.float32) -> None:
        self.action_space = spaces.Box(low, high, (1,), dtype)
        self._center, self._half = (high + low) / 2, (high - low) / 2

    def _observe(self) -> Any:
        self._x = self.np_random.uniform(-1, 1)
        return np.array([self._x], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        opened = (float(action[0]) - self._center) / self._half
        reward = 1.0 - (opened - 0.7 * self._x) ** 2
        self._t += 1
        return self._observe(), reward, False, self._t == 20, {}


SETTINGS: dict[str, Any] = {
    "n_envs": 4,
    "batch_size": 400,
    "hidden_sizes": (16,),
    "value_hidden_sizes": (16,),
    "seed": 1,
    "max_kl": 0.03,
}


def trained(low: float, high: float, steps: int = 800, *, cls: Any = TRPO, **settings: Any) -> Any:
    agent = cls(partial(Valve, low, high), **{**SETTINGS, "n_workers": 0, **settings})
    return agent.learn(steps)


def bits(agent: Any) -> bytes:
    with closing(agent):
        return bytes(agent.policy.parameters.tobytes())


# [-4, 4] is [-1, 1] times 4: nothing is rounded
@pytest.mark.parametrize("settings", [{}, {"dtype": "float64"}, {"n_workers": 2}])
def test_the_unit_of_an_action_changes_no_bit(settings: dict[str, Any]) -> None:
    assert bits(trained(-4, 4, **settings)) == bits(trained(-1, 1, **settings))
    assert bits(trained(-4, 4, **settings, action_scaling=False)) != bits(
        trained(-1, 1, **settings)
    )


def test_nor_that_of_vector_environments_and_vines() -> None:
    def vector(low: float, high: float) -> bytes:
        env = gymnasium.vector.SyncVectorEnv([partial(Valve, low, high)] * 4)
        return bits(TRPO(env, **SETTINGS).learn(800))

    assert vector(-4, 4) == vector(-1, 1)
    vine = {"cls": VineTRPO, "vine": {"states": 8, "branches": 3, "branch_steps": 3}}
    assert bits(trained(-4, 4, **vine)) == bits(trained(-1, 1, **vine))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_physical_units_are_learned_as_well_as_those_of_one(n_workers: int) -> None:
    returns = {}
    for low, high, scaling in ((-1, 1, True), (0, 1000, True), (20, 24, True), (0, 1000, False)):
        with closing(
            trained(low, high, 16_000, action_scaling=scaling, n_workers=n_workers)
        ) as agent:
            result = agent.evaluate(20, seed=3)
            returns[low, high, scaling] = result.mean_return
            action, _ = agent.predict(np.array([1.0], np.float32), deterministic=True)
            assert agent.sampler.action_space.contains(action)
    assert returns[-1, 1, True] > 19.0
    assert returns[0, 1000, True] == pytest.approx(returns[-1, 1, True], abs=0.3)
    assert returns[20, 24, True] == pytest.approx(returns[-1, 1, True], abs=0.3)
    # as it was: a deviation of 0.6 in a range of 1,000, from its lower end
    assert returns[0, 1000, False] < 10.0


@pytest.mark.parametrize(("high", "said"), [(1000, True), (1, False)])
def test_the_first_record_says_so_where_it_changes_anything(high: float, said: bool) -> None:
    records: list[dict[str, Any]] = []
    with closing(TRPO(partial(Valve, -high, high), **SETTINGS)) as agent:
        agent.learn(800, callback=lambda _, record: records.append(dict(record)))
    expected = "mapped from [-1, 1] to the bounds of Box(-1000, 1000)"
    assert (expected in records[0].get("run/notice", "")) is said
    assert "run/notice" not in records[1]


def test_files_and_presets_keep_their_way() -> None:
    assert TRPOConfig().action_scaling
    old = {k: v for k, v in TRPOConfig().to_dict().items() if k != "action_scaling"}
    assert not TRPOConfig.from_saved(old).action_scaling
    for name in PRESETS:
        assert preset(name).action_scaling is (name == "tianshou")
    with closing(TRPO.load(OLD, n_workers=0)) as agent:
        assert not agent.config.action_scaling
        assert not agent.sampler.action_adapter.scaling


def test_a_checkpoint_keeps_the_scaling(tmp_path: Path) -> None:
    make = partial(Valve, 0, 1000)
    with closing(trained(0, 1000)) as agent:
        agent.save(tmp_path / "agent.safetensors")
        expected, _ = agent.predict(np.array([0.3], np.float32), deterministic=True)
    with closing(TRPO.load(tmp_path / "agent.safetensors", env=make, n_workers=0)) as agent:
        got, _ = agent.predict(np.array([0.3], np.float32), deterministic=True)
    np.testing.assert_array_equal(got, expected)
    assert 100.0 < float(got[0]) < 900.0


# ---- other notices of the first record


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_wrapper_that_normalises_gets_a_notice(n_workers: int) -> None:
    def make() -> Any:
        return gymnasium.wrappers.NormalizeObservation(gymnasium.make("CartPole-v1"))

    with closing(TRPO(make, **{**SETTINGS, "n_workers": n_workers})) as agent:
        agent.learn(400)
        assert "wrapped in NormalizeObservation" in agent.last_record["run/notice"]
        agent.learn(400)
        assert "run/notice" not in agent.last_record


def test_pixels_are_warned_of() -> None:
    class Pixels(Valve):
        observation_space = spaces.Box(0, 255, (105, 80, 3), np.uint8)

        def _observe(self) -> Any:
            self._x = 0.0
            return np.zeros((105, 80, 3), np.uint8)

    with pytest.warns(UserWarning, match=r"got 25,200 of shape \(105, 80, 3\); networks here are"):
        TRPO(lambda: Pixels(-1, 1), **SETTINGS, n_workers=0).close()
    with closing(TRPO("CartPole-v1", n_workers=0)) as agent:
        assert first_notices(agent.sampler) == ""
