"""Worker processes start anywhere Python does, and end with their parent, in silence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from left_behind import abandoned_memory, is_alive, shared_memory, wait_until
from trpo_fast.rollout.workers.process import WorkerProcess
from trpo_fast.rollout.workers.worker import BOOTSTRAP
from worker_envs import UnevenEnv

pytestmark = pytest.mark.usefixtures("nothing_is_left")


SCRIPT = """
    import os, signal, sys, threading, time
    import gymnasium
    import numpy as np
    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    # a test run in the background may have handed down an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("begin", flush=True)  # once: nothing imports this script again

    class SlowEnv(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2), {}
        def step(self, action):
            time.sleep(PAUSE)
            return np.zeros(2), 0.0, False, False, {}

    PAUSE = float(sys.argv[1])
    gymnasium.register("Slow-v0", entry_point="__main__:SlowEnv")
    sampler = make_sampler("Slow-v0", n_envs=2, n_workers=2)
    distribution = sampler.action_adapter.distribution
    sampler.bind(core.Policy(2, distribution), seed=0)
    print(*sampler.worker_pids, flush=True)
    try:
        sampler.collect(3)
    except KeyboardInterrupt:
        print("interrupted", sampler.worker_pids, flush=True)
    print("end", flush=True)
"""


def start_script(pause: float, *, stdin: bool = False, tmp_path: Path) -> subprocess.Popen[str]:
    text = textwrap.dedent(SCRIPT)
    path = tmp_path / "script.py"
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-" if stdin else str(path), str(pause)],
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if stdin:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    return process


@pytest.mark.parametrize("stdin", [False, True])
def test_a_script_needs_no_main_guard(stdin: bool, tmp_path: Path) -> None:
    with start_script(0.0, stdin=stdin, tmp_path=tmp_path) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert [lines[0], lines[-1]] == ["begin", "end"]
    assert len(lines) == 3
    # it never closed the sampler; its end did
    assert not any(is_alive(int(pid)) for pid in lines[1].split())


def _slowly() -> UnevenEnv:
    time.sleep(0.02)
    return UnevenEnv()


@pytest.mark.parametrize("how", ["terminated", "left alone"])
def test_workers_die_in_silence(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    # at every stage: the interpreter starts, its path arrives, imports, environments are made
    source = cloudpickle.dumps((_slowly, {}, None))
    settings = {
        "n_envs": 20, "first_index": 0, "dtype": "float32", "state_dependent_std": False,
        "restart_crashed_environments": False,
    }  # fmt: skip
    workers = []
    for index in range(8):
        workers.append(WorkerProcess(index, slice(0, 20), 10.0))
        if index % 2:
            workers[-1].send("open", source, settings)
    random = np.random.default_rng(0)
    for worker in workers:
        time.sleep(random.uniform(0.0, 0.2))
        if how == "terminated":
            worker.process.terminate()
            time.sleep(random.choice([0.0, 0.001]))
            worker.process.terminate()
        else:
            worker.connection.close()
    for worker in workers:
        worker.process.wait(20.0)
        worker.end(0.0)
    assert capfd.readouterr().err == ""


class _Terminates:
    """Its destructor sends the process SIGTERM: Python drops what a signal handler raises there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # the handler runs between two instructions
            pass


def _terminated_in_a_destructor() -> UnevenEnv:
    _Terminates()
    return UnevenEnv()


def _terminated_in_an_import() -> UnevenEnv:
    import terminated_while_it_is_imported  # noqa: F401

    return UnevenEnv()


def _ends_in_silence(make_env: Any, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {
        "n_envs": 1, "first_index": 0, "dtype": "float32", "state_dependent_std": False,
        "restart_crashed_environments": False,
    }  # fmt: skip
    worker = WorkerProcess(0, slice(0, 1), 10.0)
    worker.send("open", cloudpickle.dumps((make_env, {}, None)), settings)
    assert worker.process.wait(60.0) == 0
    worker.end(0.0)
    assert capfd.readouterr().err == ""


def test_a_worker_terminated_where_exceptions_are_dropped_ends_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _ends_in_silence(_terminated_in_a_destructor, capfd)


def test_a_worker_terminated_in_an_import_ends_after_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an exception in the middle, and the C++ of some modules calls std::terminate
    (tmp_path / "terminated_while_it_is_imported.py").write_text(
        "import os, pathlib, signal\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "for _ in range(1000):\n"
        "    pass\n"
        "pathlib.Path(__file__).with_name('whole').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    _ends_in_silence(_terminated_in_an_import, capfd)
    assert (tmp_path / "whole").exists()


def test_a_worker_whose_parent_is_gone_before_it_began_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    program = BOOTSTRAP.format(
        connection=theirs.fileno(), memory=0, report=0, output=0, stderr=0, prefix="", pending=0
    )
    with ours, theirs:
        ours.close()
        done = subprocess.run(
            [sys.executable, "-c", program],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            timeout=60.0,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    before = shared_memory()
    with start_script(100.0, tmp_path=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.3)  # in the middle of a step
        assert all(is_alive(pid) for pid in pids)
        process.send_signal(how)
        rest = process.stdout.read()
    if how == signal.SIGINT:
        assert rest == "interrupted []\nend\n"
        assert process.returncode == 0
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids))
    assert not abandoned_memory(before)
