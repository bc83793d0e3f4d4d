"""What was learned is saved whatever an environment does, and what a file holds is asked or told."""

from __future__ import annotations

import enum
import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import trpo_fast
from stand_ins import (
    SIMULATORS,
    Closing,
    Counting,
    Handle,
    Hostile,
    Huge,
    OddArrays,
    Plain,
    Slow,
    SwigEnv,
)
from trpo_fast import TRPO
from trpo_fast.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trpo_fast.training.env_kwargs import decoded, encoded

SMALL: dict[str, Any] = {"batch_size": 64, "n_envs": 2, "n_workers": 0, "hidden_sizes": (8,)}


def trained(env: Any, n_steps: int = 64, **settings: Any) -> TRPO:
    return TRPO(env, **{**SMALL, **settings}).learn(n_steps, progress=False)


def parameters(agent: TRPO) -> bytes:
    return agent.policy.parameters.tobytes()


# ---- environments


@pytest.mark.parametrize("make", [SwigEnv, OddArrays, Closing, Handle, Huge, Hostile])
def test_training_is_the_same_with_and_without_saves(make: Any, tmp_path: Path) -> None:
    with_saves, without = trained(make), trained(make)
    for n in range(2):
        with_saves.save(tmp_path / f"{n}")
        with_saves.learn(64, progress=False)
    without.learn(128, progress=False)
    assert parameters(with_saves) == parameters(without)
    resumed = TRPO.load(tmp_path / "1", env=make)
    assert resumed.timesteps == 128
    resumed.learn(64, progress=False)
    is_exact = parameters(resumed) == parameters(with_saves)
    assert is_exact or "episodes start anew, because" in resumed.last_record["run/notice"]
    assert is_exact == (make in (OddArrays, Hostile))


def test_a_counting_environment_sees_training_only(tmp_path: Path) -> None:
    def logs(saves: bool) -> list[list[int]]:
        Counting.made.clear()
        agent = trained(Counting)
        mine = list(Counting.made)
        if saves:
            path = agent.save(tmp_path / "c")
            agent.evaluate(2)
            TRPO.load(path, env=Counting).close()
        agent.learn(64, progress=False)
        return [env.log for env in mine]

    assert logs(saves=True) == logs(saves=False)


def test_the_simulator_behind_a_handle_is_driven_by_training_only(tmp_path: Path) -> None:
    SIMULATORS.clear()
    agent = trained(Handle)
    before = {handle: list(state["calls"]) for handle, state in SIMULATORS.items()}
    agent.save(tmp_path / "c")
    assert all(SIMULATORS[handle]["calls"] == calls for handle, calls in before.items())


def test_an_object_is_neither_copied_nor_tried(tmp_path: Path) -> None:
    Counting.made.clear()
    env = Counting()
    agent = trained(env)
    before = [*env.log]
    agent.save(tmp_path / "c")
    assert env.log == before
    assert Counting.made == [env]
    assert "only tried on a separate copy" in agent.notice


def test_save_environments_false_tries_and_stores_nothing(tmp_path: Path) -> None:
    Counting.made.clear()
    agent = trained(Counting, save_environments=False)
    made = len(Counting.made)
    path = agent.save(tmp_path / "c")
    assert len(Counting.made) == made
    assert not any(name.startswith("sampler.environments") for name in load_checkpoint(path)[0])
    assert agent.notice == ""
    resumed = TRPO.load(path, env=Counting).learn(64, progress=False)
    assert "because save_environments=False" in resumed.last_record["run/notice"]


def test_the_notice_names_the_object_in_plain_words(tmp_path: Path) -> None:
    agent = trained(SwigEnv)
    agent.save(tmp_path / "c")
    agent.learn(64, progress=False)
    assert agent.last_record["run/notice"] == (
        "episodes start anew after a resume, because SwigEnv.world.this (type list_iterator) "
        "cannot be stored; training is not affected otherwise"
    )
    agent.save(tmp_path / "d")
    agent.learn(64, progress=False)
    assert "run/notice" not in agent.last_record  # said once


