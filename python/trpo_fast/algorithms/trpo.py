"""Trust Region Policy Optimization (Schulman et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from .. import core
from ..config import TRPOConfig
from ..seeds import Purpose, derive
from ..training.agent import OnPolicyAgent
from ..training.batch import Batch
from ..training.remembered import RememberedStates
from ..training.signal import EVERY, SignalGuard, measured_signal
from ..training.trust_region import n_remembered, natural_step_options
from . import class_named

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..rollout import Rollout

__all__ = ["TRPO"]


class TRPO(OnPolicyAgent[TRPOConfig]):
    """Trust Region Policy Optimization (Schulman et al. 2015) with generalised advantages.

    >>> agent = TRPO("HalfCheetah-v5", seed=0)
    >>> agent.learn(1_000_000)
    >>> agent.evaluate(episodes=10).mean_return

    Arguments are those of :class:`~trpo_fast.training.agent.OnPolicyAgent`: ``env`` (a Gymnasium id,
    an ``Env``, a callable that makes one, or a ``VectorEnv``), ``config``, ``preset``, ``env_kwargs``,
    and the fields of :class:`TRPOConfig`.
    """

    config_type = TRPOConfig
    _latest: Rollout | None = None  # that the next update learns from, with remembered_states

    @cached_property
    def signal(self) -> SignalGuard:
        """What the latest batches said of noise, with ``signal_guard``."""
        return SignalGuard()

    @property
    def n_remembered(self) -> int:
        """The most states of earlier batches that an update covers, with ``remembered_states``."""
        return n_remembered(self.config, self.policy)

    @cached_property
    def remembered(self) -> RememberedStates:
        """States of earlier batches, with ``remembered_states``."""
        return RememberedStates(self.n_remembered)

    def advantages(self, rollout: Rollout) -> Batch:
        """Generalised advantages; with ``remembered_states`` the rollout is kept for the update."""
        if self.n_remembered:
            self._latest = rollout
        return super().advantages(rollout)

    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """Solve F x = g, step to the boundary, and search back along the line."""
        options = natural_step_options(self.current, self.policy, batch.observations)
        options.seed = self.update_seed
        if guard := self.config.signal_guard:
            # a share of noise leaves less of the radius
            if self.iteration % EVERY == 0:
                signal = measured_signal(self.policy, batch, self.sampler.n_envs, options)
                self.signal.absorb(signal, self.config.signal_memory)
            options.max_kl *= self.signal.factor(guard)
        if not self.n_remembered:
            return batch.update(self.policy, options)
        self.remembered.resize(self.n_remembered)  # batch_size may have changed
        # F and the KL also cover states of earlier batches; this one offers some of its own
        summary = batch.update(self.policy, options, **self.remembered.covered(self.policy))
        if self._latest is not None:
            seed = derive(self.config.seed, Purpose.REMEMBERED_STATES, step=self.iteration)
            self.remembered.absorb(self._latest, batch, seed)
            self._latest = None
        return summary

    def record(self, *args: Any) -> dict[str, Any]:
        """The numbers of every method, the share of signal and what is remembered, where they are."""
        record = super().record(*args)
        if self.n_remembered and self.remembered.observations is not None:
            record["policy/remembered_states"] = len(self.remembered.observations)
        if self.config.signal_guard:
            record["policy/signal_share"] = self.signal.share
        return record

    def own_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What is remembered of the share of signal, and of earlier states."""
        metadata: dict[str, Any] = {"signal": self.signal.state()}
        if not self.n_remembered:
            return {}, metadata
        tensors, metadata["remembered"] = self.remembered.state()
        return tensors, metadata

    def restore_own_state(
        self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> None:
        """Take over what is remembered of the share of signal and of states; early files have none."""
        self.signal.restore(metadata.get("signal", {}))
        if self.n_remembered:
            offered = metadata.get("remembered", {}).get("offered", 0)
            self.remembered.restore(tensors, offered, self.policy)

    @classmethod
    def written_by(cls, algorithm: str) -> type[Self]:
        """The class of that name: ``TRPO.load`` stands for the load of every method."""
        found = class_named(algorithm) if cls is TRPO else None
        return super().written_by(algorithm) if found is None else cast("type[Self]", found)
