"""Callbacks, with an agent that only counts and real environments for the evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from trpo_fast.callbacks import (
    Callback,
    CallbackList,
    CheckpointEvery,
    EvaluateEvery,
    FunctionCallback,
    StopAtReturn,
)
from trpo_fast.logging import read_columns


@dataclass
class FakeAgent:
    """Counts steps; plays CartPole well from `good_from` timesteps on."""

    timesteps: int = 0
    iteration: int = 0
    env_name: str = "CartPole-v1"
    good_from: int = 0
    config: Any = field(default_factory=lambda: SimpleNamespace(seed=7))
    saved: list[tuple[str, int]] = field(default_factory=list)

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[int, None]:
        good = self.timesteps >= self.good_from
        return int(good and observation[2] + observation[3] > 0), None

    def save(self, path: Any) -> None:
        self.saved.append((Path(path).name, self.timesteps))


def train(
    agent: FakeAgent, callback: Callback, total: int, batch: int = 100
) -> list[dict[str, Any]]:
    """Do what an agent's learn does with its callback; return the records."""
    records: list[dict[str, Any]] = []
    callback.on_start(agent, total)
    try:
        while agent.timesteps < total:
            agent.timesteps += batch
            agent.iteration += 1
            if callback.wants_steps:
                callback.on_step(agent)
            record: dict[str, Any] = {"rollout/episode_return": float(agent.timesteps)}
            records.append(record)
            answer = callback.on_iteration(agent, record)
            callback.on_logged(agent)
            if answer is not None and not answer:
                break
    finally:
        callback.on_end(agent)
    return records


# ---- lists and functions


class Witness(Callback):
    def __init__(self, answer: bool | None = None) -> None:
        self.answer = answer
        self.calls: list[Any] = []

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        self.calls.append(("start", total_timesteps))

    def on_iteration(self, agent: Any, record: dict[str, Any]) -> bool | None:
        self.calls.append(("iteration", agent.iteration))
        return self.answer

    def on_end(self, agent: Any) -> None:
        self.calls.append("end")

    def state_dict(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}

    def load_state_dict(self, state: Any) -> None:
        self.calls = [None] * state["calls"]


class StepWitness(Witness):
    def on_step(self, agent: Any) -> None:
        self.calls.append("step")


def test_everyone_is_called_also_after_one_has_stopped_training() -> None:
    first, second = Witness(False), Witness()
    train(FakeAgent(), CallbackList([first, second]), 300)
    assert first.calls == second.calls == [("start", 300), ("iteration", 1), "end"]


def test_steps_are_told_only_to_those_that_want_them() -> None:
    assert not CallbackList([Witness(), lambda agent, record: None]).wants_steps
    quiet, eager = Witness(), StepWitness()
    callbacks = CallbackList([quiet, eager])
    assert callbacks.wants_steps
    train(FakeAgent(), callbacks, 200)
    assert eager.calls.count("step") == 2
    assert "step" not in quiet.calls


@pytest.mark.parametrize(
    ("answer", "iterations"),
    [(None, 3), (True, 3), (False, 1), (np.True_, 3), (np.False_, 1)],
)
def test_a_plain_function_may_stop_training(answer: Any, iterations: int) -> None:
    seen: list[float] = []

    def function(agent: Any, record: dict[str, Any]) -> Any:
        seen.append(record["rollout/episode_return"])
        return answer

    train(FakeAgent(), CallbackList(function), 300)
    assert len(seen) == iterations


