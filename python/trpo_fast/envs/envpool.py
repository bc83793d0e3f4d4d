"""EnvPool as a source of environments: `env="envpool:HalfCheetah-v5"`.

An EnvPool steps many environments in C++ threads of its own. Its seeds are fixed when it is made,
so whoever seeds makes a new one.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..extras import import_extra

PREFIX = "envpool:"

_OURS = ("num_envs", "batch_size", "seed", "env_seed", "env_type")


def is_envpool_source(source: object) -> bool:
    """Whether `source` is an id that begins with "envpool:"."""
    return isinstance(source, str) and source.startswith(PREFIX)


def is_envpool(vector_env: Any) -> bool:
    """Whether a vector environment is an EnvPool."""
    return any(base.__module__.partition(".")[0] == "envpool" for base in type(vector_env).__mro__)


def read_spaces(vector_env: Any) -> tuple[Any, Any]:
    """The spaces of one environment. EnvPool builds them once, and says that it rounds bounds."""
    with warnings.catch_warnings():
        if is_envpool(vector_env):
            warnings.simplefilter("ignore")
        return vector_env.single_observation_space, vector_env.single_action_space


def step_of(pool: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What `pool.step` does, without the dictionaries that it makes and the arguments that it guesses.

    They take almost half of the time of a pool of small environments. The result has no info. Where a
    pool is not as this function knows them (one player an environment, all environments in a step, one
    array of observations), it returns `pool.step`.
    """
    try:
        names, spec = list(pool._state_keys), pool._spec
        observation, reward, terminated, truncated = (
            names.index(name) for name in ("obs", "reward", "done", "trunc")
        )
        known = (
            list(spec._action_keys) == ["env_id", "players.env_id", "action"]
            and pool.config.get("max_num_players", 1) == 1
            and not pool.is_async
        )
        dtype = np.dtype(spec._action_spec[-1][0])
        send, receive, envs = pool._send, pool._recv, pool.all_env_ids
    except (AttributeError, IndexError, TypeError, ValueError):
        known = False
    if not known:
        step: Callable[[Any], tuple[Any, ...]] = pool.step
        return step

    def step_all(actions: Any) -> tuple[Any, ...]:
        send([envs, envs, np.ascontiguousarray(actions, dtype)])
        state = receive()
        cut = state[truncated]
        # done is true for both ways to end
        return state[observation], state[reward], state[terminated] & ~cut, cut, {}

    return step_all


def make_pool(
    source: str, *, seeds: Sequence[int], kwargs: Mapping[str, Any], n_threads: int
) -> Any:
    """An EnvPool of one environment for each seed, all of which step together.

    Args:
        source: "envpool:" and a task of EnvPool.
        seeds: one for every environment; EnvPool takes 31 bits of each.
        kwargs: further arguments of `envpool.make_gymnasium`.
        n_threads: threads, unless `kwargs` has `num_threads`. Results do not depend on it. One for
            every processor of this process is bound to its processor, unless `kwargs` has
            `thread_affinity_offset`: the scheduler would put two of them on one processor, and
            leave them there, in many a run.

    Raises:
        ImportError: EnvPool is not installed.
        ValueError: an unknown task, or arguments that EnvPool refuses.
    """
    task = source.removeprefix(PREFIX)
    envpool = import_extra("envpool", what=f"env={source!r}", extra="envpool")
    taken = sorted(set(_OURS) & set(kwargs))
    if taken:
        raise ValueError(
            f"env_kwargs: expected none of {', '.join(_OURS)} with {source!r}, got {taken[0]}; "
            "n_envs and the seed of the run say it"
        )
    known = envpool.list_all_envs()
    if task not in known:
        close = difflib.get_close_matches(task, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "see envpool.list_all_envs()"
        raise ValueError(f"env: EnvPool has no task {task!r}; {hint}")
    try:
        pool = envpool.make_gymnasium(
            task,
            num_envs=len(seeds),
            seed=[int(seed) & (2**31 - 1) for seed in seeds],
            **{"num_threads": n_threads, **_binding(n_threads, kwargs), **kwargs},
        )
        read_spaces(pool)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"env: EnvPool cannot make {task!r}: {error}") from error
    return pool


def _binding(n_threads: int, kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Bind the threads where they are as many as processors, and so take none from anybody."""
    if "num_threads" in kwargs or not hasattr(os, "sched_getaffinity"):
        return {}
    processors = sorted(os.sched_getaffinity(0))
    contiguous = processors[-1] - processors[0] + 1 == len(processors)
    if n_threads != len(processors) or not contiguous:
        return {}
    return {"thread_affinity_offset": processors[0]}
