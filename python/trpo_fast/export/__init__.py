"""Policies that leave the house: ONNX, one C header, PyTorch, NumPy, Stable-Baselines3.

>>> agent.export("policy.onnx")  # the target is told by the ending of the file
>>> trpo_fast.Policy.load("run/checkpoint.safetensors").export("trpo_policy.h")

or, without writing Python, ``trpo-fast export RUN --to onnx|c|torch|numpy|sb3``.
A C header in integers, for a processor without a floating-point unit: ``number="fixed"``, ``--number
fixed``, :mod:`trpo_fast.export.c_fixed`.

=========  ===============  ===========================================  =============================
target     endings          what reads it                                page
=========  ===============  ===========================================  =============================
``onnx``   ``.onnx``        onnxruntime, and whatever reads ONNX         :mod:`trpo_fast.export.onnx`
``c``      ``.h``           a C99 or C++11 compiler                      :mod:`.c_header`
``torch``  ``.pt2, .pt``    PyTorch: an exported program, a state dict   :mod:`.torch_module`
``numpy``  ``.npz``         thirty lines of NumPy                        :mod:`.numpy_file`
=========  ===============  ===========================================  =============================

Every target holds the whole way from the environment's observation to the argument of its ``step``:
encoding, normalisation with the statistics of training, clipping (:mod:`.sb3` says where it cannot),
network, scaling to the action space, clipping. It gives what ``predict(observation,
deterministic=True)`` gives, to some units of the last place, and the same actions where these are
integers. A sample needs random numbers, which the caller makes: ``noise`` (N, A), standard normals for
a Box and uniforms in [0, 1) for discrete spaces.

ONNX and Stable-Baselines3 take observations as the environment gives them. The others take an
observation's **raw numbers** in one row: the entries of a Box or MultiBinary in C order, one integer for
Discrete, one for every component of MultiDiscrete, and the parts of a Dict or Tuple one after the other,
in the order of ``space.spaces``, which Gymnasium sorts by key where a Dict is made from a plain
dictionary. :meth:`PolicyFunction.raw_numbers` writes such rows in Python; a header lists them in its
first comment.

A policy that was trained with action masks takes the **mask** too: 0 and 1 for every choice of every
component of an action, in one row, one component after the other (two for every bit of a MultiBinary:
whether it may be 0, and 1). At least one choice of each must be allowed.

An action space with finite bounds and ``action_scaling`` maps [-1, 1] to these bounds; the exported
policy does so too, and needs nothing after it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal, get_args

from ..logging import file_to_replace
from .function import ExportError, PolicyFunction, policy_function

__all__ = [
    "ENDINGS",
    "FILES",
    "TARGETS",
    "ExportError",
    "Number",
    "PolicyFunction",
    "Target",
    "export_policy",
    "policy_function",
]

Target = Literal["onnx", "c", "torch", "numpy", "sb3"]
Number = Literal["float", "fixed"]
TARGETS: tuple[Target, ...] = get_args(Target)
ENDINGS: dict[str, Target] = {
    ".onnx": "onnx",
    ".h": "c",
    ".pt2": "torch",
    ".pt": "torch",
    ".npz": "numpy",
    ".zip": "sb3",
}

FILES: dict[str, str] = {
    "onnx": "policy.onnx",
    "c": "trpo_policy.h",
    "torch": "policy.pt2",
    "numpy": "policy.npz",
    "sb3": "policy.zip",
}
"""What the file of a target is called where nobody says."""


def export_policy(
    function: PolicyFunction,
    path: str | os.PathLike[str],
    to: Target | None = None,
    *,
    sample: bool = False,
    number: Number = "float",
) -> Path:
    """Write a policy for another program.

    Parameters
    ----------
    function
        The policy, from :func:`policy_function`.
    path
        The file; its folder is made, an older file is replaced as a whole.
    to
        The target; None tells it by the ending of ``path``. The target torch writes a state dict
        into ``.pt``, and a program of ``torch.export`` into any other file.
    sample
        The graph of ONNX or PyTorch takes ``noise`` and gives samples. The other targets take noise
        at every call, if any, or draw samples by themselves.
    number
        The C header's arithmetic: "float", or "fixed" for integers only (:mod:`.c_fixed`), which gives
        the mode.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        An unknown target or ending.
    ExportError
        (a ``ValueError``) if the target cannot express the policy.
    MissingExtraError
        (an ``ImportError``) if the package that writes the target is not installed.
    """
    path = file_to_replace(path)
    target = ENDINGS.get(path.suffix.lower()) if to is None else to
    if target is None:
        raise ValueError(
            f"path: expected a file that ends in {', '.join(ENDINGS)}, got {path.name!r}; or say "
            f"to={' | '.join(TARGETS)}"
        )
    if target not in TARGETS:
        raise ValueError(f"to: expected one of {', '.join(TARGETS)}, got {target!r}")
    if number not in get_args(Number):
        raise ValueError(f"number: expected 'float' or 'fixed', got {number!r:.80}")
    if number == "fixed" and (target != "c" or sample):
        got = "sample=True" if target == "c" else f"the target {target}"
        raise ValueError(f"number: expected 'fixed' for the mode in a C header only, got {got}")
    data = _written(function, target, path, sample, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _written(
    function: PolicyFunction, target: Target, path: Path, sample: bool, number: Number
) -> bytes:
    # each target is imported where it is asked for, because some need packages of their own
    if target == "onnx":
        from .onnx import onnx_model

        return onnx_model(function, sample=sample)
    if target == "c" and number == "fixed":
        from .c_fixed import c_fixed_header

        return c_fixed_header(function, path.stem).encode()
    if target == "c":
        from .c_header import c_header

        return c_header(function, path.stem).encode()
    if target == "torch":
        from .torch_module import torch_program, torch_state

        if path.suffix.lower() == ".pt":
            return torch_state(function)
        return torch_program(function, sample=sample)
    if target == "sb3":
        from .sb3 import sb3_zip

        return sb3_zip(function)
    from .numpy_file import numpy_file

    return numpy_file(function)
