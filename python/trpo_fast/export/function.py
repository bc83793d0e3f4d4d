"""A trained policy as the pure function that every target writes down.

::

    raw numbers -> one-hot -> normalise, clip -> network -> mode, or sample -> scale, clip -> action

The **raw numbers** of an observation are those that the environment gives, in one row: the entries of
a Box or MultiBinary in C order, one integer for Discrete, one for every component of MultiDiscrete,
and the parts of a Dict or Tuple one after the other, in the order of ``space.spaces`` (which
Gymnasium sorts by key where a Dict is made from a plain dictionary).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core import Policy, ValueFunction
from ..envs import ActionAdapter, ObservationEncoder
from ..envs.given import part_of
from ..envs.plain_spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, plain_space

__all__ = ["ExportError", "Layer", "Leaf", "PolicyFunction", "policy_function"]

Array = NDArray[Any]


class ExportError(ValueError):
    """A policy that a target cannot express; the message is one sentence."""


class Units(Protocol):
    """V(s) = mean + scale network(s)."""

    mean: float
    scale: float


class Critic(Protocol):
    """A value function, and the unit of its output."""

    @property
    def network(self) -> ValueFunction:
        """The value function."""

    @property
    def units(self) -> Units:
        """What its output is counted in."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One affine map, z = weight h + bias."""

    weight: Array  # (out, in), dtype S
    bias: Array  # (out,), dtype S


@dataclass(frozen=True, eq=False, kw_only=True)
class Leaf:
    """One part of an observation that is an array or a number."""

    name: str  # "observation", or with the keys: "observation.position.0"
    shape: tuple[int, ...]  # of one observation
    dtype: np.dtype[Any]
    path: tuple[Any, ...]  # keys that lead to it
    columns: slice  # its places among the raw numbers
    low: Array | None = None  # of a Box or MultiBinary; None where they are not known
    high: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class PolicyFunction:
    """Everything that decides an action. Letters as in the core; R raw numbers."""

    dtype: np.dtype[Any]  # S of the network, float32 or float64
    leaves: tuple[Leaf, ...]
    categories: NDArray[
        np.int64
    ]  # (R,): 0 for a number; n for an integer that becomes a one-hot of n
    starts: NDArray[np.int64]  # (R,): the smallest value of such an integer
    mean: Array | None  # (O,) dtype S; None without normalisation
    inverse_std: Array | None  # (O,) dtype S
    clip: float  # |normalised entry| <= clip
    layers: tuple[Layer, ...]
    activation: str  # between layers, not after the last
    kind: str  # of the distribution
    sizes: tuple[int, ...]
    log_std: NDArray[np.float64] | None  # (A,) of a Gaussian with free deviations
    action_shape: tuple[int, ...]  # of one action
    action_dtype: np.dtype[Any]
    low: Array | None  # (A,) bounds of a Box, dtype decode_dtype
    high: Array | None
    center: Array | None  # (A,): center + half a is clipped; None where a itself is
    half: Array | None
    decode_dtype: np.dtype[Any]  # in which a Box action is scaled and clipped
    action_starts: NDArray[np.int64] | None  # (A,) added to discrete actions; None where all are 0
    observation_space: Any  # of envs.plain_spaces
    action_space: Any
    value: tuple[Layer, ...] | None = None  # V(s) in reward units; None without a value function
    value_activation: str | None = None
    mask_width: int = 0  # W flags of an action mask, which is a second input; 0 without masks
    facts: dict[str, str] = field(default_factory=dict)  # for whoever reads the file

    @property
    def raw_dim(self) -> int:
        """R, raw numbers of an observation."""
        return len(self.categories)

    @property
    def obs_dim(self) -> int:
        """O, entries of a row as the network sees it."""
        return int(np.maximum(self.categories, 1).sum())

    @property
    def action_dim(self) -> int:
        """A, entries of an action; also of the noise that a sample takes."""
        return 1 if self.kind == "categorical" else self.n_groups

    @property
    def n_groups(self) -> int:
        """Components that are drawn one by one."""
        return len(self.sizes) if "categorical" in self.kind else self.sizes[0]

    @property
    def is_discrete(self) -> bool:
        """Actions are integers that a distribution over integers gave."""
        return "gaussian" not in self.kind

    @property
    def choices(self) -> tuple[int, ...]:
        """Choices of each component of a discrete action, which a mask has flags for."""
        return (2,) * self.sizes[0] if self.kind == "bernoulli" else self.sizes

    @property
    def has_one_hot(self) -> bool:
        """Some raw number becomes a one-hot."""
        return bool(self.categories.any())

    def raw_numbers(self, observations: Any) -> Array:
        """The raw numbers of a batch of observations.

        Parameters
        ----------
        observations
            N observations, laid out as vector environments do.

        Returns
        -------
        ndarray
            (N, R) dtype S. float32 holds integers exactly up to 2**24.
        """
        parts = []
        for leaf in self.leaves:
            value = observations
            for key in leaf.path:
                value = part_of(value, key, leaf.name)
            array = np.asarray(value)
            parts.append(array.reshape(len(array), -1).astype(self.dtype))
        return np.concatenate(parts, axis=1)


