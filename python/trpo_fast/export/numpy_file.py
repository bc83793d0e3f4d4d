"""A policy as arrays in an npz file: no pickle in it, and thirty lines of NumPy read it.

>>> agent.export("policy.npz")

The reader is :mod:`trpo_fast.export.numpy_reader`, a file of its own that needs NumPy only; copy it to
wherever the policy acts.

>>> act = numpy_reader.load("policy.npz")
>>> act(raw)  # raw numbers (N, R), see trpo_fast.export, to actions (N, *shape)
>>> act(raw, masks=masks)  # of a policy that was trained with action masks, (N, W)

============================  ========================================================================
entry                         what it is
============================  ========================================================================
categories, starts            (R,) int64: n > 0 turns an integer start, ..., start + n - 1 into a
                              one-hot of n; 0 leaves a number as it is
mean, inverse_std, clip       (O,) and (): ``clip((x - mean) inverse_std, -clip, clip)``; none of them
                              where the policy does not normalise
layers                        (): how many affine maps there are
weight_i, bias_i              (out, in) and (out,); the activation stands between two of them
activation, kind              text: that of the hidden layers; the distribution's kind
sizes                         of the distribution
log_std, log_std_bounds       (A,) of a Gaussian whose deviations are free; (2,)
low, high, center, half       (A,): a Box action is ``clip(center + half a, low, high)``
action_starts                 (A,): added to a discrete action
action                        zeros of the shape and dtype of an action
============================  ========================================================================
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import LOG_STD_BOUNDS
from .function import PolicyFunction

__all__ = ["numpy_file"]


def numpy_file(function: PolicyFunction) -> bytes:
    """Write a policy as the bytes of an npz file.

    Parameters
    ----------
    function
        The policy.
    """
    f = function
    arrays: dict[str, NDArray[Any]] = {
        "categories": f.categories,
        "starts": f.starts,
        "layers": np.array(len(f.layers)),
        "activation": np.array(f.activation),
        "kind": np.array(f.kind),
        "sizes": np.array(f.sizes),
        "action": np.zeros(f.action_shape, f.action_dtype),
    }
    for i, layer in enumerate(f.layers):
        arrays[f"weight_{i}"], arrays[f"bias_{i}"] = layer.weight, layer.bias
    if f.mean is not None and f.inverse_std is not None:
        arrays |= {"mean": f.mean, "inverse_std": f.inverse_std, "clip": np.array(f.clip, f.dtype)}
    if f.is_discrete:
        starts = np.zeros(f.action_dim, np.int64) if f.action_starts is None else f.action_starts
        arrays["action_starts"] = starts
    else:
        decode, n = f.decode_dtype, f.action_dim
        arrays["log_std_bounds"] = np.array(LOG_STD_BOUNDS)
        if f.log_std is not None:
            arrays["log_std"] = f.log_std
            arrays["log_std_bounds"] = np.array([-np.inf, np.inf])
        arrays["low"] = np.full(n, -np.inf, decode) if f.low is None else f.low
        arrays["high"] = np.full(n, np.inf, decode) if f.high is None else f.high
        arrays["center"] = np.zeros(n, decode) if f.center is None else f.center
        arrays["half"] = np.ones(n, decode) if f.half is None else f.half
    stream = io.BytesIO()
    # None of the arrays holds objects, so nothing is pickled; allow_pickle= is unknown to NumPy 1.26.
    np.savez(stream, **arrays)  # type: ignore[arg-type, unused-ignore]
    return stream.getvalue()
