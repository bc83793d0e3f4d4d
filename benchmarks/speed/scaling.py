"""How the core scales: over samples, widths, threads and instruction-set levels, and in memory.

    python benchmarks/speed/scaling.py --json scaling.json                      everything, some 5 minutes
    python benchmarks/speed/scaling.py --axes threads --threads 1,2,4,8,16      some of it

- ``rows``: product and whole policy update of 17-64-64-6 from 256 to a million samples;
- ``widths``: the product of 17-H-H-6 at 8,192 samples, H from 32 to 512;
- ``threads``: product (N = 50,000) and update against one thread, beside the scaling of a large
  sgemm by PyTorch or NumPy in the same rounds; ``share`` is ours over theirs;
- ``levels``: every instruction-set level that this machine has, one process each, taking turns;
- ``memory``: the peak of a process above its batch during one update of a million samples, with the
  default budget for activations and with none.

Product: (F + 0.1 I) v with cached activations. Update: gradient, 10 products, line search. Operations
are counted as in ``fvp.py``; the share is against sgemm of order 2,048 by the fastest library present,
in the same rounds with the same threads.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.peers.peer_products import Problem
from benchmarks.speed.fvp import sgemm
from benchmarks.tools import report

AXES = ("rows", "widths", "threads", "levels", "memory")
ROWS = (256, 1_024, 2_048, 8_192, 50_000, 200_000, 1_000_000)
WIDTHS = (32, 64, 128, 256, 512)
WIDTH_ROWS, THREAD_ROWS, MEMORY_ROWS = 8_192, 50_000, 1_000_000
LEVEL_ROWS = (2_048, 50_000)
SGEMM_SIZE = 2_048
DAMPING, CG_ITERATIONS = 0.1, 10
MEGABYTE = 1e6


class Case:
    """A network, a batch, and what is timed of them."""

    def __init__(self, sizes: tuple[int, ...], n_rows: int) -> None:
        from trpo_fast import core

        problem = Problem(sizes, n_rows)
        obs_dim, *hidden, action_dim = sizes
        gaussian = core.Distribution("gaussian", (action_dim,))
        self.policy = core.Policy(obs_dim, gaussian, hidden_sizes=tuple(hidden))
        self.policy.parameters = self.start = problem.flat
        self.operations = problem.operations
        self.observations, self.vector = problem.observations, problem.vector.astype(np.float64)
        self.actions = self.policy.act(problem.observations, seed=1)
        self.advantages = np.random.default_rng(1).standard_normal(n_rows).astype(np.float32)
        self.operator = self.policy.fisher_operator(problem.observations, damping=DAMPING)

    def product(self) -> object:
        """F v."""
        return self.operator(self.vector)

    def reset(self) -> None:
        """Back to the parameters that every update starts from."""
        self.policy.parameters = self.start

    def update(self, **options: Any) -> object:
        """One policy update, all of whose iterations are made."""
        return self.policy.update(
            self.observations,
            self.actions,
            self.advantages,
            cg_iterations=CG_ITERATIONS,
            cg_tolerance=0.0,
            cg_damping=DAMPING,
            **options,
        )


def mujoco_like(width: int) -> tuple[int, ...]:
    """The sizes of HalfCheetah's policy, with hidden layers of this width."""
    return (17, width, width, 6)


def _speed(case: Case, timing: report.Timing, peak: float) -> dict[str, Any]:
    flops = case.operations / timing.median
    return {"product": timing.to_dict(), "flops": flops, "share_of_sgemm": flops / peak}


# ---- samples and widths


def rows_axis(rows: list[int], rounds: int) -> list[dict[str, Any]]:
    """Product and update over the number of samples."""
    results = []
    for n in rows:
        case, gemm = Case(mujoco_like(64), n), sgemm(SGEMM_SIZE)
        sides = {"product": case.product, "update": case.update, **gemm}
        times = report.time_paired(sides, rounds=rounds, prepare={"update": case.reset})
        peak = max(2.0 * SGEMM_SIZE**3 / times[name].median for name in gemm)
        results.append(
            {
                "rows": n,
                "update": times["update"].to_dict(),
                **_speed(case, times["product"], peak),
            }
        )
    report.print_table(
        ["N", "product, ms", "GFLOP/s", "share", "update, ms", "ns a sample"],
        [
            [
                f"{r['rows']:,}",
                f"{1e3 * r['product']['median_seconds']:.3f}",
                f"{r['flops'] / 1e9:.0f}",
                f"{r['share_of_sgemm']:.2f}",
                f"{1e3 * r['update']['median_seconds']:.2f}",
                f"{1e9 * r['update']['median_seconds'] / r['rows']:.0f}",
            ]
            for r in results
        ],
        title="17-64-64-6 over the number of samples",
    )
    return results


