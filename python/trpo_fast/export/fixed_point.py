"""A policy in integers: scales, rounded weights, and a bound on what the rounding changes.

A real number v is the integer round(v 2^s); s is its **shift**. Every layer's shifts follow from its
weights and from intervals that its inputs cannot leave::

    u = clip((x - mean) / std, -c, c) / c        in [-1, 1]: c is the normaliser's bound, or the space's
    z_o in [sum_i min(w lo, w hi) + b, sum_i max(w lo, w hi) + b]

so no sum can overflow, whatever is observed, and nothing has to be calibrated on observations. The same
walk carries a bound e on the error (L the activation's Lipschitz constant, t the error of its table)::

    e_z <= |W| e_h + |dW| |h| + |db| + 2^-(s+1)        e_h <= L e_z + t

It holds for every observation inside of the bounds, against arithmetic without rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .function import ExportError, PolicyFunction

__all__ = ["ONE", "STEPS", "FixedLayer", "FixedPolicy", "Table", "fixed_policy"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ONE = 30
"""Shift of numbers in [-1, 1]: inputs of the first layer, tables, what tanh gives."""
STEPS = 8
"""Shift of a table's step: it has 2^8 values a unit."""

_INT32 = 2**31 - 1
_UNBOUNDED = 2.0**40  # bounds beyond it say nothing about an observation
_LARGEST_ERROR = 0.01  # of the range of an action; nats of a logit


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """T(0), T(2^-8), ... of an activation, and what the interpolation between them may err by."""

    values: Int64  # shift ONE; the last one stands for everything beyond
    error: float


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedLayer:
    """z = round((weight h + bias) / 2^shift), cut to 32 bits."""

    weight: Int64  # (out, in), each in 32 bits
    bias: Int64  # (out,)
    shift: Int64  # (out,), in [0, 62]
    fraction: Int64  # (out,): the shift of z


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedPolicy:
    """What a header in integers consists of."""

    observation_shift: Int64  # (R,)
    lower: Int64  # (O,): an entry of the row is cut to [lower, upper], then
    upper: Int64
    factor: Int64  # (O,): u = (factor x - offset) / 2^input_shift, cut to [-1, 1]
    offset: Int64
    input_shift: Int64  # (O,), in [0, 62]
    layers: tuple[FixedLayer, ...]
    table: Table | None  # of the activation, where it needs one
    action_shift: Int64 | None  # (A,) of a Box; None for discrete actions
    action_low: Int64 | None  # (A,)
    action_high: Int64 | None
    error: Float64
    """(P,): of a logit, or of an entry of a Box's action, before it is rounded to an integer."""


# ---- activations: f(z) = max(z, 0) - T(|z|), or by symmetry (tanh), or on one side only (elu)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    until: int  # T is constant beyond
    curvature: float  # max |T''|
    lipschitz: float = 1.0
    lowest: float = 0.0  # f(z) >= max(z, 0) - lowest


_SHAPES = {
    "tanh": _Shape(until=9, curvature=0.77),
    "elu": _Shape(until=16, curvature=1.0, lowest=1.0),
    "silu": _Shape(until=20, curvature=0.5, lipschitz=1.1, lowest=0.279),
    "gelu": _Shape(until=6, curvature=0.8, lipschitz=1.13, lowest=0.171),
}


def _tabulated(activation: str, u: Float64) -> Float64:
    if activation == "tanh":
        return np.asarray(np.tanh(u))
    if activation == "elu":
        return np.asarray(-np.expm1(-u))
    if activation == "silu":
        return np.asarray(u / (1.0 + np.exp(u)))
    from math import erfc

    return np.asarray(0.5 * u * np.array([erfc(x) for x in u * np.sqrt(0.5)]))


