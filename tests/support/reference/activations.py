"""Activations and their slopes."""

from __future__ import annotations

import math

import numpy as np

from .types import Array

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))  # accurate in both tails


def _normal_cdf(x: Array) -> Array:
    return 0.5 * _erfc(-x / math.sqrt(2.0))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def activate(name: str, x: Array) -> Array:
    """Value of the activation; gelu is the exact erf form, elu has alpha = 1."""
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0.0)
    if name == "elu":
        return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))
    if name == "silu":
        return x * sigmoid(x)
    if name == "gelu":
        return x * _normal_cdf(x)
    if name == "identity":
        return x.copy()
    raise ValueError(name)


def activation_slope(name: str, x: Array) -> Array:
    """Derivative of the activation at the pre-activation x; relu has slope 0 at 0."""
    if name == "tanh":
        return 1.0 - np.tanh(x) ** 2
    if name == "relu":
        return np.where(x > 0.0, 1.0, 0.0)
    if name == "elu":
        return np.where(x > 0.0, 1.0, np.exp(np.minimum(x, 0.0)))
    if name == "silu":
        s = sigmoid(x)
        return s * (1.0 + x * (1.0 - s))
    if name == "gelu":
        return _normal_cdf(x) + x * _normal_pdf(x)
    if name == "identity":
        return np.ones_like(x)
    raise ValueError(name)


ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")
