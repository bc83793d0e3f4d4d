"""The value function of an agent: its unit, its predictions, and its fit beside other work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import ValueConfig
from ..core.parts import PartsLost
from ..seeds import Purpose, derive
from .batch import Batch
from .moments import entries, moments_of, restore_moments
from .value_units import ValueUnits


class ValueFitting:
    """A value function, and the fit to the returns of each batch.

    The network predicts returns in a unit that follows them, see
    :class:`~trpo_fast.training.value_units.ValueUnits`.

    Parameters
    ----------
    config
        Settings of the network and of its fit; may be replaced between two fits.
    obs_dim
        O, width of an observation.
    """

    def __init__(self, config: ValueConfig, obs_dim: int) -> None:
        self.config = config
        self.units = ValueUnits()
        """Translates between outputs of the network and rewards."""
        self.last_fit: core.FitSummary | None = None
        """Summary of the latest fit that has ended."""
        self._under_way: Future[core.FitSummary] | _Deferred | None = None
        self._lacks_thread = False
        self._network = core.ValueFunction(
            obs_dim,
            hidden_sizes=config.value_hidden_sizes,
            activation=config.value_activation,
            dtype=config.dtype,
            hidden_gain=config.hidden_gain,
            output_gain=config.value_output_gain,
            seed=derive(config.seed, Purpose.VALUE_WEIGHTS),
        )

    @property
    def network(self) -> core.ValueFunction:
        """The value function; waits for a fit that is under way."""
        self.finish()
        return self._network

    def predict(self, observations: NDArray[Any]) -> NDArray[np.float64]:
        """V (N,) of normalised observations (N, O), in the units of the rewards.

        Parameters
        ----------
        observations
            Shape (N, O), dtype of the networks.
        """
        return self.units.to_rewards(self.network.predict(observations))

    def start(
        self, batch: Batch, *, iteration: int, learning_rate: float, background: Executor
    ) -> None:
        """Regress V on the returns of a batch.

        Parameters
        ----------
        batch
            Its observations and returns; both are borrowed until the fit has ended.
        iteration
            Updates made before, which decides the order of the minibatches.
        learning_rate
            Step size of Adam, positive.
        background
            Runs the fit with ``overlap_value_fit``; otherwise :meth:`finish` does.
        """
        config = self.config
        if config.scale_returns:
            batch.absorb_returns(self.units, self._network)
        fit = partial(
            batch.fit_of(self.units, self._network),
            method=config.value_optimizer,
            epochs=config.value_epochs,
            minibatch_size=config.value_minibatch_size,
            learning_rate=learning_rate,
            iterations=config.value_lbfgs_iterations,
            seed=derive(config.seed, Purpose.VALUE_FIT, step=iteration),
        )
        # The core releases the GIL for all of the fit, so a thread is enough to run it beside.
        self._under_way = _Deferred(fit)
        if config.overlap_value_fit and not self._lacks_thread:
            try:
                self._under_way = background.submit(fit)
            except RuntimeError:
                # The system refuses one more thread. What was submitted is never run: it waits for a
                # thread of that executor, and nothing is submitted to it any more.
                self._lacks_thread = True

    def finish(self) -> core.FitSummary | None:
        """Wait for the fit under way, if there is one; return the summary of the latest fit."""
        if self._under_way is not None:
            fit, self._under_way = self._under_way, None
            try:
                self.last_fit = fit.result()
            except PartsLost as lost:
                if lost.retry is None:
                    raise
                self.last_fit = lost.retry()
        return self.last_fit

    # ---- state

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Parameters, moments of Adam where it has made a step, and statistics of the returns."""
        statistics = self.units.statistics.state_dict()
        return {
            "value_function": self.network.parameters,
            **{f"return_statistics.{name}": array for name, array in statistics.items()},
            **moments_of(self.network, "value_optimizer"),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        """Take over what :meth:`tensors` returned, and unit and last fit as JSON holds them.

        Parameters
        ----------
        tensors
            All arrays of a file.
        metadata
            All entries of a file.
        """
        self.network.parameters = tensors["value_function"]
        restore_moments(self.network, "value_optimizer", tensors)
        self.units.restore(
            entries(tensors, "return_statistics"),
            mean=float(metadata.get("value_mean", 0.0)),  # earlier files were not centred
            scale=float(metadata["value_scale"]),
        )
        self.last_fit = _stored_fit(metadata.get("value_fit"))  # earlier files have none


class _Deferred:
    """A fit that is made where its result is waited for."""

    def __init__(self, fit: Callable[[], core.FitSummary]) -> None:
        self.result = fit


def _stored_fit(entry: Mapping[str, Any] | None) -> core.FitSummary | None:
    """The summary of a value fit that a checkpoint holds."""
    if entry is None:
        return None
    status = entry["status"]
    if status not in ("ok", "non_finite"):
        raise ValueError(f"value_fit: expected the status ok or non_finite, got {status!r:.80}")
    return core.FitSummary(
        status=status,
        message=str(entry["message"]),
        loss_before=float(entry["loss_before"]),
        loss_after=float(entry["loss_after"]),
        steps=int(entry["steps"]),
        seconds=float(entry["seconds"]),
    )
