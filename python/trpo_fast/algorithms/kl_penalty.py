"""The KL-penalised update with an adaptive coefficient, PPO's first form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import core
from ..config import TRPOConfig
from ..training.agent import _FISHER, TRPO, _Batch, _derived_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..envs import EnvSource

__all__ = ["KLPenalty", "KLPenaltyConfig"]


class _Relative(TRPO):
    """What the relatives share: the state of the policy's Adam in a checkpoint."""

    def state_tensors(self) -> dict[str, NDArray[Any]]:
        optimizer = self.policy.optimizer_state()
        return {
            **super().state_tensors(),
            **{f"policy_optimizer.{name}": array for name, array in optimizer.items()},
        }

    def _restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        super()._restore(tensors, metadata)
        names = ("first_moment", "second_moment", "steps")
        self.policy.load_optimizer_state({n: tensors[f"policy_optimizer.{n}"] for n in names})


@dataclass(frozen=True, kw_only=True)
class KLPenaltyConfig(TRPOConfig):
    """Settings of :class:`KLPenalty`; those of TRPO's trust region are not used."""

    kl_target: float = 0.01
    """Mean KL(old‖new) in nats that each update should make."""

    kl_coefficient: float = 1.0
    """β at the start of training, standardised advantage per nat; it adapts from there."""

    policy_learning_rate: float = 3e-4
    """Step size of Adam."""

    policy_epochs: int = 10
    """Passes of Adam over the batch per update."""

    policy_minibatch_size: int | None = 64
    """Samples per Adam step; None takes the whole batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("kl_target", "(0, inf)", remedy="0.01 nats is usual")
        self._number("kl_coefficient", "[0, inf)", remedy="1 is usual; it adapts")
        self._number("policy_learning_rate", "(0, inf)", remedy="0.0003 is usual")
        self._integer("policy_epochs", 1, remedy="10 is usual")
        self._optional_integer("policy_minibatch_size", 1, remedy="None takes the whole batch")


class KLPenalty(_Relative):
    """KL-penalised policy update with an adaptive coefficient: PPO's first form.

    Schulman et al. 2017, section 4. Several epochs of minibatch Adam on ::

        L(theta) - beta mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n))            equation 8

    and after each update, with d the mean KL that it made on the batch ::

        d < kl_target / 1.5:   beta <- beta / 2
        d > kl_target * 1.5:   beta <- 2 beta

    Unlike in the paper, advantages are standardised over the whole batch, and beta stays within
    [1e-4, 1e4], so that it finds its way back soon. Where TRPO bounds the KL of every update, this
    one only aims at it. The agent's ``kl_coefficient`` is beta of the next update.
    """

    config_type = KLPenaltyConfig
    config: KLPenaltyConfig

    def __init__(self, env: EnvSource, **settings: Any) -> None:
        super().__init__(env, **settings)
        self.kl_coefficient = self.config.kl_coefficient  # beta

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        config = self.config
        summary = self.policy.ascend(
            batch.observations,
            batch.actions,
            batch.advantages,
            normalized=True,
            learning_rate=config.policy_learning_rate,
            epochs=config.policy_epochs,
            minibatch_size=config.policy_minibatch_size,
            kl_coefficient=self.kl_coefficient,
            standardize_advantages=config.standardize_advantages,
            seed=_derived_seed(config.seed, _FISHER, self.iteration),
        )
        if summary.accepted:
            self.kl_coefficient = _adapted(self.kl_coefficient, summary.kl, config.kl_target)
        return summary

    def _record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        record = super()._record(*args, **kwargs)
        record["policy/kl_coefficient"] = self.kl_coefficient
        return record

    def state_metadata(self) -> dict[str, Any]:
        return {**super().state_metadata(), "kl_coefficient": self.kl_coefficient}

    def _restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        super()._restore(tensors, metadata)
        self.kl_coefficient = float(metadata["kl_coefficient"])


def _adapted(beta: float, kl: float, target: float) -> float:
    """beta of the next update, after one that made a mean KL of ``kl``."""
    if kl < target / 1.5:
        beta /= 2.0
    elif kl > target * 1.5:
        beta *= 2.0
    return min(max(beta, 1e-4), 1e4)
