"""Checks of what a checkpoint holds, before anything is built from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import CheckpointError

if TYPE_CHECKING:
    from ..config import AgentConfig

_LARGEST = 2**62  # of counts of anything
_MOST_THREADS = 4096

# tensors of finite numbers, and whether they may be negative
_FINITE = {
    "policy": True,
    "value_function": True,
    "episode_returns": True,
    "episode_lengths": False,
    "sampler.episode_returns": True,
    "sampler.episode_lengths": False,
    "sampler.counters": False,
    "sampler.observations": True,
}
_GROUPS = (
    "observation_statistics",
    "return_statistics",
    "value_optimizer",
    "policy_optimizer",
    "episode_metrics",
)
_NOT_NEGATIVE = ("second_moment", "steps", "count", "variance", "m2")


def check_entries(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], config: AgentConfig
) -> None:
    """Raise CheckpointError unless every number lies in its range and sizes fit the tensors.

    A file of some kilobytes then cannot ask for networks or environments that fill the memory.

    Parameters
    ----------
    tensors, metadata
        What the file holds.
    config
        The settings in it.
    """
    for name in ("timesteps", "iteration", "predictions"):
        _integer(name, metadata[name], 0)
    for steps in metadata.get("schedule_span") or ():
        _integer("schedule_span", steps, 0)
    _number("elapsed_seconds", metadata["elapsed_seconds"], "a number of at least 0")
    _number("value_scale", metadata["value_scale"], "a positive number")
    _number("value_mean", metadata.get("value_mean", 0.0), "a finite number")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    counters = tensors["sampler.counters"]
    if counters.ndim != 1 or counters.dtype != np.uint64 or not len(counters):
        raise _wrong("the counters of the environments", "one each", f"shape {counters.shape}")
    if _integer("n_envs", metadata["n_envs"], 1) != len(counters):
        raise _wrong("n_envs", f"{len(counters)}, as many as counters", metadata["n_envs"])
    if config.n_threads is not None and config.n_threads > _MOST_THREADS:
        raise _wrong("n_threads", f"at most {_MOST_THREADS}", config.n_threads)
    _check_size("hidden_sizes", config.hidden_sizes, tensors["policy"])
    sizes = getattr(config, "value_hidden_sizes", None)
    if sizes is not None and "value_function" in tensors:
        _check_size("value_hidden_sizes", sizes, tensors["value_function"])


def _check_tensor(name: str, tensor: NDArray[Any]) -> None:
    group, _, part = name.rpartition(".")
    if name.startswith("episode_metrics."):  # the name of a metric may have dots of its own
        group, part = "episode_metrics", ""
    may_be_negative = _FINITE.get(name)
    if may_be_negative is None:
        if group not in _GROUPS:
            return
        may_be_negative = part not in _NOT_NEGATIVE
    if not np.isfinite(tensor).all():
        raise _wrong(name, "finite numbers", "NaN or infinity")
    if not may_be_negative and tensor.size and tensor.min() < 0:
        raise _wrong(name, "no negative number", tensor.min())
    if name == "sampler.counters" and tensor.size and int(tensor.max()) > _LARGEST:
        raise _wrong(name, "counts of steps", tensor.max())


def _check_size(name: str, sizes: Sequence[int], tensor: NDArray[Any]) -> None:
    """Hidden layers alone must not have more parameters than the file holds."""
    parameters = sum(sizes) + sum(a * b for a, b in itertools.pairwise(sizes))
    if tensor.ndim != 1 or parameters > tensor.size:
        raise _wrong(name, f"layers of at most {tensor.size} parameters", list(sizes))


def _integer(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _LARGEST:
        raise _wrong(name, f"an integer of at least {low}", value)
    return value


def _number(name: str, value: Any, expected: str) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if good and expected == "a positive number":
        good = value > 0
    elif good and expected == "a number of at least 0":
        good = value >= 0
    if not good:  # a NaN is not: it is below no bound
        raise _wrong(name, expected, value)


def _wrong(name: str, expected: str, got: Any) -> CheckpointError:
    return CheckpointError(
        f"checkpoint: expected {expected} as {name}, got {got!r:.80}; was it written by trpo_fast?"
    )
