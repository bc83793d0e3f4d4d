"""Processes that step environments."""

from .pool import ForeignWorkers
from .pooled import PooledSampler
from .sampler import WorkerSampler
from .sources import NoWorkers

__all__ = ["ForeignWorkers", "NoWorkers", "PooledSampler", "WorkerSampler"]
