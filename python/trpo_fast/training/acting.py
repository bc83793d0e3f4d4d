"""What a policy does: single actions, and whole episodes of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import core

if TYPE_CHECKING:
    from ..envs import ActionAdapter, EnvSource, ObservationEncoder
    from ..rollout import Sampler
    from .episodes import EvaluationResult


class Acting:
    """A policy between an environment's observations and its actions.

    Parameters
    ----------
    policy
        Acts on encoded observations.
    encoder
        From the environment's observations to rows.
    adapter
        From rows of actions to the environment's.
    seed
        Seed of sampled actions.
    """

    def __init__(
        self, policy: core.Policy, encoder: ObservationEncoder, adapter: ActionAdapter, seed: int
    ) -> None:
        self.policy = policy
        self.encoder = encoder
        self.adapter = adapter
        self.seed = seed
        self.drawn = 0
        """Calls that have sampled actions: the position in their random stream."""
        self._to_env = adapter.step_converter(1, policy.dtype)

    def predict(self, observation: Any, *, deterministic: bool) -> Any:
        """Action for one observation, or actions for a batch of them.

        Raises
        ------
        ValueError
            An observation of another shape, or with a NaN or an infinity.
        """
        if self.encoder.is_plain:
            # One call of the core for a plain vector; None where it is a batch, or needs converting.
            action = self.policy.act_one(
                observation, deterministic=deterministic, seed=self.seed, step=self.drawn
            )
            if action is not None:
                self.drawn += not deterministic
                return self._to_env(action)[0]
        rows, is_batch = self.encoder.encode_any(observation)
        if not np.isfinite(rows).all():
            raise ValueError("observation: expected finite numbers, got NaN or infinity.")
        if deterministic:
            actions = self.policy.act(rows, deterministic=True)
        else:
            steps = np.full(len(rows), self.drawn, np.uint64)
            actions = self.policy.act(rows, seed=self.seed, steps=steps)
            self.drawn += 1
        return self.adapter.to_env(actions) if is_batch else self._to_env(actions)[0]


class ActingAgent:
    """The part of an agent that acts: ``predict`` and ``evaluate``."""

    acting: Acting
    """The policy between the environment's observations and its actions."""
    sampler: Sampler
    """Steps the training environments."""
    env_source: EnvSource
    """The environment as it was given."""
    env_kwargs: dict[str, Any]
    """Keyword arguments of ``gymnasium.make``."""
    env_name: str
    """The id of the environment, or another name for it."""

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, None]:
        """Action for one observation, or actions for a batch: ``(action, None)``.

        Parameters
        ----------
        observation
            As the environment gives it, or a batch of such.
        state, episode_start
            Not used; the signature is that of Stable-Baselines3.
        deterministic
            True: the mode of the policy. False: a sample.

        Returns
        -------
        tuple
            What the environment's ``step`` takes (clipped, in the space's shape and dtype), and None.
        """
        return self.acting.predict(observation, deterministic=deterministic), None

    def evaluate(
        self,
        episodes: int = 10,
        *,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
        max_steps: int | None = None,
    ) -> EvaluationResult:
        """Run whole episodes in environments of their own; training is not touched.

        Parameters
        ----------
        episodes, deterministic, seed, max_steps
            As in `trpo_fast.evaluation.evaluate_policy`: by default the mode of the policy acts, and
            an episode is cut after 10,000 steps, or after those of the environment's own time limit
            or of the longest training episode if that is longer.
        env
            Another environment than a copy of the training environment. An id or a factory can be
            made again; an ``Env`` that Gymnasium did not make cannot, so pass one then. It must not
            be the training environment itself.

        Returns
        -------
        EvaluationResult
            Returns and lengths of the episodes, and which of them were cut.
        """
        from .evaluation import evaluate_policy

        return evaluate_policy(
            self, env, episodes, deterministic=deterministic, seed=seed, max_steps=max_steps
        )

    @property
    def evaluation_workers(self) -> Any:
        """The sampler whose workers share the episodes of an evaluation.

        None without workers, and while these are in the middle of a rollout: the evaluation then
        runs in this process.
        """
        return self.sampler if self.sampler.n_workers and not self.sampler.is_busy else None

    def evaluation_environment(self, render_mode: str | None = None) -> Callable[[], Any]:
        """A callable that makes an environment like those of training.

        Raises
        ------
        ValueError
            if the environment was given as an object that Gymnasium did not make.
        """
        from ..envs import copy_environment, maker_of

        source = self.env_source
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        if isinstance(source, str):
            return partial(copy_environment, source, **{**self.env_kwargs, **rendering})
        make = maker_of(source)
        if make is not None:
            return partial(make, **rendering)
        if callable(source):
            return source
        raise ValueError(
            f"evaluate: the environment {self.env_name} was given as an object and cannot be made "
            "again; pass env= with another copy of it."
        )
