"""A batch whose rows lie on the nodes of a cluster: what learns from it sees a `Batch`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..core.parts import bounds_of_parts, takes_sums_of_columns, update_parts
from ..core.value_parts import fit_parts
from ..schedules import number_of
from .batch import Batch
from .parted_rows import Recipe, assembled, pieces_of, spans_of

if TYPE_CHECKING:
    from ..config import AgentConfig, ValueConfig
    from ..core.parts import Parts
    from ..rollout import Rollout, Sampler
    from ..rollout.cluster import ClusterSampler
    from ..rollout.cluster.holders import Holders
    from .value_fitting import ValueFitting
    from .value_units import ValueUnits

__all__ = ["PartedBatch", "PartedLearning", "pairwise_ranges", "parted_learning"]

_LEAF = 128  # entries that NumPy adds up without halving them
_PART = "batch"  # what holders call it
_NARROW = 64  # entries of an observation below which rows are always dense


class PartedBatch(Batch):
    """A batch in parts; see `Batch` for what can be asked of it. Arrays of its rows are not here.

    Parameters
    ----------
    parts
        Of `BatchPart`.
    policy
        Whose observations they hold.
    """

    def __init__(self, parts: Parts, policy: core.Policy) -> None:
        self.parts = parts
        self.observations = np.empty((0, policy.obs_dim), policy.dtype)  # for nobody but options

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name}: the rows of this batch lie on the nodes of a cluster, and none of them here; "
            "leave out distribute_update to have them"
        )

    @property
    def _last(self) -> int:
        return len(self.parts.bounds) - 2

    def update(
        self, policy: core.Policy, options: core.TrustRegionOptions, **settings: Any
    ) -> core.UpdateSummary:
        """The update of `Batch.update`, by sums of the parts.

        Parameters
        ----------
        policy, options, **settings
            As there.
        """
        return update_parts(policy, self.parts, options, **settings)

    def absorb_returns(self, units: ValueUnits, value_function: core.ValueFunction) -> None:
        """Let the unit of V follow these returns.

        Parameters
        ----------
        units
            The unit.
        value_function
            V.
        """
        is_first = units.statistics.count == 0
        self._add_rows("returns", units.statistics)
        units.settle(
            lambda center: max(self.parts.ask("farthest_return", center)), value_function, is_first
        )

    def fit_of(
        self, units: ValueUnits, value_function: core.ValueFunction
    ) -> Callable[..., core.FitSummary]:
        """What fits V to these returns, given the settings of a fit.

        Parameters
        ----------
        units
            The unit of V.
        value_function
            V.
        """
        self.parts.ask("aim", units.mean, units.scale)

        def fit(**settings: Any) -> core.FitSummary:
            return fit_parts(value_function, self.parts, **settings)

        return fit

    def add_observations(self, statistics: core.RunningStatistics, rollout: Rollout) -> None:
        """Merge the observations into running statistics.

        Parameters
        ----------
        statistics
            Those.
        rollout
            Not used: its rows are not here.
        """
        self._add_rows("raw", statistics)

    def _add_rows(self, name: str, statistics: core.RunningStatistics) -> None:
        state, pending = statistics.state_dict(), None
        for part in range(self._last + 1):
            state, pending = self.parts.ask_one(
                part, "add_rows", name, state, pending, part == self._last
            )
        statistics.load_state_dict(state)

    def explained_variance(self) -> float:
        """See `record.explained_variance`: the same number, of sums of ranges of rows."""
        largest = max(self.parts.ask("farthest_return", 0.0))
        exponent = -int(np.frexp(largest)[1])
        variance = self._variance(exponent, False)
        if not variance > 0.0:
            return float("nan")
        return 1.0 - self._variance(exponent, True) / variance

    def _variance(self, exponent: int, of_values: bool) -> float:
        n = self.parts.bounds[-1]
        mean = self._sum(exponent, of_values, None) / n
        return self._sum(exponent, of_values, mean) / n

    def _sum(self, exponent: int, of_values: bool, mean: float | None) -> float:
        """The sum that NumPy makes of all rows: the same halves, each by the part that holds it."""
        about = exponent, of_values, mean
        bounds = np.asarray(self.parts.bounds)
        tree = pairwise_ranges(0, int(bounds[-1]), self.parts.bounds)
        leaves: list[tuple[int, int]] = []
        _collect(tree, leaves)
        owners = np.searchsorted(bounds, leaves, side="right")
        came = self.parts.ask("error_sums", *about, leaves)
        sums: dict[tuple[int, int], float] = {}
        for i, (begin, end) in enumerate(leaves):
            first, last = int(owners[i, 0]) - 1, int(np.searchsorted(bounds, end)) - 1
            if first == last:
                sums[begin, end] = came[first][i]
                continue
            pieces = []
            for part in range(first, last + 1):
                ends = max(begin, int(bounds[part])), min(end, int(bounds[part + 1]))
                pieces.append(self.parts.ask_one(part, "errors", *about, *ends))
            sums[begin, end] = float(np.add.reduce(np.concatenate(pieces)))
        return _added(tree, sums)


def pairwise_ranges(begin: int, end: int, bounds: Any) -> Any:
    """How NumPy adds up the entries of an array, as far as no part holds all of a range.

    Parameters
    ----------
    begin, end
        Of the range.
    bounds
        Where parts begin and end.

    Returns
    -------
    tuple
        A range, or a pair of such tuples and None.
    """
    n = end - begin
    if n <= _LEAF or not any(begin < bound < end for bound in bounds):
        return begin, end
    half = n // 2
    half -= half % 8
    middle = begin + half
    return pairwise_ranges(begin, middle, bounds), pairwise_ranges(middle, end, bounds), None


def _collect(tree: Any, leaves: list[tuple[int, int]]) -> None:
    if len(tree) == 2:
        leaves.append(tree)
        return
    for half in tree[:2]:
        _collect(half, leaves)


def _added(tree: Any, sums: dict[tuple[int, int], float]) -> float:
    if len(tree) == 2:
        return sums[tree]
    return _added(tree[0], sums) + _added(tree[1], sums)


class PartedLearning:
    """Brings the rows of rollouts from the actors to parts on the nodes.

    Parameters
    ----------
    sampler
        Of a cluster.

    Attributes
    ----------
    holders
        Processes that hold the rows; None before the first batch.
    """

    def __init__(self, sampler: ClusterSampler) -> None:
        self._sampler = sampler
        self.holders: Holders | None = None
        self._nodes: set[str] = set()

    @contextlib.contextmanager
    def keeping_rows(self) -> Iterator[None]:
        """Rollouts of this block leave their rows with the actors."""
        self._sampler.keeps_rows = True
        try:
            yield
        finally:
            self._sampler.keeps_rows = False

    def batch(
        self, rollout: Rollout, policy: core.Policy, fitting: ValueFitting, now: ValueConfig
    ) -> PartedBatch:
        """Advantages of the latest rollout, made by the actors and held by the nodes.

        Parameters
        ----------
        rollout
            The latest; its rows are with the actors.
        policy
            Normalises, and is to be updated.
        fitting
            V.
        now
            Settings of this iteration.

        Raises
        ------
        ClusterError
            An actor or a node is lost on the way.
        ValueError
            Rows of which one process would take sums of columns.
        """
        from ..rollout.cluster.holders import RayParts

        n, holders = rollout.n_transitions, self._on_the_nodes()
        network = fitting.network
        bounds = bounds_of_parts(n, len(holders), policy.n_parameters, network.n_parameters)
        spans = spans_of(rollout.valid, bounds)
        recipe = Recipe(
            policy,
            network,
            mean=fitting.units.mean,
            scale=fitting.units.scale,
            gamma=now.gamma,
            gae_lambda=number_of(now.gae_lambda),
        )
        published = self._sampler.connection.ray.put(recipe)
        pieces = self._sampler.cut(pieces_of, len(spans), spans, published)
        arguments = [
            (_PART, assembled, first, n, span, published, *(own[i] for own in pieces))
            for i, (first, span) in enumerate(zip(bounds[:-1], spans, strict=True))
        ]
        for number in range(len(spans), len(holders)):  # they held rows of a longer batch
            holders.ask_one(number, "forget", _PART)
        holders.ask_each("make", arguments)
        parts = RayParts(holders, _PART, bounds)
        if policy.obs_dim >= _NARROW:
            _refuse_columns(n, parts)
        return PartedBatch(parts, policy)

    def _on_the_nodes(self) -> Holders:
        """A process on every node that is there now."""
        from ..rollout.cluster.holders import Holders

        connection = self._sampler.connection
        nodes = {str(node["NodeID"]) for node in connection.nodes()}
        if self.holders is not None and nodes != self._nodes:
            self.close()
        if self.holders is None:
            self.holders, self._nodes = Holders(connection), nodes
        return self.holders

    def close(self) -> None:
        """End the processes that hold rows; a second call does nothing."""
        holders, self.holders = self.holders, None
        if holders is not None:
            holders.close()


def _refuse_columns(n: int, parts: Parts) -> None:
    def rows_at(numbers: NDArray[np.int64]) -> NDArray[Any]:
        return np.concatenate(parts.ask("seen", numbers))

    if takes_sums_of_columns(n, rows_at, parts):
        raise ValueError(
            "distribute_update: expected rows that differ in many numbers, got rows such as one-hots, "
            "which one process adds up in columns; set TRPO_FAST_FIRST_LAYER=dense, or leave it out"
        )


def parted_learning(sampler: Sampler, config: AgentConfig) -> PartedLearning | None:
    """What keeps the rows of batches on the nodes; None without ``distribute_update``.

    Parameters
    ----------
    sampler
        Of the agent.
    config
        Its settings.
    """
    if not config.distribute_update:
        return None
    from ..rollout.cluster import ClusterSampler

    assert isinstance(sampler, ClusterSampler)
    return PartedLearning(sampler)


def has_rows(rollout: Rollout) -> bool:
    """Whether the rows of a rollout are here.

    Parameters
    ----------
    rollout
        Of any sampler.
    """
    return bool(rollout.observations.shape[2])
