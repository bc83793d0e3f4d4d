"""What policies and value functions share: a network behind a flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .checks import (
    Float,
    Float64,
    choice,
    entry,
    finite,
    float_dtype,
    integer,
    integers,
    numeric_array,
    seed_number,
    shaped,
)

Single = TypeVar("Single")
Double = TypeVar("Double")

ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")


def network_layout(sizes: Sequence[int]) -> dict[str, tuple[slice, tuple[int, ...]]]:
    """Return name -> (slice of the flat parameters, shape) of a network of these layer widths.

    Parameters
    ----------
    sizes
        O, H_1, ..., P.
    """
    layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
    at = 0
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layout[f"{i}.weight"] = (slice(at, at + n_in * n_out), (n_out, n_in))
        at += n_in * n_out
        layout[f"{i}.bias"] = (slice(at, at + n_out), (n_out,))
        at += n_out
    return layout


class NativeNetwork(Protocol):
    """The part of a compiled policy or value function that :class:`Network` uses."""

    @property
    def n_parameters(self) -> int:
        """D."""

    def get_parameters(self) -> NDArray[Any]:
        """A copy of the parameters (D,), dtype S."""

    def set_parameters(self, flat: NDArray[Any]) -> None:
        """Replace the parameters.

        Parameters
        ----------
        flat
            (D,), dtype S.
        """


class Network:
    """A compiled network behind a flat parameter vector: the base of policies and value functions.

    Parameters
    ----------
    obs_dim
        O, width of an observation, at least 1.
    n_outputs
        P, width of the last layer, at least 1.
    hidden_sizes
        Widths of the hidden layers, each at least 1; at most 15 layers.
    activation
        Of the hidden layers: one of :data:`ACTIVATIONS`.
    dtype
        float32 or float64: the dtype S of parameters and observations.

    Raises
    ------
    ValueError, TypeError
        A size, name or dtype is not one of those.
    """

    _compiled: ClassVar[tuple[str, ...]] = ("_native",)  # attributes that hold compiled objects

    def __init__(
        self,
        obs_dim: int,
        n_outputs: int,
        hidden_sizes: Sequence[int],
        activation: str,
        dtype: DTypeLike,
    ) -> None:
        self.obs_dim = integer("obs_dim", obs_dim, 1, 2**24)
        self.hidden_sizes = integers("hidden_sizes", hidden_sizes)
        choice("activation", activation, ACTIVATIONS)
        self.activation = activation
        self.dtype = float_dtype(dtype)
        self._sizes = (self.obs_dim, *self.hidden_sizes, n_outputs)

    @property
    def native(self) -> NativeNetwork:
        """The compiled object. It checks dtype and shape, and converts nothing."""
        raise NotImplementedError

    def make_native(self) -> None:
        """Make the compiled object anew, all parameters zero, and forget what goes with it."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """What ``copy`` and ``pickle`` keep: compiled objects are made anew from it."""
        state = {name: value for name, value in vars(self).items() if name not in self._compiled}
        return {**state, "parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        parameters = state.pop("parameters")
        vars(self).update(state)
        self.make_native()
        self.parameters = parameters

    def by_dtype(self, single: Single, double: Double) -> Single | Double:
        """Return which of the two, for float32 and for float64, fits this network's dtype S.

        Parameters
        ----------
        single
            The one for float32.
        double
            The one for float64.
        """
        return single if self.dtype == np.float32 else double

    @property
    def n_parameters(self) -> int:
        """D, length of the flat parameter vector."""
        return self.native.n_parameters

    @property
    def parameters(self) -> Float:
        """(D,) copy of the parameters, dtype S; assign finite numbers to replace them.

        Order: W_0 (out x in, row-major), b_0, W_1, b_1, ..., and for a Gaussian policy log_std last:
        the order of PyTorch's ``nn.Sequential(Linear, act, ..., Linear)``.
        """
        return self.native.get_parameters()

    @parameters.setter
    def parameters(self, flat: ArrayLike) -> None:
        array = shaped("parameters", flat, self.dtype, (self.n_parameters,))
        if not np.isfinite(array).all():
            raise ValueError("parameters: expected finite numbers, got NaN or infinity.")
        self.native.set_parameters(array)

    @property
    def parameter_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name -> (slice of the flat vector, shape): "0.weight", "0.bias", "1.weight", ..."""
        return network_layout(self._sizes)

    def initial_parameters(self, hidden_gain: float, output_gain: float, seed: int) -> Float64:
        """Return orthogonal weights and zero biases, all parameters of the network alone, float64.

        Parameters
        ----------
        hidden_gain
            Every hidden weight matrix has orthonormal rows or columns times this, at least 0.
        output_gain
            The same for the last weight matrix, at least 0.
        seed
            Of the random streams, from 0 to 2^64 - 1.
        """
        return _core.initialize_orthogonal(
            self._sizes[0],
            list(self.hidden_sizes),
            self._sizes[-1],
            finite("hidden_gain", hidden_gain, 0.0, math.inf, "a finite number of at least 0"),
            finite("output_gain", output_gain, 0.0, math.inf, "a finite number of at least 0"),
            seed_number(seed),
        )

    def checked_observations(self, observations: ArrayLike) -> NDArray[Any]:
        """Return observations (N, O), N at least 1, C-contiguous in dtype S, or raise.

        Parameters
        ----------
        observations
            (N, O), numbers of any dtype.
        """
        x = numeric_array("observations", observations, self.dtype)
        if x.ndim != 2 or x.shape[1] != self.obs_dim:
            raise ValueError(f"observations: expected shape (N, {self.obs_dim}), got {x.shape}.")
        if x.shape[0] == 0:
            raise ValueError("observations: expected at least one row, got none.")
        return x


class NativeOptimizer(Protocol):
    """A compiled object that holds Adam's moments and step count."""

    def get_adam(self) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Copies of both moments (D,), dtype S, and the step count."""

    def set_adam(self, first_moment: NDArray[Any], second_moment: NDArray[Any], steps: int) -> None:
        """Replace the moments and the step count.

        Parameters
        ----------
        first_moment, second_moment
            (D,), dtype S.
        steps
            At least 0.
        """


def adam_state(optimizer: NativeOptimizer) -> dict[str, NDArray[Any]]:
    """Return Adam's moments (D,) dtype S and step count (1,) int64.

    Parameters
    ----------
    optimizer
        The compiled object that holds the moments.
    """
    first, second, steps = optimizer.get_adam()
    return {
        "first_moment": first,
        "second_moment": second,
        "steps": np.array([steps], np.int64),
    }


def load_adam_state(
    optimizer: NativeOptimizer, state: Mapping[str, ArrayLike], dtype: np.dtype[Any], n: int
) -> None:
    """Restore what :func:`adam_state` returned, bit for bit.

    Parameters
    ----------
    optimizer
        The compiled object that is to hold the moments.
    state
        What :func:`adam_state` returned.
    dtype
        S, float32 or float64.
    n
        D, the number of parameters.
    """
    first, second, steps = (
        shaped(name, entry("optimizer", state, name), kind, shape)
        for name, kind, shape in (
            ("first_moment", dtype, (n,)),
            ("second_moment", dtype, (n,)),
            ("steps", np.dtype(np.int64), (1,)),
        )
    )
    optimizer.set_adam(first, second, int(steps[0]))
