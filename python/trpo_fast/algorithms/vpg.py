"""Vanilla policy gradient: one step along the gradient, or of Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import core
from ..config import TRPOConfig
from ..training.agent import _Batch
from .kl_penalty import _Relative

__all__ = ["VPG", "VPGConfig"]


@dataclass(frozen=True, kw_only=True)
class VPGConfig(TRPOConfig):
    """Settings of :class:`VPG`; those of TRPO's trust region are not used."""

    ascent: Literal["adam", "gradient", "normalized"] = "adam"
    """One step a batch: of Adam, policy_learning_rate times g, or g scaled to that length."""

    policy_learning_rate: float = 3e-3
    """Step size of Adam, factor of g, or length of the normalised step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choice("ascent", Literal["adam", "gradient", "normalized"])
        self._number("policy_learning_rate", "(0, inf)", remedy="0.003 suits Adam")


class VPG(_Relative):
    """Vanilla policy gradient (Williams 1992; Sutton et al. 2000) with generalised advantages.

    ::

        g = mean_n grad log pi(a_n|s_n) A_n
        theta = theta_k + Adam(g)                         "adam", one step a batch
        theta = theta_k + policy_learning_rate g          "gradient"
        theta = theta_k + policy_learning_rate g / ||g||  "normalized"

    The last maximises the linear model of L subject to ||theta - theta_k|| <= policy_learning_rate:
    TRPO with the identity in place of F (Schulman et al. 2015, section 7, equation 20).
    """

    config_type = VPGConfig
    config: VPGConfig

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        config = self.config
        rows = (batch.observations, batch.actions, batch.advantages)
        rate, standardize = config.policy_learning_rate, config.standardize_advantages
        if config.ascent == "adam":
            return self.policy.ascend(
                *rows,
                normalized=True,
                learning_rate=rate,
                standardize_advantages=standardize,
            )
        if config.ascent == "gradient":
            return self.policy.update(
                *rows,
                normalized=True,
                fisher="identity",
                step="fixed",
                step_size=rate,
                standardize_advantages=standardize,
            )
        # ||s||^2 / 2 <= delta is ||s|| <= rate
        return self.policy.update(
            *rows,
            normalized=True,
            fisher="identity",
            step="boundary",
            max_kl=0.5 * rate * rate,
            standardize_advantages=standardize,
        )
