"""What says V(s) in the units of the rewards, whether it is still fitted or not."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import core
from .value_units import ValueUnits

__all__ = ["Critic", "FrozenCritic"]

Float64 = NDArray[np.float64]


class Critic(Protocol):
    """What says V(s) in the units of the rewards."""

    units: ValueUnits
    """Translates between outputs of the network and rewards."""

    @property
    def network(self) -> core.ValueFunction:
        """The value function, in a unit of its own."""

    def predict(self, observations: NDArray[Any]) -> Float64:
        """V (N,) of normalised observations (N, O), in reward units.

        Parameters
        ----------
        observations
            (N, O), normalised.
        """


class FrozenCritic:
    """A value function that is fitted no more: V(s) = mean + scale network(s).

    Parameters
    ----------
    network
        The value function.
    mean, scale
        Of its unit, in reward units, finite.

    Raises
    ------
    ValueError
        A unit that is not finite.
    """

    def __init__(self, network: core.ValueFunction, *, mean: float, scale: float) -> None:
        if not (math.isfinite(mean) and math.isfinite(scale)):
            raise ValueError(f"value unit: expected finite numbers, got {mean} and {scale}")
        self.network = network
        self.units = ValueUnits()
        self.units.mean, self.units.scale = mean, scale

    def predict(self, observations: NDArray[Any]) -> Float64:
        """V (N,) of normalised observations (N, O), in reward units.

        Parameters
        ----------
        observations
            (N, O), normalised.
        """
        return self.units.to_rewards(self.network.predict(observations))
