"""PettingZoo's parallel environments in worker processes, each with all agents of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..config import Sampling
from .budget import Budget
from .calls import load_states, prepare_states, save_states
from .changes import on_group
from .cores import DEFAULT_TIMEOUT
from .data import Rollout
from .vector import collect_rows, refuse_whole_episodes
from .workers.sampler import WorkerSampler


class PettingZooWorkerSampler(WorkerSampler):
    """Steps K parallel environments of A agents each in worker processes, as `PettingZooSampler` does.

    The agents of an environment stay together: a worker has some of the K environments.

    Parameters
    ----------
    source
        An id that begins with "pettingzoo:", or a callable that makes a parallel environment.
    n_parallel
        K, at least 1.
    n_agents
        A, at least 1.
    n_workers
        Number of processes, at least 1; never more than parallel environments.
    dtype, state_dependent_std, action_scaling, env_kwargs, timeout, action_masks
        As of `WorkerSampler`.

    Raises
    ------
    NoWorkers, ValueError, TypeError, ImportError
        As `WorkerSampler`.
    """

    evaluates_in_workers = False  # its workers have environments of several agents

    def __init__(
        self,
        source: Any,
        *,
        n_parallel: int,
        n_agents: int,
        n_workers: int,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        env_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        action_masks: str = "auto",
    ) -> None:
        self._n_agents = n_agents
        super().__init__(
            source,
            n_envs=n_parallel * n_agents,
            n_workers=n_workers,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            env_kwargs=env_kwargs,
            timeout=timeout,
            action_masks=action_masks,
            n_agents=n_agents,
        )

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch, see `SamplerBase.budget`; whole episodes are refused.

        Parameters
        ----------
        sampling, batch_size
            As in `Budget.share`.
        """
        refuse_whole_episodes(sampling, self.name)
        return super().budget(sampling, batch_size)

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Read or write states, or change the environments; see `PettingZooSampler.map_groups`.

        Parameters
        ----------
        function, arguments, name
            As of `WorkerSampler.map_groups`.
        """
        if function not in (prepare_states, save_states, load_states, on_group):
            raise NotImplementedError(
                f"{self.name}: {name} needs environments of one agent, which cannot be reached here"
            )
        return super().map_groups(function, arguments, name=name)

    def _state_holders(self) -> Sequence[int]:
        return range(0, self.n_envs, self._n_agents)

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        return collect_rows(super()._collect, budget, on_step)
