"""Who steps the environments: this process, worker processes, or a vector environment.

A sampler hands back whole rollouts as arrays `(time, environment, feature)`. Per time step it makes
one call of the policy; nothing else of ours that could be avoided stands between two calls of
`env.step`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import names_on_first_use

if TYPE_CHECKING:
    from .budget import Budget
    from .cluster import ClusterError, ClusterSampler
    from .cores import DEFAULT_TIMEOUT as DEFAULT_TIMEOUT
    from .cores import available_cores
    from .data import Rollout, Transitions
    from .envpool import EnvPoolSampler, PoolSampler
    from .exclusive import Exclusive
    from .filling import RolloutBuffers
    from .in_process import InProcessSampler
    from .interface import ActingPolicy, Actor, Sampler
    from .making import make_sampler
    from .metrics import metrics_of, record_name, success_name
    from .sampler import SamplerBase
    from .stored import environment_seed
    from .vector import VectorEnvSampler
    from .workers import ForeignWorkers, NoWorkers, WorkerSampler

__all__ = [
    "ActingPolicy",
    "Actor",
    "Budget",
    "ClusterError",
    "ClusterSampler",
    "EnvPoolSampler",
    "Exclusive",
    "ForeignWorkers",
    "InProcessSampler",
    "NoWorkers",
    "PoolSampler",
    "Rollout",
    "RolloutBuffers",
    "Sampler",
    "SamplerBase",
    "Transitions",
    "VectorEnvSampler",
    "WorkerSampler",
    "available_cores",
    "environment_seed",
    "make_sampler",
    "metrics_of",
    "record_name",
    "success_name",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_on_first_use(
        __name__,
        {
            "budget": "Budget",
            "cluster": "ClusterError ClusterSampler",
            "cores": "DEFAULT_TIMEOUT available_cores",
            "data": "Rollout Transitions",
            "envpool": "EnvPoolSampler PoolSampler",
            "exclusive": "Exclusive",
            "filling": "RolloutBuffers",
            "in_process": "InProcessSampler",
            "interface": "ActingPolicy Actor Sampler",
            "making": "make_sampler",
            "metrics": "metrics_of record_name success_name",
            "sampler": "SamplerBase",
            "stored": "environment_seed",
            "vector": "VectorEnvSampler",
            "workers": "ForeignWorkers NoWorkers WorkerSampler",
        },
    )
