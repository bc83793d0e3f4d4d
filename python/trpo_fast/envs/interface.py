"""What `reset` and `step` of an environment must return, and sentences about what they did return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

STEP = "(observation, reward, terminated, truncated, info)"
RESET = "(observation, info)"

_OLD_GYM = (
    "an environment of the old gym is wrapped by shimmy's GymV26CompatibilityV0 or "
    "GymV21CompatibilityV0"
)


def one_number(reward: Any) -> float:
    """Return a reward as a float; an array of one entry is one number.

    Parameters
    ----------
    reward
        What `step` returned as the reward.

    Raises
    ------
    TypeError
        If it is no number, or several; the sentence says what it is and what to do.
    """
    if isinstance(reward, np.ndarray) and reward.size == 1 and reward.dtype.kind in "fiub":
        return float(reward.item())
    if isinstance(reward, (str, bytes)) or np.ndim(reward) > 0:
        shape = np.shape(reward)
        if shape and np.prod(shape) == 1:
            return one_number(np.asarray(reward).ravel()[0])
        hint = (
            "; several rewards are weighed into one by a wrapper "
            "(gymnasium.RewardWrapper, or mo_gymnasium's LinearReward)"
            if shape
            else ""
        )
        raise TypeError(f"reward: expected one number, got {describe(reward)}{hint}")
    try:
        return float(reward)
    except (TypeError, ValueError):
        raise TypeError(f"reward: expected one number, got {describe(reward)}") from None


def step_problem(returned: Any) -> str | None:
    """Return one sentence about what is wrong with a step, or None if nothing is to be seen.

    Parameters
    ----------
    returned
        What `step` returned. Its observation is not looked at.
    """
    if not isinstance(returned, (tuple, list)):
        return f"step() must return {STEP}, got {describe(returned)}"
    if len(returned) == 4:
        return (
            f"step() must return {STEP}, got 4 values, as old gym's (observation, reward, done, "
            f"info): say whether an episode was terminated or truncated; {_OLD_GYM}"
        )
    if len(returned) != 5:
        return f"step() must return the 5 values {STEP}, got {len(returned)}"
    _, reward, *flags, _ = returned
    try:
        one_number(reward)
    except TypeError as error:
        return str(error)
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if isinstance(flag, (str, Mapping)) or np.size(flag) != 1 or flag is None:
            return f"{name}: expected True or False, got {describe(flag)}"
    return None


def reset_problem(returned: Any) -> str | None:
    """Return one sentence about what is wrong with a reset, or None if nothing is to be seen.

    Parameters
    ----------
    returned
        What `reset` returned. Its observation is not looked at.
    """
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        return None
    if isinstance(returned, tuple) and len(returned) != 2:
        return f"reset() must return the 2 values {RESET}, got {len(returned)}"
    return f"reset() must return {RESET}, got only {describe(returned)}; {_OLD_GYM}"


def reset_error_problem(error: BaseException) -> str | None:
    """Return one sentence about a `reset` that does not take a seed, or None if that is not it.

    Parameters
    ----------
    error
        The exception, with its traceback.
    """
    text = str(error)
    if isinstance(error, TypeError) and "unexpected keyword argument" in text:
        for name in ("seed", "options"):
            if f"'{name}'" in text:
                return (
                    f"reset() must take the keyword arguments seed and options, and does not take "
                    f"{name}: write `def reset(self, *, seed=None, options=None)`; {_OLD_GYM}"
                )
    return None


def describe(value: Any) -> str:
    """Return in a few words what a foreign value is: its type, and its shape or the value.

    Parameters
    ----------
    value
        Any object.
    """
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"a {kind} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a {kind} with the keys {list(value)[:5]}"
    if value is None:
        return "None"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a foreign __repr__ may do anything
        return f"an object of type {kind}"
    return f"{text[:60]} ({kind})"
