"""What users brought when they saved and loaded: small stand-ins, through the public interface alone."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from stand_ins import SIMULATORS, Handle, Plain, Slow, SwigEnv
from trpo_fast import TRPO
from trpo_fast.checkpoint import load_checkpoint, save_checkpoint

SMALL: dict[str, Any] = {"batch_size": 32, "n_envs": 2, "n_workers": 0, "hidden_sizes": (4,)}


def trained(env: Any, **settings: Any) -> TRPO:
    return TRPO(env, **{**SMALL, **settings}).learn(32, progress=False)


def bits(agent: TRPO) -> bytes:
    return agent.policy.parameters.tobytes()


class Mapped(Plain):
    """A map of letters, as that of a frozen lake."""

    def __init__(self) -> None:
        super().__init__()
        self.map = np.array([[b"S", b"F"], [b"H", b"G"]])


@pytest.mark.parametrize("env", [SwigEnv, Mapped], ids=["a class without a module", "letters"])
def test_weights_are_saved_whatever_the_environment_holds(env: Any, tmp_path: Path) -> None:
    agent = trained(env)
    agent.save(tmp_path / "a")
    assert bits(TRPO.load(tmp_path / "a", env=env)) == bits(agent)
    agent.learn(32, progress=False)


class Client:
    """A copy of it closes the connection that both have, when it is collected."""

    connected: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        self.number = len(self.connected)
        self.connected.add(self.number)
        self.compiled = iter([1])  # can be copied, and cannot be read

    def __del__(self) -> None:
        self.connected.discard(self.number)


class Connected(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.client = Client()

    def step(self, action: Any) -> Any:
        assert self.client.number in Client.connected, "Not connected to physics server"
        return super().step(action)


def test_a_copy_that_closes_the_simulator_is_not_made_of_a_training_environment(
    tmp_path: Path,
) -> None:
    agent = trained(Connected())
    agent.save(tmp_path / "a")
    gc.collect()
    agent.learn(32, progress=False)


def test_a_save_drives_no_simulator_behind_a_handle(tmp_path: Path) -> None:
    SIMULATORS.clear()
    agent = trained(Handle)
    used = {handle: list(simulator["calls"]) for handle, simulator in SIMULATORS.items()}
    agent.save(tmp_path / "a")
    assert {handle: simulator["calls"] for handle, simulator in SIMULATORS.items()} == used


class Strengths(Plain):
    """Notes which strength it moved with."""

    seen: list[float]

    def step(self, action: Any) -> Any:
        self.seen.append(self.strength)
        return super().step(action)


def test_what_the_constructor_set_is_not_put_back_by_a_file(tmp_path: Path) -> None:
    Strengths.seen = []
    trained(lambda: Strengths(0.3)).save(tmp_path / "a")
    Strengths.seen.clear()
    agent = TRPO.load(tmp_path / "a", env=lambda: Strengths(0.9))
    agent.learn(32, progress=False)
    assert set(Strengths.seen) == {0.9}
    assert "strength is 0.9 now and was 0.3" in str(agent.last_record["run/notice"])


def test_a_factory_is_asked_for_when_its_environment_is_loaded(tmp_path: Path) -> None:
    def rewarded() -> Any:
        return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 7.0 * reward)

    trained(rewarded).save(tmp_path / "a")
    with pytest.raises(ValueError, match="env="):
        TRPO.load(tmp_path / "a")


class Keywords(Plain):
    given: dict[str, Any]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        Keywords.given = kwargs


def test_keyword_arguments_come_back_as_they_were(tmp_path: Path) -> None:
    gym.register("KeywordsOfAField-v0", Keywords)
    given = {"sizes": (1, 2), "table": {1: "a"}, "place": Path("a"), "weights": np.arange(3.0)}
    trained("KeywordsOfAField-v0", env_kwargs=given).save(tmp_path / "a")
    TRPO.load(tmp_path / "a")
    assert {**Keywords.given, "weights": None} == {**given, "weights": None}
    assert np.array_equal(Keywords.given["weights"], given["weights"])


def test_an_exact_checkpoint_is_not_replaced_by_one_without_environments(tmp_path: Path) -> None:
    agent = trained(Plain)
    agent.save(tmp_path / "a")
    agent.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent.save(tmp_path / "a")
    whole = TRPO(Plain, **SMALL).learn(64, progress=False)
    assert bits(TRPO.load(tmp_path / "a", env=Plain).learn(32, progress=False)) == bits(whole)


def test_a_save_takes_no_steps_of_a_slow_environment(tmp_path: Path) -> None:
    agent = trained(Slow, batch_size=16)
    started = time.monotonic()
    agent.save(tmp_path / "a")
    assert time.monotonic() - started < 1.0  # one step takes 0.02 s; fifty are a second


class Watched(Plain):
    """Its calls are noted outside, where nobody puts them back."""

    calls: list[int]

    def step(self, action: Any) -> Any:
        self.calls.append(id(self))
        return super().step(action)


def test_training_environments_see_the_steps_of_training_alone(tmp_path: Path) -> None:
    Watched.calls = []
    environment = Watched()
    agent = trained(environment)
    before = Watched.calls.count(id(environment))
    agent.save(tmp_path / "a")
    agent.evaluate(1, env=Watched)
    assert Watched.calls.count(id(environment)) == before


class Locked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_notice_names_what_cannot_be_stored(tmp_path: Path) -> None:
    trained(Locked).save(tmp_path / "a")
    agent = TRPO.load(tmp_path / "a", env=Locked).learn(32, progress=False)
    assert "Locked.lock (type _thread.lock) cannot be stored" in str(
        agent.last_record["run/notice"]
    )


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    agent = trained(Plain)
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        agent.save(pipe)
    assert pipe.is_fifo()


FORGED = """
import json, sys
import gymnasium, numpy as np
from trpo_fast.snapshots import Snapshot, SnapshotError, restore, take

