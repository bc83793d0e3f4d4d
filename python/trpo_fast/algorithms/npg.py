"""Natural policy gradient: TRPO's direction, and a step without a line search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import core
from ..config import NaturalStepConfig, ValueConfig, scheduled
from ..schedules import Scheduled, number_of
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.trust_region import natural_step_options

__all__ = ["NPG", "NPGConfig"]


@dataclass(frozen=True, kw_only=True)
class NPGConfig(ValueConfig, NaturalStepConfig):
    """Settings of :class:`NPG`: those of TRPO but for its line search, and a step."""

    method: ClassVar[str] = "NPG"
    updates_in_parts: ClassVar[bool] = True
    lacks: ClassVar[str] = "no line search follows its step"

    step_size: Scheduled | None = scheduled(
        0.3, "(0, inf)", optional=True, remedy="0.3 is usual; None follows max_kl"
    )
    """Length of the step along x = (F + lambda I)^-1 g; None goes to the boundary max_kl."""

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The trust region, which a step of fixed size does not know."""
        idle = super().without_effect(values)
        if values["step_size"] is not None:
            reason = f"step_size={values['step_size']!r} (None goes to the boundary max_kl)"
            idle |= {"max_kl": reason, "kl_constraint": reason}
        return idle


class NPG(OnPolicyAgent[NPGConfig]):
    """Natural policy gradient (Kakade 2001; Schulman et al. 2015, section 7).

    ::

        (F + lambda I) x = g                       by conjugate gradient, as in TRPO
        theta = theta_k + step_size x              fixed step: Kakade; Tianshou's form
        theta = theta_k + beta x                   step_size=None: normalised step,
        beta = sqrt(2 max_kl / x^T (F + lambda I) x)   the first candidate of TRPO's line search

    No line search follows: neither the KL nor the surrogate is checked. With equal step sizes the
    step is, bit for bit, TRPO's first candidate. Tianshou's example uses a fixed step of 0.1.

    Arguments are those of :class:`trpo_fast.TRPO`, settings those of :class:`NPGConfig`.
    """

    config_type = NPGConfig

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Solve F x = g, and step along x."""
        step_size = self.current.step_size
        return batch.update(
            self.policy,
            natural_step_options(self.current, self.policy, batch.observations),
            step="boundary" if step_size is None else "fixed",
            step_size=None if step_size is None else number_of(step_size),
            seed=self.update_seed,
        )
