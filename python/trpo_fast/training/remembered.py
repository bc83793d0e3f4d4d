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
        self.action_masks: NDArray[np.bool_] = _no_masks(0)
        """(k, W): which choices were allowed there; W is 0 where the environment has no masks."""

    def absorb(self, rollout: Rollout, seed: int) -> None:
        """Remember some of the states of a rollout.

        Parameters
        ----------
        rollout
            T x E rows.
        seed
            What is drawn depends on it alone.
        """
        random = np.random.Generator(np.random.Philox(seed))
        weights = rollout.select(_shares(rollout))
        # the largest log(u) / w are a draw without replacement (Efraimidis, Spirakis 2006)
        keys = np.log(1.0 - random.random(len(weights))) / weights
        offers = np.argsort(-keys, kind="stable")[: max(1, self.capacity // OFFERS)]
        rows = rollout.select(rollout.observations)[offers]
        masks = rollout.select(rollout.action_masks)[offers]
        if self.observations is None:
            self.observations = rows[:0]
        width = max(masks.shape[1], self.action_masks.shape[1])
        masks, kept_masks = _as_wide(masks, width), _as_wide(self.action_masks, width)
        room = self.capacity - len(self.observations)
        self.observations = np.concatenate([self.observations, rows[:room]])
        self.action_masks = np.concatenate([kept_masks, masks[:room]])
        places = random.random(len(offers)) * (self.offered + 1 + np.arange(len(offers)))
        self.offered += len(offers)
        for offer, place in enumerate(places.astype(np.int64)[room:], room):
            if place < self.capacity:
                self.observations[place] = rows[offer]
                self.action_masks[place] = masks[offer]

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
        old, masks = self.observations, None
        n, k = len(batch.advantages), len(old)
        if batch.action_masks is not None:
            masks = _as_wide(self.action_masks, batch.action_masks.shape[1])
        if standardizes:
            advantages, theirs = batch.advantages, float(np.mean(batch.advantages))
        else:
            advantages, theirs = batch.advantages * ((n + k) / n), 0.0
        actions = policy.act(old, seed=seed, action_masks=masks)
        return replace(
            batch,
            observations=np.concatenate([batch.observations, policy.normalize(old)]),
            actions=np.concatenate([batch.actions, actions]),
            advantages=np.concatenate([advantages, np.full(k, theirs)]),
            action_masks=None if masks is None else np.concatenate([batch.action_masks, masks]),
        )

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and an entry for a file."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.observations is not None:
            tensors["remembered.observations"] = self.observations
        if self.action_masks.size:
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
        if rows.ndim != 2 or rows.shape[1] != policy.obs_dim or not np.isfinite(rows).all():
            raise ValueError(f"remembered states of shape {rows.shape}")
        if not len(rows) <= int(offered) < 2**53:
            raise ValueError(f"{len(rows)} remembered states of {offered!r:.40} that were offered")
        masks = tensors.get("remembered.action_masks")
        if masks is not None:
            name = "masks of remembered states"
            masks = core.mask_rows(policy.distribution, masks, len(rows), name=name)
        self.offered = int(offered)
        self.observations = rows[: self.capacity].astype(policy.dtype)
        self.action_masks = (_no_masks(len(rows)) if masks is None else masks)[: self.capacity]


def _no_masks(n: int) -> NDArray[np.bool_]:
    return np.ones((n, 0), np.bool_)


def _as_wide(masks: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The masks, or masks of that width that allow everything where there were none."""
    return masks if masks.shape[1] == width else np.ones((len(masks), width), np.bool_)


def _shares(rollout: Rollout) -> NDArray[np.float64]:
    """(T, E): one over the number of transitions of the row's episode in the rollout."""
    ends = rollout.terminated | rollout.truncated
    shares = np.empty(ends.shape)
    for e in range(ends.shape[1]):
        # 0, 1, 2, ...: which of them a row is in
        episode: NDArray[np.int64] = np.cumsum(ends[:, e]) - ends[:, e]
        lengths = np.bincount(episode, weights=rollout.valid[:, e])
        shares[:, e] = 1.0 / np.maximum(lengths, 1.0)[episode]
    return shares
