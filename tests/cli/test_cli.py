"""The command line: in a subprocess where it trains, in this process where it only parses."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trpo_fast.cli import commands as cli
from trpo_fast.training import agent
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.config import TRPOConfig, field_names
from trpo_fast.algorithms import ALGORITHMS, PAGES, algorithm_class, page
from trpo_fast.presets import preset
from trpo_fast.run_folder import RunFolder, RunFolderError

TINY = ["--n-envs", "4", "--batch-size", "512", "--value-epochs", "2", "--hidden-sizes", "16"]


def trpo_fast(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trpo_fast", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "100", "TRPO_FAST_DEBUG": ""},
        cwd=cwd,
        timeout=300,
        check=False,
    )


def assert_error(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


# ---- parsing


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, trpo_fast.cli as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as exit: assert exit.code == 0\n"
        "heavy = {'gymnasium', 'torch', 'matplotlib', 'mujoco'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("train", "evaluate", "record", "plot", "info"):
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


def parse(*arguments: str) -> cli.Train:
    command = cli._parse(["train", *arguments])
    assert isinstance(command, cli.Train)
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
        (["single-path"], {"gae_lambda": 1.0}),
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
    assert set(ALGORITHMS.values()) == {"TRPO", *agent.ALGORITHMS}


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


# ---- signals


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_stops_after_the_iteration_and_the_second_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with cli.StopOnSignal() as stop:
        assert stop.on_iteration(None, {}) is None  # type: ignore[arg-type]
        signal.raise_signal(number)
        assert stop.on_iteration(None, {}) is False  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert "stopping after this iteration" in capfd.readouterr().err


# ---- run folders


def make_run(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    run.write_record({"env": "X", "config": {}})
    return run


def test_run_folder_is_made_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    assert RunFolder.open(run.path).read_record() == {"env": "X", "config": {}}
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder.create(run.path)
    assert [file.name for file in run.path.iterdir()] == ["config.json"]


def test_what_a_killed_start_has_left_is_taken_over(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with run.locked():
        pass
    leftover = run.path / ".latest.safetensors.1234abcd.tmp"
    leftover.touch()
    run.latest.touch()
    again = RunFolder.create(run.path)
    with again.locked():
        assert not leftover.exists()
    (run.path / "mine.txt").touch()
    with pytest.raises(RunFolderError, match="exists"):
        RunFolder.create(run.path)


def test_a_folder_with_a_checkpoint_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latest.safetensors").touch()
    with pytest.raises(RunFolderError, match="exists"):
        RunFolder.create(tmp_path)


HOLD = """
import sys, time
from trpo_fast.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_on_one_run_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunFolderError, match=f"another one, process {holder.pid} on"):
                run.locked().__enter__()
            assert cli.main(["train", "--resume", str(run.path)]) == cli.FAILED
        finally:
            holder.kill()
    # a killed process leaves a file, but no lock
    with run.locked():
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"env": "X"}', "\udcff"])
def test_damaged_config_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run")
    run.config_file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match="restore the file") as error:
        run.read_record()
    assert "\n" not in str(error.value)


def test_checkpoint_prefers_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="got none"):
        run.checkpoint()
    run.latest.touch()
    assert run.checkpoint() == run.latest
    with pytest.raises(RunFolderError, match="best"):
        run.checkpoint("best")
    run.best.touch()
    assert run.checkpoint() == run.best
    assert run.checkpoint("latest") == run.latest


