"""Time the Fisher-vector product against double backpropagation, analytic PyTorch and JAX.

The table of the README:

    python benchmarks/speed/fvp.py --sizes small,medium,large --threads 1,2 --json fvp.json

One product (F + 0.1 I) v of a tanh network with a diagonal Gaussian head, float32, everything that
does not depend on v prepared outside the clock, as inside conjugate gradient:

- ``double backprop``: what PyTorch libraries do; the graph of the KL's gradient is kept.
- ``torch analytic``: ``analytic_torch.py``, the fastest of several block sizes.
- ``torch.func``: ``linearize`` and ``vjp`` of ``torch.func``; ``torch.func compiled``: a jvp and a vjp
  through ``torch.compile``, where that works.
- ``jax``: jitted, linearised once outside; ``jax analytic``: hand-written passes, jitted.
- ``trpo_fast``: the library's product, with cached activations and, for few outputs, the cached
  Jacobian of the outputs with respect to the hidden layers. ``trpo_fast, plain passes`` does without
  the Jacobian: a tangent and an adjoint pass, the operations counted below. ``trpo_fast, operator and
  product`` makes the operator too, forward pass and Jacobian: what the first product of a conjugate
  gradient costs. ``trpo_fast, uncached`` is a single call from Python without an operator.

All agree to 1e-4 before they are timed. Operations counted for everybody alike, for a product with
cached activations (biases, activations and the metric are left out, a multiply-add is two):

    N (4 n_0 n_1 + 8 Σ_{l>0} n_l n_{l+1})

two matrix products of the first layer, whose input has no tangent, and four of every other one. A
product by the Jacobian skips some of them: its share may be above one, that of the plain passes tells
how well the processor is used.
The share is against large square sgemm by NumPy, PyTorch and JAX in the same rounds; `share` uses
the fastest of them. Every thread count runs in a process of its own, all sides paired inside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.peers.peer_products import (
    DAMPING,
    Array,
    Problem,
    Side,
    double_backprop,
    jax_analytic,
    jax_linearized,
    torch_analytic,
    torch_func,
)
from benchmarks.tools import report

SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    # network, batch rows N
    "small": ((17, 64, 64, 6), 2_048),
    "medium": ((17, 64, 64, 6), 50_000),
    "large": ((348, 256, 256, 17), 50_000),
}
PEERS = ("double-backprop", "torch-analytic", "torch-func", "jax", "jax-analytic", "trpo-fast")


def trpo_fast_products(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """The library's product: with cached activations where it offers them, and the single call."""
    from trpo_fast import core

    obs_dim, *hidden, action_dim = problem.sizes
    policy = core.Policy(
        obs_dim, core.Distribution("gaussian", (action_dim,)), hidden_sizes=tuple(hidden)
    )
    policy.parameters = problem.flat
    observations, v = problem.observations, problem.vector
    sides: dict[str, tuple[Side, Array]] = {}

    operator = getattr(policy, "fisher_operator", None)
    if operator is not None:
        cached = operator(observations, damping=DAMPING)
        sides["trpo_fast"] = (lambda: cached(v), np.asarray(cached(v)))
        plain = operator(observations, damping=DAMPING, expected_products=1)
        sides["trpo_fast, plain passes"] = (lambda: plain(v), np.asarray(plain(v)))

        def first() -> Any:
            return operator(observations, damping=DAMPING)(v)

        sides["trpo_fast, operator and product"] = (first, np.asarray(first()))

    def uncached() -> Any:
        return policy.fisher_vector_product(observations, v, damping=DAMPING)

    sides["trpo_fast, uncached"] = (uncached, np.asarray(uncached()))
    return sides


def sgemm(size: int) -> dict[str, Side]:
    """Square single-precision products of every library present."""
    random = np.random.default_rng(1)
    a = random.standard_normal((size, size), np.float32)
    b = random.standard_normal((size, size), np.float32)
    out = np.empty_like(a)
    sides: dict[str, Side] = {"numpy sgemm": lambda: np.matmul(a, b, out=out)}
    if report.have("torch"):
        import torch

        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        tout = torch.empty_like(ta)
        sides["torch sgemm"] = lambda: torch.mm(ta, tb, out=tout)
    if report.have("jax"):
        import jax

        ja, jb = jax.numpy.asarray(a), jax.numpy.asarray(b)
        product = jax.jit(jax.numpy.matmul)
        sides["jax sgemm"] = lambda: product(ja, jb).block_until_ready()
    return sides


# ---- one thread count


