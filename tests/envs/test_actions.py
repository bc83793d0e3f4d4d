"""Stored actions as what `env.step` expects."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import core
from trpo_fast.envs import ActionAdapter

ACTION_SPACES = {
    "box": (spaces.Box(-1, 1, (3,)), "gaussian", (3,)),
    "box, float64": (spaces.Box(-1, 1, (3,), np.float64), "gaussian", (3,)),
    "box, matrix": (spaces.Box(-1, 1, (2, 2)), "gaussian", (4,)),
    "box, scalar": (spaces.Box(-1, 1, ()), "gaussian", (1,)),
    "box, unbounded": (spaces.Box(-np.inf, np.inf, (2,)), "gaussian", (2,)),
    "box, integers": (spaces.Box(0, 10, (2,), np.int64), "gaussian", (2,)),
    "discrete": (spaces.Discrete(3), "categorical", (3,)),
    "discrete from 5": (spaces.Discrete(3, start=5), "categorical", (3,)),
    "multi-discrete": (spaces.MultiDiscrete([2, 4]), "multi_categorical", (2, 4)),
    "multi-discrete from": (
        spaces.MultiDiscrete([[2, 4], [3, 3]], start=[[1, 2], [3, -4]]),
        "multi_categorical",
        (2, 4, 3, 3),
    ),
    "multi-binary": (spaces.MultiBinary(4), "bernoulli", (4,)),
    "multi-binary matrix": (spaces.MultiBinary([2, 2]), "bernoulli", (4,)),
}


def stored_actions(adapter: ActionAdapter, n: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(1)
    if not adapter.is_discrete:
        return (3 * rng.standard_normal((n, adapter.action_dim))).astype(dtype)
    highs = [2] * adapter.action_dim if adapter.kind == "bernoulli" else adapter.sizes
    return np.stack([rng.integers(0, high, n) for high in highs], 1).astype(np.int32)


@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_actions_belong_to_the_space(name: str, dtype: str) -> None:
    space, kind, sizes = ACTION_SPACES[name]
    adapter = ActionAdapter.from_space(space)
    assert (adapter.kind, adapter.sizes) == (kind, sizes)
    stored = stored_actions(adapter, 50, dtype)
    assert stored.dtype == adapter.stored_dtype(dtype)
    kept = stored.copy()

    batch = adapter.to_env(stored)
    assert batch.shape == (50, *space.shape)
    assert batch.dtype == space.dtype
    assert gymnasium.vector.utils.batch_space(space, 50).contains(batch)
    separate = adapter.step_converter(50, dtype)(stored)
    for n in range(50):
        one = adapter.to_env(stored[n])
        assert space.contains(one)
        assert space.contains(separate[n])
        np.testing.assert_array_equal(one, batch[n])
        np.testing.assert_array_equal(separate[n], batch[n])
    # what the distribution sampled is never touched or lent out
    np.testing.assert_array_equal(stored, kept)
    assert not np.shares_memory(np.asarray(separate), stored)
    assert not np.shares_memory(batch, stored)


def test_box_actions_are_clipped() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(np.float32([-1, 0]), np.float32([1, 2])))
    np.testing.assert_array_equal(adapter.to_env(np.float32([-3, 3])), np.float32([-1, 2]))
    np.testing.assert_array_equal(adapter.to_env(np.float32([0.5, 1.5])), np.float32([0.5, 1.5]))


def test_integer_box_actions_are_rounded() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(0, 10, (3,), np.uint8))
    np.testing.assert_array_equal(adapter.to_env(np.float32([2.6, -4, 300])), [3, 0, 10])


def test_discrete_actions_are_python_integers() -> None:
    adapter = ActionAdapter.from_space(spaces.Discrete(3, start=5))
    assert type(adapter.to_env(np.array([2], np.int32))) is int
    assert adapter.to_env(np.array([2], np.int32)) == 7
    assert adapter.step_converter(2)(np.array([[0], [1]], np.int32)) == [5, 6]


def test_the_distribution_fits_the_space() -> None:
    for space, kind, sizes in ACTION_SPACES.values():
        adapter = ActionAdapter.from_space(space)
        assert adapter.distribution == core.Distribution(kind, sizes)
        assert adapter.distribution.action_dim == adapter.action_dim
    wide = ActionAdapter.from_space(spaces.Box(-1, 1, (3,)), state_dependent_std=True)
    assert wide.distribution.kind == "state_dependent_gaussian"
    assert wide.distribution.action_dim == wide.action_dim == 3


def test_empty_action_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="has no entries"):
        ActionAdapter.from_space(spaces.Box(0, 1, (0,)))


def test_wrong_actions_get_a_sentence() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(-1, 1, (3,)))
    with pytest.raises(ValueError, match=r"actions: expected shape \(3,\) or \(N, 3\), got \(2,\)"):
        adapter.to_env(np.zeros(2))
    with pytest.raises(ValueError, match=r"got \(1, 2, 3\)"):
        adapter.to_env(np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "unsupported", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Text(3), spaces.Tuple(())]
)
def test_unsupported_action_spaces_get_a_sentence(unsupported: Any) -> None:
    with pytest.raises(TypeError, match=r"^action space: .* is not supported; expected Box"):
        ActionAdapter.from_space(unsupported)


# --- action scaling ---


@pytest.mark.parametrize("stored", ["float32", "float64"])
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0.0, 1000.0, np.float32),
        (20.0, 24.0, np.float32),
        (-0.001, 0.001, np.float64),
        (-3e5, 7e5, np.float32),
        (0, 255, np.uint8),
        (-3, 7, np.int64),
    ],
)
def test_actions_are_scaled_to_finite_bounds(
    low: float, high: float, dtype: Any, stored: str
) -> None:
    space = spaces.Box(low, high, (2,), dtype)
    adapter = ActionAdapter.from_space(space, scaling=True)
    actions = np.array([[-1, 1], [0, 0.5], [-7, 9]], stored)
    middle, half = (high + low) / 2, (high - low) / 2
    expected = np.array([[low, high], [middle, middle + half / 2], [low, high]])
    if np.dtype(dtype).kind != "f":
        expected = np.rint(expected)
    for converted in (
        adapter.to_env(actions),
        np.stack([adapter.to_env(row) for row in actions]),
        adapter.batch_converter(3, stored)(actions),
        np.stack(list(adapter.step_converter(3, stored)(actions))),
    ):
        assert converted.dtype == space.dtype
        np.testing.assert_allclose(converted, expected.astype(dtype), rtol=1e-6)
        assert all(space.contains(row) for row in converted)
    assert "mapped from [-1, 1]" in adapter.notice
    # and back again, where nothing was clipped or rounded
    if np.dtype(dtype).kind == "f":
        back = adapter.from_env(adapter.to_env(actions[:2]), stored)
        np.testing.assert_allclose(back, actions[:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-np.inf, np.inf, (3,)),
        spaces.Box(np.float32([-1, 0, -np.inf]), np.float32([1, np.inf, 5])),
        spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (3,)),
    ],
)
def test_scaling_changes_no_bit_of_bounds_of_one_and_of_no_bounds(space: spaces.Box) -> None:
    actions = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    actions[0, 0] = -0.0
    scaled = ActionAdapter.from_space(space, scaling=True)
    plain = ActionAdapter.from_space(space)
    assert scaled.to_env(actions).tobytes() == plain.to_env(actions).tobytes()
    half_bounded = np.isfinite(space.low) ^ np.isfinite(space.high)
    assert ("2 of 3 entries" in scaled.notice) == half_bounded.any()
    assert ("mapped" in scaled.notice) is False


@pytest.mark.parametrize(("low", "high"), [(-np.inf, 5), (0, np.inf), (0, 1e35)])
def test_one_finite_bound_is_told_where_actions_are_scaled(low: float, high: float) -> None:
    space = spaces.Box(low, high, (2,), np.float64)
    adapter = ActionAdapter.from_space(space, scaling=True)
    assert "have one finite bound: they are not scaled, and are clipped" in adapter.notice
    actions = np.array([[-7.0, 7.0]], np.float32)
    np.testing.assert_array_equal(adapter.to_env(actions), np.clip(actions, low, high))
    assert ActionAdapter.from_space(space).notice == ""


def test_bounded_dimensions_are_scaled_beside_unbounded_ones() -> None:
    space = spaces.Box(np.float32([0, -np.inf, 0]), np.float32([10, np.inf, np.inf]))
    adapter = ActionAdapter.from_space(space, scaling=True)
    np.testing.assert_array_equal(adapter.to_env(np.float32([0.5, 7.25, -3])), [7.5, 7.25, 0])


@pytest.mark.parametrize("name", [n for n in ACTION_SPACES if not n.startswith("box")])
def test_discrete_actions_are_not_scaled(name: str) -> None:
    space, _, _ = ACTION_SPACES[name]
    adapter = ActionAdapter.from_space(space, scaling=True)
    stored = stored_actions(adapter, 9)
    np.testing.assert_array_equal(
        adapter.to_env(stored), ActionAdapter.from_space(space).to_env(stored)
    )
    assert adapter.notice == ""
