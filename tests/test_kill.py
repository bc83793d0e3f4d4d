"""Runs that are killed at random moments go on; the long form is tests/harness/kill_runs.py."""

from __future__ import annotations

import sys

import pytest

from harness.kill_runs import run_trials


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
def test_killed_runs_go_on_and_leave_nothing() -> None:
    tally = run_trials(4, seed=11)
    assert tally.good, "\n".join([*tally.failures, *tally.leaks, tally.summary()])
    assert sum(tally.kills.values()) >= 4
