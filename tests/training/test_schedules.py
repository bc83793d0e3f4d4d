"""Settings that change over a run."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

import trpo_fast
from trpo_fast import TRPO, TRPOConfig, schedules
from trpo_fast.algorithms import ALGORITHMS, algorithm_class
from trpo_fast.cli import main
from trpo_fast.config import ConfigError
from trpo_fast.training.agent import OnPolicyAgent

SMALL: dict[str, Any] = {"n_workers": 0, "n_envs": 2, "batch_size": 64, "hidden_sizes": (8,)}


def squared(remaining: float) -> float:
    return 0.04 * remaining**2 + 0.001


def small(**settings: Any) -> Any:
    return TRPO("CartPole-v1", **{**SMALL, **settings})


def trained(agent: Any, steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    agent.learn(steps, callback=lambda _, record: rows.append(dict(record)), progress=False)
    return rows


def bits(agent: OnPolicyAgent[Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in agent.state_tensors().items()}


def test_shapes() -> None:
    line, wave = schedules.linear(0.04, 0.004), schedules.cosine(0.04, 0.004)
    for schedule in (line, wave):
        assert schedule(1.0) == 0.04
        assert schedule(0.0) == 0.004
        assert schedule(0.5) == pytest.approx(0.022)
    assert line(0.25) == pytest.approx(0.013)
    assert wave(0.25) == pytest.approx(0.004 + 0.036 * 0.5 * (1 - math.sqrt(0.5)))
    assert str(line) == "linear:0.04:0.004"
    assert schedules.linear(1.0, 0.9)(0.3) <= 1.0
    assert trpo_fast.schedules is schedules


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("linear", schedules.linear(0.02, 0.0)),
        ("cosine:0.04", schedules.cosine(0.04, 0.0)),
        ("linear:4e-2:.004", schedules.linear(0.04, 0.004)),
        (schedules.cosine(0.1, 0.2), schedules.cosine(0.1, 0.2)),
    ],
)
def test_forms(given: Any, means: schedules.Schedule) -> None:
    config = TRPOConfig(max_kl=given)
    assert config.max_kl == means
    as_text = json.loads(json.dumps(config.to_dict()))
    assert TRPOConfig.from_dict(as_text) == config


@pytest.mark.parametrize("bad", ["linaer", "linear:", "linear:a:b", "linear:1:2:3", "", "step:1"])
def test_other_texts_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"max_kl: expected a number in .* or a schedule such as"):
        TRPOConfig(max_kl=bad)


@pytest.mark.parametrize("bad", ["linear:-1:1", "linear:0.1:-1", "linear:0:0.1", "linear:inf:1"])
def test_numbers_of_schedules_have_the_range_of_their_setting(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"max_kl: expected a .*got"):
        TRPOConfig(max_kl=bad)
    with pytest.raises(ConfigError, match="gae_lambda: expected a schedule between numbers in"):
        TRPOConfig(gae_lambda="linear:0.5:1.5")


def test_an_iteration_takes_the_value_of_its_beginning() -> None:
    rows = trained(small(max_kl="linear:0.04:0.004"), 640)
    for i, row in enumerate(rows):
        assert row["schedule/max_kl"] == pytest.approx(0.04 - 0.036 * i / 10)
        assert row["policy/max_kl"] == row["schedule/max_kl"]
        assert row["policy/kl"] <= row["policy/max_kl"]
    assert len(rows) == 10
    assert not any(name.startswith("schedule/") for name in trained(small(), 64)[0])


@pytest.mark.parametrize("method", ALGORITHMS)
def test_every_method_honours_every_schedule(method: str) -> None:
    cls = algorithm_class(method)
    own = {"vine": {"states": 4, "branch_steps": 2}} if method == "vine" else {}
    own |= {"step_size": None} if method == "npg" else {}
    small = {
        k: v for k, v in SMALL.items() if k in {f.name for f in dataclasses.fields(cls.config_type)}
    }
    scheduled = [f for f in dataclasses.fields(cls.config_type) if "interval" in f.metadata]
    assert len(scheduled) >= 2

    def learned(**settings: Any) -> tuple[list[float], bytes]:
        agent = cls("Pendulum-v1", **{**small, **own, **settings})
        rows = trained(agent, {"vine": 256, "single-path": 800}.get(method, 128))
        values = b"" if agent.value_fitting is None else agent.value_function.parameters.tobytes()
        return [v for k, v in rows[-1].items() if k.startswith("schedule/")], (
            agent.policy.parameters.tobytes() + values
        )

    for one in scheduled:
        start = 0.5 if one.default is None else one.default
        constant, changing = learned(**{one.name: start}), learned(**{one.name: f"linear:{start}"})
        assert constant[0] == []
        assert 0 < changing[0][0] < start
        if one.name != "kl_target":  # decides by factors of 1.5 alone
            assert constant[1] != changing[1], one.name


def test_a_schedule_of_the_value_learning_rate_in_two_forms() -> None:
    one = small(value_learning_rate="linear:0.002")
    other = small(value_learning_rate=0.002, value_learning_rate_schedule="linear")
    assert trained(one, 192)[-1]["schedule/value_learning_rate"] == pytest.approx(0.002 / 3)
    assert trained(other, 192)[-1]["schedule/value_learning_rate"] == pytest.approx(0.002 / 3)
    assert bits(one) == bits(other)
    with pytest.raises(ConfigError, match="value_learning_rate_schedule: expected its default"):
        small(value_learning_rate="linear:0.002", value_learning_rate_schedule="linear")


def test_the_way_is_that_of_the_first_learn_or_named() -> None:
    whole, pieces = small(max_kl=squared), small(max_kl=squared, schedule_timesteps=320)
    trained(whole, 320)
    for _ in range(5):
        trained(pieces, 64)
    assert bits(whole) == bits(pieces)
    rows = trained(whole, 64)
    assert rows[0]["schedule/max_kl"] == 0.001
    assert "schedules: max_kl end at 320 steps and stay there" in rows[0]["run/notice"]
    assert "run/notice" not in trained(whole, 64)[0]


def test_other_schedules_begin_a_new_way() -> None:
    agent = small()
    trained(agent, 128)
    rows = trained(agent.set(max_kl="linear:0.02:0.01"), 128)
    assert [row["schedule/max_kl"] for row in rows] == [0.02, pytest.approx(0.015)]
    # within learn the way is the rest of the call
    seen: list[float] = []

    def change(agent: Any, record: dict[str, Any]) -> None:
        seen.append(record["policy/max_kl"])
        agent.set(max_kl="linear:0.08:0.04")

    agent.learn(192, callback=change, progress=False)
    assert seen == [0.01, 0.08, pytest.approx(0.06)]


def test_a_schedule_that_has_ended_at_nothing_is_refused() -> None:
    agent = small(max_kl="linear:0.01")
    trained(agent, 64)
    with pytest.raises(ConfigError, match=r"max_kl: .* got 0; training goes on beyond the end of"):
        agent.learn(64, progress=False)
    trained(agent.set(schedule_timesteps=256), 64)
    assert agent.last_record["schedule/max_kl"] == pytest.approx(0.0075)


@pytest.mark.parametrize("given", ["cosine:0.04:0.004", squared], ids=["text", "function"])
def test_resume_goes_on_bit_for_bit(given: Any, tmp_path: Path) -> None:
    whole, stopped = small(max_kl=given), small(max_kl=given)
    trained(whole, 320)
    stopped.learn(320, callback=lambda agent, _: agent.timesteps < 128, progress=False)
    path = stopped.save(tmp_path / "agent.safetensors")
    again = {"max_kl": given} if callable(given) else {}
    loaded = TRPO.load(path, **again)
    trained(loaded, 64)  # in pieces: the way is in the file
    trained(loaded, 320 - 192)
    assert bits(loaded) == bits(whole)
    changed = TRPO.load(path, max_kl=0.02)
    assert "schedule/max_kl" not in trained(changed, 64)[0]


def test_a_function_is_named_in_the_file_and_asked_for(tmp_path: Path) -> None:
    agent = small(max_kl=squared)
    path = agent.save(tmp_path / "agent.safetensors")
    assert json.loads(json.dumps(agent.state_metadata()["config"]))["max_kl"].endswith(".squared")
    loaded = TRPO.load(path)
    loaded.predict([0.0, 0.0, 0.0, 0.0])
    with pytest.raises(
        ConfigError, match=r"max_kl: expected its schedule, the function .*squared, "
    ):
        loaded.learn(64, progress=False)
    assert trained(loaded.set(max_kl=squared), 64)
    assert trained(copy.deepcopy(agent), 64)  # a copy keeps it


@pytest.mark.parametrize("value", [0.0, math.nan, "x"])
def test_a_function_that_gives_something_else(value: Any) -> None:
    agent = small(max_kl=lambda remaining: 0.01 if remaining > 0.6 else value)
    with pytest.raises(
        ConfigError, match=r"max_kl: expected a number in .*at the remaining share 0.5"
    ):
        agent.learn(128, progress=False)
    assert agent.timesteps == 64
    assert agent.is_between_iterations


def test_schedules_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--n-workers=0", "--n-envs=2", "--batch-size=64", "--evaluate-every=0"]
    schedule = "--max-kl=linear:0.04:0.02"
    assert main(["train", "CartPole-v1", schedule, "--save-config=run.yaml", *flags]) == 0
    assert main(["train", "--config=run.yaml", "--total-timesteps=128", "--run-dir=run"]) == 0
    longer = ["--total-timesteps=192", "--schedule-timesteps=256"]
    assert main(["train", "--resume=run", *longer]) == 0

    def values() -> list[float]:
        with (tmp_path / "run/progress.csv").open() as file:
            return [float(row["schedule/max_kl"]) for row in csv.DictReader(file)]

    assert values() == pytest.approx([0.04, 0.03, 0.03])
    assert main(["train", "--resume=run", "--total-timesteps=256"]) == 0  # the way is the run's now
    assert values()[-1] == pytest.approx(0.025)
