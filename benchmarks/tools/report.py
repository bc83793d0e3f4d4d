"""What every benchmark shares: paired timing inside one process, machine facts, tables, JSON.

Absolute times drift with the machine's mood; the ratio of two sides measured seconds apart does
not. So all sides of a comparison run inside one process, one after the other in every round, in an
order that rotates from round to round. The first calls are left out. The published numbers are the
median over rounds, the quartiles as spread, and the median of the ratios *within* a round.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = (
    "trpo-fast",
    "numpy",
    "torch",
    "jax",
    "sb3-contrib",
    "stable-baselines3",
    "sbx",
    "tianshou",
    "skrl",
    "gymnasium",
    "mujoco",
    "ale-py",
)
STALE = "+other-package"  # of a commit, where figures belong to another one
DISTRIBUTIONS = {"sbx": "sbx-rl"}  # of packages that are imported by another name


# ---- timing


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one side, one entry per round."""

    seconds: list[float]
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median over rounds, in seconds per call."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile over rounds, in seconds per call."""
        return quartiles(self.seconds)

    @property
    def busy_cores(self) -> float:
        """CPU time over wall time, the witness that a side used the threads it was given."""
        return statistics.median(
            cpu / wall for cpu, wall in zip(self.cpu_seconds, self.seconds, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return median, quartiles, busy cores and the rounds themselves, in seconds."""
        low, high = self.quartiles
        return {
            "median_seconds": self.median,
            "quartile_seconds": [low, high],
            "busy_cores": self.busy_cores,
            "rounds_seconds": self.seconds,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; of fewer than two values, the extremes."""
    if len(values) < 2:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def time_paired(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    block_seconds: float = 0.03,
    pause_seconds: float = 0.01,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Timing]:
    """Time every side once per round, in rotating order, and return seconds per call.

    Parameters
    ----------
    sides
        name -> call to time.
    rounds
        number of rounds that count.
    warmup
        calls of every side that do not count, before them.
    block_seconds
        a side is called so often in a round that the block lasts about this long.
    pause_seconds
        sleep before each block, so that another side's idle threads have stopped spinning; one
        call that does not count follows, so that caches hold this side's data.
    prepare
        name -> call that restores a side's state; it runs untimed before *every* call of that
        side, which is then timed alone.
    """
    prepare = dict(prepare or {})

    # leave out the first calls, and learn how long one takes
    calls: dict[str, int] = {}
    for name, side in sides.items():
        estimate = float("inf")
        for _ in range(max(1, warmup)):
            prepare.get(name, _nothing)()
            start = time.perf_counter()
            side()
            estimate = min(estimate, time.perf_counter() - start)
        calls[name] = 1 if name in prepare else max(1, round(block_seconds / max(estimate, 1e-7)))

    # interleave: A B C, B C A, ...
    names = list(sides)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause_seconds)
            side = sides[name]
            if name in prepare:
                prepare[name]()
            else:
                side()
            cpu_start, start = time.process_time(), time.perf_counter()
            for _ in range(calls[name]):
                side()
            wall[name].append((time.perf_counter() - start) / calls[name])
            cpu[name].append((time.process_time() - cpu_start) / calls[name])
    return {name: Timing(wall[name], cpu[name]) for name in names}


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Ratio:
    """How many times slower one side is than another: median and quartiles over rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x"

    def to_dict(self) -> dict[str, float]:
        """Return median and quartiles."""
        return {"median": self.median, "low": self.low, "high": self.high}


def ratio(slower: Timing, faster: Timing) -> Ratio:
    """Median of slower / faster taken within each round."""
    values = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    low, high = quartiles(values)
    return Ratio(statistics.median(values), low, high)


# ---- the machine


def machine_facts(threads: int | None = None) -> dict[str, Any]:
    """CPU, cores, instruction-set level, threads, versions, commit and the load at this moment."""
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {name: v for name in PACKAGES if (v := version(name)) is not None},
    }
    if threads is not None:
        facts["threads"] = threads
    if hasattr(os, "getloadavg"):
        facts["load_average_1min"] = round(os.getloadavg()[0], 2)
    try:
        from trpo_fast import runtime
    except ImportError:
        facts["simd_level"] = None
    else:
        facts["simd_level"] = runtime.simd_level()
    return facts


def cpu_model() -> str:
    """Name of the processor, with its family and model numbers where Linux tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    name = fields.get("model name", platform.machine())
    numbers = [
        f"{k} {fields[n]}" for k, n in (("family", "cpu family"), ("model", "model")) if n in fields
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def commit() -> str | None:
    """Commit of the repository this file stands in, with a mark if files differ from it.

    Another mark says that the package to be imported is not the one that stands in the repository.
    """
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() + (STALE if stale_files() else "")


def stale_files() -> list[str]:
    """Python files of this repository's package that the one to be imported lacks or has otherwise."""
    found = importlib.util.find_spec("trpo_fast")
    if found is None or found.origin is None:
        return []
    here = Path(__file__).resolve().parents[2] / "python" / "trpo_fast"
    there = Path(found.origin).resolve().parent
    names = sorted(str(path.relative_to(here)) for path in here.rglob("*.py"))
    return [name for name in names if not _same(here / name, there / name)]


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def version(package: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return None


def have(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package.replace("-", "_")) is not None


def quiet_simulator(env_id: str) -> None:
    """Keep an environment's simulator from printing banners and warnings for every copy made.

    Only the simulator of that environment is imported, so that nobody's memory grows by another.
    """
    import gymnasium

    if "ALE/" in env_id and have("ale_py"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it registers what a plugin may have registered
            import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    spec = gymnasium.registry.get(env_id)
    if spec is not None and ".mujoco" in str(spec.entry_point) and have("mujoco"):
        import mujoco

        mujoco.set_mju_user_warning(lambda text: None)


# ---- threads


def thread_environment(threads: int) -> dict[str, str]:
    """Environment in which every library that we compare starts with this many threads."""
    count = str(threads)
    xla = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return {
        **os.environ,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NPROC": count,  # the size of XLA's thread pool
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip(),
        "JAX_PLATFORMS": "cpu",
    }


def use_threads(threads: int) -> None:
    """Tell the libraries of this process how many threads to use, where they listen at run time."""
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(threads)
    try:
        from trpo_fast import runtime
    except ImportError:
        pass
    else:
        runtime.set_num_threads(threads)


def rerun_per_thread_count(
    threads: Sequence[int], arguments: Sequence[str]
) -> list[dict[str, Any]]:
    """Run the calling script once for each thread count, in a fresh process, and collect its JSON.

    The script must accept ``--in-process THREADS --json PATH``. Some libraries fix their thread
    pool when they are loaded, therefore the fresh process; inside one, the sides are paired.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for count in threads:
            path = Path(folder) / f"{count}.json"
            subprocess.run(
                [
                    sys.executable,
                    sys.argv[0],
                    *arguments,
                    "--in-process",
                    str(count),
                    "--json",
                    str(path),
                ],
                env=thread_environment(count),
                check=True,
            )
            results.append(json.loads(path.read_text()))
    return results


# ---- output


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` to a benchmark's flags."""
    parser.add_argument("--json", type=Path, default=None, help="write results and facts here")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print the machine facts in three lines."""
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
    print(
        f"{facts['cpu']}, {facts['cores']} cores, level {facts['simd_level']}, "
        f"load {facts.get('load_average_1min', '?')}"
    )
    print(f"Python {facts['python']}, {versions}")
    print(f"commit {facts['commit']}, {facts['date']}", flush=True)
    if str(facts["commit"]).endswith(STALE):
        print(
            "ATTENTION: the installed trpo_fast is not that of this commit; install it again",
            flush=True,
        )


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    """Print a Markdown table; the first column is aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]

    def line(row: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    if title is not None:
        print(f"\n{title}\n")
    print(line(columns))
    print("|" + "|".join(("-" * (w + 1) + (":" if i else "-")) for i, w in enumerate(widths)) + "|")
    for row in cells:
        print(line(row))
    sys.stdout.flush()


def write_json(path: Path | None, payload: object) -> None:
    """Write a result with its facts, if a path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(payload, indent=1) + "\n")


def milliseconds(timing: Timing) -> str:
    """Median and quartiles: ``4.61 (4.55 to 4.70)`` in milliseconds."""
    low, high = timing.quartiles
    return f"{1e3 * timing.median:.3g} ({1e3 * low:.3g} to {1e3 * high:.3g})"


def comma_list(text: str) -> list[str]:
    """Split ``a,b,c``; for argparse."""
    return [part.strip() for part in text.split(",") if part.strip()]


def comma_integers(text: str) -> list[int]:
    """Split ``1,2`` into integers; for argparse. ``1e6`` and ``50_000`` are integers too."""
    return [int(float(part)) for part in comma_list(text)]
