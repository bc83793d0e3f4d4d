"""EnvPool: many environments stepped together by C++ threads, at their speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..envs.envpool import make_pool, read_spaces, step_of
from .vector import VectorEnvSampler


class PoolSampler(VectorEnvSampler):
    """Steps an EnvPool that exists already, so that its seeds are settled.

    EnvPool resets on the step after the end of an episode (NEXT_STEP): that step ignores its
    action, and its row is marked as not valid. EnvPool has one flag for two facts: an episode that
    terminates at the very step of its time limit is reported as truncated.

    Parameters are those of `VectorEnvSampler`.
    """

    @staticmethod
    def _spaces_of(vector_env: Any) -> tuple[Any, Any]:
        return read_spaces(vector_env)

    def _first_observations(self, seeds: Sequence[int]) -> tuple[Any, Any]:
        observations, infos = self.vector_env.reset()
        return observations, infos

    def _step_function(self) -> Callable[[Any], tuple[Any, ...]]:
        # the quick way has no infos
        needs_infos = self.metric_names or self.mask_source == "info"
        return self.vector_env.step if needs_infos else step_of(self.vector_env)

    def _steps_in_parallel(self) -> bool:
        return True


class EnvPoolSampler(PoolSampler):
    """Steps an EnvPool that it makes itself, so that every environment has the seed of the run.

    Parameters
    ----------
    source
        "envpool:" and a task of EnvPool.
    n_envs
        E.
    n_threads
        Threads of EnvPool, at least 1; results do not depend on them.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    env_kwargs
        Further arguments of ``envpool.make_gymnasium``.
    action_masks
        Where the environments say which actions are allowed, see `VectorEnvSampler`.

    Raises
    ------
    ImportError, ValueError
        See ``trpo_fast.envs.envpool.make_pool``.
    """

    def __init__(
        self,
        source: str,
        *,
        n_envs: int,
        n_threads: int,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        env_kwargs: Mapping[str, Any] | None = None,
        action_masks: str = "auto",
    ) -> None:
        self._source, self._kwargs, self._n_threads = source, dict(env_kwargs or {}), n_threads
        super().__init__(
            self._make(range(n_envs)),
            name=source,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            autoreset_mode="NextStep",
            action_masks=action_masks,
        )
        self.busy_cores = n_threads

    def _make(self, seeds: Sequence[int]) -> Any:
        return make_pool(self._source, seeds=seeds, kwargs=self._kwargs, n_threads=self._n_threads)

    def _first_observations(self, seeds: Sequence[int]) -> tuple[Any, Any]:
        # The seeds of a pool are fixed when it is made, so make a new one.
        self.vector_env = self._make(seeds)
        return super()._first_observations(seeds)
