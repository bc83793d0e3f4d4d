"""What a sampler is to the rest of the package, and what it asks of a policy.

Letters of shapes: see `trpo_fast.rollout.data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..config import Sampling
    from ..envs import ActionAdapter, ObservationEncoder
    from .budget import Budget
    from .data import Rollout

Array: TypeAlias = npt.NDArray[Any]


class Actor(Protocol):
    """Chooses the actions of one time step, see ``trpo_fast.core.Policy.actor``."""

    def step(self, t: int, /) -> None:
        """Read observations[t], write actions[t], advance the counters.

        Parameters
        ----------
        t
            Row of the rollout, from 0.
        """


class ActingPolicy(Protocol):
    """The part of ``trpo_fast.core.Policy`` that samplers use."""

    @property
    def obs_dim(self) -> int:
        """O."""

    @property
    def dtype(self) -> Any:
        """dtype of observations and continuous actions."""

    def actor(
        self,
        observations: Array,
        actions: Array,
        counters: npt.NDArray[np.uint64],
        envs: npt.NDArray[np.uint32],
        *,
        seed: int,
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> Actor:
        """An actor on borrowed arrays.

        Parameters
        ----------
        observations
            What it reads: (T, E, O), dtype.
        actions
            What it writes: (T, E, A), dtype or int32.
        counters
            Actions drawn so far, which it advances: (E,).
        envs
            Index of each environment in the whole run: (E,).
        seed
            Seed of the run, in [0, 2**64).
        action_masks
            Which choices are allowed, which it reads: (T, E, W), bool. Given only where there are
            masks.
        """


class Sampler(Protocol):
    """Steps environments with a policy and hands back whole rollouts.

    Attributes
    ----------
    name
        How errors and logs call the environment.
    n_envs
        E.
    busy_cores
        Processors that a rollout has work for.
    metric_names
        Keys of the info of an episode's last step that rollouts keep, besides those of success.
    mask_source
        Where the environments say which actions are allowed, see `trpo_fast.envs.masks`; "auto"
        until the first reset tells.
    observation_encoder, action_adapter
        Between the spaces of the environment and arrays.
    """

    name: str
    n_envs: int
    busy_cores: int
    observation_encoder: ObservationEncoder
    action_adapter: ActionAdapter
    metric_names: tuple[str, ...]
    mask_source: str

    @property
    def n_workers(self) -> int:
        """Worker processes that step the environments; 0: none."""

    @property
    def is_busy(self) -> bool:
        """Whether a rollout, or a call in worker processes, is under way."""

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts and the seed of the run, in [0, 2**64).

        Parameters
        ----------
        policy
            Of the sampler's dimensions and dtype.
        seed
            In [0, 2**64).
        """

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch; ValueError where the environments cannot keep it.

        Parameters
        ----------
        sampling
            How a batch is counted.
        batch_size
            Steps of all environments together, at least 1.
        """

    def collect(
        self, budget: int | Budget, *, on_step: Callable[[], object] | None = None
    ) -> Rollout:
        """Take so many steps in every environment, going on where the last rollout stopped.

        Parameters
        ----------
        budget
            T for every environment, or what `budget` returned.
        on_step
            Called after every row.
        """

    def close(self) -> None:
        """Close the environments."""

    def state_dict(self) -> dict[str, Array]:
        """Counters and running episodes."""

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore what `state_dict` returned; the environments start anew.

        Parameters
        ----------
        state
            What `state_dict` returned.
        """

    def prepare_states(self) -> None:
        """Find out whether states can be saved, before the first rollout."""

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs beside `state_dict`; SnapshotError where it cannot be saved."""

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where a state was taken, or as `load_state_dict` where entries are missing.

        Parameters
        ----------
        state
            ``{**state_dict(), **environment_state()}``.
        """
