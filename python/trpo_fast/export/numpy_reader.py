"""Reads a policy file of trpo_fast; needs NumPy only. Copy this file to wherever the policy acts."""

import math
from typing import Any

import numpy as np

ACTIVATIONS: dict[str, Any] = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z * (0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2.0))).astype(z.dtype),
    "identity": lambda z: z,
}


def load(path: Any) -> Any:
    """Return act(raw, noise=None, masks=None): raw numbers (N, R) to actions (N, *shape).

    They are the mode, or with noise a sample; masks (N, W) of 0 and 1 say which are allowed.

    Parameters
    ----------
    path
        The file.
    """
    p = dict(np.load(path, allow_pickle=False))
    kind, activation = str(p["kind"]), ACTIVATIONS[str(p["activation"])]
    dtype, like = p["bias_0"].dtype, p["action"]

    def act(raw: Any, noise: Any = None, masks: Any = None) -> Any:
        h = np.asarray(raw, dtype)
        if p["categories"].any():  # integers become one-hots
            numbers = zip(h.T[:, :, None], p["categories"], p["starts"], strict=True)
            h = np.hstack([x if n == 0 else x == s + np.arange(n) for x, n, s in numbers])
        if "mean" in p:
            h = np.clip((h.astype(dtype) - p["mean"]) * p["inverse_std"], -p["clip"], p["clip"])
        for i in range(p["layers"]):
            h = (activation(h) if i else h) @ p[f"weight_{i}"].T + p[f"bias_{i}"]
        a = box(h, noise) if "gaussian" in kind else discrete(masked(h.astype(float), masks), noise)
        return a.astype(like.dtype).reshape(len(h), *like.shape)

    def masked(out: Any, masks: Any) -> Any:
        if masks is None:
            return out
        may = np.asarray(masks).reshape(len(out), out.shape[1], -1) != 0
        certain = np.where(may[:, :, 0], out, np.inf) if kind == "bernoulli" else out
        return np.where(may[:, :, -1], certain, -np.inf)

    def box(out: Any, noise: Any) -> Any:
        a, log_std = (out, p["log_std"]) if kind == "gaussian" else np.split(out, 2, axis=1)
        if noise is not None:
            a = a + np.exp(np.clip(log_std, *p["log_std_bounds"])) * noise
        a = np.clip(p["center"] + p["half"] * a, p["low"], p["high"])
        return np.rint(a) if like.dtype.kind in "iu" else a

    def discrete(out: Any, noise: Any) -> Any:
        if kind == "bernoulli":
            return out > 0 if noise is None else np.asarray(noise) < 1 / (1 + np.exp(-out))
        groups = np.split(out, np.cumsum(p["sizes"])[:-1], axis=1)
        if noise is None:
            return np.stack([z.argmax(axis=1) for z in groups], axis=1) + p["action_starts"]
        columns = np.asarray(noise).T[:, :, None]
        powers = [np.exp(z - z.max(axis=1, keepdims=True)).cumsum(axis=1) for z in groups]
        picked = [
            (u >= c[:, :-1] / c[:, -1:]).sum(axis=1) for u, c in zip(columns, powers, strict=True)
        ]
        return np.stack(picked, axis=1) + p["action_starts"]

    return act
