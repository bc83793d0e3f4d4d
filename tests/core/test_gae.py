"""Generalised advantage estimation: truncation cases by hand, limits, and the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import Array, assert_close, normals
from trpo_fast import core

# Three steps of one environment, gamma = lambda = 1/2, so gamma lambda = 1/4.
REWARDS, VALUES, NEXT_VALUES = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [5.0, 6.0, 7.0]


def column(x: list) -> Array:
    return np.array(x)[:, None]


@pytest.mark.parametrize(
    ("terminated", "truncated", "next_values", "expected"),
    [
        # delta = 1 + 5/2 - 4 = -1/2;  2 + 6/2 - 5 = 0;  3 + 7/2 - 6 = 1/2
        # A_2 = 1/2, A_1 = 0 + 1/8, A_0 = -1/2 + 1/32
        ([0, 0, 0], [0, 0, 0], [5.0, 6.0, 7.0], [-0.46875, 0.125, 0.5]),
        # terminated at step 1: no bootstrap, delta_1 = 2 - 5 = -3, A_0 = -1/2 - 3/4
        ([0, 1, 0], [0, 0, 0], [5.0, 6.0, 7.0], [-1.25, -3.0, 0.5]),
        # terminated at step 1: whatever stands for V(s_2) does not matter
        ([0, 1, 0], [0, 0, 0], [5.0, 1e9, 7.0], [-1.25, -3.0, 0.5]),
        # truncated at step 1 with V(final observation) = 20: delta_1 = 2 + 10 - 5 = 7, restart
        ([0, 0, 0], [0, 1, 0], [5.0, 20.0, 7.0], [1.25, 7.0, 0.5]),
        # both at once: terminated decides about the bootstrap
        ([0, 1, 0], [0, 1, 0], [5.0, 20.0, 7.0], [-1.25, -3.0, 0.5]),
        # terminated at the last step: delta_2 = 3 - 6 = -3, A_1 = -3/4, A_0 = -1/2 - 3/16
        ([0, 0, 1], [0, 0, 0], [5.0, 6.0, 7.0], [-0.6875, -0.75, -3.0]),
        # truncated at the last step with V(final) = 8: delta_2 = 3 + 4 - 6 = 1
        ([0, 0, 0], [0, 0, 1], [5.0, 6.0, 8.0], [-0.4375, 0.25, 1.0]),
        # every step its own episode
        ([1, 1, 1], [0, 0, 0], [5.0, 6.0, 7.0], [-3.0, -3.0, -3.0]),
        ([0, 0, 0], [1, 1, 1], [5.0, 6.0, 7.0], [-0.5, 0.0, 0.5]),
        # an episode that ends at step 0, then one that is cut at step 2
        ([1, 0, 0], [0, 0, 1], [5.0, 6.0, 8.0], [-3.0, 0.25, 1.0]),
    ],
)
def test_by_hand(terminated, truncated, next_values, expected) -> None:
    for implementation in (core.gae, reference.gae):
        advantages, returns = implementation(
            column(REWARDS),
            column(VALUES),
            column(next_values),
            column(terminated).astype(bool),
            column(truncated).astype(bool),
            gamma=0.5,
            gae_lambda=0.5,
        )
        assert advantages[:, 0].tolist() == expected
        assert returns[:, 0].tolist() == [a + v for a, v in zip(expected, VALUES, strict=True)]


def test_a_nan_value_after_termination_is_ignored() -> None:
    advantages, returns = core.gae(
        column(REWARDS),
        column(VALUES),
        column([5.0, np.nan, 7.0]),
        column([False, True, False]),
        column([False, False, False]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert advantages[:, 0].tolist() == [-1.25, -3.0, 0.5]
    assert np.isfinite(returns).all()


def test_environments_do_not_mix() -> None:
    """Two environments side by side give what each gives alone."""
    terminated = np.array([[False, False], [True, False], [False, False]])
    truncated = np.array([[False, True], [False, False], [False, False]])
    rewards, values = normals(1, 3, 2), normals(2, 3, 2)
    next_values = normals(3, 3, 2)
    together = core.gae(
        rewards, values, next_values, terminated, truncated, gamma=0.9, gae_lambda=0.8
    )
    for e in range(2):
        alone = core.gae(
            *(x[:, e : e + 1] for x in (rewards, values, next_values, terminated, truncated)),
            gamma=0.9,
            gae_lambda=0.8,
        )
        for both, one in zip(together, alone, strict=True):
            assert np.array_equal(both[:, e], one[:, 0])


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Array, ...]:
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 9)))
    seed = draw(st.integers(0, 2**31))
    rewards, values, next_values = (normals(seed + i, *shape) for i in range(3))
    uniform = reference.random_uniforms(seed, 9, 0, 2 * shape[0] * shape[1]).reshape(2, *shape)
    return rewards, values, next_values, uniform[0] < 0.15, uniform[1] < 0.15


unit = st.floats(0.0, 1.0)


@given(rollouts(), unit, unit)
def test_against_the_reference(rollout, gamma: float, gae_lambda: float) -> None:
    advantages, returns = core.gae(*rollout, gamma=gamma, gae_lambda=gae_lambda)
    expected = reference.gae(*rollout, gamma=gamma, gae_lambda=gae_lambda)
    assert_close(advantages, expected[0], 1e-12)
    assert_close(returns, expected[1], 1e-12)


@given(rollouts(), unit)
def test_lambda_zero_is_the_td_error(rollout, gamma: float) -> None:
    rewards, values, next_values, terminated, _ = rollout
    advantages, _ = core.gae(*rollout, gamma=gamma, gae_lambda=0.0)
    bootstrap = np.where(terminated, 0.0, next_values)
    assert_close(advantages, rewards + gamma * bootstrap - values, 1e-13, scale=10.0)


@given(rollouts(), unit)
def test_lambda_one_is_the_discounted_return(rollout, gamma: float) -> None:
    """With consistent values, R_t = sum of discounted rewards plus the bootstrap at the end."""
    rewards, values, next_values, terminated, truncated = rollout
    ends = terminated | truncated
    # between ends V(s_{t+1}) is the value of the next visited state
    next_values = next_values.copy()
    next_values[:-1] = np.where(ends[:-1], next_values[:-1], values[1:])
    _, returns = core.gae(
        rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=1.0
    )
    n_steps, n_envs = rewards.shape
    for e in range(n_envs):
        total = 0.0
        for t in reversed(range(n_steps)):
            if terminated[t, e]:
                total = 0.0
            elif truncated[t, e] or t == n_steps - 1:
                total = next_values[t, e]
            total = rewards[t, e] + gamma * total
            assert returns[t, e] == pytest.approx(total, abs=1e-11)


def test_accepts_lists_strides_and_other_number_types() -> None:
    rewards, values, next_values = (normals(i, 6, 4) for i in range(3))
    flags = np.zeros((6, 4), dtype=bool)
    flags[2, 1] = True
    kwargs = {"gamma": 0.99, "gae_lambda": 0.95}
    expected = core.gae(rewards, values, next_values, flags, flags, **kwargs)[0]
    for change in (
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.tolist(),
        lambda x: x[::-1][::-1],
    ):
        arrays = [change(x) for x in (rewards, values, next_values, flags, flags)]
        assert np.array_equal(core.gae(*arrays, **kwargs)[0], expected)
    as_float32 = [x.astype(np.float32) for x in (rewards, values, next_values)]
    assert_close(core.gae(*as_float32, flags, flags, **kwargs)[0], expected, 1e-6)
    as_integers = core.gae(
        np.ones((6, 4), dtype=np.int64), values, next_values, flags.astype(int), flags, **kwargs
    )[0]
    expected = core.gae(np.ones((6, 4)), values, next_values, flags, flags, **kwargs)[0]
    assert np.array_equal(as_integers, expected)
