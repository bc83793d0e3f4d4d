"""Between two steps of environments: actions, clipped actions, and rows of the rollout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trpo_fast import core

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.mark.parametrize(
    ("stored", "bound"), [("float32", "float32"), ("float32", "float64"), ("float64", "float64")]
)
def test_clipped_actions_are_those_of_numpy(stored: str, bound: str) -> None:
    low = np.array([-1.0, -np.inf, 0.1, -0.4], bound)
    high = np.array([1.0, 0.7, np.inf, 0.4], bound)
    actions = np.random.default_rng(0).normal(scale=3.0, size=(50, 4)).astype(stored)
    actions[3, 1] = np.nan
    clipped = core.ActionClip(low, high, stored).clip(actions)
    expected = np.minimum(np.maximum(actions, low), high)
    assert clipped.dtype == expected.dtype == bound
    np.testing.assert_array_equal(clipped, expected)
    assert not np.shares_memory(clipped, actions)


@pytest.mark.parametrize(
    ("stored", "bound"), [("float32", "float32"), ("float32", "float64"), ("float64", "float64")]
)
def test_scaled_actions_are_those_of_numpy(stored: str, bound: str) -> None:
    low, high = np.array([0.0, 20.0, -1.0], bound), np.array([1000.0, 24.0, 1.0], bound)
    center, half = (high + low) / 2, (high - low) / 2
    actions = np.random.default_rng(0).normal(size=(50, 3)).astype(stored)
    scaled = core.ActionClip(low, high, stored, center=center, half=half).clip(actions)
    expected = np.clip(center + half * actions, low, high)
    assert scaled.dtype == expected.dtype == bound
    np.testing.assert_allclose(scaled, expected, rtol=4 * np.finfo(bound).eps)
    # a center of 0 and a half of 1 change no bit
    np.testing.assert_array_equal(scaled[:, 2], np.clip(actions[:, 2], -1.0, 1.0))


def test_bounds_must_hold_the_actions() -> None:
    one = np.ones(2)
    with pytest.raises(ValueError, match="center, half: expected both of them or neither"):
        core.ActionClip(-one, one, "float32", center=one)
    with pytest.raises(ValueError, match=r"half: expected shape \(2,\), got \(3,\)"):
        core.ActionClip(-one, one, "float32", center=one, half=np.ones(3))
    with pytest.raises(TypeError, match="low, high: expected float bounds at least as wide"):
        core.ActionClip(np.zeros(2, np.float32), np.ones(2, np.float32), "float64")
    with pytest.raises(TypeError, match="got int64 and int64"):
        core.ActionClip(np.zeros(2, np.int64), np.ones(2, np.int64), "float32")
    with pytest.raises(ValueError, match=r"high: expected shape \(2,\), got \(3,\)"):
        core.ActionClip(np.zeros(2, np.float32), np.ones(3, np.float32), "float32")
    clip = core.ActionClip(np.zeros(2), np.ones(2), "float32").clip
    with pytest.raises(ValueError, match=r"actions: expected shape \(N, 2\), got \(4, 3\)"):
        clip(np.zeros((4, 3), np.float32))
    with pytest.raises(TypeError):
        clip(np.zeros((4, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("gaussian", (2,)),
        ("state_dependent_gaussian", (2,)),
        ("categorical", (4,)),
        ("multi_categorical", (2, 3)),
        ("bernoulli", (3,)),
    ],
)
def test_one_action_is_that_of_a_batch_of_one(kind: Any, sizes: Any, dtype: str) -> None:
    policy = core.Policy(
        5, core.Distribution(kind, sizes), hidden_sizes=(7,), output_gain=1.0, dtype=dtype
    )
    policy.set_normalizer(np.full(5, 0.5), np.full(5, 4.0))
    random = np.random.default_rng(0)
    for step in range(20):
        observation = random.normal(size=5)
        for given in (observation, observation.astype(np.float32)):
            rows = given.astype(dtype)[np.newaxis]
            for deterministic in (False, True):
                expected = policy.act(
                    rows, deterministic=deterministic, seed=9, steps=np.array([step], np.uint64)
                )
                got = policy.act_one(given, deterministic=deterministic, seed=9, step=step)
                assert got is not None
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros(4),
        np.zeros((1, 5)),
        np.zeros(5, np.int64),
        np.zeros(10)[::2],
        np.zeros(5, ">f4"),
        [0.0] * 5,
        None,
        np.array([0.0, np.nan, 0.0, 0.0, 0.0]),
        np.array([0.0, np.inf, 0.0, 0.0, 0.0], np.float32),
        np.array([0.0, 1e300, 0.0, 0.0, 0.0]),  # infinite as float32
    ],
)
def test_one_action_for_anything_else_is_left_to_the_batch(observation: Any) -> None:
    policy = core.Policy(5, core.Distribution("gaussian", (2,)), dtype="float32")
    assert policy.act_one(observation) is None


def test_the_stream_of_one_action_is_checked() -> None:
    policy = core.Policy(5, core.Distribution("gaussian", (2,)))
    for name, value, error in (
        ("seed", -1, ValueError),
        ("step", 2**64, ValueError),
        ("step", 0.5, TypeError),
    ):
        with pytest.raises(error, match=f"^{name}: expected an integer"):
            policy.act_one(np.zeros(5), **{name: value})


T, E, O = 5, 3, 2  # noqa: E741


def rollout_arrays(dtype: str) -> dict[str, Array]:
    return {
        "observations": np.full((T + 1, E, O), 7.0, dtype),
        "rewards": np.full((T, E), 7.0),
        "terminated": np.zeros((T, E), np.bool_),
        "truncated": np.zeros((T, E), np.bool_),
    }


def one_step(dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        "observations": rng.normal(size=(E, O)).astype(dtype),
        "rewards": rng.normal(size=E).astype(dtype),
        "terminated": np.zeros(E, np.bool_),
        "truncated": np.zeros(E, np.bool_),
    }


@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_is_written(dtype: str, given: str) -> None:
    arrays, step = rollout_arrays(dtype), one_step(given)
    write = core.RowWriter(**arrays).write
    assert write(2, **step) is False
    for flag in ("terminated", "truncated"):
        ends = step | {flag: np.array([False, False, True])}
        assert write(3, **ends) is True
        np.testing.assert_array_equal(arrays[flag][3], ends[flag])
        arrays[flag][3] = False
    for row in (2, 3):
        np.testing.assert_array_equal(
            arrays["observations"][row + 1], step["observations"].astype(dtype)
        )
        np.testing.assert_array_equal(arrays["rewards"][row], step["rewards"].astype(np.float64))
    # and nothing else
    assert (arrays["observations"][:3] == 7.0).all()
    assert (arrays["observations"][5:] == 7.0).all()
    assert (arrays["rewards"][[0, 1, 4]] == 7.0).all()
    assert not arrays["terminated"].any()
    assert not arrays["truncated"].any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("observations", np.zeros((E, O), np.uint8)),
        ("observations", np.zeros((O, E)).T),
        ("observations", np.zeros((E, O + 1))),
        ("observations", [[0.0] * O] * E),
        ("observations", np.zeros((E, O), ">f8")),
        ("rewards", np.zeros(E, np.int64)),
        ("rewards", np.zeros((E, 1))),
        ("rewards", None),
        ("terminated", [False] * E),
        ("truncated", np.zeros(E, np.uint8)),
        ("truncated", np.zeros(E + 1, np.bool_)),
        ("truncated", np.zeros(2 * E, np.bool_)[::2]),
    ],
)
def test_anything_else_is_left_to_numpy(name: str, value: Any) -> None:
    write = core.RowWriter(**rollout_arrays("float32")).write
    assert write(0, **(one_step("float64") | {name: value})) is None


def test_rows_and_arrays_are_checked() -> None:
    arrays = rollout_arrays("float32")
    write = core.RowWriter(**arrays).write
    for t in (-1, T):
        with pytest.raises(IndexError, match=r"t: expected a row in \[0, 5\), got"):
            write(t, **one_step("float32"))
    with pytest.raises(ValueError, match=r"observations: expected shape \(6, 3, N\), got"):
        core.RowWriter(**(arrays | {"observations": np.zeros((T, E, O), np.float32)}))
    with pytest.raises(TypeError):
        core.RowWriter(**(arrays | {"terminated": np.zeros((T, E), np.uint8)}))


@pytest.mark.parametrize("given", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_step_of_one_environment_is_written(dtype: str, given: str) -> None:
    arrays = rollout_arrays(dtype)
    observations, rewards = arrays["observations"], arrays["rewards"]
    write = core.StepWriter(rewards, observations).write
    observation = np.array([3, 250]).astype(given)
    t, e = 2, 1
    for reward in (0.5, -1.0, 3, True, np.float64(0.1), np.float32(0.1), np.int64(-1), np.True_):
        for flag in (False, np.False_):
            assert write(t * E + e, (observation, reward, flag, False, {"key": 1})) is True
            assert rewards[t, e] == float(reward)
    np.testing.assert_array_equal(observations[t + 1, e], [3, 250])
    # and nothing else
    assert np.count_nonzero(observations != 7.0) == O
    assert np.count_nonzero(rewards != 7.0) == 1
    # without observations: whatever they are
    assert core.StepWriter(rewards).write(0, ({"text": "a"}, 0.25, False, False, {})) is True
    assert rewards[0, 0] == 0.25


class Info(dict[str, Any]):
    """An info that may do anything when it is asked."""


@pytest.mark.parametrize(
    "returned",
    [
        None,
        [np.zeros(O), 0.0, False, False, {}],
        (np.zeros(O), 0.0, False, {}),
        (np.zeros(O), 0.0, True, False, {}),
        (np.zeros(O), 0.0, False, np.True_, {}),
        (np.zeros(O), 0.0, 0, False, {}),
        (np.zeros(O), 0.0, False, None, {}),
        (np.zeros(O), 0.0, False, False, None),
        (np.zeros(O), 0.0, False, False, Info()),
        (np.zeros(O), "1.0", False, False, {}),
        (np.zeros(O), 1j, False, False, {}),
        (np.zeros(O), np.complex128(1), False, False, {}),
        (np.zeros(O), np.zeros(1), False, False, {}),
        (np.zeros(O), None, False, False, {}),
        (np.zeros(O), 10**400, False, False, {}),
        (np.zeros(O + 1), 0.0, False, False, {}),
        (np.zeros((1, O)), 0.0, False, False, {}),
        (np.zeros(2 * O)[::2], 0.0, False, False, {}),
        (np.zeros(O, ">f8"), 0.0, False, False, {}),
        (np.zeros(O, "complex64"), 0.0, False, False, {}),
        (np.zeros(O, "U1"), 0.0, False, False, {}),
        (np.ma.masked_array(np.zeros(O)), 0.0, False, False, {}),
        ([0.0] * O, 0.0, False, False, {}),
        (None, 0.0, False, False, {}),
    ],
)
def test_any_other_step_of_one_environment_is_left_to_python(returned: Any) -> None:
    arrays = rollout_arrays("float32")
    write = core.StepWriter(arrays["rewards"], arrays["observations"]).write
    assert write(0, returned) is False
    assert (arrays["observations"] == 7.0).all()


def test_steps_and_arrays_of_one_environment_are_checked() -> None:
    arrays = rollout_arrays("float32")
    write = core.StepWriter(arrays["rewards"], arrays["observations"]).write
    for i in (-1, T * E):
        with pytest.raises(IndexError, match=r"i: expected a step in \[0, 15\), got"):
            write(i, (np.zeros(O), 0.0, False, False, {}))
    with pytest.raises(ValueError, match=r"observations: expected shape \(6, 3, N\), got"):
        core.StepWriter(arrays["rewards"], arrays["observations"][:-1])
    with pytest.raises(TypeError):
        core.StepWriter(arrays["rewards"].astype(np.float32))