def widths_axis(widths: list[int], rounds: int) -> list[dict[str, Any]]:
    """The product over the width of the hidden layers."""
    results = []
    for width in widths:
        case, gemm = Case(mujoco_like(width), WIDTH_ROWS), sgemm(SGEMM_SIZE)
        times = report.time_paired({"product": case.product, **gemm}, rounds=rounds)
        peak = max(2.0 * SGEMM_SIZE**3 / times[name].median for name in gemm)
        results.append({"width": width, **_speed(case, times["product"], peak)})
    report.print_table(
        ["H", "product, ms", "GFLOP/s", "share"],
        [
            [
                str(r["width"]),
                f"{1e3 * r['product']['median_seconds']:.3f}",
                f"{r['flops'] / 1e9:.0f}",
                f"{r['share_of_sgemm']:.2f}",
            ]
            for r in results
        ],
        title=f"17-H-H-6, N = {WIDTH_ROWS:,}",
    )
    return results


# ---- threads


@contextlib.contextmanager
def _all_threads(threads: int) -> Iterator[None]:
    # of everything that is timed here, while it is timed
    from trpo_fast import runtime

    runtime.set_num_threads(threads)
    with contextlib.ExitStack() as stack:
        if report.have("torch"):
            import torch

            torch.set_num_threads(threads)
        if report.have("threadpoolctl"):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(threads))
        yield


def threads_axis(threads: list[int], rounds: int) -> list[dict[str, Any]]:
    """Speed-up over one thread, of our passes and of sgemm."""
    case = Case(mujoco_like(64), THREAD_ROWS)
    # XLA's threads are counted when it is loaded: only libraries that can be told take part
    tellable = {"torch sgemm": "torch", "numpy sgemm": "threadpoolctl"}
    gemm = {
        name: call
        for name, call in sgemm(SGEMM_SIZE).items()
        if name in tellable and report.have(tellable[name])
    }
    sides: dict[str, Callable[[], object]] = {}
    prepare: dict[str, Callable[[], object]] = {}
    for count in [1, *(n for n in threads if n != 1)]:
        with _all_threads(count):  # an operator keeps the threads that it was made with
            operator = case.policy.fisher_operator(case.observations, damping=DAMPING)
        product = partial(operator, case.vector)
        for name, call in {"product": product, "update": case.update, **gemm}.items():
            sides[f"{name} {count}"] = _with_threads(call, count)
        prepare[f"update {count}"] = case.reset
    times = report.time_paired(sides, rounds=rounds, prepare=prepare)
    results = []
    for count in threads:
        gains = {
            name: report.ratio(times[f"{name} 1"], times[f"{name} {count}"])
            for name in ("product", "update", *gemm)
        }
        best = max((gains[name].median for name in gemm), default=float("nan"))
        results.append(
            {
                "threads": count,
                **{f"{name} speed-up": gain.to_dict() for name, gain in gains.items()},
                "share_of_sgemm_scaling": gains["product"].median / best,
            }
        )
    report.print_table(
        ["threads", "product", "update", *gemm, "share"],
        [
            [
                str(r["threads"]),
                *(f"{r[f'{name} speed-up']['median']:.2f}x" for name in ("product", "update")),
                *(f"{r[f'{name} speed-up']['median']:.2f}x" for name in gemm),
                f"{r['share_of_sgemm_scaling']:.2f}",
            ]
            for r in results
        ],
        title=f"17-64-64-6, N = {THREAD_ROWS:,}: times as fast as one thread",
    )
    return results


def _with_threads(call: Callable[[], object], threads: int) -> Callable[[], object]:
    def timed() -> object:
        with _all_threads(threads):
            return call()

    return timed


# ---- instruction-set levels


def level_child() -> None:
    """Answer each line of standard input with the seconds of every side, as JSON."""
    cases = {n: Case(mujoco_like(64), n) for n in LEVEL_ROWS}
    for _ in sys.stdin:
        seconds = {}
        for n, case in cases.items():
            times = report.time_paired(
                {"product": case.product, "update": case.update},
                rounds=1,
                warmup=1,
                prepare={"update": case.reset},
            )
            for name, timing in times.items():
                seconds[f"{name}, N = {n:,}"] = timing.median
        print(json.dumps(seconds), flush=True)


