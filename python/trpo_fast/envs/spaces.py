"""What a checkpoint says about the spaces of its environment, and how two such sayings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def describe_spaces(observation_space: Any, action_space: Any) -> dict[str, Any]:
    """Describe two spaces by plain JSON values, for checkpoints.

    Bounds of observations are left out: they do not change what a policy reads. Bounds of actions
    are kept: actions are clipped to them. Infinite bounds are the strings "inf" and "-inf".

    Parameters
    ----------
    observation_space, action_space
        The Gymnasium spaces of one environment.

    Returns
    -------
    dict
        Descriptions under "observation" and "action".
    """
    return {
        "observation": _describe(observation_space, with_bounds=False),
        "action": _describe(action_space, with_bounds=True),
    }


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
        if saved.get(part) != current.get(part):
            return (
                f"{part} space: expected {_summarise(saved.get(part))}, "
                f"got {_summarise(current.get(part))}; "
                "the environment must be the one that the policy was trained on"
            )
    return None


def _describe(space: Any, *, with_bounds: bool) -> dict[str, Any]:
    from gymnasium import spaces

    description: dict[str, Any] = {"type": type(space).__name__}
    if isinstance(space, spaces.Box):
        description["shape"] = [int(n) for n in space.shape]
        description["dtype"] = np.dtype(space.dtype).name
        if with_bounds:
            description["low"] = [_json_number(x) for x in space.low.ravel()]
            description["high"] = [_json_number(x) for x in space.high.ravel()]
    elif isinstance(space, spaces.Discrete):
        description["n"] = int(space.n)
        description["start"] = int(space.start)
    elif isinstance(space, spaces.MultiDiscrete):
        description["shape"] = [int(n) for n in space.shape]
        description["nvec"] = [int(n) for n in space.nvec.ravel()]
        description["start"] = [int(n) for n in space.start.ravel()]
    elif isinstance(space, spaces.MultiBinary):
        description["shape"] = [int(n) for n in space.shape]
    elif isinstance(space, spaces.Dict):
        # a list of pairs, because the order of the parts is the order of the entries in a row
        description["spaces"] = [
            [str(key), _describe(part, with_bounds=with_bounds)]
            for key, part in space.spaces.items()
        ]
    elif isinstance(space, spaces.Tuple):
        description["spaces"] = [
            [str(k), _describe(part, with_bounds=with_bounds)]
            for k, part in enumerate(space.spaces)
        ]
    return description


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
