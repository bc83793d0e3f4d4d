"""Rows of a batch on their way from actors to the parts of the batch, and what a part does with them.

An actor has all steps of a few environments; a part has consecutive rows of the batch, in the order of
`Rollout.transitions`: by time, then by environment. So every actor cuts its rows by time, one piece for
each part, and each part puts its pieces into their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import core, runtime
from ..core.parts import PolicyPart
from ..core.value_parts import ValuePart
from .advantages import generalized_advantages

if TYPE_CHECKING:
    from ..rollout import Rollout

__all__ = ["BatchPart", "Recipe", "Span", "assembled", "pieces_of", "spans_of"]

Array: TypeAlias = NDArray[Any]

_BLOCK = 256  # rows that running statistics take at once
_ENVIRONMENTS = 2**32  # more than there can be


@dataclass(frozen=True)
class Recipe:
    """What advantages are made with.

    Attributes
    ----------
    policy
        Its normaliser is used, and by the parts all but its parameters.
    value_function
        V, in its unit.
    mean, scale
        That unit, see :class:`~trpo_fast.training.value_units.ValueUnits`.
    gamma, gae_lambda
        In [0, 1].
    """

    policy: core.Policy
    value_function: core.ValueFunction
    mean: float
    scale: float
    gamma: float
    gae_lambda: float

    def values(self, observations: Array) -> NDArray[np.float64]:
        """V (N,), in the units of the rewards, of rows taken as dense.

        Parameters
        ----------
        observations
            (N, O), normalised.
        """
        outputs = self.value_function.predict(observations).astype(np.float64)
        return outputs * self.scale + self.mean


@dataclass(frozen=True)
class Span:
    """Where the rows of a part are.

    Attributes
    ----------
    begin, end
        Time steps of the rollout, from 0.
    skipped
        Rows of the first step that belong to the part before.
    n_rows
        Of the part.
    """

    begin: int
    end: int
    skipped: int
    n_rows: int


def spans_of(valid: NDArray[np.bool_], bounds: Sequence[int]) -> list[Span]:
    """The time steps that hold the rows between bounds.

    Parameters
    ----------
    valid
        Of the rollout, (T, E).
    bounds
        First rows of the parts, ascending from 0, and N.
    """
    firsts = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
    spans = []
    for first, last in itertools.pairwise(bounds):
        begin = int(np.searchsorted(firsts, first, side="right")) - 1
        end = int(np.searchsorted(firsts, last, side="left"))
        spans.append(Span(begin, end, first - int(firsts[begin]), last - first))
    return spans


def pieces_of(
    rollout: Rollout, first_env: int, spans: Sequence[Span], recipe: Recipe
) -> list[dict[str, Array]]:
    """Advantages of some environments, cut by time: one piece for each part.

    Parameters
    ----------
    rollout
        Of these environments.
    first_env
        Index of the first of them.
    spans
        Of all parts.
    recipe
        What advantages are made with.

    Returns
    -------
    list of dict
        Arrays by name; ``place`` orders the rows of all environments.
    """
    before = runtime.get_first_layer()
    runtime.set_first_layer("dense")  # as the parts take the rows
    try:
        batch = generalized_advantages(
            rollout,
            normalize=recipe.policy.normalize,
            values=recipe.values,
            gamma=recipe.gamma,
            gae_lambda=recipe.gae_lambda,
        )
    finally:
        runtime.set_first_layer(before)
    times, envs = np.nonzero(rollout.valid)
    rows: dict[str, Array] = {
        "place": times * _ENVIRONMENTS + envs + first_env,
        "raw": rollout.select(rollout.observations),
        "actions": batch.actions,
        "advantages": batch.advantages,
        "returns": batch.returns,
        "values": batch.values,
    }
    if batch.action_masks is not None:
        rows["action_masks"] = batch.action_masks
    pieces = []
    for span in spans:
        here = slice(*np.searchsorted(times, (span.begin, span.end)))
        pieces.append({name: np.ascontiguousarray(values[here]) for name, values in rows.items()})
    return pieces


def assembled(
    _: object,
    first_row: int,
    whole_size: int,
    span: Span,
    recipe: Recipe,
    *pieces: dict[str, Array],
) -> BatchPart:
    """Put the pieces of a part into their order.

    Parameters
    ----------
    _
        What else the holder holds: nothing.
    first_row
        Of the part.
    whole_size
        N.
    span
        Of the part.
    recipe
        What advantages were made with.
    *pieces
        One of every actor.
    """
    places = np.concatenate([piece["place"] for piece in pieces])
    order = np.argsort(places)[span.skipped : span.skipped + span.n_rows]
    rows = {name: np.concatenate([p[name] for p in pieces])[order] for name in pieces[0]}
    del rows["place"]
    return BatchPart(recipe, rows, whole_size=whole_size, first_row=first_row)


class BatchPart(PolicyPart):
    """Consecutive rows of a batch, for its statistics, the policy update and the value fit.

    Parameters
    ----------
    recipe
        What advantages were made with.
    rows
        Arrays of n rows by name: ``raw`` (n, O) observations, ``actions`` (n, A), ``advantages``,
        ``returns``, ``values`` (n,) float64, and ``action_masks`` (n, W) where there are masks.
    whole_size
        N.
    first_row
        Number of the first of these rows in the batch.
    """

    def __init__(
        self, recipe: Recipe, rows: dict[str, Array], *, whole_size: int, first_row: int
    ) -> None:
        self._rows, self._value_function = rows, recipe.value_function
        self._seen = recipe.policy.normalize(rows["raw"])
        self._fit: ValuePart | None = None
        super().__init__(
            recipe.policy,
            self._seen,
            rows["actions"],
            rows["advantages"],
            action_masks=rows.get("action_masks"),
            whole_size=whole_size,
            first_row=first_row,
        )

    def seen(self, numbers: NDArray[np.int64]) -> Array:
        """Normalised observations of those of some rows that are here.

        Parameters
        ----------
        numbers
            Of rows in the whole batch, ascending.
        """
        return self._seen[self._here(numbers)]

    def given(self, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Observations as the environment gave them of those of some rows that are here; masks.

        Parameters
        ----------
        numbers
            Of rows in the whole batch, ascending.
        """
        here = self._here(numbers)
        masks = self._rows.get("action_masks", np.ones((len(self._seen), 0), np.bool_))
        return self._rows["raw"][here], masks[here]

    def _here(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        here = numbers - self.first_row
        return here[(here >= 0) & (here < len(self._seen))]

    # ---- statistics of the whole batch

    def add_rows(
        self, name: str, state: dict[str, Array], pending: Array | None, is_last: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Go on with running statistics, which take rows in blocks.

        Parameters
        ----------
        name
            "raw" or "returns".
        state
            Of the statistics after the parts before this one.
        pending
            Rows of those parts that fill no block.
        is_last
            Whether no part follows.
        """
        rows = self._rows[name].reshape(len(self._seen), -1)
        statistics = core.RunningStatistics(rows.shape[1])
        statistics.load_state_dict(state)
        if pending is not None and len(pending):
            taken = min(_BLOCK - len(pending), len(rows))
            pending, rows = np.concatenate([pending, rows[:taken]]), rows[taken:]
            if len(pending) < _BLOCK and not is_last:
                return state, pending
            statistics.update(pending)
        whole = len(rows) if is_last else len(rows) // _BLOCK * _BLOCK
        if whole:
            statistics.update(rows[:whole])
        return statistics.state_dict(), np.array(rows[whole:])

    def farthest_return(self, center: float) -> float:
        """The largest distance of a return from a number.

        Parameters
        ----------
        center
            That number, in the units of the rewards.
        """
        return float(np.abs(self._rows["returns"] - center).max(initial=0.0))

    def errors(
        self, exponent: int, of_values: bool, mean: float | None, begin: int, end: int
    ) -> Array:
        """Scaled returns or residuals of some rows, or squares of their distances from a mean.

        Parameters
        ----------
        exponent
            The scale is 2 to this.
        of_values
            Residuals of V; returns otherwise.
        mean
            What distances are from; None: no squares.
        begin, end
            Numbers of rows in the whole batch, all of them here.
        """
        here = slice(begin - self.first_row, end - self.first_row)
        returns = self._rows["returns"][here]
        numbers = returns - self._rows["values"][here] if of_values else returns
        scaled = np.ldexp(numbers, exponent)
        if mean is None:
            return np.asarray(scaled)
        distances = scaled - mean
        return np.asarray(distances * distances)

    def error_sums(
        self, exponent: int, of_values: bool, mean: float | None, ranges: Sequence[tuple[int, int]]
    ) -> list[float]:
        """Sums of :meth:`errors` over ranges; those that are not here give 0.

        Parameters
        ----------
        exponent, of_values, mean
            See :meth:`errors`.
        ranges
            Of rows, each within one part.
        """
        last = self.first_row + len(self._seen)
        return [
            float(np.add.reduce(self.errors(exponent, of_values, mean, begin, end)))
            if self.first_row <= begin and end <= last
            else 0.0
            for begin, end in ranges
        ]

    # ---- value fit

    def aim(self, mean: float, scale: float) -> None:
        """Fix what the value function is to be fitted to.

        Parameters
        ----------
        mean, scale
            The unit of its outputs.
        """
        self._fit = ValuePart(
            self._value_function,
            self._seen,
            (self._rows["returns"] - mean) / scale,
            whole_size=self.whole_size,
            first_row=self.first_row,
        )

    def loss(self, parameters: Array, with_gradient: bool) -> tuple[Array, Array | None]:
        """As of `ValuePart`.

        Parameters
        ----------
        parameters, with_gradient
            As there.
        """
        assert self._fit is not None
        return self._fit.loss(parameters, with_gradient)

    def rows(self, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """As of `ValuePart`.

        Parameters
        ----------
        numbers
            As there.
        """
        assert self._fit is not None
        return self._fit.rows(numbers)
