"""What the policy network's outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .checks import choice, integers

DistributionKind = Literal[
    "gaussian", "state_dependent_gaussian", "categorical", "multi_categorical", "bernoulli"
]
DISTRIBUTION_KINDS: tuple[DistributionKind, ...] = get_args(DistributionKind)
LOG_STD_BOUNDS = (-20.0, 2.0)  # of a state-dependent Gaussian's log_std outputs


@dataclass(frozen=True)
class Distribution:
    """What the policy network's outputs mean.

    ============================  ================  ==============================  ===================
    kind                          sizes             network outputs                 action row
    ============================  ================  ==============================  ===================
    ``gaussian``                  (A,)              mean (A); log_std is free       A numbers
    ``state_dependent_gaussian``  (A,)              mean (A), log_std (A)           A numbers
    ``categorical``               (n,)              logits (n)                      1 integer
    ``multi_categorical``         (n1, n2, ...)     logits (n1 + n2 + ...)          one integer a group
    ``bernoulli``                 (n,)              logits (n)                      n bits
    ============================  ================  ==============================  ===================

    State-dependent log-stds are clamped to [-20, 2], with zero derivative outside.
    """

    kind: DistributionKind
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        choice("kind", self.kind, DISTRIBUTION_KINDS)
        sizes = integers("sizes", self.sizes)
        if not sizes or (len(sizes) > 1 and self.kind != "multi_categorical"):
            raise ValueError(
                f"sizes: expected one size for {self.kind!r} (several only for "
                f"multi_categorical), got {sizes}."
            )
        object.__setattr__(self, "sizes", sizes)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are integers."""
        return self.kind not in ("gaussian", "state_dependent_gaussian")

    @property
    def action_dim(self) -> int:
        """Columns of an action array."""
        if self.kind == "categorical":
            return 1
        return len(self.sizes) if self.kind == "multi_categorical" else self.sizes[0]

    @property
    def mask_sizes(self) -> tuple[int, ...]:
        """Choices of each component, which an action mask has flags for; none where continuous."""
        if not self.is_discrete:
            return ()
        return (2,) * self.sizes[0] if self.kind == "bernoulli" else self.sizes

    @property
    def mask_width(self) -> int:
        """W, flags of an action mask."""
        return sum(self.mask_sizes)

    @property
    def n_outputs(self) -> int:
        """P, outputs of the network."""
        if self.kind == "multi_categorical":
            return sum(self.sizes)
        return 2 * self.sizes[0] if self.kind == "state_dependent_gaussian" else self.sizes[0]

    @property
    def n_free_parameters(self) -> int:
        """Parameters beside the network: log_std (A) of ``gaussian``."""
        return self.sizes[0] if self.kind == "gaussian" else 0
