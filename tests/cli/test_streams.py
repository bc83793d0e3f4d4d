"""The command line where it is not at home: streams closed or in ASCII, modules beside the user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import TINY, assert_error, trpo_fast
from trpo_fast import cli
from trpo_fast.algorithms import ALGORITHMS

# what the script trpo-fast does: the working folder is not on the path of modules
SCRIPT = "import sys; sys.path[:] = [p for p in sys.path if p]; sys.argv[0] = 'trpo-fast'; " \
    "from trpo_fast.cli import main; sys.exit(main())"  # fmt: skip

PLANT = """
import gymnasium, numpy as np
from gymnasium import spaces

class MyPlant(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, False, self.t == 10, {}

class Broken(MyPlant):
    def reset(self, *, seed=None, options=None):
        return {}[0]

class Texts(MyPlant):
    observation_space = spaces.Dict({"a": spaces.Discrete(2), "mission": spaces.Text(5)})

gymnasium.register("MyPlant-v0", MyPlant)
gymnasium.register("Broken-v0", Broken)
gymnasium.register("Texts-v0", Texts)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myplant.py").write_text(PLANT)
    return tmp_path


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $T is the script trpo-fast."""
    return subprocess.run(
        ["bash", "-c", line.replace("$T", f'{sys.executable} -c "{SCRIPT}"')],
        capture_output=True, text=True, cwd=folder, timeout=120, check=False,
        env={**os.environ, "TRPO_FAST_DEBUG": "", **environment},
    )  # fmt: skip


TRAIN = "$T train myplant:MyPlant-v0 --total-timesteps 512 --run-dir run " + " ".join(TINY)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_module_beside_the_user_is_found(folder: Path, n_workers: int) -> None:
    done = shell(f"{TRAIN} --n-workers {n_workers}", folder)
    assert done.returncode == 0, done.stderr
    assert "saved" in done.stdout


@pytest.mark.parametrize(
    ("closed", "n_workers"), [("2>&-", 0), ("<&-", 2), (">&-", 0), ("<&- >&- 2>&-", 2)]
)
def test_training_with_closed_streams(folder: Path, closed: str, n_workers: int) -> None:
    done = shell(f"{TRAIN} --n-workers {n_workers} {closed}", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "latest.safetensors").exists()
    assert "Error" not in done.stderr


def test_an_ascii_terminal(folder: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    assert shell(TRAIN, folder, **ascii_only).returncode == 0
    done = shell("$T evaluate run --env myplant:MyPlant-v0 --episodes 2", folder, **ascii_only)
    assert done.returncode == 0, done.stderr
    assert re.search(r"return [\d.]+ \+- [\d.]+", done.stdout)
    for line in ("$T explain trpo", "$T train --help"):
        assert shell(line, folder, **ascii_only).returncode == 0


@pytest.mark.parametrize("command", ["info", "explain trpo", "train --help"])
def test_nobody_reads_the_output(folder: Path, command: str) -> None:
    done = shell(f"$T {command} | true; exit ${{PIPESTATUS[0]}}", folder)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_error_of_the_users_code_asks_for_no_report(folder: Path, n_workers: int) -> None:
    done = shell(f"$T train myplant:Broken-v0 --n-workers {n_workers} --run-dir run", folder)
    assert done.returncode == 1
    assert "report" not in done.stderr
    assert "KeyError: 0" in done.stderr


def test_a_space_that_is_not_supported_asks_for_no_report(folder: Path) -> None:
    done = shell("$T train myplant:Texts-v0 --n-workers 0", folder)
    assert_error(done, 1, "is not supported", "['mission'] is a text", "FlatObsWrapper")
    assert "report" not in done.stderr
    assert "unexpected" not in done.stderr


def test_an_error_of_ours_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.commands, "library_versions", lambda: [].missing)  # type: ignore[attr-defined]
    monkeypatch.setattr("trpo_fast.envs.errors.is_of_users_code", lambda error: False)
    assert cli.main(["info"]) == 1
    assert "please report it" in capsys.readouterr().err


def test_what_a_run_needs_is_checked_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    assert cli.main(["train", "CartPole-v1", "--tensorboard", "--run-dir", "run"]) == 1
    captured = capsys.readouterr()
    assert 'pip install "trpo_fast[tensorboard]"' in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_help_is_plain_text(algorithm: str) -> None:
    done = trpo_fast("train", "--algorithm", algorithm, "--help")
    assert done.returncode == 0
    assert not re.search(r"`|:\w+:`", done.stdout), done.stdout


def test_notices_are_printed_where_no_table_is_shown(tmp_path: Path) -> None:
    done = trpo_fast(
        "train", "Pendulum-v1", "--total-timesteps", 512, "--run-dir", tmp_path / "run", *TINY
    )
    assert done.returncode == 0, done.stderr
    notices = [line for line in done.stderr.splitlines() if line.startswith("trpo-fast: notice: ")]
    assert len(notices) == 1
    assert "mapped from [-1, 1] to the bounds of Box(-2, 2)" in notices[0]
