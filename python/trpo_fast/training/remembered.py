"""States of earlier batches, which a trust region covers beside those of the latest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core

if TYPE_CHECKING:
    from ..rollout import Rollout
    from .batch import Batch

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

    def resize(self, capacity: int) -> None:
        """Remember more states from now on, or fewer: the first stay.

        Parameters
        ----------
        capacity
            M, at least 1.
        """
        self.capacity = capacity
        if self.observations is not None and len(self.observations) > capacity:
            self.observations = self.observations[:capacity].copy()
            self.action_masks = self.action_masks[:capacity].copy()

    def absorb(self, rollout: Rollout, batch: Batch, seed: int) -> None:
        """Remember some of the states of a rollout.

        Parameters
        ----------
        rollout
            T x E rows.
        batch
            What was made of it: has the rows where the rollout has none.
        seed
            What is drawn depends on it alone.
        """
        random = np.random.Generator(np.random.Philox(seed))
        weights = rollout.select(_shares(rollout))
        # the largest log(u) / w are a draw without replacement (Efraimidis, Spirakis 2006)
        keys = np.log(1.0 - random.random(len(weights))) / weights
        offers = np.argsort(-keys, kind="stable")[: max(1, self.capacity // OFFERS)]
        rows, masks = batch.given_states(rollout, offers)
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

    def covered(self, policy: core.Policy) -> dict[str, Any]:
        """What an update covers beside its batch: arguments of :meth:`trpo_fast.core.Policy.update`.

        Parameters
        ----------
        policy
            Before its update: its normaliser is that of the batch.
        """
        if self.observations is None or not len(self.observations):
            return {}
        return {
            "further_observations": policy.normalize(self.observations),
            "further_masks": self.action_masks if self.action_masks.shape[1] else None,
        }

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
    ends: NDArray[np.bool_] = np.zeros(rollout.valid.shape, np.bool_)
    times, envs = rollout.episode_indices.T
    ends[times, envs] = True
    shares = np.empty(ends.shape)
    for e in range(ends.shape[1]):
        # 0, 1, 2, ...: which of them a row is in
        episode: NDArray[np.int64] = np.cumsum(ends[:, e]) - ends[:, e]
        lengths = np.bincount(episode, weights=rollout.valid[:, e])
        shares[:, e] = 1.0 / np.maximum(lengths, 1.0)[episode]
    return shares
