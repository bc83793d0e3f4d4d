"""Time what wide observations with few ones cost: what a first layer as a sum of columns could save.

    python benchmarks/speed/one_hots.py

Taxi's Discrete(500) is a row of 500 numbers of which one is set, MiniGrid's flat observation one of 2,835
of which some 190 are. A first layer that adds up the columns of those that are set does the work of a
dense one of so few inputs, and never less: the dense core on rows of that width is therefore the least
that it could take. "saved" is what that would take off an iteration of 2,048 steps in 8 environments,
all of it: acting, update and value fit of the default settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from trpo_fast import core

N, E = 2048, 8  # samples of a batch, environments
CASES = {"Taxi": (500, 1, 6), "MiniGrid": (2835, 190, 7)}  # O, ones, actions


def pieces(width: int, ones: int, actions: int) -> dict[str, Callable[[], Any]]:
    """What an iteration does with its observations, by name."""
    random = np.random.default_rng(0)
    rows = np.zeros((N, width), np.float32)
    for row in rows:
        row[random.choice(width, ones, replace=False)] = 1.0
    chosen = random.integers(0, actions, (N, 1)).astype(np.int32)
    advantages, returns = random.standard_normal(N), random.standard_normal(N)
    policy = core.Policy(width, core.Distribution("categorical", (actions,)))
    value = core.ValueFunction(width)
    start, weights = policy.parameters.copy(), value.parameters.copy()

    observations = np.repeat(rows[None, :E], N // E + 1, axis=0)
    stored = np.zeros((N // E, E, 1), np.int32)
    counters, envs = np.zeros(E, np.uint64), np.arange(E, dtype=np.uint32)

    def act() -> None:
        actor = policy.actor(observations[:-1], stored, counters, envs, seed=0)
        for t in range(N // E):
            actor.step(t)

    def update() -> None:
        policy.parameters = start
        policy.update(
            rows, chosen, advantages, max_kl=0.01, cg_iterations=6, cg_preconditioner="kronecker"
        )

    def fit() -> None:
        value.parameters = weights
        value.fit(rows, returns, epochs=10, minibatch_size=128, learning_rate=1e-3)

    return {"acting": act, "update": update, "value fit": fit}


def main() -> None:
    """Time every piece at both widths, side by side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each, at least 1")
    parser.add_argument("--cases", default=",".join(CASES), help="which, divided by commas")
    parser.add_argument("--json", help="write the numbers into this file too")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    if unknown := set(options.cases.split(",")) - set(CASES):
        parser.error(f"--cases: expected some of {', '.join(CASES)}, got {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for case in options.cases.split(","):
        width, ones, actions = CASES[case]
        dense, least = pieces(width, ones, actions), pieces(max(ones, 8), min(ones, 8), actions)
        print(f"{case}: {width} numbers, {ones} of them set; milliseconds an iteration, median")
        total = [0.0, 0.0]
        for name in dense:
            times = report.time_paired(
                {"dense": dense[name], "least": least[name]}, rounds=options.rounds
            )
            pair = [1e3 * times["dense"].median, 1e3 * times["least"].median]
            total = [a + b for a, b in zip(total, pair, strict=True)]
            found[f"{case}/{name}"] = pair
            show(name, pair)
        found[f"{case}/total"] = total
        show("in all", total)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


def show(name: str, pair: list[float]) -> None:
    """Print one line of the table: milliseconds, dense and at best."""
    saved = pair[0] - pair[1]
    print(f"  {name:<10} {pair[0]:8.1f} dense {pair[1]:8.1f} at best {saved:8.1f} saved")


if __name__ == "__main__":
    main()
