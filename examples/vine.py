"""Several actions tried from the same state: python examples/vine.py [steps]

The environment goes back to states that it was in, so that is asked first, on copies.
"""

import sys

import gymnasium

from trpo_fast import VineOptions, VineTRPO
from trpo_fast.snapshots import try_out


def main(steps: int = 100_000) -> None:
    trial = try_out(lambda: gymnasium.make("CartPole-v1"))
    if trial.why_not is not None:
        sys.exit(f"no vine here, because {trial.why_not}")
    # of each of 32 states both actions, each followed for 16 steps
    vine = VineOptions(states=32, branches="all", branch_steps=16)
    agent = VineTRPO("CartPole-v1", seed=0, batch_size=1024, vine=vine)
    agent.learn(steps)
    result = agent.evaluate(episodes=10)
    print(f"return {result.mean_return:.0f} after {agent.timesteps:,} steps, branches included")
    agent.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
