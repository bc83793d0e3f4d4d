"""Spaces from what a checkpoint says of them: the same rows and actions as from Gymnasium's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast.envs import (
    ActionAdapter,
    ObservationEncoder,
    ObservationError,
    describe_spaces,
    described_space,
    spaces_mismatch,
)

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS = [
    BOX,
    spaces.Box(0, 255, (4, 3), np.uint8),
    spaces.Box(-np.inf, np.inf, (), np.float64),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 4], start=[1, -1]),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
    spaces.Dict(b=BOX, a=spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2)))),
    spaces.Dict([("z", spaces.Discrete(3)), ("a", BOX)]),
    spaces.Dict({1: spaces.Discrete(3), 0: BOX}),
    spaces.Tuple((spaces.Dict(x=BOX), spaces.Discrete(2))),
]
ACTIONS = [
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3], start=[5, -2]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-2.0, 2.0, (2, 2), np.float32),
    spaces.Box(np.array([0.0, -np.inf]), np.array([0.1, np.inf]), dtype=np.float64),
    spaces.Box(-3, 7, (2,), np.int16),
    spaces.Box(-1.0, 1.0, (), np.float32),
]


def described(space: Any, part: str) -> Any:
    """The space as a checkpoint gives it back."""
    return described_space(json.loads(json.dumps(describe_spaces(space, space)[part])))


def batch_of(space: Any, observations: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {
            key: batch_of(part, [o[key] for o in observations])
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(
            batch_of(part, [o[k] for o in observations]) for k, part in enumerate(space.spaces)
        )
    return np.stack([np.asarray(o) for o in observations])


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_a_described_space_encodes_as_the_space_itself(space: Any) -> None:
    known = ObservationEncoder(space, "float64")
    read = ObservationEncoder(described(space, "observation"), "float64")
    assert (read.dim, read.is_plain) == (known.dim, known.is_plain)
    space.seed(3)
    observations = [space.sample() for _ in range(5)]
    rows = [known.encode(observation) for observation in observations]
    for observation, row in zip(observations, rows, strict=True):
        np.testing.assert_array_equal(read.encode_any(observation)[0], [row])
    batch, is_batch = read.encode_any(batch_of(space, observations))
    assert is_batch
    np.testing.assert_array_equal(batch, rows)


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_a_described_space_acts_as_the_space_itself(space: Any) -> None:
    known, read = ActionAdapter(space), ActionAdapter(described(space, "action"))
    assert read.distribution == known.distribution
    random = np.random.default_rng(0)
    shape = (6, known.action_dim)
    if known.is_discrete:
        sizes = 2 if known.kind == "bernoulli" else np.array(known.sizes)
        stored = random.integers(0, sizes, shape).astype(np.int32)
    else:
        stored = random.normal(scale=3.0, size=shape).astype(np.float32)
    expected, actions = known.to_env(stored), read.to_env(stored)
    np.testing.assert_array_equal(actions, expected)
    assert (actions.dtype, actions.shape) == (expected.dtype, (6, *space.shape))
    for row in stored:
        one = read.to_env(row)
        assert space.contains(one)
        assert type(one) is type(known.to_env(row))


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_stored_actions_come_back_from_those_of_the_environment(space: Any) -> None:
    adapter = ActionAdapter(space)
    space.seed(1)
    actions = np.stack([np.asarray(space.sample()) for _ in range(6)])
    stored = adapter.from_env(actions, "float64")
    assert stored.dtype == adapter.stored_dtype("float64")
    np.testing.assert_array_equal(adapter.to_env(stored), actions)


def test_actions_that_are_none_get_a_sentence() -> None:
    adapter = ActionAdapter(spaces.Discrete(3, start=-1))
    np.testing.assert_array_equal(adapter.from_env([-1, 1], "float32"), [[0], [2]])
    with pytest.raises(ValueError, match=r"^actions: expected elements of .*, got .*2.* in row 1"):
        adapter.from_env([0, 2], "float32")
    with pytest.raises(ValueError, match=r"^actions: expected shape \(N,\), got \(1, 2\); is the"):
        adapter.from_env([[0, 2]], "float32")
    with pytest.raises(TypeError, match=r"^actions: expected integers, got dtype float64"):
        adapter.from_env([0.5], "float32")
    box = ActionAdapter(spaces.Box(-1.0, 1.0, (2,)))
    assert box.from_env([[3.0, -4.0]], "float32").tolist() == [[3.0, -4.0]]  # nothing is clipped
    with pytest.raises(ValueError, match=r"^actions: expected shape \(N, 2\), got \(2,\)"):
        box.from_env([0.0, 1.0], "float32")
    with pytest.raises(ValueError, match=r"^actions: expected a rectangular array"):
        box.from_env([[0.0, 1.0], [2.0]], "float32")
    with pytest.raises(TypeError, match=r"^actions: expected numbers, got dtype <U1"):
        box.from_env([["a", "b"]], "float32")


def test_a_subclass_is_read_by_what_it_has() -> None:
    class Angles(spaces.Box):
        pass

    space = Angles(-1.0, 1.0, (2, 2), np.float32)
    assert str(described(space, "action")) == "Box((2, 2), float32)"

    class Parts(spaces.Dict):
        pass

    assert list(described(Parts(b=BOX, a=BOX), "observation").spaces) == ["b", "a"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        [],
        {},
        {"type": "Graph"},
        {"type": "Box", "shape": [-1], "dtype": "float32"},
        {"type": "Box", "shape": [2.0], "dtype": "float32"},
        {"type": "Box", "shape": [True], "dtype": "float32"},
        {"type": "Box", "shape": [10**30], "dtype": "float32"},
        {"type": "Box", "shape": [2], "dtype": "O"},
        {"type": "Box", "shape": [2], "dtype": "no dtype"},
        {"type": "Box", "shape": [2], "dtype": ["float32"]},
        {"type": "Box", "shape": [2], "dtype": "float32", "low": [0.0], "high": [1.0]},
        {"type": "Box", "shape": [1], "dtype": "float32", "low": ["nan"], "high": [1.0]},
        {"type": "Box", "shape": [1], "dtype": "float32", "low": [float("nan")], "high": [1]},
        {"type": "Box", "shape": [1], "dtype": "float32", "low": [0.0]},
        {"type": "Discrete", "n": "3", "start": 0},
        {"type": "Discrete", "n": 3},
        {"type": "Discrete", "n": 3, "start": 2**64},
        {"type": "MultiDiscrete", "shape": [3], "nvec": [2, 3], "start": [0, 0]},
        {"type": "Dict", "spaces": {"a": 3}},
        {"type": "Dict", "spaces": [["a"]]},
        {"type": "Dict", "spaces": [["a", None]]},
        {"type": "Dict", "spaces": [["a", {"type": "Discrete", "n": 2, "start": 0}]] * 2},
        {"spaces": []},
    ],
    ids=str,
)
def test_a_forged_description_gets_a_sentence(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^space: expected a description that a checkpoint holds"):
        described_space(wrong)


def test_nesting_without_end_is_refused() -> None:
    nested: dict[str, Any] = {"type": "Discrete", "n": 2, "start": 0}
    for _ in range(20_000):
        nested = {"type": "Dict", "spaces": [["a", nested]]}
    with pytest.raises(ValueError, match=r"^space: expected"):
        described_space(nested)
    while "spaces" in nested:  # taken apart, because collecting it would recurse too
        nested = nested["spaces"].pop()[1]


def test_early_descriptions_without_the_dtype_of_integers_agree() -> None:
    space = spaces.Dict(a=spaces.MultiDiscrete([2, 3], dtype=np.int32))
    action = spaces.MultiDiscrete([2, 3], dtype=np.int32)
    now = describe_spaces(space, action)
    assert now["action"]["dtype"] == "int32"
    early = json.loads(json.dumps(now).replace('"dtype": "int32", ', ""))
    assert "dtype" not in early["action"]
    assert spaces_mismatch(early, now) is None
    other = describe_spaces(space, spaces.MultiDiscrete([2, 4], dtype=np.int32))
    assert spaces_mismatch(early, other) is not None


def test_a_described_space_needs_no_gymnasium() -> None:
    description = describe_spaces(OBSERVATIONS[8], ACTIONS[6])
    program = f"""
