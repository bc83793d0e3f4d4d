"""The part of an agent that goes into files: ``save`` and ``load``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from numpy.typing import ArrayLike, NDArray

from ..words import printable

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..config import AgentConfig
    from ..envs import EnvSource
    from ..rollout import Exclusive, Sampler
    from .agent import OnPolicyAgent
    from .policy import Policy
    from .saving import SavedState


class StoredAgent:
    """The part of an agent that goes into files: ``save`` and ``load``."""

    config_type: ClassVar[type[AgentConfig]]
    notice: str
    """What the next record is to say besides its numbers."""
    restarted_because = ""
    """Why the environments started anew at the latest load, until the next iteration."""
    _said: frozenset[str] = frozenset()  # what `say_once` has been given

    def say_once(self, sentence: str) -> None:
        """Let the next record say this, unless an earlier one has.

        Parameters
        ----------
        sentence
            Without a full stop; an empty one is not said.
        """
        sentence = printable(sentence)
        if sentence and sentence not in self._said:
            self._said |= {sentence}
            self.notice = f"{self.notice}; {sentence}" if self.notice else sentence

    def note_masks(self) -> None:
        """Let predictions know where the environments have masks, and the user, once."""
        from ..envs.masks import describe_source

        source = self.acting.mask_source = self.sampler.mask_source
        if where := describe_source(source):
            self.say_once(f"actions are masked by {where}; action_masks='none' turns that off")

    def restore_masks(self, source: str) -> None:
        """Take masks from where a saved run took them, which has seen the first reset.

        Parameters
        ----------
        source
            What its sampler said.
        """
        if source not in ("auto", "none", "info", "method", self.sampler.mask_source):
            raise ValueError(f"mask_source: expected where masks are, got {source!r:.80}")
        if self.sampler.mask_source != "none":
            self.sampler.mask_source = source
        self.acting.mask_source = self.sampler.mask_source

    learning: Exclusive
    acting: Policy
    sampler: Sampler

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a checkpoint: safetensors with JSON inside, durable, no code in it.

        What was learned is saved whatever the environments do. Where their state cannot be, the
        next record says why, and a file of this very step that holds it stands.

        Parameters
        ----------
        path
            File to write; an older one is kept as ``<name>.previous``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        CheckpointError
            It cannot be written; what stood there is intact.
        RuntimeError
            The agent is learning in another thread.
        """
        from .saving import save_agent

        if self.learning.is_taken_by_another_thread:
            raise RuntimeError(
                "save: the agent is learning in another thread; save it in a callback of learn, such "
                "as trpo_fast.callbacks.CheckpointEvery, or when learn has returned"
            )
        return save_agent(cast("OnPolicyAgent[Any]", self), path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvSource | None = None,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        n_workers: int | None = None,
        n_threads: int | None = None,
        **changes: Any,
    ) -> Self:
        """Read a checkpoint and go on.

        >>> agent = TRPO.load("run.safetensors", env=make_my_environment)

        Training goes on bit for bit where the environments' state could be saved, and with new
        episodes where not: the next record says so.

        Parameters
        ----------
        path
            File that :meth:`save` has written.
        env
            What is stepped; by default the id that the agent was trained on. An agent that was
            trained on a function's environments, or on an object, asks for it.
        env_kwargs
            Keyword arguments of ``gymnasium.make``; they count before those of the file, and must
            be given where the file could not hold them.
        n_workers, n_threads
            They belong to the machine, not to the run; None keeps those of the file.
        **changes
            Settings that are to differ from now on, as in :meth:`set`; ``worker_timeout`` and
            ``restart_crashed_environments`` too.

        Raises
        ------
        CheckpointError
            A damaged or foreign file, or one of other spaces than the environment has.
        ConfigError
            A setting that cannot change.
        """
        from ..checkpoint import load_checkpoint

        tensors, metadata = load_checkpoint(path)
        for name, value in (("n_workers", n_workers), ("n_threads", n_threads)):
            if value is not None:
                changes[name] = value
        return cls.from_state(tensors, metadata, env, env_kwargs=env_kwargs, **changes)

    @classmethod
    def from_sb3(
        cls,
        path: str | os.PathLike[str],
        env: EnvSource,
        *,
        vec_normalize: str | os.PathLike[str] | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """Take over a policy of sb3-contrib's TRPO, or of PPO or A2C, and go on from it.

        >>> agent = TRPO.from_sb3("model.zip", "HalfCheetah-v5", vec_normalize="vecnormalize.pkl")

        It acts as there: the same weights, normalisation and clipping. Neither PyTorch nor
        Stable-Baselines3 is needed, and nothing that is pickled in the files is run. Gamma, KL bound
        and other plain numbers of the training are taken over too; Adam's moments are not.

        Parameters
        ----------
        path
            The zip that ``model.save`` has written.
        env
            What is stepped; its spaces must be those of the policy.
        vec_normalize
            What ``VecNormalize.save`` has written, where the policy was trained in one.
        env_kwargs
            Keyword arguments of ``gymnasium.make``, where ``env`` is an id.
        **settings
            Settings that are to differ from those of the training there.

        Raises
        ------
        ForeignFileError
            (a ``ValueError``) A damaged file, or a policy that is no multilayer perceptron or of other
            spaces.
        ConfigError
            A setting that would make other networks.
        """
        from ..foreign import read_sb3
        from .foreign_agent import agent_from_foreign

        networks = read_sb3(path, vec_normalize)
        agent_class = cast("type[OnPolicyAgent[Any]]", cls)
        return cast("Self", agent_from_foreign(agent_class, networks, env, settings, env_kwargs))

    @classmethod
    def from_state_dict(
        cls,
        state: str | os.PathLike[str] | Mapping[str, Any],
        env: EnvSource,
        *,
        policy: str = "policy.",
        value: str | None = None,
        log_std: ArrayLike | None = None,
        activation: str = "tanh",
        observation_mean: ArrayLike | None = None,
        observation_variance: ArrayLike | None = None,
        observation_epsilon: float = 1e-8,
        env_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """Take over multilayer perceptrons of PyTorch, such as Tianshou's, and go on from them.

        >>> agent = TRPO.from_state_dict("algorithm.pth", env, policy="policy.actor.", value="critic.")

        The policy's network gives means, before any squashing, or logits. Names say what belongs to
        it: all linear layers below ``policy``, in their order.

        Parameters
        ----------
        state
            What ``torch.save(module.state_dict(), path)`` has written, read without PyTorch; or a
            mapping of names to tensors or arrays.
        env
            What is stepped; its spaces must be those of the policy.
        policy, value
            What the names of the policy's and of the value function's weights begin with; without
            ``value`` the value function is new.
        log_std
            Logarithms of the deviations (A,), or one for all; None looks for a parameter below
            ``policy`` whose name holds log_std or sigma.
        activation
            Of all hidden layers, which no state dict tells.
        observation_mean, observation_variance
            (O,) each, where observations were normalised.
        observation_epsilon
            Added to the variance, at least 0.
        env_kwargs
            Keyword arguments of ``gymnasium.make``, where ``env`` is an id.
        **settings
            Settings of the agent. Actions go to the environment as they are, clipped, unless
            ``action_scaling=True`` maps [-1, 1] to its bounds.

        Raises
        ------
        ForeignFileError
            (a ``ValueError``) A damaged file, layers that do not fit each other or the spaces.
        ConfigError
            A setting that would make other networks.
        """
        from ..foreign import networks_of, read_torch_file, state_dict_of
        from .foreign_agent import agent_from_foreign

        arrays = state_dict_of(state) if isinstance(state, Mapping) else read_torch_file(state)
        networks = networks_of(
            arrays, policy=policy, value=value, log_std=log_std, activation=activation
        ).with_normalizer(observation_mean, observation_variance, observation_epsilon, settings)
        agent_class = cast("type[OnPolicyAgent[Any]]", cls)
        return cast("Self", agent_from_foreign(agent_class, networks, env, settings, env_kwargs))

    def state(self) -> SavedState:
        """Everything that the agent is, as arrays by name and as JSON can hold the rest."""
        from .saved_state import state_of

        return state_of(cast("OnPolicyAgent[Any]", self))

    def state_tensors(self) -> dict[str, NDArray[Any]]:
        """Every array of the agent's state by name."""
        return self.state().tensors

    def state_metadata(self) -> dict[str, Any]:
        """The rest of the agent's state, as JSON can hold it."""
        return self.state().metadata

    @classmethod
    def from_state(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
        env: EnvSource | None = None,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Self:
        """Rebuild an agent from what :meth:`state` gave; arguments as in :meth:`load`.

        Parameters
        ----------
        tensors, metadata
            The state.
        env
            What is stepped; None makes the environment of the id that the state names.
        env_kwargs
            Keyword arguments of the environment; they win over those of the state.
        **changes
            Settings that are to differ.
        """
        from ..checkpoint import CheckpointError
        from .saved_state import agent_from_state

        algorithm = metadata.get("algorithm")
        if algorithm is None:
            if "prediction_seed" in metadata:
                raise CheckpointError(
                    "checkpoint: expected the state of an agent, got a policy by itself, which cannot "
                    "be trained on; load it with trpo_fast.Policy.load."
                )
            raise CheckpointError(
                "checkpoint: expected an entry 'algorithm', got none; was it written by trpo_fast?"
            )
        writer = cls if algorithm == cls.__name__ else cls.written_by(str(algorithm))
        built = agent_from_state(
            cast("type[OnPolicyAgent[Any]]", writer), tensors, metadata, env, changes, env_kwargs
        )
        return cast("Self", built)

    @classmethod
    def written_by(cls, algorithm: str) -> type[Self]:
        """The class of that name, where this one may stand for it: a class stands for itself.

        Parameters
        ----------
        algorithm
            Name of a class, as files hold it.
        """
        from ..checkpoint import CheckpointError

        raise CheckpointError(
            f"checkpoint: expected one of {cls.__name__}, got one of {algorithm}; load it with "
            "TRPO.load or the class that wrote it."
        )

    def own_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON entries by name, beyond those of every agent, that files must hold."""
        return {}, {}

    def restore_own_state(
        self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
    ) -> None:
        """Take over what :meth:`own_state` returned from all arrays and entries of a file.

        Parameters
        ----------
        tensors
            All arrays of the file.
        metadata
            All entries of the file.
        """
