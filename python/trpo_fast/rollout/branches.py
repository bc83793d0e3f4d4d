"""Branches of a vine: how they are to grow, and what they brought.

Letters of shapes: see `trpo_fast.rollout.data`; N is the number of states of the rollout set here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..config import ConfigError
from ..core import Distribution
from ..core.vine import Estimator, action_space_name, all_actions, n_actions
from .data import Rollout

Array = NDArray[Any]
Float64 = NDArray[np.float64]

FEW_ACTIONS = 8
"""The largest number of actions of which branches try every one by default."""


@dataclass(frozen=True, kw_only=True)
class VineOptions:
    """How the vine grows. The trunk has `batch_size` steps; branches come on top.

    Raises
    ------
    ConfigError
        (a ``ValueError``) One sentence: name, expected, got.
    """

    states: int = 64
    """N, states of the rollout set per update, over all environments."""

    branches: int | Literal["all"] | None = None
    """K, branches of a state; "all": every action; None: all of up to 8 actions, otherwise 4."""

    branch_steps: int | None = 16
    """L, most steps of a branch, its first action included; None: until the episode ends."""

    bootstrap: bool = True
    """Whether V stands for what follows a branch that was cut off."""

    def __post_init__(self) -> None:
        _count("states", self.states, "; a rollout set without states says nothing")
        if self.branches is not None and self.branches != "all":
            _count("branches", self.branches, ', or "all" or None')
        if self.branch_steps is not None:
            _count("branch_steps", self.branch_steps, ", or None for whole episodes")
        if not isinstance(self.bootstrap, bool):
            raise ConfigError(f"bootstrap: expected True or False, got {self.bootstrap!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VineOptions:
        """The options with these names, and defaults for the rest.

        Parameters
        ----------
        values
            Options by name.

        Raises
        ------
        ConfigError
            A name that is none of them, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"vine: expected the options {', '.join(known)}, got {name!r}")
        return cls(**values)

    def estimator(self, distribution: Distribution, space: Any = None) -> tuple[Estimator, int]:
        """Which form of the objective fits the policy's actions, and how many branches a state has.

        Parameters
        ----------
        distribution
            That of the policy.
        space
            The environment's action space, for the sentences of errors.

        Returns
        -------
        tuple
            The estimator and K.

        Raises
        ------
        ValueError
            All actions of a continuous or large space; fewer than two samples.
        """
        branches: int | str | None = self.branches
        if branches is None:
            few = distribution.is_discrete and n_actions(distribution) <= FEW_ACTIONS
            branches = "all" if few else 4
        if branches == "all":
            return "exact_sum", len(all_actions(distribution, space))
        branches = int(branches)
        if branches < 2:
            remedy = ', or branches="all"' if distribution.is_discrete else ""
            raise ValueError(
                "branches: expected at least 2 sampled actions a state for "
                f"{action_space_name(distribution, space)}, got {branches}: the weight of a single one "
                f"is always 1, and nothing is learned; take 2 or more{remedy}"
            )
        return "self_normalized", branches


def _count(name: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}: expected a whole number{remedy}, got {value!r}")
    if value < 1:
        raise ConfigError(f"{name}: expected at least 1{remedy}, got {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """What the branches brought. N states of the rollout set, K branches of each.

    Attributes
    ----------
    estimator
        Which form of the objective they are meant for.
    observations
        States of the rollout set, raw: (N, O), dtype.
    actions
        First actions, as sampled: (N, K, A), dtype or int32.
    returns
        sum_{l<L} gamma^l r_l, in the environment's unit: (N, K), float64.
    discounts
        Weights of V(s_L), 0 where the branch terminated or nothing stands for what follows: (N, K),
        float64.
    end_observations
        s_L, raw: (N, K, O), dtype.
    lengths
        Steps taken: (N, K), int64.
    indices
        (t, e): branches start from s_{t+1} of environment e's trunk: (N, 2), int64.
    action_masks
        Which choices the states allow: (N, W), bool; None where the environment has no masks. A branch
        whose first action is forbidden is not walked: its length is 0.
    """

    estimator: Estimator
    observations: Array
    actions: Array
    returns: Float64
    discounts: Float64
    end_observations: Array
    lengths: NDArray[np.int64]
    indices: NDArray[np.int64]
    action_masks: NDArray[np.bool_] | None = None

    @property
    def n_steps(self) -> int:
        """Environment steps of all branches."""
        return int(self.lengths.sum())

    def q_values(self, values: Callable[[Array], ArrayLike] | None) -> Float64:
        """Q_k = sum_{l<L} gamma^l r_l + gamma^L V(s_L) of every branch.

        Parameters
        ----------
        values
            Gives V (M,) of raw observations (M, O), in the environment's unit; None leaves V out.

        Returns
        -------
        numpy.ndarray
            (N, K), float64.
        """
        if values is None:
            return self.returns
        N, K, O = self.end_observations.shape  # noqa: E741
        ends = np.asarray(values(self.end_observations.reshape(N * K, O)), np.float64)
        return self.returns + self.discounts * ends.reshape(N, K)


@dataclass
class VineRollout(Rollout):
    """A trunk, and the branches that grew from it."""

    branches: Branches = field(kw_only=True)

    @property
    def n_transitions(self) -> int:
        """Steps that environments took, branches included."""
        return super().n_transitions + self.branches.n_steps