def test_a_list_of_none_one_or_several() -> None:
    one = Witness()
    assert CallbackList(None).callbacks == []
    assert CallbackList(one).callbacks == [one]
    nested = CallbackList((CallbackList([one]), print))
    assert isinstance(nested.callbacks[1], FunctionCallback)
    assert CallbackList(None).on_iteration(FakeAgent(), {}) is True


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [(3, "got 3$"), (Witness, "make an instance of it, with its arguments")],
)
def test_what_is_no_callback(wrong: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        CallbackList([wrong])


def test_states_go_through_json_to_the_callback_of_the_same_class() -> None:
    first, second, evaluate = Witness(), Witness(), EvaluateEvery(10)
    first.calls, second.calls = [1], [1, 2]
    evaluate.best_return = 3.5
    state = json.loads(json.dumps(CallbackList([first, evaluate, second]).state_dict()))

    third, fourth, fifth, evaluate = Witness(), Witness(), Witness(), EvaluateEvery(10)
    CallbackList([evaluate, third, fourth, fifth]).load_state_dict(state)
    assert [len(w.calls) for w in (third, fourth, fifth)] == [1, 2, 0]
    assert evaluate.best_return == 3.5
    CallbackList([third]).load_state_dict({})


# ---- evaluation


def test_evaluations_write_rows_the_record_and_the_best_checkpoint(tmp_path: Path) -> None:
    agent = FakeAgent(good_from=400)
    evaluate = EvaluateEvery(200, 3, tmp_path / "best.safetensors")
    records = train(agent, evaluate, 600)
    columns = read_columns(tmp_path / "evaluations.csv")
    assert list(columns) == ["timesteps", "episode", "return", "length"]
    assert columns["timesteps"] == [200] * 3 + [400] * 3 + [600] * 3
    assert columns["episode"] == [0, 1, 2] * 3
    assert columns["return"] == columns["length"]  # CartPole pays 1 a step
    assert ["eval/return" in record for record in records] == [False, True] * 3
    assert records[3]["eval/return"] == pytest.approx(np.mean(columns["return"][3:6]))
    assert records[3]["eval/return_std"] == pytest.approx(np.std(columns["return"][3:6]))
    assert records[1]["eval/return"] < 20 < records[3]["eval/return"]
    assert agent.saved[:2] == [("best.safetensors", 200), ("best.safetensors", 400)]
    assert evaluate.best_return == max(r["eval/return"] for r in records if "eval/return" in r)
    assert evaluate.last_result is not None


def test_one_evaluation_where_several_multiples_were_passed() -> None:
    records = train(FakeAgent(), EvaluateEvery(30, 1), 300, batch=100)
    assert all("eval/return" in record for record in records)
    records = train(FakeAgent(), EvaluateEvery(150, 1), 600, batch=100)
    assert ["eval/return" in record for record in records] == [False, True, True] * 2


def test_a_resumed_run_writes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = EvaluateEvery(100, 2, tmp_path / "whole" / "best")
    train(FakeAgent(good_from=300), whole, 600)

    folder = tmp_path / "parts"
    interrupted = EvaluateEvery(100, 2, folder / "best")
    train(FakeAgent(good_from=300), interrupted, 500)
    resumed = EvaluateEvery(100, 2, folder / "best")
    train(FakeAgent(timesteps=200, good_from=300), resumed, 600)  # from a checkpoint at 200

    assert (folder / "evaluations.csv").read_bytes() == (
        tmp_path / "whole" / "evaluations.csv"
    ).read_bytes()
    assert resumed.best_return == whole.best_return


def test_the_best_so_far_is_found_in_the_rows_of_a_resumed_run(tmp_path: Path) -> None:
    best = tmp_path / "best"
    train(FakeAgent(), EvaluateEvery(100, 2, best), 200)
    agent = FakeAgent(timesteps=200, good_from=10**6)
    resumed = EvaluateEvery(100, 2, best)
    train(agent, resumed, 400)
    assert agent.saved == []
    assert resumed.best_return is not None
    assert resumed.best_return > 20


def test_a_new_run_does_not_write_over_the_rows_of_another(tmp_path: Path) -> None:
    train(FakeAgent(), EvaluateEvery(100, 1, tmp_path / "best"), 100)
    before = (tmp_path / "evaluations.csv").read_bytes()
    with pytest.raises(FileExistsError, match="expected no such file yet"):
        EvaluateEvery(100, 1, tmp_path / "best").on_start(FakeAgent(), 100)
    assert (tmp_path / "evaluations.csv").read_bytes() == before


def test_one_environment_is_made_for_all_evaluations_and_closed() -> None:
    made: list[Any] = []

    class Closing(gymnasium.Wrapper[Any, Any, Any, Any]):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    def factory() -> Any:
        made.append(Closing(gymnasium.make("CartPole-v1")))
        return made[-1]

    train(FakeAgent(), EvaluateEvery(100, 1, env=factory), 300)
    assert [env.closed for env in made] == [True]
    mine = Closing(gymnasium.make("CartPole-v1"))
    train(FakeAgent(), EvaluateEvery(100, 1, env=mine), 300)
    assert not mine.closed


def test_evaluation_seeds_differ_with_time_and_run() -> None:
    def returns(seed: int, timesteps: int, own: int | None = None) -> list[float]:
        config = SimpleNamespace(seed=seed)
        agent = FakeAgent(timesteps=timesteps - 100, good_from=10**6, config=config)
        evaluate = EvaluateEvery(100, 20, seed=own)
        train(agent, evaluate, timesteps)
        assert evaluate.last_result is not None
        return list(evaluate.last_result.returns)

    assert returns(1, 100) == returns(1, 100)
    assert returns(1, 100) != returns(1, 200)
    assert returns(1, 100) != returns(2, 100)
    assert returns(1, 100, own=3) == returns(2, 100, own=3)


# ---- checkpoints and the early stop


def test_checkpoints_replace_one_file_and_the_end_is_saved() -> None:
    agent = FakeAgent()
    train(agent, CheckpointEvery(250, "latest"), 700)
    assert agent.saved == [("latest", 300), ("latest", 500), ("latest", 700)]


def test_the_end_is_not_saved_twice_nor_when_nothing_was_done() -> None:
    agent = FakeAgent()
    train(agent, CheckpointEvery(300, "latest"), 300)
    assert agent.saved == [("latest", 300)]
    agent = FakeAgent(timesteps=300)
    train(agent, CheckpointEvery(300, "latest"), 300)
    assert agent.saved == []


def test_numbered_checkpoints_are_all_kept(tmp_path: Path) -> None:
    agent = FakeAgent()
    train(agent, CheckpointEvery(100, tmp_path / "all" / "{timesteps:06d}.safetensors"), 200)
    assert [name for name, _ in agent.saved] == ["000100.safetensors", "000200.safetensors"]
    assert (tmp_path / "all").is_dir()


def test_other_braces() -> None:
    assert CheckpointEvery(1, "a{b}").path == "a{b}"
    with pytest.raises(ValueError, match=r"path: expected \{timesteps\}, or one with a format"):
        CheckpointEvery(1, "{timesteps}-{iteration}")


def test_stop_at_return() -> None:
    assert len(train(FakeAgent(), StopAtReturn(300.0), 1000)) == 3
    callbacks = CallbackList([EvaluateEvery(200, 2), StopAtReturn(30.0, "eval/return")])
    assert len(train(FakeAgent(good_from=400), callbacks, 1000)) == 4
    assert len(train(FakeAgent(), StopAtReturn(1.0, "not/there"), 1000)) == 10


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EvaluateEvery(0), "timesteps: expected an integer >= 1, got 0"),
        (lambda: EvaluateEvery(10, episodes=0), "episodes: expected an integer >= 1, got 0"),
        (lambda: CheckpointEvery(-5, "x"), "timesteps: expected an integer >= 1, got -5"),
        (lambda: CheckpointEvery(1.5, "x"), "timesteps: expected an integer >= 1, got 1.5"),
        (lambda: StopAtReturn(float("nan")), "value: expected a finite return, got nan"),
    ],
)
def test_wrong_arguments(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()
