"""The script about action masks, in short: no illegal action with masks, many without."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for `import benchmarks`

from benchmarks.learning import action_masks  # noqa: E402
from stand_ins import TAXI  # noqa: E402


def test_masks_leave_no_illegal_action(capsys: pytest.CaptureFixture[str]) -> None:
    settings = f"--env {TAXI} --seeds 1 --timesteps 256 --batch-size 256 --target 100".split()
    assert action_masks.main(settings) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    illegal = {row[0]: int(row[-1]) for row in rows}
    assert illegal["auto"] == 0
    assert illegal["none"] > 1000
