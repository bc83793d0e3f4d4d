"""What worker processes may use of this machine, and how long they may be silent."""

from __future__ import annotations

import contextlib
import math
import os

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
