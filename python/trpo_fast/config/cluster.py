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


def refuse_unclustered(config: Any) -> None:
    """Raise where settings of a cluster do not go together, or with others.

    Parameters
    ----------
    config
        An `AgentConfig`.

    Raises
    ------
    ConfigError
        No worker for a cluster; or updates by sums of parts of a batch without a cluster, or beside
        something that needs all rows in one place.
    """
    if config.cluster is not None and config.n_workers == 0:
        raise ConfigError(
            "n_workers: expected at least 1 with cluster, where an actor is a worker, got 0; None "
            "takes one for every free core"
        )
    if not config.distribute_update:
        return
    why = ""
    if not config.updates_in_parts:
        why = (
            f"a method that updates by sums of rows, TRPO, NPG or VPG, got {config.method}; use one"
        )
    elif config.cluster is None:
        why = "a cluster, on whose nodes rows can stay, got cluster=None; set cluster='auto'"
    elif getattr(config, "signal_guard", 0.0) != 0.0:
        why = f"signal_guard=0, got {config.signal_guard}, whose halves of a batch need all rows; set 0"
    elif getattr(config, "fisher_fraction", 1.0) != 1.0:
        why = f"fisher_fraction=1, got {config.fisher_fraction}, a draw from all rows; set 1"
    elif (
        config.state_dependent_std and getattr(config, "cg_damping_unit", "absolute") != "absolute"
    ):
        why = (
            f"cg_damping_unit='absolute' beside state_dependent_std, got {config.cg_damping_unit!r}, a "
            "mean over all rows; set 'absolute'"
        )
    if why:
        raise ConfigError(f"distribute_update: expected {why}, or leave it out")
