"""The agent: Trust Region Policy Optimization, environments in, a better policy out."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import core, runtime
from .._version import __version__
from ..checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ..config import TRPOConfig
from ..envs import describe_spaces, spaces_mismatch
from ..presets import find_preset
from ..rollout import Rollout, Sampler, available_cores, make_sampler
from .callbacks import Callback, CallbackList

if TYPE_CHECKING:
    from ..envs import EnvSource
    from ..logging import Logger
    from .episodes import EvaluationResult

__all__ = ["TRPO"]

# what TRPO.load may find in a checkpoint: the classes and where they live
ALGORITHMS = {
    "VineTRPO": "trpo_fast.algorithms.vine",
    "SinglePathTRPO": "trpo_fast.algorithms.single_path",
    "NPG": "trpo_fast.algorithms.npg",
    "VPG": "trpo_fast.algorithms.vpg",
    "KLPenalty": "trpo_fast.algorithms.kl_penalty",
}

# prefixes of environment ids that a checkpoint may name without being asked
KNOWN_ENVIRONMENT_MODULES = ("ale_py", "envpool", "gymnasium")

EPISODE_WINDOW = 100  # episodes behind rollout/episode_return

# purposes of random streams that are derived from the one seed of a run
_POLICY, _VALUE, _FISHER, _SHUFFLE, _PREDICT = range(5)


def _derived_seed(seed: int, purpose: int, iteration: int = 0) -> int:
    sequence = np.random.SeedSequence([seed, purpose, iteration])
    return int(sequence.generate_state(1, np.uint64)[0])


class TRPO:
    """Trust Region Policy Optimization (Schulman et al. 2015) with generalised advantages.

    >>> agent = TRPO("HalfCheetah-v5", seed=0)
    >>> agent.learn(1_000_000)
    >>> agent.evaluate(episodes=10).mean_return

    Parameters
    ----------
    env
        A Gymnasium id (``"module:Id-v0"`` imports the module first), an ``Env``, a callable that
        makes one, or a Gymnasium ``VectorEnv``. An ``Env`` is one environment and a ``VectorEnv`` as
        many as it holds, whatever ``n_envs`` says; ``batch_size`` stays what it is.
    config
        A complete :class:`TRPOConfig`, instead of a preset.
    preset
        Name of a preset to start from, see :mod:`trpo_fast.presets`.
    env_kwargs
        Keyword arguments of ``gymnasium.make``, where ``env`` is an id.
    overrides
        Fields of :class:`TRPOConfig`; they win over ``config`` and ``preset``.

    Raises
    ------
    ValueError, TypeError
        With one sentence: an unknown environment, an unsupported space, a bad setting.
    """

    def __init__(
        self,
        env: EnvSource,
        *,
        config: TRPOConfig | None = None,
        preset: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        self.config = config = self._resolve_config(config, preset, overrides, env)
        if config.n_threads is not None:
            runtime.set_num_threads(config.n_threads)

        self.sampler: Sampler = make_sampler(
            env,
            n_envs=config.n_envs,
            dtype=config.dtype,
            state_dependent_std=config.state_dependent_std,
            env_kwargs=env_kwargs,
            n_workers=config.n_workers,
            worker_timeout=config.worker_timeout,
            restart_crashed_environments=config.restart_crashed_environments,
        )
        self.env_name = self.sampler.name
        self._env_source = env
        self._env_kwargs = dict(env_kwargs or {})
        self._encoder = self.sampler.observation_encoder
        self._adapter = self.sampler.action_adapter
        self._to_env = self._adapter.step_converter(1, config.dtype)
        try:
            self._budget = self.sampler.budget(config.sampling, config.batch_size)
        except ValueError:
            self.sampler.close()
            raise

        self.policy = core.Policy(
            self._encoder.dim,
            self._adapter.distribution,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            dtype=config.dtype,
            initial_log_std=config.initial_log_std,
            hidden_gain=config.hidden_gain,
            output_gain=config.policy_output_gain,
            seed=_derived_seed(config.seed, _POLICY),
        )
        self._value_function = core.ValueFunction(
            self._encoder.dim,
            hidden_sizes=config.value_hidden_sizes,
            activation=config.value_activation,
            dtype=config.dtype,
            hidden_gain=config.hidden_gain,
            output_gain=config.value_output_gain,
            seed=_derived_seed(config.seed, _VALUE),
        )
        self.observation_statistics = core.RunningStatistics(self._encoder.dim)
        self.return_statistics = core.RunningStatistics(1)
        self.value_scale = 1.0  # reward units per unit of the value network's output
        self.timesteps = 0  # environment steps taken
        self.iteration = 0  # updates made
        self.is_between_iterations = True  # False: interrupted, policy ahead of its statistics
        self.last_record: dict[str, Any] = {}
        self._episode_returns: deque[float] = deque(maxlen=EPISODE_WINDOW)
        self._episode_lengths: deque[float] = deque(maxlen=EPISODE_WINDOW)
        self._elapsed_seconds = 0.0
        self._schedule_end = 0  # timesteps at which a learning-rate schedule ends
        self._predictions = 0
        self._predict_seed = _derived_seed(config.seed, _PREDICT)
        self._notice = ""  # for the next record
        self._unsaved_environments = ""
        self._background: Executor  # while learn runs
        self._value_fit: Future[core.FitSummary] | _Deferred | None = None  # under way
        self._last_value_fit: core.FitSummary | None = None
        self._callbacks = CallbackList()
        self._callback_state: dict[str, Any] = {}
        self.sampler.bind(self.policy, seed=config.seed)

    config_type: ClassVar[type[TRPOConfig]] = TRPOConfig

    @classmethod
    def _resolve_config(
        cls, config: TRPOConfig | None, preset: str | None, overrides: dict[str, Any], env: Any
    ) -> TRPOConfig:
        """A configuration or a preset, the fields given beside it, and defaults for the rest."""
        if config is not None and preset is not None:
            raise ValueError("config, preset: expected one of them, got both; drop one.")
        values: dict[str, Any] = {} if config is None else config.to_dict()
        if preset is not None:
            values = find_preset(preset).settings_for(env if isinstance(env, str) else None)
        return cls.config_type.from_dict({**values, **overrides})

    # ------------------------------------------------------------------------------------ training

    def learn(
        self,
        total_timesteps: int,
        *,
        callback: Callback | Callable[..., bool | None] | Iterable[Any] | None = None,
        progress: bool | None = None,
        loggers: Iterable[Logger] | None = None,
    ) -> TRPO:
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
        """
        total_timesteps = _whole_number("total_timesteps", total_timesteps)
        goal = self.timesteps + total_timesteps
        self._schedule_end = goal
        callbacks = CallbackList(callback)
        callbacks.load_state_dict(self._callback_state)
        self._callbacks = callbacks
        on_step = partial(callbacks.on_step, self) if callbacks.wants_steps else None

        with (
            _Console(progress, loggers, start=self.timesteps, goal=goal) as console,
            ThreadPoolExecutor(1, "value fit") as self._background,
        ):
            callbacks.on_start(self, goal)
            try:
                while self.timesteps < goal:
                    started = time.perf_counter()
                    rollout = self.sampler.collect(self._budget, on_step=on_step)
                    self.is_between_iterations = False
                    fit = self._finish_value_fit()  # of the batch before, made meanwhile
                    with runtime.fewer_threads(self._fit_threads):
                        batch = self._advantages(rollout)
                        update = self._improve(batch)
                    self._update_statistics(rollout)
                    self.is_between_iterations = True
                    self._elapsed_seconds += time.perf_counter() - started

                    record = self._record(rollout, batch, update, fit, started)
                    goes_on = callbacks.on_iteration(self, record)
                    console.write(record)
                    callbacks.on_logged(self)
                    if goes_on is False:
                        break
            finally:
                self._finish_value_fit()
                callbacks.on_end(self)
                self._callback_state = callbacks.state_dict()
        return self

    def _advantages(self, rollout: Rollout) -> _Batch:
        """V of every state and true successor, then A by GAE, in the units of the rewards."""
        T, E = rollout.rewards.shape
        observations = self.policy.normalize(rollout.observations.reshape(T * E, -1))
        values = self._values(observations).reshape(T, E)

        # V(s_{t+1}): the next row, the state after the last one, the true end of what was cut off
        next_values = np.empty_like(values)
        next_values[:-1] = values[1:]
        next_values[-1] = self._values(self.policy.normalize(rollout.last_observations))
        if len(rollout.final_observations):
            t, e = rollout.final_indices.T
            next_values[t, e] = self._values(self.policy.normalize(rollout.final_observations))

        # the recursion restarts where an environment has stopped before others: padding follows
        valid, truncated = rollout.valid, rollout.truncated
        if not valid.all():
            truncated = truncated.copy()
            truncated[:-1] |= valid[:-1] & ~valid[1:] & ~rollout.terminated[:-1]
        advantages, returns = core.gae(
            rollout.rewards,
            values,
            next_values,
            rollout.terminated,
            truncated,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        actions = rollout.actions.reshape(T * E, -1)
        flat = (observations, actions, advantages.ravel(), returns.ravel(), values.ravel())
        if not valid.all():  # autoresets and padding are no transitions
            keep = valid.ravel()
            flat = tuple(array[keep] for array in flat)  # type: ignore[assignment]
        return _Batch(*flat)

    def _values(self, observations: Any) -> NDArray[np.float64]:
        """V(s) in the units of the rewards, (N,)."""
        return self.value_function.predict(observations).astype(np.float64) * self.value_scale

    def _improve(self, batch: _Batch) -> core.UpdateSummary:
        """The trust-region step, and the start of the value fit, which needs nothing of it."""
        if self._fit_threads:
            self._start_value_fit(batch)
            return self._improve_policy(batch)
        update = self._improve_policy(batch)
        runtime.rest_threads()  # fit and rollout need the processors
        self._start_value_fit(batch)
        return update

    def _improve_policy(self, batch: _Batch) -> core.UpdateSummary:
        """The trust-region step."""
        return self.policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            normalized=True,
            **self._update_settings(),
            **self._line_search_settings(),
        )

    def _update_settings(self) -> dict[str, Any]:
        """What the configuration says of direction and length of a step."""
        config = self.config
        # a mean over A action dimensions is the sum with delta and lambda times A
        per_dimension = (
            config.kl_convention == "mean_over_action_dimensions"
            and not self.policy.distribution.is_discrete
        )
        factor = self.policy.distribution.action_dim if per_dimension else 1
        return {
            "max_kl": config.max_kl * factor,
            "cg_iterations": config.cg_iterations,
            "cg_tolerance": config.cg_tolerance,
            "cg_damping": config.cg_damping * factor,
            "fisher": config.fisher,
            "cg_preconditioner": config.cg_preconditioner,
            "fisher_fraction": config.fisher_fraction,
            "standardize_advantages": config.standardize_advantages,
            "seed": _derived_seed(config.seed, _FISHER, self.iteration),
        }

    def _line_search_settings(self) -> dict[str, Any]:
        """What the configuration says of the line search."""
        return {
            "constraint": self.config.kl_constraint,
            "backtrack_ratio": self.config.backtrack_ratio,
            "max_backtracks": self.config.max_backtracks,
        }

    @property
    def _fit_threads(self) -> int:
        """Threads that the value fit takes from the policy update: minibatches are work for one.

        None where the next rollout leaves a processor idle, which the fit then has for itself.
        """
        fills_machine = self.sampler.busy_cores >= available_cores()
        return int(self.config.overlap_value_fit and fills_machine)

    def _start_value_fit(self, batch: _Batch) -> None:
        """Regress V on the returns, in units of their running standard deviation.

        The result is first needed for the next advantages, so the fit runs beside the policy update
        and the next rollout, or the rollout alone, see ``_improve``.
        """
        config = self.config
        if config.scale_returns:
            self.return_statistics.update(batch.returns[:, np.newaxis])
            deviation = float(np.sqrt(self.return_statistics.variance[0]))
            self.value_scale = deviation if deviation > 0.0 else 1.0
        rate = config.value_learning_rate
        if config.value_learning_rate_schedule == "linear":
            rate *= max(0.0, 1.0 - self.timesteps / max(1, self._schedule_end))
        fit = partial(
            self._value_function.fit,
            batch.observations,
            batch.returns / self.value_scale,
            method=config.value_optimizer,
            epochs=config.value_epochs,
            minibatch_size=config.value_minibatch_size,
            learning_rate=rate,
            iterations=config.value_lbfgs_iterations,
            seed=_derived_seed(config.seed, _SHUFFLE, self.iteration),
        )
        # the core releases the GIL for all of it
        overlaps = config.overlap_value_fit
        self._value_fit = self._background.submit(fit) if overlaps else _Deferred(fit)

    def _finish_value_fit(self) -> core.FitSummary | None:
        """Wait for the value fit under way, if there is one; the summary of the last one made."""
        if self._value_fit is not None:
            fit, self._value_fit = self._value_fit, None
            self._last_value_fit = fit.result()
        return self._last_value_fit

    @property
    def value_function(self) -> core.ValueFunction:
        """The value function; waits for a fit that is under way."""
        self._finish_value_fit()
        return self._value_function

    def _update_statistics(self, rollout: Rollout) -> None:
        """Merge the batch into the running statistics, frozen from here to the next update."""
        if self.config.normalize_observations:
            rows = rollout.observations.reshape(-1, self.observation_statistics.dim)
            if not rollout.valid.all():
                rows = rows[rollout.valid.ravel()]
            self.observation_statistics.update(rows)
            self._freeze_normalizer()
        self.timesteps += rollout.n_transitions
        self.iteration += 1
        self._episode_returns.extend(rollout.episode_returns.tolist())
        self._episode_lengths.extend(rollout.episode_lengths.tolist())

    def _freeze_normalizer(self) -> None:
        if self.config.normalize_observations and self.observation_statistics.count > 0:
            statistics = self.observation_statistics
            self.policy.set_normalizer(
                statistics.mean, statistics.variance, clip=self.config.observation_clip
            )

    def _record(
        self,
        rollout: Rollout,
        batch: _Batch,
        update: core.UpdateSummary,
        fit: core.FitSummary | None,
        started: float,
    ) -> dict[str, Any]:
        """What the user is told of an iteration. The value fit is that of the batch before."""
        record: dict[str, Any] = {
            "time/iteration": self.iteration,
            "time/timesteps": self.timesteps,
            "time/steps_per_second": rollout.n_transitions / (time.perf_counter() - started),
            "time/elapsed_seconds": self._elapsed_seconds,
            "time/rollout_seconds": rollout.seconds,
            "time/update_seconds": update.seconds_total,
            "time/value_fit_seconds": 0.0 if fit is None else fit.seconds,
            "rollout/steps": rollout.n_transitions,
            "rollout/episodes": len(rollout.episode_returns),
            "policy/status": update.status,
            "policy/message": update.message,
            "policy/kl": update.kl,
            "policy/kl_predicted": update.kl_predicted,
            "policy/max_kl": update.max_kl,
            "policy/surrogate_gain": update.surrogate_gain,
            "policy/surrogate_gain_predicted": update.surrogate_gain_predicted,
            "policy/gradient_norm": update.gradient_norm,
            "policy/step_norm": update.step_norm,
            "policy/cg_iterations": update.cg_iterations,
            "policy/cg_residual": update.cg_relative_residual,
            "policy/backtracks": update.backtracks,
            "policy/entropy": update.entropy,
            "value/explained_variance": _explained_variance(batch.values, batch.returns),
        }
        if fit is not None:
            record["value/status"] = fit.status
            record["value/loss_before"] = fit.loss_before
            record["value/loss_after"] = fit.loss_after
        if self._episode_returns:
            record["rollout/episode_return"] = float(np.mean(self._episode_returns))
            record["rollout/episode_length"] = float(np.mean(self._episode_lengths))
        if self.policy.distribution.kind == "gaussian":
            where, _ = self.policy.parameter_layout["log_std"]
            record["policy/std"] = float(np.exp(self.policy.parameters[where]).mean())
        if rollout.crashes:
            record["rollout/crashes"] = len(rollout.crashes)
            record["run/notice"] = rollout.crashes[-1]
        if self._notice:
            record["run/notice"] = self._notice
            self._notice = ""
        self.last_record = record
        return record

    # -------------------------------------------------------------------------------------- acting

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, None]:
        """Action for one observation, or actions for a batch: ``(action, None)``.

        The signature is that of Stable-Baselines3; ``state`` and ``episode_start`` are not used. The
        action is what the environment's ``step`` takes: clipped, in the space's shape and dtype.
        """
        if self._encoder.is_plain:
            action = self.policy.act_one(
                observation,
                deterministic=deterministic,
                seed=self._predict_seed,
                step=self._predictions,
            )
            if action is not None:
                self._predictions += not deterministic
                return self._to_env(action)[0], None
        rows, is_batch = self._encoder.encode_any(observation)
        if not np.isfinite(rows).all():
            raise ValueError("observation: expected finite numbers, got NaN or infinity.")
        if deterministic:
            actions = self.policy.act(rows, deterministic=True)
        else:
            steps = np.full(len(rows), self._predictions, np.uint64)
            actions = self.policy.act(rows, seed=self._predict_seed, steps=steps)
            self._predictions += 1
        return self._adapter.to_env(actions) if is_batch else self._to_env(actions)[0], None

    def evaluate(
        self,
        episodes: int = 10,
        *,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
    ) -> EvaluationResult:
        """Run whole episodes in environments of their own; training is not touched.

        See :func:`~trpo_fast.evaluation.evaluate_policy`. ``env`` defaults to another copy of the
        training environment (an id or a factory can be made again; an ``Env`` that Gymnasium did not
        make cannot, so pass one).
        """
        from .evaluation import evaluate_policy

        return evaluate_policy(self, env, episodes, deterministic=deterministic, seed=seed)

    @property
    def evaluation_workers(self) -> Any:
        """The sampler whose workers share the episodes of an evaluation; None without workers."""
        return self.sampler if self.sampler.n_workers else None

    def evaluation_environment(self, render_mode: str | None = None) -> Callable[[], Any]:
        """A callable that makes an environment like those of training.

        Raises
        ------
        ValueError
            if the environment was given as an object that Gymnasium did not make.
        """
        from ..envs import copy_environment, maker_of

        source = self._env_source
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        if isinstance(source, str):
            return partial(copy_environment, source, **{**self._env_kwargs, **rendering})
        make = maker_of(source)
        if make is not None:
            return partial(make, **rendering)
        if callable(source):
            return source
        raise ValueError(
            f"evaluate: the environment {self.env_name} was given as an object and cannot be made "
            "again; pass env= with another copy of it."
        )

    # --------------------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a checkpoint: safetensors with JSON inside, durable, no code in it."""
        return save_checkpoint(path, self.state_tensors(), self.state_metadata())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvSource | None = None,
        *,
        n_workers: int | None = None,
        n_threads: int | None = None,
    ) -> TRPO:
        """Read a checkpoint; ``env`` defaults to the id that it was trained on.

        Training goes on bit for bit where the environments' state could be saved, and with new
        episodes where not: the next record says so. ``n_workers`` and ``n_threads`` belong to the
        machine, not to the run, so they may change.

        Raises
        ------
        CheckpointError
            A damaged or foreign file, or one of other spaces than the environment has.
        """
        tensors, metadata = load_checkpoint(path)
        machine = {"n_workers": n_workers, "n_threads": n_threads}
        machine = {name: value for name, value in machine.items() if value is not None}
        return cls.from_state(tensors, metadata, env=env, **machine)

    def state_tensors(self) -> dict[str, NDArray[Any]]:
        """Every array of the agent's state by name."""
        groups: dict[str, Mapping[str, NDArray[Any]]] = {
            "observation_statistics": self.observation_statistics.state_dict(),
            "return_statistics": self.return_statistics.state_dict(),
            "value_optimizer": self.value_function.optimizer_state(),
            "sampler": self._sampler_state(),
        }
        return {
            "policy": self.policy.parameters,
            "value_function": self.value_function.parameters,
            "episode_returns": np.array(self._episode_returns, np.float64),
            "episode_lengths": np.array(self._episode_lengths, np.float64),
            **{
                f"{group}.{name}": array
                for group, arrays in groups.items()
                for name, array in arrays.items()
            },
        }

    def _sampler_state(self) -> dict[str, NDArray[Any]]:
        """Counters, and the environments themselves where their state can be saved."""
        from ..snapshots import SnapshotError

        state = dict(self.sampler.state_dict())
        try:
            state.update(self.sampler.environment_state())
            self._unsaved_environments = ""
        except SnapshotError as error:
            self._unsaved_environments = str(error)
        return state

    def state_metadata(self) -> dict[str, Any]:
        """The rest of the agent's state, as JSON can hold it."""
        fit = self._finish_value_fit()
        return {
            "algorithm": type(self).__name__,
            "config": self.config.to_dict(),
            "env": self.env_name,
            "env_kwargs": self._env_kwargs,
            "spaces": describe_spaces(self._encoder.space, self._adapter.space),
            "n_envs": self.sampler.n_envs,
            "timesteps": self.timesteps,
            "iteration": self.iteration,
            "value_scale": self.value_scale,
            "value_fit": None if fit is None else asdict(fit),
            "elapsed_seconds": self._elapsed_seconds,
            "predictions": self._predictions,
            "callbacks": self._callbacks.state_dict(),
            "unsaved_environments": self._unsaved_environments,
            "versions": {"trpo_fast": __version__, "numpy": np.__version__},
            "simd_level": runtime.simd_level(),
        }

    @classmethod
    def from_state(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
        env: EnvSource | None = None,
        **overrides: Any,
    ) -> TRPO:
        """Rebuild an agent from what :meth:`state_tensors` and :meth:`state_metadata` gave."""
        try:
            algorithm = str(metadata["algorithm"])
            if algorithm != cls.__name__:
                return cls._written_by(algorithm).from_state(tensors, metadata, env, **overrides)
            config = cls.config_type.from_saved(metadata["config"]).replace(**overrides)
            source = _trusted_id(metadata["env"]) if env is None else env
            kwargs = metadata["env_kwargs"] if isinstance(source, str) else None
            if kwargs is not None and not isinstance(kwargs, dict):
                raise CheckpointError(
                    f"checkpoint: expected a dictionary as env_kwargs, got {kwargs!r:.80}; was it "
                    "written by trpo_fast?"
                )
            agent = cls(source, config=config, env_kwargs=kwargs)
        except KeyError as error:
            raise CheckpointError(
                f"checkpoint: expected an entry {error}, got none; was it written by trpo_fast?"
            ) from None
        try:
            mismatch = spaces_mismatch(
                metadata["spaces"], describe_spaces(agent._encoder.space, agent._adapter.space)
            )
            if mismatch is not None:
                raise CheckpointError(f"checkpoint: {mismatch}")
            agent._restore(tensors, metadata)
        except BaseException as error:
            agent.close()
            if isinstance(error, CheckpointError) or not isinstance(error, Exception):
                raise
            # signed, but not what an agent has written: int(), NumPy and the core say what is wrong
            raise CheckpointError(
                "checkpoint: expected the state of an agent, got an entry that does not fit "
                f"({type(error).__name__}: {error}); was it written by trpo_fast?"
            ) from error
        return agent

    @classmethod
    def _written_by(cls, algorithm: str) -> type[TRPO]:
        """The class of that name, if this one may stand for it."""
        module = ALGORITHMS.get(algorithm)
        if cls is not TRPO or module is None:
            raise CheckpointError(
                f"checkpoint: expected one of {cls.__name__}, got one of {algorithm}; load it with "
                "TRPO.load or the class that wrote it."
            )
        found: type[TRPO] = getattr(importlib.import_module(module), algorithm)
        return found

    def _restore(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
        def group(name: str) -> dict[str, NDArray[Any]]:
            prefix = name + "."
            return {key[len(prefix) :]: a for key, a in tensors.items() if key.startswith(prefix)}

        self.policy.parameters = tensors["policy"]
        self.value_function.parameters = tensors["value_function"]
        self.value_function.load_optimizer_state(group("value_optimizer"))
        self.observation_statistics.load_state_dict(group("observation_statistics"))
        self.return_statistics.load_state_dict(group("return_statistics"))
        self._episode_returns.extend(tensors["episode_returns"].tolist())
        self._episode_lengths.extend(tensors["episode_lengths"].tolist())
        self.timesteps = int(metadata["timesteps"])
        self.iteration = int(metadata["iteration"])
        self.value_scale = float(metadata["value_scale"])
        self._last_value_fit = _stored_fit(metadata.get("value_fit"))  # early files have none
        self._elapsed_seconds = float(metadata["elapsed_seconds"])
        self._predictions = int(metadata["predictions"])
        self._callback_state = dict(metadata["callbacks"])
        CallbackList().load_state_dict(self._callback_state)  # whether it is one
        self._freeze_normalizer()
        from ..snapshots import SnapshotError

        sampler = group("sampler")
        restarted = str(metadata["unsaved_environments"])
        if self.sampler.n_envs != metadata["n_envs"]:
            # another number of environments: go on beyond every random number drawn so far
            drawn = np.full(self.sampler.n_envs, sampler["counters"].max(), np.uint64)
            sampler = {"counters": drawn}
            restarted = f"the run had {metadata['n_envs']} environments"
        try:
            self.sampler.load_environment_state(sampler)
        except SnapshotError as error:
            restarted = str(error)
        notices = [f"the environments start new episodes: {restarted}"] if restarted else []
        level, level_before = runtime.simd_level(), metadata["simd_level"]
        if level != level_before:
            notices.append(
                f"the instruction-set level is {level} and was {level_before}: "
                "the run goes on, but not bit for bit"
            )
        self._notice = "; ".join(notices)

    def close(self) -> None:
        """Close the environments."""
        self.sampler.close()

    def __repr__(self) -> str:
        state = f"timesteps={self.timesteps}, iteration={self.iteration}"
        return f"{type(self).__name__}({self.env_name!r}, {state})"


class _Batch:
    """What one update learns from: N rows."""

    __slots__ = ("actions", "advantages", "observations", "returns", "values")

    def __init__(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        advantages: NDArray[np.float64],
        returns: NDArray[np.float64],
        values: NDArray[np.float64],
    ) -> None:
        self.observations = observations  # (N, O) normalised
        self.actions = actions  # (N, A) unclipped
        self.advantages = advantages  # (N,) reward units
        self.returns = returns  # (N,) reward units: targets of V
        self.values = values  # (N,) reward units: V before the fit


class _Deferred:
    """A value fit that is made where its result is waited for."""

    def __init__(self, fit: Callable[[], core.FitSummary]) -> None:
        self.result = fit


class _Console:
    """Loggers, table and progress bar of one call of learn."""

    def __init__(
        self, progress: bool | None, loggers: Iterable[Logger] | None, *, start: int, goal: int
    ) -> None:
        self._loggers: list[Any] = list(loggers or ())
        self._bar: Any = None
        if progress is None:
            progress = loggers is None and sys.stderr.isatty()
        if progress:
            from ..logging import ConsoleLogger, ProgressBar

            terminal = sys.stderr.isatty()
            if not any(isinstance(logger, ConsoleLogger) for logger in self._loggers):
                self._loggers.append(ConsoleLogger(style="auto" if terminal else "plain"))
            self._bar = ProgressBar(goal, start=start, enabled=True)

    def __enter__(self) -> _Console:
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        for logger in self._loggers:
            logger.write(record)
        if self._bar is not None:
            self._bar.update(record["time/timesteps"])

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        for logger in self._loggers:
            logger.close()


def _trusted_id(env_id: Any) -> str:
    """The environment that a checkpoint names, unless making it would import a module of its choice."""
    module, colon, _ = str(env_id).rpartition(":")
    if colon and module not in KNOWN_ENVIRONMENT_MODULES:
        raise CheckpointError(
            f"checkpoint: its environment {env_id!r} lives in the module {module!r}, and loading a "
            f"file runs no code; if you trust the module, pass env={env_id!r}."
        )
    return str(env_id)


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


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number of steps, got {type(value).__name__}.")
    if not (np.isfinite(value) and value >= 1 and float(value).is_integer()):
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value}.")
    return int(value)


def _explained_variance(values: NDArray[np.float64], returns: NDArray[np.float64]) -> float:
    """1 - Var(R - V) / Var(R): 1 is perfect, 0 no better than the mean."""
    # by a power of two, so that the squares of very large and very small returns are numbers
    exponent = -int(np.frexp(np.abs(returns).max(initial=0.0))[1])
    scaled, residuals = np.ldexp(returns, exponent), np.ldexp(returns - values, exponent)
    variance = float(np.var(scaled))
    return 1.0 - float(np.var(residuals)) / variance if variance > 0.0 else float("nan")
