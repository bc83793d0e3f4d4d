"""What a user should know before the first iteration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..words import words_of

if TYPE_CHECKING:
    from ..config import AgentConfig
    from ..rollout import InProcessSampler, Sampler


def first_notices(sampler: Sampler, env_kwargs: Mapping[str, Any] | None = None) -> str:
    """Return what the first record is to say: scaled actions, wrappers that normalise, what no file
    can hold.

    Observations that are too large for these networks are worth a warning at once.

    Parameters
    ----------
    sampler
        The sampler of a new agent.
    env_kwargs
        Keyword arguments of its environments.

    Returns
    -------
    str
        Sentences, divided by semicolons; empty where there is nothing to say.
    """
    from ..envs.wrappers import size_warning
    from .env_kwargs import notice_of

    warning = size_warning(sampler.observation_encoder.dim, sampler.observation_encoder.space)
    if warning:
        warnings.warn(warning, stacklevel=4)
    notices = (sampler.action_adapter.notice, _wrapper_notice(sampler), notice_of(env_kwargs or {}))
    return "; ".join(notice for notice in notices if notice)


def require_memory(sampler: Sampler, settings: AgentConfig, n_steps: int) -> None:
    """Raise where a batch and its networks cannot fit into the memory of this machine.

    Parameters
    ----------
    sampler
        The sampler of a new agent.
    settings
        Its settings.
    n_steps
        N, steps of a batch.

    Raises
    ------
    ValueError
        The system would kill the process, or have it wait for its disk for ever.
    """
    from ..rollout.cores import machine_memory

    encoder, adapter = sampler.observation_encoder, sampler.action_adapter
    inputs, outputs = encoder.dim, sum(adapter.sizes)
    first, last = (settings.hidden_sizes[i] if settings.hidden_sizes else 1 for i in (0, -1))
    # at the very least: rows as sampled and as learned from, parameters, and vectors of their size
    numbers = 2 * n_steps * (inputs + outputs) + 8 * (first * inputs + last * outputs)
    needed, has = encoder.dtype.itemsize * numbers, machine_memory()
    if has and needed > has:
        raise ValueError(
            f"env: expected what {has / 1e9:.0f} GB of memory hold, got observations of {inputs:,} and "
            f"{outputs:,} actions, which take {needed / 1e9:.0f} GB at least in a batch of {n_steps:,} "
            "steps; take smaller observations (gymnasium.ObservationWrapper), or a smaller batch_size"
        )


def with_failure(record: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    """Return a record whose notice says that a callback has ended training.

    Parameters
    ----------
    record
        Of an iteration that was completed, before or amid its callbacks.
    error
        What a callback raised: a worker that was killed during an evaluation, Ctrl-C.

    Returns
    -------
    dict
        A copy of the record.
    """
    said = f"{type(error).__name__}: {words_of(error, 300)}".rstrip(": ")
    notices = (record.get("run/notice"), f"a callback ended training after this iteration: {said}")
    return {**record, "run/notice": "; ".join(notice for notice in notices if notice)}


def _wrapper_notice(sampler: Any) -> str:
    from ..envs.wrappers import normaliser_notice

    vector_env = getattr(sampler, "vector_env", None)
    if vector_env is not None:
        return normaliser_notice(vector_env)
    try:
        found: list[str] = sampler.map_groups(_notice_of_the_first, name="looking at wrappers")
    except NotImplementedError:  # environments of several agents
        return ""
    return found[0]


def _notice_of_the_first(sampler: InProcessSampler) -> str:
    from ..envs.wrappers import normaliser_notice

    return normaliser_notice(sampler.environments[0])
