"""A batch whose rows lie on the nodes of a cluster: what learns from it sees a `Batch`."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..core.parts import (
    PartsLost,
    ascend_parts,
    bounds_of_parts,
    takes_sums_of_columns,
    update_parts,
)
from ..core.value_parts import fit_parts
from ..schedules import number_of
from .batch import Batch
from .pairwise_sums import added, leaves_of, pairwise_ranges
from .parted_rows import Recipe, assembled, pieces_of, spans_of

if TYPE_CHECKING:
    from ..config import AgentConfig, ValueConfig
    from ..core.parts import Parts
    from ..rollout import Rollout, Sampler
    from ..rollout.cluster import ClusterSampler
    from ..rollout.cluster.beginning import Beginning
    from ..rollout.cluster.holders import Holders
    from .value_fitting import ValueFitting
    from .value_units import ValueUnits

T = TypeVar("T")

__all__ = ["PartedBatch", "PartedLearning", "parted_learning"]

_PART = "batch"  # what holders call it
_MOST_LOSSES = 5  # of one batch: then something else is at fault
_NARROW = 64  # entries of an observation below which rows are always dense


class PartedBatch(Batch):
    """A batch in parts; see `Batch` for what can be asked of it. Arrays of its rows are not here.

    Parameters
    ----------
    parts
        Of `BatchPart`.
    policy
        Whose observations they hold.
    again
        Makes the parts again where one is lost, to the same bits; None: nobody can.
    """

    def __init__(
        self, parts: Parts, policy: core.Policy, again: Callable[[], Parts] | None = None
    ) -> None:
        self.parts, self._again, self._losses = parts, again, 0
        self.observations = np.empty((0, policy.obs_dim), policy.dtype)  # for nobody but options

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name}: the rows of this batch lie on the nodes of a cluster, and none of them here; "
            "leave out distribute_update to have them"
        )

    def _asking(self, work: Callable[[], T]) -> T:
        """Do something with the parts, from the start again where one of them is lost."""
        while True:
            try:
                return work()
            except PartsLost as lost:
                self._bring_back(lost)

    def _bring_back(self, lost: PartsLost) -> None:
        if lost.parts is not None and lost.parts is not self.parts:
            return  # the loss was noticed before, by somebody else
        self._losses += 1
        if self._again is None or self._losses > _MOST_LOSSES:
            raise lost
        self.parts = self._again()

    def update(
        self, policy: core.Policy, options: core.TrustRegionOptions, **settings: Any
    ) -> core.UpdateSummary:
        """The update of `Batch.update`, by sums of the parts.

        Parameters
        ----------
        policy, options, **settings
            As there.
        """
        return self._asking(lambda: update_parts(policy, self.parts, options, **settings))

    def ascend(self, policy: core.Policy, **settings: Any) -> core.UpdateSummary:
        """The one step of `Batch.ascend` on all rows, by sums of the parts.

        Parameters
        ----------
        policy, **settings
            As there.
        """
        return self._asking(lambda: ascend_parts(policy, self.parts, **settings))

    def refuse_columns(self) -> None:
        """Raise ValueError for rows of which one process would take sums of columns."""

        def rows_at(numbers: NDArray[np.int64]) -> NDArray[Any]:
            return np.concatenate(self.parts.ask("seen", numbers))

        def in_columns() -> bool:
            return takes_sums_of_columns(self.parts.bounds[-1], rows_at, self.parts)

        if self._asking(in_columns):
            raise ValueError(
                "distribute_update: expected rows that differ in many numbers, got rows such as "
                "one-hots, which one process adds up in columns; set TRPO_FAST_FIRST_LAYER=dense, or "
                "leave it out"
            )

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
        units.settle(self._farthest_return, value_function, is_first)

    def _farthest_return(self, center: float) -> float:
        return float(self._asking(lambda: max(self.parts.ask("farthest_return", center))))

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
        mean, scale = units.mean, units.scale

        def fit(**settings: Any) -> core.FitSummary:
            self.parts.ask("aim", mean, scale)
            return fit_parts(value_function, self.parts, **settings)

        def fit_beside(**settings: Any) -> core.FitSummary:
            """In whatever thread; one that has everything brings lost rows back."""
            try:
                return fit(**settings)
            except PartsLost as lost:
                first = lost

                def retry() -> core.FitSummary:
                    self._bring_back(first)
                    return self._asking(lambda: fit(**settings))

                lost.retry = retry
                raise

        return fit_beside

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

    def given_states(
        self, rollout: Rollout, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As of `Batch`: the parts are asked for these rows.

        Parameters
        ----------
        rollout
            Not used: its rows are not here.
        numbers
            As there.
        """
        order = np.argsort(numbers)
        came = self._asking(lambda: self.parts.ask("given", numbers[order]))
        observations, masks = (np.concatenate(arrays) for arrays in zip(*came, strict=True))
        back = np.argsort(order)
        return observations[back], masks[back]

    def _add_rows(self, name: str, statistics: core.RunningStatistics) -> None:
        def added() -> dict[str, NDArray[Any]]:
            state, pending = statistics.state_dict(), None
            last = len(self.parts.bounds) - 2
            for part in range(last + 1):
                asked = (name, state, pending, part == last)
                state, pending = self.parts.ask_one(part, "add_rows", *asked)
            return state

        statistics.load_state_dict(self._asking(added))

    def explained_variance(self) -> float:
        """See `record.explained_variance`: the same number, of sums of ranges of rows."""
        return self._asking(self._explained_variance)

    def _explained_variance(self) -> float:
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
        leaves = leaves_of(tree)
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
        return added(tree, sums)


