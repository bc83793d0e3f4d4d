"""Count the Fisher-vector products that plain and preconditioned conjugate gradient need.

    python benchmarks/speed/preconditioning.py --envs HalfCheetah-v5,Ant-v5,Humanoid-v5,ALE/Boxing-v5

On the batch that a short training run ends with, (F + lambda I) x = g is solved three ways:

* plain conjugate gradient;
* diagonal: Jacobi preconditioning with the exact diagonal of F + lambda I, whose cost is left out;
* Kronecker: ``cg_preconditioner="kronecker"``, the agent's default (Martens & Grosse 2015).

The table gives the products until the relative residual falls below each tolerance, in float64, and
the time to the first of them in float32 on one thread, preconditioner included. What a truncated
solve is worth comes last: g^T x at the same x^T (F + lambda I) x, the first-order gain of a step that
fills the trust region, as a percentage of that of the exact solution.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from trpo_fast import TRPO, core
from trpo_fast.training.trust_region import natural_step_options

TOLERANCES = (1e-1, 1e-2, 1e-3)
TRUNCATIONS = (6, 10, 15)  # the agent's default; the paper's and Tianshou's; sb3-contrib's
Vector = Any


def batch_of(env: str, timesteps: int, batch_size: int) -> tuple[core.Policy, Any, Vector, float]:
    """Policy in float64, normalised observations, surrogate gradient and damping of a batch."""
    kwargs = {"obs_type": "ram"} if "ALE" in env else None
    report.quiet_simulator(env)
    agent = TRPO(
        env, seed=0, n_workers=0, dtype="float64", batch_size=batch_size, env_kwargs=kwargs
    )
    agent.learn(timesteps, progress=False)
    rollout = agent.collect()
    batch = agent.advantages(rollout)
    a = batch.advantages
    gradient = agent.policy.surrogate_gradient(
        batch.observations, batch.actions, (a - a.mean()) / a.std(), normalized=True
    )
    damping = natural_step_options(agent.current, agent.policy, batch.observations).cg_damping
    agent.close()
    return agent.policy, batch.observations, gradient, damping


def products_needed(
    operator: Callable[[Vector], Vector],
    preconditioner: Callable[[Vector], Vector] | None,
    b: Vector,
    most: int,
) -> list[int | None]:
    """Products until the relative residual is below each tolerance; None beyond ``most``."""
    needed: list[int | None] = []
    for tolerance in TOLERANCES:
        result = core.conjugate_gradient(
            operator, b, max_iterations=most, tolerance=tolerance, preconditioner=preconditioner
        )
        needed.append(result.iterations if result.relative_residual <= tolerance else None)
    return needed


def gain(
    operator: Callable[[Vector], Vector],
    preconditioner: Callable[[Vector], Vector] | None,
    b: Vector,
    products: int,
) -> float:
    """b^T x / sqrt(x^T A x) of the iterate x after so many products."""
    x = core.conjugate_gradient(
        operator, b, max_iterations=products, tolerance=1e-12, preconditioner=preconditioner
    ).x
    return float(b @ x / np.sqrt(x @ operator(x)))


def diagonal_of(operator: Callable[[Vector], Vector], n: int) -> Vector:
    """The exact diagonal, one product an entry."""
    diagonal, unit = np.empty(n), np.zeros(n)
    for i in range(n):
        unit[i] = 1.0
        diagonal[i] = operator(unit)[i]
        unit[i] = 0.0
    return diagonal


def solve_time(
    policy: core.Policy, x: Any, g: Vector, damping: float, preconditioned: bool, rounds: int
) -> report.Timing:
    """Everything from a cached batch to x at a relative residual of 0.1, in float32."""
    fast = core.Policy(
        policy.obs_dim,
        policy.distribution,
        hidden_sizes=policy.hidden_sizes,
        activation=policy.activation,
    )
    fast.parameters = policy.parameters.astype(np.float32)
    F = fast.fisher_operator(x.astype(np.float32), damping=damping)

    def solve() -> None:
        M = F.kronecker_preconditioner() if preconditioned else None
        core.conjugate_gradient(F, g, max_iterations=500, tolerance=0.1, preconditioner=M)

    return report.time_paired({"solve": solve}, rounds=rounds)["solve"]


def main() -> None:
    parser = argparse.ArgumentParser(description="count the products of preconditioned CG")
    parser.add_argument("--envs", default="HalfCheetah-v5,Ant-v5,Humanoid-v5,ALE/Boxing-v5")
    parser.add_argument(
        "--timesteps", type=int, default=40_000, help="of training before the batch"
    )
    parser.add_argument("--most", type=int, default=200, help="products")
    parser.add_argument("--batch-size", type=int, default=2048, help="samples of the batch")
    parser.add_argument("--rounds", type=int, default=11, help="of the timing")
    arguments = parser.parse_args()

    rows = []
    for env in arguments.envs.split(","):
        policy, x, g, damping = batch_of(env, arguments.timesteps, arguments.batch_size)
        F = policy.fisher_operator(x, normalized=True, damping=damping)
        diagonal = diagonal_of(F, len(g))
        ways: dict[str, Callable[[Vector], Vector] | None] = {
            "plain": None,
            "diagonal": lambda r, d=diagonal: r / d,  # type: ignore[misc]
            "Kronecker": F.kronecker_preconditioner(),
        }
        best = gain(F, ways["Kronecker"], g, 2 * arguments.most)
        for name, preconditioner in ways.items():
            needed = products_needed(F, preconditioner, g, arguments.most)
            cells = [str(n) if n is not None else f"> {arguments.most}" for n in needed]
            seconds = ""
            if name != "diagonal":
                seconds = report.milliseconds(
                    solve_time(policy, x, g, damping, name == "Kronecker", arguments.rounds)
                )
            shares = [f"{gain(F, preconditioner, g, n) / best:.1%}" for n in TRUNCATIONS]
            rows.append([env, f"{len(x):,}", f"{damping:.2g}", name, *cells, seconds, *shares])
    tolerances = [f"{t:g}" for t in TOLERANCES]
    header = ["batch", "N", "damping", "conjugate gradient", *tolerances, "ms to 0.1"]
    header += [f"gain at {n}" for n in TRUNCATIONS]
    print("products until the relative residual is below")
    report.print_table(header, rows)


if __name__ == "__main__":
    main()
