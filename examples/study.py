"""One seed tells little: python examples/study.py [steps [seeds]]

The same two settings with several seeds, and the mean of their returns with its standard error. On
the command line: trpo-fast train CartPole-v1 --seeds 0-4, which runs as many at once as there are cores.
"""

import sys
from statistics import mean, stdev

from trpo_fast import TRPO


def main(steps: int = 40_000, seeds: int = 5) -> None:
    for max_kl in (0.003, 0.03):
        returns = []
        for seed in range(seeds):
            agent = TRPO("CartPole-v1", seed=seed, max_kl=max_kl, n_workers=0)
            agent.learn(steps)
            returns.append(agent.evaluate(episodes=10, seed=1).mean_return)
            agent.close()
        error = stdev(returns) / seeds**0.5
        found = [round(value) for value in returns]
        print(f"max_kl {max_kl:<5g}  {mean(returns):5.0f} ± {error:.0f}  of {found}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