@dataclass(frozen=True)
class _MadeOf:
    """What the parts of a batch are made of, once more where some are lost."""

    began: Beginning  # the rollout
    valid: NDArray[np.bool_]  # (T, E)
    published: Any  # reference of the recipe
    n_parameters: tuple[int, ...]  # of the networks that the rows go through


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
            Actors or nodes are lost again and again, or one whose environments' states are not known.
        ValueError
            Rows of which one process would take sums of columns.
        """
        network, began = fitting.network, self._sampler.latest
        assert began is not None
        recipe = Recipe(
            policy,
            network,
            mean=fitting.units.mean,
            scale=fitting.units.scale,
            gamma=now.gamma,
            gae_lambda=number_of(now.lam),
        )
        published = self._sampler.connection.ray.put(recipe)
        sizes = policy.n_parameters, network.n_parameters
        made_of = _MadeOf(began, rollout.valid, published, sizes)
        batch = PartedBatch(
            self._brought(made_of), policy, again=lambda: self._brought(made_of, after_loss=True)
        )
        if policy.obs_dim >= _NARROW:
            batch.refuse_columns()
        return batch

    def _brought(self, made_of: _MadeOf, after_loss: bool = False) -> Parts:
        """Rows of a rollout on the nodes; those that are lost are made again."""
        for losses in itertools.count(1):
            try:
                if after_loss:
                    self.close()  # which of the holders are there still is not asked
                self._sampler.bring_back(made_of.began, looks=after_loss)
                return self._bring(made_of)
            except PartsLost:
                if losses > _MOST_LOSSES:
                    raise
                # A node that is gone may be taken to be alive for some seconds.
                time.sleep(min(5.0, 0.1 * 3**losses))
                after_loss = True
        raise AssertionError

    def _bring(self, made_of: _MadeOf) -> Parts:
        from ..rollout.cluster.holders import RayParts

        n, holders = int(made_of.valid.sum()), self._on_the_nodes()
        bounds = bounds_of_parts(n, len(holders), *made_of.n_parameters)
        spans = spans_of(made_of.valid, bounds)
        pieces = self._sampler.cut(pieces_of, len(spans), spans, made_of.published)
        arguments = [
            (_PART, assembled, first, n, span, made_of.published, *(own[i] for own in pieces))
            for i, (first, span) in enumerate(zip(bounds[:-1], spans, strict=True))
        ]
        for number in range(len(spans), len(holders)):  # they held rows of a longer batch
            holders.ask_one(number, "forget", _PART)
        holders.ask_each("make", arguments)
        return RayParts(holders, _PART, bounds)

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
