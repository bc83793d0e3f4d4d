"""Forged files: no number reaches NumPy, the allocator or a simulator outside its range."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from stand_ins import Plain
from trpo_fast.snapshots import Snapshot, SnapshotError, StateKeeper, restore, take

ale_py = pytest.importorskip("ale_py")
gym.register_envs(ale_py)

EXTREMES = (-1, -(2**30), 5, 625, 10**6, 2**31, 2**32, 2**63, 2**64, 2**128, 10**40, 1.5, None, "x")


class Drawing(Plain):
    """Draws from a generator of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = {
            name: np.random.Generator(getattr(np.random, name)(1))
            for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
        }
        self.legacy = np.random.RandomState(2)
        self.python = random.Random(3)
        self.table = np.arange(12.0).reshape(3, 4)
        self.row = self.table[1]

    def draw(self) -> list[Any]:
        drawn: list[Any] = [g.integers(2**16) for g in self.generators.values()]
        drawn += [g.normal() for g in self.generators.values()]
        drawn += [g.integers(2**16, dtype=np.uint32) for g in self.generators.values()]
        return [*drawn, self.legacy.normal(), self.legacy.randint(9), self.python.random()]


def numbers_of(
    value: Any, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], int | float]]:
    """Every number of a JSON value, with the way to it."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_of(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers_of(item, (*path, i))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    forged = copy.deepcopy(value)
    place = forged
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = by
    return forged


def test_every_number_driven_to_extremes_is_refused_or_harmless() -> None:
    env = Drawing()
    env.reset(seed=0)
    env.draw()
    arrays, metadata = take(env).to_arrays()
    refused, rng, sentences = 0, random.Random(0), []
    numbers = list(numbers_of(metadata["state"]))
    assert len(numbers) > 100
    for path, _ in numbers:
        for extreme in rng.sample(EXTREMES, 2):
            there = Drawing()
            there.reset(seed=1)
            forged = {**metadata, "state": replaced(metadata["state"], path, extreme)}
            try:
                restore(there, Snapshot.from_arrays(arrays, forged))
            except SnapshotError as error:
                refused += 1
                sentences.append(str(error))
            else:
                with np.errstate(all="ignore"):
                    there.draw()
                    there.row + there.table.sum()
    assert refused > len(numbers)
    assert not any("\n" in sentence for sentence in sentences)


@pytest.mark.parametrize("name", ["MT19937", "Philox", "SFC64", "PCG64", "PCG64DXSM"])
def test_states_of_generators_outside_their_range(name: str) -> None:
    env = Drawing()
    env.reset(seed=0)

    def change(node: Any) -> None:
        generators = node.attributes["generators"]
        place = 1 + 2 * list(env.generators).index(name)
        state = generators.items[place].state
        items = {
            key.value: value for key, value in zip(state.items[::2], state.items[1::2], strict=True)
        }
        if name == "MT19937":
            inner = items["state"].items
            inner[3].value = 10**6  # pos
        elif name == "Philox":
            items["buffer_pos"].value = -(2**30)
        else:
            items["has_uint32"].value = 7

    snapshot = take(env)
    change(snapshot.node)
    with pytest.raises(SnapshotError, match="random state does not fit"):
        restore(Drawing(), snapshot)


@pytest.mark.parametrize(
    "place",
    [
        ([2**62, 4], [8, 8], 0),
        ([2**40], [0], 0),
        ([4], [2**62], 0),
        ([4], [8], 2**63 - 8),
        ([4], [-8], 0),
        ([-4], [8], 0),
        ([13], [8], 0),
        ([2**32, 2**32], [2**32, 2**32], 0),
        ([0, 2**62, 2**62], [8, 8, 8], 0),
    ],
)
def test_views_that_leave_their_array(place: tuple[Any, ...]) -> None:
    env = Drawing()
    env.reset(seed=0)
    arrays, metadata = take(env).to_arrays()

    def forge(value: Any) -> Any:
        if isinstance(value, list) and value and value[0] == "view":
            shape, strides, offset = place
            return [*value[:4], shape, strides, offset, value[-1]]
        if isinstance(value, list):
            return [forge(item) for item in value]
        return {k: forge(v) for k, v in value.items()} if isinstance(value, dict) else value

    with pytest.raises(SnapshotError, match=r"does not lie within|does not fit"):
        restore(Drawing(), Snapshot.from_arrays(arrays, forge(metadata)))


def keeper_of(make: Callable[[], Any]) -> tuple[Any, StateKeeper]:
    env = make()
    keeper = StateKeeper([env], make)
    env.reset(seed=0)
    for _ in range(30):
        env.step(env.action_space.sample())
    return env, keeper


def test_the_bytes_of_a_game_are_tried_in_another_process() -> None:
    def make() -> Any:
        return gym.make("ALE/Breakout-v5", obs_type="ram")

    _, keeper = keeper_of(make)
    (state,) = keeper.save()
    (name,) = [name for name in state if name.endswith(".ale")]
    there = make()
    other = StateKeeper([there], make)
    other.load([(1, state)])
    there.step(0)
    for damaged in (state[name][:2000], np.full(3000, 255, np.uint8)):
        with pytest.raises(SnapshotError, match="ALE cannot read the saved state"):
            other.load([(1, {**state, name: damaged})])


@pytest.mark.parametrize("damage", ["nan", "short", "signature"])
def test_the_numbers_of_mujoco_are_counted(damage: str) -> None:
    def make() -> Any:
        return gym.make("Hopper-v5")

    _, keeper = keeper_of(make)
    (state,) = keeper.save()
    (name,) = [name for name in state if name.endswith(".integration")]
    forged = dict(state)
    if damage == "nan":
        forged[name] = np.full_like(state[name], np.nan)
    elif damage == "short":
        forged[name] = state[name][:-1]
    else:
        text = state["0.metadata"].tobytes().decode()
        text = re.sub(r'(\["mujoco",\d+,)', r"\g<1>1", text)
        forged["0.metadata"] = np.frombuffer(text.encode(), np.uint8)
    with pytest.raises(SnapshotError):
        StateKeeper([make()], None).load([(1, forged)])
