"""The agent that all methods share: environments in, a better policy out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import core, runtime
from ..config import AgentConfig, ValueConfig
from ..rollout import (
    Exclusive,
    Rollout,
    Sampler,
    available_cores,
    make_sampler,
    success_name,
)
from ..schedules import number_of
from ..seeds import Purpose, derive
from .acting import ActingAgent
from .advantages import generalized_advantages, no_values
from .batch import Batch
from .callbacks import Callback, CallbackList
from .closing import ClosableAgent
from .configured import Config, ConfiguredAgent
from .copying import CopyableAgent
from .notices import first_notices, require_memory, with_failure
from .parted_batch import has_rows, parted_learning
from .policy import Policy
from .record import EpisodeWindow, RecordWriters, iteration_record
from .stored_agent import StoredAgent
from .value_fitting import ValueFitting

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..envs import EnvSource
    from ..logging import Logger

__all__ = ["OnPolicyAgent"]


class OnPolicyAgent(
    ConfiguredAgent[Config], ActingAgent, StoredAgent, CopyableAgent, ClosableAgent, ABC
):
    """Sampling, advantages, value function, acting and files around one method's policy update.

    A method is a subclass with a ``config_type`` and an :meth:`improve_policy`; where its
    advantages or its sampling differ, it overrides :meth:`advantages` or :meth:`make_sampler`; a
    state of its own goes into files by :meth:`own_state` and :meth:`restore_own_state`.

    Parameters
    ----------
    env
        A Gymnasium id (``"module:Id-v0"`` imports the module first), an ``Env``, a callable that
        makes one, or a Gymnasium ``VectorEnv``. An ``Env`` is one environment and a ``VectorEnv`` as
        many as it holds, whatever ``n_envs`` says; ``batch_size`` stays what it is.
    config
        A complete configuration, instead of a preset.
    preset
        Name of a preset to start from, see :mod:`trpo_fast.presets`; its settings that the method
        does not have are left out.
    env_kwargs
        Keyword arguments of ``gymnasium.make``, where ``env`` is an id.
    **overrides
        Fields of the configuration; they win over ``config`` and ``preset``.

    Raises
    ------
    ValueError, TypeError
        With one sentence: an unknown environment, an unsupported space, a bad setting.
    """

    def __init__(
        self,
        env: EnvSource,
        *,
        config: AgentConfig | None = None,
        preset: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        self._config = settings = self.make_config(config, preset, overrides, env)
        if settings.n_threads is not None:
            runtime.set_num_threads(settings.n_threads)
        self.env_source = env
        self.env_kwargs = dict(env_kwargs or {})
        self.sampler = self.make_sampler()
        self.sampler.metric_names = settings.episode_metrics
        try:
            self._budget = self.sampler.budget(settings.sampling, settings.batch_size)
            if not settings.distribute_update:  # otherwise no machine has to hold a batch
                require_memory(self.sampler, settings, sum(self._budget.steps))
        except BaseException:
            self.sampler.close()
            raise
        self.env_name = self.sampler.name

        encoder, adapter = self.sampler.observation_encoder, self.sampler.action_adapter
        self.policy = core.Policy(
            encoder.dim,
            adapter.distribution,
            hidden_sizes=settings.hidden_sizes,
            activation=settings.activation,
            dtype=settings.dtype,
            initial_log_std=settings.initial_log_std,
            hidden_gain=settings.hidden_gain,
            output_gain=settings.policy_output_gain,
            seed=derive(settings.seed, Purpose.POLICY_WEIGHTS),
        )
        self.value_fitting = None
        if isinstance(settings, ValueConfig):
            self.value_fitting = ValueFitting(settings, encoder.dim)
        seed = derive(settings.seed, Purpose.PREDICTIONS)
        self.parted = parted_learning(self.sampler, settings)
        """Holds the rows of batches on the nodes of a cluster, with ``distribute_update``."""
        self.acting = Policy(self.policy, encoder, adapter, seed=seed, critic=self.value_fitting)
        self.acting.mask_source = self.sampler.mask_source
        self.observation_statistics = core.RunningStatistics(encoder.dim)
        self.episodes = EpisodeWindow()
        self.timesteps = 0
        """Environment steps taken."""
        self.iteration = 0
        """Updates made."""
        self.is_between_iterations = True
        """False while an interrupted iteration has changed the policy but not its counters: do not
        save then."""
        self.last_record: dict[str, Any] = {}
        """The numbers of the latest iteration by name."""
        self.elapsed_seconds = 0.0
        """Seconds of all iterations."""
        self.notice = first_notices(self.sampler, self.env_kwargs)
        self.learning = Exclusive("a call of learn")
        self._background: Executor  # runs the value fit; exists while learn runs
        self._callbacks: CallbackList | None = None  # those of learn, while it runs
        self._callback_state = CallbackList().state_dict()
        self.sampler.bind(self.policy, seed=settings.seed)

    def make_sampler(self) -> Sampler:
        """Open the environments."""
        kwargs = self.env_kwargs or None
        return make_sampler(self.env_source, env_kwargs=kwargs, **self.config.of_the_sampler)

    # ------------------------------------------------------------------------------------ training

    def learn(
        self,
        total_timesteps: int,
        *,
        callback: Callback | Callable[..., bool | None] | Iterable[Any] | None = None,
        progress: bool | None = None,
        loggers: Iterable[Logger] | None = None,
    ) -> Self:
        """Take ``total_timesteps`` more environment steps, in whole iterations, and learn from them.

        Parameters
        ----------
        total_timesteps
            Steps over all environments, at least 1; rounded up to whole batches.
        callback
            A :class:`~trpo_fast.callbacks.Callback`, a function ``(agent, record) -> bool | None``
            (``False`` stops), or several of them.
        progress
            Show a progress bar and a table on stderr, as plain lines where it is no terminal; by
            default only where it is one.
        loggers
            Receive one record (a flat dictionary) per iteration, and are closed at the end.

        Raises
        ------
        ValueError
            A NaN or infinite observation or reward, named with environment and step.
        EnvironmentFailure
            An environment raised. Everything up to the last iteration is kept.
        RuntimeError
            The agent is learning already, in another thread or because this is a callback of it.
        """
        total_timesteps = _whole_number("total_timesteps", total_timesteps)
        with self.learning.taken("learn"):
            return self._learn(total_timesteps, callback, progress, loggers)

    def _learn(
        self,
        total_timesteps: int,
        callback: Callback | Callable[..., bool | None] | Iterable[Any] | None,
        progress: bool | None,
        loggers: Iterable[Logger] | None,
    ) -> Self:
        goal = self.timesteps + total_timesteps
        self.begin_schedules(goal)
        self._callbacks = callbacks = CallbackList(callback)
        callbacks.load_state_dict(self._callback_state)
        on_step = partial(callbacks.on_step, self) if callbacks.wants_steps else None

        with (
            RecordWriters(progress, loggers, start=self.timesteps, goal=goal) as writers,
            ThreadPoolExecutor(1, "value fit") as self._background,
        ):
            callbacks.on_start(self, goal)
            if self.config.save_environments:
                self.sampler.prepare_states()
            try:
                while self.timesteps < goal:
                    started = time.perf_counter()
                    scheduled = self.scheduled_values()
                    with nullcontext() if self.parted is None else self.parted.keeping_rows():
                        rollout = self.collect(on_step)
                    self.is_between_iterations = False
                    # the result of the previous iteration's fit, which ran during this rollout
                    fit = self._finish_value_fit()
                    with runtime.fewer_threads(self._fit_threads):
                        batch = self.advantages(rollout)
                        update = self._improve(batch)
                    self._update_statistics(rollout, batch)
                    self.is_between_iterations = True
                    self.elapsed_seconds += time.perf_counter() - started

                    record = self.record(rollout, batch, update, fit, started)
                    record.update(scheduled)
                    try:
                        goes_on = callbacks.on_iteration(self, record)
                    except BaseException as error:
                        # The iteration counts and may be saved, so the log must have it as well.
                        writers.write(with_failure(record, error))
                        raise
                    writers.write(record)
                    callbacks.on_logged(self)
                    if goes_on is False:
                        break
            finally:
                self._finish_value_fit()
                callbacks.on_end(self)
                self.callback_state = callbacks.state_dict()
                self._callbacks = None
        return self

    @property
    def callback_state(self) -> dict[str, Any]:
        """The state of the callbacks of :meth:`learn`, kept for those of its next call."""
        return self._callback_state if self._callbacks is None else self._callbacks.state_dict()

    @callback_state.setter
    def callback_state(self, state: dict[str, Any]) -> None:
        self._callback_state = state

    def collect(self, on_step: Callable[[], object] | None = None) -> Rollout:
        """Sample one batch by the present policy; the environments go on from where they are.

        Nothing is learned from it and no timesteps are counted: :meth:`learn` does that.

        Parameters
        ----------
        on_step
            Called after every step of all environments.

        Raises
        ------
        RuntimeError
            It is learning in another thread.
        """
        self.learning.refuse_other_threads("collect")
        rollout = self.sampler.collect(self._budget, on_step=on_step)
        self.note_masks()
        return rollout

    def advantages(self, rollout: Rollout) -> Batch:
        """What to learn from: transitions with advantages and returns, in the units of the rewards.

        Generalised advantages; without a value function V is 0 and lambda 1, which leaves the
        Monte Carlo return of each step.

        Parameters
        ----------
        rollout
            What :meth:`collect` has returned.
        """
        fitting, now = self.value_fitting, self.current
        if self.parted is not None and not has_rows(rollout):
            assert fitting is not None
            assert isinstance(now, ValueConfig)
            return self.parted.batch(rollout, self.policy, fitting, now)
        return generalized_advantages(
            rollout,
            normalize=self.policy.normalize,
            values=no_values if fitting is None else fitting.predict,
            gamma=self.config.gamma,
            gae_lambda=number_of(now.lam) if isinstance(now, ValueConfig) else 1.0,
        )

    @abstractmethod
    def improve_policy(self, batch: Batch) -> core.UpdateSummary:
        """The method's policy update, in place.

        Parameters
        ----------
        batch
            What :meth:`advantages` has returned.
        """

    @property
    def update_seed(self) -> int:
        """The seed of what this iteration's policy update draws at random."""
        return derive(self.config.seed, Purpose.POLICY_UPDATE, step=self.iteration)

    def _improve(self, batch: Batch) -> core.UpdateSummary:
        """The policy update, and the start of the value fit, which does not depend on it.

        The fit's result is first needed for the next advantages, so it runs beside the policy
        update and the next rollout, or beside the rollout alone.
        """
        if self._fit_threads:
            self.start_value_fit(batch)
            return self.improve_policy(batch)
        update = self.improve_policy(batch)
        runtime.rest_threads()  # fit and rollout need the processors
        self.start_value_fit(batch)
        return update

    @property
    def fits_values(self) -> bool:
        """Whether a value function is fitted to the returns."""
        return self.value_fitting is not None

    @property
    def _fit_threads(self) -> int:
        """Core threads kept free for a fit that runs beside the policy update: 0 or 1.

        1 if the next rollout will fill all processors. Otherwise the fit waits for the rollout,
        where it has a processor for itself.
        """
        if self.value_fitting is None or not self.fits_values:
            return 0
        fills_machine = self.sampler.busy_cores >= available_cores()
        return int(self.value_fitting.config.overlap_value_fit and fills_machine)

    def start_value_fit(self, batch: Batch) -> None:
        """Regress V on the returns, see :meth:`ValueFitting.start`.

        Parameters
        ----------
        batch
            What :meth:`advantages` has returned; borrowed until the fit has ended.
        """
        now = self.current
        if self.value_fitting is not None and self.fits_values and isinstance(now, ValueConfig):
            self.value_fitting.start(
                batch,
                iteration=self.iteration,
                learning_rate=number_of(now.value_learning_rate),
                background=self._background,
            )

    def _finish_value_fit(self) -> core.FitSummary | None:
        return None if self.value_fitting is None else self.value_fitting.finish()

    @property
    def longest_episode(self) -> int:
        """Steps of the longest of the latest 100 training episodes, which evaluations allow too."""
        return int(max(self.episodes.lengths, default=0))

    @property
    def value_function(self) -> core.ValueFunction:
        """The value function; waits for a fit that is under way."""
        if self.value_fitting is None:
            raise AttributeError(f"{type(self).__name__} has no value function")
        return self.value_fitting.network

    def _update_statistics(self, rollout: Rollout, batch: Batch) -> None:
        """Merge the batch into the running statistics, frozen from here to the next update."""
        if self.config.normalize_observations:
            batch.add_observations(self.observation_statistics, rollout)
            self.freeze_normalizer()
        self.timesteps += rollout.n_transitions
        self.iteration += 1
        self.restarted_because = ""
        self.episodes.extend(rollout.episode_returns.tolist(), rollout.episode_lengths.tolist())
        self.episodes.extend_metrics(rollout.episode_metrics)
        self._name_what_is_not_told(len(rollout.episode_returns))

    def _name_what_is_not_told(self, ended: int) -> None:
        """Say once which metrics were asked for and found in no info of an episode's last step."""
        asked = (success_name(name) for name in self.config.episode_metrics if ended)
        missing = [name for name in asked if name not in self.episodes.metrics]
        if missing:
            self.say_once(
                f"episode_metrics: the info of {ended} last steps of episodes held no number under "
                f"{', '.join(missing)}"
            )

    def record(
        self,
        rollout: Rollout,
        batch: Batch,
        update: core.UpdateSummary,
        fit: core.FitSummary | None,
        started: float,
    ) -> dict[str, Any]:
        """What the user is told of an iteration that began at ``started`` (``time.perf_counter``).

        Parameters
        ----------
        rollout
            What was sampled.
        batch
            What was learned from.
        update
            What the policy update did.
        fit
            The value fit that ended in this iteration.
        started
            When it began, by ``time.perf_counter``.
        """
        record = iteration_record(
            rollout,
            batch,
            update,
            fit,
            policy=self.policy,
            episodes=self.episodes,
            iteration=self.iteration,
            timesteps=self.timesteps,
            seconds=time.perf_counter() - started,
            elapsed_seconds=self.elapsed_seconds,
        )
        self.say_once(runtime.thread_notice())
        if self.notice:
            record["run/notice"] = self.notice
            self.notice = ""
        self.last_record = record
        return record

    def __repr__(self) -> str:
        state = f"timesteps={self.timesteps}, iteration={self.iteration}"
        return f"{type(self).__name__}({self.env_name!r}, {state})"


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number of steps, got {type(value).__name__}.")
    if not (np.isfinite(value) and value >= 1 and float(value).is_integer()):
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value}.")
    return int(value)
