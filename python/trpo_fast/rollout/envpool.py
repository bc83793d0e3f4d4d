"""EnvPool: many environments stepped together by C++ threads, at their speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ..envs.envpool import make_pool
from .sampler import environment_seed
from .vector import VectorEnvSampler


class EnvPoolSampler(VectorEnvSampler):
    """Steps an EnvPool that it makes itself, so that every environment has the seed of the run.

    EnvPool resets on the step after the end of an episode (NEXT_STEP): that step ignores its
    action, and its row is marked `valid = False`. EnvPool has one flag for two facts: an episode
    that terminates at the very step of its time limit is reported as truncated.

    Args:
        source: "envpool:" and a task of EnvPool.
        n_envs: number of environments.
        n_threads: threads of EnvPool; results do not depend on them.
        dtype: dtype of observations and continuous actions.
        state_dependent_std: the Gaussian's deviation is a network output.
        env_kwargs: further arguments of `envpool.make_gymnasium`.

    Raises:
        ImportError, ValueError: see `trpo_fast._envpool.make_pool`.
    """

    def __init__(
        self,
        source: str,
        *,
        n_envs: int,
        n_threads: int,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._source, self._kwargs, self._n_threads = source, dict(env_kwargs or {}), n_threads
        super().__init__(
            self._make(range(n_envs)),
            name=source,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            autoreset_mode="NextStep",
        )
        self.busy_cores = n_threads

    def _make(self, seeds: Any) -> Any:
        return make_pool(
            self._source, seeds=list(seeds), kwargs=self._kwargs, n_threads=self._n_threads
        )

    def _restart(self) -> None:
        self.vector_env = self._make(
            environment_seed(self._seed, e, int(self._counters[e])) for e in range(self.n_envs)
        )
        super()._restart()
