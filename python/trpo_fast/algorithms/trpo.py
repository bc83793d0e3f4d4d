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

    Parameters
    ----------
    env
        A Gymnasium id (``"module:Id-v0"`` imports the module first), an ``Env``, a callable that
        makes one, or a Gymnasium ``VectorEnv``. An ``Env`` is one environment and a ``VectorEnv`` as
        many as it holds, whatever ``n_envs`` says; ``batch_size`` stays what it is.
    config
        A complete :class:`TRPOConfig`, instead of a preset.
    preset
        Name of a preset to start from, see :mod:`trpo_fast.presets`.
    env_kwargs
        Keyword arguments of ``gymnasium.make``, where ``env`` is an id.
    overrides
        Fields of :class:`TRPOConfig`; they win over ``config`` and ``preset``.

    Raises
    ------
    ValueError, TypeError
        With one sentence: an unknown environment, an unsupported space, a bad setting.
    """

    config_type = TRPOConfig

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Solve F x = g, step to the boundary, and search back along the line."""
        return self.policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            normalized=True,
            **natural_step_options(self.config, self.policy),
            seed=self.update_seed,
        )

    @classmethod
    def written_by(cls, algorithm: str) -> type[Self]:
        """The class of that name: ``TRPO.load`` stands for the load of every method."""
        found = class_named(algorithm) if cls is TRPO else None
        return super().written_by(algorithm) if found is None else cast("type[Self]", found)
