"""A radius that knows how much of the gradient is noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import core
from .batch import Batch

EVERY = 2  # updates from one measurement to the next: each costs about what conjugate gradient does
SMALLEST = 1e-3  # share of the radius that is left where nothing but noise is seen

__all__ = ["SignalGuard", "measured_signal"]


def measured_signal(
    policy: core.Policy, batch: Batch, n_envs: int, options: core.TrustRegionOptions
) -> core.GradientSignal | None:
    """The signal in a batch, by halves of its environments, which share no episode.

    The halves are those of the time where there is one environment, or where environments have
    unequal numbers of rows. The same episodes then go through both, which counts as signal, or as its
    opposite.

    Parameters
    ----------
    policy
        Before its update.
    batch
        N rows, by time, then by environment.
    n_envs
        E.
    options
        Of the update.
    """
    observations, actions, advantages = batch.observations, batch.actions, batch.advantages
    masks = batch.action_masks
    n, split = len(advantages), None
    if n_envs >= 2 and n % n_envs == 0:
        is_first = np.arange(n) % n_envs < n_envs // 2
        order = np.argsort(~is_first, kind="stable")
        observations, actions, advantages = observations[order], actions[order], advantages[order]
        masks = None if masks is None else masks[order]
        split = int(is_first.sum())
    return policy.gradient_signal(
        observations, actions, advantages, options, split=split, normalized=True, action_masks=masks
    )


class SignalGuard:
    """The share of signal in the latest gradients, and what it leaves of a trust region.

    ::

        V <- k V + (1 - k) validated,   G <- k G + (1 - k) apparent      k = 1 - 1 / min(memory, n)
        rho = max(0, V / G)                                              share of signal
        max_kl <- max_kl rho / (rho + guard)

    where validated and apparent are those of :meth:`trpo_fast.core.Policy.gradient_signal` in the
    n-th measurement. One batch says little of rho; the sums of many do, since what they add up is
    unbiased.
    """

    def __init__(self) -> None:
        self.validated = 0.0  # V
        self.apparent = 0.0  # G
        self.measurements = 0  # n

    @property
    def share(self) -> float:
        """Rho, at least 0; 1 before the first measurement."""
        if self.measurements == 0:
            return 1.0
        return max(0.0, self.validated / self.apparent) if self.apparent > 0.0 else 0.0

    def absorb(self, signal: core.GradientSignal | None, memory: int) -> None:
        """Remember a measurement.

        Parameters
        ----------
        signal
            Of a batch; None where nothing could be measured, which changes nothing.
        memory
            Measurements that the means go over, at least 1.
        """
        if signal is None:
            return
        self.measurements += 1
        weight = 1.0 / min(memory, self.measurements)
        self.validated += weight * (signal.validated_gain - self.validated)
        self.apparent += weight * (signal.apparent_gain - self.apparent)

    def factor(self, guard: float) -> float:
        """What is left of max_kl, in [0.001, 1].

        Parameters
        ----------
        guard
            Share of signal that leaves a half, above 0.
        """
        return max(SMALLEST, self.share / (self.share + guard))

    def state(self) -> dict[str, float]:
        """Entries for a file."""
        return {
            "validated": self.validated,
            "apparent": self.apparent,
            "measurements": float(self.measurements),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned; nothing remembered where a file had none.

        Parameters
        ----------
        state
            The entries.
        """
        self.validated = float(state.get("validated", 0.0))
        self.apparent = float(state.get("apparent", 0.0))
        self.measurements = int(state.get("measurements", 0))
