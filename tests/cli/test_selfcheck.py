"""The self-check passes here, and notices what it is there to notice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trpo_fast import cli, core, runtime, selfcheck
from trpo_fast.cli.output import FAILED
from trpo_fast.selfcheck import Check, CheckFailed, run_check


def test_selfcheck_passes_and_prints_a_report() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trpo_fast", "selfcheck"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("trpo_fast", "simd_level", "threads", "numpy", "compiler", "gymnasium"):
        assert re.search(rf"^{word}\b", done.stdout, re.MULTILINE), word
    for level in runtime.available_simd_levels():
        assert re.search(rf"^ok +level {level} ", done.stdout, re.MULTILINE), level
    assert re.search(r"^\d+ checks, 0 failed, \d+\.\d s$", done.stdout, re.MULTILINE)
    assert "FAILED" not in done.stdout


def off(function: Callable[..., Any], factor: float = 1.00001) -> Callable[..., Any]:
    return lambda *arguments, **options: function(*arguments, **options) * factor


@pytest.mark.parametrize(
    ("check", "owner", "name"),
    [
        (selfcheck.check_gradients, core.Policy, "surrogate_gradient"),
        (selfcheck.check_gradients, core.ValueFunction, "loss_gradient"),
        (selfcheck.check_fisher, core.FisherOperator, "__call__"),
        (selfcheck.check_random_streams, core, "random_normals"),
    ],
)
def test_a_small_error_is_noticed(
    check: Callable[[], str], owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check()
    monkeypatch.setattr(owner, name, off(getattr(owner, name)))
    with pytest.raises(CheckFailed, match="expected a relative error of at most"):
        check()


def test_a_step_beyond_the_trust_region_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.Policy, "kl", off(core.Policy.kl, 2.0))
    with pytest.raises(CheckFailed, match=r"expected a KL of at most 0\.01"):
        selfcheck.check_trust_region()


def test_bits_that_depend_on_threads_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runtime.get_num_threads()
    act = core.Policy.act

    def biased(policy: core.Policy, observations: Any, **options: Any) -> Any:
        actions = act(policy, observations, **options)
        return actions + actions.dtype.type(runtime.get_num_threads())

    monkeypatch.setattr(core.Policy, "act", biased)
    with pytest.raises(CheckFailed, match=r"1 thread, got others with \[2, 3, 8\]"):
        selfcheck.check_threads()
    assert runtime.get_num_threads() == before


def test_a_level_that_cannot_run_is_noticed() -> None:
    with pytest.raises(CheckFailed, match="TRPO_FAST_SIMD_LEVEL: expected one of"):
        selfcheck.check_level("v9")


def test_whatever_is_raised_becomes_a_result() -> None:
    def broken() -> str:
        raise RuntimeError("no such luck")

    result = run_check(Check("broken", broken))
    assert not result.passed
    assert result.message == "RuntimeError: no such luck"
    assert "Traceback" in result.trace


def test_a_failure_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> str:
        raise CheckFailed("expected 1, got 2")

    monkeypatch.setattr(selfcheck, "checks", lambda: [Check("one", fails)])
    assert cli.main(["selfcheck"]) == FAILED
    out = capsys.readouterr().out
    assert re.search(r"^FAILED +one +\d+\.\d s +expected 1, got 2$", out, re.MULTILINE)
    assert "1 checks, 1 failed" in out
