"""Training environments are read and written by nothing but training, whatever they are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from stand_ins import (
    SIMULATORS,
    Closing,
    Counting,
    Handle,
    Hostile,
    HostilePart,
    Huge,
    OddArrays,
    Plain,
    Raising,
    Slow,
    SwigEnv,
)
from trpo_fast.checkpoint import load_checkpoint, save_checkpoint
from trpo_fast.snapshots import (
    Snapshot,
    SnapshotError,
    StateKeeper,
    configuration_of,
    restore,
    take,
    try_out,
)
from trpo_fast.snapshots.configuration import constructed_by


def play(env: Any, n_steps: int, seed: int = 0) -> list[Any]:
    rng, seen = np.random.default_rng(seed), []
    for _ in range(n_steps):
        observation, reward, terminated, truncated, _ = env.step(int(rng.integers(2)))
        seen.append((np.asarray(observation).tobytes(), reward, terminated, truncated))
        if terminated or truncated:
            seen.append(np.asarray(env.reset()[0]).tobytes())
    return seen


def running(make: Callable[[], Any], n_steps: int = 20) -> tuple[Any, StateKeeper]:
    """An environment in the middle of training, and its keeper."""
    env = make()
    keeper = StateKeeper([env], make)
    env.reset(seed=3)
    play(env, n_steps)
    return env, keeper


def through_a_file(state: dict[str, Any], folder: Any) -> dict[str, Any]:
    return load_checkpoint(save_checkpoint(folder / "c", state, {}))[0]


@pytest.mark.parametrize(
    "make",
    [
        Plain,
        OddArrays,
        lambda: gym.make("CartPole-v1"),
        lambda: gym.wrappers.TransformAction(
            gym.make("Pendulum-v1"), lambda a: np.array([a - 0.5]), gym.spaces.Discrete(2)
        ),
        lambda: gym.make("FrozenLake-v1"),
        lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1")),
    ],
)
def test_goes_on_bit_for_bit_in_another_environment(make: Any, tmp_path: Any) -> None:
    env, keeper = running(make)
    (state,) = keeper.save()
    there = make()
    other = StateKeeper([there], make)
    other.load([(77, through_a_file(state, tmp_path))])
    assert play(there, 120, seed=5) == play(env, 120, seed=5)


def test_nothing_but_training_reaches_a_training_environment() -> None:
    Counting.made.clear()
    env, keeper = running(Counting)
    before = [*env.log]
    for _ in range(3):
        keeper.save()
    assert env.log == before
    assert len(Counting.made) == 3  # one trains, two were made to try it out


def test_a_simulator_behind_a_handle_is_never_driven_by_a_save() -> None:
    SIMULATORS.clear()
    env, keeper = running(Handle)
    calls = list(SIMULATORS[env.handle]["calls"])
    place = SIMULATORS[env.handle]["place"]
    with pytest.raises(SnapshotError, match=r"Handle\.handle differs between two environments"):
        keeper.save()
    assert SIMULATORS[env.handle]["calls"] == calls
    assert SIMULATORS[env.handle]["place"] == place


def test_copies_that_close_the_original_are_never_made() -> None:
    Closing.open_connections.clear()
    env, keeper = running(Closing)
    for _ in range(2):
        with pytest.raises(SnapshotError, match=r"Closing\.connection differs"):
            keeper.save()
    assert env.connection in Closing.open_connections
    play(env, 20)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (SwigEnv, r"^SwigEnv\.world\.this \(type list_iterator\) cannot be stored$"),
        (Raising, r"^a copy of it raised OSError: only one client may connect$"),
        (
            Huge,
            r"^the environments hold more than [0-9]+ values, too many to be read at every save$",
        ),
    ],
)
def test_what_cannot_be_stored_is_named(make: Any, reason: str) -> None:
    Raising.lives = 0
    env, keeper = running(make)
    with pytest.raises(SnapshotError, match=reason):
        keeper.save()
    play(env, 20)


def test_a_hostile_object_is_not_asked(tmp_path: Any) -> None:
    HostilePart.asked.clear()
    env, keeper = running(Hostile)
    (state,) = keeper.save()
    there = Hostile()
    StateKeeper([there], Hostile).load([(1, through_a_file(state, tmp_path))])
    assert play(there, 60, seed=5) == play(env, 60, seed=5)
    assert HostilePart.asked == []


@pytest.mark.parametrize("make", [Plain, Slow, Huge, Hostile, lambda: gym.make("HalfCheetah-v5")])
def test_a_save_of_any_environment_takes_milliseconds(make: Any) -> None:
    env = make()
    keeper = StateKeeper([env], make)
    env.reset(seed=0)
    with contextlib.suppress(SnapshotError):
        keeper.save()  # tries it out
    began = time.thread_time()
    with contextlib.suppress(SnapshotError):
        keeper.save()
    assert time.thread_time() - began < 0.05


def test_a_slow_environment_is_judged_by_few_steps() -> None:
    made: list[Counting] = []

    class SlowCounting(Slow, Counting):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    began = time.monotonic()
    assert try_out(SlowCounting).why_not is None
    assert time.monotonic() - began < 2.0
    assert all(1 <= env.log[1] < 30 for env in made)


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="waiting times are not counted"
)
def test_a_busy_machine_does_not_decide_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is made while four others use its processor takes no longer than else."""

    def make() -> Plain:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        return Plain()

    monkeypatch.setattr("trpo_fast.snapshots.trial._LONGEST_MAKING", (0.3, 0.3))
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        time.sleep(0.3)
        began = time.monotonic()
        assert try_out(make).why_not is None
        assert time.monotonic() - began > 0.5  # they were in the way: two copies take 0.2 s
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, processors)


