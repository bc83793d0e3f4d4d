"""The benchmark scripts: all say what they do, and those that need no other library run, briefly."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trpo_fast
from stand_ins import TAXI

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(ROOT))  # for `import benchmarks`

# the peers need PyTorch even to say what they do
SCRIPTS = sorted(
    f"{path.parent.name}/{path.name}"
    for path in BENCHMARKS.glob("*/*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.parent.name != "peers"
)
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)
needs_mujoco = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed"
)


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def run(script: str, *arguments: str, folder: Path, code: int = 0) -> str:
    answer = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str, tmp_path: Path) -> None:
    assert "usage:" in run(script, "--help", folder=tmp_path)


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("speed/training.py", ["--envs", "Pong"], "--envs: expected of CartPole-v1,"),
        ("speed/training.py", ["--workers", "1"], "--workers: expected at least 2"),
        ("speed/scaling.py", ["--axes", "depth"], "--axes: expected of rows,"),
        ("learning/methods.py", ["--methods", "PPO"], "--methods: expected of TRPO,"),
        ("learning/methods.py", ["--scale", "0"], "--scale: expected a positive number, got 0.0"),
        (
            "learning/paper_comparison.py",
            ["--scale", "2"],
            "--scale: expected a number in (0, 1], got 2.0",
        ),
        (
            "speed/update.py",
            ["--peers", "rllib"],
            "--peers: expected of sb3-contrib, tianshou, skrl, got",
        ),
        ("speed/update.py", ["--sides", "jax"], "--sides: expected of sb3-contrib,"),
        ("speed/update.py", ["--rows", "1000"], "--rows: expected multiples of 32 for skrl,"),
        (
            "learning/vine_comparison.py",
            ["--repeats", "1"],
            "--repeats: expected at least 2, got 1",
        ),
    ],
)
def test_bad_flags_are_named(
    script: str, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    assert sentence in run(script, *arguments, folder=tmp_path, code=2)


# ---- the core's


def test_scaling_measures_every_axis(tmp_path: Path) -> None:
    flags = "--axes rows,threads,levels --rows 64,300 --threads 1,2 --rounds 1 --json scaling.json"
    run("speed/scaling.py", *flags.split(), folder=tmp_path)
    results = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["rows"] for row in results["rows"]] == [64, 300]
    assert all(row["flops"] > 1e6 for row in results["rows"])
    assert results["threads"][1]["product speed-up"]["median"] > 0.0
    assert len(results["levels"]) == 4


def test_preconditioning_counts_products(tmp_path: Path) -> None:
    flags = "--envs CartPole-v1 --timesteps 512 --batch-size 256 --rounds 1"
    out = run("speed/preconditioning.py", *flags.split(), folder=tmp_path)
    rows = [line.split("|")[1:-1] for line in out.splitlines() if "CartPole" in line]
    assert [row[3].strip() for row in rows] == ["plain", "diagonal", "Kronecker"]
    gains = [[float(cell.strip(" %")) for cell in row[-3:]] for row in rows]
    # each iterate of conjugate gradient gains more than the one before, and none more than the solution
    assert all(0.0 < six <= ten <= fifteen <= 100.0 for six, ten, fifteen in gains)


# ---- cores.py


def test_the_model_of_cores_adds_up(tmp_path: Path) -> None:
    flags = "--env CartPole-v1 --n-envs 2 --batch-size 128 --turns 1 --iterations 3"
    out = run("speed/cores.py", *flags.split(), folder=tmp_path)
    rows = [
        line.split("|")[1:-1] for line in out.splitlines() if line.startswith(("| 1", "| 2", "| 4"))
    ]
    assert [int(row[0]) for row in rows] == [1, 2, 4, 16]
    for row in rows:
        assert float(row[2].replace(",", "")) > 0.0
        assert sum(int(cell.strip(" %")) for cell in row[3:]) == pytest.approx(100, abs=2)


# ---- training.py


def test_training_times_the_same_work(tmp_path: Path) -> None:
    flags = "--envs CartPole-v1 --sides environment,trpo_fast --updates 1 --rounds 1"
    out = run("speed/training.py", *flags.split(), "--json", "training.json", folder=tmp_path)
    assert "left out" not in out
    (result,) = json.loads((tmp_path / "training.json").read_text())["results"]
    sides = result["sides"]
    assert set(sides) == {
        "environment only, 1 process",
        "environment only, 2 processes",
        "trpo_fast, in process",
        "trpo_fast, 2 workers",
        "trpo_fast, sb3 settings",
    }
    for side in sides.values():
        assert side["steps"] == 2048
        assert side["steps_per_second"] > 0.0
        assert side["share_of_ceiling"]["median"] > 0.0
        assert side["peak_bytes"] is None or side["peak_bytes"] > 1e6


def test_episodes_are_cut_into_turns() -> None:
    from benchmarks.tools.replay import cut_into_turns

    episodes = [({"seed": 1}, [1, 2, 3]), ({}, [4]), ({}, [5, 6, 7, 8, 9]), ({}, [])]
    assert list(cut_into_turns(episodes, 3)) == [
        [({"seed": 1}, [1, 2, 3])],
        [({}, [4]), ({}, [5, 6])],
        [(None, [7, 8, 9])],
    ]
    assert list(cut_into_turns(episodes[:1], 1)) == [[({"seed": 1}, [1, 2, 3])]]


def test_bare_environments_repeat_a_training() -> None:
    from benchmarks.tools.replay import check_replay, record, replay

    recording = record("CartPole-v1", 4, {})
    check_replay(recording)
    assert recording.steps == 8192
    assert replay(recording)() == 8192
    parts = [replay(recording, part, iterations=2) for part in (slice(0, 4), slice(4, 8))]
    assert [part() for part in parts for _ in range(2)] == [2048] * 4
    with pytest.raises(ValueError, match="4 are not turns of 3"):
        replay(recording, iterations=3)

    recording.reward += 1.0
    with pytest.raises(RuntimeError, match="not the same work"):
        check_replay(recording)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_family_counts_children() -> None:
    import os

    from benchmarks.tools.side_process import children_cpu_seconds, family, peak_memory

    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    before = children_cpu_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", busy + "\nprint(1, flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in family(os.getpid())
        assert children_cpu_seconds(os.getpid()) - before >= 0.25
        assert (peak_memory(os.getpid()) or 0.0) > (peak_memory(child.pid) or 0.0) > 1e6
        child.communicate(b"\n")
    assert children_cpu_seconds(os.getpid()) - before >= 0.25  # waited for


# ---- versions.py


def test_a_version_beside_itself(tmp_path: Path) -> None:
    package = Path(trpo_fast.__file__).parents[1]
    out = run(
        "speed/versions.py", "--before", str(package), "--rounds", "1", "--parts",
        "product,CartPole-v1", folder=tmp_path,
    )  # fmt: skip
    figures = [line.split()[:-4] for line in out.splitlines()[1:] if " to " in line]
    assert [" ".join(figure) for figure in figures] == [
        "product", "CartPole-v1 rollout", "CartPole-v1 training",
    ]  # fmt: skip
    wrong = run("speed/versions.py", "--before", str(tmp_path), folder=tmp_path, code=2)
    assert "--before: expected a folder that holds trpo_fast" in wrong


# ---- acting.py


def test_acting_times_the_same_steps(tmp_path: Path) -> None:
    out = run(
        "speed/acting.py", "--envs", "CartPole-v1", "--rounds", "2", "--json", "acting.json",
        folder=tmp_path,
    )  # fmt: skip
    assert "CartPole-v1, " in out
    (result,) = json.loads((tmp_path / "acting.json").read_text())["results"]
    assert result["steps"] > 5
    bare, ours = (result["between"][side] for side in ("bare simulator", "trpo_fast"))
    assert 0.0 < result["alone"]["trpo_fast"]["median_seconds"] < 1e-3
    assert ours["median_seconds"] > bare["median_seconds"] > 1e-6 * result["steps"]
    assert "--rounds: expected at least 1" in run(
        "speed/acting.py", "--rounds", "0", folder=tmp_path, code=2
    )


# ---- one_hots.py


def test_wide_rows_are_timed_beside_narrow_ones(tmp_path: Path) -> None:
    run(
        "speed/one_hots.py", "--cases", "Taxi", "--rounds", "1", "--env", TAXI,
        "--json", "one_hots.json", folder=tmp_path,
    )  # fmt: skip
    found = json.loads((tmp_path / "one_hots.json").read_text())
    dense, columns, least = found["Taxi/total"]
    assert 0.0 < least < dense
    assert 0.0 < columns < dense
    assert {"Taxi/acting", "Taxi/update", "Taxi/value fit"} <= set(found)
    dense, columns = found[f"{TAXI}/value_fit"]
    assert 0.0 < columns < dense
    wrong = run("speed/one_hots.py", "--cases", "Taxy", folder=tmp_path, code=2)
    assert "--cases: expected some of Taxi, MiniGrid, got Taxy" in wrong


# ---- exported.py


def test_exported_policies_are_timed_side_by_side(tmp_path: Path) -> None:
    out = run(
        "speed/exported.py", "--envs", "CartPole-v1", "--rounds", "2", "--json", "exported.json",
        folder=tmp_path,
    )  # fmt: skip
    assert "microseconds" in out
    (result,) = json.loads((tmp_path / "exported.json").read_text())["results"]
    assert {"predict", "onnxruntime", "NumPy"} <= result["seconds"].keys()
    for side, timing in result["seconds"].items():
        assert 1e-8 < timing["median_seconds"] / result["calls"][side] < 0.1
    assert "--rounds: expected at least 1" in run(
        "speed/exported.py", "--rounds", "0", folder=tmp_path, code=2
    )


# ---- update.py


def update_table(peer: str, *flags: str, folder: Path) -> dict[str, Any]:
    """The table of 512 rows, timed once, as it stands in the JSON."""
    briefly = f"--peers {peer} --rows 512 --threads 1 --rounds 1 --json update.json"
    out = run("speed/update.py", *briefly.split(), *flags, folder=folder)
    assert "left out" not in out
    assert "Warning" not in out
    ((entry,),) = [answer["results"] for answer in json.loads((folder / "update.json").read_text())]
    return entry


def test_preconditioned_update_needs_fewer_products(tmp_path: Path) -> None:
    sides = update_table("sb3-contrib", "--sides", "trpo_fast,kronecker", folder=tmp_path)["sides"]
    plain, preconditioned = sides["trpo_fast"], sides["trpo_fast, Kronecker"]
    assert preconditioned["cg_iterations"] < plain["cg_iterations"] == 15
    assert preconditioned["policy_step_cosine"] > 0.999
    assert preconditioned["slower_than_trpo_fast"]["median"] > 0.0


@pytest.mark.parametrize(
    ("peer", "label", "most_iterations"),
    [
        pytest.param("sb3-contrib", "sb3-contrib", 15, marks=needs("torch", "sb3_contrib")),
        pytest.param("tianshou", "Tianshou", 10, marks=needs("torch", "tianshou")),
        pytest.param("skrl", "skrl", 10, marks=needs("torch", "skrl")),
    ],
)
def test_peers_and_trpo_fast_do_the_same_work(
    peer: str, label: str, most_iterations: int, tmp_path: Path
) -> None:
    table = update_table(peer, folder=tmp_path)
    theirs, ours = table["sides"][label], table["sides"]["trpo_fast"]
    assert 1 < theirs["cg_iterations"] == ours["cg_iterations"] <= most_iterations
    assert ours["policy_step_cosine"] > 0.999
    assert ours["policy_step_norm"] == pytest.approx(theirs["policy_step_norm"], rel=0.01)
    assert ours["value_loss"] == pytest.approx(theirs["value_loss"], rel=0.05)
    assert theirs["slower_than_trpo_fast"]["median"] > 0.0


def test_different_work_is_refused() -> None:
    from benchmarks.speed.update import Outcome, check_same_work

    step = np.array([3.0, 4.0], np.float32)
    first = Outcome(step, value_loss=1.0, value_loss_drop=9.0)
    check_same_work({"a": first, "b": Outcome(1.01 * step, 1.1, 8.9)})
    for other, what in (
        (Outcome(step[::-1] * [1, -1], 1.0, 9.0), "the directions of the policy steps"),
        (Outcome(0.8 * step, 1.0, 9.0), "the lengths of the policy steps"),
        (Outcome(step, 5.0, 5.0), "the drops of the value loss"),
    ):
        with pytest.raises(SystemExit, match=f"b: this is not the work of a: {what}"):
            check_same_work({"a": first, "b": other})
    with pytest.raises(SystemExit, match="b: its policy did not move"):
        check_same_work({"a": first, "b": Outcome(0.0 * step, 1.0, 9.0)})


def test_update_batch_is_a_rollout_of_the_starting_policy() -> None:
    from benchmarks.peers.peer_updates import skrl_work
    from benchmarks.speed.update import estimate_advantages, make_batch, make_networks, value_loss

    batch = make_batch(256)
    policy, value = make_networks()
    log_probs = policy.log_prob(batch.observations, batch.actions)
    np.testing.assert_allclose(batch.log_probs, log_probs, rtol=1e-4)
    assert value_loss(batch.value, batch) == pytest.approx(
        value.loss(batch.observations, batch.returns), rel=1e-4
    )
    steps = skrl_work(256).gae_steps
    assert steps is not None
    advantages, returns = estimate_advantages(batch, value, steps)
    np.testing.assert_allclose(advantages, batch.advantages, atol=1e-5)
    np.testing.assert_allclose(returns, batch.returns, atol=1e-5)


def test_missing_peers_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.speed.update import SIDES, available
    from benchmarks.tools import report

    monkeypatch.setattr(report, "have", lambda package: package in ("torch", "trpo-fast"))
    assert available("sb3-contrib", list(SIDES)) == ["torch_trpo", "trpo_fast", "kronecker"]
    assert available("skrl", list(SIDES)) == []
    assert available("skrl", ["trpo_fast"]) == ["trpo_fast"]
    assert capsys.readouterr().out.splitlines() == [
        "sb3-contrib: left out, sb3-contrib is not installed",
        "skrl: left out, skrl is not installed",
    ]


# ---- the comparisons of methods


@needs_matplotlib
def test_methods_in_short(tmp_path: Path) -> None:
    flags = "--envs CartPole-v1 --scale 0.002 --seeds 2 --jobs 1 --out out"
    methods = ["--methods", "TRPO,CEM"]
    command = ["learning/methods.py", *flags.split(), *methods]
    out = run(*command, folder=tmp_path, code=1)  # nothing learnt
    assert "[4/4" in out
    assert (tmp_path / "out" / "methods.png").stat().st_size > 10_000
    with (tmp_path / "out" / "methods.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["method"], row["seed"]) for row in rows} == {
        (method, seed) for method in ("TRPO", "CEM") for seed in "01"
    }
    again = run(*command, "--resume", folder=tmp_path, code=1)
    assert "4 of 4 runs are in out already" in again


@needs_matplotlib
@needs_mujoco
def test_paper_comparison_in_short(tmp_path: Path) -> None:
    flags = "--panels cart-pole --iterations 2 --batch 400 --seeds 1 --jobs 1 --out out"
    methods = "vine,single path,natural gradient,max KL,empirical Fisher,CEM"
    out = run("learning/paper_comparison.py", *flags.split(), "--methods", methods, folder=tmp_path)
    assert "cart-pole (InvertedPendulum-v5): 2 iterations of 400 steps" in out
    assert (tmp_path / "out" / "paper.png").exists()
    assert (tmp_path / "out" / "paper.csv").exists()


@needs_matplotlib
@needs_mujoco
def test_vine_comparison_in_short(tmp_path: Path) -> None:
    flags = "--envs Hopper-v5 --timesteps 2000 --seeds 1 --repeats 2 --policy-timesteps 2000"
    flags += " --jobs 1 --out out"
    run("learning/vine_comparison.py", *flags.split(), folder=tmp_path)
    found = json.loads((tmp_path / "out" / "vine.json").read_text())
    steps = {entry["scheme"]: entry["steps"] for entry in found["variances"]}
    assert steps["single path, Monte Carlo"] == steps["single path, GAE"] == 5000.0
    assert 1000.0 < steps["vine, Monte Carlo"] <= 5000.0  # branches end with their episodes
    assert len(found["learning"]) == 4


def test_scale_one_is_the_paper() -> None:
    from benchmarks.learning.paper_comparison import SETTINGS, structure

    hopper = structure(SETTINGS["Hopper"], 1.0)
    assert (hopper.batch_size, hopper.iterations) == (1_000_000, 200)
    assert hopper.branch_steps == 100
    for setting in SETTINGS.values():
        for scale in (1e-3, 1e-2, 0.1, 1.0):
            made = structure(setting, scale)
            assert 0 < made.states <= made.trunk
            assert made.batch_size >= 5000
            assert made.iterations >= 50


def test_relative_variance_of_known_noise() -> None:
    from benchmarks.learning.vine_comparison import UPDATE_STEPS, relative_variance

    rng = np.random.default_rng(0)
    mean = np.full(20, 0.5)  # |mean|^2 = 5
    gradients = mean + rng.standard_normal((4000, 20))  # variance 20
    found = relative_variance(gradients, UPDATE_STEPS / 2)
    assert found["variance"] == pytest.approx(20.0, rel=0.02)
    assert found["signal"] == pytest.approx(5.0, rel=0.05)
    assert found["relative"] == pytest.approx(2.0, rel=0.06)
    assert relative_variance(np.stack([mean, -mean]), 1.0)["relative"] is None


def test_curves_meet_on_a_common_grid() -> None:
    from benchmarks.learning.method_runs import common_grid

    def curve(*points: tuple[float, float]) -> dict[str, object]:
        return {"curve": [{"timesteps": t, "mean_return": r} for t, r in points]}

    grid, values = common_grid([curve((0, 0), (10, 10)), curve((2, 1), (6, 1), (12, 1))])
    np.testing.assert_allclose(grid, [2, 6, 10])
    np.testing.assert_allclose(values, [[2, 6, 10], [1, 1, 1]])
    assert common_grid([curve()])[0].size == 0
