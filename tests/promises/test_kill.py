"""Runs that are killed go on; the long forms are tests/harness/kill_runs.py and resume_runs.py."""

from __future__ import annotations

import signal
import sys

import pytest

from harness.kill_runs import run_trials
from harness.resume_runs import ENVIRONMENTS, resume_runs


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
def test_killed_runs_go_on_and_leave_nothing() -> None:
    tally = run_trials(3, seed=11)
    assert tally.good, "\n".join([*tally.failures, *tally.leaks, tally.summary()])
    assert sum(tally.kills.values()) >= 3


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
def test_runs_whose_workers_are_killed_go_on() -> None:
    tally = run_trials(2, seed=11, kill_workers=True)
    assert tally.good, "\n".join([*tally.failures, *tally.leaks, tally.summary()])
    assert tally.kills.get("SIGKILL of worker", 0) >= 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_half_a_run_and_a_kill_and_the_other_half_are_a_run(env: str) -> None:
    workers = (0, 2) if env == "CartPole-v1" else (2,)
    _, complaints = resume_runs(env, iterations=4, workers=workers)
    assert not complaints, "\n".join(complaints)
