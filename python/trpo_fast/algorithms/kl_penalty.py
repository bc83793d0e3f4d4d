"""The KL-penalised update with an adaptive coefficient, PPO's first form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from .. import core
from ..config import ValueConfig, integer, number, scheduled
from ..schedules import Scheduled, number_of
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.moments import moments_of, restore_moments

if TYPE_CHECKING:
    from ..envs import EnvSource

__all__ = ["KLPenalty", "KLPenaltyConfig", "adapted_coefficient"]


@dataclass(frozen=True, kw_only=True)
class KLPenaltyConfig(ValueConfig):
    """Settings of :class:`KLPenalty`."""

    method: ClassVar[str] = "KLPenalty"
    lacks: ClassVar[str] = "kl_target and Adam, not a trust region, decide the length of its step"

    kl_target: Scheduled = scheduled(0.01, "(0, inf)", remedy="0.01 nats is usual")
    """Mean KL(old‖new) in nats that each update should make."""

    kl_coefficient: float = number(1.0, "[0, inf)", remedy="1 is usual; it adapts", changes="never")
    """β at the start of training, standardised advantage per nat; it adapts from there."""

    policy_learning_rate: Scheduled = scheduled(3e-4, "(0, inf)", remedy="0.0003 is usual")
    """Step size of Adam."""

    policy_epochs: int = integer(10, 1, remedy="10 is usual")
    """Passes of Adam over the batch per update."""

    policy_minibatch_size: int | None = integer(
        64, 1, optional=True, remedy="None takes the whole batch"
    )
    """Samples per Adam step; None takes the whole batch."""


class KLPenalty(OnPolicyAgent[KLPenaltyConfig]):
    """KL-penalised policy update with an adaptive coefficient: PPO's first form.

    Schulman et al. 2017, section 4. Several epochs of minibatch Adam on ::

        L(theta) - beta mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n))            equation 8

    and after each update, with d the mean KL that it made on the batch ::

        d < kl_target / 1.5:   beta <- beta / 2
        d > kl_target * 1.5:   beta <- 2 beta

    Unlike in the paper, advantages are standardised over the whole batch, and beta is clamped to
    [1e-4, 1e4], so that a run of small KLs cannot drive it far off. Where TRPO bounds the KL of every
    update, this one only aims at it. The agent's ``kl_coefficient`` is beta of the next update.

    Parameters
    ----------
    env
        What is stepped, see :class:`trpo_fast.TRPO`.
    **settings
        Arguments of :class:`trpo_fast.TRPO`, settings of :class:`KLPenaltyConfig`.
    """

    config_type = KLPenaltyConfig

    def __init__(self, env: EnvSource, **settings: Any) -> None:
        super().__init__(env, **settings)
        self.kl_coefficient = self.config.kl_coefficient
        """beta of the next update."""

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Ascend the penalised surrogate by Adam, and adapt beta."""
        config = self.current
        summary = self.policy.ascend(
            batch.observations,
            batch.actions,
            batch.advantages,
            normalized=True,
            action_masks=batch.action_masks,
            learning_rate=number_of(config.policy_learning_rate),
            epochs=config.policy_epochs,
            minibatch_size=config.policy_minibatch_size,
            kl_coefficient=self.kl_coefficient,
            standardize_advantages=config.standardize_advantages,
            seed=self.update_seed,
        )
        if summary.accepted:
            self.kl_coefficient = adapted_coefficient(
                self.kl_coefficient, summary.kl, number_of(config.kl_target)
            )
        return summary

    def record(self, *args: Any) -> dict[str, Any]:
        """The numbers of every method, and beta of the next update."""
        record = super().record(*args)
        record["policy/kl_coefficient"] = self.kl_coefficient
        return record

    def own_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The moments of Adam, and beta."""
        return moments_of(self.policy, "policy_optimizer"), {"kl_coefficient": self.kl_coefficient}

    def restore_own_state(
        self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> None:
        """Take over the moments of Adam, and beta."""
        restore_moments(self.policy, "policy_optimizer", tensors)
        self.kl_coefficient = float(metadata["kl_coefficient"])


def adapted_coefficient(beta: float, kl: float, target: float) -> float:
    """beta of the next update, after one that made a mean KL of ``kl`` nats.

    Parameters
    ----------
    beta
        Coefficient of the update.
    kl
        Mean KL that the update made, in nats.
    target
        Mean KL that it should have made, in nats.
    """
    if kl < target / 1.5:
        beta /= 2.0
    elif kl > target * 1.5:
        beta *= 2.0
    return min(max(beta, 1e-4), 1e4)
