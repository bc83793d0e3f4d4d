"""Where the time of a training goes on 1 to 16 cores: a model fitted to one and two.

    python benchmarks/speed/cores.py --env HalfCheetah-v5

Trains in one process with one thread, and with two workers and two threads, in turns, and takes medians
over iterations. From them follow, in seconds of an iteration,

    S           rollout in one process, value fit not beside it
    F           value fit on one thread
    u(c)        update: u_s + u_p / c through both measurements (Amdahl)
    b           what two workers need beyond S / 2 or (S + F) / 2: messages, and waiting for the slowest

and for c cores and w = min(c, n_envs) workers, the fit beside the rollout,

    T(c) = u(c) + max(S / w, (S + F) / c, F) + b

A model, not a measurement, beyond two cores. The last columns say what T consists of, and what a core
more would not make shorter.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from trpo_fast import TRPO

CORES = (1, 2, 4, 8, 16)
PARTS = {"rollout": "rollout_seconds", "update": "update_seconds", "fit": "value_fit_seconds"}


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the table as Markdown; 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--n-envs", type=int, nargs="+", default=[8, 16], help="environments")
    parser.add_argument("--batch-size", type=int, default=2048, help="steps of an iteration")
    parser.add_argument("--turns", type=int, default=6, help="of each side")
    parser.add_argument("--iterations", type=int, default=8, help="of a turn")
    given = parser.parse_args(arguments)
    report.quiet_simulator(given.env)
    report.print_facts(report.machine_facts())
    one, two = _measured(given)
    size = given.batch_size
    parallel = min(one["update"], max(0.0, 2.0 * (one["update"] - two["update"])))
    serial = one["update"] - parallel
    simulator, fit = one["rollout"], one["fit"]
    barrier = max(0.0, two["whole"] - two["update"] - max(simulator + fit, 2.0 * fit) / 2)
    print(
        f"\nS {1e3 * simulator:.1f} ms, F {1e3 * fit:.1f} ms, u {1e3 * serial:.1f} + "
        f"{1e3 * parallel:.1f} / c ms, b {1e3 * barrier:.1f} ms; measured: "
        f"{size / one['whole']:,.0f} steps/s on one core, {size / two['whole']:,.0f} on two\n"
    )
    print("| cores | environments | steps/s | rollout | update | waiting for the fit | barrier |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_envs in given.n_envs:
        for cores in CORES:
            update = serial + parallel / cores
            # in one process nothing is beside the rollout: the fit shares the only core
            alone = simulator / min(cores, n_envs)
            beside = max(alone, (simulator + fit) / cores, fit)
            waits = barrier if cores > 1 else 0.0
            whole = update + beside + waits
            shares = (alone, update, beside - alone, waits)
            cells = " | ".join(f"{part / whole:.0%}" for part in shares)
            print(f"| {cores} | {n_envs} | {size / whole:,.0f} | {cells} |")
    return 0


def _measured(given: argparse.Namespace) -> list[dict[str, float]]:
    """Median seconds of an iteration and its parts, in one process and by two workers."""
    sides = ((0, 1), (2, 2))
    seen: list[dict[str, list[float]]] = [{} for _ in sides]
    for _ in range(given.turns):
        for (workers, threads), rows in zip(sides, seen, strict=True):
            for record in _turn(given, workers, threads)[2:]:  # the first ones warm up
                for name, key in PARTS.items():
                    rows.setdefault(name, []).append(record[f"time/{key}"])
                rate = record["time/steps_per_second"]
                rows.setdefault("whole", []).append(given.batch_size / rate)
    return [{name: median(values) for name, values in rows.items()} for rows in seen]


def _turn(given: argparse.Namespace, workers: int, threads: int) -> list[dict[str, Any]]:
    """The records of a short training, alone on the machine."""
    records: list[dict[str, Any]] = []
    with TRPO(
        given.env,
        seed=0,
        n_workers=workers,
        n_threads=threads,
        n_envs=max(given.n_envs[0], 2),
        batch_size=given.batch_size,
        overlap_value_fit=workers > 0,
    ) as agent:
        agent.learn(
            given.iterations * given.batch_size,
            progress=False,
            callback=lambda _agent, record: records.append(record),
        )
    return records


if __name__ == "__main__":
    sys.exit(main())
