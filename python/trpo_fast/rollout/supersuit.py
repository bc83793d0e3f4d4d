"""Vector environments that SuperSuit makes of PettingZoo's: several agents, one policy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .filling import RolloutBuffers
from .vector import VectorEnvSampler

Array: TypeAlias = npt.NDArray[Any]


def is_supersuit(vector_env: Any) -> bool:
    """Whether a vector environment is SuperSuit's.

    Parameters
    ----------
    vector_env
        A vector environment.
    """
    kinds = type(getattr(vector_env, "unwrapped", vector_env)).__mro__
    return any(base.__module__.partition(".")[0] == "supersuit" for base in kinds)


class SuperSuitSampler(VectorEnvSampler):
    """Steps what `supersuit.pettingzoo_env_to_vec_env_v1` and `concat_vec_envs_v1` make.

    Every agent is an environment here; all of them share the policy. SuperSuit differs from
    Gymnasium in three ways:

    * its ``observation_space`` and ``action_space`` are those of one agent;
    * it does not say that it resets in the step that ends the last agent's episode (SAME_STEP);
    * its infos are a list, and hold a ``terminal_observation`` only where that reset took place:
      otherwise what the step returned is the true successor.

    Parameters are those of `VectorEnvSampler`.

    Parameters
    ----------
    vector_env
        What one of these two functions made.
    **settings
        As for `VectorEnvSampler`.
    """

    def __init__(self, vector_env: Any, **settings: Any) -> None:
        super().__init__(vector_env, autoreset_mode="SameStep", **settings)

    @staticmethod
    def _spaces_of(vector_env: Any) -> tuple[Any, Any]:
        return vector_env.observation_space, vector_env.action_space

    def _final_observation(self, buffers: RolloutBuffers, t: int, e: int, infos: Any) -> Array:
        if infos[e].get("terminal_observation") is None:
            row: Array = np.array(buffers.observations[t + 1, e])
            return row
        return super()._final_observation(buffers, t, e, infos)