def policy_function(
    network: Policy,
    encoder: ObservationEncoder,
    adapter: ActionAdapter,
    *,
    has_masks: bool = False,
    critic: Critic | None = None,
) -> PolicyFunction:
    """Describe a policy with its encoding and decoding.

    Parameters
    ----------
    network
        Network, distribution and normaliser.
    encoder, adapter
        What stands between the environment and the network.
    has_masks
        Whether which actions are allowed is a second input.
    critic
        The value function, where the target may want it.

    Returns
    -------
    PolicyFunction
        Copies: later training does not change it.
    """
    leaves, categories, starts = _read_leaves(plain_space(encoder.space))
    normalizer = network.normalizer
    dtype = network.dtype
    return PolicyFunction(
        dtype=dtype,
        leaves=leaves,
        categories=categories,
        starts=starts,
        # the core holds both in dtype S
        mean=None if normalizer is None else normalizer.mean.astype(dtype),
        inverse_std=None
        if normalizer is None
        else (1.0 / np.sqrt(normalizer.variance + normalizer.epsilon)).astype(dtype),
        clip=0.0 if normalizer is None else float(normalizer.clip),
        layers=_layers(network),
        activation=network.activation,
        kind=network.distribution.kind,
        sizes=network.distribution.sizes,
        log_std=_log_std(network),
        **_decoding(adapter, dtype),
        observation_space=plain_space(encoder.space),
        action_space=plain_space(adapter.space),
        value=None if critic is None else _value_layers(critic),
        value_activation=None if critic is None else critic.network.activation,
        mask_width=network.distribution.mask_width if has_masks else 0,
        facts={
            "observation_space": str(encoder.space),
            "action_space": str(adapter.space),
            "activation": network.activation,
            "hidden_sizes": str(list(network.hidden_sizes)),
        },
    )


def _read_leaves(
    space: Any,
) -> tuple[tuple[Leaf, ...], NDArray[np.int64], NDArray[np.int64]]:
    leaves: list[Leaf] = []
    categories: list[Array] = []
    starts: list[Array] = []

    def visit(part: Any, path: tuple[Any, ...]) -> None:
        if isinstance(part, Dict | Tuple):
            items = part.spaces.items() if isinstance(part, Dict) else enumerate(part.spaces)
            for key, inner in items:
                visit(inner, (*path, key))
            return
        n = int(np.prod(part.shape, dtype=np.int64))
        sizes, start = np.zeros(n, np.int64), np.zeros(n, np.int64)
        if isinstance(part, Discrete):
            sizes[:], start[:] = part.n, part.start
        elif isinstance(part, MultiDiscrete):
            sizes[:], start[:] = part.nvec.ravel(), part.start.ravel()
        else:
            assert isinstance(part, Box | MultiBinary)  # the encoder has refused the rest
        begin = sum(map(len, categories))
        name = ".".join(["observation", *map(str, path)])
        if any(leaf.name == name for leaf in leaves):
            raise ExportError(f"observation space: expected distinct keys, got {name!r} twice")
        columns = slice(begin, begin + n)
        bounds: dict[str, Array | None] = {}
        if isinstance(part, Box):
            bounds = {"low": part.low, "high": part.high}
        elif isinstance(part, MultiBinary):
            bounds = {"low": np.zeros(n), "high": np.ones(n)}
        leaves.append(
            Leaf(
                name=name, shape=part.shape, dtype=part.dtype, path=path, columns=columns, **bounds
            )
        )
        categories.append(sizes)
        starts.append(start)

    visit(space, ())
    return tuple(leaves), np.concatenate(categories), np.concatenate(starts)


def _layers(network: Policy | ValueFunction) -> tuple[Layer, ...]:
    parameters, layout = network.parameters, network.parameter_layout

    def array(name: str) -> Array:
        where, shape = layout[name]
        return parameters[where].reshape(shape)

    n = len(network.hidden_sizes) + 1
    return tuple(Layer(weight=array(f"{i}.weight"), bias=array(f"{i}.bias")) for i in range(n))


def _value_layers(critic: Critic) -> tuple[Layer, ...]:
    """The value function's layers, the last one in reward units."""
    *hidden, last = _layers(critic.network)
    scale, mean = critic.units.scale, critic.units.mean
    weight = last.weight.astype(np.float64) * scale
    return (*hidden, Layer(weight=weight, bias=last.bias.astype(np.float64) * scale + mean))


def _log_std(network: Policy) -> NDArray[np.float64] | None:
    if network.distribution.kind != "gaussian":
        return None
    where, _ = network.parameter_layout["log_std"]
    return network.parameters[where].astype(np.float64)


def _decoding(adapter: ActionAdapter, dtype: np.dtype[Any]) -> dict[str, Any]:
    """How actions of the distribution become those of the environment."""
    space = plain_space(adapter.space)
    found: dict[str, Any] = {
        "action_shape": tuple(space.shape),
        "action_dtype": np.dtype(space.dtype),
        "low": None,
        "high": None,
        "center": None,
        "half": None,
        "decode_dtype": dtype,
        "action_starts": None,
    }
    if isinstance(space, Box) and space.low is not None and space.high is not None:
        wide = np.promote_types(dtype, space.dtype) if space.dtype.kind == "f" else np.float64
        found["decode_dtype"] = decode = np.dtype(wide)
        found["low"], found["high"] = (b.ravel().astype(decode) for b in (space.low, space.high))
        if adapter.range is not None:
            found["center"], found["half"] = (a.astype(decode) for a in adapter.range)
    elif isinstance(space, Discrete | MultiDiscrete) and np.any(space.start):
        found["action_starts"] = np.ravel(space.start).astype(np.int64)
    return found
