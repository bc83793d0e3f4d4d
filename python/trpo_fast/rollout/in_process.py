"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt

from trpo_fast.rollout._base import Actor, SamplerBase, environment_seed
from trpo_fast.rollout.data import RolloutBuffers

Array: TypeAlias = npt.NDArray[Any]


class InProcessSampler(SamplerBase):
    """Steps E environments one after the other, with one call of the policy per time step.

    An environment whose episode ends is reset at once: row t + 1 starts the next episode, and no
    step is lost. A worker process is this class on a part of the environments, with `first_index`
    set; `Rollout.concatenate` puts the parts together.

    Args:
        environments: the environments, all with the same spaces.
        name: how errors and logs call them.
        first_index: index of the first of them in the whole run.
        dtype: dtype of observations and continuous actions.
        state_dependent_std: the Gaussian's deviation is a network output.

    Raises:
        ValueError: no environments, or different spaces.
        TypeError: a space that is not supported.
    """

    def __init__(
        self,
        environments: Sequence[Any],
        *,
        name: str = "environment",
        first_index: int = 0,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
    ) -> None:
        if not environments:
            raise ValueError("environments: expected at least one, got none")
        first = environments[0]
        for e, environment in enumerate(environments):
            for space in ("observation_space", "action_space"):
                expected, got = getattr(first, space), getattr(environment, space)
                if expected != got:
                    raise ValueError(
                        f"environment {first_index + e}: expected the {space} of environment "
                        f"{first_index}, {expected}, got {got}; all environments must be alike"
                    )
        super().__init__(
            name,
            first.observation_space,
            first.action_space,
            n_envs=len(environments),
            first_index=first_index,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
        )
        self.environments = tuple(environments)
        self._to_env = self.action_adapter.step_converter(
            self.n_envs, self.observation_encoder.dtype
        )

    def _restart(self) -> None:
        for e, environment in enumerate(self.environments):
            counter = int(self._counters[e])
            observation: Any = None
            try:
                observation, _ = environment.reset(
                    seed=environment_seed(self._seed, self.first_index + e, counter)
                )
                self.observation_encoder.write(observation, self._observations[e])
            except Exception as error:
                where = f"reset before {self._where(0, e)}"
                raise self._failure(
                    error, where, observation, "reset() must return (observation, info)"
                ) from error

    def _step(
        self, buffers: RolloutBuffers, actor: Actor, on_step: Callable[[], object] | None
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[Array]]:
        n_steps, n_envs = buffers.rewards.shape
        ends: list[tuple[int, int]] = []
        final_indices: list[tuple[int, int]] = []
        finals: list[Array] = []

        # bound once: what stands between two calls of env.step is all in these locals
        encoder = self.observation_encoder
        plain, dim, write = encoder.is_plain, encoder.dim, encoder.write
        rows = buffers.observations.reshape(-1, dim)  # row i + E follows row i = t E + e
        rewards = buffers.rewards.reshape(-1).data
        stored_actions, to_env = buffers.actions, self._to_env
        steps = [environment.step for environment in self.environments]
        resets = [environment.reset for environment in self.environments]
        act = actor.step

        i = 0
        e = -1
        observation: Any = None
        try:
            for t in range(n_steps):
                e = -1
                act(t)
                actions = to_env(stored_actions[t])
                for e, step in enumerate(steps):
                    observation, reward, terminated, truncated, _ = step(actions[e])
                    rewards[i] = reward
                    if terminated or truncated:
                        # the true successor, before the reset replaces it
                        if truncated and not terminated:
                            finals.append(encoder.encode(observation))
                            final_indices.append((t, e))
                        buffers.terminated[t, e] = terminated
                        buffers.truncated[t, e] = truncated
                        ends.append((t, e))
                        observation, _ = resets[e]()
                    # s_{t+1}
                    if plain and len(observation) == dim:
                        rows[i + n_envs] = observation
                    else:
                        write(observation, rows[i + n_envs])
                    i += 1
                if on_step is not None:
                    e = -1
                    on_step()
        except Exception as error:
            if e < 0:  # not from an environment
                raise
            raise self._explain(error, buffers, t, e, observation) from error
        return ends, final_indices, finals

    def _close(self) -> None:
        for environment in self.environments:
            environment.close()
