"""Observation spaces of every supported kind, by name."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

OBSERVATION_SPACES = {
    "box": spaces.Box(-2.0, 2.0, (5,), np.float64),
    "box of one": spaces.Box(-2.0, 2.0, (1,)),
    "scalar box": spaces.Box(-2.0, 2.0, ()),
    "matrix": spaces.Box(-2.0, 2.0, (2, 3)),
    "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "ram": spaces.Box(0, 255, (128,), np.uint8),
    "discrete": spaces.Discrete(4),
    "discrete from 3": spaces.Discrete(4, start=3),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-discrete from": spaces.MultiDiscrete([2, 3], start=[-1, 5]),
    "multi-discrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multi-binary": spaces.MultiBinary(5),
    "multi-binary matrix": spaces.MultiBinary([2, 3]),
    "dict": spaces.Dict(
        {
            "zeta": spaces.Discrete(3),
            "alpha": spaces.Box(-1, 1, (2, 2)),
            "middle": spaces.Dict({"b": spaces.MultiBinary(2), "a": spaces.Discrete(2, start=1)}),
        }
    ),
    "dict, order kept": spaces.Dict([("z", spaces.Discrete(3)), ("a", spaces.Box(0, 1, (2,)))]),
    "tuple": spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Box(-1, 1, (3,)))),
    "tuple of dict": spaces.Tuple((spaces.Dict({"x": spaces.Discrete(2)}), spaces.Discrete(3))),
}
