"""Snapshots: restored steps are bitwise those of the original, or one sentence says why not."""

from __future__ import annotations

import collections
import copy
import enum
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast.checkpoint import save_checkpoint
from trpo_fast.snapshots import (
    Snapshot,
    SnapshotError,
    Snapshotter,
    check_replay,
    load_environments,
    restore,
    save_environments,
    simulators,
    take,
)

ale_py = pytest.importorskip("ale_py")
gym.register_envs(ale_py)

N_ACTIONS = 1000


def play(env: Any, actions: list[Any]) -> list[bytes]:
    """What every step returned, bit for bit; a new episode where one ended."""
    seen: list[bytes] = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(np.asarray(observation).tobytes() + np.float64(reward).tobytes())
        seen.append(bytes([terminated, truncated]))
        if terminated or truncated:
            seen.append(np.asarray(env.reset()[0]).tobytes())
    return seen


def random_actions(env: Any, n: int) -> list[Any]:
    env.action_space.seed(7)
    return [env.action_space.sample() for _ in range(n)]


def through_a_file(snapshot: Snapshot) -> Snapshot:
    """What a checkpoint does: arrays without objects, and JSON."""
    arrays, metadata = snapshot.to_arrays()
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **{f"{i}": a for i, a in enumerate(arrays.values())})
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as stored:
        read = {name: stored[f"{i}"] for i, name in enumerate(arrays)}
    return Snapshot.from_arrays(read, json.loads(json.dumps(metadata, allow_nan=False)))


REPLAYED = {
    "CartPole-v1": {},
    "Acrobot-v1": {},
    "MountainCar-v0": {},
    "MountainCarContinuous-v0": {},
    "Pendulum-v1": {},
    "FrozenLake-v1": {},
    "HalfCheetah-v5": {},
    "Hopper-v5": {},
    "Ant-v5": {},
    "ALE/Breakout-v5": {"obs_type": "ram"},
}


@pytest.mark.parametrize("env_id", REPLAYED)
def test_restored_states_replay_bitwise(env_id: str) -> None:
    env, other = (gym.make(env_id, **REPLAYED[env_id]) for _ in range(2))
    env.reset(seed=3)
    actions = random_actions(env, 60 + N_ACTIONS)
    play(env, actions[:60])
    snapshot = take(env)
    original = play(env, actions[60:])

    # back in the same environment, from memory and from a file
    restore(env, snapshot)
    assert play(env, actions[60:]) == original
    stored = through_a_file(snapshot)
    restore(env, stored)
    assert play(env, actions[60 : 60 + 200]) == original[: len(play_length(original, 200))]

    # in another environment, made alike
    other.reset(seed=1000)
    play(other, actions[:11])
    restore(other, stored)
    assert play(other, actions[60 : 60 + 200]) == original[: len(play_length(original, 200))]
    env.close()
    other.close()


def play_length(seen: list[bytes], n_steps: int) -> list[bytes]:
    """The entries of the first `n_steps` steps: a step has two, and a third where it ended."""
    entries, steps = 0, 0
    while steps < n_steps:
        ended = any(seen[entries + 1])
        entries += 3 if ended else 2
        steps += 1
    return seen[:entries]


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.7])
def test_atari_replays_from_many_states_whatever_the_sticky_action(probability: float) -> None:
    """ALE leaves the last action out of its states: without it, one state in five goes astray."""
    env = gym.make("ALE/Pong-v5", obs_type="ram", repeat_action_probability=probability)
    env.reset(seed=0)
    actions = random_actions(env, 300)
    snapshotter = Snapshotter(env, "attributes")
    for i in range(0, 300, 15):
        play(env, actions[i : i + 15])
        snapshot = snapshotter.take()
        original = play(env, actions[:20])
        env.step(env.action_space.sample())
        snapshotter.restore(snapshot)
        assert play(env, actions[:20]) == original
        snapshotter.restore(snapshot)
    env.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5", "ALE/Breakout-v5"])
