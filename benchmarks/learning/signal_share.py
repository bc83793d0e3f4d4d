"""How much of a gradient is signal as training goes on, and which damping makes the most of it.

    python benchmarks/learning/signal_share.py --envs InvertedPendulum-v5,Hopper-v5 --timesteps 150_000

The default configuration trains; over the last updates before every sixth of the run, two halves of its
environments judge each other's direction x = (F + lambda I)^{-1} g at several dampings lambda
(`trpo_fast.core.Policy.gradient_signal`):

    rho        = mean validated gain / mean apparent gain       1: no noise, 0: nothing else
    efficiency = mean of validated gain / sqrt(apparent gain)   the gain on unseen samples of a step of
                                                                given length in (F + lambda I)

Rows name the steps taken, sigma, and the damping of the best efficiency in units of 1 and of 1/sigma^2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def measure(env: str, timesteps: int, seed: int, updates: int, parts: int) -> list[dict[str, Any]]:
    """Train, and measure over the last `updates` updates of each part of the run."""
    from trpo_fast import TRPO
    from trpo_fast.training.signal import measured_signal
    from trpo_fast.training.trust_region import mean_precision, natural_step_options

    seen: list[list[tuple[float, float]]] = []
    rows: list[dict[str, Any]] = []

    class Measured(TRPO):
        """Looks at a batch at several dampings before each update near the end of a part."""

        def improve_policy(self, batch: Any) -> Any:
            part = timesteps / parts
            left = part - self.timesteps % part
            if left <= updates * self.config.batch_size:
                options = natural_step_options(self.current, self.policy, batch.observations)
                gains = []
                for damping in DAMPINGS:
                    options.cg_damping = damping
                    found = measured_signal(self.policy, batch, self.sampler.n_envs, options)
                    if found is not None:
                        gains.append((found.validated_gain, found.apparent_gain))
                if len(gains) == len(DAMPINGS):
                    seen.append(gains)
                if left <= self.config.batch_size and seen:
                    precision = mean_precision(self.policy, batch.observations)
                    rows.append(summary(self.timesteps, precision, np.array(seen)))
                    seen.clear()
            return super().improve_policy(batch)

    agent = Measured(env, seed=seed, n_threads=1, n_workers=0)
    agent.learn(timesteps, progress=False)
    agent.close()
    return rows


def summary(timesteps: int, precision: float, gains: Any) -> dict[str, Any]:
    """Shares and efficiencies of measurements (updates, dampings, validated and apparent gain)."""
    validated, apparent = gains[..., 0], gains[..., 1]
    efficiency = (validated / np.sqrt(apparent)).mean(axis=0)
    return {
        "timesteps": timesteps,
        "updates": len(gains),
        "sigma": precision**-0.5,
        "share": (validated.mean(axis=0) / apparent.mean(axis=0)).tolist(),
        "efficiency": efficiency.tolist(),
        "best_damping": DAMPINGS[int(np.argmax(efficiency))],
    }


def main() -> int:
    """Parse flags, train, print a table for each environment."""
    parser = argparse.ArgumentParser(description="signal in gradients, and the damping for it")
    parser.add_argument("--envs", type=report.comma_list, default=["InvertedPendulum-v5"])
    parser.add_argument("--timesteps", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=15, help="that a row goes over")
    parser.add_argument("--parts", type=int, default=3, help="rows: one for each part of the run")
    report.add_output_flags(parser)
    flags = parser.parse_args()
    for name in ("timesteps", "updates", "parts"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(flags, name)}")
    facts = report.machine_facts(1)
    report.print_facts(facts)
    found = {}
    for env in flags.envs:
        report.quiet_simulator(env)
        rows = measure(env, flags.timesteps, flags.seed, flags.updates, flags.parts)
        found[env] = rows
        for title, key in (("share of signal", "share"), ("efficiency", "efficiency")):
            report.print_table(
                [
                    "steps",
                    "sigma",
                    *(f"{damping:g}" for damping in DAMPINGS),
                    "best",
                    "best sigma^2",
                ],
                [
                    [
                        f"{row['timesteps']:,}",
                        f"{row['sigma']:.2f}",
                        *(f"{value:.3f}" for value in row[key]),
                        f"{row['best_damping']:g}",
                        f"{row['best_damping'] * row['sigma'] ** 2:.2g}",
                    ]
                    for row in rows
                ],
                title=f"{env}: {title} by damping",
            )
    report.write_json(flags.json, {"facts": facts, "rows": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
