"""How well a value function knows batches that it has not seen, and what its fit costs.

    python benchmarks/learning/value_fits.py --envs HalfCheetah-v5,Hopper-v5 --timesteps 300_000

The default configuration trains. Beside it value functions with other settings are fitted to the same
batches, and each is asked for the next one before it is fitted to it: explained variance
1 - Var(R - V) / Var(R) of the returns R that all are fitted to, means over quarters of the run. The
times are medians of a fit alone, with nothing beside it.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning.learning import variant
from benchmarks.tools import report

QUARTERS = 4
VARIANTS = [
    "Adam x 5:value_epochs=5",
    "Adam x 10:value_epochs=10",
    "Adam x 20:value_epochs=20",
    "L-BFGS:value_optimizer=lbfgs",
]


def measure(env: str, timesteps: int, seed: int, threads: int, names: list[str]) -> Any:
    """Explained variance (variants, updates) and seconds (variants, updates) of fits."""
    from trpo_fast import TRPO, TRPOConfig
    from trpo_fast.training.record import explained_variance
    from trpo_fast.training.value_fitting import ValueFitting

    others = []
    explained: list[list[float]] = [[] for _ in names]
    seconds: list[list[float]] = [[] for _ in names]

    class Watched(TRPO):
        """Fits other value functions to the same batches."""

        def start_value_fit(self, batch: Any) -> None:
            for i, other in enumerate(others):
                values = other.predict(batch.observations)
                explained[i].append(explained_variance(values, batch.returns))
                rate = other.config.value_learning_rate
                other.start(
                    batch, iteration=self.iteration, learning_rate=rate, background=executor
                )
                seconds[i].append(other.finish().seconds)
            super().start_value_fit(batch)

    agent = Watched(env, seed=seed, n_threads=threads, n_workers=0, overlap_value_fit=False)
    for name in names:
        settings = {"seed": seed, "overlap_value_fit": False, **variant(name).settings}
        others.append(ValueFitting(TRPOConfig(**settings), agent.policy.obs_dim))
    with ThreadPoolExecutor(1) as executor:
        agent.learn(timesteps, progress=False)
    agent.close()
    return np.array(explained), np.array(seconds)


def main() -> int:
    """Parse flags, train, print a table for each environment."""
    parser = argparse.ArgumentParser(description="value fits: explained variance and time")
    parser.add_argument("--envs", type=report.comma_list, default=["HalfCheetah-v5", "Hopper-v5"])
    parser.add_argument("--timesteps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, help="NAME:FIELD=VALUE,...")
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if flags.timesteps < 10 * 2048 or flags.threads < 1:
        parser.error("--timesteps: expected some 20,000 at least, and --threads at least 1")
    facts = report.machine_facts(flags.threads)
    report.print_facts(facts)
    found = {}
    for env in flags.envs:
        report.quiet_simulator(env)
        explained, seconds = measure(
            env, flags.timesteps, flags.seed, flags.threads, flags.variants
        )
        quarters = [
            part.mean(axis=1) for part in np.array_split(explained[:, 1:], QUARTERS, axis=1)
        ]
        rows = []
        for i, name in enumerate(flags.variants):
            cells = [f"{quarter[i]:.3f}" for quarter in quarters]
            rows.append([name.partition(":")[0], *cells, f"{1e3 * np.median(seconds[i]):.1f} ms"])
        found[env] = rows
        heads = ["", *(f"quarter {q + 1}" for q in range(QUARTERS)), "a fit"]
        report.print_table(heads, rows, title=f"{env}: explained variance of batches not seen")
    report.write_json(flags.json, {"facts": facts, "tables": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
