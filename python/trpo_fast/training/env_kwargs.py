"""Keyword arguments of an environment in a file: faithfully, or not at all and asked for."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import CheckpointError

if TYPE_CHECKING:
    from ..envs import EnvSource

_TAG = "__value__"  # marks a JSON object that stands for a value of a kind that JSON lacks
_RAW_KINDS = "fiubcSUMm"  # kinds of dtypes whose bytes are all there is to them
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}


def encoded(env_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file can hold of them, and what it cannot.

    Parameters
    ----------
    env_kwargs
        Keyword arguments of the environment.

    Returns
    -------
    tuple
        The values by name, as JSON holds them; and of those that would not come back as they are,
        the name of their type by name.
    """
    stored: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, value in env_kwargs.items():
        try:
            stored[name] = _encode(value)
        except (_CannotBeStored, RecursionError):  # the latter: a list that holds itself
            left_out[name] = type(value).__qualname__
    return stored, left_out


def decoded(stored: object) -> dict[str, Any]:
    """The inverse of :func:`encoded`; earlier files hold plain values.

    Parameters
    ----------
    stored
        What :func:`encoded` returned, from a file.

    Raises
    ------
    CheckpointError
        Not what :func:`encoded` returned.
    """
    if not isinstance(stored, dict):
        raise CheckpointError(
            f"checkpoint: expected a dictionary as env_kwargs, got {stored!r:.80}; was it "
            "written by trpo_fast?"
        )
    try:
        return {str(name): _decode(value) for name, value in stored.items()}
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise CheckpointError(
            f"checkpoint: expected keyword arguments as env_kwargs, got an entry that does not fit "
            f"({type(error).__name__}); was it written by trpo_fast?"
        ) from None


def notice_of(env_kwargs: Mapping[str, Any]) -> str:
    """What to say of keyword arguments that no file can hold; empty where there are none.

    Parameters
    ----------
    env_kwargs
        Keyword arguments of the environment.
    """
    left_out = encoded(env_kwargs)[1]
    if not left_out:
        return ""
    listed = ", ".join(f"{name} (a {kind})" for name, kind in left_out.items())
    return (
        f"checkpoints cannot hold the env_kwargs {listed}: pass them again at load, as "
        "load(path, env_kwargs={...})"
    )


def kind_of_source(source: EnvSource) -> str:
    """How an environment was given: "id", "factory" or "object".

    Parameters
    ----------
    source
        What the agent was made with. A class is a factory, though it has a ``step``.
    """
    if isinstance(source, str):
        return "id"
    return "object" if hasattr(source, "step") and not isinstance(source, type) else "factory"


class _CannotBeStored(Exception):
    """A value of a kind that would not come back as it is."""


def _encode(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < 2**63 else {_TAG: "int", "text": str(value)}
    if kind is float:
        return {_TAG: "float", "hex": value.hex()} if value - value != 0.0 else value
    if kind is complex:
        return {_TAG: "complex", "parts": [value.real.hex(), value.imag.hex()]}
    if kind is bytes:
        return {_TAG: "bytes", "data": base64.b64encode(value).decode()}
    if kind is list:
        return [_encode(item) for item in value]
    for name, sequence in _SEQUENCES.items():
        if kind is sequence:
            return {_TAG: name, "items": [_encode(item) for item in value]}
    if kind is dict:
        if all(type(key) is str for key in value) and _TAG not in value:
            return {key: _encode(item) for key, item in value.items()}
        return {_TAG: "dict", "items": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if kind is range:
        return {_TAG: "range", "items": [value.start, value.stop, value.step]}
    if kind is type(pathlib.Path()):
        return {_TAG: "path", "text": str(value)}
    if kind is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind in _RAW_KINDS:
            data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            entry = {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}
            return {_TAG: "array" if kind is np.ndarray else "scalar", **entry}
    raise _CannotBeStored


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: _decode(item) for key, item in value.items()}
    kind = value[_TAG]
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_decode(item) for item in value["items"])
    match kind:
        case "int":
            return int(value["text"])
        case "float":
            return float.fromhex(value["hex"])
        case "complex":
            real, imaginary = value["parts"]
            return complex(float.fromhex(real), float.fromhex(imaginary))
        case "bytes":
            return base64.b64decode(value["data"])
        case "dict":
            return {_decode(key): _decode(item) for key, item in value["items"]}
        case "range":
            return range(*(int(number) for number in value["items"]))
        case "path":
            return pathlib.Path(str(value["text"]))
        case "array" | "scalar":
            array = _array(value)
            return array if kind == "array" else array.reshape(())[()]
    raise ValueError(f"unknown kind {kind!r:.40}")


def _array(value: dict[str, Any]) -> Any:
    dtype, data = np.dtype(str(value["dtype"])), base64.b64decode(value["data"])
    shape = [int(length) for length in value["shape"]]
    count = 1
    for length in shape:
        count *= length
    if dtype.kind not in _RAW_KINDS or min(shape, default=0) < 0 or max(shape, default=0) > 2**40:
        raise ValueError("unknown array")
    if count * dtype.itemsize != len(data):
        raise ValueError("the bytes do not fit the shape")
    return np.ndarray(shape, dtype, data).copy()