def test_where_no_copy_can_be_made_nothing_is_tried() -> None:
    env = Counting()
    keeper = StateKeeper([env], None)
    env.reset(seed=0)
    before, made = [*env.log], len(Counting.made)
    with pytest.raises(SnapshotError, match="only tried on a separate copy"):
        keeper.save()
    assert env.log == before
    assert len(Counting.made) == made


def test_a_trial_leaves_the_global_generators_alone() -> None:
    np.random.seed(4)  # noqa: NPY002
    expected = np.random.random(3).tolist()  # noqa: NPY002

    class Noise(Plain):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            return observation + np.random.random(), *rest  # noqa: NPY002

    np.random.seed(4)  # noqa: NPY002
    trial = try_out(Noise)
    assert "does not replay: the observation differs" in str(trial.why_not)
    assert np.random.random(3).tolist() == expected  # noqa: NPY002


# ---- configuration


def test_what_the_constructor_sets_belongs_to_the_environment_at_hand() -> None:
    _, keeper = running(lambda: Plain(strength=0.3))
    (state,) = keeper.save()
    there = Plain(strength=0.5)
    with pytest.raises(
        SnapshotError, match=r"^Plain\.strength is 0\.5 now and was 0\.3 when it was saved$"
    ):
        StateKeeper([there], None).load([(1, state)])
    assert there.strength == 0.5
    assert not hasattr(there, "t")  # untouched: it has not even been reset


def test_wrappers_and_gymnasium_make_are_compared_as_well() -> None:
    def make(**kwargs: Any) -> Any:
        return gym.make("Pendulum-v1", **kwargs)

    env = make(g=10.0)
    keeper = StateKeeper([env], lambda: make(g=10.0))
    env.reset(seed=0)
    env.step(np.zeros(1))
    (state,) = keeper.save()
    for kwargs, said in (
        ({"g": 2.0}, r"PendulumEnv\.g is 2\.0 now and was 10\.0"),
        ({"g": 10.0, "max_episode_steps": 50}, r"TimeLimit\._max_episode_steps is 50 now and was"),
    ):
        there = make(**kwargs)
        with pytest.raises(SnapshotError, match=said):
            StateKeeper([there], None).load([(1, state)])
    there = make(g=10.0)
    StateKeeper([there], None).load([(1, state)])
    np.testing.assert_array_equal(there.unwrapped.state, env.unwrapped.state)


def test_what_training_changed_is_state_and_comes_back() -> None:
    """A curriculum: set by training, not by the constructor."""
    env, keeper = running(Plain)
    env.strength = 0.9
    (state,) = keeper.save()
    there = Plain()
    StateKeeper([there], None).load([(1, state)])
    assert there.strength == 0.9


def test_an_environment_in_use_may_take_a_state_over() -> None:
    env, keeper = running(Plain)
    (state,) = keeper.save()
    there = Plain()
    there.reset(seed=9)
    play(there, 7)
    StateKeeper([there], None).load([(1, state)])
    assert play(there, 60, seed=5) == play(env, 60, seed=5)


def test_files_of_before_configuration_was_kept_start_anew() -> None:
    _, keeper = running(Plain)
    (state,) = keeper.save()
    del state["configuration"]
    with pytest.raises(SnapshotError, match="written by an earlier version"):
        StateKeeper([Plain()], None).load([(1, state)])


