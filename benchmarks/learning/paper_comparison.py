"""The comparison of the TRPO paper (Schulman et al. 2015, Figure 4), with today's simulators.

    python benchmarks/learning/paper_comparison.py --jobs 2 --out runs/paper   under 30 minutes on 2 cores
    python benchmarks/learning/paper_comparison.py --scale 0.1 --seeds 5   days rather than minutes
    python benchmarks/learning/paper_comparison.py --iterations 2 --batch 1000 --seeds 1   a try

Cart-pole (InvertedPendulum-v5: a linear policy has exactly the paper's six parameters), Swimmer,
Hopper and Walker, by vine, single path, natural gradient, maximum KL (cart-pole only), empirical
Fisher, CEM and CMA-ES. From the paper: one hidden layer of 30 (Swimmer) or 50 units, delta 0.01,
gamma 0.99, ten iterations of conjugate gradient with the Fisher matrix on a tenth of the batch,
Monte Carlo Q-values without a value function, four branches a state, and

=========  =====================  =====================  ==================
           simulator steps        vine: states a batch,  iterations
           a batch                longest branch
=========  =====================  =====================  ==================
Swimmer       50,000                500,  50             200
Hopper     1,000,000              2,500, 100             200
Walker     1,000,000              2,500, 100             200
=========  =====================  =====================  ==================

``--scale 1`` is that. A smaller scale shortens batches in proportion, but not below 5,000 steps,
and iterations with its square root, but not below 50; a batch shorter than the paper's takes fewer
vine states and shorter branches, each with the square root of the ratio, and what is left of the
batch after the branches is trunk. The default is the floor: 50 iterations of 5,000 steps. The paper
does not give the cart-pole's structure; it takes Swimmer's.

Not in the paper: tanh, observations normalised by running statistics, advantages standardised (they
only shift and scale Q), and the line search also asks for a better surrogate. The paper tuned the
fixed step of the natural gradient; here it is our default. Branches below the paper's length see no
further than they go, as nothing bootstraps them.

Curves are deterministic evaluations on the way, the mean over seeds with a band of one standard
deviation: ``paper.png``. Beside it ``paper.csv``, ``paper.json`` and one JSON per run.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning import method_runs
from benchmarks.learning.method_runs import Job
from benchmarks.tools import report

FLOOR_BATCH, FLOOR_ITERATIONS = 5000, 50
BRANCHES = 4
SHORTEST_BRANCH = 5
TRUNK_SHARE = 0.2  # of a batch, at least
DEFAULT_SCALE = 1e-3


@dataclass(frozen=True)
class Setting:
    """A panel of Figure 4."""

    env: str
    hidden_sizes: tuple[int, ...]
    batch_size: int  # simulator steps of an update
    states: int  # of the rollout set
    branch_steps: int
    iterations: int = 200


SETTINGS = {
    "cart-pole": Setting("InvertedPendulum-v5", (), 50_000, 500, 50),
    "Swimmer": Setting("Swimmer-v5", (30,), 50_000, 500, 50),
    "Hopper": Setting("Hopper-v5", (50,), 1_000_000, 2500, 100),
    "Walker": Setting("Walker2d-v5", (50,), 1_000_000, 2500, 100),
}

METHODS = (
    "vine",
    "single path",
    "natural gradient",
    "max KL",
    "empirical Fisher",
    "CEM",
    "CMA-ES",
)


@dataclass(frozen=True)
class Structure:
    """Steps of a batch and how the vine spends them."""

    batch_size: int
    iterations: int
    states: int
    branch_steps: int

    @property
    def trunk(self) -> int:
        """What the branches leave, if none of them ends early."""
        return self.batch_size - self.states * BRANCHES * self.branch_steps


def structure(
    setting: Setting, scale: float, batch_size: int | None = None, iterations: int | None = None
) -> Structure:
    """The paper's batch structure at a scale; the two arguments override it."""
    if batch_size is None:
        floor = min(FLOOR_BATCH, setting.batch_size)
        batch_size = max(floor, round(scale * setting.batch_size))
    if iterations is None:
        iterations = max(FLOOR_ITERATIONS, round(math.sqrt(scale) * setting.iterations))
    shrink = math.sqrt(batch_size / setting.batch_size)
    branch_steps = max(SHORTEST_BRANCH, round(shrink * setting.branch_steps))
    room = int((1.0 - TRUNK_SHARE) * batch_size) // (BRANCHES * branch_steps)
    states = max(1, min(room, max(2, round(shrink * setting.states))))
    return Structure(batch_size, iterations, states, branch_steps)


