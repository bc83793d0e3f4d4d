"""Updates of batches in parts: every part adds up what it holds, and the bits are those of one piece.

The core cuts a batch into at most 64 chunks, whose sums are added in a fixed tree. A part holds whole
chunks, wherever it is: in this process, or on another machine. Whoever makes the update sends a vector
to all parts, gets the sums of their chunks back, and makes the additions of the tree that are left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .asking import LocalParts, Parts, PartsElsewhere, PartsLost
from .checks import shaped
from .options import (
    AscentOptions,
    AscentSettings,
    TrustRegionOptions,
    TrustRegionSettings,
    with_settings,
)
from .update import UpdateSummary

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .policy import Policy

__all__ = [
    "LocalParts",
    "Parts",
    "PartsElsewhere",
    "PartsLost",
    "PolicyPart",
    "ascend_parts",
    "bounds_of_parts",
    "takes_sums_of_columns",
    "update_parts",
]

Array: TypeAlias = NDArray[Any]


class PolicyPart:
    """Consecutive rows of a batch, whole chunks of it, and what they add to the sums of an update.

    Rows are taken as dense, see :func:`trpo_fast.core.sums_columns`.

    Parameters
    ----------
    policy
        Like the one that is updated; its parameters are not used.
    observations
        (n, O), dtype, as :meth:`Policy.normalize` returns them; borrowed, and so are those below.
    actions
        (n, A), unclipped.
    advantages
        (n,).
    action_masks
        (n, W), bool: which choices were allowed; None: all.
    whole_size
        N, rows of the whole batch.
    first_row
        Number of the first of these rows in it: one of :func:`bounds_of_parts`.
    """

    def __init__(
        self,
        policy: Policy,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        action_masks: ArrayLike | None = None,
        whole_size: int,
        first_row: int,
    ) -> None:
        self.whole_size, self.first_row = whole_size, first_row
        self._policy = policy
        self._x = policy.checked_inputs(observations, True)
        n = self._x.shape[0]
        self._actions, self._masks = policy.checked_choices(actions, action_masks, n)
        self._advantages = shaped("advantages", advantages, policy.dtype, (n,))
        self._native: Any = None

    def begin(self, parameters: Array, fisher: str, products: int, activation_budget: int) -> None:
        """Run the policy at theta_k over the rows.

        Parameters
        ----------
        parameters
            theta_k, (D,).
        fisher
            What products are with: "gauss_newton" or "empirical".
        products
            About how many there will be.
        activation_budget
            Bytes of activations to keep.
        """
        kind = self._policy.by_dtype(_core.PolicyPartF32, _core.PolicyPartF64)
        self._native = kind(
            self._policy.native_at(parameters),
            self._x,
            self._actions,
            self._advantages,
            self._masks,
            self.whole_size,
            self.first_row,
            fisher,
            products,
            activation_budget,
        )

    def count_entries(self, background: Array) -> int:
        """Entries of these rows that differ from what is most common in their column.

        Parameters
        ----------
        background
            (O,), that.
        """
        return int(_core.count_entries(self._x, background))

    def end(self) -> None:
        """Forget what :meth:`begin` has made."""
        self._native = None

    def entropy_sums(self) -> Array:
        """Entropies of pi_k added up over each chunk, nats, (chunks,)."""
        return np.asarray(self._native.entropy_sums())

    def add_advantages(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        """Go on adding up the advantages: their sum, the smallest and the largest.

        Parameters
        ----------
        sums
            Of the parts before this one, and the sum of squares.
        """
        return tuple(self._native.add_advantages(sums))

    def add_advantage_squares(self, sums: tuple[float, ...], mean: float) -> tuple[float, ...]:
        """Go on adding up the squares of their differences from the mean.

        Parameters
        ----------
        sums
            Of the parts before this one.
        mean
            Of all advantages.
        """
        return tuple(self._native.add_advantage_squares(sums, mean))

    def weigh(self, mean: float, scale: float) -> None:
        """Weigh the actions by (A - mean) scale.

        Parameters
        ----------
        mean, scale
            Of the weights.
        """
        self._native.weigh(mean, scale)

    def surrogate_gradient(self) -> tuple[Array, Array]:
        """What these rows add to N times the surrogate's gradient: sums of subtrees, and of log_stds."""
        roots, log_std = self._native.surrogate_gradient()
        return roots, log_std

    def fisher_vector_product(self, vector: Array) -> tuple[Array, Array]:
        """What these rows add to N F v, but for a free log_std's 2 v.

        Parameters
        ----------
        vector
            v, (D,) float64.
        """
        roots, log_std = self._native.fisher_vector_product(vector)
        return roots, log_std

    def largest_curvature(self, vector: Array) -> float:
        """The largest v^T F_n v of these rows, but for a free log_std's part of it.

        Parameters
        ----------
        vector
            v, (D,) float64.
        """
        return float(self._native.largest_curvature(vector))

    def evaluation_sums(self, parameters: Array) -> Array:
        """Gain, KL, largest KL and entropy at other parameters over each chunk, (chunks, 4).

        Parameters
        ----------
        parameters
            theta, (D,).
        """
        return np.asarray(self._native.evaluation_sums(parameters))

    def every_tile(self, spacing: int) -> tuple[Array, Array, Array | None]:
        """Observations, actions and masks of every tile whose number is a multiple of `spacing`.

        Parameters
        ----------
        spacing
            At least 1.
        """
        size = _core.TILE_ROWS
        tiles = (np.arange(len(self._x)) + self.first_row) // size
        chosen = tiles % spacing == 0
        masks = None if self._masks is None else self._masks[chosen]
        return self._x[chosen], self._actions[chosen], masks


