"""Fits of value functions to batches in parts, to the bits of one piece: see `parts`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .checks import shaped
from .options import ValueFitOptions, ValueFitSettings, with_settings
from .parts import PartsElsewhere
from .value_function import FitSummary, ValueFunction

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .parts import Parts

__all__ = ["ValuePart", "fit_parts"]

Array: TypeAlias = NDArray[Any]


class ValuePart:
    """Consecutive rows of a value fit, whole chunks of the batch, taken as dense.

    Parameters
    ----------
    value_function
        Like the one that is fitted; its parameters are changed.
    observations
        (n, O), dtype, as the network sees them; borrowed.
    targets
        (n,), in the unit of V.
    whole_size
        N, rows of the whole batch.
    first_row
        Number of the first of these rows in it.
    """

    def __init__(
        self,
        value_function: ValueFunction,
        observations: ArrayLike,
        targets: ArrayLike,
        *,
        whole_size: int,
        first_row: int,
    ) -> None:
        self.whole_size, self.first_row = whole_size, first_row
        self._value_function = value_function
        self._x = value_function.checked_observations(observations)
        self._y = shaped("targets", targets, value_function.dtype, (self._x.shape[0],))

    def loss(self, parameters: Array, with_gradient: bool) -> tuple[Array, Array | None]:
        """Squared errors added up over each chunk, and what these rows add to their gradient.

        Parameters
        ----------
        parameters
            (D,), of the value function.
        with_gradient
            Whether that is wanted; None otherwise.
        """
        self._value_function.parameters = parameters
        sums, roots = _core.loss_part(
            self._value_function.native,
            self._x,
            self._y,
            self.whole_size,
            self.first_row,
            with_gradient,
        )
        return sums, roots

    def rows(self, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Observations and targets of some rows, in the order given.

        Parameters
        ----------
        numbers
            Of rows in the whole batch, all of them here, (m,).
        """
        here = numbers - self.first_row
        return self._x[here], self._y[here]


class _AskedRows:
    """What a compiled fit asks of all parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def loss_sums(self, parameters: Array, with_gradient: bool) -> tuple[Array, list[Any]]:
        sums, roots = zip(*self._parts.ask("loss", parameters, with_gradient), strict=True)
        return np.concatenate(sums), list(roots)

    def gather(self, order: NDArray[np.int64]) -> tuple[Array, Array]:
        bounds = self._parts.bounds
        owner = np.searchsorted(bounds, order, side="right") - 1
        chosen = [owner == part for part in range(len(bounds) - 1)]
        came = self._parts.ask_each("rows", [order[own] for own in chosen])
        x = np.empty((len(order), came[0][0].shape[1]), came[0][0].dtype)
        y = np.empty(len(order), x.dtype)
        for own, (observations, targets) in zip(chosen, came, strict=True):
            x[own], y[own] = observations, targets
        return x, y


def fit_parts(
    value_function: ValueFunction,
    parts: Parts,
    options: ValueFitOptions | None = None,
    **settings: Unpack[ValueFitSettings],
) -> FitSummary:
    """Make the fit of :meth:`ValueFunction.fit` to a batch in parts, to the same bits.

    Losses, and steps on the full batch, are sums of the parts. Steps on minibatches are made of rows
    that come from all parts in their shuffled order, at most 65,536 of them and 16 MiB at a time: to
    this process, or to the one beside the parts where there is one, which sends back parameters and
    moments.

    Parameters
    ----------
    value_function
        Fitted in place.
    parts
        Of `ValuePart`, cut at :func:`bounds_of_parts`.
    options, **settings
        As of :meth:`ValueFunction.fit`.

    Raises
    ------
    Exception
        What a part has raised; parameters and moments are those before.
    """
    options = with_settings(ValueFitOptions, options, settings)
    n = parts.bounds[-1]
    if isinstance(parts, PartsElsewhere) and _takes_minibatches(options, n):
        fields = {name: getattr(options, name) for name in ValueFitSettings.__annotations__}
        summary, parameters, moments = parts.call_beside(_fit_beside, value_function, fields)
        value_function.parameters = parameters
        value_function.load_optimizer_state(moments)
        return FitSummary(**summary)
    _, rows = _core.chunks_of(n, value_function.n_parameters)
    first_chunks = [bound // rows for bound in parts.bounds[:-1]]
    native: Any = value_function.native
    return FitSummary(**_core.fit_parts(native, _AskedRows(parts), n, first_chunks, options))


def _takes_minibatches(options: ValueFitOptions, n_rows: int) -> bool:
    size = options.minibatch_size
    return options.method == "adam" and size is not None and size < n_rows


def _fit_beside(
    parts: Parts, value_function: ValueFunction, fields: dict[str, Any]
) -> tuple[dict[str, Any], Array, dict[str, Array]]:
    """The fit in the process beside the parts; what the caller's value function is to become."""
    summary = fit_parts(value_function, parts, **fields)
    return asdict(summary), value_function.parameters, value_function.optimizer_state()
