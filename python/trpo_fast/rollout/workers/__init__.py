"""Processes that step environments."""

from .sampler import DEFAULT_TIMEOUT, WorkerSampler, available_cores
from .sources import NoWorkers

__all__ = ["DEFAULT_TIMEOUT", "NoWorkers", "WorkerSampler", "available_cores"]
