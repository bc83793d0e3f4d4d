"""The learning table: its statistics against values worked out by hand, variants, and a run in short."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for `import benchmarks`

from benchmarks.learning import learning, learning_results, method_runs  # noqa: E402
from benchmarks.learning.learning_results import seconds_to_reach  # noqa: E402
from benchmarks.tools import report  # noqa: E402
from trpo_fast.studies.statistics import last_tenth  # noqa: E402


def test_ends_and_first_hits() -> None:
    assert last_tenth([0.0] * 18 + [1.0, 3.0]) == 2.0
    assert last_tenth([0.0, 4.0]) == 4.0
    assert seconds_to_reach([1.0, 2.0, 3.0], [5.0, 9.0, 7.0], 7.0) == 2.0
    assert seconds_to_reach([1.0], [5.0], 7.0) is None


def test_variants(tmp_path: Path) -> None:
    assert learning.variant("preset:sb3").settings == {"preset": "sb3"}
    calm = learning.variant(
        "calm:max_kl=0.02,hidden_sizes=(32, 32),activation=relu,dtype='float64'"
    )
    assert calm.name == "calm"
    assert calm.settings == {
        "max_kl": 0.02,
        "hidden_sizes": (32, 32),
        "activation": "relu",
        "dtype": "float64",
    }
    path = tmp_path / "mine.py"
    path.write_text("SETTINGS = {'max_kl': 0.02}\n")
    first = learning.variant(str(path))
    path.write_text("SETTINGS = {'max_kl': 0.02}\n# changed\n")
    assert (first.name, first.settings) == ("mine", {"max_kl": 0.02})
    assert learning.variant(str(path)).kind != first.kind  # resumes nothing of another file
    for text in ("defautl", "calm:", ":a=1", "calm:a", "missing.py"):
        with pytest.raises(ValueError, match="--variants: expected"):
            learning.variant(text)


def test_seeds() -> None:
    assert learning.seeds_of("3") == [0, 1, 2]
    assert learning.seeds_of("10-12") == [10, 11, 12]
    assert learning.seeds_of("1,4,7") == [1, 4, 7]
    with pytest.raises(Exception, match="expected a number of seeds"):
        learning.seeds_of("many")


def fake_run(variant: str, env: str, seed: int, curve: list[float], final: float) -> dict[str, Any]:
    points = [
        {"timesteps": 10.0 * i, "mean_return": value, "seconds": 2.0 * i}
        for i, value in enumerate(curve, 1)
    ]
    job = method_runs.Job(method=variant, kind="TRPO", env=env, seed=seed, timesteps=100)
    return {
        "job": vars(job),
        "timesteps": 100,
        "curve": points,
        "final_returns": [final - 1.0, final + 1.0],
        "seconds": 50.0,
        "max_kl_over_bound": 0.9,
    }


def test_rows_compare_with_a_stored_baseline(tmp_path: Path) -> None:
    task = learning.Task("A-v0", "none", 100, 2, aim=50.0)
    runs = [
        fake_run("default", "A-v0", seed, [10.0, 60.0, 20.0, 80.0], final)
        for seed, final in enumerate([70.0, 90.0])
    ]
    folder = tmp_path / "runs"
    folder.mkdir()
    for seed, final in enumerate([40.0, 80.0]):
        stored = fake_run("before", "A-v0", seed, [40.0], final)
        (folder / f"{seed}.json").write_text(json.dumps(stored))
    against = learning_results.baseline(str(tmp_path), ["default"])
    (row,) = learning_results.summaries([task], ["default"], runs, against)
    assert row["final"].value == 80.0
    assert row["worst"] == 70.0
    assert row["last_tenth"] == 80.0
    assert row["unlearnt"] == 0.5  # 20 is below half of 60, in both runs
    assert row["better"].value == 0.75
    assert row["seconds_to_baseline"] == 4.0  # 60 is their mean
    assert row["passed"]
    runs[0]["max_kl_over_bound"] = 1.01
    (row,) = learning_results.summaries([task], ["default"], runs, against)
    assert not row["passed"]
    with pytest.raises(ValueError, match="--baseline: expected one of default or a folder"):
        learning_results.baseline(str(tmp_path / "nothing"), ["default"])


def test_the_table_in_short(tmp_path: Path) -> None:
    trial = tmp_path / "trial.py"
    trial.write_text(
        "from trpo_fast import TRPO\n"
        "class Agent(TRPO):\n"
        "    def improve_policy(self, batch):\n"
        "        assert self.config.max_kl == 0.05\n"
        "        return super().improve_policy(batch)\n"
        "SETTINGS = {'max_kl': 0.05}\n"
    )
    command = ["--tasks", "CartPole-v1", "--scale", "0.05", "--seeds", "4-5", "--jobs", "1"]
    command += ["--evaluations", "2", "--evaluation-episodes", "1", "--baseline", "default"]
    command += ["--variants", "default", str(trial), "--out", str(tmp_path / "out")]
    out = run(command)
    assert "[4/4" in out
    assert "| CartPole-v1 |   trial |" in out
    rows = json.loads((tmp_path / "out" / "learning.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["default", "trial"]
    assert rows[0]["seeds"] == [4, 5]
    assert 0.0 <= rows[1]["better"]["value"] <= 1.0
    assert all(row["max_kl_over_bound"] <= 1.0 for row in rows)
    if importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / "out" / "learning.png").stat().st_size > 10_000
    assert "4 of 4 runs are in" in run([*command, "--resume"])


def run(arguments: list[str]) -> str:
    # a process of its own: a pool of processes leaves its tracker of resources behind; the status is 1,
    # because two seeds in so few steps reach no goal
    script = Path(learning.__file__)
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def test_peers_are_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("sb3_contrib") is not None:
        pytest.skip("sb3-contrib is installed")
    with pytest.raises(SystemExit):
        learning.main(["--variants", "sb3-contrib"])
    assert "a peer needs sb3_contrib" in capsys.readouterr().err


def test_signal_share_in_short() -> None:
    from benchmarks.learning.signal_share import DAMPINGS, measure, summary

    rows = measure("CartPole-v1", 3 * 2048, seed=0, updates=1, parts=3)
    assert len(rows) == 3
    assert rows[0]["sigma"] == 1.0  # of discrete actions
    assert rows[0]["share"][0] > 0.3  # as training begins
    # the second damping gains most per length; shares are ratios of means
    gains = np.tile([[1.0, 4.0], [3.0, 4.0], [1.0, 1.0]], (2, 1, 1))
    row = summary(10, 25.0, gains)
    assert row["sigma"] == pytest.approx(0.2)
    assert row["share"] == [0.25, 0.75, 1.0]
    assert row["best_damping"] == DAMPINGS[1]


def test_runs_end_with_the_table_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "table.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import multiprocessing, os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from benchmarks.tools.side_process import end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 60.0).result()\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as table:
        assert table.stdout is not None
        run_of_it = int(table.stdout.readline())
        os.kill(run_of_it, 0)  # it is there
        table.kill()
        try:  # the run holds the pipe's other end, too: it is at its end when both have gone
            table.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.kill(run_of_it, signal.SIGKILL)
            pytest.fail("the run went on without its table")


def test_a_package_of_another_commit_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The figures of a package that was installed earlier are not those of the tree beside it."""
    copy = tmp_path / "trpo_fast"
    shutil.copytree(
        ROOT / "python" / "trpo_fast", copy, ignore=shutil.ignore_patterns("__pycache__")
    )
    spec = SimpleNamespace(origin=str(copy / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert report.stale_files() == []
    with (copy / "seeds.py").open("a") as file:
        file.write("# later\n")
    (copy / "words.py").unlink()
    assert report.stale_files() == ["seeds.py", "words.py"]
    commit = report.commit()
    assert commit is None or commit.endswith(report.STALE)