def job(method: str, panel: str, seed: int, structure: Structure, evaluations: int) -> Job:
    """One run of a method in a panel."""
    setting = SETTINGS[panel]
    shared: dict[str, Any] = {
        "hidden_sizes": setting.hidden_sizes,
        "batch_size": structure.batch_size,
        # few environments, so that a small batch holds whole episodes too
        "n_envs": max(1, min(8, structure.batch_size // 2500)),
        "gamma": 0.99,
        "max_kl": 0.01,
        "cg_iterations": 10,
        "cg_preconditioner": "none",
        "fisher_fraction": 0.1,
        "sampling": "steps",  # batches of one size, for all methods alike
    }
    kind = "SinglePathTRPO"
    if method == "vine":
        kind = "VineTRPO"
        # the vine has one Fisher matrix over its rollout set, a small part of the batch anyhow
        shared |= {"batch_size": structure.trunk, "fisher_fraction": 1.0}
        shared["vine"] = {
            "states": structure.states,
            "branches": BRANCHES,
            "branch_steps": structure.branch_steps,
            "bootstrap": False,
        }
    elif method == "natural gradient":
        kind = "SinglePathNPG"
    elif method == "max KL":
        shared["kl_constraint"] = "max"
    elif method == "empirical Fisher":
        shared["fisher"] = "empirical"
    elif method in ("CEM", "CMA-ES"):
        kind, shared = method.lower(), {"hidden_sizes": setting.hidden_sizes}
    if kind.startswith("SinglePath"):
        shared["baseline"] = "mean"  # a constant: the paper has none that depends on time
    return Job(
        method=method,
        kind=kind,
        env=setting.env,
        seed=seed,
        timesteps=structure.batch_size * structure.iterations,
        settings=shared,
        evaluations=evaluations,
        episodes=3,
        final_episodes=10,
        panel=panel,
    )


def plan(flags: argparse.Namespace) -> list[Job]:
    """All runs; the seeds in turn, so that a picture of what is there is always a fair one."""
    return [
        job(
            method,
            panel,
            seed,
            structure(SETTINGS[panel], flags.scale, flags.batch, flags.iterations),
            flags.evaluations,
        )
        for seed in range(flags.seeds)
        for panel in flags.panels
        for method in flags.methods
        if method != "max KL" or panel == "cart-pole"  # as in the paper
    ]


def show(results: Sequence[dict[str, Any]]) -> None:
    """Print the final returns: a row per method, a column per panel."""
    panels = method_runs.places(results)
    columns = {panel: method_runs.by_method(results, panel) for panel in panels}
    report.print_table(
        ["final return", *panels],
        [
            [
                method,
                *(
                    method_runs.mean_and_deviation(
                        [method_runs.final_mean(run) for run in columns[panel][method]]
                    )
                    if method in columns[panel]
                    else ""
                    for panel in panels
                ),
            ]
            for method in METHODS
            if any(method in column for column in columns.values())
        ],
        title="Deterministic evaluation of the final policy, mean over seeds ± their deviation",
    )


def main() -> int:
    """Parse flags, train, print the table, draw; 1 if a run failed."""
    parser = argparse.ArgumentParser(description="the comparison of the TRPO paper's Figure 4")
    parser.add_argument("--scale", type=float, default=DEFAULT_SCALE, help="1 is the paper")
    parser.add_argument("--panels", type=report.comma_list, default=list(SETTINGS))
    parser.add_argument("--methods", type=report.comma_list, default=list(METHODS))
    parser.add_argument("--iterations", type=int, default=None, help="instead of the scale's")
    parser.add_argument("--batch", type=int, default=None, help="steps, instead of the scale's")
    parser.add_argument("--evaluations", type=int, default=12, help="on the way, per run")
    method_runs.add_run_flags(parser, out="runs/paper", seeds=3)
    flags = parser.parse_args()
    method_runs.check_run_flags(parser, flags, "iterations", "evaluations")
    if not 0.0 < flags.scale <= 1.0:
        parser.error(f"--scale: expected a number in (0, 1], got {flags.scale}")
    if flags.batch is not None and flags.batch < 100:
        parser.error(f"--batch: expected at least 100 steps, got {flags.batch}")
    for name, known in (("panels", SETTINGS), ("methods", METHODS)):
        for value in getattr(flags, name):
            if value not in known:
                parser.error(f"--{name}: expected of {', '.join(known)}, got {value!r}")

    facts = report.machine_facts()
    report.print_facts(facts)
    for panel in flags.panels:
        s = structure(SETTINGS[panel], flags.scale, flags.batch, flags.iterations)
        print(
            f"{panel} ({SETTINGS[panel].env}): {s.iterations} iterations of {s.batch_size:,} steps; "
            f"vine: {s.states} states, {BRANCHES} branches of up to {s.branch_steps} steps"
        )
    every = plan(flags)
    flags.out.mkdir(parents=True, exist_ok=True)
    results = method_runs.run_all(every, flags.out, flags.jobs, resume=flags.resume)
    if not results:
        return 1
    show(results)
    report.write_json(
        flags.out / "paper.json",
        {
            "facts": facts,
            "scale": flags.scale,
            "runs": [{k: v for k, v in run.items() if k != "curve"} for run in results],
        },
    )
    method_runs.write_csv(flags.out / "paper.csv", results)
    method_runs.plot(flags.out / "paper.png", results, title="The setting of the paper's Figure 4")
    print(f"\nwrote {flags.out / 'paper.png'} and {flags.out / 'paper.csv'}")
    return 0 if len(results) == len(every) else 1


if __name__ == "__main__":
    raise SystemExit(main())