import sys
sys.modules["gymnasium"] = None  # importing it raises
from trpo_fast.envs import ActionAdapter, ObservationEncoder, described_space
description = {description!r}
encoder = ObservationEncoder(described_space(description["observation"]), "float32")
row = encoder.encode({{"a": (1, [0, 1]), "b": [0.5, 0.25, 0.0]}})
assert row.tolist() == [0.5, 0.25, 0, 0, 1, 0, 1], row
adapter = ActionAdapter(described_space(description["action"]))
import numpy
assert adapter.to_env(numpy.full(4, 9.0, "float32")).tolist() == [[2, 2], [2, 2]]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- what is given instead of an observation


SPACES = {
    "box": spaces.Box(-1.0, 1.0, (4,), np.float32),
    "image": spaces.Box(0, 255, (2, 2), np.uint8),
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(a=spaces.Discrete(2), b=BOX),
    "tuple": spaces.Tuple((spaces.Discrete(2), BOX)),
    "nested": spaces.Tuple((spaces.Dict(a=BOX), spaces.Dict(b=BOX, c=spaces.Discrete(2)))),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_result_of_reset_or_step_is_named(name: str) -> None:
    encoder = ObservationEncoder(SPACES[name], "float32")
    observation = SPACES[name].sample()
    encoder.encode_any(observation)
    for info in ({}, {"a": 1}):
        if name == "nested":  # where a tuple of two with a dictionary may be an observation
            with pytest.raises(ObservationError, match=r"^observation"):
                encoder.encode_any((observation, info))
            continue
        with pytest.raises(
            ObservationError,
            match=r"^observation: expected an element of .*, got the tuple \(observation, info\) "
            r"that env.reset\(\) returns; pass its first entry$",
        ):
            encoder.encode_any((observation, info))
    with pytest.raises(ObservationError, match=r"that env.step\(\) returns; pass its first entry"):
        encoder.encode_any((observation, 1.0, False, False, {}))


class Key:
    """An object of the user's own."""

    def __repr__(self) -> str:  # part of the names of tests, which must not change from run to run
        return "Key()"


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        Key(),
        "text",
        b"bytes",
        {},
        {"a": Key()},
        {"a": 1},
        {Key(): 1},
        [],
        (),
        [[]],
        [Key()],
        [[1.0], [2.0, 3.0]],
        [{"a": 0, "b": [0, 0, 0]}],
        np.zeros((0, 4)),
        np.zeros((0,)),
        {"a": np.zeros((0,), int), "b": np.zeros((0, 3))},
        (np.zeros((0,), int), np.zeros((0, 3))),
        np.array(["a", "b", "c", "d"]),
        np.array([Key()] * 4),
        1j,
        float("nan"),
        range,
        {"a": 0, "b": None},
        (0, None),
    ],
    ids=repr,
)
def test_whatever_is_given_gets_one_sentence(name: str, wrong: Any) -> None:
    encoder = ObservationEncoder(SPACES[name], "float32")
    with pytest.raises(ObservationError, match=r"^observation") as caught:
        encoder.encode_any(wrong)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["box", "discrete", "image"])
def test_an_empty_batch_is_named(name: str) -> None:
    encoder = ObservationEncoder(SPACES[name], "float32")
    with pytest.raises(ObservationError, match=r"at least one, got an empty batch: \(0"):
        encoder.encode_any(np.zeros((0, *SPACES[name].shape), np.int64))
