"""Memory and open files stay flat; the long form is tests/harness/soak.py."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_few_seconds_of_training_hold_on_to_nothing() -> None:
    from harness.soak import soak

    report, complaints = soak(minutes=0.1)
    assert not complaints, report
