"""The value function V(s) and its fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .checks import Float, Float64, finite, shaped
from .network import Network, adam_state, load_adam_state
from .options import ValueFitOptions, ValueFitSettings, with_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """What one value fit did. With status ``"non_finite"`` the parameters are those before."""

    status: Literal["ok", "non_finite"]
    """How it ended."""

    message: str
    """One sentence with the numbers."""

    loss_before: float
    """Mean squared error on the whole batch before the fit, in the squared unit of the targets."""

    loss_after: float
    """The same after the fit."""

    steps: int
    """Steps of Adam, or line searches of L-BFGS."""

    seconds: float
    """Wall-clock time of the fit."""


class ValueFunction(Network):
    """V(s): a network with one output, fitted by least squares.

    Observations are those that the network sees: a value function has no normaliser of its own, so
    rows go through :meth:`Policy.normalize` first. Values are in the unit of the targets.
    Copies and pickles hold parameters and Adam's moments.

    Parameters
    ----------
    obs_dim
        O, width of an observation, at least 1.
    hidden_sizes
        Units of each hidden layer; empty for a linear function.
    activation
        One of ``ACTIVATIONS``.
    dtype
        float32 or float64: the dtype S of parameters, observations and values.
    hidden_gain
        Every hidden weight matrix has orthonormal rows or columns times this, at least 0.
    output_gain
        The same for the last weight matrix, at least 0.
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
        options: ValueFitOptions | None = None,
        **settings: Unpack[ValueFitSettings],
    ) -> FitSummary:
        """Fit V to targets y in place, by least squares: minimise mean_n (V(s_n) - y_n)^2.

        Adam's moments and step count carry over to the next fit.

        Parameters
        ----------
        observations
            (N, O), as the network sees them.
        targets
            (N,), in the unit of V.
        options
            All settings in one object, for many fits; None: the defaults below.
        **settings
            Settings that differ from ``options``, by name: those listed from here on.
        method
            ``"adam"`` (default; Kingma & Ba 2015 in PyTorch's form), passes over shuffled
            minibatches; ``"lbfgs"`` (Nocedal & Wright 2006, algorithm 7.5), on the full batch.
        epochs
            Passes of Adam over the samples, at least 1; by default 10.
        minibatch_size
            Samples of one step of Adam, at least 1, or None for all; by default 128.
        learning_rate
            Step size of Adam, at least 0; by default 1e-3.
        iterations
            The most steps of L-BFGS, each a line search, at least 1; by default 25.
        seed
            Of the order of Adam's minibatches, from 0 to 2^64 - 1; by default 0.

        Returns
        -------
        FitSummary
            Status, losses before and after, and steps.

        Raises
        ------
        ValueError
            A setting outside its range, or arrays of other shapes.
        TypeError
            A setting of another type or an unknown name.
        """
        x = self.checked_observations(observations)
        y = shaped("targets", targets, self.dtype, (x.shape[0],))
        return FitSummary(
            **self._native.fit(x, y, with_settings(ValueFitOptions, options, settings))
        )

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