class Drawing(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)
    def __init__(self):
        self.legacy = np.random.RandomState(1)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

env = Drawing()
env.reset(seed=1)
arrays, metadata = take(env).to_arrays()
text = json.dumps(metadata)
assert text.count(", 624, ") == 1
forged = Snapshot.from_arrays(arrays, json.loads(text.replace(", 624, ", ", 1000000000, ")))
try:
    restore(Drawing(), forged)
except SnapshotError as error:
    print("refused:", error)
"""


def test_the_state_of_a_generator_that_points_beyond_it_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGED], capture_output=True, text=True, check=False
    )
    assert "refused:" in done.stdout, (done.returncode, done.stdout, done.stderr[-500:])


def test_a_run_folder_imports_no_module_of_its_choice(tmp_path: Path) -> None:
    (tmp_path / "strange.py").write_text("open('imported', 'w')\n")
    run = tmp_path / "run"
    run.mkdir()
    agent = trained("CartPole-v1")
    agent.save(run / "latest.safetensors")
    record = {"env": "strange:CartPole-v1", "config": agent.config.to_dict()}
    (run / "config.json").write_text(json.dumps(record))
    done = subprocess.run(
        [sys.executable, "-m", "trpo_fast", "evaluate", "run", "--episodes", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not (tmp_path / "imported").exists()
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("name", "value"), [("value_scale", float("nan")), ("iteration", -1), ("timesteps", 2**70)]
)
def test_numbers_out_of_their_range_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    trained("CartPole-v1").save(tmp_path / "a")
    tensors, metadata = load_checkpoint(tmp_path / "a")
    with pytest.raises(ValueError, match=name):
        TRPO.from_state(tensors, {**metadata, name: value})


def test_sizes_are_compared_with_the_tensors_before_anything_is_built(tmp_path: Path) -> None:
    trained("CartPole-v1").save(tmp_path / "a")
    tensors, metadata = load_checkpoint(tmp_path / "a")
    config = {**metadata["config"], "hidden_sizes": [30_000, 30_000]}
    save_checkpoint(tmp_path / "b", tensors, {**metadata, "config": config})
    program = f"""
    import resource
    from trpo_fast import TRPO
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
    try:
        TRPO.load({os.fspath(tmp_path / "b")!r})
    except ValueError as error:
        print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "refused: checkpoint" in done.stdout, (done.stdout, done.stderr[-500:])
