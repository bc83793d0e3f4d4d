"""What policies and value functions share: a network behind a flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

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

_COMPILED = ("_impl", "_updater")  # attributes that hold objects of the compiled core

ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")


def _activation(name: str) -> str:
    choice("activation", name, ACTIVATIONS)
    return name


def _layout(sizes: Sequence[int]) -> dict[str, tuple[slice, tuple[int, ...]]]:
    layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
    at = 0
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layout[f"{i}.weight"] = (slice(at, at + n_in * n_out), (n_out, n_in))
        at += n_in * n_out
        layout[f"{i}.bias"] = (slice(at, at + n_out), (n_out,))
        at += n_out
    return layout


class Network:
    """What policies and value functions share: a compiled network behind a flat parameter vector."""

    _impl: Any

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
        self.activation = _activation(activation)
        self.dtype = float_dtype(dtype)
        self._sizes = (self.obs_dim, *self.hidden_sizes, n_outputs)

    def _make_native(self) -> Any:
        """A compiled network of these sizes, with zeros as parameters."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """What ``copy`` and ``pickle`` keep: compiled objects are made anew from it."""
        state = {name: vars(self)[name] for name in vars(self) if name not in _COMPILED}
        return {**state, "parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        parameters = state.pop("parameters")
        vars(self).update(state)
        self._impl = self._make_native()
        self.parameters = parameters

    @property
    def _suffix(self) -> str:
        return "F32" if self.dtype == np.float32 else "F64"

    @property
    def n_parameters(self) -> int:
        """D, length of the flat parameter vector."""
        return int(self._impl.n_parameters)

    @property
    def parameters(self) -> Float:
        """(D,) copy of the parameters, dtype S; assign to replace them.

        Order: W_0 (out x in, row-major), b_0, W_1, b_1, ..., and for a Gaussian policy log_std last:
        the order of PyTorch's ``nn.Sequential(Linear, act, ..., Linear)``.
        """
        parameters: Float = self._impl.get_parameters()
        return parameters

    @parameters.setter
    def parameters(self, flat: ArrayLike) -> None:
        array = shaped("parameters", flat, self.dtype, (self.n_parameters,))
        if not np.isfinite(array).all():
            raise ValueError("parameters: expected finite numbers, got NaN or infinity.")
        self._impl.set_parameters(array)

    @property
    def parameter_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name -> (slice of the flat vector, shape): "0.weight", "0.bias", "1.weight", ..."""
        return _layout(self._sizes)

    def _initial(self, hidden_gain: float, output_gain: float, seed: int) -> Float64:
        return _core.initialize_orthogonal(
            self._sizes[0],
            list(self.hidden_sizes),
            self._sizes[-1],
            finite("hidden_gain", hidden_gain, 0.0, math.inf, "a finite number of at least 0"),
            finite("output_gain", output_gain, 0.0, math.inf, "a finite number of at least 0"),
            seed_number(seed),
        )

    def _observations(self, observations: ArrayLike) -> NDArray[Any]:
        x = numeric_array("observations", observations, self.dtype)
        if x.ndim != 2 or x.shape[1] != self.obs_dim:
            raise ValueError(f"observations: expected shape (N, {self.obs_dim}), got {x.shape}.")
        if x.shape[0] == 0:
            raise ValueError("observations: expected at least one row, got none.")
        return x


def adam_state(
    state: dict[str, Any], dtype: np.dtype[Any], n: int
) -> tuple[NDArray[Any], NDArray[Any], int]:
    first, second, steps = (
        shaped(name, entry("optimizer", state, name), kind, shape)
        for name, kind, shape in (
            ("first_moment", dtype, (n,)),
            ("second_moment", dtype, (n,)),
            ("steps", np.dtype(np.int64), (1,)),
        )
    )
    return first, second, int(steps[0])
