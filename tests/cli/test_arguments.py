"""What can be typed, and the sentences about mistakes; nothing is trained here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import trpo_fast
from trpo_fast import cli
from trpo_fast.algorithms import ALGORITHMS, algorithm_class, algorithm_name
from trpo_fast.cli.arguments import Train
from trpo_fast.cli.arguments import parse as parse_arguments
from trpo_fast.config import TRPOConfig, field_names
from trpo_fast.presets import preset


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, trpo_fast.cli as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as exit: assert exit.code == 0\n"
        "heavy = {'gymnasium', 'torch', 'matplotlib', 'mujoco'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("train", "evaluate", "record", "export", "plot", "info"):
        assert command in done.stdout


def test_train_help_documents_every_field() -> None:
    done = trpo_fast("train", "--help")
    assert done.returncode == 0
    lines = re.findall(r"^│ (--.*)", done.stdout, flags=re.MULTILINE)
    flags = [flag for line in lines for flag in re.findall(r"--[\w-]+", line)]
    expected = {f"--{name.replace('_', '-')}" for name in field_names()}
    assert expected <= set(flags), expected - set(flags)
    # a line of help, ending in the default, follows each flag
    assert done.stdout.count("(default:") >= len(expected)


def parse(*arguments: str) -> Train:
    command = parse_arguments(["train", *arguments])
    assert isinstance(command, Train)
    return command


def test_flags_become_the_configuration() -> None:
    command = parse(
        "CartPole-v1", "--total-timesteps", "1e6", "--max-kl", "0.02", "--hidden-sizes", "32", "16",
        "--value-minibatch-size", "None", "--no-scale-returns", "--batch-size", "4e3",
        "--seed", "7",
    )  # fmt: skip
    assert command.env == "CartPole-v1"
    assert command.total_timesteps == 1_000_000
    assert TRPOConfig.from_dict(command.config.to_dict()) == TRPOConfig(
        max_kl=0.02, hidden_sizes=(32, 16), value_minibatch_size=None, scale_returns=False,
        batch_size=4000, seed=7,
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["--workers", "--n-workers"])
def test_workers_by_either_name(flag: str) -> None:
    assert parse("CartPole-v1", flag, "3").config.n_workers == 3
    assert parse("CartPole-v1", "--preset", "sb3", f"{flag}=0").config.n_workers == 0


def test_no_flag_is_the_default_configuration() -> None:
    assert parse("CartPole-v1").config.to_dict() == TRPOConfig().to_dict()


def test_only_explicit_flags_win_over_a_preset() -> None:
    command = parse("--preset", "rl-zoo-mujoco", "HalfCheetah-v5", "--gamma", "0.99", "--n-envs=4")
    expected = preset("rl-zoo-mujoco", env="HalfCheetah-v5", n_envs=4)
    assert command.config.to_dict() == expected.to_dict()
    # a flag that repeats our own default is explicit as well
    command = parse("HalfCheetah-v5", "--preset=spinningup", "--value-epochs", "10")
    assert command.config.value_epochs == 10
    assert command.config.gae_lambda == 0.97


@pytest.mark.parametrize(
    ("flags", "own"),
    [
        (["single-path"], {"baseline": "time"}),
        (["npg", "--step-size", "None"], {"step_size": None}),
        (["vpg", "--ascent", "normalized"], {"ascent": "normalized"}),
        (["kl-penalty", "--policy-epochs", "3"], {"policy_epochs": 3, "kl_target": 0.01}),
        (
            ["vine", "--states", "5", "--branches", "all", "--branch-steps", "None"],
            {"vine": {"states": 5, "branches": "all", "branch_steps": None, "bootstrap": True}},
        ),
    ],
)
def test_an_algorithm_has_flags_of_its_own(flags: list[str], own: dict[str, object]) -> None:
    command = parse("CartPole-v1", "--gamma", "0.9", "--algorithm", *flags)
    config = algorithm_class(flags[0]).config_type.from_dict(command.config.to_dict())
    assert config.to_dict().items() >= own.items()
    assert config.gamma == 0.9
    # a preset is for all of them
    command = parse("CartPole-v1", "--preset", "spinningup", f"--algorithm={flags[0]}", *flags[1:])
    assert command.config.to_dict().items() >= own.items()
    assert command.config.batch_size == preset("spinningup").batch_size


def test_every_algorithm_has_a_name() -> None:
    assert set(ALGORITHMS) == {"trpo", "single-path", "vine", "npg", "vpg", "kl-penalty"}
    for name in ALGORITHMS:
        assert algorithm_name(algorithm_class(name)) == name


@pytest.mark.parametrize("text", ["1.5", "x", "1e400", "nan", ""])
def test_no_integer_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "CartPole-v1", "--total-timesteps", text])
    assert exit_.value.code == 2
    assert "expected an integer such as 2048 or 1e6" in " ".join(
        capsys.readouterr().err.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train"], 2, ["environment", "got none"]),
        (["train", "X", "--max-kl", "-1"], 2, ["max_kl", "got -1"]),
        (["train", "X", "--gamma", "1.5"], 2, ["gamma", "[0, 1]"]),
        (["train", "X", "--batch-size", "1"], 2, ["batch_size"]),
        (["train", "X", "--n-envs", "9", "--batch-size", "8"], 2, ["batch_size", "environments"]),
        (["train", "X", "--total-timesteps", "0"], 2, ["--total-timesteps", "got 0"]),
        (["train", "X", "--evaluate-every", "-1"], 2, ["--evaluate-every"]),
        (["train", "X", "--preset", "tianshu"], 2, ["did you mean 'tianshou'"]),
        (["train", "X", "--algorithm", "nqg"], 2, ["algorithm", "did you mean 'npg'"]),
        (["train", "X", "--algorithm", "npg", "--step-size", "-1"], 2, ["step_size"]),
        (["train", "X", "--algorithm", "vine", "--states", "0"], 2, ["states", "rollout set"]),
        (["train", "X", "--algorithm", "single-path", "--gae-lambda", ".9"], 2, ["gae_lambda"]),
        (["explain", "trop"], 2, ["method", "did you mean 'trpo'"]),
        (["train", "--preset", "sb3", "--resume", "nowhere"], 2, ["--preset", "--resume"]),
        (["train", "--resume", "nowhere"], 1, ["nowhere", "no such file"]),
        (["evaluate", "nowhere"], 1, ["nowhere"]),
        (["evaluate", "nowhere", "--episodes", "0"], 2, ["--episodes"]),
        (["record", "nowhere"], 1, ["nowhere"]),
        (["plot", "nowhere"], 1, ["nowhere"]),
        (["plot"], 2, ["at least one run folder"]),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    status: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == status
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    for word in ("expected", "got", *words):
        assert word in captured.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRPO_FAST_DEBUG", "1")
    assert cli.main(["train", "--resume", "nowhere"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_misspelt_flag_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "X", "--gama", "1"])
    assert exit_.value.code == 2
    assert "--gamma" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
