"""The value function V(s) and its fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .checks import Float, Float64, choice, finite, integer, seed_number, shaped
from .network import Network, adam_state, load_adam_state


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """What one value fit did. With status ``"non_finite"`` the parameters are those before."""

    status: Literal["ok", "non_finite"]
    message: str
    loss_before: float  # mean squared error on the whole batch
    loss_after: float
    steps: int  # optimiser steps
    seconds: float


class ValueFunction(Network):
    """V(s): a network with one output, fitted by least squares.

    Observations are those that the network sees: a value function has no normaliser of its own, so
    rows go through :meth:`Policy.normalize` first. Values are in the unit of the targets.
    Copies and pickles hold parameters and Adam's moments.

    Parameters
    ----------
    obs_dim
        O, at least 1.
    hidden_sizes
        Units of each hidden layer; empty for a linear function.
    activation
        One of ``ACTIVATIONS``.
    dtype
        S: float32 or float64.
    hidden_gain
        Every hidden weight matrix has orthonormal rows or columns times this, at least 0.
    output_gain
        The same of the last one.
    seed
        Of the initial weights, in [0, 2**64).
    """

    def __init__(
        self,
        obs_dim: int,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        dtype: DTypeLike = "float32",
        hidden_gain: float = math.sqrt(2.0),
        output_gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(obs_dim, 1, hidden_sizes, activation, dtype)
        self.make_native()
        self.parameters = self.initial_parameters(hidden_gain, output_gain, seed)

    def make_native(self) -> None:
        kind = self.by_dtype(_core.ValueFunctionF32, _core.ValueFunctionF64)
        self._native = kind(self.obs_dim, list(self.hidden_sizes), self.activation)

    @property
    def native(self) -> _core.ValueFunctionF32 | _core.ValueFunctionF64:
        return self._native

    def __getstate__(self) -> dict[str, Any]:
        """As for every network, and Adam's moments."""
        return {**super().__getstate__(), "optimizer": self.optimizer_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        optimizer = state.pop("optimizer")
        super().__setstate__(state)
        self.load_optimizer_state(optimizer)

    def predict(self, observations: ArrayLike) -> Float:
        """V(s_n), (N,) dtype S.

        Parameters
        ----------
        observations
            (N, O), as the network sees them.
        """
        values: Float = self._native.predict(self.checked_observations(observations))
        return values

    def loss(self, observations: ArrayLike, targets: ArrayLike) -> float:
        """mean_n (V(s_n) - targets_n)^2.

        Parameters
        ----------
        observations
            (N, O), as the network sees them.
        targets
            (N,), in the unit of the values.
        """
        x = self.checked_observations(observations)
        return float(self._native.loss(x, shaped("targets", targets, self.dtype, (x.shape[0],))))

    def loss_gradient(self, observations: ArrayLike, targets: ArrayLike) -> Float64:
        """Gradient of :meth:`loss`, (D,) float64.

        Parameters
        ----------
        observations
            (N, O), as the network sees them.
        targets
            (N,), in the unit of the values.
        """
        x = self.checked_observations(observations)
        y = shaped("targets", targets, self.dtype, (x.shape[0],))
        gradient: Float64 = self._native.loss_gradient(x, y)
        return gradient

    def fit(
        self,
        observations: ArrayLike,
        targets: ArrayLike,
        *,
        method: Literal["adam", "lbfgs"] = "adam",
        epochs: int = 10,
        minibatch_size: int | None = 128,
        learning_rate: float = 1e-3,
        iterations: int = 25,
        seed: int = 0,
    ) -> FitSummary:
        """Fit V to ``targets`` (N,) in place.

        ``"adam"`` (Kingma & Ba 2015, PyTorch's form) makes ``epochs`` passes over shuffled
        minibatches, the order drawn with ``seed``; ``minibatch_size=None`` is the full batch. Moments
        and step count carry over to the next fit. ``"lbfgs"`` makes ``iterations`` full-batch steps.

        Parameters
        ----------
        observations
            (N, O), as the network sees them.
        targets
            (N,), in the unit of the values.
        method
            ``"adam"`` or ``"lbfgs"``.
        epochs
            Passes of Adam over the batch, at least 1.
        minibatch_size
            Rows of each step of Adam, at least 1; None: all.
        learning_rate
            Of Adam, at least 0.
        iterations
            Steps of L-BFGS, at least 1.
        seed
            Of the order of rows, in [0, 2**64).
        """
        choice("method", method, ("adam", "lbfgs"))
        x = self.checked_observations(observations)
        size = None if minibatch_size is None else integer("minibatch_size", minibatch_size, 1)
        summary = self._native.fit(
            x,
            shaped("targets", targets, self.dtype, (x.shape[0],)),
            method,
            integer("epochs", epochs, 1, 2**31 - 1),
            size,
            finite("learning_rate", learning_rate, 0.0, math.inf, "a finite number of at least 0"),
            integer("iterations", iterations, 1, 2**31 - 1),
            seed_number(seed),
        )
        return FitSummary(**summary)

    def rescale_outputs(self, scale: float, shift: float) -> None:
        """Replace V by ``scale V + shift``, in place, through the last layer alone.

        ::

            W <- scale W,   b <- scale b + shift                    (van Hasselt et al. 2016, PopArt)

        For targets that change their unit in the same way: ``(targets - V)`` becomes ``scale`` times
        what it was, so the gradient of the loss is multiplied by ``scale`` in the last layer and by
        ``scale**2`` in the layers before it, which see it through W. Adam's moments follow:
        the first by that factor, the second by its square.

        Parameters
        ----------
        scale
            Positive and finite.
        shift
            Finite, in the new unit of V.

        Raises
        ------
        ValueError
            A number outside its range; the parameters are those before.
        """
        scale = finite("scale", scale, 5e-324, math.inf, "a positive number")
        shift = finite("shift", shift, -math.inf, math.inf, "a finite number")
        if scale == 1.0 and shift == 0.0:
            return
        layout, last = self.parameter_layout, len(self.hidden_sizes)
        weight, bias = layout[f"{last}.weight"][0], layout[f"{last}.bias"][0]
        parameters = self.parameters.astype(np.float64)
        parameters[weight] *= scale
        parameters[bias] = scale * parameters[bias] + shift
        self.parameters = parameters.astype(self.dtype)

        factor = np.full(self.n_parameters, scale * scale)
        factor[weight] = factor[bias] = scale
        state = self.optimizer_state()
        with np.errstate(over="ignore", under="ignore"):
            moments = {
                name: np.nan_to_num((state[name] * factor**power).astype(self.dtype))
                for name, power in (("first_moment", 1), ("second_moment", 2))
            }
        self.load_optimizer_state({**state, **moments})

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """Adam's moments (D,) dtype S and step count (1,) int64."""
        return adam_state(self._native)

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`optimizer_state` returned, bit for bit.

        Parameters
        ----------
        state
            What :meth:`optimizer_state` returned.
        """
        load_adam_state(self._native, state, self.dtype, self.n_parameters)