class _Asked:
    """What the compiled updater asks of all parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def begin(self, parameters: Array, fisher: str, products: int, budget: int) -> None:
        self._parts.ask("begin", parameters, fisher, products, budget // self._n_parts)

    @property
    def _n_parts(self) -> int:
        return len(self._parts.bounds) - 1

    def entropy_sums(self) -> Array:
        return np.concatenate(self._parts.ask("entropy_sums"))

    def surrogate_gradient(self) -> list[Any]:
        return self._parts.ask("surrogate_gradient")

    def fisher_vector_product(self, vector: Array) -> list[Any]:
        return self._parts.ask("fisher_vector_product", vector)

    def largest_curvatures(self, vector: Array) -> list[float]:
        return self._parts.ask("largest_curvature", vector)

    def evaluation_sums(self, parameters: Array) -> Array:
        return np.concatenate(self._parts.ask("evaluation_sums", parameters))

    def add_advantages(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        for part in range(self._n_parts):
            sums = self._parts.ask_one(part, "add_advantages", sums)
        return sums

    def add_advantage_squares(self, sums: tuple[float, ...], mean: float) -> tuple[float, ...]:
        for part in range(self._n_parts):
            sums = self._parts.ask_one(part, "add_advantage_squares", sums, mean)
        return sums

    def weigh(self, mean: float, scale: float) -> None:
        self._parts.ask("weigh", mean, scale)

    def every_tile(self, spacing: int) -> tuple[Array, Array, Array | None]:
        came = self._parts.ask("every_tile", spacing)
        observations, actions, masks = zip(*came, strict=True)
        together = None if masks[0] is None else np.concatenate(masks)
        return np.concatenate(observations), np.concatenate(actions), together


def bounds_of_parts(n_rows: int, n_parts: int, *n_parameters: int) -> list[int]:
    """The first rows of at most ``n_parts`` parts about as large as each other, and N.

    Parts consist of whole chunks, of which there are at most 64, and one where a batch is so small
    that a single thread does it all.

    Parameters
    ----------
    n_rows
        N, at least 1.
    n_parts
        At least 1.
    *n_parameters
        D of every network that the rows go through.
    """
    cuts = [_core.chunks_of(n_rows, n) for n in n_parameters]
    chunks, rows = min(cuts)
    n_parts = min(n_parts, chunks)
    return [min(n_rows, chunks * part // n_parts * rows) for part in range(n_parts + 1)]


def update_parts(
    policy: Policy,
    parts: Parts,
    options: TrustRegionOptions | None = None,
    *,
    further_observations: ArrayLike | None = None,
    further_masks: ArrayLike | None = None,
    **settings: Unpack[TrustRegionSettings],
) -> UpdateSummary:
    """Make the update of :meth:`Policy.update` on a batch in parts, to the same bits.

    Messages of one product: v (D float64) to every part; back, for every chunk A float64, and in the
    dtype of the policy one padded vector of D from each part, or a few where a part is no subtree
    of the chunks (at most 10 of 64).

    Parameters
    ----------
    policy
        Updated in place.
    parts
        Cut at :func:`bounds_of_parts`.
    options, **settings
        As of :meth:`Policy.update`. ``activation_budget`` is shared out among the parts.
    further_observations
        (k, O), dtype, as :meth:`Policy.normalize` returns them; they are here, not in the parts.
    further_masks
        (k, W), of those.

    Returns
    -------
    UpdateSummary
        Unless its status is ``"accepted"`` the parameters are, bit for bit, those before.

    Raises
    ------
    ValueError
        ``fisher_fraction`` below 1, which needs all rows in one place.
    Exception
        What a part has raised; the parameters are those before.
    """
    options = with_settings(TrustRegionOptions, options, settings)
    updater = policy.by_dtype(_core.PartedUpdaterF32, _core.PartedUpdaterF64)()
    with _ended(parts):
        summary = updater.update(
            policy.native,
            _Asked(parts),
            parts.bounds[-1],
            _first_chunks(parts, policy),
            options,
            *policy.checked_further(further_observations, further_masks, True),
        )
    return UpdateSummary(**summary)


def ascend_parts(
    policy: Policy,
    parts: Parts,
    options: AscentOptions | None = None,
    **settings: Unpack[AscentSettings],
) -> UpdateSummary:
    """Take the one step of :meth:`Policy.ascend` on a whole batch in parts, to the same bits.

    Parameters
    ----------
    policy
        Updated in place, and its moments.
    parts
        Cut at :func:`bounds_of_parts`.
    options, **settings
        As of :meth:`Policy.ascend`; one epoch, and no minibatches.

    Raises
    ------
    ValueError
        More than one step.
    Exception
        What a part has raised; parameters and moments are those before.
    """
    options = with_settings(AscentOptions, options, settings)
    state = policy.optimizer_state()
    with _ended(parts):
        summary, first, second, steps = _core.ascend_parts(
            policy.native,
            _Asked(parts),
            parts.bounds[-1],
            _first_chunks(parts, policy),
            options,
            state["first_moment"],
            state["second_moment"],
            int(state["steps"][0]),
        )
    moments = {"first_moment": first, "second_moment": second, "steps": np.array([steps])}
    policy.load_optimizer_state(moments)
    return UpdateSummary(**summary)


def _first_chunks(parts: Parts, policy: Policy) -> list[int]:
    _, rows = _core.chunks_of(parts.bounds[-1], policy.n_parameters)
    return [bound // rows for bound in parts.bounds[:-1]]


@contextlib.contextmanager
def _ended(parts: Parts) -> Iterator[None]:
    """Afterwards the parts forget what an update has made."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # what broke first is what there is to say
            parts.ask("end")
        raise
    parts.ask("end")


def takes_sums_of_columns(n_rows: int, rows_at: Callable[[Array], Array], parts: Parts) -> bool:
    """Whether a batch in one piece is not dense, see :func:`trpo_fast.core.sums_columns`.

    Parameters
    ----------
    n_rows
        N.
    rows_at
        Observations (m, O), normalised, of the rows of some numbers (m,) int64.
    parts
        Each has a method ``count_entries``.
    """
    size = _core.ROWS_LOOKED_AT
    if n_rows < size:
        return False
    looked_at = np.ascontiguousarray(rows_at(np.arange(size) * n_rows // size))
    background = _core.likely_background(looked_at)
    if background is None:
        return False
    entries = sum(parts.ask("count_entries", background))
    return _core.are_few_entries(entries, n_rows, looked_at.shape[1])
