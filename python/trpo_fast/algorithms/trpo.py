"""Trust Region Policy Optimization (Schulman et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .. import core
from ..config import TRPOConfig
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.trust_region import natural_step_options
from . import class_named

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TRPO"]


class TRPO(OnPolicyAgent[TRPOConfig]):
    """Trust Region Policy Optimization (Schulman et al. 2015) with generalised advantages.

    >>> agent = TRPO("HalfCheetah-v5", seed=0)
    >>> agent.learn(1_000_000)
    >>> agent.evaluate(episodes=10).mean_return

    Arguments are those of :class:`~trpo_fast.training.agent.OnPolicyAgent`: ``env`` (a Gymnasium id,
    an ``Env``, a callable that makes one, or a ``VectorEnv``), ``config``, ``preset``, ``env_kwargs``,
    and the fields of :class:`TRPOConfig`.
    """

    config_type = TRPOConfig

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Solve F x = g, step to the boundary, and search back along the line."""
        return self.policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            natural_step_options(self.current, self.policy),
            normalized=True,
            seed=self.update_seed,
        )

    @classmethod
    def written_by(cls, algorithm: str) -> type[Self]:
        """The class of that name: ``TRPO.load`` stands for the load of every method."""
        found = class_named(algorithm) if cls is TRPO else None
        return super().written_by(algorithm) if found is None else cast("type[Self]", found)
