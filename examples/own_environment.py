"""An environment of your own: python examples/own_environment.py [steps]

A boat in a current is to stay at a buoy. The action is a thrust in newtons, and stays in newtons: the
policy's [-1, 1] is mapped to the bounds of the action space.
"""

import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from trpo_fast import TRPO


class Boat(gymnasium.Env):
    """Position (m), speed (m/s) and the current (m/s) seen; the thrust (N) decided."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-200.0, 200.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.current = self.np_random.uniform(-1.0, 1.0)
        self.position, self.speed, self.steps = self.np_random.normal(), 0.0, 0
        return self.observe(), {}

    def step(self, action):
        drag = 50.0 * (self.current - self.speed)
        self.speed += 0.1 * (float(action[0]) + drag) / 100.0
        self.position += 0.1 * self.speed
        self.steps += 1
        aground = abs(self.position) > 5.0  # an end of the world: terminated
        out_of_time = self.steps == 200  # only the end of this episode: truncated
        off = abs(self.position)
        return (
            self.observe(),
            1.0 - off - 100.0 * aground,
            aground,
            out_of_time,
            {"is_success": off < 0.2},
        )

    def observe(self):
        return np.array([self.position, self.speed, self.current], np.float32)


def main(steps: int = 100_000) -> None:
    agent = TRPO(Boat, seed=0)  # the class, or any function that makes one
    agent.learn(steps)
    result = agent.evaluate(episodes=20)
    print(
        f"return {result.mean_return:.0f}, success rate {result.metric_means['success_rate']:.2f}"
    )
    agent.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
