"""`study`: many runs as one experiment, and what is said of them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import study
from trpo_fast.cli import main
from trpo_fast.studies import processes
from trpo_fast.studies.plan import Plan, StudyError, parse_grid
from trpo_fast.studies.results import StudyResult
from trpo_fast.studies.statistics import (
    improvement,
    interquartile_estimate,
    interquartile_mean,
    second_half,
    unlearning_share,
    unlearnt,
)

SMALL = {"batch_size": 64, "n_envs": 2, "evaluate_every": 64, "evaluation_episodes": 1}


def plan(folder: Path, **changes: object) -> Plan:
    parts: dict[str, object] = {
        "envs": ("CartPole-v1",),
        "seeds": (0, 1),
        "grid": {"max_kl": ("0.01", "0.02")},
        "arguments": ("--total-timesteps=128",),
        "folder": folder,
    }
    return Plan(**{**parts, **changes})  # type: ignore[arg-type]


# The statistics


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 6.0, 600.0], (0.0 + 4 * 6.0 + 600.0) / 6),  # weights 1/12, 1/3, 1/12
        ([100.0, 2.0, 4.0, -100.0], 3.0),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0], 4.5),  # the middle four of eight
    ],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)


def test_interquartile_mean_is_that_of_the_distribution() -> None:
    values = np.random.default_rng(0).exponential(size=200_001)
    middle = np.sort(values)[50_000:150_000]
    assert interquartile_mean(values) == pytest.approx(middle.mean(), rel=1e-4)


def test_probability_of_improvement() -> None:
    assert improvement([[2.0, 3.0]], [[0.0, 1.0]]).value == 1.0
    assert improvement([[1.0]], [[1.0]]).value == 0.5
    assert improvement([[1.0, 3.0]], [[2.0, 2.0]]).value == 0.5
    # 1 on the first task, 0 on the second, whatever their numbers of runs
    both = improvement([[5.0, 6.0, 7.0], [0.0]], [[1.0], [1.0, 2.0]])
    assert (both.value, both.low, both.high) == (0.5, 0.5, 0.5)


def test_unlearning_is_counted_in_the_second_half() -> None:
    assert unlearnt([0.0, 1000.0, 10.0, 1000.0, 499.0, 501.0]) == 1
    assert unlearnt([1000.0, 1000.0, 1000.0, 10.0, 10.0]) == 2
    assert unlearnt([-1200.0, -200.0, -150.0, -299.0, -301.0]) == 1
    assert unlearnt([]) == 0
    for n in range(8):
        looked = second_half([0.0] * n)
        assert unlearnt([1.0] * (n - looked) + [0.0] * looked) == (looked if n > 1 else 0)


def test_one_seed_has_no_interval() -> None:
    assert interquartile_estimate([7.0]).value == 7.0
    assert np.isnan(interquartile_estimate([7.0]).low)
    with pytest.raises(ValueError, match="expected at least one number"):
        interquartile_estimate([])


def test_an_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3).normal(size=(200, 12))
    estimates = [interquartile_estimate(draw) for draw in draws]
    assert 0.85 < np.mean([e.low <= 0 <= e.high for e in estimates]) < 0.99
    assert interquartile_estimate(draws[0]) == estimates[0]  # the same every time


def test_the_share_that_is_unlearnt() -> None:
    assert unlearning_share([0, 0, 100, 49, 100, 51]) == pytest.approx(1 / 3)
    assert unlearning_share([7.0]) == 0.0


# The plan


def test_a_grid_is_every_combination_in_the_order_of_its_values(tmp_path: Path) -> None:
    grid = parse_grid(["max_kl=0.01,0.02", "hidden-sizes=8 8,16"])
    found = plan(tmp_path, grid=grid, seeds=(0,))
    assert list(found.variants) == [
        "max_kl=0.01 hidden_sizes=8 8",
        "max_kl=0.01 hidden_sizes=16",
        "max_kl=0.02 hidden_sizes=8 8",
        "max_kl=0.02 hidden_sizes=16",
    ]
    assert found.runs[0].arguments == (
        "CartPole-v1",
        "--total-timesteps=128",
        "--max-kl=0.01",
        "--hidden-sizes",
        "8",
        "8",
    )


@pytest.mark.parametrize("text", ["max_kl", "max_kl=", "max_kl=1,,2", "a b=1", "=3"])
def test_a_grid_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(StudyError, match="expected a setting"):
        plan(tmp_path, grid=parse_grid([text]))


def test_a_folder_keeps_to_its_study(tmp_path: Path) -> None:
    plan(tmp_path / "s").write()
    plan(tmp_path / "s", seeds=(0, 1, 2)).write()  # more seeds may come
    assert Plan.read(tmp_path / "s").seeds == (0, 1, 2)
    with pytest.raises(StudyError, match="expected the flags of"):
        plan(tmp_path / "s", arguments=("--total-timesteps=256",)).write()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StudyError, match=r"without a study\.json"):
        plan(tmp_path / "other").write()


# The runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return study(
        "CartPole-v1",
        seeds=[0, 1],
        grid={"max_kl": [0.01, 0.05]},
        run_dir=tmp_path_factory.mktemp("study") / "kl",
        total_timesteps=192,
        progress=None,
        **SMALL,
    )


def test_every_run_is_made_once(finished: StudyResult, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.plan.folder
    assert [r.timesteps for r in finished.runs] == [192] * 4
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("latest.safetensors")}
    assert len(before) == 4
    again = study(
        "CartPole-v1",
        seeds=[0, 1],
        grid={"max_kl": [0.01, 0.05]},
        run_dir=folder,
        total_timesteps=192,
        progress=print,
        **SMALL,
    )
    assert capsys.readouterr().out == ""  # nothing was left to do
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [r.final for r in again.runs] == [r.final for r in finished.runs]


def test_the_seeds_are_put_together(finished: StudyResult) -> None:
    first, second = finished.summaries()
    finals = finished.finals("CartPole-v1", "max_kl=0.01")
    assert first.final.value == pytest.approx(np.mean(finals))
    assert (first.seeds, first.worst, first.improvement) == (2, min(finals), None)
    assert second.improvement is not None
    assert len(finished.table()) == 3


def test_rows_and_picture(finished: StudyResult) -> None:
    with open(finished.write_csv(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["max_kl"], row["seed"]) for row in rows] == [
        ("0.01", "0"),
        ("0.05", "0"),
        ("0.01", "1"),
        ("0.05", "1"),
    ]
    assert finished.plot().read_bytes().startswith(b"\x89PNG")


def test_a_wrong_setting_ends_the_study_with_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="max-klo"):
        study("CartPole-v1", seeds=[0], run_dir=tmp_path / "s", max_klo=3, progress=None)


def test_a_run_that_is_killed_here_is_told_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def killed(_: Any, arguments: Any, *__: Any) -> int:
        started.append(arguments)
        return -9

    monkeypatch.setattr(processes.TrainingProcesses, "run", killed)
    said: list[str] = []
    study(
        "CartPole-v1", seeds=[0], run_dir=tmp_path / "s", progress=said.append, total_timesteps=64
    )
    assert len(started) == 1
    assert said == ["CartPole-v1, seed 0: failed: its process was killed by signal 9 (0 of 1)"]


def test_the_command_line_checks_every_setting_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    words = ["study", "CartPole-v1", "--seeds", "0", "--run-dir", str(folder)]
    assert main([*words, "--grid", "max_kl=0.01,-1"]) == 2
    assert "max_kl" in capsys.readouterr().err
    assert not folder.exists()


def test_a_study_that_is_killed_ends_its_runs_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    flags = ["--batch-size=64", "--evaluate-every=0", "--checkpoint-every=64", "--n-envs=2"]
    words = ["study", "CartPole-v1", "--seeds", "0,1", "--run-dir", str(folder), "--jobs=2"]
    command = [sys.executable, "-m", "trpo_fast", *words, "--total-timesteps=3200", *flags]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = [folder / "CartPole-v1" / "runs" / f"seed{seed}" for seed in (0, 1)]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all((r / "progress.csv").is_file() for r in runs):
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not any((run / ".lock").is_file() and _is_complete(run) for run in runs)
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    assert all(_is_complete(run) for run in runs)
    assert json.loads((folder / "study.json").read_text())["seeds"] == [0, 1]


def _is_complete(run: Path) -> bool:
    from trpo_fast.logging import read_columns

    return read_columns(run / "progress.csv")["time/timesteps"][-1:] == [3200.0]
