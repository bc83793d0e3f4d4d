"""Environments: how they are made, and how their spaces become rows of numbers.

None of the modules here knows a policy:

* `making` turns what a user has (a Gymnasium id, an `Env`, a factory, a `VectorEnv`) into
  environments, or into one sentence that says why not;
* `named` makes them from names alone: an id or a factory, arguments, wrappers;
* `observations` writes an observation of any supported space into one flat row;
* `actions` turns a row of stored (unclipped) actions into what `env.step` expects;
* `plain_spaces` holds what both need to know of a space, without Gymnasium;
* `spaces` describes both spaces for a checkpoint and compares two descriptions;
* `envpool` and `single_envpool` are EnvPool as a source of environments.

Gymnasium is imported when the first environment or space is needed, not with this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import names_on_first_use

if TYPE_CHECKING:
    from .actions import ActionAdapter
    from .errors import EnvironmentFailure, ObservationError
    from .making import EnvSource as EnvSource
    from .making import (
        OpenedEnvironments,
        copy_environment,
        environment_name,
        make_environment,
        maker_of,
        open_environments,
    )
    from .named import NamedEnvironment, Reference
    from .observations import ObservationEncoder
    from .plain_spaces import described_space
    from .spaces import describe_spaces, spaces_mismatch

__all__ = [
    "ActionAdapter",
    "EnvironmentFailure",
    "NamedEnvironment",
    "ObservationEncoder",
    "ObservationError",
    "OpenedEnvironments",
    "Reference",
    "copy_environment",
    "describe_spaces",
    "described_space",
    "environment_name",
    "make_environment",
    "maker_of",
    "open_environments",
    "spaces_mismatch",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_on_first_use(
        __name__,
        {
            "actions": "ActionAdapter",
            "errors": "EnvironmentFailure ObservationError",
            "making": (
                "OpenedEnvironments copy_environment environment_name make_environment maker_of "
                "open_environments"
            ),
            "named": "NamedEnvironment Reference",
            "observations": "ObservationEncoder",
            "plain_spaces": "described_space",
            "spaces": "describe_spaces spaces_mismatch",
        },
    )
