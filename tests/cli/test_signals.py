"""A signal ends a command and leaves what can be continued."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import TINY, rows, trpo_fast
from trpo_fast.checkpoint import load_checkpoint
from trpo_fast.cli.signals import StopOnSignal


@pytest.fixture(autouse=True)
def heed_hangups() -> Iterator[None]:
    """Tests that run under nohup ignore SIGHUP, and so would the processes that they start."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_stops_after_the_iteration_and_the_second_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopOnSignal() as stop:
        assert stop.on_iteration(None, {}) is None  # type: ignore[arg-type]
        signal.raise_signal(number)
        assert stop.on_iteration(None, {}) is False  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert "stopping after this iteration" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_where(tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "trpo_fast", "train", "CartPole-v1", "--total-timesteps", "1e8",
         "--evaluate-every", "0", "--run-dir", str(run), *TINY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while len(progress_lines(run)) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert f"--resume {run}" in errors
    assert "Traceback" not in errors
    load_checkpoint(run / "latest.safetensors")
    steps = int(rows(run / "progress.csv")[-1]["time/timesteps"])
    done = trpo_fast("train", "--resume", run, "--total-timesteps", steps + 512)
    assert done.returncode == 0, done.stderr
    timesteps = [int(row["time/timesteps"]) for row in rows(run / "progress.csv")]
    assert timesteps == [512 * (i + 1) for i in range(len(timesteps))]
    assert timesteps[-1] == steps + 512


def progress_lines(run: Path) -> list[str]:
    file = run / "progress.csv"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