class Traffic(Plain):
    """Its constructor draws cars, and every reset draws others, some of them alike by chance."""

    def __init__(self) -> None:
        super().__init__()
        self._draw(np.random.default_rng())

    def _draw(self, rng: np.random.Generator) -> None:
        self.lanes = [int(lane) for lane in rng.integers(3, size=rng.integers(5, 9))]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed)
        self._draw(self.np_random)
        return result

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + sum(self.lanes), *rest


def test_what_a_reset_makes_anew_is_state() -> None:
    for _ in range(5):
        env, keeper = running(Traffic)
        (state,) = keeper.save()
        there = Traffic()
        StateKeeper([there], None).load([(1, state)])
        assert play(there, 60, seed=5) == play(env, 60, seed=5)


def test_configuration_names_what_is_there() -> None:
    found = configuration_of(gym.make("CartPole-v1"))
    assert found["CartPoleEnv.gravity"] == "9.8"
    assert found["TimeLimit._max_episode_steps"] == "500"
    hopper = configuration_of(gym.make("Hopper-v5"))
    assert any(name.startswith("MuJoCo model") for name in hopper)


class Grid(Plain):
    """Its transitions stand in a large table, as those of Taxi do; a step may change the table."""

    def __init__(self, *, changes: bool = False, seed: int = 0, n_states: int = 500) -> None:
        super().__init__()
        self.table = {
            s: {a: [(1.0, np.int64(s + a), -1.0, False)] for a in range(6)} for s in range(n_states)
        }
        self.table[7][0].append((0.5, np.int64(seed), 0.0, True))
        self.changes, self.visits = changes, 0

    def step(self, action: Any) -> Any:
        if self.changes:
            self.table[self.visits % 50][0].append((0.0, np.int64(self.visits), 0.0, False))
        self.visits += 1
        observation, reward, *flags, info = super().step(action)
        return observation, reward + len(self.table[self.visits % 3][0]), *flags, info


def test_many_environments_with_large_tables_are_saved_in_milliseconds(tmp_path: Any) -> None:
    environments = [Grid() for _ in range(16)]
    keeper = StateKeeper(environments, Grid)
    for e, env in enumerate(environments):
        env.reset(seed=e)
        play(env, 10)
    keeper.save()  # tries it out
    began = time.thread_time()
    states = keeper.save()
    assert time.thread_time() - began < 0.05
    assert sum(array.nbytes for state in states for array in state.values()) < 200_000
    there = [Grid() for _ in environments]
    StateKeeper(there, Grid).load([(77, through_a_file(state, tmp_path)) for state in states])
    for here, other in zip(environments, there, strict=True):
        assert play(other, 60, seed=5) == play(here, 60, seed=5)


def test_a_table_that_steps_change_is_state(tmp_path: Any) -> None:
    def make() -> Grid:
        return Grid(changes=True, n_states=60)

    env, keeper = running(make)
    (state,) = keeper.save()
    there = make()
    StateKeeper([there], make).load([(77, through_a_file(state, tmp_path))])
    assert there.table == env.table
    assert play(there, 60, seed=5) == play(env, 60, seed=5)


def test_another_table_is_another_configuration(tmp_path: Any) -> None:
    _, keeper = running(Grid)
    (state,) = keeper.save()
    with pytest.raises(SnapshotError, match=r"Grid\.table is dict of 500 \(.*\) now and was dict"):
        StateKeeper([Grid(seed=1)], Grid).load([(77, through_a_file(state, tmp_path))])


def test_a_table_in_a_forged_state_is_compared() -> None:
    env = Grid()
    env.reset(seed=1)
    snapshot = take(env, tables=constructed_by(Grid())[1])
    arrays, metadata = snapshot.to_arrays()
    assert metadata["state"][3]["table"][0] == "table"
    metadata["state"][3]["table"][2] = "0" * 64
    with pytest.raises(SnapshotError, match="other values"):
        restore(Grid(), Snapshot.from_arrays(arrays, metadata))


@pytest.mark.parametrize("slow", ["reset", "step"])
def test_an_environment_of_long_resets_or_steps_is_not_tried_out(slow: str) -> None:
    class Sleeping(Plain):
        def reset(self, **kwargs: Any) -> Any:
            time.sleep(0.5 * (slow == "reset"))
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            time.sleep(0.3 * (slow == "step"))
            return super().step(action)

    began = time.monotonic()
    why_not = try_out(Sleeping).why_not
    assert time.monotonic() - began < 1.0
    assert why_not is not None
    assert f"a {slow}" in why_not
    assert "too long to try out" in why_not
