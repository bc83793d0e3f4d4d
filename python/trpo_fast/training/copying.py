"""Copies of agents: a second agent in the same state, with environments of its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from typing_extensions import Self

    from .agent import OnPolicyAgent


class CopyableAgent:
    """The part of an agent that ``copy`` and ``pickle`` call."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Another agent in the same state, with environments of its own.

        What :meth:`load` promises holds for it: the two train alike, bit for bit, where the
        environments' states can be saved.
        """
        from .env_kwargs import kind_of_source

        agent = cast("OnPolicyAgent[Any]", self)
        if kind_of_source(agent.env_source) == "object":
            raise TypeError(
                f"copy: expected an agent of an id or of a function that makes its environment, got "
                f"one of the object {agent.env_name}, which a second agent cannot step too; copy "
                "agent.frozen_policy(), or save the agent and load it with env=."
            )
        agent.learning.refuse_other_threads("copy")
        tensors, metadata = agent.state()
        copied = type(agent).from_state(
            copy.deepcopy(tensors),
            copy.deepcopy(metadata),
            env=agent.env_source,
            **agent.config.functions,
            cluster=agent.config.cluster,
            runtime_env=agent.config.runtime_env,
            distribute_update=agent.config.distribute_update,
        )
        memo[id(self)] = copied
        return cast("Self", copied)

    def __copy__(self) -> Self:
        """As ``copy.deepcopy``: two agents cannot share their environments."""
        return copy.deepcopy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"pickle: expected something without environments and processes, got a "
            f"{type(self).__name__}; pickle agent.frozen_policy(), or save the agent into a file."
        )
