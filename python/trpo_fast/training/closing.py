"""The end of an agent: its environments are closed, by name or behind a ``with``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..rollout import Sampler
    from .parted_batch import PartedLearning


class ClosableAgent:
    """The part of an agent that ends: ``close``, and ``with``."""

    parted: PartedLearning | None = None
    sampler: Sampler
    """Steps the training environments."""

    def close(self) -> None:
        """Close the environments; a second call does nothing.

        >>> with TRPO("CartPole-v1") as agent:
        ...     agent.learn(100_000)

        does so at the end of the block, whatever happens in it. What was learned stays: the agent
        predicts and saves as before.
        """
        if self.parted is not None:
            self.parted.close()
        self.sampler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
