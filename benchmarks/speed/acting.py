"""Time one action for one observation: alone, and between two steps of the simulator.

    python benchmarks/speed/acting.py --envs HalfCheetah-v5,CartPole-v1

``predict`` of an agent that has not been trained (the network is the same after training), the mode and
a sample, beside that of sb3-contrib. Alone, everything stays in the processor's caches; the second
table steps an environment through one recorded stretch of actions and asks for an action before every
step, which is what evaluation and use come to: the simulator does the same work on every side, so that
the difference to the bare simulator is what an action costs there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from benchmarks.tools.report import Timing
from trpo_fast import TRPO

Predict = Callable[[Any], Any]


def predictors(env_id: str) -> dict[str, Predict]:
    """``predict`` of every library that is installed, by name."""
    agent = TRPO(env_id, seed=0, n_envs=1, n_workers=0)
    sides: dict[str, Predict] = {
        "trpo_fast": partial(agent.predict, deterministic=True),
        "trpo_fast, a sample": agent.predict,
    }
    if report.have("sb3_contrib") and report.have("torch"):
        from sb3_contrib import TRPO as Peer

        model = Peer("MlpPolicy", env_id, device="cpu", seed=0)
        sides |= {
            "sb3-contrib": partial(model.predict, deterministic=True),
            "sb3-contrib, a sample": model.predict,
        }
    else:
        print("sb3-contrib: left out, torch or sb3_contrib is not installed")
    return sides


class Stretch:
    """An environment, and actions that take it through the same steps again and again."""

    def __init__(self, env_id: str, steps: int) -> None:
        import gymnasium

        self.env = gymnasium.make(env_id, disable_env_checker=True)
        self.env.action_space.seed(0)
        self.first, _ = self.env.reset(seed=0)
        self.actions: list[Any] = []
        ended = False
        while len(self.actions) < steps and not ended:
            self.actions.append(self.env.action_space.sample())
            _, _, terminated, truncated, _ = self.env.step(self.actions[-1])
            ended = terminated or truncated

    def run(self, predict: Predict | None) -> None:
        """Step through, asking for an action before every step."""
        observation, _ = self.env.reset(seed=0)
        for action in self.actions:
            if predict is not None:
                predict(observation)
            observation, *_ = self.env.step(action)


def microseconds(timing: Timing, calls: int = 1) -> str:
    """Median and quartiles of one of so many calls."""
    low, high = (1e6 * seconds / calls for seconds in timing.quartiles)
    return f"{1e6 * timing.median / calls:.3g} ({low:.3g} to {high:.3g})"


def measure(env_id: str, rounds: int, steps: int) -> dict[str, Any]:
    """Both tables of an environment."""
    report.quiet_simulator(env_id)
    sides = predictors(env_id)
    stretch = Stretch(env_id, steps)
    n = len(stretch.actions)

    alone = report.time_paired(
        {name: partial(predict, stretch.first) for name, predict in sides.items()}, rounds=rounds
    )
    between = report.time_paired(
        {
            "bare simulator": partial(stretch.run, None),
            **{name: partial(stretch.run, predict) for name, predict in sides.items()},
        },
        rounds=rounds,
    )
    bare = between["bare simulator"]
    rows = []
    for name, timing in between.items():
        costs = [1e6 * (a - b) / n for a, b in zip(timing.seconds, bare.seconds, strict=True)]
        low, high = report.quartiles(costs)
        middle = Timing(costs).median
        only = alone.get(name)
        rows.append(
            [
                name,
                microseconds(only) if only else "",
                microseconds(timing, n),
                f"{middle:.3g} ({low:.3g} to {high:.3g})" if only else "",
                f"{report.ratio(bare, timing).median:.2f}",
            ]
        )
    report.print_table(
        ["microseconds", "predict alone", "predict and step", "predict there", "of bare"],
        rows,
        title=f"{env_id}, {n} steps",
    )
    return {
        "env": env_id,
        "steps": n,
        "alone": {name: timing.to_dict() for name, timing in alone.items()},
        "between": {name: timing.to_dict() for name, timing in between.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="time one action for one observation")
    parser.add_argument("--envs", type=report.comma_list, default=["HalfCheetah-v5", "CartPole-v1"])
    parser.add_argument("--steps", type=int, default=500, help="of a stretch, at most")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of every library")
    report.add_output_flags(parser)
    flags = parser.parse_args()
    for name in ("steps", "rounds", "threads"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(flags, name)}")

    report.use_threads(flags.threads)
    facts = report.machine_facts(flags.threads)
    report.print_facts(facts)
    results = [measure(env_id, flags.rounds, flags.steps) for env_id in flags.envs]
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
