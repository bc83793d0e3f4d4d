"""Policies of Stable-Baselines3 and sb3-contrib: the zip that ``model.save`` writes.

Read are ``policy.pth``, the tensors, and the plain numbers of ``data``; whatever is pickled in it stays
unread. ``VecNormalize.save`` writes a pickle, whose arrays are taken out of inert records.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .networks import ForeignNetworks, layers_of
from .records import ForeignFileError, Record, array_of, read_records
from .torch_file import member, read_torch_file, zip_of

__all__ = ["read_sb3"]

Array = NDArray[Any]

_ACTIVATIONS = {
    "Tanh": "tanh", "ReLU": "relu", "ELU": "elu", "SiLU": "silu", "GELU": "gelu",
    "Identity": "identity",
}  # fmt: skip

# settings of sb3_contrib.TRPO that are plain numbers, and ours
_SETTINGS = {
    "gamma": "gamma",
    "gae_lambda": "gae_lambda",
    "n_envs": "n_envs",
    "batch_size": "value_minibatch_size",
    "target_kl": "max_kl",
    "cg_max_steps": "cg_iterations",
    "cg_damping": "cg_damping",
    "line_search_shrinking_factor": "backtrack_ratio",
    "n_critic_updates": "value_epochs",
    "learning_rate": "value_learning_rate",
    "normalize_advantage": "standardize_advantages",
}


def read_sb3(
    path: str | os.PathLike[str], vec_normalize: str | os.PathLike[str] | None = None
) -> ForeignNetworks:
    """Read a policy of PPO, A2C or TRPO: actor and critic that are multilayer perceptrons.

    Parameters
    ----------
    path
        The zip.
    vec_normalize
        The file of ``VecNormalize.save``; None for a policy that saw observations as they are.

    Raises
    ------
    ForeignFileError
        Another file, or a policy of another kind: one sentence.
    """
    try:
        found = _read_policy(path)
    except ForeignFileError as error:
        raise ForeignFileError(f"{Path(path)}: {error}") from None
    if vec_normalize is not None:
        try:
            _add_normalizer(found, Path(vec_normalize))
        except ForeignFileError as error:
            raise ForeignFileError(f"{Path(vec_normalize)}: {error}") from None
    return found


def _read_policy(path: str | os.PathLike[str]) -> ForeignNetworks:
    archive = zip_of(path)
    state = read_torch_file(member(archive, "policy.pth"))
    try:
        data = json.loads(member(archive, "data"))
    except ValueError as error:
        raise ForeignFileError(f"data: expected JSON, got {error}") from None
    if not isinstance(data, dict):
        raise ForeignFileError(f"data: expected a mapping, got {type(data).__name__}")
    if "action_net.weight" not in state or "value_net.weight" not in state:
        raise ForeignFileError(
            "expected an actor and a critic, as PPO, A2C and TRPO have them, got the tensors "
            f"{', '.join(state):.120}; only these can be taken over"
        )
    extra = [n for n in state if n.startswith(("features_extractor.", "pi_features", "lstm"))]
    if extra or any(name.startswith("mlp_extractor.shared") for name in state):
        raise ForeignFileError(
            f"expected two separate multilayer perceptrons, got {(extra or ['shared layers'])[0]}; "
            "convolutional, recurrent and shared networks cannot be taken over"
        )
    log_std = state.get("log_std")
    if data.get("use_sde") or (log_std is not None and log_std.ndim != 1):
        raise ForeignFileError(
            "expected deviations that are one number a dimension, got use_sde=True; policies with "
            "state-dependent exploration cannot be taken over"
        )
    return ForeignNetworks(
        policy=_with_head(state, "policy_net", "action_net"),
        log_std=log_std,
        value=_with_head(state, "value_net", "value_net"),
        activation=_activation(data),
        timesteps=_count(data.get("num_timesteps")),
        settings=_settings(data),
    )


def _with_head(state: Mapping[str, Array], body: str, head: str) -> list[tuple[Array, Array]]:
    names = [n for n in state if n.startswith((f"mlp_extractor.{body}.", f"{head}."))]
    names.sort(key=lambda name: name.startswith(f"{head}."))  # the head is the last layer
    return layers_of({name: state[name] for name in names}, "", head)


def _activation(data: Mapping[str, Any]) -> str:
    keywords = data.get("policy_kwargs")
    given = keywords.get("activation_fn") if isinstance(keywords, dict) else None
    if given is None:
        return "tanh"
    name = str(given).rpartition(".")[2].strip("'>")
    if name not in _ACTIVATIONS:
        raise ForeignFileError(
            f"activation: expected one of {', '.join(_ACTIVATIONS)}, got {name:.40}; such a policy "
            "cannot be taken over"
        )
    return _ACTIVATIONS[name]


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of its training that are plain numbers, in our names."""
    if "cg_max_steps" not in data:  # not of TRPO: only what means the same
        kept = ("gamma", "gae_lambda", "n_envs")
        found = {name: data[name] for name in kept if _is_number(data.get(name))}
    else:
        found = {ours: data[name] for name, ours in _SETTINGS.items() if _is_number(data.get(name))}
    if _is_number(data.get("n_steps")) and _is_number(data.get("n_envs")):
        found["batch_size"] = data["n_steps"] * data["n_envs"]
    if _is_number(data.get("line_search_max_iter")):
        found["max_backtracks"] = data["line_search_max_iter"] - 1  # the first try is none
    if _is_number(data.get("sub_sampling_factor")) and data["sub_sampling_factor"] >= 1:
        found["fisher_fraction"] = 1.0 / data["sub_sampling_factor"]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**62 else 0


def _add_normalizer(found: ForeignNetworks, path: Path) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ForeignFileError(f"expected a readable file, got {error.strerror}") from None
    record = read_records(data)
    state = record.state if isinstance(record, Record) else None
    if not isinstance(state, dict) or "obs_rms" not in state:
        raise ForeignFileError("expected what VecNormalize.save writes, got another pickle")
    if state.get("norm_obs", True):
        moments = state["obs_rms"]
        if isinstance(moments, dict):
            raise ForeignFileError(
                "expected statistics of one array, got those of a Dict of observations; flatten it "
                "by gymnasium.wrappers.FlattenObservation there, and here"
            )
        found.mean, found.variance, count = _moments(moments)
        found.count = max(count, 1.0)
        found.clip = float(array_of(state.get("clip_obs", 10.0)))
        found.epsilon = float(array_of(state.get("epsilon", 1e-8)))
    if state.get("norm_reward", True):
        _, variance, _ = _moments(state["ret_rms"])
        epsilon = float(array_of(state.get("epsilon", 1e-8)))
        found.reward_scale = math.sqrt(float(variance.reshape(-1)[0]) + epsilon)
        if found.settings.get("gamma") is None and "gamma" in state:
            found.settings["gamma"] = float(array_of(state["gamma"]))


def _moments(record: Any) -> tuple[Array, Array, float]:
    state = record.state if isinstance(record, Record) else None
    if not isinstance(state, dict) or not {"mean", "var", "count"} <= state.keys():
        raise ForeignFileError("expected mean, var and count of a RunningMeanStd, got others")
    mean, variance = (array_of(state[name]).astype(np.float64) for name in ("mean", "var"))
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise ForeignFileError("expected finite statistics, got others")
    return mean, variance, float(array_of(state["count"]))
