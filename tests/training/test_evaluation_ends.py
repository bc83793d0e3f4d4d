"""Evaluations end: episodes are cut, and a signal ends them at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from endless import Endless
from trpo_fast import TRPO, cli
from trpo_fast.callbacks import EvaluateEvery
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.evaluation import (
    EvaluationInterrupted,
    EvaluationResult,
    Interruption,
    evaluate_policy,
    record_video,
)
from trpo_fast.logging import ConsoleLogger

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "hidden_sizes": (8,), "value_epochs": 1}


def test_an_endless_episode_is_cut_and_counted() -> None:
    result = evaluate_policy(lambda _: 0, Endless(), 3, seed=0)
    np.testing.assert_array_equal(result.lengths, [10_000] * 3)
    np.testing.assert_array_equal(result.cut, [True] * 3)
    assert (result.n_cut, result.max_steps) == (3, 10_000)
    assert "3 of 3 cut after 10,000 steps" in str(result)


def test_the_number_of_steps_can_be_chosen() -> None:
    result = evaluate_policy(lambda _: 0, Endless(), 2, max_steps=7)
    np.testing.assert_array_equal(result.lengths, [7, 7])
    assert result.n_cut == 2
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="max_steps: expected an integer >= 1"):
            evaluate_policy(lambda _: 0, Endless(), max_steps=wrong)  # type: ignore[arg-type]


def test_a_time_limit_of_the_environment_is_no_cut() -> None:
    short = evaluate_policy(lambda _: 0, gymnasium.wrappers.TimeLimit(Endless(), 5), 2)
    np.testing.assert_array_equal(short.lengths, [5, 5])
    assert short.n_cut == 0
    assert "cut" not in str(short)
    # a limit beyond the default is the environment's own affair
    limited = gymnasium.wrappers.TimeLimit(gymnasium.make("Endless-v0"), 12_000)
    long = evaluate_policy(lambda _: 0, limited, 1)
    assert (long.lengths[0], long.n_cut) == (12_000, 0)


def test_episodes_as_long_as_those_of_training_are_not_cut() -> None:
    class Policy:
        longest_episode = 11_000

        def predict(self, observation: Any, *, deterministic: bool = True) -> tuple[Any, None]:
            return 0, None

    assert evaluate_policy(Policy(), Endless(), 1).max_steps == 11_000


def test_a_result_without_cuts_is_made_as_before() -> None:
    result = EvaluationResult(np.ones(2), np.ones(2, np.int64))
    assert (result.n_cut, len(result.cut)) == (0, 2)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_agent_cuts_too_and_the_record_tells(n_workers: int) -> None:
    with closing(TRPO(Endless, n_workers=n_workers, **SMALL)) as agent:
        callback = EvaluateEvery(64, 3, max_steps=50)
        agent.learn(64, callback=callback)
        assert callback.last_result is not None
        assert callback.last_result.n_cut == agent.last_record["eval/cut"] == 3
        assert agent.last_record["eval/max_steps"] == 50
        np.testing.assert_array_equal(callback.last_result.lengths, [50] * 3)
        result = evaluate_policy(agent, episodes=2)
        assert (result.n_cut, result.max_steps) == (2, 10_000)


@pytest.mark.parametrize("style", ["table", "plain"])
def test_the_console_shows_cuts_and_notices(style: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logger = ConsoleLogger(sys.stderr, style=style)
    logger.write(
        {"eval/return": 1.0, "eval/cut": 3, "eval/max_steps": 500, "run/notice": "so it is"}
    )
    text = capsys.readouterr().err
    assert "3 episodes cut after 500 steps" in text
    assert "notice: so it is" in text


def test_the_command_line_says_how_many_were_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.safetensors"
    with closing(TRPO("CartPole-v1", **SMALL)) as agent:
        agent.save(file)
    assert cli.main(["evaluate", str(file), "--episodes", "3", "--max-steps", "5"]) == 0
    assert "3 of 3 cut after 5 steps" in capsys.readouterr().out
    assert cli.main(["evaluate", str(file), "--max-steps", "0"]) == 2


def test_a_video_ends(tmp_path: Path) -> None:
    pytest.importorskip("PIL")

    class Filmed(Endless):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
        render_mode = "rgb_array"

        def render(self) -> Any:
            return np.zeros((4, 4, 3), np.uint8)

    result = record_video(lambda _: 0, tmp_path / "film.gif", Filmed(), max_steps=9)
    assert (result.lengths[0], result.n_cut) == (9, 1)


# ---- signals


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_request_ends_an_evaluation_at_once_and_leaves_training_alone(n_workers: int) -> None:
    def make() -> Endless:
        return Endless(0.001)

    with closing(TRPO(make, n_workers=n_workers, **SMALL)) as agent:
        agent.learn(64)
        interruption = Interruption()
        before = signal.signal(signal.SIGUSR1, lambda *_: interruption.request())
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        started = time.monotonic()
        try:
            with pytest.raises(EvaluationInterrupted):
                evaluate_policy(agent, episodes=100, interruption=interruption)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert time.monotonic() - started < 5.0
        # the workers and their environments are as they were: the same steps go on
        assert agent.sampler.environment_state()
        agent.learn(64)
        assert agent.timesteps == 128


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_evaluation_of_a_run_at_once(
    number: signal.Signals, n_workers: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1] / "support")])}  # fmt: skip
    # an evaluation of 100,000 steps of 2 ms: 200 seconds
    process = subprocess.Popen(
        [sys.executable, "-m", "trpo_fast", "train", "endless:SlowEndless-v0", "--run-dir", str(run),
         "--batch-size", "64", "--n-envs", "2", "--evaluate-every", "64", "--hidden-sizes", "8",
         "--checkpoint-every", "64", "--n-workers", str(n_workers)],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (run / "config.json").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3.0)
        started = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - started < 10.0
    assert process.returncode == 130, errors
    assert f"--resume {run}" in errors
    _, metadata = load_checkpoint(run / "latest.safetensors")
    assert metadata["timesteps"] == 64
    assert metadata["callbacks"]["callbacks"][0]["state"]["is_due"] is True


# ---- videos of what cannot be filmed


def test_an_environment_without_pictures_is_refused_before_it_is_run(tmp_path: Path) -> None:
    pytest.importorskip("PIL")

    class Blind(Endless):
        metadata = {"render_modes": ["human"]}  # noqa: RUF012

    gymnasium.registry.pop("Blind-v0", None)
    gymnasium.register("Blind-v0", Blind)
    with pytest.raises(ValueError, match=r"rgb_array in the metadata of Blind-v0, got \['human'\]"):
        record_video(lambda _: 0, tmp_path / "film.gif", "Blind-v0")
    # a factory cannot be looked up: what render() says is told
    with pytest.raises(ValueError, match=r"expected render\(\) to give frames, got NotImplemented"):
        record_video(lambda _: 0, tmp_path / "film.gif", Blind)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_display_is_told_how_to_film(tmp_path: Path) -> None:
    pytest.importorskip("PIL")

    class Headless(Endless):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def render(self) -> None:
            raise OSError("an OpenGL platform library has not been loaded into this process")

    with pytest.raises(RuntimeError, match=r"no OpenGL context; set MUJOCO_GL=egl or") as caught:
        record_video(lambda _: 0, tmp_path / "film.gif", Headless)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


# ---- the training environment itself


def test_an_agent_is_not_evaluated_in_its_training_environment(tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1")
    wrapped = gymnasium.wrappers.TimeLimit(env, 20)
    with closing(TRPO(env, **SMALL)) as agent:
        for same in (env, env.unwrapped, wrapped):
            with pytest.raises(ValueError, match="got the one that the agent trains in"):
                agent.evaluate(1, env=same)
            with pytest.raises(ValueError, match="got the one that the agent trains in"):
                agent.learn(64, callback=EvaluateEvery(64, env=same))
            with pytest.raises(ValueError, match="got the one that the agent trains in"):
                record_video(agent, tmp_path / "film.mp4", same)
        assert agent.timesteps == 0
        assert len(agent.evaluate(1, env=gymnasium.make("CartPole-v1")).returns) == 1
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    with (
        closing(TRPO(vector, **SMALL)) as agent,
        pytest.raises(ValueError, match="got the one that the agent trains in"),
    ):
        agent.evaluate(1, env=vector.envs[0])


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("Pendulum-v1", "expected the agent's observation space Box"),
        ("MountainCar-v0", "expected the agent's observation space Box"),
        (
            lambda: gymnasium.make_vec("CartPole-v1", 2),
            "it is a vector environment; give one environment",
        ),
        (lambda: [gymnasium.make("CartPole-v1")], "got list: give the function that makes one"),
    ],
)
def test_an_environment_of_other_spaces_or_several_is_refused(env: Any, words: str) -> None:
    with (
        closing(TRPO("CartPole-v1", n_workers=0, n_envs=1, batch_size=32)) as agent,
        pytest.raises((ValueError, TypeError), match=words),
    ):
        agent.evaluate(1, env=env)


def test_an_environment_with_other_actions_is_refused() -> None:
    class Fewer(gymnasium.ActionWrapper[Any, Any, Any]):
        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.action_space = gymnasium.spaces.Discrete(1)

    with (
        closing(TRPO("CartPole-v1", n_workers=0, n_envs=1, batch_size=32)) as agent,
        pytest.raises(ValueError, match=r"agent's action space Discrete\(2\), got Discrete\(1\)"),
    ):
        agent.evaluate(1, env=lambda: Fewer(gymnasium.make("CartPole-v1")))
