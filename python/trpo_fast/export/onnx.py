"""A policy as an ONNX graph, for onnxruntime and whatever else reads ONNX.

>>> agent.export("policy.onnx")

.. code-block:: python

    session = onnxruntime.InferenceSession("policy.onnx")
    (action,) = session.run(None, {"observation": observations})

Inputs are the observations as the environment gives them, one input for each array: ``observation`` for
a Box, Discrete, MultiDiscrete or MultiBinary space, ``observation.KEY`` for the parts of a Dict or
Tuple (``observation.a.0`` where they are nested), in the space's dtype, with a leading axis of N that
may have any size. The output ``action`` (N, *shape) is what ``step`` takes, in the space's dtype.
With ``sample=True`` there is one more input, ``noise`` (N, A): standard normals for a Box, uniforms in
[0, 1) for discrete spaces, and the action is a sample. Integers outside their range give a one-hot
of zeros: check them before.

A policy that was trained with action masks has a second input, ``action_mask`` (N, W), bool.

Needs the package onnx (``pip install "trpo_fast[onnx]"``), which also checks the graph. Opset 17.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..core import LOG_STD_BOUNDS
from ..extras import import_extra
from .function import ExportError, Leaf, PolicyFunction

__all__ = ["onnx_model"]

_OPSET, _IR_VERSION = 17, 8


def onnx_model(function: PolicyFunction, *, sample: bool = False) -> bytes:
    """Write a policy as the bytes of an ONNX model.

    Parameters
    ----------
    function
        The policy.
    sample
        The action is a sample made of the input ``noise``, instead of the mode.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if onnx is not installed.
    ExportError
        If the runtime has no operators for the policy.
    """
    if function.activation == "gelu" and function.dtype == np.float64 and len(function.layers) > 1:
        raise ExportError(
            "onnx: expected a float32 policy with the activation gelu, got float64, for which "
            "onnxruntime has no error function; export to c, torch or numpy."
        )
    onnx = import_extra("onnx", what="An export to ONNX", extra="onnx")
    return _Graph(onnx, function, sample).model()


class _Graph:
    def __init__(self, onnx: Any, function: PolicyFunction, sample: bool) -> None:
        self.onnx = onnx
        self.f = function
        self.sample = sample
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def model(self) -> bytes:
        f, helper = self.f, self.onnx.helper
        row = self._encode()
        if f.mean is not None and f.inverse_std is not None:
            row = self._op(
                "Mul", self._op("Sub", row, self._constant(f.mean)), self._constant(f.inverse_std)
            )
            bound = np.array(f.clip, f.dtype)
            row = self._op("Clip", row, self._constant(-bound), self._constant(bound))
        for i, layer in enumerate(f.layers):
            if i:
                row = self._activate(row)
            weight, bias = self._constant(layer.weight), self._constant(layer.bias)
            row = self._op("Gemm", row, weight, bias, transB=1)
        if f.mask_width:
            row = self._forbid(row, self._input("action_mask", np.bool_, (f.mask_width,)))
        noise = self._input("noise", f.dtype, (f.action_dim,)) if self.sample else None
        action = (
            self._decide_discrete(row, noise) if f.is_discrete else self._decide_box(row, noise)
        )
        shape = np.array([-1, *f.action_shape], np.int64)
        action = self._op("Reshape", self._cast(action, f.action_dtype), self._constant(shape))
        self._op("Identity", action, output="action")
        output = helper.make_tensor_value_info(
            "action", self._type(f.action_dtype), ["N", *f.action_shape]
        )
        graph = helper.make_graph(self.nodes, "policy", self.inputs, [output], self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="trpo_fast",
            producer_version=__version__,
        )
        helper.set_model_props(model, f.facts)
        self.onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    # ---- pieces

    def _type(self, dtype: Any) -> int:
        kind: int = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return kind

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(values).reshape(np.shape(values))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def _op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def _input(self, name: str, dtype: Any, shape: tuple[int, ...]) -> str:
        info = self.onnx.helper.make_tensor_value_info(name, self._type(dtype), ["N", *shape])
        self.inputs.append(info)
        return name

    def _cast(self, value: str, dtype: Any) -> str:
        return self._op("Cast", value, to=self._type(dtype))

    # ---- the function

    def _encode(self) -> str:
        parts = []
        for leaf in self.f.leaves:
            given = self._input(leaf.name, leaf.dtype, leaf.shape)
            n = leaf.columns.stop - leaf.columns.start
            if n == 0:
                continue
            flat = self._op("Reshape", given, self._constant(np.array([-1, n], np.int64)))
            parts.append(self._encode_leaf(flat, leaf))
        return parts[0] if len(parts) == 1 else self._op("Concat", *parts, axis=1)

    def _encode_leaf(self, flat: str, leaf: Leaf) -> str:
        categories = self.f.categories[leaf.columns]
        if not categories.any():
            return self._cast(flat, self.f.dtype)
        # every integer is repeated once for each of its values, and compared with that value
        repeated = np.repeat(np.arange(len(categories)), categories)
        starts = self.f.starts[leaf.columns]
        values = np.concatenate([s + np.arange(n) for s, n in zip(starts, categories, strict=True)])
        columns = self._op("Gather", self._cast(flat, np.int64), self._constant(repeated), axis=1)
        equal = self._op("Equal", columns, self._constant(values.astype(np.int64)))
        return self._cast(equal, self.f.dtype)

    def _activate(self, z: str) -> str:
        dtype = self.f.dtype

        def number(value: float) -> str:
            return self._constant(np.array(value, dtype))

        match self.f.activation:
            case "tanh":
                return self._op("Tanh", z)
            case "relu":
                return self._op("Relu", z)
            case "elu":  # max(z, 0) + e^min(z, 0) - 1: the operator Elu has no float64
                below = self._op(
                    "Sub", self._op("Exp", self._op("Min", z, number(0.0))), number(1.0)
                )
                return self._op("Add", self._op("Max", z, number(0.0)), below)
            case "silu" if dtype == np.float64:
                # z / (1 + e^-z): some onnxruntimes fuse z sigmoid(z) into what they have in float32 only
                above_1 = self._op("Add", self._op("Exp", self._op("Neg", z)), number(1.0))
                return self._op("Div", z, above_1)
            case "silu":
                return self._op("Mul", z, self._op("Sigmoid", z))
            case "gelu":  # z (1 + erf(z / sqrt 2)) / 2
                erf = self._op("Erf", self._op("Mul", z, number(0.7071067811865476)))
                half = self._op("Mul", self._op("Add", erf, number(1.0)), number(0.5))
                return self._op("Mul", z, half)
            case _:
                return z

    def _columns(self, value: str, begin: int, end: int) -> str:
        where = (np.array([x], np.int64) for x in (begin, end, 1))
        return self._op("Slice", value, *map(self._constant, where))

    def _forbid(self, logits: str, mask: str) -> str:
        """Logits that no forbidden choice can win with; finite, as those of the core are."""
        f = self.f
        forbidden = np.finfo(f.dtype).min / 2**20
        never, certain = (self._constant(np.array(x, f.dtype)) for x in (forbidden, -forbidden))
        may = mask
        if f.kind == "bernoulli":
            zeros, ones = (
                self._op("Gather", mask, self._constant(np.arange(k, f.mask_width, 2)), axis=1)
                for k in (0, 1)
            )
            logits, may = self._op("Where", zeros, logits, certain), ones
        return self._op("Where", may, logits, never)

    def _decide_discrete(self, logits: str, noise: str | None) -> str:
        f = self.f
        if f.kind == "bernoulli":
            if noise is None:
                return self._op("Greater", logits, self._constant(np.zeros((), f.dtype)))
            return self._op("Less", noise, self._op("Sigmoid", logits))
        actions, begin = [], 0
        for g, n in enumerate(f.sizes):
            group = self._columns(logits, begin, begin + n) if len(f.sizes) > 1 else logits
            begin += n
            if noise is None:
                actions.append(self._op("ArgMax", group, axis=1, keepdims=1))
            else:
                actions.append(self._draw(group, n, self._columns(noise, g, g + 1)))
        action = actions[0] if len(actions) == 1 else self._op("Concat", *actions, axis=1)
        if f.action_starts is not None:
            action = self._op("Add", action, self._constant(f.action_starts))
        return action

    def _draw(self, logits: str, n: int, uniform: str) -> str:
        """The inverse of the cumulative distribution: how many partial sums are not above u."""
        p = self._op("Softmax", self._cast(logits, np.float64), axis=1)
        below = self._op("CumSum", p, self._constant(np.array(1, np.int64)))
        if self.f.mask_width:  # exactly 1 where only forbidden choices follow
            below = self._op("Div", below, self._columns(below, n - 1, n))
        # without the last, which takes what rounding leaves
        below = self._columns(below, 0, n - 1)
        passed = self._op("Not", self._op("Less", self._cast(uniform, np.float64), below))
        axes = self._constant(np.array([1], np.int64))
        return self._op("ReduceSum", self._cast(passed, np.int64), axes, keepdims=1)

    def _decide_box(self, out: str, noise: str | None) -> str:
        f = self.f
        a = out if f.log_std is not None else self._columns(out, 0, f.action_dim)
        if noise is not None:
            if f.log_std is not None:
                std = self._constant(np.exp(f.log_std).astype(f.dtype))
            else:
                low, high = (self._constant(np.array(x, f.dtype)) for x in LOG_STD_BOUNDS)
                raw = self._columns(out, f.action_dim, 2 * f.action_dim)
                std = self._op("Exp", self._op("Clip", raw, low, high))
            a = self._op("Add", a, self._op("Mul", std, noise))
        a = self._cast(a, f.decode_dtype)
        if f.center is not None and f.half is not None:
            scaled = self._op("Mul", a, self._constant(f.half))
            a = self._op("Add", scaled, self._constant(f.center))
        if f.low is not None and f.high is not None:
            a = self._op("Max", a, self._constant(f.low))
            a = self._op("Min", a, self._constant(f.high))
        return self._op("Round", a) if f.action_dtype.kind in "iu" else a
