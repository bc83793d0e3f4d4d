"""Time what wide observations with few ones cost: a dense first layer against a sum of columns.

    python benchmarks/speed/one_hots.py
    python benchmarks/speed/one_hots.py --cases "" --env Taxi-v4 --env minigrid:MiniGrid-DoorKey-6x6-v0

Taxi's Discrete(500) is a row of 500 numbers of which one is set. Of the 2,835 of "MiniGrid" 190 are,
anywhere, which is harder than MiniGrid's own rows, most of whose numbers never change. Milliseconds of
the core for an iteration of 2,048 steps in 8 environments with the default settings, all of it: acting,
update and value fit. "at best" is the dense core on rows as narrow as the number of ones.

``--env`` trains in the environment itself (flat observations of MiniGrid) instead, with the one and the
other in turns, and shows milliseconds an iteration as the records have them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from trpo_fast import TRPO, core, runtime

N, E = 2048, 8  # samples of a batch, environments
CASES = {"Taxi": (500, 1, 6), "MiniGrid": (2835, 190, 7)}  # O, ones, actions
CHOICES = {"dense": "dense", "columns": "auto"}  # heading -> runtime.set_first_layer


def pieces(width: int, ones: int, actions: int, first_layer: Any) -> dict[str, Callable[[], Any]]:
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
        runtime.set_first_layer(first_layer)
        actor = policy.actor(observations[:-1], stored, counters, envs, seed=0)
        for t in range(N // E):
            actor.step(t)

    def update() -> None:
        runtime.set_first_layer(first_layer)
        policy.parameters = start
        policy.update(
            rows, chosen, advantages, max_kl=0.01, cg_iterations=6, cg_preconditioner="kronecker"
        )

    def fit() -> None:
        runtime.set_first_layer(first_layer)
        value.parameters = weights
        value.fit(rows, returns, epochs=10, minibatch_size=128, learning_rate=1e-3)

    return {"acting": act, "update": update, "value fit": fit}


def time_pieces(case: str, rounds: int) -> dict[str, list[float]]:
    """Print and return milliseconds of every piece, dense, by columns, at best; and of all of them."""
    width, ones, actions = CASES[case]
    sides = {name: pieces(width, ones, actions, choice) for name, choice in CHOICES.items()}
    sides["at best"] = pieces(max(ones, 8), min(ones, 8), actions, "dense")
    print(f"{case}: {width} numbers, {ones} of them set; milliseconds an iteration, median")
    print(f"  {'':<10}" + "".join(f"{name:>9}" for name in sides))
    found: dict[str, list[float]] = {}
    for name in sides["dense"]:
        times = report.time_paired({side: sides[side][name] for side in sides}, rounds=rounds)
        found[f"{case}/{name}"] = [1e3 * times[side].median for side in sides]
    found[f"{case}/total"] = [sum(column) for column in zip(*found.values(), strict=True)]
    for name, numbers in found.items():
        print(f"  {name.partition('/')[2]:<10}" + "".join(f"{number:9.1f}" for number in numbers))
    return found


def make(env_id: str) -> Any:
    """Make the environment; one of MiniGrid with its flat observations."""
    import gymnasium

    env = gymnasium.make(env_id)
    if env_id.startswith("minigrid:"):
        from minigrid.wrappers import FlatObsWrapper

        env = FlatObsWrapper(env)
    return env


def train(env_id: str, rounds: int) -> dict[str, list[float]]:
    """Print and return milliseconds of an iteration's parts, dense and by columns."""
    agents = {
        name: TRPO(lambda: make(env_id), batch_size=N, n_envs=E, n_workers=0, seed=0)
        for name in CHOICES
    }
    times: dict[str, dict[str, list[float]]] = {}
    for i in range(rounds + 1):
        for name, agent in agents.items():
            runtime.set_first_layer(CHOICES[name])  # type: ignore[arg-type]
            agent.learn(N)
            if i == 0:  # the first allocates
                continue
            record = agent.last_record
            for part in ("rollout", "update", "value_fit"):
                into = times.setdefault(part, {}).setdefault(name, [])
                into.append(1e3 * record[f"time/{part}_seconds"])
    for agent in agents.values():
        agent.close()
    print(f"{env_id}: {N} steps in {E} environments, milliseconds an iteration, median")
    print(f"  {'':<10}" + "".join(f"{name:>9}" for name in CHOICES))
    found = {}
    for part, sides in times.items():
        found[f"{env_id}/{part}"] = [statistics.median(sides[name]) for name in CHOICES]
        print(f"  {part:<10}" + "".join(f"{number:9.1f}" for number in found[f"{env_id}/{part}"]))
    return found


def main() -> None:
    """Time every piece, or whole iterations, side by side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each, at least 1")
    parser.add_argument("--cases", default=",".join(CASES), help="which, divided by commas")
    parser.add_argument("--env", action="append", default=[], help="train in this one, too")
    parser.add_argument("--json", help="write the numbers into this file too")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    cases = [case for case in options.cases.split(",") if case]
    if unknown := set(cases) - set(CASES):
        parser.error(f"--cases: expected some of {', '.join(CASES)}, got {', '.join(unknown)}")
    before = runtime.get_first_layer()
    found: dict[str, Any] = {}
    for case in cases:
        found |= time_pieces(case, options.rounds)
    for env_id in options.env:
        found |= train(env_id, options.rounds)
    runtime.set_first_layer(before)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
