"""An environment whose episodes never end, as one without a time limit and a policy against a wall."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Endless(gymnasium.Env[Any, Any]):
    """Reward 1 a step, for ever; a step takes `seconds`."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._seconds:
            time.sleep(self._seconds)
        return np.zeros(2, np.float32), 1.0, False, False, {}


gymnasium.register("Endless-v0", Endless)
gymnasium.register("SlowEndless-v0", Endless, kwargs={"seconds": 0.002})
