"""What `reset` and `step` of an environment must return, and sentences about what they did return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

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
    if type(reward) is float:
        return reward
    if type(reward) is np.ndarray and reward.size == 1 and reward.dtype.kind in "fiub":
        return float(reward.item())
    if isinstance(reward, (str, bytes, complex, np.complexfloating)) or _is_masked(reward):
        raise TypeError(f"reward: expected one number, got {describe(reward)}")
    if type(reward) is not int and np.ndim(reward) > 0:
        size = np.prod(np.shape(reward))
        if size == 1:
            return one_number(np.asarray(reward).ravel()[0])
        hint = (
            "; several rewards are weighed into one by a wrapper "
            "(gymnasium.RewardWrapper, or mo_gymnasium's LinearReward)"
            if size > 1
            else ""
        )
        raise TypeError(f"reward: expected one number, got {describe(reward)}{hint}")
    try:
        return float(reward)
    except OverflowError:
        raise TypeError("reward: expected one number, got one beyond those of float64") from None
    except (TypeError, ValueError):
        raise TypeError(f"reward: expected one number, got {describe(reward)}") from None


def _is_masked(value: Any) -> bool:
    """Whether a number was masked, which NumPy takes for 0."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


_FLAGS = frozenset({bool, np.bool_})


def is_end(terminated: Any, truncated: Any) -> bool:
    """Return whether the flags of a step end the episode.

    Parameters
    ----------
    terminated, truncated
        As the environment returned them.

    Raises
    ------
    TypeError
        If one of them is neither True nor False: None, a text and NaN would count as either.
    """
    if type(terminated) not in _FLAGS or type(truncated) not in _FLAGS:
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if type(flag) not in _FLAGS and (problem := _flag_problem(name, flag)):
                raise TypeError(problem)
    return bool(terminated or truncated)


def _flag_problem(name: str, flag: Any) -> str | None:
    """A sentence about a flag; 0, 1 and arrays of one such entry are flags, too."""
    if isinstance(flag, (bool, int, float, np.generic, np.ndarray)) and not _is_masked(flag):
        value = np.asarray(flag)
        if value.size == 1 and value.dtype.kind in "biuf" and value.item() in (0, 1):
            return None
    return f"{name}: expected True or False, got {describe(flag)}"


def numbers_of(rewards: Any, n: int) -> npt.NDArray[Any]:
    """Return the rewards of n environments as an array of numbers, (n,).

    Parameters
    ----------
    rewards
        What `step` of a vector environment returned as rewards.
    n
        How many there must be.

    Raises
    ------
    TypeError
        If they are not n numbers; a text, a complex or a masked one is none.
    """
    values = _in_a_row(rewards, n)
    if values is None or values.dtype.kind not in "fiubO":
        raise TypeError(f"rewards: expected {n} numbers, got {describe(rewards)}")
    return np.array([one_number(r) for r in values]) if values.dtype.kind == "O" else values


def flags_of(name: str, flags: Any, n: int) -> npt.NDArray[np.bool_]:
    """Return flags of n environments as an array, (n,) bool.

    Parameters
    ----------
    name
        "terminated" or "truncated".
    flags
        What `step` of a vector environment returned as that.
    n
        How many there must be.

    Raises
    ------
    TypeError
        If one of them is neither True nor False, 0 nor 1.
    """
    values = _in_a_row(flags, n)
    if values is not None and values.dtype.kind in "biufO":
        chosen = values.astype(bool) if values.dtype.kind != "O" else values == True  # noqa: E712
        if values.dtype.kind == "b" or (chosen == values).all():
            return np.asarray(chosen, bool)
    raise TypeError(f"{name}: expected {n} flags, True or False each, got {describe(flags)}")


def require_infos(infos: Any) -> None:
    """Raise TypeError if the infos of a vector environment are neither a dictionary nor a list.

    Parameters
    ----------
    infos
        What its `step` or `reset` returned last; before Gymnasium a list of one for each environment.
    """
    if not isinstance(infos, (dict, list, tuple, Mapping)):
        raise TypeError(_info_problem(infos))


def _in_a_row(values: Any, n: int) -> npt.NDArray[Any] | None:
    """Values of n environments as an array (n,); None where they are others, or one is masked."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        return None
    return None if array.shape != (n,) or _is_masked(values) else array


def require_info(info: Any) -> None:
    """Raise TypeError if what `step` or `reset` returned last is no dictionary.

    Parameters
    ----------
    info
        As the environment returned it.
    """
    if not isinstance(info, (dict, Mapping)):  # a dict is seen at once, a Mapping is looked up
        raise TypeError(_info_problem(info))


def _info_problem(info: Any) -> str:
    return f"info: expected a dictionary, which may be empty, got {describe(info)}"


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
    _, reward, terminated, truncated, info = returned
    try:
        one_number(reward)
        is_end(terminated, truncated)
        require_info(info)
    except TypeError as error:
        return str(error)
    return None


def reset_problem(returned: Any) -> str | None:
    """Return one sentence about what is wrong with a reset, or None if nothing is to be seen.

    Parameters
    ----------
    returned
        What `reset` returned. Its observation is not looked at.
    """
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        if isinstance(returned[1], Mapping):
            return None
        if isinstance(returned, tuple):
            return f"reset() must return {RESET}; {_info_problem(returned[1])}"
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
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return str(float(value))
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
