"""States of earlier batches, which a trust region covers beside those of the latest one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from .batch import Batch

if TYPE_CHECKING:
    from ..rollout import Rollout

OFFERS = 8  # a batch offers an eighth of what is remembered

__all__ = ["RememberedStates"]


class RememberedStates:
    """A sample of all states so far, every batch and every episode in it with a say of its own.

    A batch offers some of its states, drawn with a probability that is in inverse proportion to the
    length of the part of the episode that they belong to: short episodes, which hold what seldom
    happens, are not drowned by long ones. What is remembered is a uniform sample of all offers
    (Vitter 1985, algorithm R).

    Parameters
    ----------
    capacity
        M, the most states that are remembered, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.offered = 0
        """States that have been offered so far."""
        self.observations: NDArray[Any] | None = None
        """(k, O), as the environment gave them, k at most M; None before the first."""
        self.action_masks: NDArray[np.bool_] | None = None
        """(k, W): which choices were allowed there; None where the environment has no masks."""

    def absorb(self, rollout: Rollout, masks: NDArray[np.bool_] | None, seed: int) -> None:
        """Remember some of the states of a rollout.

        Parameters
        ----------
        rollout
            T x E rows.
        masks
            (N, W), of its N transitions; None where there are none.
        seed
            What is drawn depends on it alone.
        """
        random = np.random.Generator(np.random.Philox(seed))
        weights = rollout.select(_shares(rollout))
        rows = rollout.select(rollout.observations)
        # the largest log(u) / w are a draw without replacement (Efraimidis, Spirakis 2006)
        keys = np.log(1.0 - random.random(len(weights))) / weights
        offers = np.argsort(-keys, kind="stable")[: max(1, self.capacity // OFFERS)]
        if self.observations is None:
            self.observations = rows[:0].copy()
            self.action_masks = None if masks is None else masks[:0].copy()
        for offer, u in zip(offers, random.random(len(offers)), strict=True):
            self.offered += 1
            self._put(rows[offer], None if masks is None else masks[offer], u)

    def _put(self, row: NDArray[Any], mask: NDArray[np.bool_] | None, u: float) -> None:
        assert self.observations is not None
        if len(self.observations) < self.capacity:
            self.observations = np.concatenate([self.observations, row[None]])
            if mask is not None and self.action_masks is not None:
                self.action_masks = np.concatenate([self.action_masks, mask[None]])
            return
        place = int(u * self.offered)
        if place < self.capacity:
            self.observations[place] = row
            if mask is not None and self.action_masks is not None:
                self.action_masks[place] = mask

    def beside(self, batch: Batch, policy: core.Policy, *, standardizes: bool, seed: int) -> Batch:
        """The batch and below it what is remembered, with advantages that leave the gradient alone.

        Parameters
        ----------
        batch
            N rows.
        policy
            Before its update: draws the actions of the remembered states.
        standardizes
            Whether the update standardises advantages: those of remembered states are then the mean
            of the batch. Otherwise they are 0, and those of the batch N + k for N, so that the mean
            over all rows is that over the batch.
        seed
            Of those actions.

        Returns
        -------
        Batch
            N + k rows for a policy update; its returns and values are the batch's.
        """
        if self.observations is None:
            return batch
        masks, old = self.action_masks, self.observations
        n, k = len(batch.advantages), len(old)
        if standardizes:
            advantages, theirs = batch.advantages, float(np.mean(batch.advantages))
        else:
            advantages, theirs = batch.advantages * ((n + k) / n), 0.0
        actions = policy.act(old, seed=seed, action_masks=masks)
        together = None
        if batch.action_masks is not None and masks is not None:
            together = np.concatenate([batch.action_masks, masks])
        return replace(
            batch,
            observations=np.concatenate([batch.observations, policy.normalize(old)]),
            actions=np.concatenate([batch.actions, actions]),
            advantages=np.concatenate([advantages, np.full(k, theirs)]),
            action_masks=together,
        )

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and an entry for a file."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.observations is not None:
            tensors["remembered.observations"] = self.observations
        if self.action_masks is not None:
            tensors["remembered.action_masks"] = self.action_masks.astype(np.uint8)
        return tensors, {"offered": self.offered}

    def restore(
        self, tensors: Mapping[str, NDArray[Any]], offered: Any, policy: core.Policy
    ) -> None:
        """Take over what :meth:`state` returned; nothing is remembered where a file has none.

        Parameters
        ----------
        tensors, offered
            Those of a file. Where it holds more states than the capacity, the first stay.
        policy
            For which they must be.

        Raises
        ------
        ValueError, TypeError
            No state of this policy.
        """
        rows = tensors.get("remembered.observations")
        if rows is None:
            return
        masks = tensors.get("remembered.action_masks")
        if rows.ndim != 2 or rows.shape[1] != policy.obs_dim or not np.isfinite(rows).all():
            raise ValueError(f"remembered states of shape {rows.shape}")
        if masks is not None and (masks.ndim != 2 or len(masks) != len(rows)):
            raise ValueError(f"masks of shape {masks.shape} of {len(rows)} remembered states")
        if int(offered) < len(rows):
            raise ValueError(f"{len(rows)} remembered states of {offered} that were offered")
        self.offered = int(offered)
        self.observations = rows[: self.capacity].astype(policy.dtype)
        self.action_masks = None if masks is None else masks[: self.capacity].astype(np.bool_)


def _shares(rollout: Rollout) -> NDArray[np.float64]:
    """(T, E): one over the number of rows that the row's episode has in the rollout."""
    ends = rollout.terminated | rollout.truncated
    shares = np.empty(ends.shape)
    for e in range(ends.shape[1]):
        # 0, 1, 2, ...: which of them a row is in
        episode: NDArray[np.int64] = np.cumsum(ends[:, e]) - ends[:, e]
        shares[:, e] = 1.0 / np.bincount(episode)[episode]
    return shares
