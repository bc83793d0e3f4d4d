"""What the core runs on: instruction-set level, threads, versions."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _core


def simd_level() -> str:
    """Level in use: the highest one available, or what ``TRPO_FAST_SIMD_LEVEL`` names.

    ``"v2"`` is SSE4.2, ``"v3"`` AVX2 with FMA, ``"v4"`` AVX-512, ``"neon"`` 64-bit Arm. Raises
    ``RuntimeError`` if the variable names a level that this processor lacks.
    """
    return _core.simd_level()


def available_simd_levels() -> list[str]:
    """Levels that are compiled in and that this machine can run, lowest first."""
    return _core.available_simd_levels()


def get_num_threads() -> int:
    """Threads the core may use. Results never depend on it."""
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let the core use ``n`` threads (at least 1). Other libraries' settings stay untouched.

    The default is the smallest of ``OMP_NUM_THREADS``, the processor affinity of this process and
    the limit of its control group.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n_threads: expected an integer, got {type(n).__name__}.")
    _core.set_num_threads(n)


def rest_threads() -> None:
    """Let the core's idle threads go, which would spin for milliseconds after their last work.

    For the moment when other processes need the processors. The next work starts them again.
    """
    _core.rest_threads()


@contextmanager
def fewer_threads(n: int) -> Iterator[None]:
    """Leave ``n`` of the core's threads (but not the last one) to others meanwhile."""
    threads = get_num_threads()
    set_num_threads(max(1, threads - n))
    try:
        yield
    finally:
        set_num_threads(threads)


def cpu_model() -> str:
    """Name of the processor, as the operating system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def info() -> dict[str, Any]:
    """Facts for a bug report: versions, level, threads, libraries."""
    import importlib.metadata

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
        "cpu": cpu_model(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "eigen": _core.eigen_version(),
        "compiler": _core.compiler_version(),
        **versions,
    }
