"""What action masks bring: steps to a return with and without them, and illegal actions.

    python benchmarks/learning/action_masks.py --env Taxi-v4 --seeds 5 --timesteps 1000000

One row a seed and side: steps until the mean return of the latest 100 training episodes reaches
``--target``, or a dash where it did not within ``--timesteps``; and how many of the 10,000 steps after
that were illegal, as the environment's own ``info["action_mask"]`` says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from trpo_fast import TRPO


class CountIllegal(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Counts the actions that the mask of the state before forbids."""

    steps = illegal = 0

    def reset(self, **settings: Any) -> Any:
        """Reset, and remember what is allowed."""
        observation, info = self.env.reset(**settings)
        self.mask = info["action_mask"]
        return observation, info

    def step(self, action: Any) -> Any:
        """Step, and count."""
        self.steps += 1
        self.illegal += int(not self.mask[action])
        returned = self.env.step(action)
        self.mask = returned[-1]["action_mask"]
        return returned


def run(env_id: str, masks: str, seed: int, timesteps: int, target: float, **settings: Any) -> Any:
    """Train until the target; returns the steps to it (None: not reached), and the illegal share.

    Parameters
    ----------
    env_id
        A Gymnasium id whose infos hold masks.
    masks
        "auto" or "none".
    seed
        Of the run.
    timesteps
        At most.
    target
        Mean return of the latest 100 training episodes.
    **settings
        Of the agent.
    """
    agent = TRPO(
        lambda: CountIllegal(gymnasium.make(env_id)),
        action_masks=masks, seed=seed, n_workers=0, **settings,
    )  # fmt: skip
    reached: list[int] = []

    def stop(_: Any, record: dict[str, Any]) -> bool | None:
        mean = record.get("rollout/episode_return")
        if mean is not None and len(agent.episodes.returns) >= 100 and mean >= target:
            reached.append(agent.timesteps)
            return False
        return None

    agent.learn(timesteps, callback=stop)
    last = agent.last_record.get("rollout/episode_return", float("nan"))
    environments = agent.sampler.environments  # type: ignore[attr-defined]
    before = sum(env.illegal for env in environments)
    taken = 0
    while taken < 10_000:
        taken += agent.collect().n_transitions
    illegal = sum(env.illegal for env in environments) - before
    agent.close()
    return (reached[0] if reached else None), last, illegal * 10_000 / taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line.

    Parameters
    ----------
    arguments
        Those of the command line by default.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--env", default="Taxi-v4")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--timesteps", type=int, default=1_000_000)
    parser.add_argument("--target", type=float, default=7.0)
    parser.add_argument("--batch-size", type=int, default=2048)
    options = parser.parse_args(arguments)
    print(
        f"{'masks':6} {'seed':>4} {'steps to ' + f'{options.target:g}':>12} {'return':>9} illegal/10,000"
    )
    found: dict[str, list[int]] = {"auto": [], "none": []}
    for seed in range(options.seeds):
        for masks, steps in found.items():
            reached, last, illegal = run(
                options.env, masks, seed, options.timesteps, options.target,
                batch_size=options.batch_size,
            )  # fmt: skip
            if reached is not None:
                steps.append(reached)
            shown = "-" if reached is None else f"{reached:,}"
            print(f"{masks:6} {seed:4} {shown:>12} {last:9.2f} {illegal:14.0f}", flush=True)
    for masks, steps in found.items():
        median = f"{np.median(steps):,.0f}" if steps else "-"
        print(f"{masks}: reached by {len(steps)} of {options.seeds} seeds, median {median} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
