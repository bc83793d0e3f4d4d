"""The unit in which the value function works: returns of mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import core

Float64 = NDArray[np.float64]

_LARGEST_CHANGE = 1e30  # of the unit, in the unit of before

__all__ = ["ValueUnits"]


class ValueUnits:
    """Running mean mu and deviation sigma of all returns so far, between which V is translated.

    ::

        V(s) = mu + sigma network(s)                         reward units
        target_n = (return_n - mu) / sigma                   what the network is fitted to

    Whenever mu and sigma change, the network's last layer changes with them, so that V(s) stays what
    it was (PopArt: van Hasselt et al. 2016, "Learning values across many orders of magnitude"). Were
    it not for that, V would be multiplied by the growth of sigma, the targets, which contain V, would
    grow in turn, and V would run away.

    The first batch is an exception: before it there is no unit to keep, and V is whatever the initial
    weights make of it.

    Where nothing is ever absorbed, mu = 0 and sigma = 1.
    """

    def __init__(self) -> None:
        self.statistics = core.RunningStatistics(1)
        self.mean = 0.0  # mu, reward units
        self.scale = 1.0  # sigma, reward units per unit of the network's output

    def to_rewards(self, outputs: NDArray[Any]) -> Float64:
        """V in reward units, float64, of outputs of the network.

        Parameters
        ----------
        outputs
            Shape (N,), what the network predicts.
        """
        return outputs.astype(np.float64) * self.scale + self.mean

    def to_targets(self, returns: Float64) -> Float64:
        """What the network is fitted to, of returns in reward units.

        Parameters
        ----------
        returns
            Shape (N,), float64, reward units.
        """
        return (returns - self.mean) / self.scale

    def absorb(self, returns: Float64, value_function: core.ValueFunction) -> None:
        """Merge the returns (N,) of a batch, and keep V as it was.

        Parameters
        ----------
        returns
            (N,) float64, reward units, finite.
        value_function
            Its last layer is changed where the unit changes.
        """
        is_first = self.statistics.count == 0
        self.statistics.update(returns[:, np.newaxis])

        def farthest(center: float) -> float:
            return float(np.abs(returns - center).max(initial=0.0))

        self.settle(farthest, value_function, is_first)

    def settle(
        self,
        farthest: Callable[[float], float],
        value_function: core.ValueFunction,
        is_first: bool,
    ) -> None:
        """Take the unit from the statistics, which have the returns of a batch, and keep V.

        Parameters
        ----------
        farthest
            The largest distance of those returns from a number.
        value_function
            Its last layer is changed where the unit changes.
        is_first
            Whether the statistics had no returns before.
        """
        mean = float(self.statistics.mean[0])
        deviation = float(np.sqrt(self.statistics.variance[0]))
        if not np.isfinite(deviation):  # the squares of such returns are no numbers
            deviation = farthest(mean)
        # returns that only rounding tells apart have no deviation that could be a unit
        rounding = 64.0 * np.finfo(np.float64).eps * farthest(0.0)
        scale = deviation if deviation > rounding else (1.0 if is_first else self.scale)
        ratio, shift = self.scale / scale, (self.mean - mean) / scale
        # A change that single precision cannot hold starts V anew, as the first batch does.
        if not is_first and max(ratio, abs(shift)) < _LARGEST_CHANGE:
            # sigma' o' + mu' = sigma o + mu
            value_function.rescale_outputs(ratio, shift)
        self.mean, self.scale = mean, scale

    def restore(self, tensors: Mapping[str, NDArray[Any]], *, mean: float, scale: float) -> None:
        """Go on from stored statistics and the unit that the stored network works in.

        Parameters
        ----------
        tensors
            The statistics by name.
        mean, scale
            Of the unit, in reward units.
        """
        self.statistics.load_state_dict(dict(tensors))
        self.mean, self.scale = mean, scale
