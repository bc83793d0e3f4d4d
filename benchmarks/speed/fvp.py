"""Time the Fisher-vector product against double backpropagation, analytic PyTorch and JAX.

The table of the README:

    python benchmarks/fvp.py --sizes small,medium,large --threads 1,2 --json fvp.json

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
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import report

Array = NDArray[np.float32]
Side = Callable[[], object]

SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    # network, batch rows N
    "small": ((17, 64, 64, 6), 2_048),
    "medium": ((17, 64, 64, 6), 50_000),
    "large": ((348, 256, 256, 17), 50_000),
}
PEERS = ("double-backprop", "torch-analytic", "torch-func", "jax", "jax-analytic", "trpo-fast")
DAMPING = 0.1
LOG_STD = -0.5


class Problem:
    """Network, observations and a vector, the same for all sides."""

    def __init__(self, sizes: tuple[int, ...], n_rows: int) -> None:
        random = np.random.default_rng(0)
        pairs = list(itertools.pairwise(sizes))
        self.sizes = sizes
        self.weights: list[Array] = [
            (random.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)
            for n_in, n_out in pairs
        ]
        self.biases: list[Array] = [
            0.1 * random.standard_normal(n_out).astype(np.float32) for _, n_out in pairs
        ]
        self.log_std: Array = np.full(sizes[-1], LOG_STD, np.float32)
        self.observations: Array = random.standard_normal((n_rows, sizes[0]), np.float32)
        self.vector: Array = random.standard_normal(len(self.flat), np.float32)

    @property
    def flat(self) -> Array:
        """All parameters in the order W_0, b_0, W_1, ..., log_std."""
        layers = zip(self.weights, self.biases, strict=True)
        parts = [part.ravel() for layer in layers for part in layer]
        return np.concatenate([*parts, self.log_std])

    @property
    def operations(self) -> int:
        """Floating-point operations of one product, by the formula above."""
        layers = list(itertools.pairwise(self.sizes))
        first = layers[0][0] * layers[0][1]
        others = sum(n_in * n_out for n_in, n_out in layers[1:])
        return len(self.observations) * (4 * first + 8 * others)


# ---- the sides: each returns a product as a callable, and its result as a flat array


def double_backprop(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """The product of ``torch_trpo.py``."""
    import torch
    from torch import nn

    from torch_trpo import DoubleBackpropFisher, GaussianPolicy, actor_parameters, set_flat

    obs_dim, *hidden, action_dim = problem.sizes
    policy: nn.Module = GaussianPolicy(obs_dim, action_dim, hidden, LOG_STD)
    parameters = actor_parameters(policy)
    set_flat(parameters, torch.from_numpy(problem.flat))
    observations = torch.from_numpy(problem.observations)
    product = DoubleBackpropFisher(policy, parameters, observations, damping=DAMPING)
    v = torch.from_numpy(problem.vector)
    return {"double backprop": (lambda: product(v), product(v).numpy())}


def torch_analytic(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """The product of ``analytic_torch.py`` with the block size that is fastest here."""
    import torch

    from analytic_torch import AnalyticFisher

    v = torch.from_numpy(problem.vector)

    def build(block_rows: int | None) -> AnalyticFisher:
        return AnalyticFisher(
            [torch.from_numpy(w) for w in problem.weights],
            [torch.from_numpy(b) for b in problem.biases],
            torch.from_numpy(problem.log_std),
            torch.from_numpy(problem.observations),
            block_rows=block_rows,
        )

    candidates = {str(rows): build(rows) for rows in (None, 1024, 2048, 4096)}
    calls: dict[str, Side] = {
        name: (lambda c=c: c(v, damping=DAMPING))  # type: ignore[misc]
        for name, c in candidates.items()
    }
    times = report.time_paired(calls, rounds=3, warmup=2)
    best = candidates[min(times, key=lambda name: times[name].median)]
    del candidates, calls
    return {"torch analytic": (lambda: best(v, damping=DAMPING), best(v, damping=DAMPING).numpy())}


def torch_func(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """``torch.func.linearize`` and ``vjp``, prepared once; compiled, both passes as one function."""
    import torch

    count = len(problem.weights)
    layers = tuple(torch.from_numpy(w) for w in problem.weights)
    layers += tuple(torch.from_numpy(b) for b in problem.biases)
    observations = torch.from_numpy(problem.observations)
    precision = torch.exp(-2.0 * torch.from_numpy(problem.log_std)) / len(observations)
    v = torch.from_numpy(problem.vector)
    tangents, start = [], 0
    for w, b in zip(problem.weights, problem.biases, strict=True):
        tangents.append((v[start : start + w.size].reshape(w.shape), v[start + w.size :][: b.size]))
        start += w.size + b.size
    tangent = tuple(w for w, _ in tangents) + tuple(b for _, b in tangents)

    def network(*parameters: torch.Tensor) -> torch.Tensor:
        h = observations
        for i in range(count):
            h = torch.nn.functional.linear(h, parameters[i], parameters[count + i])
            if i + 1 < count:
                h = torch.tanh(h)
        return h

    _, push_forward = torch.func.linearize(network, *layers)
    _, pull_back = torch.func.vjp(network, *layers)

    def product(tangent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        pulled: tuple[torch.Tensor, ...] = pull_back(precision * push_forward(*tangent))
        return pulled

    def whole(tangent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        _, adjoint = torch.func.vjp(network, *layers)
        _, u = torch.func.jvp(network, layers, tangent)
        pulled: tuple[torch.Tensor, ...] = adjoint(precision * u)
        return pulled

    def flat(pulled: tuple[torch.Tensor, ...]) -> Array:
        parts = [
            part.numpy().ravel() for i in range(count) for part in (pulled[i], pulled[count + i])
        ]
        tail = 2.0 * problem.vector[-problem.sizes[-1] :]
        product_of_v: Array = np.concatenate([*parts, tail]) + DAMPING * problem.vector
        return product_of_v

    sides: dict[str, tuple[Side, Array]] = {
        "torch.func": (lambda: product(tangent), flat(product(tangent)))
    }
    try:
        compiled = torch.compile(whole)
        sides["torch.func compiled"] = (lambda: compiled(tangent), flat(compiled(tangent)))
    except Exception as error:  # it needs a C++ compiler, and not every operation is supported
        first = str(error).strip().partition("\n")[0]
        print(f"torch.func compiled: left out, {type(error).__name__}: {first}")
    return sides


def _jax_setup(problem: Problem) -> tuple[Any, Any, Any, Any]:
    import jax.numpy as jnp

    layers = [
        (jnp.asarray(w), jnp.asarray(b))
        for w, b in zip(problem.weights, problem.biases, strict=True)
    ]
    vector, start = [], 0
    for w, b in zip(problem.weights, problem.biases, strict=True):
        v_w = problem.vector[start : start + w.size].reshape(w.shape)
        v_b = problem.vector[start + w.size : start + w.size + b.size]
        vector.append((jnp.asarray(v_w), jnp.asarray(v_b)))
        start += w.size + b.size
    precision = jnp.exp(-2.0 * jnp.asarray(problem.log_std)) / len(problem.observations)
    return layers, vector, jnp.asarray(problem.observations), precision


def _jax_flat(product: Any, problem: Problem) -> Array:
    # the log_std part is 2 v and costs nothing: added here, outside the clock
    parts = [np.asarray(part).ravel() for layer in product for part in layer]
    tail = 2.0 * problem.vector[-problem.sizes[-1] :]
    flat = np.concatenate([*parts, tail]) + DAMPING * problem.vector
    product_of_v: Array = flat.astype(np.float32)
    return product_of_v


def jax_linearized(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """``jax.linearize`` once outside; the jitted product is its transpose after it."""
    import jax
    import jax.numpy as jnp

    layers, vector, observations, precision = _jax_setup(problem)

    def network(parameters: Any) -> Any:
        h = observations
        for w, b in parameters[:-1]:
            h = jnp.tanh(h @ w.T + b)
        w, b = parameters[-1]
        return h @ w.T + b

    _, tangent = jax.linearize(network, layers)
    adjoint = jax.linear_transpose(tangent, layers)
    product = jax.jit(lambda v: adjoint(precision * tangent(v))[0])
    return {
        "jax": (
            lambda: jax.block_until_ready(product(vector)),
            _jax_flat(product(vector), problem),
        )
    }


def jax_analytic(problem: Problem) -> dict[str, tuple[Side, Array]]:
    """Hand-written tangent and adjoint passes with cached activations, jitted."""
    import jax
    import jax.numpy as jnp

    layers, vector, observations, precision = _jax_setup(problem)
    inputs = [observations]
    for w, b in layers[:-1]:
        inputs.append(jnp.tanh(inputs[-1] @ w.T + b))
    slopes = [1.0 - h * h for h in inputs[1:]]

    @jax.jit
    def product(layers: Any, inputs: Any, slopes: Any, v: Any) -> Any:
        tangent = inputs[0] @ v[0][0].T + v[0][1]
        for i in range(1, len(layers)):
            h_dot = tangent * slopes[i - 1]
            tangent = inputs[i] @ v[i][0].T + h_dot @ layers[i][0].T + v[i][1]
        u, gradient = tangent * precision, []
        for i in reversed(range(len(layers))):
            gradient.append((u.T @ inputs[i], u.sum(0)))
            if i:
                u = (u @ layers[i][0]) * slopes[i - 1]
        return gradient[::-1]

    result = _jax_flat(product(layers, inputs, slopes, vector), problem)
    return {
        "jax analytic": (
            lambda: jax.block_until_ready(product(layers, inputs, slopes, vector)),
            result,
        )
    }


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
