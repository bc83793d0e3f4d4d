"""What environments print stays apart from what this package prints, and tells whose it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PRINTING = """
import ctypes, os, sys
import gymnasium

class Printing(gymnasium.Wrapper):
    steps = 0

    def step(self, action):
        Printing.steps += 1
        if Printing.steps == 2:
            print("of print")
            print("of stderr", file=sys.stderr)
            os.write(1, b"of write\\n")
            ctypes.CDLL(None).puts(b"of puts")
            os.system("echo of a child")
            print("z" * 100_000)
            print("without an end", end="")
        if Printing.steps == 30 and "DIE" in os.environ:
            os.write(2, b"terminate called\\n")
            os.abort()
        return self.env.step(action)

def make():
    return Printing(gymnasium.make("CartPole-v1"))
"""
LEARN = """
from printing import make
from trpo_fast import TRPO

TRPO(make, n_workers=2, n_envs=3, batch_size=96, hidden_sizes=(8,)).learn(96, progress=False)
print("a result")
"""
SOURCES = ("of print", "of stderr", "of write", "of puts", "of a child", "without an end")


def run(
    folder: Path, *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    import os

    (folder / "printing.py").write_text(PRINTING)
    given = {**os.environ, **(environment or {})}
    path = os.pathsep.join([str(folder), *filter(None, [given.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True,
        env={**given, "PYTHONPATH": path}, timeout=300,
    )  # fmt: skip


def test_workers_lines_go_to_stderr_with_their_environments(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", LEARN)
    assert done.stdout == "a result\n", done.stderr
    lines = done.stderr.splitlines()
    for source in SOURCES:
        for prefix in ("[environment 0, worker 0] ", "[environments 1-2, worker 1] "):
            assert prefix + source in lines
    assert sum(line.count("z") for line in lines) == 200_000


def test_last_words_are_put_out(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", LEARN, environment={"DIE": "1"})
    assert done.returncode == 1
    died = re.search(r"worker (\d): .* was killed by SIGABRT; what it wrote to stderr", done.stderr)
    assert died is not None
    prefix = ("[environment 0, worker 0] ", "[environments 1-2, worker 1] ")[int(died[1])]
    assert prefix + "terminate called" in done.stderr.replace("without an end", "").splitlines()


@pytest.mark.parametrize("n_workers", ["0", "2"])
def test_the_command_lines_standard_output_holds_results_alone(
    n_workers: str, tmp_path: Path
) -> None:
    train = [
        "-m", "trpo_fast", "train", "--env-factory", "printing:make", "--run-dir", "run",
        "--total-timesteps", "96", "--batch-size", "96", "--n-envs", "3", "--n-workers", n_workers,
        "--evaluate-every", "0",
    ]  # fmt: skip
    done = run(tmp_path, *train)
    assert done.stdout == "saved run/latest.safetensors at 96 steps\n", done.stderr
    for source in SOURCES:
        assert source in done.stderr
    if n_workers == "0":
        evaluate = ["evaluate", "run", "--env-factory", "printing:make", "--episodes", "1"]
        evaluated = run(tmp_path, "-m", "trpo_fast", *evaluate)
        assert evaluated.returncode == 0, evaluated.stderr
        (line,) = evaluated.stdout.splitlines()
        assert ": return " in line
