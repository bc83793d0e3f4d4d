"""What every sampler shares: binding, seeding, and the state of a run.

Seeding
-------
Environment e is reset the first time with the seed ``environment_seed(seed, e, counter=0)``, and
from then on draws its resets from its own generator. Environments that start anew in the middle of a
run (after `SamplerBase.load_state_dict`, or after an interrupted rollout) take
``environment_seed(seed, e, counter)`` with the number of actions taken so far, so that they do not
replay the beginning of the run. Action noise is the counter-based stream (key, e, counter) of the
policy's actor, with a key derived from the seed. Nothing depends on how many steps are collected at
a time, or on who steps which environment.

Letters of shapes: see `trpo_fast.rollout.data`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs import ActionAdapter, ObservationEncoder
from ..envs.masks import network_space
from ..seeds import Purpose, derive
from .budget import Budget
from .calls import on_environments
from .changes import EnvironmentChange, on_group
from .data import Rollout
from .errors import with_transitions
from .exclusive import Exclusive
from .interface import ActingPolicy
from .state import RunState
from .stored import StoredSampler

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..config import Sampling

Array: TypeAlias = npt.NDArray[Any]


class SamplerBase(StoredSampler):
    """Binding, seeding and state of a sampler; a subclass collects the rollouts.

    Parameters
    ----------
    name
        Name of the environment.
    observation_space, action_space
        The Gymnasium spaces of one environment.
    n_envs
        E.
    first_index
        Index of the first environment in the whole run. A group of environments that is a part of a
        larger run draws the same random numbers as in the whole.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    recovers_crashes
        Whether environments that crash are replaced, and their episodes dropped.
    mask_source
        Where the environments say which actions are allowed, see `trpo_fast.envs.masks`.

    Attributes
    ----------
    busy_cores
        Processors that a rollout has work for.
    mask_source
        The same; "auto" until the first reset tells.
    mask_width
        W, flags of a mask; 0 where there are none for certain.
    metric_names
        Keys of the info of an episode's last step that rollouts keep, besides those of success.
    observation_encoder, action_adapter
        Between the spaces of the environment and arrays.
    changes
        What environments that take the place of others are to get, see `change`.
    reset_options
        Options of every reset; None: none are passed.
    state
        What goes on from one rollout to the next.

    Raises
    ------
    TypeError, ValueError
        A space that is not supported.
    """

    def __init__(
        self,
        name: str,
        observation_space: Any,
        action_space: Any,
        *,
        n_envs: int,
        first_index: int = 0,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        recovers_crashes: bool = False,
        mask_source: str = "none",
    ) -> None:
        self.name = name
        self.n_envs = n_envs
        self.busy_cores = 1
        self.first_index = first_index
        self.recovers_crashes = recovers_crashes
        self.metric_names: tuple[str, ...] = ()
        self.changes: dict[tuple[str, str], EnvironmentChange] = {}
        self.reset_options: dict[str, Any] | None = None
        self.observation_space = observation_space
        self.action_space = action_space
        self.mask_source = mask_source
        self._mask_source_at_first = mask_source
        self.observation_encoder = ObservationEncoder.from_space(
            network_space(observation_space, mask_source), dtype
        )
        self.action_adapter = ActionAdapter.from_space(
            action_space, state_dependent_std=state_dependent_std, scaling=action_scaling
        )
        self.mask_width = 0
        if mask_source != "none":
            self.mask_width = self.action_adapter.distribution.mask_width
        self._policy: ActingPolicy | None = None
        self._seed = 0
        self._noise_key = 0  # of the stream of action noise
        self._started = False  # whether the environments are where the counters say
        self._closed = False
        self._exclusive = Exclusive("a rollout of this sampler")
        encoder = self.observation_encoder
        try:
            self.state = RunState(n_envs, encoder.dim, encoder.dtype, self.mask_width)
        except MemoryError as error:
            raise ValueError(
                f"env: expected observations that fit into memory, got {encoder.dim:,} entries in each "
                f"of {n_envs} environments; take smaller ones (gymnasium.ObservationWrapper)"
            ) from error

    # --- public ---

    @property
    def has_masks(self) -> bool:
        """Whether the environments say which actions are allowed, as far as is known."""
        return self.mask_source not in ("none", "auto")

    @property
    def n_workers(self) -> int:
        """Worker processes that step the environments; 0: none."""
        return 0

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return []

    @property
    def is_busy(self) -> bool:
        """Whether a rollout, or a call in worker processes, is under way."""
        return self._exclusive.is_taken

    @property
    def policy(self) -> ActingPolicy | None:
        """The policy that acts; None before `bind`."""
        return self._policy

    @property
    def seed(self) -> int:
        """Seed of environments and action noise, in [0, 2**64); 0 before `bind`."""
        return self._seed

    def bind(self, policy: ActingPolicy, *, seed: int) -> None:
        """Set the policy that acts, and the seed of environments and action noise.

        Parameters
        ----------
        policy
            Of the dimensions and the dtype of this sampler's observations.
        seed
            In [0, 2**64).

        Raises
        ------
        ValueError
            The policy does not fit the environment, or the seed is out of range.
        """
        seed = operator.index(seed)
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: expected an integer in [0, 2**64), got {seed}")
        encoder = self.observation_encoder
        if policy.obs_dim != encoder.dim:
            raise ValueError(
                f"policy: expected obs_dim {encoder.dim} for environment {self.name}, "
                f"got {policy.obs_dim}; make the policy from this sampler's observation_encoder"
            )
        if np.dtype(policy.dtype) != encoder.dtype:
            raise ValueError(
                f"policy: expected dtype {encoder.dtype.name}, got {np.dtype(policy.dtype).name}; "
                "make the sampler with the policy's dtype"
            )
        self._policy = policy
        self._seed = seed
        self._noise_key = derive(seed, Purpose.ACTION_NOISE)

    def budget(self, sampling: Sampling, batch_size: int) -> Budget:
        """The budget of a batch, or a ValueError where these environments cannot keep it.

        Parameters
        ----------
        sampling, batch_size
            As in `Budget.share`.
        """
        return Budget.share(sampling, batch_size, self.n_envs)

    def collect(
        self, budget: int | Budget, *, on_step: Callable[[], object] | None = None
    ) -> Rollout:
        """Take steps in every environment, going on where the last rollout stopped.

        After any exception the sampler is still usable: the steps of the broken rollout are dropped
        and the next one starts with fresh episodes.

        Parameters
        ----------
        budget
            T, steps of each environment, or a budget.
        on_step
            Called after every row of the rollout.

        Returns
        -------
        Rollout
            Its arrays are new ones.

        Raises
        ------
        ValueError
            A NaN, an infinity or a wrong shape; the message names environment and step, both
            counted from 0 (the step over the whole run, as drawn actions).
        EnvironmentFailure
            An environment raised or broke the Gymnasium interface, or an episode does not end
            within `LONGEST_EPISODE` steps beyond a budget of episodes.
        RuntimeError
            No policy is bound, the sampler is closed, or a rollout is under way already.
        """
        if not isinstance(budget, Budget):
            n_steps = operator.index(budget)
            if n_steps < 1:
                raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
            budget = Budget("steps", (n_steps,) * self.n_envs)
        if len(budget.steps) != self.n_envs:
            raise ValueError(
                f"budget: expected one for the {self.n_envs} environments, got one for "
                f"{len(budget.steps)}; ask this sampler for it"
            )
        if self._closed:
            raise RuntimeError("collect: the sampler is closed; make a new one")
        if self._policy is None:
            raise RuntimeError("collect: no policy is bound; call bind(policy, seed=...) first")
        with self._exclusive.taken("collect"):
            return with_transitions(self._collect(budget, on_step))

    def close(self) -> None:
        """Close the environments; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._started = False
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map_environments(
        self, function: Callable[..., Any], arguments: Sequence[Any] | None = None
    ) -> list[Any]:
        """Call a function on each environment, wherever that is.

        Parameters
        ----------
        function
            Called as ``function(environment)``, or ``function(environment, arguments[e])``.
        arguments
            E of them, or None.

        Returns
        -------
        list
            The E results in the order of the environments.

        Raises
        ------
        NotImplementedError
            As `map_groups`.
        """
        given = [None if arguments is None else list(arguments[group]) for group in self.groups]
        results = self.map_groups(
            on_environments, [(function, part) for part in given], name="map_environments"
        )
        return [result for group in results for result in group]

    def change(self, change: EnvironmentChange) -> list[Any]:
        """Do something with every environment, wherever that is, see `trpo_fast.rollout.changes`.

        Parameters
        ----------
        change
            A call, an attribute, or options of resets.

        Returns
        -------
        list
            One result an environment.

        Raises
        ------
        AttributeError
            None of them has the name.
        RuntimeError
            A rollout is under way, or the sampler is closed.
        """
        if self.is_busy or self._closed:
            why = "the environments are closed" if self._closed else "a rollout is under way"
            raise RuntimeError(
                f"environments: expected to be between two rollouts, but {why}; do it between two "
                "calls of learn, or in a callback after an iteration"
            )
        parts = self.map_groups(on_group, [change] * len(self.groups), name="environments")
        if change.kind != "get":
            self.changes[change.key] = change
        return [result for part in parts for result in part]

    # --- for subclasses ---

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        """One rollout within a budget for these environments."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close the environments."""
        raise NotImplementedError
