"""A policy as the zip that ``sb3_contrib.TRPO.load`` reads, to act and to be trained on there.

>>> agent.export("policy.zip")
>>> model = sb3_contrib.TRPO.load("policy.zip")
>>> action, _ = model.predict(observation, deterministic=True)

The model takes the environment's observations and gives its actions by itself: normalisation is folded
into the first layer of policy and value function, the scaling of actions into the last layer and the
deviations, the unit of the returns into the last layer of the value function. Neither PyTorch nor
Stable-Baselines3 is needed to write it, and no code is pickled: the file names the classes of spaces
and policy, and holds numbers.

What differs from ``predict`` here: the **clip** of normalised observations is no affine map. For parts of
an observation that are 0 or 1 (one-hots, MultiBinary) it is folded exactly; a real number that is farther
from its mean than ``observation_clip`` deviations, 10 by default, acts with its full size there. Weights
are float32. Settings of the training are Stable-Baselines3's defaults, and Adam starts anew.

A file of ours does not hold the bounds of observations. The model that such a file is exported to has a
space without bounds; where ``load`` is given an environment too, its space is compared:
``TRPO.load(path, env, custom_objects={"observation_space": env.observation_space})``. A model that is
exported from an agent knows them.

Not to be said in this form, and refused: action masks, deviations that depend on the state, observations
in a Tuple, a nested Dict, or like pictures, integer actions in a Box, integers that start elsewhere than
at 0, a value function with another activation, and statistics so far from 0 that float32 cannot take them
apart again.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..envs.plain_spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from .function import ExportError, Layer, PolicyFunction
from .pickled import Call, Name, array_call, pickle_of, torch_file, zip_bytes

__all__ = ["sb3_zip"]

Float64 = NDArray[np.float64]

_ACTIVATIONS = {
    "tanh": ("activation", "Tanh"),
    "relu": ("activation", "ReLU"),
    "elu": ("activation", "ELU"),
    "silu": ("activation", "SiLU"),
    "gelu": ("activation", "GELU"),
    "identity": ("linear", "Identity"),
}
_LARGEST_LOSS = 1e-4  # of a unit of the first layer, by what cancels in float32


def sb3_zip(f: PolicyFunction) -> bytes:
    """Write a policy as the bytes of a zip of sb3-contrib's TRPO.

    Parameters
    ----------
    f
        The policy.

    Raises
    ------
    ExportError
        The policy cannot be said in that form.
    """
    if f.mask_width:
        raise _refusal("no action masks, which its TRPO does not know", "one with masks")
    if f.kind == "state_dependent_gaussian":
        raise _refusal("deviations that do not depend on the state", "state_dependent_std=True")
    if f.value is not None and f.value_activation != f.activation and len(f.value) > 1:
        raise _refusal(
            f"the same activation of policy and value function, {f.activation}",
            str(f.value_activation),
        )
    observation_space, action_space = _observation_space(f), _action_space(f)
    state, arch = _state(f)
    n_parameters = len(state)
    group = {
        "lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-5, "weight_decay": 0, "amsgrad": False,
        "params": list(range(n_parameters)),
    }  # fmt: skip
    data = {
        "policy_class": _pickled(
            Name(
                "stable_baselines3.common.policies",
                "MultiInputActorCriticPolicy"
                if isinstance(f.observation_space, Dict)
                else "ActorCriticPolicy",
            )
        ),
        "policy_kwargs": _policy_kwargs(f, arch),
        "verbose": 0,
        "num_timesteps": 0,
        "use_sde": False,
        "n_envs": 1,
        "observation_space": _pickled(observation_space),
        "action_space": _pickled(action_space),
    }
    return zip_bytes(
        {
            "data": json.dumps(data, indent=4).encode(),
            "policy.pth": torch_file(state),
            "policy.optimizer.pth": torch_file({"state": {}, "param_groups": [group]}),
            "system_info.txt": f"written by trpo_fast {__version__}\n".encode(),
        }
    )


def _refusal(expected: str, got: str) -> ExportError:
    return ExportError(f"sb3: expected {expected}, got {got}; export to another target")


def _pickled(value: Any) -> dict[str, str]:
    what = value.function if isinstance(value, Call) else value
    kind = f"{what.module}.{what.name}" if isinstance(what, Name) else type(what).__name__
    return {":type:": kind, ":serialized:": base64.b64encode(pickle_of(value)).decode()}


def _policy_kwargs(f: PolicyFunction, arch: dict[str, list[int]]) -> dict[str, Any]:
    plain: dict[str, Any] = {"net_arch": arch, "normalize_images": False}
    if f.activation == "tanh":
        return plain
    module, name = _ACTIVATIONS[f.activation]
    module = f"torch.nn.modules.{module}"
    pickled = _pickled({**plain, "activation_fn": Name(module, name)})
    return {**pickled, **plain, "activation_fn": f"<class '{module}.{name}'>"}


# ---- spaces: the classes of Gymnasium, called on numbers


def _observation_space(f: PolicyFunction) -> Call:
    space = f.observation_space
    if not isinstance(space, Dict):
        return _plain_observation(space)
    parts = {}
    for key, part in space.spaces.items():
        if not isinstance(key, str) or "." in key:
            raise _refusal("keys of observations that are text without a dot", repr(key))
        parts[key] = _plain_observation(part)
    ordered = Call(Name("collections", "OrderedDict"), (), parts)
    return Call(Name("gymnasium.spaces.dict", "Dict"), (ordered,))


def _plain_observation(space: Any) -> Call:
    if isinstance(space, Discrete | MultiDiscrete) and np.any(space.start):
        raise _refusal("integers that start at 0", str(space))
    if isinstance(space, MultiDiscrete) and len(space.shape) != 1:
        raise _refusal("a MultiDiscrete of one axis", str(space))
    if isinstance(space, Box):
        if not space.shape or len(space.shape) > 2:
            raise _refusal(
                "observations of one or two axes, as multilayer perceptrons take them", str(space)
            )
        return _box(space)
    return _counted(space)


def _action_space(f: PolicyFunction) -> Call:
    space = f.action_space
    if isinstance(space, Box):
        if space.dtype.kind != "f" or not space.shape:
            raise _refusal("real actions, of at least one axis, in a Box", str(space))
        return _box(space)
    if isinstance(space, Discrete | MultiDiscrete) and np.any(space.start):
        raise _refusal("actions that start at 0", str(space))
    if not isinstance(space, Discrete) and len(space.shape) != 1:
        raise _refusal("actions of one axis", str(space))
    return _counted(space)


def _counted(space: Any) -> Call:
    if isinstance(space, Discrete):
        return Call(Name("gymnasium.spaces.discrete", "Discrete"), (int(space.n),))
    if isinstance(space, MultiDiscrete):
        nvec = array_call(np.asarray(space.nvec, np.int64))
        return Call(Name("gymnasium.spaces.multi_discrete", "MultiDiscrete"), (nvec,))
    if isinstance(space, MultiBinary):
        shape = space.shape[0] if len(space.shape) == 1 else tuple(map(int, space.shape))
        return Call(Name("gymnasium.spaces.multi_binary", "MultiBinary"), (shape,))
    raise _refusal("a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of such", str(space))


def _box(space: Box) -> Call:
    ends = []
    for sign, bound in ((-1.0, space.low), (1.0, space.high)):
        if bound is None and space.dtype.kind == "f":
            bound = np.full(space.shape, sign * np.inf, space.dtype)
        elif bound is None:
            limits = np.iinfo(space.dtype)
            bound = np.full(space.shape, limits.min if sign < 0 else limits.max, space.dtype)
        ends.append(array_call(np.asarray(bound, space.dtype)))
    dtype = Call(Name("numpy", "dtype"), (space.dtype.name,))
    return Call(Name("gymnasium.spaces.box", "Box"), (*ends, tuple(map(int, space.shape)), dtype))


# ---- weights


def _state(f: PolicyFunction) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Tensors by name, and the sizes of the hidden layers."""
    factor, offset = _normalisation(f)
    policy = _folded(f.layers, factor, offset)
    state: dict[str, Any] = {}
    if f.log_std is not None:
        log_std = f.log_std.astype(np.float64)
        if f.half is not None and f.center is not None:
            half = f.half.astype(np.float64)
            weight, bias = policy[-1]
            policy[-1] = weight * half[:, None], bias * half + f.center
            log_std = log_std + np.log(half)
        state["log_std"] = log_std
    # a critic is part of the form; without one here, it says 0
    none = [(np.zeros((1, len(factor))), np.zeros(1))]
    value = none if f.value is None else _folded(f.value, factor, offset)
    arch = {}
    for name, short, head, layers in (
        ("policy_net", "pi", "action_net", policy),
        ("value_net", "vf", "value_net", value),
    ):
        arch[short] = [len(bias) for _, bias in layers[:-1]]
        names = [f"mlp_extractor.{name}.{2 * i}" for i in range(len(layers) - 1)] + [head]
        for at, (weight, bias) in zip(names, layers, strict=True):
            state |= {f"{at}.weight": weight, f"{at}.bias": bias}
    single = {name: np.asarray(array, np.float32) for name, array in state.items()}
    for name, array in single.items():
        if not np.isfinite(array).all():
            raise _refusal("weights that float32 holds", f"others in {name}")
    return single, arch


