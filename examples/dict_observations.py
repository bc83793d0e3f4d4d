"""Observations of several parts: python examples/dict_observations.py [steps]

A courier sees where it is, whether it carries the parcel, and a map of what the streets cost. Numbers are
normalised, integers become one-hots; the order of the parts is that of the space.
"""

import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from trpo_fast import TRPO

SIDE = 4


class Courier(gymnasium.Env):
    """Fetch the parcel at one corner and bring it to the other."""

    observation_space = Dict(
        place=Discrete(SIDE * SIDE),
        carries=MultiBinary(1),
        costs=Box(0.0, 1.0, (SIDE, SIDE), np.float32),
    )
    action_space = Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row = self.column = 0
        self.carries, self.steps = False, 0
        self.costs = self.np_random.random((SIDE, SIDE), np.float32)
        return self.observe(), {}

    def step(self, action):
        down, right = ((1, 0), (-1, 0), (0, 1), (0, -1))[int(action)]
        self.row = min(max(self.row + down, 0), SIDE - 1)
        self.column = min(max(self.column + right, 0), SIDE - 1)
        self.steps += 1
        self.carries |= (self.row, self.column) == (SIDE - 1, 0)
        delivered = self.carries and (self.row, self.column) == (0, SIDE - 1)
        reward = 10.0 * delivered - float(self.costs[self.row, self.column]) / 10.0
        return self.observe(), reward, delivered, self.steps == 60, {"is_success": delivered}

    def observe(self):
        return {
            "place": self.row * SIDE + self.column,
            "carries": np.array([self.carries], np.int8),
            "costs": self.costs,
        }


def main(steps: int = 100_000) -> None:
    agent = TRPO(Courier, seed=0)
    agent.learn(steps)
    result = agent.evaluate(episodes=50)
    print(f"delivered {result.metric_means['success_rate']:.0%} in {result.mean_length:.1f} steps")
    agent.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
