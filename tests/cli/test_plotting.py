"""Learning curves: what is read, how runs are grouped, and that a picture comes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import plotting
from trpo_fast.cli import main
from trpo_fast.logging import CsvLogger
from trpo_fast.plotting import plot_runs, read_run

pytest.importorskip("matplotlib")


def make_run(
    folder: Path,
    *,
    env: str = "CartPole-v1",
    preset: str | None = None,
    algorithm: str | None = None,
    steps: tuple[int, ...] = (100, 200, 300),
    returns: tuple[float, ...] = (float("nan"), 20.0, 30.0),
    evaluations: tuple[tuple[int, float], ...] = (),
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    record: dict[str, Any] = {"env": env, "config": {"seed": 0, "max_kl": 0.01, **config}}
    if algorithm is not None:
        record["algorithm"] = algorithm
    if preset is not None:
        record["preset"] = {"name": preset}
    (folder / "config.json").write_text(json.dumps(record))
    progress = CsvLogger(folder / "progress.csv")
    for step, value in zip(steps, returns, strict=True):
        progress.write({"time/timesteps": step, "rollout/episode_return": value})
    progress.close()
    if evaluations:
        rows = CsvLogger(folder / "evaluations.csv", step_key="timesteps")
        for step, value in evaluations:
            rows.write({"timesteps": step, "episode": 0, "return": value, "length": 1})
        rows.close()
    return folder


def test_a_run_is_read_without_what_is_unknown(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "run", seed=3, n_threads=2, evaluations=((100, 1.0), (100, 3.0), (300, 9.0))
    )
    run = read_run(folder)
    settings = {"algorithm": "trpo", "max_kl": 0.01}
    assert (run.environment, run.preset, run.settings) == ("CartPole-v1", None, settings)
    np.testing.assert_array_equal(run.training, [[200, 300], [20, 30]])
    np.testing.assert_array_equal(run.evaluation, [[100, 300], [2, 9]])


def groups_of(*folders: Path) -> dict[str, list[str]]:
    groups = plotting._group_by_settings([read_run(folder) for folder in folders])
    return {name: [run.folder.name for run in runs] for name, runs in groups}


def test_seeds_are_one_group_and_settings_name_the_others(tmp_path: Path) -> None:
    a0 = make_run(tmp_path / "a0", seed=0, n_threads=1)
    a1 = make_run(tmp_path / "a1", seed=1, n_threads=2)
    b0 = make_run(tmp_path / "b0", seed=0, max_kl=0.02, hidden_sizes=[32, 32])
    c0 = make_run(tmp_path / "c0", seed=0, max_kl=0.02, preset="sb3")
    assert groups_of(a0, a1) == {"": ["a0", "a1"]}
    assert groups_of(a0, b0, a1) == {
        "hidden_sizes None, max_kl 0.01": ["a0", "a1"],
        "hidden_sizes 32x32, max_kl 0.02": ["b0"],
    }
    assert groups_of(a0, c0) == {"default": ["a0"], "sb3": ["c0"]}
    d0 = make_run(tmp_path / "d0", algorithm="npg", step_size=0.3)
    assert groups_of(a0, d0) == {"trpo": ["a0"], "npg": ["d0"]}


def curve(steps: Any, values: Any) -> plotting.Curve:
    return np.array(steps, np.float64), np.array(values, np.float64)


def test_mean_and_deviation_over_seeds_at_the_steps_that_were_logged() -> None:
    long, short = curve([1, 2, 3, 4], [0, 2, 4, 6]), curve([2, 3], [4, 10])
    (steps, mean), spread = plotting._over_seeds([long, short])
    np.testing.assert_array_equal(steps, [2, 3])
    np.testing.assert_array_equal(mean, [3, 7])
    np.testing.assert_allclose(spread, [np.sqrt(2), 3 * np.sqrt(2)])


def test_other_steps_are_interpolated_where_all_seeds_have_come() -> None:
    first, second = curve([0, 10], [0, 10]), curve([1, 21], [3, 23])
    (steps, mean), spread = plotting._over_seeds([first, second])
    assert (steps[0], steps[-1]) == (1, 10)
    np.testing.assert_allclose(mean, steps + 1)
    np.testing.assert_allclose(spread, np.sqrt(2))


def test_seeds_that_never_meet_have_no_mean() -> None:
    (steps, mean), spread = plotting._over_seeds([curve([1, 2], [0, 0]), curve([5, 6], [1, 1])])
    assert steps.size == mean.size == spread.size == 0


@pytest.mark.parametrize(
    ("steps", "text"),
    [(0, "0"), (500, "500"), (2500, "2.5k"), (250_000, "250k"), (1_500_000, "1.5M"), (2e9, "2G")],
)
def test_steps_are_written_short(steps: float, text: str) -> None:
    assert plotting._compact(steps) == text


def test_panels_hold_their_labels_and_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    save = plotting._save

    def keep(figure: Any, path: Path, dpi: int) -> Path:
        figures.append(figure)
        return save(figure, path, dpi)

    monkeypatch.setattr(plotting, "_save", keep)
    pole = [make_run(tmp_path / f"p{seed}", seed=seed) for seed in range(3)]
    pole.append(make_run(tmp_path / "q", max_kl=0.05, evaluations=((100, 5.0), (200, 8.0))))
    # seeds that never meet, one panel with a single evaluation and no training episode
    apart = [
        make_run(tmp_path / "r0", env="A-v0", seed=0, steps=(1, 2), returns=(1.0, 2.0)),
        make_run(tmp_path / "r1", env="A-v0", seed=1, steps=(8, 9), returns=(1.0, 2.0)),
    ]
    point = make_run(
        tmp_path / "s", env="B-v0", steps=(5,), returns=(float("nan"),), evaluations=((5, 1.0),)
    )
    out = plot_runs([*pole, *apart, point], tmp_path / "new" / "curves.png", title="All", dpi=50)
    assert out.read_bytes().startswith(b"\x89PNG")
    shown = [axis for axis in figures[0].axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in shown] == ["A-v0", "B-v0", "CartPole-v1"]
    assert {axis.get_xlabel() for axis in shown} == {"environment steps"}
    assert {axis.get_ylabel() for axis in shown} == {"return per episode"}
    assert [text.get_text() for text in shown[2].get_legend().get_texts()] == [
        "max_kl 0.01: training, mean ± s.d. of 3 seeds",
        "max_kl 0.05: training",
        "max_kl 0.05: evaluation",
    ]


def test_another_metric_is_drawn_of_training_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "progress.csv").unlink()
    progress = CsvLogger(folder / "progress.csv")
    for step, rate, kl in ((100, 0.0, 0.01), (200, 0.5, 0.005)):
        progress.write(
            {"time/timesteps": step, "rollout/success_rate": rate, "policy/kl": kl, "policy/x": "-"}
        )
    progress.close()
    rows = CsvLogger(folder / "evaluations.csv", step_key="timesteps")
    for episode, success in enumerate((1.0, 0.0, 1.0, 1.0)):
        rows.write({"timesteps": 200, "episode": episode, "return": 1.0, "success": success})
    rows.close()
    run = read_run(folder, "success_rate")
    np.testing.assert_array_equal(run.training, [[100, 200], [0.0, 0.5]])
    np.testing.assert_array_equal(run.evaluation, [[200], [0.75]])
    np.testing.assert_array_equal(read_run(folder, "policy/kl").training[1], [0.01, 0.005])
    assert run.metrics == ("success_rate", "policy/kl")

    labels: list[str] = []
    save = plotting._save

    def keep(figure: Any, *rest: Any) -> Path:
        labels.append(figure.axes[0].get_ylabel())
        return save(figure, *rest)

    monkeypatch.setattr(plotting, "_save", keep)
    for metric in ("success_rate", "policy/kl"):
        out = str(tmp_path / "out.png")
        assert main(["plot", str(folder), "--metric", metric, "--out", out]) == 0
    assert labels == ["success rate", "policy/kl"]
    with pytest.raises(
        ValueError, match="metric: expected one of success_rate, policy/kl, got 'kl'"
    ):
        plot_runs([folder], tmp_path / "out.png", metric="kl")


def test_no_global_state_of_pyplot_is_touched(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_runs([make_run(tmp_path / "run")], tmp_path / "curves.svg")
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one run folder, got none"):
        plot_runs([], tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"config\.json: expected the record of a run, got no"):
        plot_runs([tmp_path], tmp_path / "x.png")

    early = make_run(tmp_path / "early", steps=(1,), returns=(float("nan"),))
    with pytest.raises(ValueError, match="expected finished episodes in at least one run"):
        plot_runs([early], tmp_path / "x.png")

    (early / "progress.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"progress\.csv: expected the columns"):
        plot_runs([early], tmp_path / "x.png")
    (early / "progress.csv").unlink()
    with pytest.raises(ValueError, match=r"progress\.csv: expected the progress of a run"):
        plot_runs([early], tmp_path / "x.png")
    (early / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON"):
        plot_runs([early], tmp_path / "x.png")
    (early / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: expected an entry 'env'"):
        plot_runs([early], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_unknown_picture_format(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="expected an ending such as"):
        plot_runs([run], tmp_path / "curves.doc")


def test_missing_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError) as caught:
        plot_runs([make_run(tmp_path / "run")], tmp_path / "x.png")
    assert str(caught.value) == (
        'Plotting needs matplotlib, which is not installed: pip install "trpo_fast[plot]"'
    )
