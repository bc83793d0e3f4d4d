"""Processes that step environments."""

from .pool import ForeignWorkers
from .sampler import DEFAULT_TIMEOUT, WorkerSampler, available_cores
from .sources import NoWorkers

__all__ = ["DEFAULT_TIMEOUT", "ForeignWorkers", "NoWorkers", "WorkerSampler", "available_cores"]
