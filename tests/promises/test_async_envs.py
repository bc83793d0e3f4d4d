"""No hang and the same bits where threads meet processes that somebody else has started."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "harness" / "async_envs.py"
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "torch_import",
    ["never", pytest.param("before", marks=needs_torch), pytest.param("after", marks=needs_torch)],
)
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_environments_in_processes_use_the_core_too(
    method: str, torch_import: str, threads: int
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), method, torch_import],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
