"""Count the Fisher-vector products that plain and preconditioned conjugate gradient need.

    python benchmarks/preconditioning.py --envs HalfCheetah-v5,Ant-v5,Humanoid-v5,ALE/Boxing-v5

On the batch that a short training run ends with, (F + lambda I) x = g is solved three ways:

* plain conjugate gradient, what the library does;
* diagonal: Jacobi preconditioning with the exact diagonal of F + lambda I (its cost is left out);
* Kronecker: per layer A (x) G with A = mean h h^T and G = mean delta M delta^T of the same forward and
  backward pass, damped by sqrt(lambda) in each factor (Martens & Grosse 2015); its cost is left out too.

The table gives the products until the relative residual falls below each tolerance, in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import report
from trpo_fast import TRPO, core

TOLERANCES = (1e-1, 1e-2, 1e-3)
Vector = Any


def batch_of(env: str, timesteps: int) -> tuple[core.Policy, Any, Vector, float]:
    """Policy in float64, normalised observations, surrogate gradient and damping of a batch."""
    kwargs = {"obs_type": "ram"} if "ALE" in env else None
    agent = TRPO(env, seed=0, n_workers=0, dtype="float64", env_kwargs=kwargs)
    agent.learn(timesteps, progress=False)
    rollout = agent.sampler.collect(agent.config.batch_size // agent.sampler.n_envs)
    batch = agent._advantages(rollout)
    a = batch.advantages
    gradient = agent.policy.surrogate_gradient(
        batch.observations, batch.actions, (a - a.mean()) / a.std()
    )
    damping = agent._update_settings()["cg_damping"]
    agent.close()
    return agent.policy, batch.observations, gradient, damping


def products_needed(
    operator: Callable[[Vector], Vector],
    precondition: Callable[[Vector], Vector],
    b: Vector,
    most: int,
) -> list[int | None]:
    """Preconditioned conjugate gradient (Shewchuk 1994, section 12); products for each tolerance."""
    x = np.zeros_like(b)
    r = b.copy()
    z = precondition(r)
    p = z.copy()
    rz = r @ z
    needed: list[int | None] = [None] * len(TOLERANCES)
    for product in range(1, most + 1):
        q = operator(p)
        alpha = rz / (p @ q)
        x += alpha * p
        r -= alpha * q
        residual = np.linalg.norm(r) / np.linalg.norm(b)
        for i, tolerance in enumerate(TOLERANCES):
            if needed[i] is None and residual <= tolerance:
                needed[i] = product
        if needed[-1] is not None:
            break
        z = precondition(r)
        rz, old = r @ z, rz
        p = z + (rz / old) * p
    return needed


def kronecker(policy: core.Policy, x: Any, damping: float) -> Callable[[Vector], Vector]:
    """The preconditioner of a tanh network from one forward and one backward pass."""
    layout, flat = policy.parameter_layout, policy.parameters
    weights = [flat[layout[k][0]].reshape(layout[k][1]) for k in layout if k.endswith("weight")]
    biases = [flat[layout[k][0]] for k in layout if k.endswith("bias")]
    inputs = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(np.tanh(inputs[-1] @ w.T + b))
    outputs = inputs[-1] @ weights[-1].T + biases[-1]

    # columns of M^{1/2}: 1/sigma for a Gaussian, the square root of diag(p) - p p^T for logits
    n, size = outputs.shape
    if policy.distribution.kind == "gaussian":
        inverse_std = np.exp(-flat[layout["log_std"][0]])
        roots = np.broadcast_to(np.diag(inverse_std), (n, size, size))
    else:
        p = np.exp(outputs - outputs.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        root = np.sqrt(p)
        roots = root[:, :, None] * (np.eye(size) - root[:, :, None] * root[:, None, :])
    delta = roots  # (n, outputs, columns)
    factors: list[tuple[Any, Any]] = []
    for layer in reversed(range(len(weights))):
        h = np.hstack([inputs[layer], np.ones((n, 1))])
        covariance = h.T @ h / n
        g = np.einsum("nik,njk->ij", delta, delta) / n
        # pi balances the factors, so that damping weighs alike in both
        pi = np.sqrt((np.trace(covariance) / len(covariance)) / (np.trace(g) / len(g)))
        a_inverse = np.linalg.inv(covariance + pi * np.sqrt(damping) * np.eye(len(covariance)))
        g_inverse = np.linalg.inv(g + np.sqrt(damping) / pi * np.eye(len(g)))
        factors.insert(0, (a_inverse, g_inverse))
        if layer:
            delta = np.einsum("oi,nok->nik", weights[layer], delta)
            delta = delta * (1.0 - inputs[layer] ** 2)[:, :, None]

    def solve(r: Vector) -> Vector:
        z = r / (2.0 + damping)  # log_std: F = 2
        at = 0
        for (a_inverse, g_inverse), w in zip(factors, weights, strict=True):
            n_out, n_in = w.shape
            block = np.hstack(
                [
                    r[at : at + w.size].reshape(n_out, n_in),
                    r[at + w.size : at + w.size + n_out, None],
                ]
            )
            solved = g_inverse @ block @ a_inverse
            z[at : at + w.size] = solved[:, :-1].ravel()
            z[at + w.size : at + w.size + n_out] = solved[:, -1]
            at += w.size + n_out
        return z

    return solve


def main() -> None:
    parser = argparse.ArgumentParser(description="count the products of preconditioned CG")
    parser.add_argument("--envs", default="HalfCheetah-v5,Ant-v5,Humanoid-v5,ALE/Boxing-v5")
    parser.add_argument(
        "--timesteps", type=int, default=40_000, help="of training before the batch"
    )
    parser.add_argument("--most", type=int, default=200, help="products")
    arguments = parser.parse_args()

    rows = []
    for env in arguments.envs.split(","):
        policy, x, g, damping = batch_of(env, arguments.timesteps)
        F = policy.fisher_operator(x, damping=damping)
        unit = np.zeros(len(g))
        diagonal = np.empty(len(g))
        for i in range(len(g)):
            unit[i] = 1.0
            diagonal[i] = F(unit)[i]
            unit[i] = 0.0
        ways: dict[str, Callable[[Vector], Vector]] = {
            "plain": lambda r: r,
            "diagonal": lambda r, d=diagonal: r / d,  # type: ignore[misc]
            "Kronecker": kronecker(policy, x, damping),
        }
        for name, precondition in ways.items():
            needed = products_needed(F, precondition, g, arguments.most)
            cells = [str(n) if n is not None else f"> {arguments.most}" for n in needed]
            rows.append([env, f"{damping:.2g}", name, *cells])
    header = ["batch", "damping", "conjugate gradient", *(f"{t:g}" for t in TOLERANCES)]
    print("products until the relative residual is below")
    report.print_table(header, rows)


if __name__ == "__main__":
    main()
