"""A method of one's own: one new file and its page, and no other file touched.

The two texts below are all that it takes. They are put into the folder ``algorithms`` of a copy of
the package, and every door must know the method then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trpo_fast

METHOD = '''
"""TRPO with a fixed step: the direction of TRPO, always the same length, no line search."""

from dataclasses import dataclass
from typing import ClassVar

from .. import core
from ..config import NaturalStepConfig, ValueConfig, number
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.trust_region import natural_step_options

__all__ = ["FixedStepTRPO", "FixedStepConfig"]


@dataclass(frozen=True, kw_only=True)
class FixedStepConfig(ValueConfig, NaturalStepConfig):
    """Settings of FixedStepTRPO."""

    method: ClassVar[str] = "FixedStepTRPO"

    step_length: float = number(0.1, "(0, inf)", remedy="0.1 is usual")
    """Factor of the natural gradient."""


class FixedStepTRPO(OnPolicyAgent[FixedStepConfig]):
    """Theta moves by step_length times the natural gradient."""

    config_type = FixedStepConfig

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Solve F x = g, and step along x."""
        return self.policy.update(
            batch.observations, batch.actions, batch.advantages,
            natural_step_options(self.current, self.policy, batch.observations), normalized=True,
            step="fixed", step_size=self.config.step_length, seed=self.update_seed,
        )
'''

PAGE = """# Fixed step: TRPO's direction, always as long

The equation: theta = theta_k + step_length (F + lambda I)^-1 g.
"""

RUN = """
import sys
import trpo_fast
from trpo_fast import TRPO, FixedStepConfig, FixedStepTRPO
from trpo_fast.algorithms import ALGORITHMS, PAGES

assert "fixed-step" in ALGORITHMS and "fixed-step" in PAGES
small = {"n_workers": 0, "n_envs": 2, "batch_size": 64, "hidden_sizes": (8,), "value_epochs": 1}
agent = FixedStepTRPO("CartPole-v1", **small, step_length=0.2).learn(128, progress=False)
path = agent.save("agent.safetensors")
for cls in (FixedStepTRPO, TRPO):
    loaded = cls.load(path)
    assert type(loaded) is FixedStepTRPO and loaded.config.step_length == 0.2
    loaded.learn(64, progress=False)
agent.learn(64, progress=False)
assert agent.policy.parameters.tobytes() == loaded.policy.parameters.tobytes()
assert 0 <= agent.predict([0.0] * 4, deterministic=True)[0] <= 1
try:
    FixedStepTRPO("CartPole-v1", backtrack_ratio=0.5)
except ValueError as error:
    assert "FixedStepTRPO has no backtrack_ratio" in str(error), error
else:
    raise AssertionError("a setting that it does not use was accepted")
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has the method."""
    folder = tmp_path_factory.mktemp("house")
    package = Path(trpo_fast.__file__).parent
    brought = package.with_name(
        "trpo_fast.libs"
    )  # what a repaired wheel carries beside the package
    for part in (package, *([brought] if brought.is_dir() else [])):
        shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("__pycache__"))
    rooms = folder / "trpo_fast" / "algorithms"
    (rooms / "fixed_step.py").write_text(METHOD, encoding="utf-8")
    (rooms / "fixed_step.md").write_text(PAGE, encoding="utf-8")
    return folder


def python(house: Path, *arguments: str) -> str:
    """What a new process prints that imports the copy; it runs in the folder of the copy."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(house)},
        cwd=house,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_method_fits_on_a_screen() -> None:
    assert len(METHOD.splitlines()) <= 40


def test_it_trains_saves_loads_and_goes_on(house: Path) -> None:
    python(house, "-c", RUN)


def test_the_command_line_knows_it(house: Path) -> None:
    def command(*arguments: str) -> str:
        return python(house, "-m", "trpo_fast", *arguments)

    assert "fixed-step" in command("train", "--help")
    assert "--step-length" in command("train", "--algorithm", "fixed-step", "--help")
    assert "Fixed step: TRPO's direction, always as long" in command("explain")
    assert "step_length (F + lambda I)^-1 g" in command("explain", "fixed-step")
    flags = ["--batch-size", "64", "--n-envs", "2", "--n-workers", "0", "--evaluate-every", "0"]
    train = ["train", "CartPole-v1", "--algorithm", "fixed-step", "--step-length", "0.2", *flags]
    command(*train, "--total-timesteps", "192", "--run-dir", "whole")
    command(*train, "--total-timesteps", "128", "--run-dir", "half")
    command("train", "--resume", "half", "--total-timesteps", "192")
    bits = "import sys; from trpo_fast.checkpoint import load_checkpoint as load\n"
    bits += "print([load(p + '/latest.safetensors')[0]['policy'].tobytes().hex() for p in sys.argv[1:]])"
    whole, half = eval(python(house, "-c", bits, "whole", "half"))
    assert whole == half


def test_without_its_page_it_is_no_method(house: Path) -> None:
    page = house / "trpo_fast" / "algorithms" / "fixed_step.md"
    text = page.read_text(encoding="utf-8")
    page.unlink()
    try:
        found = python(house, "-c", "from trpo_fast.algorithms import ALGORITHMS as a; print(a)")
    finally:
        page.write_text(text, encoding="utf-8")
    assert "fixed-step" not in found