def test_taking_a_snapshot_changes_nothing(env_id: str) -> None:
    kwargs = {"obs_type": "ram"} if "ALE" in env_id else {}
    watched, alone = gym.make(env_id, **kwargs), gym.make(env_id, **kwargs)
    watched.reset(seed=5)
    alone.reset(seed=5)
    for action in random_actions(alone, 60):
        take(watched)
        assert play(watched, [action]) == play(alone, [action])
    watched.close()
    alone.close()


def test_wrappers_go_back_with_the_environment() -> None:
    env = gym.make("CartPole-v1", max_episode_steps=30, disable_env_checker=False)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.NormalizeObservation(gym.wrappers.FrameStackObservation(env, 3))
    env.reset(seed=0)
    env.step(0)
    snapshot = take(env)
    actions = [0, 1] * 30
    original = play(env, actions)
    restore(env, snapshot)
    assert env.get_wrapper_attr("_elapsed_steps") == 1
    assert play(env, actions) == original
    restore(env, through_a_file(snapshot))
    assert play(env, actions) == original


def test_before_the_first_reset() -> None:
    env = gym.make("CartPole-v1")
    snapshot = take(env)
    env.reset(seed=0)
    env.step(0)
    restore(env, snapshot)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


# ---- environments of one's own


class Mood(enum.Enum):
    CALM = 1
    WILD = 2


class Point(NamedTuple):
    x: float
    y: float


class Walker:
    __slots__ = ("friend", "place")

    def __init__(self) -> None:
        self.place = np.zeros(2)
        self.friend: Walker | None = None


