"""A Gymnasium vector environment, under each of its three ways to reset itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..core import RowWriter, mask_rows
from ..envs import ActionAdapter, EnvironmentFailure, ObservationError
from ..envs.errors import error_sentence
from ..envs.interface import require_infos
from ..envs.masks import MaskError, find_source, masks_of_vector, missing_mask
from .budget import Budget
from .changes import EnvironmentChange, to_vector
from .crashes import first_non_finite
from .data import Rollout
from .errors import is_users_exit, raised_by_us
from .filling import Events, Filling, RolloutBuffers
from .interface import Actor
from .metrics import metrics_in
from .stepping import SteppingSampler
from .stored import environment_seed

if TYPE_CHECKING:
    from ..config import Sampling

Array: TypeAlias = npt.NDArray[Any]

_MODES = ("NextStep", "SameStep", "Disabled")
_INTERFACE = (
    "step() must return (observations, rewards, terminated, truncated, infos), each for {} "
    "environments"
)


@dataclass
class Calls:
    """Where a rollout stands."""

    t: int | None = None
    """The row whose step the environment is taking; None between two steps."""


class VectorEnvSampler(SteppingSampler):
    """Steps a `gymnasium.vector.VectorEnv`, one call for all environments.

    What happens when the episode of environment e ends at step t depends on the mode that the
    vector environment declares in ``metadata["autoreset_mode"]``:

    * NEXT_STEP: step t returns the true final observation, and step t + 1 ignores its action and
      returns the first observation of the next episode. Row (t + 1, e) is no transition: it is
      marked as not valid, with reward 0.
    * SAME_STEP: step t returns the first observation of the next episode already; the true final
      observation is taken from `info["final_obs"]`.
    * DISABLED: step t returns the true final observation, and this sampler calls
      ``reset(options={"reset_mask": mask})``.

    Seeding: Gymnasium's SyncVectorEnv and AsyncVectorEnv get one seed an environment, as in
    `InProcessSampler`. Other vector environments accept a single number only: that of
    environment 0.

    A subclass may start and step another kind of vector environment, see `_first_observations` and
    `_step_function`.

    Parameters
    ----------
    vector_env
        The vector environment.
    name
        How errors and logs call it.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    autoreset_mode
        Overrides the declared mode: "NextStep", "SameStep" or "Disabled".
    action_masks
        Where the environments say which actions are allowed: "auto", "none" or a source, see
        `trpo_fast.envs.masks`; in ``infos`` it is Gymnasium's ``action_mask`` with its
        ``_action_mask``, and a method is called by ``vector_env.call`` unless the vector environment
        has it itself.
    first_index
        Index of the first environment in the whole run.

    Raises
    ------
    ValueError
        The mode is not declared or not known.
    TypeError
        A space that is not supported.
    """

    def __init__(
        self,
        vector_env: Any,
        *,
        name: str = "vector environment",
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        autoreset_mode: str | None = None,
        action_masks: str = "auto",
        first_index: int = 0,
    ) -> None:
        spaces = self._spaces_of(vector_env)
        distribution = ActionAdapter.from_space(spaces[1]).distribution
        super().__init__(
            name,
            *spaces,
            n_envs=int(vector_env.num_envs),
            first_index=first_index,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            mask_source=find_source(action_masks, *spaces, distribution, vector_env),
        )
        self.vector_env = vector_env
        if self._steps_in_parallel():
            self.busy_cores = self.n_envs
        self.autoreset_mode = _autoreset_mode(vector_env, autoreset_mode)
        # Under NEXT_STEP, the environments whose next step is a reset.
        self._resetting = np.zeros(self.n_envs, np.bool_)
        self._nobody = np.zeros(self.n_envs, np.bool_)
        self._to_env = self.action_adapter.batch_converter(
            self.n_envs, self.observation_encoder.dtype
        )

    # --- what may differ from one kind of vector environment to another ---

    @staticmethod
    def _spaces_of(vector_env: Any) -> tuple[Any, Any]:
        """Observation and action space of one environment."""
        return vector_env.single_observation_space, vector_env.single_action_space

    def _first_observations(self, seeds: Sequence[int]) -> tuple[Any, Any]:
        """Start all environments anew, each with its seed where it takes one; and the infos."""
        takes_all = _accepts_seed_list(self.vector_env)
        observations, infos = self.vector_env.reset(seed=list(seeds) if takes_all else seeds[0])
        return observations, infos

    def _step_function(self) -> Callable[[Any], tuple[Any, ...]]:
        """What steps all environments, as ``vector_env.step`` does."""
        step: Callable[[Any], tuple[Any, ...]] = self.vector_env.step
        return step

    def _steps_in_parallel(self) -> bool:
        """Whether the environments are stepped by as many threads or processes."""
        from gymnasium.vector import AsyncVectorEnv

        return isinstance(self.vector_env.unwrapped, AsyncVectorEnv)

    def change(self, change: EnvironmentChange) -> list[Any]:
        """Do something with every environment, by ``call``, ``set_attr`` and ``get_attr``."""
        if self.is_busy or self._closed:
            return super().change(change)  # raises
        return to_vector(change, self.vector_env)

    # --- one rollout ---

    def _seeds(self) -> list[int]:
        """The seeds of a reset at this moment, one an environment."""
        counters = self.state.counters.tolist()
        first = self.first_index
        return [environment_seed(self._seed, first + e, n) for e, n in enumerate(counters)]

    def _restart(self) -> None:
        self._resetting[:] = False
        try:
            observations, infos = self._first_observations(self._seeds())
            self.observation_encoder.write_batch(observations, self.state.observations)
            self._look_for_masks(infos)
            if self.has_masks:
                self._write_masks(self.state.action_masks, observations, infos, ~self._nobody)
        except (Exception, SystemExit) as error:
            if is_users_exit(error):
                raise
            raise self._vector_failure(
                error,
                f"reset before {self._vector_step(0)}",
                "reset() must return (observations, infos)",
            ) from error

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch, see `SamplerBase.budget`.

        Raises
        ------
        ValueError
            Whole episodes are asked for.
        """
        refuse_whole_episodes(sampling, self.name)
        return super().budget(sampling, batch_size)

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        return collect_rows(super()._collect, budget, on_step)

    def _step(
        self, filling: Filling, row: int, actor: Actor, on_step: Callable[[], object] | None
    ) -> int:
        buffers, events = filling.buffers, filling.events
        n_steps = len(buffers.rewards)
        to_env, stored_actions = self._to_env, buffers.actions
        write_batch, write_row = self.observation_encoder.write_batch, None
        if self.observation_encoder.is_plain:
            write_row = RowWriter(
                buffers.observations, buffers.rewards, buffers.terminated, buffers.truncated
            ).write
        step, act = self._step_function(), actor.step
        next_step = self.autoreset_mode == "NextStep"
        resetting = bool(next_step and self._resetting.any())

        with self.naming_failures(filling, _INTERFACE.format(self.n_envs)) as calls:
            for t in range(row, n_steps):
                act(t)
                calls.t = t
                observations, rewards, terminated, truncated, infos = step(
                    to_env(stored_actions[t])
                )
                if type(infos) is not dict:
                    require_infos(infos)
                any_ended = None
                if write_row is not None:
                    any_ended = write_row(t, observations, rewards, terminated, truncated)
                if any_ended is None:
                    buffers.fill_row(t, rewards, terminated, truncated)
                    write_batch(observations, buffers.observations[t + 1])
                    any_ended = buffers.terminated[t].any() or buffers.truncated[t].any()
                if resetting:
                    self._mark_resets(buffers, t)
                    self._resetting[:] = resetting = False
                ended = self._nobody
                if any_ended:
                    ended = buffers.terminated[t] | buffers.truncated[t]
                    for e in np.flatnonzero(ended).tolist():
                        events.ends.append((t, e))
                        if told := metrics_in(infos, e, self.metric_names):
                            events.metrics[t, e] = told
                        if not buffers.terminated[t, e]:
                            events.final_indices.append((t, e))
                            events.finals.append(self._final_observation(buffers, t, e, infos))
                    if self.autoreset_mode == "Disabled":
                        self._reset_ended(ended, buffers, t + 1)
                    if next_step:
                        self._resetting[:] = ended
                        resetting = True
                if self.has_masks:
                    masks = buffers.action_masks[t + 1]
                    if next_step:
                        masks[ended] = True  # the next action is ignored: nothing is forbidden
                    left_out = self._nobody if self.autoreset_mode == "SameStep" else ended
                    self._write_masks(masks, observations, infos, ~left_out)
                calls.t = None
                if on_step is not None:
                    on_step()
        filling.quota.close_row(n_steps - 1, buffers, events)
        return n_steps

    @contextlib.contextmanager
    def naming_failures(self, filling: Filling, interface: str) -> Iterator[Calls]:
        """Of errors that come up in calls of the environment, name the step and what to do.

        Parameters
        ----------
        filling
            The rollout that is filled.
        interface
            What a step must return.
        """
        calls = Calls()
        try:
            yield calls
        except (Exception, SystemExit) as error:
            t, buffers, events = calls.t, filling.buffers, filling.events
            if t is None or isinstance(error, EnvironmentFailure) or is_users_exit(error):
                raise
            # A NaN often breaks an environment one step later: name the cause, not the effect.
            cause = first_non_finite(buffers, events, states=slice(0, t + 1), rewards=slice(0, t))
            if cause is not None:
                raise self._non_finite(cause, buffers, events) from error
            raise self._vector_failure(error, self._vector_step(t), interface) from error

    def _follows_reset(self, t: int, e: int, buffers: RolloutBuffers, events: Events) -> bool:
        if self.autoreset_mode == "NextStep":
            return t == 0 or not buffers.valid[t - 1, e]
        return super()._follows_reset(t, e, buffers, events)

    def _mark_resets(self, buffers: RolloutBuffers, t: int) -> None:
        """Step t only reset these environments: it is no transition of theirs."""
        resetting = self._resetting
        buffers.valid[t, resetting] = False
        buffers.rewards[t, resetting] = 0.0
        buffers.terminated[t, resetting] = False
        buffers.truncated[t, resetting] = False

    def _final_observation(self, buffers: RolloutBuffers, t: int, e: int, infos: Any) -> Array:
        """The true successor of step t in environment e, encoded."""
        if self.autoreset_mode != "SameStep":
            row: Array = buffers.observations[t + 1, e].copy()
            return row
        final = _final_of(infos, e)
        if final is None:
            raise EnvironmentFailure(
                f"{self._sentences.step(t, e)}: truncated, but info['final_obs'][{e}] is missing; "
                "under the autoreset mode SAME_STEP it must hold the true final observation"
            )
        return self.observation_encoder.encode(final)

    def _reset_ended(self, ended: npt.NDArray[np.bool_], buffers: RolloutBuffers, t: int) -> None:
        """Reset the environments that ended; row t begins with what that returns."""
        observations, infos = self.vector_env.reset(options={"reset_mask": ended.copy()})
        rows = self.observation_encoder.encode_batch(observations, self.n_envs)
        buffers.observations[t, ended] = rows[ended]
        if self.has_masks:
            self._write_masks(buffers.action_masks[t], observations, infos, ended)

    def _write_masks(
        self,
        rows: npt.NDArray[np.bool_],
        observations: Any,
        infos: Any,
        which: npt.NDArray[np.bool_],
    ) -> None:
        """Write what some environments allow into their rows of (E, W)."""
        given = masks_of_vector(self.mask_source, self.vector_env, observations, infos)
        if isinstance(given, np.ndarray) and which.all():
            try:
                rows[:] = mask_rows(self.distribution, given, self.n_envs)
                return
            except ValueError:  # said below, of the environment that it is about
                pass
        for e in np.flatnonzero(which).tolist():
            mask = None if given is None else given[e]
            try:
                if mask is None:
                    raise missing_mask(self.mask_source)
                rows[e] = self._mask_row(mask)
            except MaskError as error:
                raise MaskError(f"environment {e}: {error}") from None

    def _vector_step(self, t: int) -> str:
        return f"{self.name}, step {self._sentences.first_steps[0] + t}"

    def _vector_failure(
        self, error: Exception | SystemExit, where: str, interface: str
    ) -> Exception:
        if isinstance(error, ObservationError):
            return ValueError(f"{where}: {error}")
        if raised_by_us(error):
            return EnvironmentFailure(f"{where}: {type(error).__name__}: {error}; {interface}")
        return EnvironmentFailure(f"{where}: the environment raised {error_sentence(error)}")

    def _close(self) -> None:
        self.vector_env.close()


