"""Stored updates: the reference and the compiled core still give the numbers on record."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cases import DTYPES, assert_close, core_batch, core_distribution
from trpo_fast import core

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
SCALARS = (
    "kl",
    "kl_predicted",
    "kl_max",
    "surrogate_gain",
    "surrogate_gain_predicted",
    "entropy_before",
    "entropy",
    "gradient_norm",
)


@pytest.fixture(scope="module")
def regenerate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regenerate", GOLDEN / "regenerate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_case_is_on_record(regenerate: ModuleType) -> None:
    assert sorted(regenerate.CASES) == NAMES
    heads = {case[1].kind for case in regenerate.CASES.values()}
    assert len(heads) == 5
    assert any(u["backtracks"] > 0 for name in NAMES for u in load(name)["updates"])


@pytest.mark.parametrize("name", NAMES)
def test_reference(name: str, regenerate: ModuleType) -> None:
    computed = json.loads(json.dumps(regenerate.compute(name)))
    assert regenerate.largest_difference(load(name), computed) < 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_core(name: str, dtype: str, regenerate: ModuleType) -> None:
    record, batches = load(name), regenerate.problems(name)
    policy = core.Policy(
        record["obs_dim"],
        core_distribution(batches[0].policy.head),
        hidden_sizes=record["hidden_sizes"],
        activation=record["activation"],
        dtype=dtype,
    )
    start = np.array(record["initial_parameters"])
    for batch, expected in zip(batches, record["updates"], strict=True):
        # each update from the recorded parameters: errors do not add up
        policy.parameters = start.astype(dtype)
        summary = policy.update(*core_batch(batch, dtype), **record["options"])
        assert summary.status == expected["status"]
        assert summary.backtracks == expected["backtracks"]
        after = np.array(expected["parameters"])
        step = policy.parameters.astype(np.float64) - start.astype(dtype)
        assert_close(step, after - start, {"float64": 1e-8, "float32": 0.05}[dtype], what="step")
        tolerance = {"float64": 1e-8, "float32": 0.02}[dtype]
        for scalar in SCALARS:
            value = getattr(summary, scalar)
            assert value == pytest.approx(expected[scalar], rel=tolerance, abs=1e-6 * tolerance)
        start = after


def test_regenerate_command_checks_without_writing() -> None:
    before = {path: path.read_bytes() for path in GOLDEN.glob("*.json")}
    result = subprocess.run(
        [sys.executable, str(GOLDEN / "regenerate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("largest relative difference") == len(NAMES)
    assert {path: path.read_bytes() for path in GOLDEN.glob("*.json")} == before