class Zoo(gym.Env[Any, Any]):
    """Every kind of state at once, most of it random."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float64)
        self.action_space = spaces.Discrete(3)
        self.table = np.arange(12.0).reshape(3, 4)
        self.row = self.table[1]  # a view
        self.python = random.Random(1)
        self.legacy = np.random.RandomState(2)
        self.walkers = [Walker(), Walker()]
        self.walkers[0].friend, self.walkers[1].friend = self.walkers[1], self.walkers[0]
        self.favourite = self.walkers[0]
        self.recent: collections.deque[float] = collections.deque(maxlen=3)
        self.counts: dict[Any, Any] = collections.defaultdict(int)
        self.visited: set[int] = set()
        self.mood = Mood.CALM
        self.point = Point(0.0, -0.0)
        self.best = np.float32(-np.inf)
        self.score = float("nan")
        self.label = "start"
        self.bonus = lambda x: 0.5 * x

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.python.seed(seed)
        self.ticks = 0
        return self._observe(), {}

    def _observe(self) -> Any:
        mood = float(self.mood is Mood.WILD)
        return np.array(
            [*self.row, *self.favourite.place, self.point.y + mood, float(len(self.recent))]
        )

    def step(self, action: Any) -> Any:
        self.ticks += 1
        self.row += self.np_random.normal(size=4) + self.legacy.normal()
        self.table[0] += self.row  # what is a view stays one
        walker = self.python.choice(self.walkers)
        walker.place = walker.place + self.observation_space.sample()[:2]
        assert walker.friend is not None
        self.favourite = walker.friend
        if self.ticks % 7 == 0:
            self.walkers[1].friend = self.walkers[0].friend
        self.recent.append(self.row[0])
        self.counts[int(action), "x"] += 1
        self.visited.add(int(action))
        self.mood = Mood.WILD if self.python.random() < 0.5 else Mood.CALM
        self.point = Point(self.point.y, self.point.x + self.bonus(sum(self.recent)))
        self.best = np.maximum(self.best, np.float32(self.row[1]))
        self.score = self.table[0].sum() + len(self.visited) + self.counts[0, "x"] + self.best
        if self.ticks == 3:
            self.late = [self.score]  # an attribute that is not there at first
        return self._observe(), self.score, self.ticks == 12, False, {}


def test_every_kind_of_state() -> None:
    env = Zoo()
    assert check_replay(env, 200).method == "attributes"
    env.reset(seed=1)
    play(env, [1, 2])
    snapshot = take(env)
    actions = [0, 1, 2] * 20
    original = play(env, actions)
    fresh = Zoo()
    fresh.reset(seed=99)
    for target, source in (
        (env, snapshot),
        (env, through_a_file(snapshot)),
        (fresh, through_a_file(snapshot)),
        (fresh, snapshot),
    ):
        restore(target, source)
        assert not hasattr(target, "late")
        assert target.favourite in target.walkers
        assert np.shares_memory(target.row, target.table)
        assert play(target, actions) == original
    # what one environment does from there does not touch the snapshot or the other one
    restore(env, snapshot)
    before = fresh.table.copy()
    play(env, actions)
    assert np.array_equal(fresh.table, before)


class Opaque(gym.Env[Any, Any]):
    """Its state lies in an object that only `copy.deepcopy` can copy."""

    def __init__(self, part: Any) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = spaces.Discrete(2)
        self.part = part

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action: Any) -> Any:
        return np.array([float(next(self.part))]), self.np_random.random(), False, False, {}


class Ladder:
    """An iterator: outside the walk, but it copies."""

    def __init__(self) -> None:
        self.height = 0

    def __iter__(self) -> Ladder:
        return self

    def __next__(self) -> int:
        self.height += 1
        return self.height


class Count(int):
    """Not a plain int: outside the walk, but it copies."""


def test_deepcopy_is_the_second_way() -> None:
    env = Opaque(Ladder())
    env.extra = Count(3)  # type: ignore[attr-defined]
    snapshotter = Snapshotter.for_environment(env)
    assert snapshotter.method == "deepcopy"
    env.reset(seed=0)
    snapshot = snapshotter.take()
    original = play(env, [0] * 9)
    for _ in range(2):
        snapshotter.restore(snapshot)
        assert play(env, [0] * 9) == original
    assert not snapshot.is_storable
    with pytest.raises(SnapshotError, match=r"can only be copied as a whole, which no file holds"):
        snapshot.to_arrays()
    with pytest.raises(SnapshotError, match="goes back only into the environment"):
        restore(Opaque(Ladder()), snapshot)


def test_what_cannot_be_saved_is_refused_in_one_sentence() -> None:
    env = Opaque(float(i) for i in range(10**6))
    with pytest.raises(SnapshotError, match=r"Opaque\.part \(type generator\) cannot") as caught:
        Snapshotter.for_environment(env)
    assert "the state of Opaque cannot be saved and restored" in str(caught.value)
    assert "copy.deepcopy fails with TypeError" in str(caught.value)
    assert "\n" not in str(caught.value)


class GlobalNoise(Opaque):
    def __init__(self) -> None:
        super().__init__(None)

    def step(self, action: Any) -> Any:
        return np.array([np.random.random()]), 0.0, False, False, {}  # noqa: NPY002


def test_ale_py_that_cannot_write_states(monkeypatch: pytest.MonkeyPatch) -> None:
    ale_py = pytest.importorskip("ale_py")
    env = ale_py.AtariEnv("boxing", obs_type="ram")
    env.reset(seed=0)

    def fails(_: object) -> bytes:
        return b"\xf7".decode().encode()  # what ale-py 0.11 does

    for serialize in (fails, lambda _: "text"):
        monkeypatch.setattr(ale_py.ALEState, "serialize", serialize)
        before = env.ale.getRAM().tobytes()
        with pytest.raises(SnapshotError, match=r"install ale-py 0\.12 or newer"):
            take(env)
        assert env.ale.getRAM().tobytes() == before


def test_state_outside_the_environment_is_noticed() -> None:
    with pytest.raises(
        SnapshotError, match=r"step 0 after a restored state of Gl.* does not replay.*np\."
    ):
        check_replay(GlobalNoise())


def test_rebuilt_instead_of_copied_is_noticed() -> None:
    """Gymnasium's EzPickle makes a copy from the constructor's arguments: a fresh environment."""

    class Rebuilt(gym.utils.EzPickle, Opaque):
        def __init__(self, part: Any) -> None:
            gym.utils.EzPickle.__init__(self, part)
            Opaque.__init__(self, part)
            self.extra = Count(3)

    inner = Rebuilt(Ladder())
    with pytest.raises(SnapshotError, match=r"through copy\.deepcopy: step \d+ after a restored"):
        check_replay(gym.wrappers.OrderEnforcing(gym.wrappers.TimeLimit(inner, 20)))


def test_the_check_leaves_the_environment_as_it_was() -> None:
    env, alone = gym.make("Hopper-v5"), gym.make("Hopper-v5")
    env.reset(seed=4)
    alone.reset(seed=4)
    actions = random_actions(env, 40)
    play(env, actions[:10])
    play(alone, actions[:10])
    snapshotter = check_replay(env, 30)
    assert snapshotter.method == "attributes"
    assert play(env, actions[10:]) == play(alone, actions[10:])


class ModelChanger(gym.Wrapper[Any, Any, Any, Any]):
    def reset(self, **kwargs: Any) -> Any:
        result = self.env.reset(**kwargs)
        self.unwrapped.model.body_mass[1] = 1.0 + self.unwrapped.np_random.random()
        return result


def test_a_rewritten_mujoco_model_is_noticed() -> None:
    with pytest.raises(SnapshotError, match="rewrites its MuJoCo model"):
        check_replay(ModelChanger(gym.make("Hopper-v5")))


# ---- files


@pytest.mark.parametrize("env_id", ["CartPole-v1", "HalfCheetah-v5", "ALE/Breakout-v5"])
def test_through_a_checkpoint_into_another_process(env_id: str, tmp_path: Path) -> None:
    kwargs = REPLAYED[env_id]
    env = gym.make(env_id, **kwargs)
    env.reset(seed=1)
    actions = random_actions(env, 150)
    play(env, actions[:50])
    state = save_environments([env])
    assert {array.dtype.kind for array in state.values()} <= set("bif u")
    path = save_checkpoint(tmp_path / "state.safetensors", state, {})
    original = hashlib.sha256(b"".join(play(env, actions[50:]))).hexdigest()
    code = f"""
import hashlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_snapshots import gym, load_environments, play, random_actions
from trpo_fast.checkpoint import load_checkpoint
env = gym.make({env_id!r}, **{kwargs!r})
env.reset()
load_environments([env], load_checkpoint({str(path)!r})[0])
played = play(env, random_actions(env, 150)[50:])
print(hashlib.sha256(b"".join(played)).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split()[-1] == original


def test_environments_of_a_run() -> None:
    environments, fresh = ([gym.make("CartPole-v1") for _ in range(3)] for _ in range(2))
    for e, env in enumerate(environments):
        env.reset(seed=e)
        play(env, [0, 1] * e)
    state = save_environments(environments)
    original = [play(env, [0, 1] * 30) for env in environments]
    for env in fresh:
        env.reset(seed=50)
    load_environments(fresh, state)
    assert [play(env, [0, 1] * 30) for env in fresh] == original
    with pytest.raises(SnapshotError, match="expected 2, one an environment, got 3"):
        load_environments(fresh[:2], state)


def test_another_environment_is_refused() -> None:
    cartpole, hopper, ant = (gym.make(i) for i in ("CartPole-v1", "Hopper-v5", "Ant-v5"))
    for env in (cartpole, hopper, ant):
        env.reset(seed=0)
    with pytest.raises(SnapshotError, match=r"from a .*HopperEnv, this environment has .*Car"):
        restore(cartpole, through_a_file(take(hopper)))
    snapshot = through_a_file(take(hopper))
    heavier = gym.make("Hopper-v5", xml_file="walker2d_v5.xml")
    heavier.reset(seed=0)
    with pytest.raises(SnapshotError, match="another MuJoCo model"):
        restore(heavier, snapshot)
    with pytest.raises(
        SnapshotError, match=r"Opaque\.part \(type Ladder_iterator\)|list_iterator|range_iterator"
    ):
        save_environments([Opaque(iter(range(3)))])
    with pytest.raises(SnapshotError, match="expected 1, one an environment, got 0"):
        load_environments([cartpole], {})


def test_damaged_files_are_refused() -> None:
    env = Zoo()
    env.reset(seed=0)
    play(env, [0] * 4)
    arrays, metadata = take(env).to_arrays()
    rng = np.random.default_rng(0)

    def damage(value: Any) -> Any:
        """Replace one random entry somewhere in the tree."""
        choices: list[Any] = [None, -1, 10**30, "x", [], {}, ["array", 0, "gone", False, True]]
        if rng.random() < 0.2 or not value or not isinstance(value, list | dict):
            return choices[rng.integers(len(choices))]
        if isinstance(value, dict):
            key = sorted(value)[rng.integers(len(value))]
            return {**value, key: damage(value[key])}
        i = int(rng.integers(len(value)))
        return [*value[:i], damage(value[i]), *value[i + 1 :]]

    outcomes = collections.Counter[str]()
    for _ in range(2000):
        broken = damage(metadata)
        fresh = Zoo()
        fresh.reset(seed=1)
        try:
            restore(fresh, Snapshot.from_arrays(arrays, broken))
        except SnapshotError as error:
            outcomes["refused" if "\n" not in str(error) else "several lines"] += 1
        else:
            outcomes["read"] += 1  # a number for another number
    assert not outcomes["several lines"]
    assert outcomes["refused"] > 500
    with pytest.raises(SnapshotError, match="expected format 3, got 4"):
        Snapshot.from_arrays(arrays, {**metadata, "format": 4})
    deep: Any = []
    for _ in range(100_000):
        deep = ["container", 0, "list", [deep], None]
    with pytest.raises(SnapshotError, match="nested without end"):
        Snapshot.from_arrays(arrays, {"format": 1, "state": deep})


def test_reading_runs_no_code_and_makes_no_objects() -> None:
    """A hostile file may name classes and functions: they stay names."""
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    hostile = ["object", 0, "os.system", {"command": "true"}, True]
    with pytest.raises(SnapshotError, match=r"taken from a os\.system, this environment has"):
        restore(env, Snapshot.from_arrays({}, {"format": 1, "state": hostile}))


def test_a_snapshot_survives_many_restores() -> None:
    env = gym.make("Ant-v5")
    env.reset(seed=0)
    actions = random_actions(env, 40)
    play(env, actions)
    snapshotter = Snapshotter.for_environment(env, n_steps=10)
    snapshot = snapshotter.take()
    results = []
    for _ in range(5):
        snapshotter.restore(snapshot)
        results.append(play(env, copy.deepcopy(actions)))
    assert all(result == results[0] for result in results)


class Piece:
    def __init__(self, number: int) -> None:
        self.number = number


class Pieces(gym.Env[Any, Any]):
    """One of its pieces is in play: an object that stands in two places, in each environment another."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.active: Piece | None = None
        self.generator: Any = None
        self.pieces = [Piece(number) for number in range(5)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._choose()
        return np.zeros(1), {}

    def _choose(self) -> None:
        self.active = self.pieces[self.np_random.integers(5)]

    def step(self, action: Any) -> Any:
        assert self.active is not None
        self.active.number += 1
        self._choose()
        return np.array([float(self.active.number)]), 0.0, False, False, {}


def test_an_object_in_two_places_is_restored_where_another_one_is_in_two() -> None:
    for seed in range(6):
        original, other = Pieces(), Pieces()
        original.reset(seed=seed)
        for _ in range(3):
            original.step(0)
        stored = Snapshot.from_arrays(*take(original).to_arrays())
        other.reset(seed=seed + 1)
        restore(other, stored)
        assert other.active is other.pieces[original.pieces.index(original.active)]
        for _ in range(20):
            np.testing.assert_array_equal(other.step(0)[0], original.step(0)[0])


def test_two_generators_are_restored_where_one_stands_in_two_places() -> None:
    original, other = Pieces(), Pieces()
    original.reset(seed=1)
    original.generator = np.random.default_rng(5)
    other.reset(seed=2)
    other.generator = other.np_random
    stored = Snapshot.from_arrays(*take(original).to_arrays())
    restore(other, stored)
    assert other.generator.random() == original.generator.random()
    assert other.np_random.random() == original.np_random.random()


class Wall:
    def __init__(self, number: int) -> None:
        self.number = number


class Door(Wall):
    pass


class Trap(Door):
    def __del__(self) -> None:
        """A class with a finaliser: a file makes no object of it."""


class Cells(Pieces):
    """Objects of several classes, each time in other places."""

    kinds: tuple[type[Wall], ...] = (Wall, Door)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        which = self.np_random.permutation([0, 0, 0, 1, 1])
        self.pieces = [self.kinds[k](10 * i) for i, k in enumerate(which)]  # type: ignore[misc]
        self._choose()
        return np.zeros(1), {}


def test_objects_whose_classes_stand_elsewhere_here_are_made_blank() -> None:
    for seed in range(6):
        original, other = Cells(), Cells()
        original.reset(seed=seed)
        stored = Snapshot.from_arrays(*take(original).to_arrays())
        other.reset(seed=seed + 1)
        restore(other, stored)
        assert [type(p) for p in other.pieces] == [type(p) for p in original.pieces]
        for _ in range(20):
            np.testing.assert_array_equal(other.step(0)[0], original.step(0)[0])


def test_no_object_of_an_unknown_class_or_with_a_finaliser_is_made() -> None:
    class WithTraps(Cells):
        kinds = (Wall, Trap)

    for kind, reason in (
        (Cells, "taken from a test_snapshots.Door"),
        (WithTraps, "cannot be made"),
    ):
        original, other = kind(), kind()
        original.reset(seed=1)
        other.reset(seed=2)
        assert [type(p) for p in other.pieces] != [type(p) for p in original.pieces]
        if kind is Cells:  # no door anywhere
            other.pieces = [Piece(0) for _ in range(5)]
            other.active = None
        stored = Snapshot.from_arrays(*take(original).to_arrays())
        with pytest.raises(SnapshotError, match=reason):
            restore(other, stored)


def test_a_game_with_sticky_actions_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last action must be found out, a child process plays on, not the training's game."""
    played: list[int] = []
    forks: list[int | None] = []
    play_on, in_a_child = simulators._ALETool._play_on, simulators.found_in_a_child

    def spied(self: Any, n_frames: int, expected: Any) -> Any:
        played.append(n_frames)
        return play_on(self, n_frames, expected)

    def counted(find: Any) -> int | None:
        forks.append(in_a_child(find))
        return forks[-1]

    monkeypatch.setattr(simulators._ALETool, "_play_on", spied)
    monkeypatch.setattr(simulators, "found_in_a_child", counted)
    env = gym.make("ALE/Pong-v5", obs_type="ram", repeat_action_probability=0.6)
    env.reset(seed=1)
    for action in [2, 3, 2, 4, 5, 2] * 2:
        env.step(action)
        take(env)
    assert len(forks) >= 3
    assert None not in forks
    assert not played
    env.close()


@pytest.mark.parametrize("answer", ["raises", "hangs", "ends", "finds nothing"])
def test_a_child_that_finds_nothing_is_ended(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulators, "_CHILD_SECONDS", 0.2)

    def find() -> int | None:
        if answer == "raises":
            raise KeyError(answer)
        if answer == "hangs":
            time.sleep(60.0)
        if answer == "ends":
            os._exit(3)
        return None

    from left_behind import children  # not above: another process imports this file

    before = children()
    assert simulators.found_in_a_child(find) is None
    assert children() == before
