"""A curriculum: the task becomes harder whenever the policy has learned the present one.

The agent walks along a line to a goal that is farther away on each level. A callback looks at the
success rate of the latest episodes and raises the level in all training environments; evaluations
are held on the hardest level from the start.

    python examples/curriculum.py [total_timesteps]
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from trpo_fast import TRPO
from trpo_fast.callbacks import Callback


class Walk(gymnasium.Env[Any, Any]):
    """Reach a goal 2 (level + 1) steps to the left or right of the start, within 40 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3)  # left, stay, right
    HARDEST = 4

    def __init__(self) -> None:
        self.level = 0

    def set_level(self, level: int) -> None:
        """From the next reset on."""
        self.level = level

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.time = 0, 0
        self.goal = int(self.np_random.choice([-1, 1])) * 2 * (self.level + 1)
        return self.seen(), {}

    def seen(self) -> Any:
        return np.array([self.position, self.goal], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position += int(action) - 1
        self.time += 1
        reached, late = self.position == self.goal, self.time == 40
        reward = 1.0 if reached else -0.01
        return self.seen(), reward, reached, late, {"is_success": reached}


class Curriculum(Callback):
    """Raise the level where the success rate of the latest episodes reaches a threshold."""

    def __init__(self, threshold: float = 0.9, hardest: int = Walk.HARDEST) -> None:
        self.threshold, self.hardest, self.level = threshold, hardest, 0

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        agent.environments.call("set_level", self.level)  # those of a resumed run too

    def on_iteration(self, agent: Any, record: dict[str, Any]) -> None:
        record["curriculum/level"] = self.level  # in the table and the CSV
        if record.get("rollout/success_rate", 0.0) >= self.threshold and self.level < self.hardest:
            self.level += 1
            agent.environments.call("set_level", self.level)
            agent.episodes.metrics.clear()  # the next level is judged by its own episodes

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level}

    def load_state_dict(self, state: Any) -> None:
        self.level = int(state["level"])


def hardest_walk() -> Walk:
    """The environment of evaluations."""
    walk = Walk()
    walk.set_level(Walk.HARDEST)
    return walk


def main(total_timesteps: int = 60_000) -> tuple[int, float]:
    """Train, and return the level that was reached and the success rate on the hardest one."""
    agent = TRPO(Walk, n_workers=0, batch_size=1024, seed=0)
    curriculum = Curriculum()
    agent.learn(total_timesteps, callback=curriculum)
    result = agent.evaluate(episodes=50, env=hardest_walk, seed=1)
    agent.close()
    return curriculum.level, result.success_rate


if __name__ == "__main__":
    level, success_rate = main(*map(int, sys.argv[1:]))
    print(f"level {level} of {Walk.HARDEST}; success rate on the hardest: {success_rate:.2f}")