def measure(name: str, peers: list[str], rounds: int, sgemm_size: int) -> dict[str, Any]:
    """Time all sides on one problem; inside one process, in paired rounds."""
    sizes, n_rows = SIZES[name]
    problem = Problem(sizes, n_rows)
    builders = {
        "double-backprop": ("torch", double_backprop),
        "torch-analytic": ("torch", torch_analytic),
        "torch-func": ("torch", torch_func),
        "jax": ("jax", jax_linearized),
        "jax-analytic": ("jax", jax_analytic),
        "trpo-fast": ("trpo-fast", trpo_fast_products),
    }
    products: dict[str, tuple[Side, Array]] = {}
    for peer in peers:
        package, build = builders[peer]
        if report.have(package):
            products.update(build(problem))
        else:
            print(f"{peer}: left out, {package} is not installed")
    if not products:
        raise SystemExit(f"peers: expected at least one that is installed, got {peers}")

    # the same product, or no comparison
    results = {side: result for side, (_, result) in products.items()}
    reference_name, reference = next(iter(results.items()))
    for side, result in results.items():
        error = float(np.linalg.norm(result - reference) / np.linalg.norm(reference))
        if not error <= 1e-4:
            raise SystemExit(f"{side}: differs from {reference_name} by {error:.1e} relative")

    gemm = sgemm(sgemm_size)
    calls = {side: call for side, (call, _) in products.items()}
    times = report.time_paired({**calls, **gemm}, rounds=rounds)

    speed = {side: problem.operations / times[side].median for side in calls}
    peak = {side: 2.0 * sgemm_size**3 / times[side].median for side in gemm}
    ours = next((side for side in calls if side.startswith("trpo_fast")), None)
    return {
        "problem": name,
        "network": "-".join(map(str, sizes)),
        "rows": n_rows,
        "operations": problem.operations,
        "sgemm_flops": peak,
        "sides": {
            side: {
                **times[side].to_dict(),
                "text": report.milliseconds(times[side]),
                "flops": speed[side],
                "share_of_sgemm": {g: speed[side] / p for g, p in peak.items()},
                "slower_than_trpo_fast": report.ratio(times[side], times[ours]).to_dict()
                if ours
                else None,
            }
            for side in calls
        },
    }


def show(result: dict[str, Any], threads: int) -> None:
    """Print the table of one problem."""
    peak = result["sgemm_flops"]
    rows = []
    for side, data in result["sides"].items():
        times = data["slower_than_trpo_fast"]
        rows.append(
            [
                side,
                data["text"],
                f"{data['busy_cores']:.2f}",
                f"{data['flops'] / 1e9:.1f}",
                f"{data['flops'] / max(peak.values()):.2f}",
                f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
                if times
                else "",
            ]
        )
    report.print_table(
        ["product", "ms", "busy cores", "GFLOP/s", "share", "time / trpo_fast"],
        rows,
        title=f"{result['network']}, N = {result['rows']:,}, {threads} thread(s), "
        f"{result['operations'] / 1e9:.3g} GFLOP; "
        + ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peak.items()),
    )


def main() -> None:
    """Parse flags, run each thread count in its own process, print and write."""
    parser = argparse.ArgumentParser(description="time the Fisher-vector product against its peers")
    parser.add_argument(
        "--sizes", type=report.comma_list, default=list(SIZES), help=f"of {', '.join(SIZES)}"
    )
    parser.add_argument(
        "--peers", type=report.comma_list, default=list(PEERS), help=f"of {', '.join(PEERS)}"
    )
    parser.add_argument("--threads", type=report.comma_integers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--sgemm-size", type=int, default=2048, help="order of the square matrices")
    parser.add_argument("--in-process", type=int, default=None, help=argparse.SUPPRESS)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    for flag, known in (("sizes", tuple(SIZES)), ("peers", PEERS)):
        if unknown := set(getattr(flags, flag)) - set(known):
            parser.error(f"--{flag}: expected of {', '.join(known)}, got {', '.join(unknown)}")

    if flags.in_process is None:
        arguments = ["--sizes", ",".join(flags.sizes), "--peers", ",".join(flags.peers)]
        arguments += ["--rounds", str(flags.rounds), "--sgemm-size", str(flags.sgemm_size)]
        runs = report.rerun_per_thread_count(flags.threads, arguments)
        report.write_json(flags.json, runs)
        return

    threads = flags.in_process
    report.use_threads(threads)
    facts = report.machine_facts(threads)
    report.print_facts(facts)
    results = []
    for name in flags.sizes:
        results.append(measure(name, flags.peers, flags.rounds, flags.sgemm_size))
        show(results[-1], threads)
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
