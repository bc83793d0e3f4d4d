"""Every instruction-set level that this processor has is right, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trpo_fast import runtime

CORE = Path(__file__).parents[1] / "core"
TESTS = [
    "test_first_layer.py",
    "test_fisher.py",
    "test_update.py",
    "test_network.py",
    "test_value_function.py",
]


def _run(level: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "TRPO_FAST_SIMD_LEVEL": level},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


# the rest of the suite runs at this process's own level
@pytest.mark.parametrize(
    "level", [x for x in runtime.available_simd_levels() if x != runtime.simd_level()]
)
def test_level_agrees_with_the_reference(level: str) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(CORE / t) for t in TESTS))
    done = _run(level, *command)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("level", runtime.available_simd_levels())
def test_forced_level_is_reported(level: str) -> None:
    done = _run(level, "-c", "from trpo_fast import runtime; print(runtime.simd_level())")
    assert done.stdout.strip() == level


def test_a_level_that_does_not_exist_is_an_error() -> None:
    done = _run("v9", "-c", "from trpo_fast import runtime; runtime.simd_level()")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "TRPO_FAST_SIMD_LEVEL: expected one of" in last
    assert "got 'v9'" in last
