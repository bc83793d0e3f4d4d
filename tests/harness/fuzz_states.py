"""Forged agents: every number of every entry of a signed checkpoint driven to extremes.

    python tests/harness/fuzz_states.py --cases 20000

A case takes the state of a trained agent, forges a few of its numbers (settings, counters, tensors,
generators, views, the bytes of simulators), and lets an agent go on from it. It must be refused with
one sentence, or train: no crash, no hang, no other exception, and no memory that the file does not
hold. Crashes and hangs are seen from outside.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from harness.supervise import Outcome, run_cases, supervise
from stand_ins import OddArrays

EXTREMES = (
    -1, 0, 1, 5, 17, 255, 624, 625, 10**6, -(2**30), 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1,
    2**63, 2**64 - 1, 2**64, 2**128, 10**40, -0.0, 1.5, 1e308, -1e308, None, True, "x", "", [], {},
)  # fmt: skip
FLOATS = (0.0, -1.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), 1e18)


class Drawing(OddArrays):
    """Random generators of every kind, views, containers and text, all used at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = {
            name: np.random.Generator(getattr(np.random, name)(1))
            for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
        }
        self.legacy = np.random.RandomState(2)
        self.python = random.Random(3)
        self.table = np.arange(12.0).reshape(3, 4)
        self.row = self.table[1]
        self.recent = [(0, 1.0)]

    def step(self, action: Any) -> Any:
        drawn = [g.normal() for g in self.generators.values()]
        drawn += [float(g.integers(2**16, dtype=np.uint32)) for g in self.generators.values()]
        drawn += [self.legacy.normal(), self.python.random()]
        self.row += 0.1
        self.recent = [*self.recent[-3:], (int(action), drawn[0])]
        observation, reward, *rest = super().step(action)
        return observation, reward + 1e-3 * sum(drawn), *rest


def make_pong() -> Any:
    """Registered where it is made: a forged file may ask for worker processes."""
    import ale_py

    gym.register_envs(ale_py)
    return gym.make("ALE/Pong-v5", obs_type="ram")


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "drawing": Drawing,
    "cartpole": lambda: gym.make("CartPole-v1"),
    "hopper": lambda: gym.make("Hopper-v5"),
    "atari": make_pong,
}
# an Atari state is tried in a child process, which takes a while
WEIGHTS = {"drawing": 60, "cartpole": 24, "hopper": 15, "atari": 1}

State = tuple[dict[str, Any], dict[str, Any]]


def numbers_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every leaf of a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_of(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers_of(item, (*path, i))
    else:
        yield path


def put(value: Any, path: tuple[Any, ...], by: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = by


def forge(state: State, rng: random.Random) -> State:
    """The state with some numbers changed."""
    tensors, metadata = dict(state[0]), copy.deepcopy(state[1])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.random()
        if kind < 0.2:
            put(metadata, rng.choice(list(numbers_of(metadata))), rng.choice(EXTREMES))
            continue
        name = rng.choice(list(tensors))
        if kind < 0.7:
            name = rng.choice([n for n in tensors if n.endswith(".metadata")] or [name])
        array = np.array(tensors[name])
        if name.endswith((".metadata", ".configuration")):
            try:
                tree = json.loads(array.tobytes())
                put(tree, rng.choice(list(numbers_of(tree))), rng.choice(EXTREMES))
                text = json.dumps(tree)
            except (ValueError, TypeError, IndexError):
                continue  # forged before
            tensors[name] = np.frombuffer(text.encode(), np.uint8).copy()
        elif rng.random() < 0.2:
            changed = rng.choice((array[:0], array.ravel()[: array.size // 2], np.tile(array, 2)))
            tensors[name] = changed
        elif array.size:
            flat = array.reshape(-1)
            where = rng.randrange(flat.size)
            if array.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    flat[where] = rng.choice(FLOATS)
            elif array.dtype.kind in "iu":
                limits = np.iinfo(array.dtype)
                count = min(flat.size, rng.choice((1, 1, 4, 8)))
                for at in range(where, min(flat.size, where + count)):
                    flat[at] = rng.choice((limits.min, limits.max, 0, 1, rng.randrange(128)))
            tensors[name] = array
    return tensors, metadata


def one_line(kind: str, error: Exception) -> str:
    """How a case ended; raises AssertionError where the message is no sentence."""
    assert "\n" not in str(error), f"{type(error).__name__}: {str(error)[:300]}"
    return kind


def make_case(seed: int) -> Callable[[int], str]:
    from trpo_fast import TRPO
    from trpo_fast.envs import EnvironmentFailure

    warnings.simplefilter("ignore")
    settings: dict[str, Any] = {"n_envs": 1, "n_workers": 0, "batch_size": 16, "n_threads": 1}
    states: dict[str, State] = {}

    def state_of(name: str) -> State:
        if name not in states:
            agent = TRPO(ENVIRONMENTS[name], hidden_sizes=(4,), value_hidden_sizes=(4,), **settings)
            tensors, metadata = agent.learn(32, progress=False).state()
            agent.close()
            assert not metadata["unsaved_environments"], metadata["unsaved_environments"]
            states[name] = ({k: np.array(v) for k, v in tensors.items()}, metadata)
            states[name] = (states[name][0], json.loads(json.dumps(metadata)))
        return states[name]

    def case(i: int) -> str:
        rng = random.Random(f"{seed} {i}")
        (name,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        tensors, metadata = forge(state_of(name), rng)
        try:
            agent = TRPO.from_state(tensors, metadata, env=ENVIRONMENTS[name])
        except ValueError as error:  # CheckpointError is one, and what the core says of a gain
            return one_line("refused", error)
        try:
            with np.errstate(all="ignore"):
                agent.sampler.collect(8)
        except (ValueError, EnvironmentFailure, MemoryError) as error:
            return one_line("refused by the environment", error)
        finally:
            agent.close()
        return "new episodes" if "start anew" in agent.notice else "went on"

    return case


def fuzz(cases: int, seed: int = 0, first: int = 0) -> Outcome:
    """Run the cases in child processes."""
    return supervise(
        [str(Path(__file__).resolve())], first=first, cases=cases, seed=seed, case_timeout=120.0
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_cases(
            Path(options.child),
            make_case(options.seed),
            first=options.first,
            cases=options.cases,
            memory_megabytes=4096,
        )
        return 0
    outcome = fuzz(options.cases, options.seed, options.first)
    if not outcome.good:
        print(outcome.details())
    print(outcome.summary("forged agents"))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
