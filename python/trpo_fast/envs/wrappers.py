"""What stands around an environment: its layers, and those that a user should know about."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from ..words import words_of

_NORMALISERS = ("NormalizeObservation", "NormalizeReward", "VectorNormalizeObservation")
MOST_ENTRIES = 10_000  # entries of an observation that a fully connected network is meant for


def layers_of(env: Any) -> list[Any]:
    """Return an environment and everything that it wraps, from the outside in.

    Parameters
    ----------
    env
        An environment or a vector environment; of the latter the environments inside count too,
        where they live in this process.

    Returns
    -------
    list
        The objects, each once.
    """
    found: list[Any] = []
    waiting = [env]
    while waiting:
        layer = waiting.pop(0)
        if layer is None or any(layer is other for other in found):
            continue
        found.append(layer)
        waiting.append(_own(layer, "env"))
        inside = _own(layer, "envs")
        waiting.extend(inside if isinstance(inside, (list, tuple)) else ())
    return found


def _own(layer: Any, name: str) -> Any:
    """An attribute of the object itself, no property and no ``__getattr__`` of its class; or None.

    Not by ``vars(layer)``: before Python 3.13 an object whose ``__dict__`` was asked for once reads
    its attributes slowly ever after, and a step of CartPole then takes 5% longer.
    """
    try:
        if any(name in vars(base) for base in type(layer).__mro__):
            return vars(layer).get(name)
        return object.__getattribute__(layer, name)
    except Exception:  # a foreign class may lack, or guard, its attributes
        return None


def is_same_environment(one: Any, other: Any) -> bool:
    """Return whether two environments share a layer: a step of one is then a step of the other.

    Parameters
    ----------
    one
        An environment or a vector environment.
    other
        Another one.
    """
    layers = {id(layer) for layer in layers_of(one)}
    return any(id(layer) in layers for layer in layers_of(other))


def close_all(environments: Iterable[Any]) -> None:
    """Close environments; what one of them raises then costs no result, and is a warning.

    Parameters
    ----------
    environments
        Environments that nobody needs any more.
    """
    for environment in environments:
        try:
            environment.close()
        except (Exception, SystemExit) as error:  # whatever an environment raises
            warnings.warn(
                f"closing the environment {type(environment).__name__} raised "
                f"{type(error).__name__}: {words_of(error)}; nothing else is affected",
                stacklevel=2,
            )


def refuse_environment_in_use(env: Any, in_use: Iterable[Any]) -> None:
    """Raise if episodes would be played in an environment that a training run is stepping.

    Parameters
    ----------
    env
        The environment to play in.
    in_use
        Environments and vector environments of training.

    Raises
    ------
    ValueError
        If it is one of them, or wraps one, or is inside one.
    """
    if any(is_same_environment(env, other) for other in in_use):
        raise ValueError(
            "env: expected an environment of its own for the evaluation, got the one that the agent "
            "trains in, whose episode would be lost; pass another copy, or a function that makes one"
        )


def normaliser_notice(env: Any) -> str:
    """Return one sentence about a wrapper that normalises, or nothing.

    Parameters
    ----------
    env
        A training environment.
    """
    for layer in layers_of(env):
        name = type(layer).__name__
        if name in _NORMALISERS:
            return (
                f"the environment is wrapped in {name}, whose statistics are neither saved nor those "
                "of an evaluation environment; leave it out, because observations and returns are "
                "normalised here (normalize_observations, scale_returns)"
            )
    return ""


def size_warning(dim: int, space: Any) -> str:
    """Return one sentence about observations that are too large for these networks, or nothing.

    Parameters
    ----------
    dim
        O, entries of an observation.
    space
        The observation space, for the sentence.
    """
    if dim <= MOST_ENTRIES:
        return ""
    shape = getattr(space, "shape", None)
    what = f" of shape {tuple(shape)}" if shape else ""
    return (
        f"observation space: expected at most {MOST_ENTRIES:,} entries, got {dim:,}{what}; networks "
        "here are fully connected, without convolutions: take RAM observations "
        "(obs_type='ram' of Atari), or make pictures grey and small "
        "(gymnasium.wrappers.GrayscaleObservation, ResizeObservation)"
    )