def levels_axis(rounds: int) -> list[dict[str, Any]]:
    """Every level against the one below it."""
    from trpo_fast import runtime

    levels = runtime.available_simd_levels()
    children = {
        level: subprocess.Popen(
            [sys.executable, __file__, "--level-child"],
            env={**report.thread_environment(1), "TRPO_FAST_SIMD_LEVEL": level},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for level in levels
    }
    seconds: dict[str, list[dict[str, float]]] = {level: [] for level in levels}
    try:
        for _ in range(rounds):
            for level, child in children.items():
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write("go\n")
                child.stdin.flush()
                seconds[level].append(json.loads(child.stdout.readline()))
    finally:
        for child in children.values():
            child.communicate()
    results: list[dict[str, Any]] = []
    for side in seconds[levels[0]][0]:
        row: dict[str, Any] = {"side": side}
        for below, level in zip([None, *levels[:-1]], levels, strict=True):
            of_level = [entry[side] for entry in seconds[level]]
            row[level] = statistics.median(of_level)
            if below is not None:
                row[f"{level} over {below}"] = statistics.median(
                    slow[side] / fast for slow, fast in zip(seconds[below], of_level, strict=True)
                )
        results.append(row)
    gains = [f"{level} over {below}" for below, level in itertools.pairwise(levels)]
    report.print_table(
        ["17-64-64-6", *(f"{level}, ms" for level in levels), *gains],
        [
            [
                r["side"],
                *(f"{1e3 * r[level]:.3f}" for level in levels),
                *(f"{r[gain]:.2f}x" for gain in gains),
            ]
            for r in results
        ],
        title="instruction-set levels, one thread",
    )
    return results


# ---- memory


def memory_child(budget: int | None) -> None:
    """One update of a million samples; prints bytes at the batch and at the peak, and seconds."""
    import time

    case = Case(mujoco_like(64), MEMORY_ROWS)
    del case.operator  # an update makes its own
    options = {} if budget is None else {"activation_budget": budget}
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")  # the peak starts again from here
    start = time.perf_counter()
    case.update(**options)
    seconds = time.perf_counter() - start
    print(json.dumps({"above": _status("VmHWM") - before, "seconds": seconds}))


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def memory_axis() -> list[dict[str, Any]]:
    """Peak memory of one update above its batch, for the default budget and for none."""
    if not os.path.exists("/proc/self/clear_refs"):
        print("memory: left out, it is read from Linux's /proc")
        return []
    results = []
    for name, budget in (("default", "default"), ("none", "0")):
        answer = subprocess.run(
            [sys.executable, __file__, "--memory-child", budget],
            env=report.thread_environment(1),
            check=True,
            capture_output=True,
            text=True,
        )
        results.append({"activation_budget": name, **json.loads(answer.stdout)})
    report.print_table(
        ["activations kept", "above the batch, MB", "update, s"],
        [
            [r["activation_budget"], f"{r['above'] / MEGABYTE:.0f}", f"{r['seconds']:.2f}"]
            for r in results
        ],
        title=f"one update of 17-64-64-6, N = {MEMORY_ROWS:,}, one thread",
    )
    return results


def main() -> None:
    """Parse flags, measure the axes, print and write."""
    parser = argparse.ArgumentParser(description="how the core scales, and what memory it needs")
    parser.add_argument(
        "--axes", type=report.comma_list, default=list(AXES), help=f"of {', '.join(AXES)}"
    )
    parser.add_argument("--rows", type=report.comma_integers, default=list(ROWS))
    parser.add_argument("--widths", type=report.comma_integers, default=list(WIDTHS))
    parser.add_argument(
        "--threads", type=report.comma_integers, default=None, help="default: 1 to all, by doubling"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--in-process", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--level-child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-child", default=None, help=argparse.SUPPRESS)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if unknown := set(flags.axes) - set(AXES):
        parser.error(f"--axes: expected of {', '.join(AXES)}, got {', '.join(unknown)}")
    if flags.level_child:
        return level_child()
    if flags.memory_child is not None:
        return memory_child(None if flags.memory_child == "default" else int(flags.memory_child))

    if flags.in_process is not None:  # the axes that are measured on one thread
        report.use_threads(flags.in_process)
        results: dict[str, Any] = {}
        if "rows" in flags.axes:
            results["rows"] = rows_axis(flags.rows, flags.rounds)
        if "widths" in flags.axes:
            results["widths"] = widths_axis(flags.widths, flags.rounds)
        return report.write_json(flags.json, results)

    facts = report.machine_facts()
    report.print_facts(facts)
    everything: dict[str, Any] = {"facts": facts}
    one_thread = [axis for axis in flags.axes if axis in ("rows", "widths")]
    if one_thread:
        arguments = ["--axes", ",".join(one_thread), "--rounds", str(flags.rounds)]
        arguments += ["--rows", ",".join(map(str, flags.rows))]
        arguments += ["--widths", ",".join(map(str, flags.widths))]
        everything.update(report.rerun_per_thread_count([1], arguments)[0])
    if "threads" in flags.axes:
        everything["threads"] = threads_axis(flags.threads or _doubling(), flags.rounds)
    if "levels" in flags.axes:
        everything["levels"] = levels_axis(flags.rounds)
    if "memory" in flags.axes:
        everything["memory"] = memory_axis()
    report.write_json(flags.json, everything)


def _doubling() -> list[int]:
    from trpo_fast import runtime

    most = runtime.get_num_threads()
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return counts if most == 1 else [*counts, most]


if __name__ == "__main__":
    main()
