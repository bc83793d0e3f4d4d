"""Where a rollout began: what it takes to make the part of any actor again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ..budget import Budget
from ..changes import EnvironmentChange
from ..state import RunState

__all__ = ["Beginning"]

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Beginning:
    """Where a rollout began, and what acted in it; its rows are a function of this.

    Attributes
    ----------
    budget
        Of the rollout.
    start
        "fresh": by resetting the environments; "resume": from their states.
    state
        Counters, running episodes and observations of all environments.
    kept
        States of the environments of each actor; None where they are not known.
    changes
        What a new environment is to get before.
    why_none_kept
        Why states are not known.
    published
        What acted, see `Actors.publish`; None before the rollout has begun.
    """

    budget: Budget
    start: str
    state: RunState
    kept: list[list[dict[str, Array]]] | None
    changes: Sequence[EnvironmentChange]
    why_none_kept: str
    published: Any = None

    @property
    def can_come_back(self) -> bool:
        """Whether the environments can be brought there again."""
        return self.start == "fresh" or self.kept is not None
