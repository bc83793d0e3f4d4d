"""Vanilla policy gradient: one step along the gradient, or of Adam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from .. import core
from ..config import ValueConfig, choice, scheduled
from ..schedules import Scheduled, number_of
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.moments import moments_of, restore_moments

__all__ = ["VPG", "VPGConfig"]

Ascent = Literal["adam", "gradient", "normalized"]


@dataclass(frozen=True, kw_only=True)
class VPGConfig(ValueConfig):
    """Settings of :class:`VPG`."""

    method: ClassVar[str] = "VPG"
    updates_in_parts: ClassVar[bool] = True
    lacks: ClassVar[str] = "policy_learning_rate, not a trust region, is the length of its step"

    ascent: Ascent = choice("adam", Ascent)
    """One step a batch: of Adam, policy_learning_rate times g, or g scaled to that length."""

    policy_learning_rate: Scheduled = scheduled(3e-3, "(0, inf)", remedy="0.003 suits Adam")
    """Step size of Adam, factor of g, or length of the normalised step."""


class VPG(OnPolicyAgent[VPGConfig]):
    """Vanilla policy gradient (Williams 1992; Sutton et al. 2000) with generalised advantages.

    ::

        g = mean_n grad log pi(a_n|s_n) A_n
        theta = theta_k + Adam(g)                         "adam", one step a batch
        theta = theta_k + policy_learning_rate g          "gradient"
        theta = theta_k + policy_learning_rate g / ||g||  "normalized"

    The last maximises the linear model of L subject to ||theta - theta_k|| <= policy_learning_rate:
    TRPO with the identity in place of F (Schulman et al. 2015, section 7, equation 20).

    Arguments are those of :class:`trpo_fast.TRPO`, settings those of :class:`VPGConfig`.
    """

    config_type = VPGConfig

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Step along g."""
        config = self.current
        rate, standardize = number_of(config.policy_learning_rate), config.standardize_advantages
        if config.ascent == "adam":
            return batch.ascend(self.policy, learning_rate=rate, standardize_advantages=standardize)
        options = core.TrustRegionOptions(fisher="identity", standardize_advantages=standardize)
        if config.ascent == "gradient":
            return batch.update(self.policy, options, step="fixed", step_size=rate)
        # ||s||^2 / 2 <= delta is ||s|| <= rate
        return batch.update(self.policy, options, step="boundary", max_kl=0.5 * rate * rate)

    def own_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The moments of Adam, where it has made a step."""
        return moments_of(self.policy, "policy_optimizer"), {}

    def restore_own_state(
        self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> None:
        """Take over the moments of Adam."""
        restore_moments(self.policy, "policy_optimizer", tensors)
