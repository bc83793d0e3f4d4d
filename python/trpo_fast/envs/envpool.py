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
from ..words import words_of

PREFIX = "envpool:"

# arguments of EnvPool that the configuration of a run decides
_DECIDED_BY_RUN = ("num_envs", "batch_size", "seed", "env_seed", "env_type")


def is_envpool_source(source: object) -> bool:
    """Whether `source` is an id that begins with "envpool:".

    Parameters
    ----------
    source
        As in `make_environment`.
    """
    return isinstance(source, str) and source.startswith(PREFIX)


def is_envpool(vector_env: Any) -> bool:
    """Whether a vector environment is an EnvPool.

    Parameters
    ----------
    vector_env
        A vector environment.
    """
    return any(base.__module__.partition(".")[0] == "envpool" for base in type(vector_env).__mro__)


def read_spaces(vector_env: Any) -> tuple[Any, Any]:
    """Read the spaces of one environment of a vector environment.

    EnvPool warns that it rounds bounds when its spaces are first read; the warning is kept quiet.

    Parameters
    ----------
    vector_env
        A vector environment.

    Returns
    -------
    observation_space, action_space
        Gymnasium spaces.
    """
    with warnings.catch_warnings():
        if is_envpool(vector_env):
            warnings.simplefilter("ignore")
        return vector_env.single_observation_space, vector_env.single_action_space


def step_of(pool: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that steps a pool as `pool.step` does, but sooner.

    `pool.step` makes dictionaries and guesses arguments, which takes almost half of the time of a pool
    of small environments. The function returned here does neither, and its info is empty.

    Parameters
    ----------
    pool
        An EnvPool.

    Returns
    -------
    callable
        From actions (E, *shape) to (observations, rewards, terminated, truncated, info). It is
        `pool.step` itself where the pool has several players an environment, steps a part of its
        environments at a time, or gives several arrays of observations.
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
        # EnvPool's done is true for both ways to end: terminated is what is done and not truncated
        return state[observation], state[reward], state[terminated] & ~cut, cut, {}

    return step_all


def make_pool(
    source: str, *, seeds: Sequence[int], kwargs: Mapping[str, Any], n_threads: int
) -> Any:
    """Make an EnvPool of one environment for each seed, all of which step together.

    Parameters
    ----------
    source
        "envpool:" and a task of EnvPool.
    seeds
        One for every environment; EnvPool takes 31 bits of each.
    kwargs
        Further arguments of `envpool.make_gymnasium`.
    n_threads
        Threads, at least 1, unless `kwargs` has `num_threads`. Results do not depend on it. Where
        there are as many threads as processors, each is bound to one, unless `kwargs` has
        `thread_affinity_offset`: otherwise the scheduler often puts two on one processor and
        leaves them there.

    Returns
    -------
    envpool
        The pool, not reset yet.

    Raises
    ------
    ImportError
        If EnvPool is not installed.
    ValueError
        If the task is unknown, or EnvPool refuses the arguments.
    """
    task = source.removeprefix(PREFIX)
    envpool = import_extra("envpool", what=f"env={source!r}", extra="envpool")
    taken = sorted(set(_DECIDED_BY_RUN) & set(kwargs))
    if taken:
        raise ValueError(
            f"env_kwargs: expected none of {', '.join(_DECIDED_BY_RUN)} with {source!r}, got {taken[0]}; "
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
        raise ValueError(f"env: EnvPool cannot make {task!r}: {words_of(error, 1000)}") from error
    return pool


def _binding(n_threads: int, kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Return the argument that binds each thread to a processor, where there is one for each."""
    if "num_threads" in kwargs or not hasattr(os, "sched_getaffinity"):
        return {}
    processors = sorted(os.sched_getaffinity(0))
    contiguous = processors[-1] - processors[0] + 1 == len(processors)
    if n_threads != len(processors) or not contiguous:
        return {}
    return {"thread_affinity_offset": processors[0]}
