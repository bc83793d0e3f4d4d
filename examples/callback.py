"""What happens between iterations: python examples/callback.py [steps]

A callback sees every number of every update. This one halves the trust region when the return has stopped
rising, remembers over a resume what it has done, and ends the training where nothing more is to be had.
"""

import sys

from trpo_fast import TRPO
from trpo_fast.callbacks import Callback


class SmallerSteps(Callback):
    """Halve max_kl after some updates without a better return."""

    def __init__(self, patience: int = 10, smallest: float = 1e-3) -> None:
        self.patience, self.smallest = patience, smallest
        self.best, self.waited = float("-inf"), 0

    def on_iteration(self, agent, record):
        value = record.get("rollout/episode_return", float("-inf"))
        self.waited = 0 if value > self.best else self.waited + 1
        self.best = max(self.best, value)
        if self.waited >= self.patience:
            self.waited = 0
            agent.set(max_kl=record["policy/max_kl"] / 2)
            print(f"{agent.timesteps:,} steps: max_kl is {agent.config.max_kl:g} from now on")
        return record["policy/max_kl"] >= self.smallest  # False ends the training

    def state_dict(self):
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.waited = state["best"], state["waited"]


def main(steps: int = 100_000) -> None:
    agent = TRPO("Acrobot-v1", seed=0)
    agent.learn(steps, callback=SmallerSteps())
    value = agent.last_record.get("rollout/episode_return", float("nan"))
    print(f"return {value:.1f}, max_kl {agent.last_record['policy/max_kl']:g}")
    agent.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