def _autoreset_mode(vector_env: Any, override: str | None) -> str:
    mode = override
    if mode is None:
        mode = (vector_env.metadata or {}).get("autoreset_mode")
    # It may be a gymnasium.vector.AutoresetMode, an enum whose values are these strings.
    mode = getattr(mode, "value", mode)
    if mode not in _MODES:
        raise ValueError(
            f"autoreset_mode: expected one of {', '.join(_MODES)}, got {mode!r}; set "
            'metadata["autoreset_mode"] of the vector environment to a '
            "gymnasium.vector.AutoresetMode, because a wrong guess would train on resets"
        )
    return str(mode)


def _accepts_seed_list(vector_env: Any) -> bool:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    return isinstance(vector_env.unwrapped, SyncVectorEnv | AsyncVectorEnv)


def _final_of(infos: Any, e: int) -> Any:
    """The true final observation of environment e in what a step told; None if it is missing.

    `infos` is a dictionary of arrays, or a list of one dictionary an environment.
    """
    if isinstance(infos, Mapping):
        # The second name is that of Gymnasium before 1.1.
        batch = infos.get("final_obs", infos.get("final_observation"))
        return None if batch is None else _entry(batch, e)
    info = infos[e]
    names = ("final_obs", "final_observation", "terminal_observation")
    return next((info[name] for name in names if info.get(name) is not None), None)


