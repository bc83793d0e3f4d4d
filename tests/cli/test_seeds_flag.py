"""train --seeds: many runs, each a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import TINY, trpo_fast, trpo_fast_process
from trpo_fast import cli
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.cli.output import UsageError
from trpo_fast.cli.seeds import parse_seeds
from trpo_fast.studies.processes import share_cores

SHORT = ["--total-timesteps", "512", "--evaluate-every", "0", *TINY]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("7", [7]),
        ("0,3, 10-12", [0, 3, 10, 11, 12]),
        ("2,0-3", [2, 0, 1, 3]),
    ],
)
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-", "1,,2", "0-100000", "1.5", "²"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds: expected numbers such as 0-9"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("settings", "n_runs", "cores", "at_once", "flags"),
    [
        ({}, 10, 4, 4, "--n-threads 1 --n-workers 0"),
        ({}, 2, 8, 2, "--n-threads 4 --n-workers 4"),
        ({"n_envs": 2}, 1, 8, 1, "--n-threads 8 --n-workers 2"),
        ({"n_workers": 2}, 10, 8, 4, "--n-threads 2"),
        ({"n_workers": 16}, 10, 8, 1, "--n-threads 8"),
        ({"n_workers": 0, "n_threads": 2}, 10, 8, 4, ""),
    ],
)
def test_cores_are_shared(
    settings: dict[str, int], n_runs: int, cores: int, at_once: int, flags: str
) -> None:
    found = share_cores(n_runs, cores, **{"n_envs": 8, **settings}, env="X")
    assert found == (at_once, flags.split())


def test_envpool_takes_one_thread_where_there_is_one_core() -> None:
    assert share_cores(4, 1, env="envpool:Ant-v4")[1][-1] == "1"


def test_every_seed_is_the_run_that_would_be_typed(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("env: CartPole-v1\nseeds: 0-2\nmax_kl: 0.02\n")
    done = trpo_fast("train", "--config", "run.yaml", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for seed in range(3):
        assert f"seed {seed}: saved runs/CartPole-v1-seed{seed}/latest.safetensors" in done.stdout
    assert "3 seeds, 0 failed, in runs" in done.stdout
    alone = trpo_fast(
        "train", "CartPole-v1", "--max-kl", "0.02", "--seed", 2, "--run-dir", "alone", *SHORT,
        cwd=tmp_path,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    runs = [tmp_path / "runs" / "CartPole-v1-seed2", tmp_path / "alone"]
    ends = [load_checkpoint(run / "latest.safetensors")[0]["policy"] for run in runs]
    assert ends[0].tobytes() == ends[1].tobytes()
    assert json.loads((runs[0] / "config.json").read_text())["seed"] == 2


def test_a_seed_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(
        "import gymnasium, os\n"
        "def make():\n"
        "    if os.path.exists('runs-made'):\n"
        "        raise OSError('only one licence')\n"
        "    open('runs-made', 'w').close()\n"
        "    return gymnasium.make('CartPole-v1')\n"
    )
    done = trpo_fast_process(
        "train", "--env-factory", "moody:make", "--seeds", "0-2", "--run-dir", "all", *SHORT,
        "--n-envs", 1, "--n-workers", 0, "--no-save-environments", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "3 seeds, 2 failed, in all" in done.stdout
    assert "only one licence" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "all").iterdir())) == 1


def test_mistakes_are_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for flags, words in (
        (["--seeds", "0-2", "--seed", "1"], "expected none with --seeds"),
        (["--seeds", "x"], "expected numbers"),
        (["--seeds", "0-2", "--max-kl", "-1"], "max_kl"),
    ):
        assert cli.main(["train", "CartPole-v1", *flags]) == 2
        assert words in capsys.readouterr().err
    Path("all/seed1").mkdir(parents=True)
    Path("all/seed1/precious").touch()
    assert cli.main(["train", "CartPole-v1", "--seeds", "0-2", "--run-dir", "all"]) == 1
    assert "which exists" in capsys.readouterr().err
    assert not Path("all/seed0").exists()


def test_a_signal_ends_every_run_after_its_iteration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trpo_fast", "train", "CartPole-v1", "--seeds", "0-3"]
    process = subprocess.Popen(
        [*command, "--run-dir", "all", *SHORT, "--total-timesteps", "1e9"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TRPO_FAST_DEBUG": ""},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("all/*/progress.csv")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "4 seeds, 0 failed" in out
    for run in tmp_path.glob("all/*/config.json"):
        load_checkpoint(run.parent / "latest.safetensors")