# ---- whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short CartPole run; tests that change it take a copy."""
    run = tmp_path_factory.mktemp("cli") / "run"
    done = trpo_fast(
        "train", "CartPole-v1", "--total-timesteps", "4096", "--seed", 3, "--run-dir", run,
        "--evaluate-every", "2048", "--evaluation-episodes", 2, "--checkpoint-every", 2048, *TINY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(run / "latest.safetensors") in done.stdout
    return run


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_train_leaves_all_files(finished: Path) -> None:
    record = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert record["env"] == "CartPole-v1"
    assert record["seed"] == 3
    assert record["total_timesteps"] == 4096
    assert {"trpo_fast", "python", "numpy", "gymnasium"} <= record["versions"].keys()
    config = TRPOConfig.from_dict(record["config"])
    assert config.hidden_sizes == (16,)
    assert config.batch_size == 512

    progress = rows(finished / "progress.csv")
    assert [int(row["time/timesteps"]) for row in progress] == [512 * i for i in range(1, 9)]
    evaluations = rows(finished / "evaluations.csv")
    assert {"timesteps", "episode", "return", "length"} <= evaluations[0].keys()
    assert {int(row["timesteps"]) for row in evaluations} == {2048, 4096}
    for name in ("latest", "best"):
        load_checkpoint(finished / f"{name}.safetensors")
    assert not list(finished.glob("*.tmp"))


def test_existing_folder_is_refused_and_untouched(finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    done = trpo_fast("train", "CartPole-v1", "--run-dir", finished)
    assert_error(done, 1, str(finished), "exists", "--resume", "--run-dir")
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before


def test_evaluate_prints_the_return(finished: Path) -> None:
    for target in (finished, finished / "latest.safetensors"):
        done = trpo_fast("evaluate", target, "--episodes", 3)
        assert done.returncode == 0, done.stderr
        assert re.search(r"CartPole-v1: return [\d.]+ ± [\d.]+, .* 3 episodes", done.stdout)
    one = trpo_fast("evaluate", finished, "--episodes", 3, "--checkpoint", "latest", "--seed", 5)
    two = trpo_fast("evaluate", finished, "--episodes", 3, "--checkpoint", "latest", "--seed", 5)
    assert one.stdout == two.stdout


def test_resume_continues_the_run(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    done = trpo_fast("train", "--resume", run, "--total-timesteps", 6144, "--n-workers", 2)
    assert done.returncode == 0, done.stderr
    timesteps = [int(row["time/timesteps"]) for row in rows(run / "progress.csv")]
    assert timesteps == [512 * i for i in range(1, 13)]
    assert json.loads((run / "config.json").read_text())["total_timesteps"] == 6144
    assert 6144 in {int(row["timesteps"]) for row in rows(run / "evaluations.csv")}

    done = trpo_fast("train", "--resume", run, "--total-timesteps", 6144)
    assert_error(done, 2, "--total-timesteps", "6144 steps already done")
    done = trpo_fast("train", "--resume", run, "--total-timesteps", 9999, "--gamma", 0.5)
    assert_error(done, 2, "--gamma", "expected the run's 0.99", "got 0.5")
    done = trpo_fast("train", "Acrobot-v1", "--resume", run, "--total-timesteps", 9999)
    assert_error(done, 2, "CartPole-v1", "Acrobot-v1")


OWN = {
    "single-path": [],
    "vine": ["--states", "8", "--branch-steps", "4", "--n-workers", "2"],
    "npg": ["--step-size", "0.2"],
    "vpg": ["--ascent", "gradient"],
    "kl-penalty": ["--kl-coefficient", "2", "--policy-epochs", "2"],
}


@pytest.mark.parametrize("algorithm", OWN)
def test_every_algorithm_trains_goes_on_and_is_evaluated(
    algorithm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--evaluate-every", "0", "--batch-size", "256", *TINY[:2], *TINY[4:]]
    train = ["train", "CartPole-v1", "--algorithm", algorithm, *common, *OWN[algorithm]]
    assert cli.main([*train, "--total-timesteps", "2000"]) == 0
    whole = Path("runs", f"CartPole-v1-{algorithm}-seed0")
    record = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert record["algorithm"] == algorithm
    # stopped half-way and gone on with: the same bits
    assert cli.main([*train, "--total-timesteps", "1000", "--run-dir", "half"]) == 0
    assert cli.main(["train", "--resume", "half", "--total-timesteps", "2000"]) == 0
    ends = [load_checkpoint(run / "latest.safetensors") for run in (whole, Path("half"))]
    assert ends[0][1]["algorithm"] == ALGORITHMS[algorithm]
    assert ends[0][1]["timesteps"] == ends[1][1]["timesteps"] >= 2000
    for name in ("policy", "value_function"):
        assert ends[0][0][name].tobytes() == ends[1][0][name].tobytes()
    assert cli.main(["evaluate", "half", "--episodes", "2"]) == 0
    assert re.search(r"CartPole-v1: return [\d.]+ ± .* 2 episodes", capsys.readouterr().out)
    # another algorithm cannot go on with it
    other = ["train", "--resume", "half", "--total-timesteps", "3000", "--algorithm", "trpo"]
    assert cli.main(other) == 2
    assert f"expected the run's {algorithm}, got trpo" in capsys.readouterr().err


def test_explain_lists_and_shows_the_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(PAGES)
    assert cli.main(["explain", "vine"]) == 0
    assert capsys.readouterr().out == page("vine")


def test_damaged_checkpoint_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for file in run.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    assert_error(trpo_fast("evaluate", run), 1, "best.safetensors", "truncated")
    done = trpo_fast("train", "--resume", run, "--total-timesteps", 9999)
    assert_error(done, 1, "latest.safetensors", "truncated")


def test_plot_writes_a_picture(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "curves.png"
    done = trpo_fast("plot", finished, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")


def test_record_writes_a_video(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "video.mp4"
    done = trpo_fast("record", finished, "--out", out)
    if "pip install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 0


@pytest.mark.parametrize("env", ["NoSuchEnv-v0", "no_such_module_xyz:Env-v0"])
def test_unknown_environment_leaves_nothing(tmp_path: Path, env: str) -> None:
    done = trpo_fast("train", env, "--run-dir", tmp_path / "run")
    assert_error(done, 1)
    assert list(tmp_path.iterdir()) == []


def test_default_run_folder_is_named_after_environment_and_seed(tmp_path: Path) -> None:
    done = trpo_fast(
        "train", "CartPole-v1", "--total-timesteps", 512, "--seed", 4, "--evaluate-every", 0, *TINY,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "CartPole-v1-seed4"
    assert (run / "latest.safetensors").is_file()
    assert not (run / "best.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_where(tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "trpo_fast", "train", "CartPole-v1", "--total-timesteps", "1e8",
         "--evaluate-every", "0", "--run-dir", str(run), *TINY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(progress_lines(run)) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert f"--resume {run}" in errors
    assert "Traceback" not in errors
    load_checkpoint(run / "latest.safetensors")
    steps = int(rows(run / "progress.csv")[-1]["time/timesteps"])
    done = trpo_fast("train", "--resume", run, "--total-timesteps", steps + 512)
    assert done.returncode == 0, done.stderr
    timesteps = [int(row["time/timesteps"]) for row in rows(run / "progress.csv")]
    assert timesteps == [512 * (i + 1) for i in range(len(timesteps))]
    assert timesteps[-1] == steps + 512


def progress_lines(run: Path) -> list[str]:
    file = run / "progress.csv"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def test_info_names_versions_and_the_level() -> None:
    done = trpo_fast("info")
    assert done.returncode == 0, done.stderr
    for word in ("trpo_fast", "python", "numpy", "gymnasium", "simd", "thread"):
        assert word in done.stdout
