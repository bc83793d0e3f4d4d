"""What a checkpoint says about the spaces of its environment, and how two such sayings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .plain_spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, plain_space


def describe_spaces(observation_space: Any, action_space: Any) -> dict[str, Any]:
    """Describe two spaces by plain JSON values, for checkpoints.

    Bounds of observations are left out: they do not change what a policy reads. Bounds of actions
    are kept: actions are clipped to them. Infinite bounds are the strings "inf" and "-inf".

    Parameters
    ----------
    observation_space, action_space
        The spaces of one environment: Gymnasium's, or those of :mod:`.plain_spaces`.

    Returns
    -------
    dict
        Descriptions under "observation" and "action".
    """
    return {
        "observation": _describe(observation_space, with_bounds=False),
        "action": _describe(action_space, with_bounds=True),
    }


def are_alike(one: Any, other: Any) -> bool:
    """Return whether two spaces are equal; bounds that are NaN, which nothing equals, count as equal.

    Parameters
    ----------
    one, other
        Spaces: Gymnasium's, or those of :mod:`.plain_spaces`.
    """
    if one == other:
        return True
    if not (isinstance(plain_space(one), Box) and isinstance(plain_space(other), Box)):
        return False
    return bool(
        one.shape == other.shape
        and one.dtype == other.dtype
        and np.array_equal(one.low, other.low, equal_nan=True)
        and np.array_equal(one.high, other.high, equal_nan=True)
    )


def spaces_mismatch(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Compare two results of `describe_spaces`.

    Parameters
    ----------
    saved
        The description in a checkpoint.
    current
        That of the environment at hand.

    Returns
    -------
    str or None
        One sentence about the first difference, or None if they agree.
    """
    for part in ("observation", "action"):
        if _comparable(saved.get(part)) != _comparable(current.get(part)):
            return (
                f"{part} space: expected {_summarise(saved.get(part))}, "
                f"got {_summarise(current.get(part))}; "
                "the environment must be the one that the policy was trained on"
            )
    return None


def _comparable(description: Any) -> Any:
    """A description without the dtype of integers, which early checkpoints do not have."""
    if not isinstance(description, Mapping):
        return description
    kept = {
        key: [[name, _comparable(inner)] for name, inner in value] if key == "spaces" else value
        for key, value in description.items()
    }
    if "n" in kept or "nvec" in kept or kept.get("type") == "MultiBinary":
        kept.pop("dtype", None)
    return kept


def _describe(space: Any, *, with_bounds: bool) -> dict[str, Any]:
    plain = plain_space(space)
    description: dict[str, Any] = {"type": type(space).__name__}
    if isinstance(plain, Box):
        description["shape"] = [int(n) for n in space.shape]
        description["dtype"] = np.dtype(space.dtype).name
        if with_bounds and plain.low is not None and plain.high is not None:
            description["low"] = [_json_number(x) for x in plain.low.ravel()]
            description["high"] = [_json_number(x) for x in plain.high.ravel()]
    elif isinstance(plain, Discrete):
        description.update(_unusual_dtype(plain, np.int64))
        description["n"] = int(space.n)
        description["start"] = int(space.start)
    elif isinstance(plain, MultiDiscrete):
        description.update(_unusual_dtype(plain, np.int64))
        description["shape"] = [int(n) for n in space.shape]
        description["nvec"] = [int(n) for n in space.nvec.ravel()]
        description["start"] = [int(n) for n in space.start.ravel()]
    elif isinstance(plain, MultiBinary):
        description.update(_unusual_dtype(plain, np.int8))
        description["shape"] = [int(n) for n in space.shape]
    elif isinstance(plain, Dict):
        # a list of pairs, because the order of the parts is the order of the entries in a row
        description["spaces"] = [
            [str(key), _describe(part, with_bounds=with_bounds)]
            for key, part in space.spaces.items()
        ]
    elif isinstance(plain, Tuple):
        description["spaces"] = [
            [str(k), _describe(part, with_bounds=with_bounds)]
            for k, part in enumerate(space.spaces)
        ]
    return description


def _unusual_dtype(space: Any, usual: npt.DTypeLike) -> dict[str, str]:
    """The dtype of integer actions, left out where it is Gymnasium's default."""
    dtype = np.dtype(space.dtype)
    return {} if dtype == usual else {"dtype": dtype.name}


def _json_number(value: Any) -> float | str:
    number = float(value)
    return number if np.isfinite(number) else str(number)


def _summarise(description: Any) -> str:
    if not isinstance(description, Mapping):
        return "none"
    settings = ", ".join(
        f"{key}={value}"
        if key != "spaces"
        else ", ".join(f"{name}: {_summarise(part)}" for name, part in value)
        for key, value in description.items()
        if key != "type"
    )
    return f"{description.get('type')}({settings})"
