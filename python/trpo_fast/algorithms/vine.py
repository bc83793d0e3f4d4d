"""TRPO with vine sampling (Schulman et al. 2015, section 5.2): several actions a state.

The branches come from :class:`trpo_fast.rollout.vine.VineSampler`, the objective from
:class:`trpo_fast.core.vine.VineObjective`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import ConfigError, TRPOConfig
from ..core.vine import vine_update
from ..rollout import Rollout
from ..rollout.vine import Branches, VineOptions, VineRollout, VineSampler
from ..training.agent import TRPO, _Batch

if TYPE_CHECKING:
    from ..envs import EnvSource

Array = NDArray[Any]
Float64 = NDArray[np.float64]

__all__ = ["VineConfig", "VineOptions", "VineTRPO"]


@dataclass(frozen=True, kw_only=True)
class VineConfig(TRPOConfig):
    """Settings of :class:`VineTRPO`: those of TRPO, and how the vine grows."""

    vine: VineOptions = field(default_factory=VineOptions)
    """Rollout set and branches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.vine, Mapping):
            object.__setattr__(self, "vine", VineOptions.from_dict(self.vine))
        if not isinstance(self.vine, VineOptions):
            raise ConfigError(
                f"vine: expected VineOptions or a mapping of their names, got {self.vine!r:.80}; "
                "leave it out for the defaults"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {**super().to_dict(), "vine": asdict(self.vine)}


class VineTRPO(TRPO):
    """TRPO with vine sampling (Schulman et al. 2015, section 5.2).

    >>> agent = VineTRPO("CartPole-v1", vine=VineOptions(states=64, branch_steps=16), seed=0)
    >>> agent.learn(100_000)

    An update takes ``batch_size`` steps of trunk and up to ``states * branches * branch_steps``
    steps of branches; both count as timesteps. Everything else is as in :class:`trpo_fast.TRPO`.

    Parameters
    ----------
    env
        What is stepped, see :class:`trpo_fast.TRPO`.
    settings
        As of :class:`trpo_fast.TRPO`; besides them ``vine``, how the vine grows:
        :class:`VineOptions`, or its fields as a mapping.

    Raises
    ------
    SnapshotError
        (a ``ValueError``) The environment's state cannot be saved and restored.
    """

    config_type = VineConfig
    config: VineConfig

    def __init__(self, env: EnvSource, **settings: Any) -> None:
        super().__init__(env, **settings)
        try:
            vine = VineSampler(self.sampler, self.config.vine, gamma=self.config.gamma)
            self._budget = vine.budget(self.config.sampling, self.config.batch_size)
        except BaseException:
            self.sampler.close()
            raise
        vine.bind(self.policy, seed=self.config.seed)
        self.sampler = vine

    def _advantages(self, rollout: Rollout) -> _VineBatch:
        """Q of every branch; the trunk's returns are what V learns from."""
        assert isinstance(rollout, VineRollout)
        branches = rollout.branches
        values = self._values_of_raw if self.config.vine.bootstrap else None
        return _VineBatch(super()._advantages(rollout), branches, branches.q_values(values))

    def _values_of_raw(self, observations: Array) -> Float64:
        return self._values(self.policy.normalize(observations))

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        assert isinstance(batch, _VineBatch)
        branches, settings = batch.branches, self._update_settings()
        return vine_update(
            self.policy,
            self.policy.normalize(branches.observations),
            branches.actions,
            batch.q_values,
            estimator=branches.estimator,
            max_kl=settings["max_kl"],
            cg_iterations=settings["cg_iterations"],
            cg_tolerance=settings["cg_tolerance"],
            cg_damping=settings["cg_damping"],
            backtrack_ratio=self.config.backtrack_ratio,
            max_backtracks=self.config.max_backtracks,
            cg_preconditioner=settings["cg_preconditioner"],
            seed=settings["seed"],
        )

    @property
    def _fit_threads(self) -> int:
        return super()._fit_threads if self.config.vine.bootstrap else 0

    def _start_value_fit(self, batch: _Batch) -> None:
        if self.config.vine.bootstrap:
            super()._start_value_fit(batch)

    def _record(self, rollout: Rollout, *args: Any) -> dict[str, Any]:
        assert isinstance(rollout, VineRollout)
        record = super()._record(rollout, *args)
        record["vine/states"], record["vine/branches"] = rollout.branches.returns.shape
        record["vine/branch_steps"] = rollout.branches.n_steps
        return record


class _VineBatch(_Batch):
    """A trunk's rows for V, and the branches for the policy."""

    __slots__ = ("branches", "q_values")

    def __init__(self, trunk: _Batch, branches: Branches, q_values: Float64) -> None:
        super().__init__(
            trunk.observations, trunk.actions, trunk.advantages, trunk.returns, trunk.values
        )
        self.branches = branches
        self.q_values = q_values  # (N, B) reward units
