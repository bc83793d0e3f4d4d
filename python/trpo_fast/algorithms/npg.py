"""Natural policy gradient: TRPO's direction, and a step without a line search."""

from __future__ import annotations

from dataclasses import dataclass

from .. import core
from ..config import TRPOConfig
from ..training.agent import _Batch
from .kl_penalty import _Relative

__all__ = ["NPG", "NPGConfig"]


@dataclass(frozen=True, kw_only=True)
class NPGConfig(TRPOConfig):
    """Settings of :class:`NPG`: those of TRPO, of which the line search is not used, and a step."""

    step_size: float | None = 0.3
    """Length of the step along x = (F + lambda I)^-1 g; None goes to the boundary max_kl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            self._number("step_size", "(0, inf)", remedy="0.3 is usual; None follows max_kl")


class NPG(_Relative):
    """Natural policy gradient (Kakade 2001; Schulman et al. 2015, section 7).

    ::

        (F + lambda I) x = g                       by conjugate gradient, as in TRPO
        theta = theta_k + step_size x              fixed step: Kakade; Tianshou's form
        theta = theta_k + beta x                   step_size=None: normalised step,
        beta = sqrt(2 max_kl / x^T (F + lambda I) x)   the first candidate of TRPO's line search

    No line search follows: neither the KL nor the surrogate is checked. With equal step sizes the
    step is, bit for bit, TRPO's first candidate. Tianshou's example uses a fixed step of 0.1.
    """

    config_type = NPGConfig
    config: NPGConfig

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        step_size = self.config.step_size
        return self.policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            normalized=True,
            **self._update_settings(),
            constraint=self.config.kl_constraint,
            step="boundary" if step_size is None else "fixed",
            step_size=step_size,
        )
