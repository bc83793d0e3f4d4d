"""An agent that goes on from another library's policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import ConfigError
from ..foreign import ForeignFileError, ForeignNetworks
from ..presets import find_preset

if TYPE_CHECKING:
    from ..envs import EnvSource
    from .agent import OnPolicyAgent

__all__ = ["agent_from_foreign"]

Agent = TypeVar("Agent", bound="OnPolicyAgent[Any]")

_EPSILON = 1e-8  # that an agent adds to the variance of observations


def agent_from_foreign(
    cls: type[Agent],
    networks: ForeignNetworks,
    env: EnvSource,
    settings: Mapping[str, Any],
    env_kwargs: Mapping[str, Any] | None,
) -> Agent:
    """Build an agent that acts as these networks do.

    Parameters
    ----------
    cls
        The method that goes on with them.
    networks
        What another library has trained.
    env
        What is stepped.
    settings
        Settings that win over those of the other training; shapes cannot differ.
    env_kwargs
        Keyword arguments of ``gymnasium.make``, where ``env`` is an id.

    Raises
    ------
    ForeignFileError
        The networks do not fit the environment's spaces.
    ConfigError
        A setting that would make other networks, or an invalid one.
    """
    shape: dict[str, Any] = {
        "hidden_sizes": _hidden(networks.policy),
        "activation": networks.activation,
        "normalize_observations": networks.mean is not None,
        "state_dependent_std": False,
    }
    if networks.value is not None:
        shape |= {
            "value_hidden_sizes": _hidden(networks.value),
            "value_activation": networks.activation,
        }
    for name, value in shape.items():
        given = settings.get(name, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise ConfigError(
                f"{name}: expected the {value!r} of the networks that are taken over, got {given!r}; "
                "leave it out"
            )
    if networks.mean is not None:
        shape["observation_clip"] = settings.get("observation_clip", networks.clip)
    began: dict[str, Any] = {
        **find_preset("sb3").settings,
        "scale_returns": True,
        **networks.settings,
        **shape,
    }
    given = {name: value for name, value in settings.items() if name not in shape}
    cls.config_type.refuse_unknown(given)
    values = cls.config_type.usable({k: v for k, v in began.items() if k not in given}, **given)
    agent = cls(env, config=cls.config_type.from_dict(values), env_kwargs=env_kwargs)
    try:
        _take_over(agent, networks)
    except BaseException:
        agent.close()
        raise
    return agent


def _take_over(agent: OnPolicyAgent[Any], networks: ForeignNetworks) -> None:
    policy = agent.policy
    _check("policy", networks.policy, policy.obs_dim, policy.distribution.n_outputs)
    flat = [_flat(networks.policy)]
    n_free = policy.distribution.n_free_parameters
    if n_free:
        if networks.log_std is None or networks.log_std.shape != (n_free,):
            got = "none" if networks.log_std is None else str(networks.log_std.shape)
            raise ForeignFileError(
                f"log_std: expected the logarithms of {n_free} deviations, got {got}; pass log_std="
            )
        flat.append(networks.log_std.astype(np.float64))
    policy.parameters = np.concatenate(flat)
    fitting = agent.value_fitting
    if fitting is not None and networks.value is not None:
        _check("value function", networks.value, policy.obs_dim, 1)
        fitting.network.parameters = _flat(networks.value)
        # as one return of that deviation, so that V keeps its meaning when the next ones are merged
        scale = networks.reward_scale
        statistics = core.RunningStatistics(1).state_dict()
        statistics |= {"count": np.array([1.0]), "m2": np.array([scale**2])}
        fitting.units.restore(statistics, mean=0.0, scale=scale)
    if networks.mean is not None and networks.variance is not None:
        if networks.mean.size != policy.obs_dim:
            raise ForeignFileError(
                f"normalisation: expected statistics of {policy.obs_dim} numbers of an observation, "
                f"got {networks.mean.size}; are they of this environment?"
            )
        # what this agent adds to the variance is taken off, and the other library's epsilon added
        variance = np.maximum(networks.variance.ravel() + networks.epsilon - _EPSILON, 0.0)
        agent.observation_statistics.load_state_dict(
            {
                "count": np.array([networks.count]),
                "mean": networks.mean.ravel().astype(np.float64),
                "m2": variance * networks.count,
            }
        )
        agent.freeze_normalizer()
    agent.timesteps = networks.timesteps


def _hidden(layers: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[int, ...]:
    return tuple(len(bias) for _, bias in layers[:-1])


def _flat(layers: list[tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(one) for layer in layers for one in layer]).astype(np.float64)


def _check(
    name: str, layers: list[tuple[NDArray[Any], NDArray[Any]]], n_in: int, n_out: int
) -> None:
    got = layers[0][0].shape[1], len(layers[-1][1])
    if got != (n_in, n_out):
        raise ForeignFileError(
            f"{name}: expected {n_in} inputs and {n_out} outputs, as the environment's spaces need "
            f"them, got {got[0]} and {got[1]}; was it trained on another environment?"
        )
