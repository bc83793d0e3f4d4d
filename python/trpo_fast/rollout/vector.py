"""A Gymnasium vector environment, under each of its three ways to reset itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..core import RowWriter
from ..envs import EnvironmentFailure, ObservationError
from ..envs.envpool import is_envpool, read_spaces, step_of
from .budget import Budget
from .data import Rollout
from .filling import RolloutBuffers
from .sampler import Actor, Events, Quota, SamplerBase, environment_seed

if TYPE_CHECKING:
    from ..config import Sampling

Array: TypeAlias = npt.NDArray[Any]

_MODES = ("NextStep", "SameStep", "Disabled")


class VectorEnvSampler(SamplerBase):
    """Steps a `gymnasium.vector.VectorEnv`, one call for all environments.

    What happens when the episode of environment e ends at step t depends on the mode that the
    vector environment declares in `metadata["autoreset_mode"]`:

    * NEXT_STEP: step t returns the true final observation, and step t + 1 ignores its action and
      returns the first observation of the next episode. Row (t + 1, e) is no transition: it is
      marked `valid = False`, with reward 0.
    * SAME_STEP: step t returns the first observation of the next episode already; the true final
      observation is taken from `info["final_obs"]`.
    * DISABLED: step t returns the true final observation, and this sampler calls
      `reset(options={"reset_mask": mask})`.

    Seeding: Gymnasium's SyncVectorEnv and AsyncVectorEnv get one seed an environment, as in
    `InProcessSampler`. Other vector environments accept a single number only: that of
    environment 0. An EnvPool got its seeds when it was made.

    Args:
        vector_env: the vector environment.
        name: how errors and logs call it.
        dtype: dtype of observations and continuous actions.
        state_dependent_std: the Gaussian's deviation is a network output.
        autoreset_mode: overrides the declared mode: "NextStep", "SameStep" or "Disabled".

    Raises:
        ValueError: the mode is not declared or not known.
        TypeError: a space that is not supported.
    """

    def __init__(
        self,
        vector_env: Any,
        *,
        name: str = "vector environment",
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        autoreset_mode: str | None = None,
    ) -> None:
        super().__init__(
            name,
            *read_spaces(vector_env),
            n_envs=int(vector_env.num_envs),
            dtype=dtype,
            state_dependent_std=state_dependent_std,
        )
        self.vector_env = vector_env
        if _steps_in_parallel(vector_env):
            self.busy_cores = self.n_envs
        self.autoreset_mode = _autoreset_mode(vector_env, autoreset_mode)
        # NEXT_STEP: environments whose next step is a reset
        self._resetting = np.zeros(self.n_envs, np.bool_)
        self._to_env = self.action_adapter.batch_converter(
            self.n_envs, self.observation_encoder.dtype
        )

    def _restart(self) -> None:
        self._resetting[:] = False
        seeds = [
            environment_seed(self._seed, e, int(self._counters[e])) for e in range(self.n_envs)
        ]
        observations: Any = None
        try:
            if is_envpool(self.vector_env):
                observations, _ = self.vector_env.reset()
            else:
                observations, _ = self.vector_env.reset(
                    seed=seeds if _accepts_seed_list(self.vector_env) else seeds[0]
                )
            self.observation_encoder.write_batch(observations, self._observations)
        except Exception as error:
            raise self._vector_failure(
                error,
                f"reset before {self._vector_step(0)}",
                "reset() must return (observations, infos)",
            ) from error

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch.

        Raises:
            ValueError: whole episodes are asked for.
        """
        if sampling == "episodes":
            raise ValueError(
                f"sampling: expected 'steps' or 'total_steps' for {self.name}, got 'episodes': a "
                "vector environment steps all its environments together and cannot stop one at "
                "the end of its episode; pass an id or a function that makes one environment"
            )
        return super().budget(sampling, batch_size)

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        if budget.sampling == "steps":
            return super()._collect(budget, on_step)
        # autoresets are no steps: make up for them
        parts: list[Rollout] = []
        missing = budget.total
        while missing > 0:
            rows = -(-missing // self.n_envs)
            parts.append(super()._collect(Budget("steps", (rows,) * self.n_envs), on_step))
            missing -= parts[-1].n_transitions
        return Rollout.join(parts)

    def _step(
        self,
        buffers: RolloutBuffers,
        row: int,
        actor: Actor,
        on_step: Callable[[], object] | None,
        events: Events,
        quota: Quota,
    ) -> int:
        n_steps = len(buffers.rewards)
        to_env, stored_actions = self._to_env, buffers.actions
        write_batch, write_row = self.observation_encoder.write_batch, None
        if self.observation_encoder.is_plain:
            write_row = RowWriter(
                buffers.observations, buffers.rewards, buffers.terminated, buffers.truncated
            ).write
        is_pool = is_envpool(self.vector_env)
        step = step_of(self.vector_env) if is_pool else self.vector_env.step
        act = actor.step
        next_step = self.autoreset_mode == "NextStep"
        resetting = bool(next_step and self._resetting.any())

        t = row
        inside = False  # between here and the environment: errors are its own
        try:
            for t in range(row, n_steps):
                act(t)
                inside = True
                observations, rewards, terminated, truncated, infos = step(
                    to_env(stored_actions[t])
                )
                any_ended = None
                if write_row is not None:
                    any_ended = write_row(t, observations, rewards, terminated, truncated)
                if any_ended is None:
                    buffers.rewards[t] = rewards
                    buffers.terminated[t] = terminated
                    buffers.truncated[t] = truncated
                    write_batch(observations, buffers.observations[t + 1])
                    any_ended = buffers.terminated[t].any() or buffers.truncated[t].any()
                if resetting:
                    self._mark_resets(buffers, t)
                    self._resetting[:] = resetting = False
                if any_ended:
                    ended = buffers.terminated[t] | buffers.truncated[t]
                    for e in np.flatnonzero(ended).tolist():
                        events.ends.append((t, e))
                        if not buffers.terminated[t, e]:
                            events.final_indices.append((t, e))
                            events.finals.append(self._final_observation(buffers, t, e, infos))
                    if self.autoreset_mode == "Disabled":
                        self._reset_ended(ended, buffers.observations[t + 1])
                    if next_step:
                        self._resetting[:] = ended
                        resetting = True
                inside = False
                if on_step is not None:
                    on_step()
        except Exception as error:
            if not inside or isinstance(error, EnvironmentFailure):
                raise
            # a NaN often breaks an environment one step later: name the cause, not the effect
            non_finite = self._non_finite(buffers, t)
            if non_finite is not None:
                raise non_finite from error
            raise self._vector_failure(
                error,
                self._vector_step(t),
                "step() must return (observations, rewards, terminated, truncated, infos), "
                f"each for {self.n_envs} environments",
            ) from error
        quota.close_row(n_steps - 1, buffers, events)
        return n_steps

    def _mark_resets(self, buffers: RolloutBuffers, t: int) -> None:
        """Step t only reset these environments: it is no transition of theirs."""
        resetting = self._resetting
        buffers.valid[t, resetting] = False
        buffers.rewards[t, resetting] = 0.0
        buffers.terminated[t, resetting] = False
        buffers.truncated[t, resetting] = False

    def _final_observation(
        self, buffers: RolloutBuffers, t: int, e: int, infos: Mapping[str, Any]
    ) -> Array:
        """The true successor of step t in environment e, encoded."""
        if self.autoreset_mode != "SameStep":
            row: Array = buffers.observations[t + 1, e].copy()
            return row
        # the older name is that of Gymnasium before 1.1
        batch = infos.get("final_obs", infos.get("final_observation"))
        final = None if batch is None else _entry(batch, e)
        if final is None:
            raise EnvironmentFailure(
                f"{self._where(t, e)}: truncated, but info['final_obs'][{e}] is missing; under the "
                "autoreset mode SAME_STEP it must hold the true final observation"
            )
        return self.observation_encoder.encode(final)

    def _reset_ended(self, ended: npt.NDArray[np.bool_], rows: Array) -> None:
        """Reset the environments that ended, and put their first observations into `rows`."""
        observations, _ = self.vector_env.reset(options={"reset_mask": ended.copy()})
        rows[ended] = self.observation_encoder.encode_batch(observations, self.n_envs)[ended]

    def _vector_step(self, t: int) -> str:
        return f"{self.name}, step {int(self._first_steps[0]) + t}"

    def _vector_failure(self, error: Exception, where: str, interface: str) -> Exception:
        if isinstance(error, ObservationError):
            return ValueError(f"{where}: {error}")
        # raised in our own frame, not in one below it: we could not use what came back
        trace = error.__traceback__
        ours = trace is not None and trace.tb_next is None
        sentence = f"{type(error).__name__}: {error}"
        return EnvironmentFailure(
            f"{where}: {sentence}; {interface}"
            if ours
            else f"{where}: the environment raised {sentence}"
        )

    def _close(self) -> None:
        self.vector_env.close()


def _autoreset_mode(vector_env: Any, override: str | None) -> str:
    mode = override
    if mode is None:
        mode = (vector_env.metadata or {}).get("autoreset_mode")
    # gymnasium.vector.AutoresetMode is an enum whose values are these strings
    mode = getattr(mode, "value", mode)
    if mode not in _MODES:
        raise ValueError(
            f"autoreset_mode: expected one of {', '.join(_MODES)}, got {mode!r}; set "
            'metadata["autoreset_mode"] of the vector environment to a '
            "gymnasium.vector.AutoresetMode, because a wrong guess would train on resets"
        )
    return str(mode)


def _steps_in_parallel(vector_env: Any) -> bool:
    from gymnasium.vector import AsyncVectorEnv

    return is_envpool(vector_env) or isinstance(vector_env.unwrapped, AsyncVectorEnv)


def _accepts_seed_list(vector_env: Any) -> bool:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    return isinstance(vector_env.unwrapped, SyncVectorEnv | AsyncVectorEnv)


def _entry(batch: Any, e: int) -> Any:
    """Entry e of an array of observations, or of a dictionary or tuple of arrays."""
    if isinstance(batch, Mapping):
        return {key: _entry(part, e) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_entry(part, e) for part in batch)
    entry: Any = batch[e]
    return entry
