"""Worker processes of this machine that run whole rollouts.

They read the parameters from memory that they share with the parent, and leave whole arrays there.
They are fresh interpreters, not forks and not ``multiprocessing`` children: they start safely in
a process that has threads, never import the user's main script again, and so need no
``if __name__ == "__main__"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import runtime
from ...envs import EnvironmentFailure
from ..budget import Budget
from ..cores import DEFAULT_TIMEOUT
from ..crashes import MOST_CRASHES
from .pool import WorkerPool
from .pooled import PooledSampler
from .process import Processes
from .sources import portable_source

if TYPE_CHECKING:
    from ...envs import EnvSource


class WorkerSampler(PooledSampler):
    """Steps E environments in worker processes; the bits are those of `InProcessSampler`.

    A worker that fails takes the rollout with it: all workers are stopped, and the next `collect`
    starts them again with fresh episodes. They end with the sampler, with this process (however it
    ends), and leave nothing behind. A process that is forked from this one cannot use them.

    Parameters
    ----------
    env
        A Gymnasium id, or a callable without arguments that returns an ``Env``. It is sent with
        cloudpickle, so functions and classes of a script or a notebook are welcome.
    n_envs
        E.
    n_workers
        Number of processes, at least 1; never more than environments.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    env_kwargs
        Passed to ``gymnasium.make``; with an id only.
    timeout
        Seconds that a worker may take to start, or for one step of its environments; None waits for
        ever.
    restart_crashed_environments
        Replace an environment that raises or returns something wrong, and restart a worker that
        exits or hangs (with all its environments); the steps of broken episodes are dropped, and
        ``Rollout.crashes`` says why.
    action_masks
        Where the environments say which actions are allowed, see `InProcessSampler`.
    n_agents
        Of a parallel environment of several agents, which stay in one worker: see
        `trpo_fast.rollout.pettingzoo_workers`; None: environments of one agent.

    Raises
    ------
    ValueError, TypeError, ImportError
        As ``trpo_fast.envs.make_environment``.
    NoWorkers
        The environments cannot be sent, or workers cannot be started here.
    """

    def __init__(
        self,
        env: EnvSource,
        *,
        n_envs: int,
        n_workers: int,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        env_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        restart_crashed_environments: bool = False,
        action_masks: str = "auto",
        n_agents: int | None = None,
    ) -> None:
        settings = {
            "dtype": np.dtype(dtype).name,
            "state_dependent_std": state_dependent_std,
            "action_scaling": action_scaling,
            "restart_crashed_environments": restart_crashed_environments,
            "action_masks": action_masks,
            "n_agents": n_agents,
        }
        pool = WorkerPool(
            Processes(math.inf if timeout is None else timeout),
            portable_source(env, dict(env_kwargs or {})),
            settings,
            n_envs=n_envs,
            n_workers=n_workers,
            together=n_agents or 1,
        )
        super().__init__(pool, n_envs=n_envs, settings=settings)
        self.busy_cores = self.n_workers

    @property
    def _most_losses(self) -> int:
        return MOST_CRASHES if self.recovers_crashes else 0

    def _prepare_rollout(
        self, budget: Budget, start: str, on_step: Callable[[], object] | None
    ) -> None:
        runtime.rest_threads()  # the workers need the processors

    def _begin_again(
        self, w: int, lost: EnvironmentFailure, budget: Budget, start: str, pauses: bool
    ) -> list[str]:
        """A process that is gone takes all its environments with it: they start anew."""
        counters = self.pool.workers[w].block.lasting["counters"].copy()
        self.pool.replace(w)
        self._prepare_worker(w)
        # One further than the last action drawn, so that no seed is used twice.
        self.pool.workers[w].block.lasting["counters"][:] = counters + np.uint64(1)
        self._send_collect(w, budget, "fresh", pauses)
        return [str(lost)]