def _entry(batch: Any, e: int) -> Any:
    """Entry e of an array of observations, or of a dictionary or tuple of arrays."""
    if isinstance(batch, Mapping):
        return {key: _entry(part, e) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_entry(part, e) for part in batch)
    entry: Any = batch[e]
    return entry


def collect_rows(
    collect: Callable[[Budget, Callable[[], object] | None], Rollout],
    budget: Budget,
    on_step: Callable[[], object] | None,
) -> Rollout:
    """A rollout of environments that are stepped together, of so many rows as the budget takes.

    Parameters
    ----------
    collect
        Takes a budget by "steps", alike for all environments.
    budget
        By "steps", or by "total_steps": autoresets are no steps, and further rows make up for them.
    on_step
        Called after every row.
    """
    if budget.sampling == "steps":
        return collect(budget, on_step)
    parts: list[Rollout] = []
    missing, n_envs = budget.total, len(budget.steps)
    while missing > 0:
        rows = -(-missing // n_envs)
        parts.append(collect(Budget("steps", (rows,) * n_envs), on_step))
        missing -= parts[-1].n_transitions
    return Rollout.join(parts)


def refuse_whole_episodes(sampling: Sampling, name: str) -> None:
    """Raise ValueError where whole episodes are asked for.

    Parameters
    ----------
    sampling
        How a batch is counted.
    name
        Of the environments that are stepped together.
    """
    if sampling == "episodes":
        raise ValueError(
            f"sampling: expected 'steps' or 'total_steps' for {name}, got 'episodes': a "
            "vector environment steps all its environments together and cannot stop one at "
            "the end of its episode; pass an id or a function that makes one environment"
        )
