"""What is given as an observation: its parts, and words for what is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ObservationError
from .plain_spaces import Dict, Tuple


def got(value: Any) -> str:
    """Describe what was given instead of an observation, in a few words.

    Parameters
    ----------
    value
        Anything.
    """
    if isinstance(value, np.ndarray):
        return f"{value.shape} of dtype {value.dtype}"
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {name} with the keys {[*value]!r:.80}"
    try:
        shape = np.shape(value)
    except (TypeError, ValueError):
        return f"a ragged {name}"
    return f"{shape} ({name})"


def tuple_of_the_interface(value: Any, space: Any) -> str | None:
    """One sentence where the whole result of `reset` or `step` was given, else None.

    Parameters
    ----------
    value
        What was given as an observation.
    space
        Of observations.
    """
    call = {2: "reset", 5: "step"}.get(len(value)) if isinstance(value, tuple) else None
    if call is None or not isinstance(value[-1], dict):
        return None
    parts = space.spaces if isinstance(space, Tuple) else ()
    if len(parts) == len(value) and isinstance(parts[-1], Dict):
        return None  # it may have been meant as an observation
    names = "observation, info" if call == "reset" else "observation, reward, ..., info"
    return (
        f"observation: expected an element of {space}, got the tuple ({names}) that env.{call}() "
        "returns; pass its first entry"
    )


def part_of(observation: Any, key: Any, where: str) -> Any:
    """Return one part of a dictionary or tuple.

    Parameters
    ----------
    observation
        One observation or a batch of a Dict or Tuple space.
    key
        Of the space. A space read from a file has text as keys, which stands for other keys too.
    where
        What errors call the observation.

    Raises
    ------
    ObservationError
        If there is no such part.
    """
    try:
        return observation[key]
    except (LookupError, TypeError):
        pass
    if not isinstance(observation, Mapping):
        raise ObservationError(
            f"{where}: expected a part {key!r}, got {got(observation)} without it"
        )
    by_name = {str(name): value for name, value in observation.items()}
    if key not in by_name:
        raise ObservationError(f"{where}: key {key!r} is missing, got {sorted(by_name)}")
    return by_name[key]
