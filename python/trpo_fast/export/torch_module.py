"""A policy as a PyTorch module: by state dict, by ``torch.export``, or as a module at hand.

>>> agent.export("policy.pt2")  # a program of torch.export, which needs torch alone
>>> agent.export("policy.pt")  # settings and state dict, which read_module turns into a module

.. code-block:: python

    program = torch.export.load("policy.pt2").module()
    action = program(raw)  # raw numbers (N, R), see trpo_fast.export, to actions (N, *shape)

    module = trpo_fast.export.torch_module.read_module("policy.pt")
    action = module(raw, noise)  # a sample; noise (N, A)

``raw`` is in the policy's dtype. The batch may have any size N. Noise is standard normals for a Box,
uniforms in [0, 1) for discrete spaces; a program takes it where it was exported with
``sample=True``. The module's layers are ``network``, an ``nn.Sequential`` of ``Linear`` and
activations, and can be trained on. Both files are read without unpickling any code:
``torch.load(path, weights_only=True)``.

A policy that was trained with action masks takes them as the second argument, bool (N, W):
``module(raw, action_mask, noise)``.

Needs the package torch.
"""

from __future__ import annotations

import io
import os
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import LOG_STD_BOUNDS
from ..extras import import_extra
from .function import ExportError, PolicyFunction

__all__ = ["module_of", "read_module", "torch_program", "torch_state"]

_ACTIVATIONS = {
    "tanh": "Tanh",
    "relu": "ReLU",
    "elu": "ELU",
    "silu": "SiLU",
    "gelu": "GELU",
    "identity": "Identity",
}


def module_of(function: PolicyFunction) -> Any:
    """Return a policy as an ``nn.Module``.

    Parameters
    ----------
    function
        The policy.

    Returns
    -------
    torch.nn.Module
        ``module(raw, noise=None)``, from raw numbers (N, R) to actions (N, *shape); with masks it is
        ``module(raw, action_mask, noise=None)``.
    """
    module = _build(*_settings(function))
    with _torch().no_grad():
        linears = [layer for layer in module.network if hasattr(layer, "weight")]
        for linear, layer in zip(linears, function.layers, strict=True):
            linear.weight.copy_(_torch().from_numpy(layer.weight))
            linear.bias.copy_(_torch().from_numpy(layer.bias))
    return module.eval()


def torch_state(function: PolicyFunction) -> bytes:
    """Write settings and state dict as the bytes of a file that :func:`read_module` reads.

    Parameters
    ----------
    function
        The policy to export.
    """
    settings, buffers = _settings(function)
    torch = _torch()
    stream = io.BytesIO()
    content = {
        "settings": settings,
        "buffers": {name: torch.from_numpy(a) for name, a in buffers.items()},
        "state_dict": module_of(function).state_dict(),
    }
    torch.save(content, stream)
    return stream.getvalue()


def torch_program(function: PolicyFunction, *, sample: bool = False) -> bytes:
    """Write a policy as the bytes of an exported program, with a batch of any size.

    Parameters
    ----------
    function
        The policy.
    sample
        The program takes ``noise`` (N, A) as a second argument, and gives samples.
    """
    torch = _torch()
    dtype = getattr(torch, function.dtype.name)
    arguments = [torch.zeros(2, function.raw_dim, dtype=dtype)]
    if function.mask_width:
        arguments.append(torch.ones(2, function.mask_width, dtype=torch.bool))
    if sample:
        arguments.append(torch.zeros(2, function.action_dim, dtype=dtype))
    batch = torch.export.Dim("N")
    shapes = tuple({0: batch} for _ in arguments)
    program = torch.export.export(module_of(function), tuple(arguments), dynamic_shapes=shapes)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def read_module(path: str | os.PathLike[str]) -> Any:
    """Read the module of a file that was exported as ``.pt``; nothing in it is run.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    torch.nn.Module
        As :func:`module_of`.
    """
    content = _torch().load(path, weights_only=True)
    module = _build(content["settings"], {k: v.numpy() for k, v in content["buffers"].items()})
    module.load_state_dict(content["state_dict"])
    return module.eval()


def _torch() -> Any:
    return import_extra("torch", what="An export to PyTorch", extra="torch")


