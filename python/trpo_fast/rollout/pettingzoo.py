"""PettingZoo's parallel environments: every agent is an environment here, all share the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..envs import EnvironmentFailure
from ..envs.interface import is_end, one_number, require_info
from ..envs.masks import MaskError, mask_giver
from ..envs.pettingzoo import JointEnv
from ..envs.wrappers import close_all
from .calls import load_states, prepare_states, save_states
from .changes import EnvironmentChange, to_one
from .errors import is_users_exit
from .filling import Filling
from .interface import Actor
from .metrics import metrics_of
from .vector import VectorEnvSampler

_INTERFACE = "step() must return (observations, rewards, terminated, truncated, infos) by agent"


class PettingZooSampler(VectorEnvSampler):
    """Steps K parallel environments of A agents each as E = K A environments.

    Agent i of environment k is environment e = k A + i, with action noise of its own. An agent whose
    episode ends before that of the others takes no part until the environment is reset: its rows are
    not valid, and nothing is learned from them. The environment is reset in the step that ends the
    last agent's episode. An agent that comes later begins its episode when it comes.

    Parameters
    ----------
    environments
        The parallel environments, all of the same agents.
    name
        How errors and logs call them.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    action_masks
        Where the environments say which actions an agent may take: "auto", "none", "info" (the
        ``action_mask`` of an agent's info) or "observation:<name>".
    make_copy
        Makes one more parallel environment, the way these were made: whether their state can be
        restored is only tried on copies. None: nothing is tried, and their state is not saved.
    first_index
        Index of the first agent's environment in the whole run.

    Raises
    ------
    TypeError
        A space that is not supported, or environments of other agents.
    """

    def __init__(
        self,
        environments: Sequence[Any],
        *,
        name: str,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        action_masks: str = "auto",
        make_copy: Callable[[], Any] | None = None,
        first_index: int = 0,
    ) -> None:
        from ..snapshots import StateKeeper

        first = environments[0]
        self.agents = list(first.possible_agents)
        for k, environment in enumerate(environments):
            if list(environment.possible_agents) != self.agents:
                raise TypeError(
                    f"environment {k} ({name}): expected the agents {self.agents!s:.200}, got "
                    f"{list(environment.possible_agents)!s:.200}; all environments must be alike"
                )
        self.environments = list(environments)
        together = SimpleNamespace(
            num_envs=len(environments) * len(self.agents),
            single_observation_space=first.observation_space(self.agents[0]),
            single_action_space=first.action_space(self.agents[0]),
            metadata={},
        )
        super().__init__(
            together,
            name=name,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            autoreset_mode="SameStep",
            action_masks=action_masks,
            first_index=first_index,
        )
        self._actions_of = self.action_adapter.step_converter(
            self.n_envs, self.observation_encoder.dtype
        )
        # By environment: its agents that are there, as (index among all agents, name).
        self._here: list[list[tuple[int, Any]]] = [[] for _ in environments]
        self.keeper = StateKeeper(
            [JointEnv(environment) for environment in environments],
            None if make_copy is None else lambda: JointEnv(make_copy()),
        )

    def change(self, change: EnvironmentChange) -> list[Any]:
        """Do something with every parallel environment, see `SamplerBase.change`."""
        if self.is_busy or self._closed:
            return super().change(change)  # raises
        if change.kind == "reset":
            self.reset_options = dict(change.kwargs) or None
            return [None] * len(self.environments)
        if change.kind != "get":
            self.keeper.note()
        return [to_one(change, environment) for environment in self.environments]

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Read or write states; whatever else is called so wants environments of one agent."""
        if function in (prepare_states, save_states, load_states):
            return [function(self, *(arguments or ()))]  # they take a sampler's keeper
        raise NotImplementedError(
            f"{self.name}: {name} needs environments of one agent, which cannot be reached here"
        )

    def _state_holders(self) -> Sequence[int]:
        return range(0, self.n_envs, len(self.agents))

    def load_environment_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on exactly where a state was taken, see `SamplerBase.load_environment_state`."""
        super().load_environment_state(state)
        if self._started:
            self.resume()

    def resume(self) -> None:
        """Go on at the next rollout: the environments are where `state` says already."""
        super().resume()
        self._here = [self._present_in(environment) for environment in self.environments]

    def _steps_in_parallel(self) -> bool:
        return False

    # --- one rollout ---

    def _restart(self) -> None:
        self.state.observations[:] = 0.0  # of agents that are not there yet
        for k in range(len(self.environments)):
            e = k * len(self.agents)
            seed = self._seeds()[e]
            try:
                self._begin(k, self.state.observations, self.state.action_masks, seed)
            except (Exception, SystemExit) as error:
                if is_users_exit(error):
                    raise
                raise self._vector_failure(
                    error,
                    f"reset before {self._vector_step(0)}",
                    "reset() must return (observations, infos) by agent",
                ) from error

    def _begin(
        self,
        k: int,
        rows: npt.NDArray[Any],
        masks: npt.NDArray[np.bool_],
        seed: int | None = None,
    ) -> None:
        """Reset environment k; write what its agents see and may do into rows (E, O) and (E, W)."""
        environment = self.environments[k]
        options = {} if self.reset_options is None else {"options": dict(self.reset_options)}
        seeded = {} if seed is None else {"seed": seed}
        observations, infos = environment.reset(**seeded, **options)
        self._look_for_masks(next(iter(infos.values()), {}) if isinstance(infos, dict) else {})
        self._look(k, observations, infos, rows, masks)
        if not self._here[k]:
            raise EnvironmentFailure(f"environment {k}: no agent is there after reset()")

    def _look(
        self,
        k: int,
        observations: Any,
        infos: Any,
        rows: npt.NDArray[Any],
        masks: npt.NDArray[np.bool_],
    ) -> None:
        """Note which agents are there, and write what they see and may do; the others' rows stay."""
        here = self._present_in(self.environments[k])
        for i, name in here:
            e = k * len(self.agents) + i
            self.observation_encoder.write(observations[name], rows[e])
            if self.has_masks:
                masks[e] = self._mask_of_agent(name, observations[name], infos)
        self._here[k] = here

    def _present_in(self, environment: Any) -> list[tuple[int, Any]]:
        present = set(environment.agents)
        return [(i, name) for i, name in enumerate(self.agents) if name in present]

    def _mask_of_agent(self, name: Any, observation: Any, infos: Any) -> Any:
        try:
            info = infos.get(name) if isinstance(infos, dict) else None
            return self._mask_row(mask_giver(self.mask_source, None)(observation, info))
        except MaskError as error:
            raise MaskError(f"agent {name}: {error}") from None

    def _step(
        self, filling: Filling, row: int, actor: Actor, on_step: Callable[[], object] | None
    ) -> int:
        buffers, events = filling.buffers, filling.events
        n_steps, to_env, stored = len(buffers.rewards), self._actions_of, buffers.actions
        with self.naming_failures(filling, _INTERFACE) as calls:
            for t in range(row, n_steps):
                actor.step(t)
                actions = to_env(stored[t])
                buffers.observations[t + 1] = buffers.observations[t]
                buffers.action_masks[t + 1] = buffers.action_masks[t]
                buffers.valid[t], buffers.rewards[t] = False, 0.0
                calls.t = t
                for k in range(len(self.environments)):
                    self._step_one(k, t, actions, filling)
                calls.t = None
                if on_step is not None:
                    on_step()
        filling.quota.close_row(n_steps - 1, buffers, events)
        return n_steps

    def _step_one(self, k: int, t: int, actions: Any, filling: Filling) -> None:
        """Step environment k in row t, by those of its agents that are there."""
        buffers, events = filling.buffers, filling.events
        first, here, environment = k * len(self.agents), self._here[k], self.environments[k]
        observations, rewards, terminated, truncated, infos = environment.step(
            {name: actions[first + i] for i, name in here}
        )
        require_info(infos)
        left = set(environment.agents)
        for i, name in here:
            e = first + i
            buffers.valid[t, e] = True
            buffers.rewards[t, e] = one_number(rewards[name])
            ended = is_end(terminated[name], truncated[name])
            terminates, truncates = bool(terminated[name]), bool(truncated[name])
            if not ended and name not in left:
                # It has gone without a word: its episode was cut if there is something to see.
                terminates, truncates = name not in observations, name in observations
            if terminates or truncates:
                buffers.terminated[t, e], buffers.truncated[t, e] = terminates, truncates
                events.ends.append((t, e))
                if told := metrics_of(infos.get(name), self.metric_names):
                    events.metrics[t, e] = told
                if not terminates:
                    events.final_indices.append((t, e))
                    events.finals.append(self.observation_encoder.encode(observations[name]))
        row, masks = buffers.observations[t + 1], buffers.action_masks[t + 1]
        if left:
            self._look(k, observations, infos, row, masks)
        else:
            self._begin(k, row, masks)

    def _close(self) -> None:
        close_all(self.environments)
