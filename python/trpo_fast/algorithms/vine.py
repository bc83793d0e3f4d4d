"""TRPO with vine sampling (Schulman et al. 2015, section 5.2): several actions a state.

The branches come from :class:`trpo_fast.rollout.vine.VineSampler`, the objective from
:func:`trpo_fast.core.vine_update`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import AgentConfig, ConfigError, TrustRegionConfig, ValueConfig, field_names
from ..core.vine import vine_update
from ..rollout import Rollout, Sampler
from ..rollout.vine import Branches, VineOptions, VineRollout, VineSampler
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.trust_region import natural_step_options

__all__ = ["VineConfig", "VineOptions", "VineTRPO"]


@dataclass(frozen=True, kw_only=True)
class VineConfig(ValueConfig, TrustRegionConfig):
    """Settings of :class:`VineTRPO`: a trust region, a value function, and how the vine grows."""

    method: ClassVar[str] = "VineTRPO"

    vine: VineOptions = field(default_factory=VineOptions)
    """Rollout set and branches."""

    def __post_init__(self) -> None:
        if isinstance(self.vine, Mapping):
            object.__setattr__(self, "vine", VineOptions.from_dict(self.vine))
        if not isinstance(self.vine, VineOptions):
            raise ConfigError(
                f"vine: expected VineOptions or a mapping of their names, got {self.vine!r:.80}; "
                "leave it out for the defaults"
            )
        super().__post_init__()

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The value function, where it does not stand for what follows a branch."""
        idle = super().without_effect(values)
        if not _bootstraps(values["vine"]):
            names = set(field_names(ValueConfig)) - set(field_names(AgentConfig))
            idle |= dict.fromkeys(names, "vine.bootstrap=False")
        return idle

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {**super().to_dict(), "vine": asdict(self.vine)}


def _bootstraps(vine: object) -> bool:
    """What the options of a vine, or the mapping that a file holds, say of ``bootstrap``."""
    options = vars(vine) if isinstance(vine, VineOptions) else vine
    return not isinstance(options, Mapping) or options.get("bootstrap", True) is not False


class VineTRPO(OnPolicyAgent[VineConfig]):
    """TRPO with vine sampling (Schulman et al. 2015, section 5.2).

    >>> agent = VineTRPO("CartPole-v1", vine=VineOptions(states=64, branch_steps=16), seed=0)
    >>> agent.learn(100_000)

    An update takes ``batch_size`` steps of trunk and up to ``states * branches * branch_steps``
    steps of branches; both count as timesteps. Everything else is as in :class:`trpo_fast.TRPO`.

    Arguments are those of :class:`trpo_fast.TRPO`, settings those of :class:`VineConfig`: besides
    TRPO's ``vine``, how the vine grows, as :class:`VineOptions` or as a mapping of its fields.

    Raises
    ------
    SnapshotError
        (a ``ValueError``) The environment's state cannot be saved and restored.
    """

    config_type = VineConfig

    def make_sampler(self) -> Sampler:
        """Open the environments of the trunk, and let branches grow from it."""
        trunk = super().make_sampler()
        try:
            return VineSampler(trunk, self.config.vine, gamma=self.config.gamma)
        except BaseException:
            trunk.close()
            raise

    def apply(self, config: VineConfig) -> None:
        """Hand changed settings to the sampler too."""
        assert isinstance(self.sampler, VineSampler)
        self.sampler.options, self.sampler.gamma = config.vine, config.gamma
        super().apply(config)

    def advantages(self, rollout: Rollout) -> VineBatch:
        """Q of every branch; the trunk's returns are what V learns from."""
        assert isinstance(rollout, VineRollout)
        branches = rollout.branches
        values = self.values_of_raw if self.config.vine.bootstrap else None
        trunk = super().advantages(rollout)
        rows = {one.name: getattr(trunk, one.name) for one in fields(trunk)}
        return VineBatch(**rows, branches=branches, q_values=branches.q_values(values))

    def values_of_raw(self, observations: NDArray[Any]) -> NDArray[np.float64]:
        """V (N,) in the units of the rewards, of observations (N, O) that are not normalised.

        Parameters
        ----------
        observations
            Shape (N, O), as the encoder gives them.
        """
        assert self.value_fitting is not None
        return self.value_fitting.predict(self.policy.normalize(observations))

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """The step of TRPO on the objective of the branches."""
        assert isinstance(batch, VineBatch)
        branches = batch.branches
        return vine_update(
            self.policy,
            branches.observations,
            branches.actions,
            batch.q_values,
            natural_step_options(
                self.current, self.policy, branches.observations, normalized=False
            ),
            estimator=branches.estimator,
            action_masks=branches.action_masks,
            seed=self.update_seed,
        )

    @property
    def fits_values(self) -> bool:
        """Whether V is needed: where it stands for what follows a branch."""
        return self.config.vine.bootstrap

    def record(self, rollout: Rollout, *args: Any) -> dict[str, Any]:
        """The numbers of TRPO, and those of the branches."""
        assert isinstance(rollout, VineRollout)
        record = super().record(rollout, *args)
        record["vine/states"], record["vine/branches"] = rollout.branches.returns.shape
        record["vine/branch_steps"] = rollout.branches.n_steps
        return record


@dataclass(eq=False)
class VineBatch(Batch):
    """A trunk's transitions for V, and the branches for the policy.

    Attributes
    ----------
    branches
        N states of the rollout set, B branches of each.
    q_values
        Shape (N, B), float64, in the units of the rewards.
    """

    branches: Branches
    q_values: NDArray[np.float64]