def _table(activation: str) -> Table | None:
    shape = _SHAPES.get(activation)
    if shape is None:
        return None
    u = np.arange(shape.until * 2**STEPS + 1) / 2.0**STEPS
    exact = _tabulated(activation, u)
    limit = 1.0 if activation in ("tanh", "elu") else 0.0
    # a chord is off by step^2 / 8 max |T''|; then two roundings, and what lies beyond the end
    error = shape.curvature * 4.0**-STEPS / 8 + 2.0**-ONE + abs(limit - float(exact[-1]))
    return Table(values=np.rint(exact * 2.0**ONE).astype(np.int64), error=error)


# ---- the walk through the policy


def fixed_policy(f: PolicyFunction) -> FixedPolicy:
    """Choose shifts, round, and bound the error.

    Parameters
    ----------
    f
        The policy.

    Raises
    ------
    ExportError
        No shift is known, or the error would be too large to be of use.
    """
    span, inputs, e = _inputs(f)
    is_hot = np.repeat(f.categories > 0, np.maximum(f.categories, 1))
    h_low, h_high = np.where(is_hot & (f.mean is None), 0.0, -1.0), np.ones(f.obs_dim)
    table, fraction, layers = _table(f.activation), ONE, []
    for k, layer in enumerate(f.layers):
        weight, bias = (np.asarray(a, np.float64) for a in (layer.weight, layer.bias))
        if k == 0:
            weight = weight * span
        if k == len(f.layers) - 1:
            break
        fixed, (z_low, z_high), e = _layer(
            weight, bias, fraction, (h_low, h_high), e, is_tanh=f.activation == "tanh"
        )
        layers.append(fixed)
        fraction = int(fixed.fraction[0])
        if table is not None and fraction < STEPS:
            raise _refusal(f"sums of up to {np.abs([z_low, z_high]).max():.1e} in layer {k}")
        (h_low, h_high), e = _activated(f.activation, table, fraction, (z_low, z_high), e)
        if f.activation == "tanh":
            fraction = ONE
    return _with_actions(f, weight, bias, fraction, (h_low, h_high), e, inputs, layers, table)


def _refusal(got: str) -> ExportError:
    return ExportError(
        f"number: expected a policy that 32 bits can hold to be 'fixed', got {got}; export it with "
        "number='float'"
    )


