"""A policy by itself as arrays and JSON, named as in the checkpoints of agents, and back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..seeds import Purpose, derive
from .critic import FrozenCritic

if TYPE_CHECKING:
    from ..envs import ActionAdapter, ObservationEncoder
    from .policy import Policy

__all__ = ["PolicyParts", "parts_from_state", "policy_state"]

_EPSILON = 1e-8  # of a normaliser, where a file says nothing else


class PolicyParts(NamedTuple):
    """What a policy is made of."""

    network: core.Policy
    encoder: ObservationEncoder
    adapter: ActionAdapter
    seed: int
    drawn: int
    critic: FrozenCritic | None
    mask_source: str


def policy_state(policy: Policy) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays by name, and the rest as JSON can hold it.

    Parameters
    ----------
    policy
        The policy by itself.
    """
    from ..envs import describe_spaces

    network, critic = policy.network, policy.critic
    normalizer = network.normalizer
    tensors: dict[str, NDArray[Any]] = {"policy": network.parameters}
    config: dict[str, Any] = {
        "dtype": network.dtype.name,
        "hidden_sizes": list(network.hidden_sizes),
        "activation": network.activation,
        "state_dependent_std": policy.adapter.state_dependent_std,
        "action_scaling": policy.adapter.scaling,
        "normalize_observations": normalizer is not None,
    }
    if normalizer is not None:
        # as statistics of one row, so that m2 / count is the variance to the bit
        tensors["observation_statistics.count"] = np.array([1.0])
        tensors["observation_statistics.mean"] = normalizer.mean
        tensors["observation_statistics.m2"] = normalizer.variance
        config["observation_clip"] = normalizer.clip
        config["observation_epsilon"] = normalizer.epsilon
    metadata: dict[str, Any] = {
        "config": config,
        "spaces": describe_spaces(policy.encoder.space, policy.adapter.space),
        "predictions": policy.drawn,
        "prediction_seed": policy.seed,
        "mask_source": policy.mask_source,
    }
    if critic is not None:
        tensors["value_function"] = critic.network.parameters
        config["value_hidden_sizes"] = list(critic.network.hidden_sizes)
        config["value_activation"] = critic.network.activation
        metadata["value_mean"] = critic.units.mean
        metadata["value_scale"] = critic.units.scale
    return tensors, metadata


def parts_from_state(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> PolicyParts:
    """Build a policy's parts from what :func:`policy_state` or an agent has written.

    Parameters
    ----------
    tensors, metadata
        The state; a file's, so anything may stand in it.

    Raises
    ------
    KeyError, TypeError, ValueError
        A state that no agent has written. Sizes are compared with the tensors before anything is
        built.
    """
    from ..envs import ActionAdapter, ObservationEncoder, described_space

    config, spaces = metadata["config"], metadata["spaces"]
    dtype = np.dtype(config["dtype"])
    encoder = ObservationEncoder(described_space(spaces["observation"]), dtype)
    adapter = ActionAdapter(
        described_space(spaces["action"]),
        state_dependent_std=bool(config["state_dependent_std"]),
        scaling=bool(config.get("action_scaling", False)),  # earlier files have none
    )
    seed = metadata.get("prediction_seed")
    if seed is None:  # the checkpoint of an agent
        seed = derive(config["seed"], Purpose.PREDICTIONS)
    drawn = int(metadata["predictions"])
    if not (0 <= int(seed) < 2**64 and 0 <= drawn < 2**64):
        raise ValueError(f"predictions: expected 64-bit numbers, got {seed} and {drawn}")
    network = _network(tensors, config, encoder, adapter)
    critic = _critic(tensors, metadata, encoder)
    source = str(metadata.get("mask_source", "none"))  # early files have none
    return PolicyParts(network, encoder, adapter, int(seed), drawn, critic, source)


def _network(
    tensors: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    encoder: ObservationEncoder,
    adapter: ActionAdapter,
) -> core.Policy:
    distribution = adapter.distribution
    sizes = [encoder.dim, *config["hidden_sizes"], distribution.n_outputs]
    _check_size("policy", tensors["policy"], sizes, distribution.n_free_parameters)
    network = core.Policy(
        encoder.dim,
        distribution,
        hidden_sizes=config["hidden_sizes"],
        activation=config["activation"],
        dtype=encoder.dtype,
    )
    network.parameters = tensors["policy"]
    if config["normalize_observations"]:
        statistics = core.RunningStatistics(encoder.dim)
        statistics.load_state_dict(
            {n: tensors[f"observation_statistics.{n}"] for n in ("count", "mean", "m2")}
        )
        if statistics.count > 0:
            network.set_normalizer(
                statistics.mean,
                statistics.variance,
                clip=config["observation_clip"],
                epsilon=config.get("observation_epsilon", _EPSILON),
            )
    return network


def _critic(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], encoder: ObservationEncoder
) -> FrozenCritic | None:
    if "value_function" not in tensors:
        return None
    config = metadata["config"]
    sizes = [encoder.dim, *config["value_hidden_sizes"], 1]
    _check_size("value_function", tensors["value_function"], sizes, 0)
    network = core.ValueFunction(
        encoder.dim,
        hidden_sizes=config["value_hidden_sizes"],
        activation=config["value_activation"],
        dtype=encoder.dtype,
    )
    network.parameters = tensors["value_function"]
    mean = float(metadata.get("value_mean", 0.0))  # earlier files have none
    return FrozenCritic(network, mean=mean, scale=float(metadata["value_scale"]))


def _check_size(name: str, array: NDArray[Any], sizes: list[int], n_free: int) -> None:
    """Raise, before a network is built, unless a file holds as many parameters as it will have."""
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"{name}: expected sizes of layers, got {sizes!r:.80}")
    n = n_free + sum((a + 1) * b for a, b in pairwise(sizes))
    if array.shape != (n,):
        raise ValueError(f"{name}: expected ({n},) parameters for these sizes, got {array.shape}")
