"""The code of an environment that was edited between a save and a resume is told, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from trpo_fast import TRPO
from trpo_fast.snapshots import configuration_of
from trpo_fast.snapshots.code import is_of_code

SOURCE = textwrap.dedent('''
    import functools
    import gymnasium
    import numpy as np

    GRAVITY = 9.8
    MAP = ["S.", ".G"]
    FOUND = {"left": 1.0, "right": 2.0}

    def pull(place):
        """How strongly the middle pulls."""
        return 0.1 * place

    def scaled(factor):
        def scale(reward):
            return factor * reward
        return scale

    def logged(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(*arguments)
        return wrapper

    class Plant(gymnasium.Env):
        strength = 0.3

        def __init__(self, factor=1.0):
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
            self.action_space = gymnasium.spaces.Discrete(2)
            self.scale = scaled(factor)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place, self.t = self.np_random.normal(), 0
            return np.array([self.place, self.t]), {}

        @property
        def reward(self):
            return -abs(self.place) - 0.01 * len(MAP) * FOUND["left"]

        @logged
        def move(self, action, noise=0.1):
            # one step of the simulation
            sign = 1 if action in {1, 3} else -1
            self.place += self.strength * sign - pull(self.place) + noise / GRAVITY

        def step(self, action):
            self.t += 1
            self.move(int(action))
            end = self.t >= 50
            return np.array([self.place, self.t]), self.scale(self.reward), False, end, {}
''')  # fmt: skip

EDITS = {
    "a number in a method": ("-abs(self.place)", "-2 * abs(self.place)", "the code of Plant"),
    "an operator": ("+ noise / GRAVITY", "- noise / GRAVITY", "the code of Plant"),
    "a set of numbers": ("{1, 3}", "{0, 3}", "the code of Plant"),
    "a default": ("noise=0.1", "noise=0.2", "the code of Plant"),
    "a function that it calls": ("0.1 * place", "0.2 * place", "the code of Plant"),
    "a function in an attribute": ("factor * reward", "factor + reward", "the code of Plant"),
    "what a function has closed over": ("factor=1.0", "factor=3.0", "the code of Plant"),
    "a number of the class": ("strength = 0.3", "strength = 0.5", "strength of the class Plant is 0.5"),
    "a number of the module": ("= 9.8", "= 1.6", "GRAVITY of the module plant is 1.6 now and was 9.8"),
    "a list of the module": ('["S."', '["SH"', "MAP of the module plant"),
    "a table of the module": ('"left": 1.0', '"left": 5.0', "FOUND of the module plant"),
}  # fmt: skip
SAME = {
    "a comment": ("# one step of the simulation", "# one\n        # step"),
    "a docstring": ("How strongly the middle pulls.", "The pull."),
    "an unused number": ("GRAVITY = 9.8", "GRAVITY = 9.8\nOTHER = 3.0"),
    "empty lines": ("class Plant", "\n\nclass Plant"),
}


def plant(source: str = SOURCE) -> Any:
    module = types.ModuleType("plant")
    exec(compile(source, "plant.py", "exec"), module.__dict__)
    return module.__dict__["Plant"]


def agent_of(env: Any) -> TRPO:
    return TRPO(env, n_envs=1, n_workers=0, batch_size=32, hidden_sizes=(4,))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A checkpoint, and the policy that a run without a break comes to."""
    path = tmp_path_factory.mktemp("code") / "a.safetensors"
    with agent_of(plant()) as agent:
        agent.learn(32).save(path)
        return path, agent.learn(32).policy.parameters.tobytes()


def resumed(path: Path, source: str) -> tuple[str, bytes]:
    with TRPO.load(path, env=plant(source)) as agent:
        agent.learn(32)
        return agent.last_record.get("run/notice", ""), agent.policy.parameters.tobytes()


@pytest.mark.parametrize("edit", EDITS)
def test_code_that_was_edited_since_the_save_is_named(edit: str, saved: tuple[Path, bytes]) -> None:
    before, after, said = EDITS[edit]
    assert SOURCE.count(before) == 1
    notice, _ = resumed(saved[0], SOURCE.replace(before, after))
    assert notice.startswith(f"episodes start anew, because {said}")
    assert "saved" in notice


@pytest.mark.parametrize("edit", SAME)
def test_what_changes_nothing_changes_no_bit(edit: str, saved: tuple[Path, bytes]) -> None:
    before, after = SAME[edit]
    assert resumed(saved[0], SOURCE.replace(before, after)) == ("", saved[1])


def test_counters_of_the_class_and_the_module_are_no_configuration(tmp_path: Path) -> None:
    counting = SOURCE.replace("strength = 0.3", "strength = 0.3\n    made = 0").replace(
        "self.scale = scaled(factor)",
        "self.scale = scaled(factor)\n        Plant.made += 1\n        COUNTS[0] += 1",
    ).replace("GRAVITY = 9.8", "GRAVITY = 9.8\nCOUNTS = [0]")  # fmt: skip
    with agent_of(plant(counting)) as agent:
        agent.learn(32).save(tmp_path / "a")
        whole = agent.learn(32).policy.parameters.tobytes()
    assert resumed(tmp_path / "a", counting) == ("", whole)


def test_the_digests_are_those_of_another_process(tmp_path: Path) -> None:
    """Sets have another order there, and addresses are others."""
    program = tmp_path / "program.py"
    program.write_text(
        SOURCE + "\nfrom trpo_fast.snapshots import configuration_of\n"
        "print(sorted(configuration_of(Plant()).items()))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, program], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert "the code of Plant" in said.pop()


def test_code_that_is_not_of_python_is_left_alone() -> None:
    class Odd:
        method = staticmethod(len)

    env = plant()()
    env.odd, env.classes = Odd(), [int, dict]
    found = {name for name in configuration_of(env) if is_of_code(name)}
    assert not any("int" in name.split() or "len" in name for name in found)