def _bits(value: Any) -> Any:
    """The smallest b with |value| <= 2^b, elementwise; -300 for 0."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.ceil(np.log2(np.abs(value))), -300).astype(np.int64)


def _inputs(f: PolicyFunction) -> tuple[Float64, dict[str, Int64], Float64]:
    """(O,) spans that entries of the row are divided by, how they are made, and (O,) errors of u."""
    width = np.maximum(f.categories, 1)
    is_hot = np.repeat(f.categories > 0, width)
    n = f.obs_dim
    mean = np.zeros(n) if f.mean is None else f.mean.astype(np.float64)
    inverse = np.ones(n) if f.inverse_std is None else f.inverse_std.astype(np.float64)
    is_integer = np.zeros(f.raw_dim, bool)
    bound = np.ones(f.raw_dim)
    for leaf in f.leaves:
        is_integer[leaf.columns] = leaf.dtype.kind in "iub"
        if f.mean is None and not f.categories[leaf.columns].any():
            bound[leaf.columns] = _bound_of(leaf)
    span = (
        np.full(n, f.clip) if f.mean is not None else np.where(is_hot, 1.0, np.repeat(bound, width))
    )
    if not (np.isfinite(mean).all() and np.isfinite(inverse).all() and (inverse > 0).all()):
        raise _refusal("a normaliser that is not finite")

    # |x| <= reach is all that matters: beyond it, u is cut to -1 or 1
    reach = np.abs(mean) + span / inverse
    shift = np.where(is_hot, ONE, ONE - _bits(reach))
    counts = np.repeat(is_integer, width) & ~is_hot
    shift = np.where(counts, np.minimum(shift, 0), np.clip(shift, -60, 60))
    scale = 2.0**shift
    lower = np.maximum(np.floor((mean - span / inverse) * scale), -_INT32)
    upper = np.minimum(np.ceil((mean + span / inverse) * scale), _INT32)
    lower, upper = (np.where(is_hot, one, x) for one, x in ((0, lower), (2.0**ONE, upper)))

    # u 2^30 = (x 2^shift) slope - mean slope 2^shift; both products below 2^61
    slope = inverse / span * 2.0 ** (ONE - shift)
    largest = np.maximum(np.maximum(np.abs(lower), np.abs(upper)), np.abs(mean) * scale) * slope
    extra = np.clip(60 - _bits(largest), -1, 40)
    if (extra < 0).any():
        raise _refusal("a normaliser whose deviation is less than a billionth of its mean")
    factor = np.rint(slope * 2.0**extra)
    offset = np.rint(mean * scale * slope * 2.0**extra)
    # the rounding of x, if it is one, of factor and offset, and of the result
    half = np.where(counts & (shift == 0) | is_hot, 0.0, 0.5)
    farthest = np.maximum(np.abs(lower), np.abs(upper))
    e = (half * slope + (farthest + 1) * 0.5 / 2.0**extra + 0.5) / 2.0**ONE
    raw = np.concatenate([[0], np.cumsum(width)[:-1]])
    observation_shift = np.where(f.categories > 0, 0, shift[raw])
    arrays = {
        "observation_shift": observation_shift, "lower": lower, "upper": upper, "factor": factor,
        "offset": offset, "input_shift": extra,
    }  # fmt: skip
    return span, {name: a.astype(np.int64) for name, a in arrays.items()}, e


def _bound_of(leaf: Any) -> Float64:
    """The largest magnitude of each entry of a part of an observation that is not normalised."""
    if leaf.low is not None:
        low, high = (np.abs(np.ravel(b).astype(np.float64)) for b in (leaf.low, leaf.high))
        bound = np.maximum(low, high)
    elif leaf.dtype.kind in "iu":
        bound = np.array([float(np.iinfo(leaf.dtype).max)])
    else:
        bound = np.array([np.inf])
    if not (bound <= _UNBOUNDED).all():
        raise ExportError(
            f"number: expected {leaf.name} to be normalised, or in a Box with finite bounds, to be "
            "'fixed', got numbers of unknown size; train with normalize_observations, export from the "
            "agent (a file does not hold the bounds of observations), or take number='float'"
        )
    return np.where(bound > 0, bound, 1.0)


def _interval(
    weight: Float64, bias: Float64, h: tuple[Float64, Float64]
) -> tuple[Float64, Float64]:
    positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    return positive @ h[0] + negative @ h[1] + bias, positive @ h[1] + negative @ h[0] + bias


def _layer(
    weight: Float64,
    bias: Float64,
    fraction: int,
    h: tuple[Float64, Float64],
    e: Float64,
    *,
    is_tanh: bool = False,
    wanted: Int64 | None = None,
) -> tuple[FixedLayer, tuple[Float64, Float64], Float64]:
    """Round one layer; its outputs' intervals and errors.

    ``wanted`` are the outputs' shifts; None: one for all, as large as 32 bits allow.
    """
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise _refusal("weights that are not finite")
    z = _interval(weight, bias, h)
    largest = np.maximum(np.abs(z[0]), np.abs(z[1]))
    magnitude = np.maximum(np.abs(h[0]), np.abs(h[1])) + e
    # each weight below 2^30, each sum below 2^61
    sums = np.abs(weight) @ (magnitude * 2.0**fraction + 2) + np.abs(bias) * 2.0**fraction
    scale = np.minimum(30 - _bits(np.abs(weight).max(axis=1)), 61 - _bits(sums))
    if wanted is None:
        bits = int(_bits(largest.max() + (np.abs(weight) @ e).max()))
        shared = ONE - min(bits, 4) if is_tanh else ONE - bits  # tanh is constant beyond 2^4
        wanted = np.full(len(bias), min(shared, ONE), np.int64)
        wanted = np.minimum(wanted, int((fraction + scale).min()))
    else:
        wanted = np.minimum(wanted, fraction + scale)
    scale = np.minimum(scale, wanted - fraction + 61)
    unit = 2.0 ** scale.astype(np.float64)
    w = np.rint(weight * unit[:, None])
    b = np.rint(bias * unit * 2.0**fraction)
    changed = np.abs(w / unit[:, None] - weight) @ magnitude
    changed = changed + np.abs(b / (unit * 2.0**fraction) - bias)
    e_z = np.abs(w / unit[:, None]) @ e + changed + 0.5 * 2.0 ** -wanted.astype(np.float64)
    layer = FixedLayer(
        weight=w.astype(np.int64),
        bias=b.astype(np.int64),
        shift=fraction + scale - wanted,
        fraction=wanted,
    )
    return layer, z, e_z


def _activated(
    activation: str, table: Table | None, fraction: int, z: tuple[Float64, Float64], e: Float64
) -> tuple[tuple[Float64, Float64], Float64]:
    """Intervals and errors behind an activation."""
    if activation == "identity":
        return z, e
    if activation == "relu" or table is None:
        return (np.maximum(z[0], 0.0), np.maximum(z[1], 0.0)), e
    shape = _SHAPES[activation]
    e = shape.lipschitz * e + table.error
    if activation == "tanh":
        return (np.tanh(z[0]), np.tanh(z[1])), e
    lowest = np.maximum(z[0], 0.0) - shape.lowest
    return (lowest, np.maximum(z[1], 0.0)), e + 0.5 * 2.0**-fraction


def _with_actions(
    f: PolicyFunction,
    weight: Float64,
    bias: Float64,
    fraction: int,
    h: tuple[Float64, Float64],
    e: Float64,
    inputs: dict[str, Int64],
    layers: list[FixedLayer],
    table: Table | None,
) -> FixedPolicy:
    """The last layer, which gives logits, or the action itself."""
    found: dict[str, Any] = {"action_shift": None, "action_low": None, "action_high": None}
    if f.is_discrete:
        last, z, error = _layer(weight, bias, fraction, h, e)
        scale = np.ones(len(bias))
    else:
        A = f.action_dim
        weight, bias = weight[:A], bias[:A]  # log-deviations are of no use to the mode
        if f.center is not None and f.half is not None:
            weight = weight * f.half.astype(np.float64)[:, None]
            bias = bias * f.half.astype(np.float64) + f.center.astype(np.float64)
        low, high = (
            np.full(A, sign * np.inf) if bound is None else bound.astype(np.float64)
            for sign, bound in ((-1, f.low), (1, f.high))
        )
        z = _interval(weight, bias, h)
        ends = [np.clip(one, low, high) for one in z]
        largest = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
        if f.action_dtype.kind in "iu":
            wanted = np.zeros(A, np.int64)
            if (largest > _INT32).any():
                raise _refusal("integers of more than 32 bits as actions")
        else:
            wanted = np.clip(ONE - _bits(largest), -60, 60)
        last, z, error = _layer(weight, bias, fraction, h, e, wanted=wanted)
        unit = 2.0 ** last.fraction.astype(np.float64)
        if f.action_dtype.kind in "iu":
            if (last.fraction < 0).any():
                raise _refusal("integer actions that its sums cannot tell apart")
            error = error - 0.5
        # never beyond a bound, not even by a rounding
        found = {
            "action_shift": last.fraction,
            "action_low": np.maximum(np.ceil(low * unit), -_INT32).astype(np.int64),
            "action_high": np.minimum(np.floor(high * unit), _INT32).astype(np.int64),
        }
        finite = np.isfinite(low) & np.isfinite(high)
        scale = np.where(finite, (high - low) / 2, largest)
    if (error > _LARGEST_ERROR * np.maximum(scale, 1e-300)).any():
        raise _refusal(
            f"one whose actions could be off by {(error / scale).max():.1e} of their size"
        )
    return FixedPolicy(**inputs, layers=(*layers, last), table=table, error=error, **found)
