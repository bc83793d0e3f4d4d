"""`tune`: settings by trial and error."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import gymnasium as gym
import pytest
import yaml

from trpo_fast import TRPO, tune
from trpo_fast.cli import main
from trpo_fast.config import ConfigError
from trpo_fast.studies.plan import StudyError
from trpo_fast.studies.space import DEFAULT_SPACE, Choice, Interval, parse_space
from trpo_fast.studies.trials import Tuning
from trpo_fast.studies.tuning import TuneResult

SMALL = {"batch_size": 64, "n_envs": 2}
SEARCH = {"max_kl": Interval(0.001, 0.1, log=True), "hidden_sizes": Choice(("4", "8 8"))}


def small_tuning(folder: Path, trials: int, lines: list[str] | None = None) -> TuneResult:
    return tune(
        "CartPole-v1",
        run_dir=folder,
        trials=trials,
        total_timesteps=192,
        seeds=[0],
        search=SEARCH,
        evaluation_episodes=1,
        progress=None if lines is None else lines.append,
        **SMALL,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    return small_tuning(tmp_path_factory.mktemp("tune"), 6)


def test_a_space_is_read() -> None:
    assert parse_space(["max_kl=0.003:0.1", "gamma=0.9:0.99", "batch-size=64,128"]) == {
        "max_kl": Interval(0.003, 0.1, log=True),
        "gamma": Interval(0.9, 0.99),
        "batch_size": Choice((64, 128)),
    }
    assert parse_space(["cg_iterations=2:9"])["cg_iterations"].is_whole  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["max_kl", "max_kl=", "max_kl=a:b", "max_kl=2:1"])
def test_a_space_that_is_none(text: str) -> None:
    with pytest.raises(StudyError, match="search: expected"):
        parse_space([text])


def test_every_setting_of_the_default_space_is_one_of_trpo(tmp_path: Path) -> None:
    tuning = Tuning(
        env="CartPole-v1",
        folder=tmp_path,
        total_timesteps=100,
        seeds=(0,),
        space=DEFAULT_SPACE,
        settings={"gamma": 0.9},
    )
    assert "gamma" not in tuning.space_of_the_method  # it is given
    for name, part in tuning.space_of_the_method.items():
        ends = part.values if isinstance(part, Choice) else (part.low, part.high)
        for value in ends:
            tuning.config({name: value}, seed=0)


def test_schedules_run_over_the_whole_of_a_trial(finished: TuneResult) -> None:
    config = finished.tuning.config({"max_kl": "linear:0.05:0.01"}, seed=0)
    assert config.schedule_timesteps == finished.tuning.total_timesteps


def test_the_best_trial_is_the_one_with_the_largest_return(finished: TuneResult) -> None:
    values = [t.value for t in finished.study.trials if t.state.name == "COMPLETE"]
    assert finished.n_done == 6
    assert finished.best_return == max(values)
    assert set(finished.best) == set(SEARCH)
    with closing(TRPO("CartPole-v1", n_workers=0, **SMALL, **finished.best)) as agent:
        agent.learn(64)


def test_a_tuning_goes_on_where_it_was(finished: TuneResult) -> None:
    lines: list[str] = []
    again = small_tuning(finished.tuning.folder, 8, lines)
    assert [line.split(":")[0] for line in lines] == ["trial 7 of 8", "trial 8 of 8"]
    assert again.n_done == 8
    small_tuning(finished.tuning.folder, 8, lines)
    assert len(lines) == 2  # nothing was left to do


def test_the_best_settings_train_from_their_file(
    finished: TuneResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = finished.write_best()
    content = yaml.safe_load(file.read_text())
    assert content["env"] == "CartPole-v1"
    assert content["max_kl"] == finished.best["max_kl"]
    run = ["train", "--config", str(file), "--evaluate-every=0", "--n-workers=0"]
    assert main([*run, "--run-dir", str(tmp_path / "run")]) == 0
    assert finished.plot(tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_a_wrong_setting_is_told_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_kl"):
        tune("CartPole-v1", run_dir=tmp_path / "t", search={"max_kl": Interval(-1.0, 1.0)})
    with pytest.raises(StudyError, match="max_kl to be given or searched"):
        tune("CartPole-v1", run_dir=tmp_path / "t", search=SEARCH, max_kl=0.1)
    with (
        gym.make("CartPole-v1") as env,
        pytest.raises(StudyError, match="several agents cannot step"),
    ):
        tune(env, run_dir=tmp_path / "t", search=SEARCH)
    assert not (tmp_path / "t").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "CartPole-v1", "--run-dir", str(tmp_path / "t"), "--trials=5", "--seeds=0"]
    flags = ["--total-timesteps=128", "--batch-size=64", "--n-envs=2", "--evaluation-episodes=1"]
    assert main([*words, *flags, "--search", "max_kl=0.001:0.1"]) == 0
    said = capsys.readouterr().out
    assert said.count("trial ") == 5
    assert "trains by it" in said
    assert yaml.safe_load((tmp_path / "t" / "best.yaml").read_text())["batch_size"] == 64
