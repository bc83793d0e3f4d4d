"""What the info of an episode's last step tells of the episode: whether it succeeded, scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Metrics: TypeAlias = dict[str, npt.NDArray[np.float64]]
"""Values by name: (J,), one an episode; NaN where the info of an episode did not tell."""

SUCCESS = "success"
"""Name under which `is_success` and `success` are kept."""

_SUCCESS_KEYS = ("is_success", "success")


def metrics_of(info: Any, names: Sequence[str] = ()) -> dict[str, float]:
    """Return what an episode's last info tells; nothing is raised, whatever it holds.

    Parameters
    ----------
    info
        What the last step of an episode returned as info. Its parts ``final_info`` and ``episode``
        are looked at too, where they are dictionaries.
    names
        Keys to look for besides those of success.

    Returns
    -------
    dict
        Finite numbers by name; flags are 0.0 and 1.0.
    """
    found: dict[str, float] = {}
    if (type(info) is dict and not info) or not isinstance(info, (dict, Mapping)):
        return found
    whole = (info.get("final_info"), info, info.get("episode"))
    parts = [part for part in whole if isinstance(part, (dict, Mapping))]
    for key in _SUCCESS_KEYS:
        value = _value_of(parts, key)
        if value is not None:
            found[SUCCESS] = value
            break
    for name in names:
        value = _value_of(parts, name) if name not in _SUCCESS_KEYS else None
        if value is not None:
            found[name] = value
    return found


def success_name(name: str) -> str:
    """Return the name under which the values of a key are kept.

    Parameters
    ----------
    name
        A key of an info.
    """
    return SUCCESS if name in _SUCCESS_KEYS else name


def record_name(name: str) -> str:
    """Return what the mean of a metric is called in records: ``success_rate``, else its name.

    Parameters
    ----------
    name
        Of the metric.
    """
    return "success_rate" if name == SUCCESS else name


def metrics_in(infos: Any, e: int, names: Sequence[str] = ()) -> dict[str, float]:
    """Return what the infos of a vector environment tell of the episode that ended in one of them.

    Parameters
    ----------
    infos
        A dictionary of arrays, in which an array ``_key`` may say for whom ``key`` holds; or a list
        of one dictionary an environment.
    e
        The environment.
    names
        As for `metrics_of`.
    """
    try:
        return metrics_of(_info_of(infos, e, (*_SUCCESS_KEYS, *names)), names)
    except (LookupError, TypeError, ValueError):  # infos of another form tell nothing
        return {}


def as_arrays(told: Sequence[Mapping[str, float]]) -> Metrics:
    """Return the metrics of J episodes as arrays.

    Parameters
    ----------
    told
        What `metrics_of` returned for each, in their order.
    """
    names = dict.fromkeys(name for metrics in told for name in metrics)
    return {name: np.array([metrics.get(name, np.nan) for metrics in told]) for name in names}


def joined(parts: Sequence[Metrics], lengths: Sequence[int]) -> Metrics:
    """Return the metrics of several groups of episodes, one after the other.

    Parameters
    ----------
    parts
        The metrics of each group; a name that one of them lacks is NaN there.
    lengths
        Episodes of each group.
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate(
            [
                part.get(name, np.full(length, np.nan))
                for part, length in zip(parts, lengths, strict=True)
            ]
        )
        for name in names
    }


def _value_of(parts: Sequence[Mapping[Any, Any]], name: str) -> float | None:
    for part in parts:
        if name in part:
            return _number(part[name])
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value.item() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _info_of(infos: Any, e: int, keys: Sequence[str]) -> Any:
    """The info of one environment, as far as these keys go."""
    if not isinstance(infos, Mapping):
        return infos[e]
    if _holds(infos, "final_info", e):
        final = infos["final_info"]
        if not isinstance(final, Mapping):  # of Gymnasium before 1.0: an array of dictionaries
            return final[e]
        infos = final
    info = {key: infos[key][e] for key in keys if _holds(infos, key, e)}
    episode = infos.get("episode")
    if isinstance(episode, Mapping):
        info["episode"] = {key: episode[key][e] for key in keys if _holds(episode, key, e)}
    return info


def _holds(infos: Mapping[Any, Any], key: str, e: int) -> bool:
    if key not in infos:
        return False
    mask = infos.get(f"_{key}")
    return mask is None or bool(mask[e])