def test_a_slow_environment_is_saved_in_time(tmp_path: Path) -> None:
    agent = trained(Slow, 2, batch_size=4)
    agent.save(tmp_path / "c")
    agent.learn(2, progress=False)
    TRPO.load(tmp_path / "c", env=Slow).close()


# ---- what is better stands


class Worse(Plain):
    """Becomes impossible to read in the middle of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.part: Any = None


def test_an_exact_checkpoint_of_the_same_step_stands(tmp_path: Path) -> None:
    agent = trained(Worse)
    path = agent.save(tmp_path / "c")
    exact = path.read_bytes()
    for env in agent.sampler.environments:  # type: ignore[attr-defined]
        env.unwrapped.part = iter([1])
    with pytest.warns(UserWarning, match=r"Worse\.part \(type list_iterator\).*better one stands"):
        agent.save(path)
    assert path.read_bytes() == exact
    # the next step is saved, and says why it is poorer
    agent.learn(64, progress=False)
    agent.save(path)
    _, metadata = load_checkpoint(path)
    assert metadata["timesteps"] == 128
    assert "Worse.part" in metadata["unsaved_environments"]


def test_saving_after_close_keeps_the_exact_file_and_the_reason(tmp_path: Path) -> None:
    agent = trained(Plain)
    path = agent.save(tmp_path / "c")
    agent.close()
    with pytest.warns(UserWarning, match="the environments are closed"):
        agent.save(path)
    assert "sampler.observations" in load_checkpoint(path)[0]
    agent.save(tmp_path / "d")
    assert "are closed" in load_checkpoint(tmp_path / "d")[1]["unsaved_environments"]


def test_a_reason_is_not_lost_by_loading_and_saving_again(tmp_path: Path) -> None:
    path = trained(SwigEnv).save(tmp_path / "c")
    again = TRPO.load(path, env=SwigEnv).save(tmp_path / "d")
    assert "SwigEnv.world" in load_checkpoint(again)[1]["unsaved_environments"]


def test_an_environment_that_raises_costs_nothing(tmp_path: Path) -> None:
    agent = trained(Plain)

    def fails() -> Any:
        raise OSError("the cable is out")

    agent.sampler.environment_state = fails  # type: ignore[method-assign]
    path = agent.save(tmp_path / "c")
    resumed = TRPO.load(path, env=Plain)
    assert parameters(resumed) == parameters(agent)
    assert "raised OSError: the cable is out" in resumed.notice


# ---- how an environment was given


def test_what_no_file_holds_is_asked_for(tmp_path: Path) -> None:
    def make() -> Any:
        return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: 2.0 * r)

    for env, how in ((make, "made by a function"), (gym.make("CartPole-v1"), "given as an object")):
        path = trained(env).save(tmp_path / "c")
        with pytest.raises(CheckpointError, match=f"was {how}, which no file holds; pass env="):
            TRPO.load(path)
        TRPO.load(path, env=make).close()


def test_the_constructor_of_the_environment_at_hand_counts(tmp_path: Path) -> None:
    path = trained(gym.make("Pendulum-v1", g=10.0)).save(tmp_path / "c")
    there = gym.make("Pendulum-v1", g=2.0, max_episode_steps=50)
    agent = TRPO.load(path, env=there).learn(64, progress=False)
    assert there.unwrapped.g == 2.0  # type: ignore[attr-defined]
    assert "was 10.0 when it was saved" in agent.last_record["run/notice"]


class Colour(enum.Enum):
    RED = 1


class Taking(Plain):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.kwargs = kwargs


gym.register("Taking-v0", Taking)

FAITHFUL: dict[str, Any] = {
    "a": (1, (2.5, "x")),
    "b": {1: "one", (2, 3): [4]},
    "c": {3, 1},
    "d": Path("here") / "there",
    "e": np.arange(6, dtype=np.int16).reshape(2, 3),
    "f": np.array(["a", "bc"]),
    "g": np.float32(0.1),
    "h": 2**70,
    "i": float("inf"),
    "j": b"\x00\xff",
    "k": range(1, 9, 2),
    "l": {"__value__": 1},
    "m": None,
    "n": 1j,
    "o": frozenset([1]),
    "p": np.datetime64("2026-01-01"),
}


def test_keyword_arguments_come_back_as_they_are(tmp_path: Path) -> None:
    path = trained("Taking-v0", env_kwargs=FAITHFUL).save(tmp_path / "c")
    agent = TRPO.load(path)
    assert agent.notice == ""
    for name, value in FAITHFUL.items():
        got = agent.env_kwargs[name]
        assert type(got) is type(value), name
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got, value)
        else:
            assert got == value
        assert getattr(got, "dtype", None) == getattr(value, "dtype", None)
    stored, left_out = encoded(FAITHFUL)
    assert not left_out
    assert decoded(json.loads(json.dumps(stored)))["b"] == FAITHFUL["b"]


def test_keyword_arguments_that_no_file_holds_are_asked_for(tmp_path: Path) -> None:
    kwargs = {"a": 1, "f": len, "colour": Colour.RED}
    agent = TRPO("Taking-v0", env_kwargs=kwargs, **SMALL)
    assert "f (a builtin_function_or_method), colour (a Colour)" in agent.notice
    path = agent.learn(64, progress=False).save(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"env_kwargs f, colour could not be stored; pass th"):
        TRPO.load(path)
    there = TRPO.load(path, env_kwargs={"f": max, "colour": Colour.RED})
    assert there.env_kwargs == {"a": 1, "f": max, "colour": Colour.RED}
    assert TRPO.load(path, env_kwargs={**kwargs, "a": 2}).env_kwargs["a"] == 2


# ---- forged files


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_sizes": [8000, 8000]}, "hidden_sizes"),
        ({"value_hidden_sizes": [8000, 8000]}, "value_hidden_sizes"),
        ({"n_envs": 2**31 - 1}, "environments, got 64"),
        ({"n_envs": 2**31 - 1, "batch_size": 2**31 - 1}, "n_envs"),
        ({"n_threads": 2**31 - 1}, "n_threads"),
    ],
)
def test_sizes_are_compared_with_the_tensors(changes: Any, said: str, tmp_path: Path) -> None:
    tensors, metadata = trained("CartPole-v1").state()
    metadata["config"].update(changes)
    path = save_checkpoint(tmp_path / "c", tensors, metadata)
    with pytest.raises(CheckpointError, match=said):
        TRPO.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value_scale", float("nan")),
        ("value_scale", 0.0),
        ("iteration", -1),
        ("iteration", 2**80),
        ("timesteps", True),
        ("timesteps", 1.5),
        ("elapsed_seconds", float("inf")),
        ("predictions", -5),
        ("n_envs", 0),
        ("n_envs", 2**40),
    ],
)
def test_every_number_has_its_range(name: str, value: Any) -> None:
    tensors, metadata = trained("CartPole-v1").state()
    with pytest.raises(CheckpointError, match=name):
        TRPO.from_state(tensors, {**metadata, name: value})


@pytest.mark.parametrize(
    "name", ["policy", "value_optimizer.first_moment", "observation_statistics.mean"]
)
def test_tensors_are_finite(name: str) -> None:
    tensors, metadata = trained("CartPole-v1").state()
    assert name in tensors
    with pytest.raises(CheckpointError, match=name):
        TRPO.from_state({**tensors, name: np.full_like(tensors[name], np.nan)}, metadata)


@pytest.mark.parametrize(
    ("method", "group", "settings"),
    [
        ("VPG", "policy_optimizer", {"ascent": "gradient"}),
        ("VPG", "policy_optimizer", {"ascent": "adam"}),
        ("TRPO", "value_optimizer", {"value_optimizer": "lbfgs", "value_epochs": 5}),
        ("TRPO", "value_optimizer", {}),
    ],
)
def test_moments_are_stored_where_adam_made_a_step(
    method: str, group: str, settings: dict[str, Any]
) -> None:
    agent = getattr(trpo_fast, method)("CartPole-v1", **SMALL, **settings)
    names = {f"{group}.{part}" for part in ("first_moment", "second_moment", "steps")}
    assert not names & set(agent.state()[0])
    tensors, metadata = agent.learn(64, progress=False).state()
    uses_adam = settings in ({}, {"ascent": "adam"})
    assert names & set(tensors) == (names if uses_adam else set())
    if uses_adam:
        del tensors[f"{group}.second_moment"]  # all of them, or none
        with pytest.raises(CheckpointError, match="second_moment"):
            type(agent).from_state(tensors, metadata)
        return
    # files of earlier versions hold zeros
    network = agent.policy if method == "VPG" else agent.value_function
    older = {f"{group}.{name}": array for name, array in network.optimizer_state().items()}
    assert set(older) == names
    loaded = [type(agent).from_state({**tensors, **more}, metadata) for more in ({}, older)]
    for one in (agent, *loaded):
        one.learn(64, progress=False)
        assert parameters(one) == parameters(agent)


def test_no_warning_is_said_of_an_ordinary_save(tmp_path: Path) -> None:
    agent = trained("CartPole-v1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.save(tmp_path / "c")
        agent.save(tmp_path / "c")
    assert agent.notice == ""


class Robot(Handle):
    """There is one simulator, whichever object drives it."""

    def __init__(self) -> None:
        Plain.__init__(self)
        self.handle = 1
        SIMULATORS.setdefault(1, {"place": 0.0, "calls": []})


def test_what_a_copy_may_share_is_tried_before_training_and_never_in_it(tmp_path: Path) -> None:
    SIMULATORS.clear()
    agent = TRPO(Robot, **{**SMALL, "n_envs": 1})
    agent.learn(64, progress=False)
    agent.save(tmp_path / "c")
    calls = [*SIMULATORS[1]["calls"]]
    agent.save(tmp_path / "c")
    agent.learn(64, progress=False).save(tmp_path / "c")
    later = SIMULATORS[1]["calls"][len(calls) :]
    assert calls[-65:].count("step") == 64, "nothing but training between the trial and the save"
    assert later.count("step") == 64
    assert later.count("reset") == 1  # 64 = 50 + 14 steps, then 36 + 28


def test_the_same_environment_again_is_no_copy(tmp_path: Path) -> None:
    SIMULATORS.clear()
    only = Handle()
    agent = trained(lambda: only, n_envs=1)
    agent.save(tmp_path / "c")
    assert SIMULATORS[only.handle]["calls"].count("step") == 64
    unsaved = load_checkpoint(tmp_path / "c")[1]["unsaved_environments"]
    assert "returns an environment that it returned before" in unsaved
    with pytest.raises(ValueError, match="got the one that the agent trains in"):
        agent.evaluate(1)
    with pytest.raises(ValueError, match="must make a new"):
        TRPO(lambda: only, **SMALL)


def test_a_better_file_of_other_keyword_arguments_does_not_stand(tmp_path: Path) -> None:
    gym.register("Odd-v0", entry_point=_Odd)
    try:
        trained("Odd-v0", env_kwargs={"part": 1}).save(tmp_path / "c")
        trained("Odd-v0", env_kwargs={"part": iter(())}).save(tmp_path / "c")
    finally:
        del gym.registry["Odd-v0"]
    assert load_checkpoint(tmp_path / "c")[1]["env_kwargs_left_out"] == {"part": "tuple_iterator"}


class _Odd(Plain):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part


def test_a_list_that_holds_itself_is_no_keyword_argument_for_a_file() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert encoded({"part": endless}) == ({}, {"part": "list"})


def test_a_class_makes_environments_as_a_function_does(tmp_path: Path) -> None:
    trained(Plain).save(tmp_path / "c")
    with pytest.raises(CheckpointError, match="was made by a function"):
        TRPO.load(tmp_path / "c")


class _ClosesBadly(Plain):
    def close(self) -> None:
        raise RuntimeError("the door is stuck")


@pytest.mark.parametrize("n_workers", [0, 2])
def test_what_close_raises_costs_nothing(n_workers: int) -> None:
    agent = trained(_ClosesBadly, n_workers=n_workers)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(agent.evaluate(2).returns) == 2
        agent.close()
    if n_workers == 0:
        assert any("the door is stuck" in str(warning.message) for warning in said)