def _folded(layers: tuple[Layer, ...], factor: Float64, offset: Float64) -> list[Any]:
    """(weight, bias) of each layer, of observations as they are."""
    pairs = [
        (np.asarray(one.weight, np.float64), np.asarray(one.bias, np.float64)) for one in layers
    ]
    weight, bias = pairs[0]
    lost = 2.0**-24 * (np.abs(weight) @ np.abs(offset)).max()
    if not lost <= _LARGEST_LOSS:
        raise _refusal(
            "observations whose means are within some thousand deviations of 0, so that float32 can "
            "normalise them in the first layer",
            f"a loss of {lost:.1e} in its units",
        )
    pairs[0] = weight * factor, bias + weight @ offset
    return pairs


def _normalisation(f: PolicyFunction) -> tuple[Float64, Float64]:
    """(O,) each: what the network sees of an entry x of a row is factor x + offset."""
    if f.mean is None or f.inverse_std is None:
        return np.ones(f.obs_dim), np.zeros(f.obs_dim)
    mean, factor = f.mean.astype(np.float64), f.inverse_std.astype(np.float64)
    offset = -mean * factor
    is_bit = np.repeat(f.categories > 0, np.maximum(f.categories, 1))
    bits = np.zeros(f.raw_dim, bool)
    for leaf in f.leaves:
        if leaf.low is not None and leaf.high is not None and leaf.dtype.kind in "iub":
            bits[leaf.columns] = ((leaf.low == 0) & (leaf.high == 1)).ravel()
    is_bit |= np.repeat(bits, np.maximum(f.categories, 1))
    # 0 and 1 are two points, which an affine map goes through exactly
    zero, one = (np.clip(offset + x * factor, -f.clip, f.clip) for x in (0.0, 1.0))
    return np.where(is_bit, one - zero, factor), np.where(is_bit, zero, offset)
