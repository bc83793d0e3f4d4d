"""Processes that step environments."""

from .sampler import DEFAULT_TIMEOUT, NoWorkers, WorkerSampler, available_cores

__all__ = ["DEFAULT_TIMEOUT", "NoWorkers", "WorkerSampler", "available_cores"]
