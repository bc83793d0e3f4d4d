"""Who steps the environments: in this process, or in a Gymnasium vector environment.

A sampler hands back whole rollouts as arrays `(time, environment, feature)`. Per time step it makes
one call of the policy; nothing else of ours that could be avoided stands between two calls of
`env.step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from trpo_fast.rollout._base import (
    ActingPolicy,
    Actor,
    Sampler,
    SamplerBase,
    environment_seed,
)
from trpo_fast.rollout.data import Rollout, RolloutBuffers
from trpo_fast.rollout.in_process import InProcessSampler
from trpo_fast.rollout.vector import VectorEnvSampler

if TYPE_CHECKING:
    from trpo_fast.envs import EnvSource

__all__ = [
    "ActingPolicy",
    "Actor",
    "InProcessSampler",
    "Rollout",
    "RolloutBuffers",
    "Sampler",
    "SamplerBase",
    "VectorEnvSampler",
    "environment_seed",
    "make_sampler",
]


def make_sampler(
    env: EnvSource,
    *,
    n_envs: int = 1,
    dtype: npt.DTypeLike = "float32",
    state_dependent_std: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
) -> InProcessSampler | VectorEnvSampler:
    """Open the environments of a run and return their sampler; then `bind` a policy to it.

    Args:
        env: a Gymnasium id, an `Env`, a factory, or a `VectorEnv`.
        n_envs: number of environments made from an id or a factory. An `Env` gives one, a
            `VectorEnv` as many as it holds: read `sampler.n_envs`.
        dtype: dtype of observations and continuous actions, that of the policy.
        state_dependent_std: the Gaussian's deviation is a network output.
        env_kwargs: passed to `gymnasium.make`; with an id only.

    Raises:
        ValueError, TypeError, ImportError: see `trpo_fast.envs.make_environment`; also spaces that
            are not supported and environments that are not alike.
    """
    from trpo_fast.envs import open_environments

    opened = open_environments(env, n_envs=n_envs, env_kwargs=env_kwargs)
    if opened.vector_env is not None:
        return VectorEnvSampler(
            opened.vector_env,
            name=opened.name,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
        )
    try:
        return InProcessSampler(
            opened.environments,
            name=opened.name,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
        )
    except BaseException:
        for environment in opened.environments:
            # an environment that the caller made is the caller's to close
            if environment is not env:
                environment.close()
        raise
