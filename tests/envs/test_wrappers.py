"""Layers of environments, and what a user should know of them."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit

from trpo_fast.envs.wrappers import (
    is_same_environment,
    layers_of,
    normaliser_notice,
    size_warning,
)


def test_layers_go_through_wrappers_and_vector_environments() -> None:
    env = TimeLimit(gymnasium.make("CartPole-v1"), 5)
    layers = layers_of(env)
    assert layers[0] is env
    assert layers[-1] is env.unwrapped
    vector = gymnasium.vector.SyncVectorEnv([lambda: env])
    assert is_same_environment(vector, env.unwrapped)
    assert is_same_environment(env.unwrapped, vector)
    assert not is_same_environment(env, gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("wrapper", [NormalizeObservation, NormalizeReward])
def test_normalisers_get_a_notice(wrapper: type) -> None:
    env = wrapper(gymnasium.make("CartPole-v1"))
    assert f"wrapped in {wrapper.__name__}" in normaliser_notice(TimeLimit(env, 9))
    assert normaliser_notice(gymnasium.make("CartPole-v1")) == ""


def test_vector_normalisers_get_a_notice() -> None:
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    assert normaliser_notice(vector) == ""
    wrapped = gymnasium.wrappers.vector.NormalizeObservation(vector)
    assert "wrapped in NormalizeObservation" in normaliser_notice(wrapped)


def test_pixels_get_a_warning_with_the_way_out() -> None:
    space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
    sentence = size_warning(100_800, space)
    assert "got 100,800 of shape (210, 160, 3)" in sentence
    assert "obs_type='ram'" in sentence
    assert size_warning(10_000, space) == ""
