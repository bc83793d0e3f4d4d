"""Moments of Adam among the arrays of a file, stored once Adam has made a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Optimized", "entries", "moments_of", "restore_moments"]


class Optimized(Protocol):
    """A policy or value function whose parameters Adam may move."""

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """Moments (D,) and step count (1,) int64."""

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`optimizer_state` returned.

        Parameters
        ----------
        state
            What it returned.
        """


def moments_of(network: Optimized, group: str) -> dict[str, NDArray[Any]]:
    """The moments by their names in a file; none before Adam's first step, when all are zero.

    Parameters
    ----------
    network
        The network that Adam moves.
    group
        What stands before the dot of each name.
    """
    state = network.optimizer_state()
    if state["steps"][0] == 0:
        return {}
    return {f"{group}.{name}": array for name, array in state.items()}


def restore_moments(network: Optimized, group: str, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Bring a new network to what :func:`moments_of` returned.

    Parameters
    ----------
    network
        A network that Adam has not moved yet.
    group
        What stands before the dot of each name.
    tensors
        All arrays of the file; earlier files hold zeros for a network without steps.

    Raises
    ------
    KeyError, ValueError, TypeError
        A part of the state is missing, or of another shape or type.
    """
    state = entries(tensors, group)
    if state:
        network.load_optimizer_state(state)


def entries(tensors: Mapping[str, NDArray[Any]], group: str) -> dict[str, NDArray[Any]]:
    """The arrays named "group.name", by name.

    Parameters
    ----------
    tensors
        Arrays by their full names.
    group
        Name of the group.
    """
    prefix = group + "."
    return {key[len(prefix) :]: a for key, a in tensors.items() if key.startswith(prefix)}
