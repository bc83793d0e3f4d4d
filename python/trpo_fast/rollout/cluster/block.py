"""What goes into the calls of an actor and comes back from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..state import RunState
from ..workers.memory import BlockShape

__all__ = ["CallBlock", "with_empty_rows", "without_rows"]

Array = npt.NDArray[Any]

_SENT = ("valid", "episode_returns", "episode_lengths", "episode_indices")


class CallBlock:
    """What goes into the calls of an actor and comes back from them, see `Block`.

    Parameters
    ----------
    shape
        What the sizes follow from.
    """

    def __init__(self, shape: BlockShape) -> None:
        self.shape = shape
        layout = shape.lasting()
        self.lasting: dict[str, Array] = {name: np.zeros(*layout[name]) for name in RunState.NAMES}
        self.arrays: dict[str, Array] = {}
        self.n_rows = 0

    def reserve(self, n_steps: int) -> None:
        """Remember for how many rows the actor makes room.

        Parameters
        ----------
        n_steps
            T, at least 1.
        """
        self.n_rows = n_steps

    def follow(self) -> None:
        """Nothing to do: the arrays came with the answer."""

    def place(self, first_index: int, name: str) -> str:
        """Say that it is a rollout: where in it an actor stands, only that actor knows.

        Parameters
        ----------
        first_index
            Index of the worker's first environment.
        name
            Of the environments.
        """
        return f"a rollout of {name}"


def without_rows(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Leave of the arrays of a rollout which rows are transitions, and its episodes.

    Parameters
    ----------
    arrays
        By name, see `Rollout`.
    """
    return {name: arrays[name] for name in _SENT}


def with_empty_rows(arrays: Mapping[str, Array], dtype: npt.DTypeLike) -> dict[str, Array]:
    """Add rows of no entries and no final observations, so that a `Rollout` can be made.

    Parameters
    ----------
    arrays
        What `without_rows` has left.
    dtype
        Of observations.
    """
    T, E = arrays["valid"].shape
    flag = np.broadcast_to(np.False_, (T, E))
    return {
        **arrays,
        "observations": np.zeros((T + 1, E, 0), dtype),
        "action_masks": np.zeros((T + 1, E, 0), np.bool_),
        "actions": np.zeros((T, E, 0), dtype),
        **dict.fromkeys(("rewards", "terminated", "truncated"), flag),
        "final_observations": np.zeros((0, 0), dtype),
        "final_indices": np.zeros((0, 2), np.int64),
    }
