"""What a run may use of this machine, and how long workers may be silent."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

DEFAULT_TIMEOUT = 300.0  # seconds


def available_cores() -> int:
    """Processors that this process may use: its affinity and the limit of its control group."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def machine_memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of its control group.

    Returns
    -------
    int
        0 where the system does not tell.
    """
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min((n for n in found if n > 0), default=0)
