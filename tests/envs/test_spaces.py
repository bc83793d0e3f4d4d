"""What a checkpoint says about spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from observation_spaces import OBSERVATION_SPACES
from trpo_fast.envs import describe_spaces, spaces_mismatch


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_descriptions_are_json_and_tell_spaces_apart(name: str) -> None:
    space = OBSERVATION_SPACES[name]
    action = spaces.Box(np.float32([-np.inf, -1]), np.float32([np.inf, 1]))
    description = describe_spaces(space, action)
    restored = json.loads(json.dumps(description, allow_nan=False))
    assert restored == description
    assert spaces_mismatch(restored, describe_spaces(space, action)) is None
    for other in OBSERVATION_SPACES.values():
        if other != space:
            sentence = spaces_mismatch(restored, describe_spaces(other, action))
            assert sentence is not None
            assert sentence.startswith("observation space: expected ")


def test_action_bounds_are_part_of_the_description() -> None:
    observation = spaces.Discrete(2)
    saved = describe_spaces(observation, spaces.Box(-1, 1, (2,)))
    current = describe_spaces(observation, spaces.Box(-2, 2, (2,)))
    sentence = spaces_mismatch(saved, current)
    assert sentence is not None
    assert sentence.startswith("action space: expected Box(shape=[2]")
