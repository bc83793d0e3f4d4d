"""What the sentences about environments say: what, by which one, where, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO
from trpo_fast.envs import EnvironmentFailure, ObservationEncoder, make_environment
from trpo_fast.envs.interface import one_number, reset_error_problem, reset_problem, step_problem
from trpo_fast.evaluation import evaluate_policy

PLANT = """
import gymnasium

class Plant(gymnasium.Env):
    def __init__(self):
        assert False

class Sized(gymnasium.Env):
    def __init__(self, size):
        raise ValueError(f"no plant of size {size}")

gymnasium.register("Plant-v0", Plant)
gymnasium.register("Sized-v0", Sized)
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module of environments that cannot be made; returns its name."""
    name = f"plant_of_{tmp_path.name}"  # a module of its own for every test
    (tmp_path / f"{name}.py").write_text(PLANT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for registered in ("Plant-v0", "Sized-v0"):
        gymnasium.registry.pop(registered, None)
    return name


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_constructor_that_raises_is_named_with_its_place(plant: str, n_workers: int) -> None:
    expected = (
        f"environment '{plant}:Plant-v0' cannot be made: "
        f"AssertionError \\({plant}.py, line 6, in __init__\\)"
    )
    with pytest.raises(EnvironmentFailure, match=expected):
        TRPO(f"{plant}:Plant-v0", n_workers=n_workers, n_envs=2, batch_size=64)


def test_the_kind_of_a_constructor_error_is_kept(plant: str) -> None:
    with pytest.raises(ValueError, match=rf"ValueError: no plant of size 3 \({plant}\.py"):
        make_environment(f"{plant}:Sized-v0", size=3)
    with pytest.raises(TypeError, match="cannot be made: TypeError"):
        make_environment(f"{plant}:Sized-v0", colour="red")


def test_a_factory_that_raises_is_named_with_its_place() -> None:
    def broken_factory() -> Any:
        raise KeyError("goal")

    expected = r"environment 'broken_factory' cannot be made: KeyError: 'goal' \(.*test_errors.py"
    with pytest.raises(EnvironmentFailure, match=expected) as caught:
        make_environment(broken_factory)
    assert isinstance(caught.value.__cause__, KeyError)


def foreign(module: str, name: str) -> Any:
    """An object whose class says that it is of another package."""
    return type(name, (), {"__module__": module})()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("gym.wrappers.time_limit", "of the old gym, not of gymnasium; convert it with"),
        ("pettingzoo.utils.env", "it is of PettingZoo, but has no agents"),
        ("dm_env._environment", "environment of dm_env; shimmy"),
    ],
)
def test_environments_of_other_interfaces_are_recognised(module: str, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make_environment(lambda: foreign(module, "TimeLimit"))
    with pytest.raises(TypeError, match=words):
        make_environment(foreign(module, "TimeLimit"))


def test_spaces_of_old_gym_are_recognised() -> None:
    space = spaces.Dict({"a": spaces.Discrete(2)})
    space.spaces["b"] = foreign("gym.spaces.box", "Box")
    with pytest.raises(TypeError, match=r"space of the old gym: make it of gymnasium\.spaces\.Box"):
        ObservationEncoder.from_space(space)


def test_a_text_in_the_observation_is_named_with_the_wrapper_that_helps() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 1, (2,)), "mission": spaces.Text(9)})
    with pytest.raises(TypeError, match=r"Its part \['mission'\] is a text: .*FlatObsWrapper"):
        ObservationEncoder.from_space(space)


def test_a_part_of_a_users_own_space_is_named() -> None:
    class MissionSpace(spaces.Space[Any]):
        def __init__(self) -> None:
            super().__init__(dtype=str)

    space = spaces.Dict({"image": spaces.Box(0, 1, (2,)), "mission": MissionSpace()})
    with pytest.raises(TypeError, match=r"part \['mission'\] is of type MissionSpace: .*FlatObs"):
        ObservationEncoder.from_space(space)


# ---- what reset and step return


class Returns(gymnasium.Env[Any, Any]):
    """Returns from `step` and `reset` whatever it is told to."""

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, step: Any = None, reset: Any = None) -> None:
        self._step, self._reset = step, reset

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return (np.zeros(3, np.float32), {}) if self._reset is None else self._reset

    def step(self, action: Any) -> Any:
        return self._step


X = np.zeros(3, np.float32)
WRONG_STEPS = {
    "old gym": ((X, 1.0, False, {}), "got 4 values, as old gym's"),
    "six values": ((X, 1.0, False, False, {}, 0), "the 5 values .*, got 6"),
    "nothing": (None, r"step\(\) must return .*, got None"),
    "an observation": (X, r"got an array of shape \(3,\)"),
    "a reward vector": (
        (X, np.ones(2), False, False, {}),
        r"one number, got an array of shape \(2",
    ),
    "a reward of None": ((X, None, False, False, {}), "reward: expected one number, got None"),
    "a reward as text": ((X, "1.0", False, False, {}), "reward: expected one number, got '1.0'"),
    "many flags": ((X, 1.0, np.zeros(2, bool), False, {}), "terminated: expected True or False"),
}
WRONG_RESETS = {
    "the observation only": (X, r"reset\(\) must return \(observation, info\), got only an array"),
    "three values": ((X, {}, 0), "the 2 values .*, got 3"),
    "a number": (7, r"got only 7 \(int\)"),
}


@pytest.mark.parametrize("case", WRONG_STEPS)
def test_a_wrong_step_is_named(case: str) -> None:
    returned, words = WRONG_STEPS[case]
    with pytest.raises(EnvironmentFailure, match=f"step 0 of evaluation episode 0: .*{words}"):
        evaluate_policy(lambda _: 0, Returns(returned), 1)


@pytest.mark.parametrize("case", WRONG_RESETS)
def test_a_wrong_reset_is_named(case: str) -> None:
    returned, words = WRONG_RESETS[case]
    with pytest.raises(EnvironmentFailure, match=f"evaluation episode 0: .*{words}"):
        evaluate_policy(lambda _: 0, Returns(reset=returned), 1)


def test_a_reset_without_seed_is_named() -> None:
    class NoSeed(Returns):
        def reset(self) -> Any:  # type: ignore[override]
            return X, {}

    with pytest.raises(EnvironmentFailure, match="does not take seed: write `def reset"):
        evaluate_policy(lambda _: 0, NoSeed(), 1)


def test_right_returns_have_no_problem() -> None:
    assert step_problem((X, 1.0, False, True, {})) is None
    assert reset_problem((X, {})) is None
    assert reset_error_problem(TypeError("unsupported operand")) is None


@pytest.mark.parametrize(
    "reward", [1, 1.0, np.float32(1), np.array([1.0]), np.array(1), [1.0], True]
)
def test_one_number_is_taken_in_any_form(reward: Any) -> None:
    assert one_number(reward) == 1.0
    result = evaluate_policy(lambda _: 0, Returns((X, reward, True, False, {})), 1)
    assert result.returns[0] == 1.0


def test_old_gym_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # a class that derives from gym.Env, wherever it is defined
    gym = ModuleType("gym")
    gym.Env = type("Env", (), {"__module__": "gym.core"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gym", gym)
    with pytest.raises(TypeError, match="of the old gym"):
        make_environment(lambda: type("Mine", (gym.Env,), {})())  # type: ignore[attr-defined]
