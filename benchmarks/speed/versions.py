"""Time this version of the package beside another one: nothing may become slower unnoticed.

    git worktree add ../before TAG && pip install --target ../before-installed ../before
    python benchmarks/speed/versions.py --before ../before-installed

``--before`` is a folder that holds the other version's ``trpo_fast`` package. Each version lives in a
process of its own; they are asked in turn for a second's work or less, in an order that changes from
round to round, so that a machine whose speed drifts treats both alike. Both are started several
times, because one process is some percent faster than the next for as long as it lives. The figure
is the median over rounds of the ratio within a round, before / now: above 1, this version is faster.
Agents hardly learn meanwhile (a tiny KL radius), because the episodes of two policies that learn are
not equally long. Only public functions that both versions have are used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools.report import quartiles

HERE = Path(__file__).resolve()
TINY_RADIUS = 1e-9
PARTS = ("product", "update", "CartPole-v1", "HalfCheetah-v5", "import")


# ---- in the process of one version: it finds trpo_fast on PYTHONPATH


def product_and_update() -> dict[str, Callable[[], dict[str, float]]]:
    """A Fisher-vector product and an update of 2,048 samples, 17-64-64-6, one thread."""
    import numpy as np

    from trpo_fast import core, runtime

    runtime.set_num_threads(1)
    policy = core.Policy(17, core.Distribution("gaussian", (6,)), seed=0)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2048, 17)).astype(np.float32)
    actions, advantages = policy.act(observations, seed=1), rng.normal(size=2048)
    F = policy.fisher_operator(observations, damping=0.1)
    vector, start = rng.normal(size=policy.n_parameters), policy.parameters

    def products() -> dict[str, float]:
        return {"product": timed(lambda: F(vector), 200)}

    def update() -> None:
        policy.parameters = start
        policy.update(observations, actions, advantages, cg_iterations=10)

    return {"product": products, "update": lambda: {"update": timed(update, 20)}}


def training(env_id: str) -> Callable[[], dict[str, float]]:
    """Rollouts, and whole iterations, of an agent that trains in this process."""
    from trpo_fast import TRPO

    agent = TRPO(
        env_id, seed=0, n_workers=0, n_threads=1, overlap_value_fit=False, max_kl=TINY_RADIUS
    )

    def iterations() -> dict[str, float]:
        rollouts: list[float] = []
        agent_steps, started = 2048 * 4, time.perf_counter()
        agent.learn(
            agent_steps,
            progress=False,
            callback=lambda _, record: rollouts.append(record["time/rollout_seconds"]),
        )
        whole = time.perf_counter() - started
        return {f"{env_id} rollout": sum(rollouts), f"{env_id} training": whole}

    return iterations


def timed(work: Callable[[], object], times: int) -> float:
    """Seconds of so many calls."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - started


def importing() -> dict[str, float]:
    """Seconds to import the package and its agent in a new interpreter."""
    code = "from trpo_fast import TRPO"
    return {"import": timed(lambda: subprocess.run([sys.executable, "-c", code], check=True), 3)}


def serve(parts: list[str]) -> None:
    """Answer each line of standard input, the name of a part, with its seconds as JSON."""
    work: dict[str, Callable[[], dict[str, float]]] = {"import": importing}
    work |= product_and_update() if {"product", "update"} & set(parts) else {}
    work |= {part: training(part) for part in parts if part not in ("product", "update", "import")}
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(work[line.strip()]()), flush=True)


# ---- beside both


class Side:
    """One version in a process of its own."""

    def __init__(self, package: Path, parts: list[str]) -> None:
        path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--serve", ",".join(parts)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side ended early; its error stands above")
        return line

    def measure(self, part: str) -> Mapping[str, float]:
        """Seconds of one turn of this part."""
        assert self._process.stdin is not None
        self._process.stdin.write(part + "\n")
        self._process.stdin.flush()
        measured: dict[str, float] = json.loads(self._read())
        return measured

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(
    before: Path, now: Path, parts: list[str], *, starts: int, rounds: int
) -> dict[str, list[float]]:
    """Ratios before / now, one a round of every start, by figure."""
    ratios: dict[str, list[float]] = {}
    for _ in range(starts):
        sides = Side(before, parts), Side(now, parts)
        for part in parts:
            for side in sides:
                side.measure(part)  # warm
            for r in range(rounds):
                order = sides if r % 2 == 0 else sides[::-1]
                seen = {side: side.measure(part) for side in order}
                for figure, seconds in seen[sides[1]].items():
                    ratios.setdefault(figure, []).append(seen[sides[0]][figure] / seconds)
        for side in sides:
            side.end()
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="folder with the other trpo_fast package")
    parser.add_argument("--now", type=Path, help="folder with this one; default: the one imported")
    parser.add_argument("--starts", type=int, default=8, help="processes of each version")
    parser.add_argument("--rounds", type=int, default=3, help="rounds a start")
    parser.add_argument("--parts", default=",".join(PARTS), help="product, update, import, env ids")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve.split(","))
        return 0
    if arguments.before is None or not (arguments.before / "trpo_fast").is_dir():
        parser.error(f"--before: expected a folder that holds trpo_fast, got {arguments.before}")
    for name in ("starts", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(arguments, name)}")
    parts: list[str] = arguments.parts.split(",")
    now = arguments.now or _installed()
    starts, rounds = arguments.starts, arguments.rounds
    ratios = compare(arguments.before, now, parts, starts=starts, rounds=rounds)
    print(
        f"{'before / now':30} {'median':>8} {'quartiles':>16}   {starts} starts, {rounds} rounds each"
    )
    for figure, seen in ratios.items():
        low, high = quartiles(seen)
        print(f"{figure:30} {statistics.median(seen):8.3f} {low:7.3f} to {high:.3f}")
    return 0


def _installed() -> Path:
    import trpo_fast

    return Path(trpo_fast.__file__).parents[1]


if __name__ == "__main__":
    sys.exit(main())
