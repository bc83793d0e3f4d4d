"""Networks of another library as arrays, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .records import ForeignFileError

__all__ = ["ForeignNetworks", "Layers", "layers_of", "log_std_of", "networks_of"]

Array = NDArray[Any]
Layers = list[tuple[Array, Array]]
"""(weight (n_out, n_in), bias (n_out,)) of each layer of a multilayer perceptron."""


@dataclass(kw_only=True)
class ForeignNetworks:
    """A policy of another library: what is needed to act like it, and to go on from it."""

    policy: Layers
    """Observation to means, or to logits."""

    log_std: Array | None = None
    """(A,), logarithms of the deviations; None for discrete actions."""

    value: Layers | None = None
    """Observation to V; None where there is none."""

    activation: str = "tanh"
    """Of the hidden layers, by the name that trpo_fast has for it."""

    mean: Array | None = None
    """(O,), subtracted from observations; None where they are not normalised."""

    variance: Array | None = None
    """(O,), whose square root, with epsilon added to it before, divides them."""

    count: float = 1.0
    """Observations behind mean and variance."""

    clip: float = 10.0
    """Bound on a normalised observation."""

    epsilon: float = 1e-8
    """Added to the variance."""

    reward_scale: float = 1.0
    """What V is multiplied by, to be in the units of the rewards."""

    timesteps: int = 0
    """Environment steps that the policy was trained for."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of its training, by the names of trpo_fast."""

    def with_normalizer(
        self,
        mean: ArrayLike | None,
        variance: ArrayLike | None,
        epsilon: float,
        settings: Mapping[str, Any],
    ) -> ForeignNetworks:
        """The same behind a normaliser, or behind none.

        Parameters
        ----------
        mean, variance
            (O,) each, or both None.
        epsilon
            Added to the variance, at least 0.
        settings
            Of the agent; the bound ``observation_clip`` may be among them.

        Raises
        ------
        ForeignFileError
            One without the other, or numbers that are no moments.
        """
        if mean is None and variance is None:
            return self
        if mean is None or variance is None:
            raise ForeignFileError(
                "observation_mean, observation_variance: expected both or none, got one; pass both"
            )
        moments = [np.asarray(one, np.float64).ravel() for one in (mean, variance)]
        if not (
            moments[0].shape == moments[1].shape
            and all(np.isfinite(one).all() for one in moments)
            and (moments[1] >= 0).all()
            and 0 <= epsilon < np.inf
        ):
            raise ForeignFileError(
                "observation_mean, observation_variance: expected finite numbers (O,) each, got "
                f"shapes {moments[0].shape} and {moments[1].shape}; variances are at least 0"
            )
        clip = float(settings.get("observation_clip", self.clip))
        return replace(
            self, mean=moments[0], variance=moments[1], epsilon=float(epsilon), clip=clip
        )


def layers_of(state: Mapping[str, Array], prefix: str, what: str) -> Layers:
    """The linear layers below a prefix, in their order.

    Parameters
    ----------
    state
        A state dict.
    prefix
        What the names of their weights begin with.
    what
        Of the network, for errors.

    Raises
    ------
    ForeignFileError
        No linear layer, a layer that does not fit the one before, or something else than linear
        layers.
    """
    layers: Layers = []
    for name, weight in state.items():
        if not (name.startswith(prefix) and name.endswith("weight")):
            continue
        if weight.ndim != 2:
            raise ForeignFileError(
                f"{name}: expected a linear layer, got a weight of shape {weight.shape}; only "
                "multilayer perceptrons can be taken over"
            )
        bias = state.get(name.removesuffix("weight") + "bias", np.zeros(len(weight), weight.dtype))
        if bias.shape != (len(weight),):
            raise ForeignFileError(f"{name}: expected a bias for each unit, got {bias.shape}")
        if layers and weight.shape[1] != len(layers[-1][0]):
            raise ForeignFileError(
                f"{name}: expected {len(layers[-1][0])} inputs, as many as the layer before has "
                f"units, got {weight.shape[1]}; does {prefix!r} name one network?"
            )
        layers.append((weight, bias))
    if not layers:
        known = ", ".join(sorted({name.partition(".")[0] for name in state}))
        raise ForeignFileError(
            f"{what}: expected weights whose names begin with {prefix!r}, got none; names begin with "
            f"{known:.200}"
        )
    return layers


def log_std_of(state: Mapping[str, Array], prefix: str) -> Array | None:
    """The free logarithms of deviations below a prefix, (A,), or None.

    Parameters
    ----------
    state
        A state dict.
    prefix
        What the name begins with.
    """
    names = [
        name
        for name in state
        if name.startswith(prefix)
        and any(word in name.rpartition(".")[2].lower() for word in ("log_std", "logstd", "sigma"))
    ]
    return np.ravel(state[names[0]]) if len(names) == 1 else None


def networks_of(
    state: Mapping[str, Array],
    *,
    policy: str,
    value: str | None,
    log_std: ArrayLike | None,
    activation: str,
) -> ForeignNetworks:
    """Policy and value function of a state dict.

    Parameters
    ----------
    state
        Arrays by name.
    policy, value
        What the names of their weights begin with; None for no value function.
    log_std
        (A,) or one number for all; None looks for it below ``policy``.
    activation
        Of the hidden layers.
    """
    layers = layers_of(state, policy, "policy")
    deviations = log_std_of(state, policy)
    if log_std is not None:
        deviations = np.broadcast_to(np.asarray(log_std, np.float64), (len(layers[-1][0]),)).copy()
    return ForeignNetworks(
        policy=layers,
        log_std=deviations,
        value=None if value is None else layers_of(state, value, "value"),
        activation=activation,
    )
