"""Flags from a file: --config and --save-config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import TINY
from trpo_fast import cli
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.cli.arguments import Train, parse


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(text: str, *arguments: str) -> Train:
    Path("run.yaml").write_text(text)
    command = parse(["train", *arguments, "--config", "run.yaml"])
    assert isinstance(command, Train)
    return command


EVERYTHING = """
env: Pendulum-v1
env_kwargs: {g: 2.0, window: [3, 4], mode: "3", none: null}
wrapper:
  - gymnasium.wrappers:TimeLimit(max_episode_steps=5)
  - gymnasium.wrappers:ClipReward(-1, 1)
total_timesteps: 1e5
tensorboard: true
evaluation-max-steps: 50
initial_log_std: -0.75
n_workers: null
normalize_observations: false
hidden_sizes: [32, 16]
value_hidden_sizes: []
trust_region:
  max_kl: 0.02
"""


def test_a_file_holds_what_can_be_typed() -> None:
    command = parsed(EVERYTHING)
    assert command.env == "Pendulum-v1"
    assert command.env_kwargs == ("g=2.0", "window=[3, 4]", "mode='3'", "none=None")
    assert len(command.wrapper) == 2
    assert command.total_timesteps == 100_000
    assert command.tensorboard
    assert command.evaluation_max_steps == 50
    config = command.config.to_dict()
    assert config["initial_log_std"] == -0.75
    assert config["n_workers"] is None
    assert config["normalize_observations"] is False
    assert list(config["hidden_sizes"]) == [32, 16]
    assert list(config["value_hidden_sizes"]) == []
    assert config["max_kl"] == 0.02


def test_what_is_typed_wins() -> None:
    command = parsed(
        EVERYTHING, "CartPole-v1", "--max-kl", "0.5", "--workers", "3", "--no-tensorboard",
        "--wrapper", "a:b", "--normalize-observations", "--hidden-sizes", "8", "--env-kwargs", "h=1",
    )  # fmt: skip
    assert command.env == "CartPole-v1"
    assert command.wrapper == ("a:b",)
    assert command.env_kwargs == ("h=1",)
    assert not command.tensorboard
    config = command.config.to_dict()
    assert (config["max_kl"], config["n_workers"]) == (0.5, 3)
    assert config["normalize_observations"] is True
    assert list(config["hidden_sizes"]) == [8]
    # one of two that exclude each other puts the other aside
    assert parsed("env: X", "--env-factory", "a:b").env is None
    assert parsed("seed: 3", "X", "--seeds", "0-2").config.to_dict()["seed"] == 0
    assert parsed("seeds: 0-2", "X", "--seed", "3").seeds is None


def test_a_file_chooses_method_and_preset() -> None:
    assert parsed("algorithm: npg\nstep_size: 0.25", "X").config.to_dict()["step_size"] == 0.25
    command = parsed("env: CartPole-v1\npreset: sb3\nmax_kl: 0.3")
    assert command.preset == "sb3"
    assert command.config.to_dict()["max_kl"] == 0.3
    assert command.config.to_dict()["cg_iterations"] == 15


def test_json_is_read_too() -> None:
    assert parsed(json.dumps({"env": "X-v0", "max_kl": 0.02})).config.to_dict()["max_kl"] == 0.02


def test_a_saved_file_trains_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    typed = [
        "train", "CartPole-v1", "--env-kwargs", "max_episode_steps=9", "--max-kl", "0.03",
        "--total-timesteps", "512", "--evaluate-every", "0", "--seed", "4", *TINY,
    ]  # fmt: skip
    assert cli.main([*typed, "--save-config", "saved.yaml"]) == 0
    assert "trpo-fast train --config saved.yaml" in capsys.readouterr().out
    assert not Path("runs").exists()
    assert cli.main([*typed, "--run-dir", "typed"]) == 0
    assert cli.main(["train", "--config", "saved.yaml", "--run-dir", "read"]) == 0
    records = [json.loads(Path(run, "config.json").read_text()) for run in ("typed", "read")]
    assert records[0] == records[1]
    ends = [load_checkpoint(Path(run, "latest.safetensors"))[0] for run in ("typed", "read")]
    assert ends[0]["policy"].tobytes() == ends[1]["policy"].tobytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "expected a readable file, got No such file"),
        ("a: [", "expected YAML"),
        ("- a", "got list without names"),
        ("", "got NoneType without names"),
        ("1: 2", "without names"),
        ("resume: run", "got resume"),
        ("max_kl: -1", "max_kl"),
        ("!!python/object/apply:os.system ['touch ran']", "expected YAML"),
    ],
)
def test_mistakes_are_one_sentence(
    text: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("run.yaml").write_text(text)
    assert cli.main(["train", "CartPole-v1", "--config", "run.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not Path("ran").exists()


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text("max_lk: 0.02")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "CartPole-v1", "--config", "run.yaml"])
    assert exit_.value.code == 2
    assert "--max-lk" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--config", "run.yaml"], ["--seeds", "0-3"]])
def test_none_of_it_with_resume(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text("max_kl: 0.02")
    assert cli.main(["train", "--resume", "run", *flags]) == 2
    assert f"{flags[0]}: expected none with --resume" in capsys.readouterr().err
