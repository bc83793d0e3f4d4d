"""Observations as flat rows of numbers."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from observation_spaces import OBSERVATION_SPACES
from trpo_fast.envs import ObservationEncoder


@pytest.fixture(params=OBSERVATION_SPACES)
def space(request: pytest.FixtureRequest) -> Any:
    chosen = OBSERVATION_SPACES[request.param]
    chosen.seed(3)
    return chosen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_equal_gymnasium_flatten(space: Any, dtype: str) -> None:
    encoder = ObservationEncoder.from_space(space, dtype)
    assert encoder.dim == spaces.flatdim(space)
    row = np.full(encoder.dim, np.nan, dtype)
    for _ in range(20):
        observation = space.sample()
        encoder.write(observation, row)
        expected = spaces.flatten(space, observation).astype(dtype)
        np.testing.assert_array_equal(row, expected)
        np.testing.assert_array_equal(encoder.encode(observation), expected)


def test_batches_equal_rows(space: Any) -> None:
    encoder = ObservationEncoder.from_space(space, "float32")
    samples = [space.sample() for _ in range(6)]
    out = gymnasium.vector.utils.create_empty_array(space, 6)
    batch = gymnasium.vector.utils.concatenate(space, samples, out)
    rows = encoder.encode_batch(batch, 6)
    np.testing.assert_array_equal(rows, np.stack([encoder.encode(s) for s in samples]))
    # one observation and a batch are told apart
    any_rows, batched = encoder.encode_any(batch)
    assert batched
    np.testing.assert_array_equal(any_rows, rows)
    any_row, batched = encoder.encode_any(samples[0])
    assert not batched
    np.testing.assert_array_equal(any_row, rows[:1])


def test_encoders_survive_pickle(space: Any) -> None:
    encoder = ObservationEncoder.from_space(space, "float64")
    copy = pickle.loads(pickle.dumps(encoder))
    observation = space.sample()
    np.testing.assert_array_equal(copy.encode(observation), encoder.encode(observation))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("box", np.zeros(4), r"expected shape \(5,\), got \(4,\)"),
        ("box", np.zeros(1), r"expected shape \(5,\), got \(1,\)"),
        ("box", np.zeros((1, 5)), r"expected shape \(5,\), got \(1, 5\)"),
        ("box", 0.5, r"expected shape \(5,\), got \(\) \(float\)"),
        ("box", None, r"expected shape \(5,\), got \(\) \(NoneType\)"),
        ("image", np.zeros((5, 4, 3)), r"expected shape \(4, 5, 3\), got \(5, 4, 3\)"),
        ("discrete from 3", 7, r"integer in \[3, 6\], got 7"),
        ("discrete from 3", 2, r"integer in \[3, 6\], got 2"),
        ("discrete", 1.5, r"integer in \[0, 3\], got 1.5"),
        ("multi-discrete", np.array([0, 3, 0]), r"entry 1: expected an integer in \[0, 2\], got 3"),
        ("multi-discrete", np.zeros(3), "expected integers, got dtype float64"),
        ("multi-binary", np.zeros(4, np.int8), r"expected shape \(5,\), got \(4,\)"),
        ("dict", np.zeros(3), "expected a dictionary with the keys"),
        ("dict", {"alpha": np.zeros((2, 2))}, r"key 'middle' is missing, got \['alpha'\]"),
        ("tuple", (np.zeros(2, int),), "expected a tuple of 2 parts, got 1"),
    ],
)
def test_wrong_observations_get_a_sentence(name: str, wrong: Any, words: str) -> None:
    encoder = ObservationEncoder.from_space(OBSERVATION_SPACES[name])
    with pytest.raises(ValueError, match=words):
        encoder.encode(wrong)


def test_wrong_batches_get_a_sentence() -> None:
    encoder = ObservationEncoder.from_space(OBSERVATION_SPACES["box"])
    with pytest.raises(ValueError, match=r"expected shape \(3, 5\), got \(2, 5\)"):
        encoder.encode_batch(np.zeros((2, 5)), 3)
    with pytest.raises(ValueError, match=r"expected shape \(5,\) or a batch \(N, 5\)"):
        encoder.encode_any(np.zeros((2, 2, 5)))


@pytest.mark.parametrize(
    "unsupported",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Text(3)}),
    ],
)
def test_unsupported_observation_spaces_get_a_sentence(unsupported: Any) -> None:
    with pytest.raises(TypeError, match=r"^observation space: .* is not supported; expected Box"):
        ObservationEncoder.from_space(unsupported)


def test_empty_spaces_are_refused() -> None:
    empty = spaces.Box(0, 1, (0,))
    with pytest.raises(ValueError, match="has no entries"):
        ObservationEncoder.from_space(empty)
