"""A policy by itself: from an environment's observations to its actions, without the environment.

>>> policy = trpo_fast.Policy.load("run/checkpoint.safetensors")
>>> action, _ = policy.predict(observation, deterministic=True)

It needs NumPy, safetensors and the compiled core; neither Gymnasium nor the environment is imported.
An agent acts through such an object too, so both do the same.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..seeds import Purpose, derive
from .critic import Critic
from .policy_state import parts_from_state, policy_state

if TYPE_CHECKING:
    from ..envs import ActionAdapter, ObservationEncoder
    from ..export import Number, Target

__all__ = ["Policy"]
Float64 = NDArray[np.float64]


class Policy:
    """A policy that takes raw observations and gives what the environment's ``step`` takes.

    Every method takes one observation as the environment gives it, of any supported space, or a
    batch laid out as vector environments do (one leading axis more in every leaf). For a batch of N
    the results have a leading axis of N; for one observation they have none. Normalisation, where the
    policy was trained with it, happens inside.

    Copies and pickles are frozen: training that goes on does not change them. They are small (the
    parameters) and hold no environment, so they go to worker processes and into other
    environments, as an opponent for example.

    Parameters
    ----------
    network
        Network, action distribution and normaliser.
    encoder
        Turns observations into rows.
    adapter
        Turns rows of actions into those of the environment.
    seed
        Key of the random numbers that sampled actions are drawn with, in [0, 2**64).
    drawn
        Calls of :meth:`predict` that have sampled, the position in that stream.
    critic
        The value function; None for a policy without one.
    mask_source
        Where the environment says which actions are allowed: "info", "method", "observation:<name>",
        "none", or "auto" where that is not known yet. Masks that are a part of the observation are
        taken from it; others are given as ``action_masks``.
    """

    def __init__(
        self,
        network: core.Policy,
        encoder: ObservationEncoder,
        adapter: ActionAdapter,
        *,
        seed: int = 0,
        drawn: int = 0,
        critic: Critic | None = None,
        mask_source: str = "none",
    ) -> None:
        self.network = network
        self.encoder = encoder
        self.adapter = adapter
        self.seed = seed
        self.drawn = drawn
        self.critic = critic
        self.mask_source = mask_source
        self._to_env = adapter.step_converter(1, network.dtype)

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        action_masks: Any = None,
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
        action_masks
            0 and 1 for every choice, or a batch of such: which are allowed. One mask of Discrete has
            (n,) entries, of MultiDiscrete those of its components one after the other, of MultiBinary
            those that may be 1, or (n, 2). None: that of the observation where it holds one, else
            everything is allowed.

        Returns
        -------
        tuple
            What the environment's ``step`` takes (clipped, in the space's shape and dtype), and None.

        Raises
        ------
        ValueError
            An observation of another space, or with a NaN or an infinity; masks of another shape, or
            that allow nothing.
        """
        is_plain = self.encoder.is_plain and not isinstance(observation, np.ma.MaskedArray)
        if is_plain and (action_masks is None or np.ndim(observation) == 1):
            # One call of the core for a plain vector; None where it is a batch, or needs converting.
            mask = self._masks(action_masks, observation, None)
            action = self.network.act_one(
                observation,
                deterministic=deterministic,
                seed=self.seed,
                step=self.drawn,
                action_mask=None if mask is None else mask[0],
            )
            if action is not None:
                self.drawn += not deterministic
                return self._to_env(action)[0], None
        rows, is_batch = self._rows(observation)
        masks = self._masks(action_masks, observation, len(rows) if is_batch else None)
        if deterministic:
            actions = self.network.act(rows, deterministic=True, action_masks=masks)
        else:
            steps = np.full(len(rows), self.drawn, np.uint64)
            actions = self.network.act(rows, seed=self.seed, steps=steps, action_masks=masks)
            self.drawn += 1
        return (self.adapter.to_env(actions) if is_batch else self._to_env(actions)[0]), None

    def values(self, observation: Any) -> Float64 | float:
        """V(s), the expected discounted return, in the units of the rewards.

        Parameters
        ----------
        observation
            One observation, or a batch of N.

        Returns
        -------
        float or ndarray
            (N,) float64 for a batch.

        Raises
        ------
        ValueError
            An observation of another space, or a policy without a value function.
        """
        rows, is_batch = self._rows(observation)
        return _result(self._values(self.network.normalize(rows)), is_batch)

    def log_prob(
        self, observation: Any, action: Any, *, action_masks: Any = None
    ) -> Float64 | float:
        """log pi(a|s), summed over the components of an action.

        Parameters
        ----------
        observation
            One observation, or a batch of N.
        action
            As ``step`` takes it, or a batch (N, ...). Numbers of a Box may lie beyond its bounds: the
            density is that of the distribution before anything is clipped, per unit of the
            distribution's own coordinates.
        action_masks
            As in :meth:`predict`.

        Returns
        -------
        float or ndarray
            (N,) float64 for a batch; nats. Of a forbidden action it is a large negative number, whose
            exponential is 0.

        Raises
        ------
        ValueError, TypeError
            Something of another space, or different numbers of observations and actions.
        """
        rows, is_batch = self._rows(observation)
        stored = self._stored(action, len(rows), is_batch)
        masks = self._masks(action_masks, observation, len(rows) if is_batch else None)
        return _result(self.network.log_prob(rows, stored, action_masks=masks), is_batch)

    def entropy(self, observation: Any, *, action_masks: Any = None) -> Float64 | float:
        """Entropy of pi(.|s), summed over the components of an action.

        Parameters
        ----------
        observation
            One observation, or a batch of N.
        action_masks
            As in :meth:`predict`.

        Returns
        -------
        float or ndarray
            (N,) float64 for a batch; nats.
        """
        rows, is_batch = self._rows(observation)
        masks = self._masks(action_masks, observation, len(rows) if is_batch else None)
        return _result(self.network.entropy(rows, action_masks=masks), is_batch)

    def evaluate_actions(
        self, observation: Any, action: Any, *, action_masks: Any = None
    ) -> tuple[Float64 | float, Float64 | float, Float64 | float]:
        """:meth:`values`, :meth:`log_prob` and :meth:`entropy` at once.

        Parameters
        ----------
        observation
            One observation, or a batch of N.
        action
            As in :meth:`log_prob`.
        action_masks
            As in :meth:`predict`.

        Returns
        -------
        values, log_prob, entropy
            Each a float, or (N,) float64 for a batch.
        """
        rows, is_batch = self._rows(observation)
        stored = self._stored(action, len(rows), is_batch)
        masks = self._masks(action_masks, observation, len(rows) if is_batch else None)
        inputs = self.network.normalize(rows)
        settings: dict[str, Any] = {"normalized": True, "action_masks": masks}
        return (
            _result(self._values(inputs), is_batch),
            _result(self.network.log_prob(inputs, stored, **settings), is_batch),
            _result(self.network.entropy(inputs, **settings), is_batch),
        )

    def distribution_parameters(
        self, observation: Any, *, action_masks: Any = None
    ) -> dict[str, NDArray[Any]]:
        """What the policy says of an action, before anything is sampled or clipped.

        Parameters
        ----------
        observation
            One observation, or a batch of N.
        action_masks
            As in :meth:`predict`.

        Returns
        -------
        dict
            For a Box "mean" and "log_std", (A,) each, in the distribution's own coordinates. For
            discrete spaces "logits" and "probabilities": of the n values of Discrete, of those of
            every component of MultiDiscrete one after the other, of a 1 in every place of
            MultiBinary. float64; (N, ...) for a batch. What a mask forbids has a large negative logit,
            and probability 0.
        """
        rows, is_batch = self._rows(observation)
        masks = self._masks(action_masks, observation, len(rows) if is_batch else None)
        outputs = self.network.outputs(rows, action_masks=masks).astype(np.float64)
        found = _parameters_of(self.network, outputs)
        return found if is_batch else {name: array[0] for name, array in found.items()}

    def _rows(self, observation: Any) -> tuple[NDArray[Any], bool]:
        rows, is_batch = self.encoder.encode_any(observation)
        if not np.isfinite(rows).all():
            from ..envs import ObservationError

            raise ObservationError("observation: expected finite numbers, got NaN or infinity.")
        return rows, is_batch

    def _masks(self, given: Any, observation: Any, n: int | None) -> NDArray[np.bool_] | None:
        """Masks (N, W), those given or those of the observation; None: everything is allowed."""
        if given is None and not self.mask_source.startswith("observation:"):
            return None
        from ..envs.masks import mask_in, mask_row

        if given is None:
            given = mask_in(self.mask_source, observation)
        distribution = self.network.distribution
        if n is None:
            return mask_row(distribution, given)[np.newaxis]
        return core.mask_rows(distribution, given, n)

    def _stored(self, action: Any, n: int, is_batch: bool) -> NDArray[Any]:
        actions = action if is_batch else np.asarray(action)[np.newaxis]
        stored = self.adapter.from_env(actions, self.network.dtype)
        if len(stored) != n:
            raise ValueError(f"actions: expected {n}, one for each observation, got {len(stored)}.")
        return stored

    def _values(self, inputs: NDArray[Any]) -> Float64:
        if self.critic is None:
            raise ValueError(
                "values: this policy has no value function; its algorithm or its file has none."
            )
        return self.critic.predict(inputs)

    # --------------------------------------------------------------------------------------- files

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, seed: int | None = None) -> Policy:
        """Read the policy of a checkpoint, or one that :meth:`save` has written.

        Parameters
        ----------
        path
            The file.
        seed
            Seed of sampled actions; by default they go on as the agent's ``predict`` would.

        Raises
        ------
        CheckpointError
            A damaged or foreign file.
        """
        from ..checkpoint import CheckpointError, load_checkpoint

        tensors, metadata = load_checkpoint(path)
        try:
            policy = cls(**parts_from_state(tensors, metadata)._asdict())
        except CheckpointError:
            raise
        except Exception as error:
            # The file is intact, but no agent has written it: whoever reads an entry says what is wrong.
            raise CheckpointError(
                f"checkpoint {os.fspath(path)}: expected the state of a policy, got an entry that "
                f"does not fit ({type(error).__name__}: {error}); was it written by trpo_fast?"
            ) from error
        return policy if seed is None else policy.copy(seed=seed)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy, and its value function, into a file that :meth:`load` reads.

        It holds the parameters, neither optimiser nor environments, so it is about a third of a
        checkpoint. Its format is that of checkpoints: durable, no code in it.

        Parameters
        ----------
        path
            The file.
        """
        from ..checkpoint import save_checkpoint

        return save_checkpoint(path, *policy_state(self))

    def copy(self, *, seed: int | None = None) -> Policy:
        """The policy as it is now; training that goes on does not change the copy.

        Parameters
        ----------
        seed
            Seed of sampled actions, in [0, 2**64); by default the copy draws what this policy would
            draw next.
        """
        copied = copy.deepcopy(self)
        if seed is not None:
            copied.seed, copied.drawn = derive(seed, Purpose.PREDICTIONS), 0
        return copied

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
        path, to
            The file, and the target where its ending does not tell it, see :mod:`trpo_fast.export`.
        sample, number
            ONNX and PyTorch: give samples from noise, not the mode. C: compute in "fixed" point only.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError, ImportError
            A policy that the target cannot express; or the package that writes it is not installed.
        """
        from ..export import export_policy, policy_function

        has_masks = self.mask_source not in ("none", "auto")
        parts = (self.network, self.encoder, self.adapter)
        function = policy_function(*parts, has_masks=has_masks, critic=self.critic)
        return export_policy(function, path, to, sample=sample, number=number)

    def __reduce__(self) -> tuple[Any, ...]:
        # Bytes and text only, so that unpickling refers to nothing but this module.
        tensors, metadata = policy_state(self)
        arrays = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in tensors.items()}
        return _unpickled, (arrays, json.dumps(metadata))

    def __repr__(self) -> str:
        return (
            f"Policy({self.encoder.space} -> {self.adapter.space}, "
            f"hidden_sizes={self.network.hidden_sizes}, activation={self.network.activation!r})"
        )


