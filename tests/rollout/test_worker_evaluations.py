"""Evaluations that worker processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.callbacks import EvaluateEvery
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    InProcessSampler,
)
from worker_envs import BrokenEnv, UnevenEnv, now_impatient

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def trained(**settings: Any) -> TRPO:
    agent = TRPO(UnevenEnv, n_envs=4, batch_size=64, seed=1, hidden_sizes=(8,), **settings)
    return agent.learn(128, progress=False)


def test_evaluations_are_shared_out_to_the_workers() -> None:
    agents = [trained(n_workers=n) for n in (0, 2, 3)]
    pids = [agent.sampler.worker_pids for agent in agents[1:]]
    for episodes, settings in (
        (7, {}),
        (1, {}),  # fewer than workers
        (7, {"seed": 6}),
        (3, {"deterministic": False}),  # stays in this process
        (3, {"env": UnevenEnv}),  # as well
    ):
        results = [agent.evaluate(episodes, **{"seed": 5, **settings}) for agent in agents]
        for result in results[1:]:
            np.testing.assert_array_equal(result.returns, results[0].returns)
            np.testing.assert_array_equal(result.lengths, results[0].lengths)
    assert len(set(agents[1].evaluate(7).returns)) == 7
    # training goes on as if nothing had happened
    untouched = trained(n_workers=0)
    for agent in (untouched, *agents):
        agent.learn(64, progress=False)
        np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    assert [agent.sampler.worker_pids for agent in agents[1:]] == pids
    for agent in (untouched, *agents):
        agent.close()


def evaluated(n_workers: int, path: Path) -> str:
    """The rows of evaluations during training."""
    evaluate = EvaluateEvery(128, 3, csv_path=path)
    made_here: list[bool] = []

    def look(*_: Any) -> None:
        made_here.append(evaluate._environment is not None)

    agent = trained(n_workers=n_workers)
    agent.learn(512, callback=[evaluate, look], progress=False)
    agent.close()
    assert made_here[-1] == (n_workers == 0)
    return path.read_text()


def test_evaluations_between_iterations_are_shared_out(tmp_path: Path) -> None:
    # each after an update, with the policy and the statistics of that moment
    rows = evaluated(0, tmp_path / "here.csv")
    assert evaluated(2, tmp_path / "shared.csv") == rows
    assert len(rows.splitlines()) == 1 + 4 * 3


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("raises", OSError, "^simulator lost$"),
        ("nan reward", ValueError, "got nan at step 7 of evaluation episode [23]"),
        ("nan", ValueError, "observation: expected finite numbers, got NaN"),
        (
            "exits",
            EnvironmentFailure,
            r"^worker \d \(evaluation\): the process ended with exit code 3",
        ),
        (
            "hangs",
            EnvironmentFailure,
            r"^worker \d \(evaluation\): nothing came back for 0\.5 seconds; .*worker_timeout",
        ),
    ],
)
def test_mishaps_of_evaluations_are_survived(what: str, kind: type[Exception], words: str) -> None:
    def make() -> BrokenEnv:  # the third of every worker is that of its evaluations
        return BrokenEnv(what if BrokenEnv.made == 2 else "")

    agent = TRPO(
        make,
        n_envs=4,
        n_workers=2,
        batch_size=64,
        seed=1,
        hidden_sizes=(8,),
        save_environments=False,
    )
    agent.learn(64, progress=False)
    now_impatient(agent.sampler)
    with pytest.raises(kind, match=words):
        agent.evaluate(6, seed=0)
    lost = what in ("exits", "hangs")
    assert (agent.sampler.worker_pids == []) == lost
    if not lost:
        assert agent.evaluate(6, seed=0).returns.tolist() == [10.0] * 6
    agent.learn(64, progress=False)
    agent.close()


def test_an_environment_for_evaluations_is_made_once_and_closed() -> None:
    made: list[UnevenEnv] = []
    closed: list[UnevenEnv] = []

    class Closing(UnevenEnv):
        def close(self) -> None:
            closed.append(self)

    def make() -> UnevenEnv:
        made.append(Closing())
        return made[-1]

    sampler = InProcessSampler([UnevenEnv()])
    for _ in range(2):
        with sampler.spare_environment(make) as environment:
            assert made == [environment]
    with pytest.raises(ZeroDivisionError), sampler.spare_environment(make):
        _ = 1 // 0
    assert closed == made
    with sampler.spare_environment(make) as environment:
        assert made[1:] == [environment]
    assert closed == made[:1]
    sampler.close()
    assert closed == made
