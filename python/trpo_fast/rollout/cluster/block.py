"""What goes into the calls of an actor and comes back from them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..state import RunState
from ..workers.memory import BlockShape

__all__ = ["CallBlock", "packed", "unpacked", "with_empty_rows", "without_rows"]

Array = npt.NDArray[Any]

_MOST_BYTES = 65_536  # of arrays that travel inside a call or its answer

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


def packed(content: Any, arrays: Iterable[Array]) -> Any:
    """Pickle what holds a few small arrays; where they are large, leave it to Ray.

    Ray carries bytes with the message itself, and takes each array on its own: of a message of small
    arrays that costs both sides more than all else. Large arrays are better off in the object stores,
    which copy them once to a node and not again there.

    Parameters
    ----------
    content
        What to send.
    arrays
        Those in it that may be large.

    Returns
    -------
    bytes or object
        For `unpacked`.
    """
    if sum(values.nbytes for values in arrays) > _MOST_BYTES:
        return content
    return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)


def unpacked(content: Any) -> Any:
    """Return what was given to `packed` on another machine.

    Parameters
    ----------
    content
        What came of it.
    """
    return pickle.loads(content) if isinstance(content, bytes) else content


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
