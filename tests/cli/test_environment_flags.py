"""Arguments, wrappers and factories of environments on the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import TINY, rows
from trpo_fast import cli
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.cli.environment import ChosenEnvironment, _values
from trpo_fast.cli.output import UsageError
from trpo_fast.envs import NamedEnvironment, Reference

MODULE = """
import pathlib

import gymnasium

pathlib.Path("imported").touch()

class Doubled(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward

class Breaks(gymnasium.Wrapper):
    def __init__(self, env):
        raise OSError("no such device")

def make(length=10, render_mode=None):
    return gymnasium.make("CartPole-v1", max_episode_steps=length, render_mode=render_mode)

def without_rendering():
    return gymnasium.make("CartPole-v1", max_episode_steps=7)
"""
LIMIT = "gymnasium.wrappers:TimeLimit(max_episode_steps=5)"
COMMON = [
    "--total-timesteps",
    "512",
    "--evaluate-every",
    "512",
    "--evaluation-episodes",
    "2",
    *TINY,
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "owned.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("owned", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run; tests take a copy."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(["train", "CartPole-v1", "--run-dir", str(run), *COMMON]) == 0
    return run


def lengths(run: str) -> set[int]:
    return {int(row["length"]) for row in rows(Path(run, "evaluations.csv"))}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_wrappers_are_used_by_every_command(
    workers: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "CartPole-v1", "--wrapper", LIMIT, "--wrapper", "owned:Doubled"]
    assert cli.main([*train, "--run-dir", "run", *COMMON, "--n-workers", workers]) == 0
    assert json.loads(Path("run/config.json").read_text())["wrapper"] == [LIMIT, "owned:Doubled"]
    assert lengths("run") == {5}
    again = ["--wrapper", LIMIT, "--wrapper", "owned:Doubled"]
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--episodes", "2", *again]) == 0
    assert "return 10.00 ± 0.00, length 5.0" in capsys.readouterr().out
    assert cli.main(["train", "--resume", "run", "--total-timesteps", "1024", *again]) == 0
    assert lengths("run") == {5}
    # gone on with, it is the run that was never stopped
    whole = [*train, "--run-dir", "whole", *COMMON]
    assert cli.main([*whole, "--total-timesteps", "1024"]) == 0
    ends = [load_checkpoint(Path(run, "latest.safetensors"))[0] for run in ("run", "whole")]
    assert ends[0]["policy"].tobytes() == ends[1]["policy"].tobytes()
    # evaluated in another environment than the run's
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--episodes", "2", "--wrapper", LIMIT]) == 0
    assert "return 5.00 ± 0.00, length 5.0" in capsys.readouterr().out


def test_a_factory_makes_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--env-factory", "owned:make", "--env-kwargs", "length=6", *COMMON]
    assert cli.main(train) == 0
    (run,) = Path("runs").iterdir()
    assert run.name == "owned-make-seed0"
    assert lengths(str(run)) == {6}
    assert json.loads((run / "config.json").read_text())["env_factory"] == "owned:make"
    named = ["--env-factory", "owned:make"]
    assert cli.main(["evaluate", str(run), "--episodes", "2", *named]) == 0
    assert "length 6.0" in capsys.readouterr().out
    assert (
        cli.main(["evaluate", str(run), "--episodes", "2", *named, "--env-kwargs", "length=4"]) == 0
    )
    assert "length 4.0" in capsys.readouterr().out
    assert cli.main(["train", "--resume", str(run), "--total-timesteps", "1024", *named]) == 0
    # the file alone knows neither
    file = str(run / "latest.safetensors")
    assert cli.main(["evaluate", file, "--episodes", "2"]) == 1
    assert "--env-factory" in capsys.readouterr().err
    assert cli.main(["evaluate", file, "--episodes", "2", *named, "--env-kwargs", "length=3"]) == 0
    assert "length 3.0" in capsys.readouterr().out


def test_arguments_go_to_gymnasium_and_to_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--env-kwargs", "max_episode_steps=8", "sutton_barto_reward=true"]
    assert cli.main(["train", "CartPole-v1", *arguments, "--run-dir", "run", *COMMON]) == 0
    assert lengths("run") == {8}
    assert cli.main(["evaluate", "run", "--episodes", "2"]) == 0
    assert "return 0.00 ± 0.00, length 8.0" in capsys.readouterr().out
    other = ["train", "--resume", "run", "--total-timesteps", "1024", "--env-kwargs"]
    assert cli.main([*other, "max_episode_steps=9"]) == 2
    assert "expected the run's arguments max_episode_steps=8" in capsys.readouterr().err
    assert cli.main([*other, "sutton_barto_reward=True", "max_episode_steps=8"]) == 0


@pytest.mark.parametrize(
    "stored",
    [
        {"wrapper": ["owned:Doubled"]},
        {"wrapper": [LIMIT, "owned:Doubled"]},
        {"env_factory": "owned:make"},
        {"env_factory": "gymnasium:make"},
        {"wrapper": ["gymnasium.wrappers:RecordVideo(video_folder='videos')"]},
        {"wrapper": ["gymnasium.wrappers:(RecordVideo)(video_folder='videos')"]},
        {"wrapper": ["gymnasium.wrappers.vector:FlattenObservation"]},
        {"wrapper": ["gymnasium.wrappers:import_module"]},
        {"wrapper": ["os:system('touch imported')"]},
    ],
)
def test_a_folder_chooses_no_wrapper_and_no_factory(
    stored: dict[str, Any], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(shutil.copytree(finished, "run"), "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **stored}))
    for arguments in (["evaluate", "run"], ["record", "run"], ["train", "--resume", "run"]):
        assert cli.main(arguments) == 1
        assert "runs no code of its choice" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert not Path("videos").exists()


def test_a_folder_may_choose_gymnasiums_wrappers(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "CartPole-v1", "--wrapper", LIMIT, "--run-dir", "run", *COMMON]
    assert cli.main(train) == 0
    assert cli.main(["evaluate", "run", "--episodes", "2"]) == 0
    assert "length 5.0" in capsys.readouterr().out
    assert cli.main(["train", "--resume", "run", "--total-timesteps", "1024"]) == 0
    assert cli.main(
        ["train", "--resume", "run", "--total-timesteps", "2048", "--wrapper", "owned:Doubled"]
    ) == 2  # fmt: skip
    assert f"expected the run's wrapper {LIMIT}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("env_kwargs", "wrapper") for value in (3, "a:b", [3], None)),
        *(("env_factory", value) for value in (3, ["a:b"], True)),
    ],
)
def test_a_damaged_record_is_one_sentence(
    name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("run")
    run.mkdir()
    (run / "latest.safetensors").touch()
    (run / "config.json").write_text(json.dumps({"env": "CartPole-v1", "config": {}, name: value}))
    assert cli.main(["evaluate", "run"]) == 1
    assert "expected texts as env_kwargs, wrapper and env_factory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["CartPole-v1", "--env-kwargs", "g"], 2, "expected NAME=VALUE, got 'g'"),
        (["--env-kwargs", "g=1", "CartPole-v1"], 2, "expected NAME=VALUE, got 'CartPole-v1'"),
        (["CartPole-v1", "--env-kwargs", "strange=1"], 1, "strange"),
        (["CartPole-v1", "--env-factory", "owned:make"], 2, "leave one out"),
        (["--env-factory", "make"], 1, "--env-factory: expected module:name"),
        (["--env-factory", "owned:nothing"], 1, "expected a class or function 'nothing' in owned"),
        (["--env-factory", "missing_module:make"], 1, "expected a module 'missing_module'"),
        (["--env-factory", "owned:make", "--env-kwargs", "lenght=3"], 1, "lenght"),
        (["--wrapper", LIMIT], 2, "expected an environment"),
        (["CartPole-v1", "--wrapper", "owned"], 1, "--wrapper: expected module:name"),
        (["CartPole-v1", "--wrapper", "owned:Doubled(open('x', 'w'))"], 1, "plain values"),
        (["CartPole-v1", "--wrapper", "owned:Doubled(**{})"], 1, "plain values"),
        (["CartPole-v1", "--wrapper", "owned:Breaks"], 1, "in owned:Breaks' cannot be made"),
        (["envpool:Ant-v4", "--wrapper", LIMIT], 1, "expected none around 'envpool:Ant-v4'"),
    ],
)
def test_mistakes_leave_one_sentence_and_no_folder(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *arguments, "--n-workers", "0"]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not Path("runs").exists()
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.0", 2.0),
        ("1e3", 1000.0),
        ("[3,4]", [3, 4]),
        ("(3, 4)", (3, 4)),
        ("true", True),
        ("False", False),
        ("null", None),
        ("ram", "ram"),
        ("'3'", "3"),
        ("a=b", "a=b"),
        ("/tmp/x.xml", "/tmp/x.xml"),
        ("", ""),
    ],
)
def test_values_are_literals_or_text(text: str, value: object) -> None:
    assert _values((f"name={text}",)) == {"name": value}
    assert type(_values((f"name={text}",))["name"]) is type(value)


def test_a_later_value_wins() -> None:
    assert _values(("a=1", "b=2", "a=3")) == {"a": 3, "b": 2}
    with pytest.raises(UsageError, match="NAME=VALUE"):
        _values(("2a=1",))


def test_references_hold_arguments() -> None:
    reference = Reference.parse("a.b:C(1, x=[2], y='z')", "--wrapper")
    assert reference == Reference("a.b", "C", (1,), {"x": [2], "y": "z"})


def test_a_video_asks_for_frames_where_it_can() -> None:
    named = NamedEnvironment(factory="owned:make", kwargs={"length": 3}, wrappers=(LIMIT,))
    assert named(render_mode="rgb_array").render_mode == "rgb_array"
    without = NamedEnvironment(factory="owned:without_rendering")
    assert without(render_mode="rgb_array").spec.max_episode_steps == 7  # type: ignore[union-attr]


def test_what_is_typed_is_what_is_stored() -> None:
    chosen = ChosenEnvironment(env="X-v0", env_kwargs=("a=1",), wrapper=(LIMIT,))
    assert chosen.record == {
        "env": "X-v0", "env_kwargs": ["a=1"], "wrapper": [LIMIT], "env_factory": None,
    }  # fmt: skip
