"""What users brought and were told the wrong thing: sentences, streams, forks, threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from stand_ins import Plain
from trpo_fast import TRPO, core
from trpo_fast.evaluation import record_video
from trpo_fast.logging import CsvLogger, read_rows

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "n_workers": 0, "hidden_sizes": (4,)}
TINY = ["--n-envs", "2", "--n-workers", "0", "--batch-size", "64", "--hidden-sizes", "4"]


def refusal(env: Any, **settings: Any) -> str:
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        TRPO(env, **{**SMALL, **settings}).learn(64, progress=False)
    return str(caught.value)


def process(
    program: str, cwd: Path, *flags: str, shell: str = "", timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """The command line, or a program, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program), *flags]
    if shell:
        command = ["sh", "-c", shell, "sh", *command]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout
    )


CLI = "import sys\nfrom trpo_fast.cli import main\nsys.exit(main())"


# --- what an environment returns


class Old(Plain):
    """Of the four values and the one value of old times."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation if self.what == "reset" else (observation, info)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.what == "step":
            return observation, reward, terminated or truncated, info
        if self.what == "none":
            reward = None
        if self.what == "vector":
            reward = np.array([reward, reward])
        if self.what == "one":
            reward = np.array([reward])
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("step", "got 4 values, as old gym's (observation, reward, done, info)"),
        ("reset", "reset() must return (observation, info), got only an array"),
        ("none", "reward: expected one number, got None"),
        ("vector", "several rewards are weighed into one by a wrapper"),
    ],
)
def test_what_was_returned_is_said(what: str, words: str) -> None:
    sentence = refusal(lambda: Old(what))
    assert words in sentence
    assert "environment 0 (Old)" in sentence


def test_a_reward_of_one_entry_is_a_reward() -> None:
    TRPO(lambda: Old("one"), **SMALL).learn(64, progress=False)


def test_an_environment_of_the_old_gym_is_called_so() -> None:
    module = types.ModuleType("gym")
    exec("class Env:\n    def step(self, a): ...\n    def reset(self): ...", module.__dict__)
    module.Env.__module__ = "gym.core"
    assert "of the old gym, not of gymnasium" in refusal(module.Env)


class Failing(Plain):
    def __init__(self) -> None:
        raise AssertionError


def test_a_constructor_without_words_is_named_with_its_place() -> None:
    sentence = refusal(Failing, n_workers=2)
    assert "'Failing' cannot be made: AssertionError" in sentence
    assert "test_error_inputs.py" in sentence


TEXT = """
import gymnasium
class Speaking(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(mission=gymnasium.spaces.Text(5))
    action_space = gymnasium.spaces.Discrete(2)
gymnasium.register("Speaking-v0", Speaking)
"""


def test_a_user_is_asked_for_no_bug_report_and_modules_beside_them_are_found(
    tmp_path: Path,
) -> None:
    """As the console script is run, whose folder is not that of the user."""
    (tmp_path / "speaking.py").write_text(TEXT)
    alone = "import sys\nsys.path[:] = [p for p in sys.path if p]\n" + CLI
    done = process(alone, tmp_path, "train", "speaking:Speaking-v0")
    assert "FlatObsWrapper" in done.stderr
    assert "report" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


class Unseen(Plain):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012


def test_a_film_of_what_gives_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rgb_array"):
        record_video(TRPO(Unseen, **SMALL), tmp_path / "a.gif", env=Unseen, episodes=1)


class Markov(gym.vector.VectorEnv[Any, Any, Any]):
    """As SuperSuit makes of PettingZoo: a list of infos, and no word of how it resets."""

    __module__ = "supersuit.vector.markov_vector_wrapper"

    def __init__(self) -> None:
        self.metadata = {}
        self.observation_space = spaces.Box(-1, 1, (2,))
        self.action_space = spaces.Discrete(2)
        self.num_envs, self.t = 3, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros((3, 2), np.float32), [{} for _ in range(3)]

    def step(self, actions: Any) -> Any:
        self.t += 1
        rows = np.full((3, 2), self.t / 10, np.float32)
        ended = np.full(3, self.t == 7)
        infos: list[dict[str, Any]] = [{} for _ in range(3)]
        if self.t == 7:
            infos = [{"terminal_observation": row.copy()} for row in rows]
            rows, _ = self.reset()
        return rows, np.ones(3, np.float32), np.zeros(3, bool), ended, infos


def test_lists_of_infos_and_supersuits_environments_are_understood() -> None:
    agent = TRPO(Markov(), batch_size=63, hidden_sizes=(4,)).learn(63, progress=False)
    assert agent.last_record["rollout/episode_length"] == 7.0


def test_a_record_that_cannot_be_written_is_left_out_and_named(tmp_path: Path) -> None:
    def add(_: Any, record: dict[str, Any]) -> None:
        record["mine/none"], record["mine/array"] = None, np.zeros(3)

    with pytest.warns(UserWarning, match=r"mine/(none|array)"):
        TRPO("CartPole-v1", **SMALL).learn(
            64, progress=False, callback=add, loggers=[CsvLogger(tmp_path / "a.csv")]
        )
    assert len(read_rows(tmp_path / "a.csv")) == 1


# --- streams


@pytest.mark.parametrize(
    ("shell", "flags"),
    [
        ('"$@" 2>&-', ("train", "CartPole-v1", "--total-timesteps", "64", *TINY)),
        (
            '"$@" <&-',
            ("train", "CartPole-v1", "--total-timesteps", "64", *TINY, "--n-workers", "2"),
        ),
    ],
    ids=["stderr closed", "stdin closed, with workers"],
)
def test_the_command_line_works_with_streams_of_every_kind(
    shell: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    done = process(CLI, tmp_path, *flags, shell=shell)
    assert done.returncode == 0, done.stderr
    assert "rro" not in done.stderr  # neither Error nor Errno


def test_what_a_run_needs_is_looked_for_before_anything_is_made(tmp_path: Path) -> None:
    missing = "import sys\nsys.modules['tensorboard'] = None\n"
    flags = ("train", "CartPole-v1", "--tensorboard", "--run-dir", "run", "--total-timesteps", "64")
    done = process(missing + CLI, tmp_path, *flags, *TINY)
    assert done.returncode != 0
    assert "tensorboard" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_help_is_plain_text(tmp_path: Path) -> None:
    done = process(CLI, tmp_path, "train", "--help")
    assert done.returncode == 0
    assert ":meth:" not in done.stdout
    assert ":class:" not in done.stdout


# --- processes and threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused_the_workers_of_its_parent() -> None:
    agent = TRPO("CartPole-v1", **{**SMALL, "n_workers": 2}).learn(64, progress=False)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            agent.learn(64, progress=False)
            said = "done"
        except BaseException as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "the process that this one was forked from" in os.read(reader, 1000).decode()
    agent.learn(64, progress=False)
    agent.close()


def test_learning_within_learning_is_refused_at_once() -> None:
    agent = TRPO("CartPole-v1", **SMALL)

    def again(agent: Any, _: Any) -> None:
        agent.learn(64)

    with pytest.raises(RuntimeError, match=r"call of learn|is learning"):
        agent.learn(64, progress=False, callback=again)
    agent.learn(64, progress=False)


def test_a_fisher_operator_keeps_its_rows() -> None:
    policy = core.Policy(3, core.Distribution("gaussian", (2,)), hidden_sizes=(4,), dtype="float64")
    rows = np.random.default_rng(0).normal(size=(20, 3))
    operator = policy.fisher_operator(rows)
    vector = np.ones(policy.n_parameters)
    before = operator(vector)
    rows[:] = 100.0
    np.testing.assert_array_equal(operator(vector), before)


FEW = """
import os, resource
from trpo_fast import TRPO
# loads all modules, which another account may have no right to read
TRPO("CartPole-v1", n_workers=0, batch_size=2048, n_threads=1).learn(2048, progress=False)
agent = TRPO("CartPole-v1", n_workers=0, batch_size=2048, n_threads=8)
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
agent.learn(2048, progress=False)
print("trained")
"""
OTHER = """
import numpy as np
from trpo_fast import _core
small = _core.PolicyF64(3, [4], "tanh", "categorical", [2])
try:
    small.kl(np.zeros((5, 3)), _core.PolicyF64(3, [40000], "tanh", "categorical", [2]))
except (ValueError, TypeError):
    print("refused")
"""


@pytest.mark.parametrize(("program", "word"), [(FEW, "trained"), (OTHER, "refused")])
def test_no_process_is_ended(program: str, word: str, tmp_path: Path) -> None:
    """Where threads are refused, and by networks that do not belong together."""
    done = process(program, tmp_path)
    assert word in done.stdout, (done.returncode, done.stderr[-500:])


def test_a_closed_terminal_ends_a_run_as_a_signal_does(tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["train", "CartPole-v1", "--total-timesteps", "1e8", "--run-dir", str(run), *TINY]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        running = subprocess.Popen(
            [sys.executable, "-m", "trpo_fast", *flags, "--evaluate-every", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        deadline = time.monotonic() + 60.0
        while not ((run / "progress.csv").is_file() and len(read_rows(run / "progress.csv")) > 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGHUP)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert b"--resume" in errors
