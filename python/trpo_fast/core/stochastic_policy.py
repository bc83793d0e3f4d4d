"""A network, an action distribution and a frozen normaliser: what acts on raw observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .acting import Actor
from .checks import (
    Float,
    Float64,
    boolean,
    borrowed,
    coordinates,
    finite,
    numeric_array,
    rectangular,
    seed_number,
    shaped,
    stream_numbers,
)
from .distribution import Distribution
from .masks import Masks, mask_rows
from .network import Network


@dataclass(frozen=True, eq=False)
class Normalizer:
    """y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip).

    Parameters
    ----------
    mean
        (O,) float64, in the unit of the observations.
    variance
        (O,) float64, at least 0, in the square of that unit.
    clip
        The largest absolute value of y, in standard deviations, positive.
    epsilon
        Added to the variance, positive.
    """

    mean: Float64
    variance: Float64
    clip: float
    epsilon: float


class StochasticPolicy(Network):
    """The part of :class:`Policy` that acts.

    Parameters
    ----------
    obs_dim, distribution, hidden_sizes, activation, dtype
        As in :class:`Policy`.
    initial_log_std, hidden_gain, output_gain, seed
        As in :class:`Policy`.
    """

    def __init__(
        self,
        obs_dim: int,
        distribution: Distribution,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        dtype: DTypeLike = "float32",
        initial_log_std: float = -0.5,
        hidden_gain: float = math.sqrt(2.0),
        output_gain: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not isinstance(distribution, Distribution):
            raise TypeError(
                f"distribution: expected a Distribution, got {type(distribution).__name__}; "
                'for a Box of 6 actions write Distribution("gaussian", (6,)).'
            )
        super().__init__(obs_dim, distribution.n_outputs, hidden_sizes, activation, dtype)
        self.distribution = distribution
        self._normalizer: Normalizer | None = None
        self.make_native()
        log_std = finite("initial_log_std", initial_log_std, -20.0, 20.0, "a number in [-20, 20]")
        flat = np.concatenate(
            [
                self.initial_parameters(hidden_gain, output_gain, seed),
                np.full(distribution.n_free_parameters, log_std),
            ]
        )
        if distribution.kind == "state_dependent_gaussian":
            A = distribution.sizes[0]
            flat[-A:] = log_std  # the bias of the log_std outputs
        self.parameters = flat

    def make_native(self) -> None:
        self._native = self.new_native()

    def new_native(self) -> _core.PolicyF32 | _core.PolicyF64:
        """Return a compiled policy of this network and distribution, all parameters zero."""
        return self.by_dtype(_core.PolicyF32, _core.PolicyF64)(
            self.obs_dim,
            list(self.hidden_sizes),
            self.activation,
            self.distribution.kind,
            list(self.distribution.sizes),
        )

    @property
    def native(self) -> _core.PolicyF32 | _core.PolicyF64:
        return self._native

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._normalizer is not None:
            self.set_normalizer(**vars(self._normalizer))

    @property
    def action_dtype(self) -> np.dtype[Any]:
        """dtype of stored actions: S for Gaussians, int32 for discrete distributions."""
        return np.dtype(np.int32) if self.distribution.is_discrete else self.dtype

    @property
    def parameter_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name -> (slice of the flat vector, shape): the network's, and "log_std" where it is free."""
        layout = super().parameter_layout
        n = self.distribution.n_free_parameters
        if n:
            layout["log_std"] = (slice(self.n_parameters - n, self.n_parameters), (n,))
        return layout

    def set_normalizer(
        self, mean: ArrayLike, variance: ArrayLike, *, clip: float = 10.0, epsilon: float = 1e-8
    ) -> None:
        """Freeze y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip) before the network.

        Parameters
        ----------
        mean
            (O,), finite; copied.
        variance
            (O,), finite, at least 0; copied.
        clip
            The largest absolute value of y, positive.
        epsilon
            Added to the variance, positive.

        Raises
        ------
        ValueError, TypeError
            A shape or a number is not one of those; the normaliser is the one before.
        """
        m = shaped("mean", mean, np.float64, (self.obs_dim,))
        v = shaped("variance", variance, np.float64, (self.obs_dim,))
        if not (np.isfinite(m).all() and np.isfinite(v).all() and (v >= 0).all()):
            raise ValueError("mean, variance: expected finite numbers and variance >= 0.")
        clip = finite("clip", clip, 1e-6, math.inf, "a positive number")
        epsilon = finite("epsilon", epsilon, 1e-300, math.inf, "a positive number")
        self._native.set_normalizer(m, 1.0 / np.sqrt(v + epsilon), clip)
        self._normalizer = Normalizer(m.copy(), v.copy(), clip, epsilon)

    def clear_normalizer(self) -> None:
        """Let observations through as they are."""
        self._native.clear_normalizer()
        self._normalizer = None

    @property
    def normalizer(self) -> Normalizer | None:
        """The frozen normaliser before the network, or None."""
        return self._normalizer

    def normalize(self, observations: ArrayLike) -> Float:
        """Return observations as the network sees them, (N, O) dtype S.

        Parameters
        ----------
        observations
            (N, O), raw, N at least 1.
        """
        return self._native.normalize(self.checked_observations(observations))

    def act(
        self,
        observations: ArrayLike,
        *,
        deterministic: bool = False,
        seed: int = 0,
        envs: ArrayLike | None = None,
        steps: ArrayLike | None = None,
        action_masks: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """Return actions (N, A), unclipped, of :attr:`action_dtype`.

        Row n draws from the stream (seed, envs[n], steps[n]).

        Parameters
        ----------
        observations
            (N, O), raw, N at least 1.
        deterministic
            Take the mode; nothing is drawn.
        seed
            From 0 to 2^64 - 1.
        envs
            (N,) integers from 0 to 2^32 - 1, by default 0 ... N-1.
        steps
            (N,) integers from 0 to 2^64 - 1, by default 0.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.

        Raises
        ------
        ValueError
            NaN or infinity among the observations where actions are discrete and could not show it;
            continuous ones are NaN there.
        """
        x = self.checked_observations(observations)
        n = x.shape[0]
        if self.distribution.is_discrete and not np.isfinite(x).all():
            row = int(np.argmin(np.isfinite(x).all(axis=1)))
            raise ValueError(
                f"observations: expected finite numbers, got NaN or infinity in row {row}; "
                "mend them first, a discrete action cannot be NaN."
            )
        ids = np.arange(n, dtype=np.uint32) if envs is None else envs
        counters = np.zeros(n, np.uint64) if steps is None else steps
        return self._native.sample(
            x,
            seed_number(seed),
            coordinates("envs", ids, np.uint32, n),
            coordinates("steps", counters, np.uint64, n),
            boolean("deterministic", deterministic),
            self.checked_masks(action_masks, n),
        )

    def act_one(
        self,
        observation: object,
        *,
        deterministic: bool = False,
        seed: int = 0,
        step: int = 0,
        action_mask: Masks | None = None,
    ) -> NDArray[Any] | None:
        """Return the action (1, A) for one raw observation, unclipped: :meth:`act` in one call.

        For loops that step one environment.

        Parameters
        ----------
        observation
            (O,), raw.
        deterministic
            Take the mode.
        seed, step
            The stream (seed, 0, step), each from 0 to 2^64 - 1.
        action_mask
            (W,) bool, a row of :func:`mask_rows`; None: everything is allowed.

        Returns
        -------
        NDArray or None
            None, and :meth:`act` must do it, where the observation is not a C-contiguous array (O,)
            of float32 or float64, finite in the policy's dtype.

        Raises
        ------
        ValueError, TypeError
            ``seed`` or ``step`` is no number of 64 bits.
        """
        try:
            return self._native.act_one(observation, seed, step, deterministic, action_mask)
        except TypeError:
            stream_numbers(seed, 0, step)  # says which of them is wrong
            raise

    def actor(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        counters: NDArray[np.uint64],
        envs: NDArray[np.uint32],
        *,
        seed: int,
        action_masks: Masks | None = None,
    ) -> Actor:
        """Bind rollout arrays, so that a time step is one native call: ``actor.step(t)``.

        The arrays are borrowed and kept alive, so they must be C-contiguous and of the exact dtype;
        the actor reads and writes their row t with no other Python in between.

        Parameters
        ----------
        observations
            (T, E, O) dtype S, raw; read.
        actions
            (T, E, A) of :attr:`action_dtype`; written, unclipped.
        counters
            (E,) uint64, steps of each environment so far; each step adds one.
        envs
            (E,) uint32, indices of the environments.
        seed
            Of the streams (seed, envs[e], counters[e]), from 0 to 2^64 - 1.
        action_masks
            (T, E, W) bool, rows as of :func:`mask_rows`, which are not checked again; read. None:
            everything is allowed.

        Raises
        ------
        ValueError, TypeError
            An array is not as described.
        """
        x = borrowed(
            "observations", observations, self.dtype, (None, None, self.obs_dim), writeable=False
        )
        T, E, _ = x.shape
        dim = self.distribution.action_dim
        borrowed("actions", actions, self.action_dtype, (T, E, dim), writeable=True)
        borrowed("counters", counters, np.dtype(np.uint64), (E,), writeable=True)
        borrowed("envs", envs, np.dtype(np.uint32), (E,), writeable=False)
        if action_masks is not None:
            shape = (T, E, self.distribution.mask_width)
            borrowed("action_masks", action_masks, np.dtype(np.bool_), shape, writeable=False)
        kind = self.by_dtype(_core.ActorF32, _core.ActorF64)
        key = seed_number(seed)
        return Actor(kind(self._native, observations, actions, counters, envs, key, action_masks))

    def checked_inputs(self, observations: ArrayLike, normalized: bool) -> NDArray[Any]:
        """Return observations (N, O) as the network sees them, dtype S, or raise.

        Parameters
        ----------
        observations
            (N, O), N at least 1: raw, or what :meth:`normalize` returned.
        normalized
            True: what :meth:`normalize` returned. False: raw.
        """
        x = self.checked_observations(observations)
        if self._normalizer is None or boolean("normalized", normalized):
            return x
        return self._native.normalize(x)

    def checked_masks(self, action_masks: ArrayLike | None, n: int) -> Masks | None:
        """Return masks (n, W) bool as :func:`mask_rows` does, or None, or raise.

        Parameters
        ----------
        action_masks
            What was given.
        n
            Rows that there must be.
        """
        return None if action_masks is None else mask_rows(self.distribution, action_masks, n)

    def checked_actions(self, actions: ArrayLike, n: int) -> NDArray[Any]:
        """Return actions (n, A), C-contiguous in :attr:`action_dtype`, or raise.

        Parameters
        ----------
        actions
            What was given; (n,) stands for (n, 1).
        n
            Rows that there must be.
        """
        shape = (n, self.distribution.action_dim)
        array = rectangular("actions", actions)
        if self.distribution.kind == "categorical" and array.shape == (n,):
            array = array.reshape(n, 1)
        if array.shape != shape:
            raise ValueError(
                f"actions: expected shape {shape}, got {array.shape}; does the policy's "
                f"distribution {self.distribution.kind}{self.distribution.sizes} fit the action space?"
            )
        if self.distribution.is_discrete and array.dtype.kind not in "iub":
            raise TypeError(f"actions: expected integers, got dtype {array.dtype}.")
        if array.dtype.itemsize > 4 and self.distribution.is_discrete and array.size:
            low, high = int(array.min()), int(array.max())
            if low < 0 or high > 2**31 - 1:  # would wrap around as int32
                raise ValueError(f"actions: expected integers counted from 0, got {low} to {high}.")
        return numeric_array("actions", array, self.action_dtype)
