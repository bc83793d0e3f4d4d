"""What the core runs on: instruction-set level, threads, versions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from . import _core


def simd_level() -> str:
    """Return the level in use: the highest one available, or what ``TRPO_FAST_SIMD_LEVEL`` names.

    Returns
    -------
    str
        "v2" is SSE4.2, "v3" AVX2 with FMA, "v4" AVX-512, "neon" 64-bit Arm.

    Raises
    ------
    RuntimeError
        If the variable names a level that this processor lacks.
    """
    return _core.simd_level()


def available_simd_levels() -> list[str]:
    """Return the levels that are compiled in and that this machine can run, lowest first."""
    return _core.available_simd_levels()


def get_num_threads() -> int:
    """Return how many threads the core may use. Results never depend on it."""
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let the core use so many threads. Other libraries' settings stay untouched.

    Parameters
    ----------
    n
        At least 1. The default is the smallest of ``OMP_NUM_THREADS``, the number of processors that
        this process may use, and the limit of its control group.

    Raises
    ------
    TypeError
        If ``n`` is no integer.
    ValueError
        If it is below 1.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n_threads: expected an integer, got {type(n).__name__}.")
    _core.set_num_threads(n)


def get_first_layer() -> Literal["auto", "dense"]:
    """Return how first layers take their inputs, see :func:`set_first_layer`."""
    return _core.get_first_layer()


def set_first_layer(choice: Literal["auto", "dense"]) -> None:
    """Say how the first layer of every network in this process takes its inputs.

    Of a batch of wide rows that differ from each other in few numbers, as one-hots do, the first layer is
    a sum of few columns of its weights. Results differ from those of a dense product by rounding alone.
    Which batches these are: :func:`trpo_fast.core.sums_columns`. Worker processes take the
    environment variable ``TRPO_FAST_FIRST_LAYER``, which is also this setting's value at first.

    Parameters
    ----------
    choice
        "auto" sums columns where that is faster; "dense" never does.

    Raises
    ------
    ValueError
        If it is neither.
    """
    _core.set_first_layer(choice)


def rest_threads() -> None:
    """End the core's idle threads, which otherwise spin for milliseconds after their last work.

    Call it when other processes need the processors. The next work starts the threads again.
    """
    _core.rest_threads()


def thread_notice() -> str:
    """Return a sentence if the system let the core have fewer threads than it asked for, else "".

    Results do not depend on it. The core keeps to that number from then on.
    """
    granted = _core.granted_num_threads()
    if not granted:
        return ""
    return (
        f"the core computes on {granted} of {get_num_threads()} threads, because the system refused to "
        "start more (a limit of processes, see ulimit -u, or of memory); results are the same"
    )


@contextmanager
def fewer_threads(n: int) -> Iterator[None]:
    """While entered, let the core use ``n`` threads fewer, but at least one.

    Parameters
    ----------
    n
        How many threads to leave to others, at least 0.
    """
    threads = get_num_threads()
    set_num_threads(max(1, threads - n))
    try:
        yield
    finally:
        set_num_threads(threads)


def cpu_model() -> str:
    """Return the name of the processor, as the operating system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform  # loads much that nothing else here needs

    return platform.processor() or platform.machine()


def info() -> dict[str, Any]:
    """Return facts for a bug report: versions, level, threads, libraries."""
    import importlib.metadata
    import platform

    import numpy

    versions = {}
    for name in ("gymnasium", "safetensors", "mujoco", "ale-py", "envpool"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "trpo_fast": _core.__version__,
        "simd_level": simd_level(),
        "available_simd_levels": available_simd_levels(),
        "threads": get_num_threads(),
        "first_layer": get_first_layer(),
        "cpu": cpu_model(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "eigen": _core.eigen_version(),
        "compiler": _core.compiler_version(),
        **versions,
    }
