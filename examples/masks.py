"""Actions that are not allowed are never taken: python examples/masks.py [steps]

A machine paints parts in five colours. A colour that is used up must not be chosen until the machine
has been refilled; the environment says so in every info, under action_mask.
"""

import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from trpo_fast import TRPO

COLOURS = 5


class Painter(gymnasium.Env):
    """Seen: what is left of each colour, and the colour of the part. Done: paint or refill."""

    observation_space = Box(0.0, 1.0, (2 * COLOURS,), np.float32)
    action_space = Discrete(COLOURS + 1)  # the last one refills

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.steps = np.full(COLOURS, 3), 0
        self.wanted = int(self.np_random.integers(COLOURS))
        return self.observe(), {"action_mask": self.allowed()}

    def step(self, action):
        assert self.allowed()[action], "an action that is not allowed"
        reward = -0.5
        if action < COLOURS:
            self.left[action] -= 1
            reward = float(action == self.wanted)
            self.wanted = int(self.np_random.integers(COLOURS))
        else:
            self.left[:] = 3
        self.steps += 1
        return self.observe(), reward, False, self.steps == 50, {"action_mask": self.allowed()}

    def allowed(self):
        return np.append(self.left > 0, self.left.min() == 0)  # refills only where it is needed

    def observe(self):
        return np.concatenate([self.left / 3, np.eye(COLOURS)[self.wanted]]).astype(np.float32)


def main(steps: int = 60_000) -> None:
    agent = TRPO(Painter, seed=0)
    agent.learn(steps)
    env = Painter()
    observation, info = env.reset(seed=1)
    total, over = 0.0, False
    while not over:  # whoever acts passes the mask on
        action, _ = agent.predict(observation, deterministic=True, action_masks=info["action_mask"])
        observation, reward, terminated, truncated, info = env.step(action)
        total, over = total + reward, terminated or truncated
    print(
        f"return of an episode {total:.1f}, by evaluate {agent.evaluate(episodes=10).mean_return:.1f}"
    )
    agent.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
