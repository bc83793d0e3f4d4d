"""Memory and open files stay flat; the long form is tests/harness/soak.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "harness" / "soak.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_few_seconds_of_training_hold_on_to_nothing() -> None:
    # In a process of its own, which has no other workers than those of this training.
    soak = [sys.executable, str(SOAK), "--minutes", "0.1"]
    done = subprocess.run(soak, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
