"""TRPO's relatives: the same batch, gradient, Fisher matrix and value function, another step.

Schulman et al. 2015 (TRPO), section 7, derives them all from one problem::

    maximise L(theta) subject to a distance between theta and theta_k

==================  =======================================  ==============================
method              distance                                 step
==================  =======================================  ==============================
:class:`TRPO`       mean KL, or the largest KL of any state  (F + lambda I)^-1 g, searched
:class:`NPG`        the quadratic model of the mean KL       (F + lambda I)^-1 g, as it is
:class:`VPG`        ||theta - theta_k||^2 / 2                g, or Adam on g
:class:`KLPenalty`  none; the mean KL has a price beta       epochs of Adam on L - beta KL
==================  =======================================  ==============================

    g = mean_n grad log pi(a_n|s_n) A_n               the gradient of L at theta_k
    F = the Hessian of the mean KL at theta_k         "gauss_newton"
      = mean_n grad log pi(a_n|s_n) grad log pi(a_n|s_n)^T         "empirical"

>>> agent = NPG("CartPole-v1", step_size=0.3).learn(200_000)

Each class takes what :class:`TRPO` takes and does what it does: learn, predict, evaluate, save,
load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .. import core
from ..training.agent import _FISHER, TRPO, _Batch, _derived_seed
from ..config import TRPOConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..envs import EnvSource

__all__ = ["NPG", "VPG", "KLPenalty", "KLPenaltyConfig", "NPGConfig", "VPGConfig"]


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


# ---- natural policy gradient


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
            **self._update_settings(),
            constraint=self.config.kl_constraint,
            step="boundary" if step_size is None else "fixed",
            step_size=step_size,
        )


# ---- vanilla policy gradient


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
            return self.policy.ascend(*rows, learning_rate=rate, standardize_advantages=standardize)
        if config.ascent == "gradient":
            return self.policy.update(
                *rows,
                fisher="identity",
                step="fixed",
                step_size=rate,
                standardize_advantages=standardize,
            )
        # ||s||^2 / 2 <= delta is ||s|| <= rate
        return self.policy.update(
            *rows,
            fisher="identity",
            step="boundary",
            max_kl=0.5 * rate * rate,
            standardize_advantages=standardize,
        )


# ---- KL-penalised update


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
