"""Forked children, other threads and callbacks: what can be is done, the rest is refused at once."""

from __future__ import annotations

import copy
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.callbacks import Callback
from trpo_fast.rollout import make_sampler
from worker_envs import UnevenEnv, with_policy

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def agent_of(n_workers: int, **settings: Any) -> TRPO:
    return TRPO(
        UnevenEnv, n_envs=2, n_workers=n_workers, batch_size=64, hidden_sizes=(8,), **settings
    )


def in_a_child(function: Callable[[], str]) -> str:
    """What a function returns in a forked child, or the error that it ends with."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = function()
        except BaseException as error:
            text = "".join(traceback.format_exception_only(error))
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def refusal(function: Callable[[], object]) -> str:
    """The one sentence that a call is refused with."""
    with pytest.raises(RuntimeError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- forks ---


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["evaluate", "learn", "save", "collect", "close"])
def test_a_forked_child_is_refused_and_the_parent_never_notices(what: str, tmp_path: Path) -> None:
    agent, untouched = agent_of(2).learn(64), agent_of(2).learn(64)
    pids = agent.sampler.worker_pids

    def use() -> str:
        calls = {
            "evaluate": lambda: agent.evaluate(2, seed=0),
            "learn": lambda: agent.learn(64),
            "save": lambda: agent.save(tmp_path / "a.safetensors"),
            "collect": lambda: agent.sampler.collect(3),
            "close": agent.close,
        }
        calls[what]()
        return "done"

    answer = in_a_child(use)
    if what == "close":
        assert answer == "done"
    else:
        assert "ForeignWorkers: the worker processes belong to the process that" in answer
        assert answer.count("\n") == 1
    assert agent.sampler.worker_pids == pids
    for one in (agent, untouched):
        one.learn(64)
    np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    assert (
        agent.evaluate(3, seed=0).returns.tolist() == untouched.evaluate(3, seed=0).returns.tolist()
    )
    for one in (agent, untouched):
        one.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_use_an_agent_without_workers() -> None:
    agent = agent_of(0).learn(64)
    answer = in_a_child(lambda: repr(agent.evaluate(2, seed=0).returns.tolist()))
    assert answer == repr(agent.evaluate(2, seed=0).returns.tolist())
    agent.close()


# --- callbacks ---


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_agent_is_evaluated_between_two_steps(n_workers: int) -> None:
    found: list[list[float]] = []
    agent, untouched = agent_of(n_workers), agent_of(n_workers)

    class EvaluatesTwice(Callback):
        def on_step(self, agent: Any) -> None:
            if len(found) < 2:
                found.append(agent.evaluate(2, seed=0).returns.tolist())

    before = untouched.evaluate(2, seed=0).returns.tolist()
    agent.learn(64, callback=EvaluatesTwice())
    assert found == [before, before]
    untouched.learn(64)
    np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    for one in (agent, untouched):
        one.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_learning_within_a_callback_is_refused(n_workers: int) -> None:
    sentences: list[str] = []
    agent = agent_of(n_workers)

    def learn_again(agent: TRPO, record: Any) -> None:
        sentences.append(refusal(lambda: agent.learn(64)))

    agent.learn(128, callback=learn_again)
    assert len(sentences) == 2
    assert sentences[0].startswith("learn: a call of learn is under way already (in another thread")
    # and the one that is under way has learnt as if nobody had asked
    untouched = agent_of(n_workers).learn(128)
    np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    agent.learn(64)
    for one in (agent, untouched):
        one.close()


def test_workers_that_a_callback_closes_end_the_rollout_with_a_sentence() -> None:
    class Closes(Callback):
        def on_step(self, agent: Any) -> None:
            agent.close()

    with pytest.raises(RuntimeError, match="closed in the middle of a rollout"):
        agent_of(2).learn(64, callback=Closes())


# --- threads ---


def beside_learning(agent: TRPO, function: Callable[[], object], steps: int = 640) -> list[Any]:
    """Learn in another thread, call a function here in the middle of it, and let that end."""
    results: list[Any] = []
    inside, go_on = threading.Event(), threading.Event()

    def wait(agent: TRPO, record: Any) -> None:
        inside.set()
        go_on.wait(60.0)

    def learn() -> None:
        try:
            results.append(agent.learn(steps, callback=wait))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=learn)
    thread.start()
    assert inside.wait(60.0)
    try:
        function()
    finally:
        go_on.set()
        thread.join(120.0)
    assert not thread.is_alive()
    return results


@pytest.mark.parametrize("n_workers", [0, 2])
def test_other_threads_are_refused_and_learning_goes_on(n_workers: int, tmp_path: Path) -> None:
    agent, untouched = agent_of(n_workers), agent_of(n_workers)
    sentences: list[str] = []

    def use() -> None:
        sentences.append(refusal(lambda: agent.learn(64)))
        sentences.append(refusal(lambda: agent.save(tmp_path / "a.safetensors")))
        sentences.append(refusal(agent.collect))
        sentences.append(refusal(lambda: copy.deepcopy(agent)))

    assert beside_learning(agent, use) == [agent]
    assert sentences[0].startswith("learn: a call of learn is under way already")
    assert sentences[1].startswith("save: the agent is learning in another thread; save it in a c")
    assert sentences[2].startswith("collect: a call of learn is under way in another thread")
    assert sentences[3].startswith("copy: a call of learn is under way in another thread")
    assert not (tmp_path / "a.safetensors").exists()
    untouched.learn(640)
    np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    agent.save(tmp_path / "a.safetensors")
    for one in (agent, untouched):
        one.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_one_rollout_at_a_time(n_workers: int) -> None:
    sampler = make_sampler(UnevenEnv, n_envs=2, n_workers=n_workers)
    with_policy(sampler)
    sentences: list[str] = []

    def collect_again() -> None:
        sentences.append(refusal(lambda: sampler.collect(1)))
        if n_workers:
            sentences.append(refusal(lambda: sampler.map_environments(str)))

    assert not sampler.is_busy
    rollout = sampler.collect(3, on_step=collect_again)
    assert rollout.valid.all()
    assert len(sentences) == (6 if n_workers else 3)
    assert sentences[0].startswith("collect: a rollout of this sampler is under way already")
    assert not sampler.is_busy
    sampler.collect(3)
    sampler.close()
