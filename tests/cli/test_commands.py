"""Whole commands: train, resume, evaluate, record, export, plot, explain, info."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from command_line import TINY, assert_error, rows, trpo_fast, trpo_fast_process
from trpo_fast import cli
from trpo_fast.algorithms import PAGES, algorithm_class, page
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.config import TRPOConfig
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.training import evaluate_every


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short CartPole run; tests that change it take a copy."""
    run = tmp_path_factory.mktemp("cli") / "run"
    done = trpo_fast_process(
        "train", "CartPole-v1", "--total-timesteps", "4096", "--seed", 3, "--run-dir", run,
        "--evaluate-every", "2048", "--evaluation-episodes", 2, "--checkpoint-every", 2048, *TINY,
        "--n-workers", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(run / "latest.safetensors") in done.stdout
    return run


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
    common = ["--evaluate-every", "0", *TINY, "--batch-size", "256"]
    if algorithm == "single-path":  # it has no value function
        at = common.index("--value-epochs")
        del common[at : at + 2]
    train = ["train", "CartPole-v1", "--algorithm", algorithm, *common, *OWN[algorithm]]
    assert cli.main([*train, "--total-timesteps", "2000"]) == 0
    whole = Path("runs", f"CartPole-v1-{algorithm}-seed0")
    record = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert record["algorithm"] == algorithm
    # stopped half-way and gone on with: the same bits
    assert cli.main([*train, "--total-timesteps", "1000", "--run-dir", "half"]) == 0
    assert cli.main(["train", "--resume", "half", "--total-timesteps", "2000"]) == 0
    ends = [load_checkpoint(run / "latest.safetensors") for run in (whole, Path("half"))]
    assert ends[0][1]["algorithm"] == algorithm_class(algorithm).__name__
    assert ends[0][1]["timesteps"] == ends[1][1]["timesteps"] >= 2000
    for name in ends[0][0]:
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
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    out = tmp_path / "video.mp4"
    done = trpo_fast("record", finished, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 0


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("onnx", "policy.onnx"),
        ("c", "trpo_policy.h"),
        ("numpy", "policy.npz"),
        ("sb3", "policy.zip"),
    ],
)
def test_export_writes_the_policy(finished: Path, tmp_path: Path, to: str, name: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    done = trpo_fast("export", run, "--to", to)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"saved {run / name}\n"
    # the same from one checkpoint, where the ending tells the target
    out = tmp_path / f"other{Path(name).suffix}"
    done = trpo_fast("export", run / "best.safetensors", "--out", out)
    assert done.returncode == 0, done.stderr
    if to == "numpy":
        assert out.read_bytes() == (run / name).read_bytes()


def test_a_header_in_integers(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "fixed.h"
    done = trpo_fast("export", finished, "--to", "c", "--number", "fixed", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "fixed_act(const int32_t *observation, int32_t *action)" in out.read_text()


def test_export_says_what_it_needs(finished: Path, tmp_path: Path) -> None:
    assert_error(trpo_fast("export", finished), 2, "--to")
    assert_error(trpo_fast("export", finished, "--out", tmp_path / "policy.txt"), 1, "policy.txt")
    file = finished / "best.safetensors"
    done = trpo_fast("export", file, "--to", "c", "--checkpoint", "best")
    assert_error(done, 2, "--checkpoint")


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


def test_info_names_versions_and_the_level() -> None:
    done = trpo_fast("info")
    assert done.returncode == 0, done.stderr
    for word in ("trpo_fast", "python", "numpy", "gymnasium", "simd", "thread"):
        assert word in done.stdout


def test_the_last_evaluation_is_made_up_where_it_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed ends the run, which has taken all its steps by then."""
    flags = ["--total-timesteps", "1024", "--evaluate-every", "1024", "--evaluation-episodes", "2"]
    main, evaluate = cli.main, evaluate_every.evaluate_policy

    def killed(*args: object, **kwargs: object) -> None:
        raise EnvironmentFailure("worker 1 was killed by signal 9")

    whole, run = str(tmp_path / "whole"), str(tmp_path / "run")
    assert main(["train", "CartPole-v1", *flags, *TINY, "--run-dir", whole]) == 0
    monkeypatch.setattr(evaluate_every, "evaluate_policy", killed)
    assert main(["train", "CartPole-v1", *flags, *TINY, "--run-dir", run]) == 1
    assert not (tmp_path / "run" / "best.safetensors").exists()
    monkeypatch.setattr(evaluate_every, "evaluate_policy", evaluate)
    assert main(["train", "--resume", run, "--total-timesteps", "1024"]) == 0
    for name in ("evaluations.csv", "best.safetensors"):
        assert (tmp_path / "run" / name).exists()
    assert rows(tmp_path / "run" / "evaluations.csv") == rows(
        tmp_path / "whole" / "evaluations.csv"
    )
    assert main(["train", "--resume", run, "--total-timesteps", "1024"]) == 2
