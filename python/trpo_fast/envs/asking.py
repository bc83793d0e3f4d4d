"""Attributes of foreign objects, whose properties and ``__getattr__`` may raise or answer anything."""

from __future__ import annotations

from typing import Any


def asked(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of a foreign object; the default where asking for it raises.

    Parameters
    ----------
    value
        Any object.
    name
        Of the attribute.
    default
        What counts as having none.
    """
    try:
        return getattr(value, name, default)
    except Exception:  # a foreign property may do anything
        return default


def has_agents(value: Any) -> bool:
    """Whether an object has agents, as environments of PettingZoo do and Gymnasium's do not.

    Parameters
    ----------
    value
        Any object. One of Gymnasium may have a ``__getattr__`` that knows every name.
    """
    import gymnasium

    kinds = (type, gymnasium.Env, gymnasium.vector.VectorEnv)
    return not isinstance(value, kinds) and asked(value, "possible_agents") is not None