def _settings(f: PolicyFunction) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What a module is built from: plain values, and arrays that are no parameters."""
    if f.action_dtype.kind not in "fiu" or f.action_dtype.name in ("uint16", "uint32", "uint64"):
        raise ExportError(f"action space: expected a dtype that PyTorch has, got {f.action_dtype}")
    settings = {
        "sizes": [f.obs_dim, *(len(layer.bias) for layer in f.layers)],
        "activation": f.activation,
        "dtype": f.dtype.name,
        "kind": f.kind,
        "groups": list(f.sizes),
        "clip": f.clip,
        "action_shape": list(f.action_shape),
        "action_dtype": f.action_dtype.name,
        "mask_width": f.mask_width,
    }
    buffers: dict[str, NDArray[Any] | None] = {
        "mean": f.mean,
        "inverse_std": f.inverse_std,
        "std": None if f.log_std is None else np.exp(f.log_std).astype(f.dtype),
        "action_low": f.low,
        "action_high": f.high,
        "action_center": f.center,
        "action_half": f.half,
        "action_starts": f.action_starts,
    }
    if f.has_one_hot:
        # row entry o is raw number columns[o], or whether it is values[o]
        width = np.maximum(f.categories, 1)
        buffers["columns"] = np.repeat(np.arange(f.raw_dim), width)
        buffers["compared"] = np.repeat(f.categories > 0, width)
        offsets = np.concatenate([np.arange(n) for n in width])
        buffers["values"] = (np.repeat(f.starts, width) + offsets).astype(f.dtype)
    return settings, {name: array for name, array in buffers.items() if array is not None}


def _build(settings: dict[str, Any], buffers: dict[str, NDArray[Any]]) -> Any:
    torch = _torch()
    nn = torch.nn
    kind, groups = settings["kind"], settings["groups"]
    has_masks = settings.get("mask_width", 0) > 0  # early files have none
    dtype, action_dtype = (getattr(torch, settings[n]) for n in ("dtype", "action_dtype"))

    class PolicyModule(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        """From raw numbers (N, R) to actions (N, *shape): the mode, or a sample given noise."""

        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            sizes = settings["sizes"]
            for n_in, n_out in pairwise(sizes):
                layers.append(nn.Linear(n_in, n_out, dtype=dtype))
                layers.append(getattr(nn, _ACTIVATIONS[settings["activation"]])())
            self.network = nn.Sequential(*layers[:-1])
            for name, array in buffers.items():
                self.register_buffer(name, torch.from_numpy(np.array(array)))

        if has_masks:

            def forward(self, raw: Any, action_mask: Any, noise: Any = None) -> Any:
                return self.decide(self.forbid(self.network(self.encode(raw)), action_mask), noise)

        else:

            def forward(  # type: ignore[misc, unused-ignore]
                self, raw: Any, noise: Any = None
            ) -> Any:
                return self.decide(self.network(self.encode(raw)), noise)

        def decide(self, out: Any, noise: Any) -> Any:
            a = (
                self.decide_discrete(out, noise)
                if "gaussian" not in kind
                else self.decide_box(out, noise)
            )
            return a.to(action_dtype).reshape(-1, *settings["action_shape"])

        def encode(self, raw: Any) -> Any:
            row = raw
            if "columns" in buffers:
                numbers = raw[:, self.columns]
                row = torch.where(self.compared, (numbers == self.values).to(dtype), numbers)
            if "mean" in buffers:
                row = (row - self.mean) * self.inverse_std
                row = row.clamp(-settings["clip"], settings["clip"])
            return row

        def forbid(self, logits: Any, mask: Any) -> Any:
            forbidden = torch.finfo(dtype).min / 2**20
            n_outputs = settings["sizes"][-1]
            # len() of a batch would fix its size in an exported program
            may = mask.bool().reshape(-1, n_outputs, settings["mask_width"] // n_outputs)
            if kind == "bernoulli":
                logits = torch.where(may[:, :, 0], logits, -forbidden)
            return torch.where(may[:, :, -1], logits, forbidden)

        def decide_discrete(self, logits: Any, noise: Any) -> Any:
            if kind == "bernoulli":
                return logits > 0 if noise is None else noise < torch.sigmoid(logits.double())
            actions = []
            for g, z in enumerate(torch.split(logits, groups, dim=1)):
                if noise is None:
                    actions.append(z.argmax(dim=1))
                    continue
                below = torch.softmax(z.double(), dim=1).cumsum(dim=1)
                below = (below / below[:, -1:] if has_masks else below)[:, :-1]
                actions.append((noise[:, g : g + 1].double() >= below).sum(dim=1))
            action = torch.stack(actions, dim=1)
            return action + self.action_starts if "action_starts" in buffers else action

        def decide_box(self, out: Any, noise: Any) -> Any:
            a = out
            if kind != "gaussian":
                a, log_std = out.chunk(2, dim=1)
            if noise is not None:
                std = self.std if kind == "gaussian" else log_std.clamp(*LOG_STD_BOUNDS).exp()
                a = a + std * noise
            if "action_low" in buffers:
                a = a.to(self.action_low.dtype)
                if "action_center" in buffers:
                    a = self.action_center + self.action_half * a
                a = torch.minimum(torch.maximum(a, self.action_low), self.action_high)
            return a if action_dtype.is_floating_point else a.round()

    return PolicyModule()
