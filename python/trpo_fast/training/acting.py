"""What an agent does with its policy: single actions, judgements, whole episodes, exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..envs import EnvSource
    from ..export import Number, Target
    from ..rollout import Sampler
    from .agent import OnPolicyAgent
    from .environments import Environments
    from .episodes import EvaluationResult
    from .policy import Policy

    Float64 = NDArray[np.float64]


class ActingAgent:
    """The part of an agent that acts: ``predict``, ``evaluate`` and what belongs to them."""

    acting: Policy
    """The policy that is trained, from the environment's observations to its actions."""
    sampler: Sampler
    """Steps the training environments."""
    env_source: EnvSource
    """The environment as it was given."""
    env_kwargs: dict[str, Any]
    """Keyword arguments of ``gymnasium.make``."""
    env_name: str
    """The id of the environment, or another name for it."""

    @cached_property
    def environments(self) -> Environments:
        """Reaches every training environment: methods, attributes, options of resets."""
        from .environments import Environments

        return Environments(cast("OnPolicyAgent[Any]", self))

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        action_masks: Any = None,
    ) -> tuple[Any, None]:
        """The action of the policy that is trained: :meth:`.Policy.predict`.

        Parameters
        ----------
        observation, state, episode_start, deterministic, action_masks
            As in :meth:`.Policy.predict`.

        Returns
        -------
        tuple
            The action, or actions, and None.
        """
        return self.acting.predict(
            observation, deterministic=deterministic, action_masks=action_masks
        )

    @property
    def mask_source(self) -> str:
        """Where the environments say which actions are allowed; "auto" until that is known."""
        return self.acting.mask_source

    def values(self, observation: Any) -> Float64 | float:
        """V(s) in the units of the rewards, see :meth:`.Policy.values`.

        Parameters
        ----------
        observation
            One observation as the environment gives it, or a batch of N.

        Returns
        -------
        float or ndarray
            (N,) float64 for a batch.
        """
        return self.acting.values(observation)

    def evaluate_actions(
        self, observation: Any, action: Any, *, action_masks: Any = None
    ) -> tuple[Float64 | float, Float64 | float, Float64 | float]:
        """V(s), log pi(a|s) and entropy of pi(.|s), see :meth:`.Policy.evaluate_actions`.

        Parameters
        ----------
        observation
            One observation as the environment gives it, or a batch of N.
        action
            As ``step`` takes it, or a batch.
        action_masks
            Which choices are allowed, or a batch of such, see :meth:`.Policy.predict`.

        Returns
        -------
        values, log_prob, entropy
            Each a float, or (N,) float64 for a batch; in reward units, nats and nats.
        """
        return self.acting.evaluate_actions(observation, action, action_masks=action_masks)

    def frozen_policy(self, *, seed: int | None = None) -> Policy:
        """The policy as it is now, by itself: without environments, untouched by further training.

        It acts, is judged, saved, copied and pickled by itself, in worker processes and as an
        opponent in other environments too.

        Parameters
        ----------
        seed
            Seed of its sampled actions; by default it draws what this agent's :meth:`predict` would
            draw next.
        """
        return self.acting.copy(seed=seed)

    def export(
        self,
        path: str | os.PathLike[str],
        to: Target | None = None,
        *,
        sample: bool = False,
        number: Number = "float",
    ) -> Path:
        """Write the policy for another program: ONNX, C, PyTorch, NumPy, Stable-Baselines3.

        Parameters
        ----------
        path, to, sample, number
            As in :meth:`.Policy.export`; see :mod:`trpo_fast.export`.

        Returns
        -------
        Path
            The file.
        """
        return self.acting.export(path, to, sample=sample, number=number)

    def card(self, evaluation: EvaluationResult | None = None, *, licence: str = "mit") -> str:
        """A model card: what others need to use and judge the policy, in Markdown.

        >>> print(agent.card(agent.evaluate(episodes=100)))

        Parameters
        ----------
        evaluation
            What :meth:`evaluate` gave; without it the card has no results.
        licence
            Identifier of the policy's licence, as hubs of models know it.
        """
        from .card import model_card

        return model_card(cast("OnPolicyAgent[Any]", self), evaluation, licence=licence)

    def save_folder(
        self,
        folder: str | os.PathLike[str],
        evaluation: EvaluationResult | None = None,
        *,
        forms: Sequence[Target] = (),
        licence: str = "mit",
    ) -> Path:
        """Write a folder that a hub of models takes as it is; nothing is sent anywhere.

        ::

            README.md            the card
            policy.safetensors   the policy by itself: trpo_fast.Policy.load
            config.json          the settings
            results.json         what the evaluation gave
            policy.onnx, ...     exported forms

        Parameters
        ----------
        folder
            Made where it is missing; files of these names in it are replaced.
        evaluation
            What :meth:`evaluate` gave; without it there are no results.
        forms
            Exported forms to add, such as ``("onnx", "c")``, see :meth:`export`.
        licence
            As of :meth:`card`.

        Returns
        -------
        Path
            The folder.
        """
        from .card import write_model_folder

        return write_model_folder(
            cast("OnPolicyAgent[Any]", self), folder, evaluation, forms=forms, licence=licence
        )

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
        episodes, deterministic, seed
            As in `trpo_fast.evaluation.evaluate_policy`: by default the mode of the policy acts.
        env
            Another environment than a copy of the training environment. An id or a factory can be
            made again; an ``Env`` that Gymnasium did not make cannot, so pass one then. It must not
            be the training environment itself.
        max_steps
            An episode is cut after so many steps; by default after 10,000, or after those of the
            environment's own time limit or of the longest training episode if that is longer.

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
        sampler = self.sampler
        shares = sampler.n_workers and getattr(sampler, "evaluates_in_workers", True)
        return sampler if shares and not sampler.is_busy else None

    def evaluation_environment(self, render_mode: str | None = None) -> Callable[[], Any]:
        """A callable that makes an environment like those of training.

        Parameters
        ----------
        render_mode
            Of Gymnasium; None: frames are not wanted.

        Raises
        ------
        ValueError
            if the environment was given as an object that Gymnasium did not make.
        """
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        make = self._maker(rendering)
        changes = self.environments.for_evaluation
        if not changes:
            return make
        from ..rollout.changes import made_with

        return partial(made_with, make, changes)

    def _maker(self, rendering: dict[str, Any]) -> Callable[[], Any]:
        from ..envs import NamedEnvironment, copy_environment, maker_of

        source = self.env_source
        if isinstance(source, str):
            return partial(copy_environment, source, **{**self.env_kwargs, **rendering})
        make = source if isinstance(source, NamedEnvironment) else maker_of(source)
        if make is not None:
            return partial(make, **rendering)
        if callable(source):
            return source
        raise ValueError(
            f"evaluate: the environment {self.env_name} was given as an object and cannot be made "
            "again; pass env= with another copy of it."
        )
