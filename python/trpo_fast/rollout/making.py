"""How the sampler of a run is chosen and made."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from .cores import DEFAULT_TIMEOUT, available_cores

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from ..envs import EnvSource
    from .cluster import ClusterSampler
    from .in_process import InProcessSampler
    from .vector import VectorEnvSampler
    from .workers import WorkerSampler


_NOT_MADE_AGAIN = (
    "restart_crashed_environments: an environment that exists already, or one of several agents, is not "
    "made again; pass an id or a function that makes one of one agent"
)


def make_sampler(
    env: EnvSource,
    *,
    n_envs: int = 1,
    n_workers: int | None = 0,
    dtype: npt.DTypeLike = "float32",
    state_dependent_std: bool = False,
    action_scaling: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    worker_timeout: float | None = DEFAULT_TIMEOUT,
    restart_crashed_environments: bool = False,
    action_masks: str = "auto",
    cluster: str | None = None,
    runtime_env: str | None = None,
) -> InProcessSampler | VectorEnvSampler | WorkerSampler | ClusterSampler:
    """Open the environments of a run and return their sampler; then `bind` a policy to it.

    Parameters
    ----------
    env
        A Gymnasium id, "envpool:" and a task of EnvPool, "pettingzoo:" and an environment of
        PettingZoo, an ``Env``, a ``VectorEnv``, a ``ParallelEnv`` of PettingZoo, or a factory.
    n_envs
        Number of environments made from an id or a factory, at least 1. An ``Env`` gives one, a
        ``VectorEnv`` as many as it holds, an environment of PettingZoo one for each agent: read
        ``sampler.n_envs``.
    n_workers
        Processes that step the environments; 0 steps them in this process. None takes one for every
        core that this process may use, but no more than it takes to give none of them more
        environments, and 0 where that would be 1. An ``Env`` or a ``VectorEnv`` that exists already
        stays in this process. The rollouts have the same bits for every number of workers. EnvPool
        takes the number as that of its threads (0 and None: one for every core).
    dtype
        dtype of observations and continuous actions, that of the policy: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    env_kwargs
        Passed to ``gymnasium.make``; with an id only.
    worker_timeout
        Seconds without a step after which a worker is taken to hang; None waits for ever.
    restart_crashed_environments
        Replace environments that crash, and drop the steps of their broken episodes, instead of
        raising.
    action_masks
        Where environments say which actions are allowed: "auto", "none", "info", "method" or
        "observation:<name>", see ``trpo_fast.envs.masks``.
    cluster
        Where a Ray cluster is, whose actors step the environments: see
        ``trpo_fast.rollout.cluster.Connection``. None: this machine steps them.
    runtime_env
        What Ray brings to the nodes of a cluster: a JSON object, or the name of a YAML file.

    Returns
    -------
    Sampler
        One that has no policy yet.

    Raises
    ------
    ValueError, TypeError, ImportError
        See ``trpo_fast.envs.make_environment``; also spaces that are not supported and environments
        that are not alike.
    """
    from ..envs.envpool import is_envpool_source

    if cluster is not None:
        from .cluster import ClusterSampler

        refuse_without_actors(env)
        return ClusterSampler(
            env,
            cluster=cluster,
            runtime_env=runtime_env,
            n_envs=n_envs,
            n_workers=n_workers,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            env_kwargs=env_kwargs,
            timeout=worker_timeout,
            restart_crashed_environments=restart_crashed_environments,
            action_masks=action_masks,
        )
    if n_workers is not None and operator.index(n_workers) < 0:
        raise ValueError(f"n_workers: expected at least 0, or None, got {n_workers}")
    common: dict[str, Any] = {
        "dtype": dtype,
        "state_dependent_std": state_dependent_std,
        "action_scaling": action_scaling,
        "action_masks": action_masks,
    }
    if is_envpool_source(env):
        from .envpool import EnvPoolSampler

        if restart_crashed_environments:
            raise ValueError(
                "restart_crashed_environments: EnvPool has no way to replace one environment; "
                "use Gymnasium's environments for that"
            )
        return EnvPoolSampler(
            str(env),
            n_envs=n_envs,
            n_threads=n_workers or min(available_cores(), n_envs),
            env_kwargs=env_kwargs,
            **common,
        )
    import gymnasium
    from gymnasium.vector import VectorEnv

    from ..envs import copy_environment, maker_of, open_environments
    from ..envs.asking import has_agents
    from ..envs.wrappers import close_all

    of_several_agents = isinstance(env, str) and env.startswith("pettingzoo:")
    of_several_agents |= has_agents(env)
    exists = of_several_agents or isinstance(env, gymnasium.Env | VectorEnv)
    if restart_crashed_environments and exists:
        raise ValueError(_NOT_MADE_AGAIN)

    # In worker processes.
    wanted = n_workers
    if wanted is None:
        wanted = _fewest_workers(n_envs, min(available_cores(), n_envs))
        wanted = wanted if wanted > 1 else 0
    if wanted > 0 and not exists:
        from .workers import NoWorkers, WorkerSampler

        try:
            return WorkerSampler(
                env,
                n_envs=n_envs,
                n_workers=wanted,
                env_kwargs=env_kwargs,
                timeout=worker_timeout,
                restart_crashed_environments=restart_crashed_environments,
                **common,
            )
        except NoWorkers as reason:
            if not reason.is_vector_env:
                if n_workers is not None:
                    raise
                warnings.warn(f"{reason}; stepping it in this process", stacklevel=2)

    # In this process.
    opened = open_environments(env, n_envs=n_envs, env_kwargs=env_kwargs)
    if opened.vector_env is not None:
        return _kind_of_vector_sampler(opened.vector_env)(
            opened.vector_env, name=opened.name, **common
        )
    if opened.parallel:
        if restart_crashed_environments:
            close_all(opened.parallel)
            raise ValueError(_NOT_MADE_AGAIN)
        can_be_made = isinstance(env, str) or not of_several_agents  # an id, or a function
        if wanted > 0 and can_be_made:
            workers = _parallel_in_workers(
                env, opened.parallel, n_workers, wanted, env_kwargs, worker_timeout, common
            )
            if workers is not None:
                return workers
        from .pettingzoo import PettingZooSampler

        def make_parallel() -> Any:
            return copy_environment(env, **dict(env_kwargs or {})).env  # type: ignore[attr-defined]

        return PettingZooSampler(
            opened.parallel,
            name=opened.name,
            make_copy=make_parallel if can_be_made else None,
            **common,
        )
    from .in_process import InProcessSampler

    make_copy = (
        maker_of(env) if exists else partial(copy_environment, env, **dict(env_kwargs or {}))
    )
    remake = (lambda _: make_copy()) if restart_crashed_environments and make_copy else None
    try:
        return InProcessSampler(
            opened.environments, name=opened.name, remake=remake, make_copy=make_copy, **common
        )
    except BaseException:
        for environment in opened.environments:
            # An environment that the caller made is the caller's to close.
            if environment is not env:
                environment.close()
        raise


def refuse_without_actors(env: EnvSource) -> None:
    """Raise ValueError for environments that no actor of a cluster can make.

    Parameters
    ----------
    env
        As for `make_sampler`.
    """
    from ..envs.envpool import is_envpool_source

    kind = type(env).__name__
    if is_envpool_source(env) or (isinstance(env, str) and env.startswith("pettingzoo:")):
        kind = str(env)
    elif isinstance(env, (str, type)) or not hasattr(env, "step"):
        return
    raise ValueError(
        f"cluster: expected the id of a Gymnasium environment or a function that makes one, got "
        f"{kind:.80}, which actors cannot make one by one; pass such a function, or leave out cluster"
    )


def _parallel_in_workers(
    env: EnvSource,
    here: Sequence[Any],
    n_workers: int | None,
    wanted: int,
    env_kwargs: Mapping[str, Any] | None,
    timeout: float | None,
    common: dict[str, Any],
) -> WorkerSampler | None:
    """What steps such parallel environments in worker processes, and these closed; None: nothing."""
    from ..envs.wrappers import close_all
    from .pettingzoo_workers import PettingZooWorkerSampler
    from .workers import NoWorkers

    try:
        sampler = PettingZooWorkerSampler(
            env,
            n_parallel=len(here),
            n_agents=len(here[0].possible_agents),
            n_workers=wanted,
            env_kwargs=env_kwargs,
            timeout=timeout,
            **common,
        )
    except NoWorkers as reason:
        if n_workers is not None:
            close_all(here)
            raise
        warnings.warn(f"{reason}; stepping it in this process", stacklevel=3)
        return None
    close_all(here)
    return sampler


def _kind_of_vector_sampler(vector_env: VectorEnv[Any, Any, Any]) -> type[VectorEnvSampler]:
    from ..envs.envpool import is_envpool
    from .supersuit import SuperSuitSampler, is_supersuit
    from .vector import VectorEnvSampler

    if is_envpool(vector_env):
        from .envpool import PoolSampler

        return PoolSampler
    return SuperSuitSampler if is_supersuit(vector_env) else VectorEnvSampler


def _fewest_workers(n_envs: int, at_most: int) -> int:
    """The least number of workers of which none has more environments than among ``at_most``.

    A rollout takes as long as the worker with the most environments: 8 of them end no sooner among
    6 workers than among 4.
    """
    most = -(-n_envs // at_most)
    return -(-n_envs // most)
