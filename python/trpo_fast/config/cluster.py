"""Fields for where a cluster is, and what its nodes are brought."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from .fields import ConfigError, When, setting, show


def cluster_address(default: None = None, *, changes: When = "always") -> Any:
    """A field for where a Ray cluster is, or None.

    Parameters
    ----------
    default
        Its value where none is given.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> str | None:
        if value is None or value in ("local", "auto"):
            return cast("str | None", value)
        if isinstance(value, str):
            host, _, port = value.removeprefix("ray://").rpartition(":")
            if host and port.isdecimal():
                return value
        raise ConfigError(
            f"{name}: expected 'local', 'auto', 'HOST:PORT', 'ray://HOST:PORT' or None, got "
            f"{show(value)}; 'auto' is the cluster that this machine belongs to"
        )

    return setting(default, check, changes)


def runtime_environment(default: None = None, *, changes: When = "always") -> Any:
    """A field for what Ray brings to its nodes: JSON, the name of a file, or a mapping, kept as JSON.

    Parameters
    ----------
    default
        Its value where none is given.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> str | None:
        try:
            if value is None or (isinstance(value, str) and value):
                return value
            if isinstance(value, Mapping):
                return json.dumps(dict(value))
        except (TypeError, ValueError):
            pass
        raise ConfigError(
            f"{name}: expected a mapping such as {{'working_dir': '.'}} that JSON can hold, or the "
            f"name of a YAML file, got {show(value)}; see Ray's runtime environments"
        )

    return setting(default, check, changes)
