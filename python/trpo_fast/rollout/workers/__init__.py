"""Processes that step environments."""

from .pool import ForeignWorkers
from .sampler import WorkerSampler
from .sources import NoWorkers

__all__ = ["ForeignWorkers", "NoWorkers", "WorkerSampler"]