def _unpickled(arrays: Mapping[str, tuple[str, tuple[int, ...], bytes]], metadata: str) -> Policy:
    tensors = {
        name: np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, data) in arrays.items()
    }
    return Policy(**parts_from_state(tensors, json.loads(metadata))._asdict())


def _result(array: Any, is_batch: bool) -> Float64 | float:
    return np.asarray(array, np.float64) if is_batch else float(array[0])


def _parameters_of(network: core.Policy, outputs: Float64) -> dict[str, NDArray[Any]]:
    """The parameters of the distribution, (N, ...) float64, of outputs (N, P)."""
    distribution = network.distribution
    if distribution.kind == "gaussian":
        where, _ = network.parameter_layout["log_std"]
        log_std = network.parameters[where].astype(np.float64)
        return {"mean": outputs, "log_std": np.broadcast_to(log_std, outputs.shape).copy()}
    if distribution.kind == "state_dependent_gaussian":
        mean, log_std = np.split(outputs, 2, axis=1)
        return {"mean": mean, "log_std": np.clip(log_std, *core.LOG_STD_BOUNDS)}
    if distribution.kind == "bernoulli":
        with np.errstate(over="ignore"):  # of a bit that may not be 1: its probability is 0
            return {"logits": outputs, "probabilities": 1.0 / (1.0 + np.exp(-outputs))}
    ends = np.cumsum(distribution.sizes)[:-1]
    groups = []
    for logits in np.split(outputs, ends, axis=1):
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        groups.append(weights / weights.sum(axis=1, keepdims=True))
    return {"logits": outputs, "probabilities": np.concatenate(groups, axis=1)}
