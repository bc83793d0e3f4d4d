"""A policy as one C header that computes in integers: for processors without a floating-point unit.

>>> agent.export("trpo_policy.h", number="fixed")

.. code-block:: c

    #include "trpo_policy.h"

    int32_t observation[TRPO_POLICY_OBSERVATION];  // number i times 2^trpo_policy_observation_shift[i]
    int32_t action[TRPO_POLICY_ACTION];  // entry i times 2^trpo_policy_action_shift[i]
    trpo_policy_act(observation, action);  // the mode

Weights, inputs and activations are integers of 32 bits, sums of 64. Every layer has a scale of its own,
chosen from the weights and from bounds that its inputs cannot leave, so no sum overflows whatever is
observed; numbers too large for their 32 bits are cut to the largest. tanh, elu, silu and gelu are tables,
256 values a unit, with lines between them. The first comment of the header says by how much an action can
differ from that of ``predict``, at most: a bound that is computed, layer by layer, not measured.

It is C99 and C++11, includes stddef.h and stdint.h, calls nothing, allocates nothing and uses no
floating point. One function at the end is for programs that have it,
``trpo_policy_act_float(observation, action)``, with the numbers of the environment in and out; a program
that defines ``TRPO_POLICY_NO_FLOAT`` before the include is compiled without it.

A discrete action is an integer as it is, and so are the integers of observations. With action masks the
second argument is ``allowed``, as in the header of :mod:`.c_header`. It gives no samples. The function
returns 0; it returns 1 where an integer that stands for a category is out of its range, or a component
has no allowed choice.

A policy cannot be written so where the size of an observation is not known: it is neither normalised nor
in a Box with finite bounds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from .c_text import action_type, array_text, comment_text, leaf_lines, mask_check, prefix_of
from .fixed_point import ONE, STEPS, fixed_policy
from .function import ExportError, PolicyFunction

__all__ = ["c_fixed_header"]

_ACTIVATIONS = {
    "tanh": "z < 0 ? -(int32_t)t : (int32_t)t",
    "elu": f"z > 0 ? z : -(int32_t)#shifted(t, {ONE} - fraction)",
    "silu": f"(z > 0 ? z : 0) - (int32_t)#shifted(t, {ONE} - fraction)",
    "gelu": f"(z > 0 ? z : 0) - (int32_t)#shifted(t, {ONE} - fraction)",
    "relu": "z > 0 ? z : 0",
    "identity": "z",
}

_BASICS = """/* round(v / 2^shift), halves away from 0: the same numbers from every compiler */
static inline int64_t #shifted(int64_t v, int shift) {
  const int64_t half = shift > 0 ? (int64_t)1 << (shift - 1) : 0;
  return v < 0 ? -((half - v) >> shift) : (v + half) >> shift;
}

static inline int32_t #within(int64_t v, int64_t low, int64_t high) {
  return (int32_t)(v < low ? low : (v > high ? high : v));
}

/* entry o of the row, from -1 to 1 in units of 2^-ONE */
static inline int32_t #input(int32_t x, size_t o) {
  const int64_t v = (int64_t)#within(x, #lower[o], #upper[o]) * #factor[o] - #offset[o];
  return #within(#shifted(v, #input_shift[o]), -((int64_t)1 << ONE), (int64_t)1 << ONE);
}

/* z = (weight h + bias) / 2^shift; the export has made sure that the sums fit */
static inline void #layer(const int32_t *h, size_t n_in, const int32_t *weight, const int64_t *bias,
                          const unsigned char *shift, size_t n_out, int32_t *z) {
  size_t i, o;
  for (o = 0; o < n_out; ++o) {
    int64_t sum = bias[o];
    for (i = 0; i < n_in; ++i) sum += (int64_t)weight[o * n_in + i] * h[i];
    z[o] = #within(#shifted(sum, shift[o]), -INT32_MAX, INT32_MAX);
  }
}
"""

_TABLE = """/* z / 2^fraction; lines between the values of a table, 2^STEPS a unit */
static inline int32_t #activation(int32_t z, int fraction) {
  const int64_t u = z < 0 ? -(int64_t)z : z;
  const size_t k = (size_t)(u >> (fraction - STEPS));
  int64_t t = #table[LAST];
  if (k < LAST) {
    const int64_t past = u & (((int64_t)1 << (fraction - STEPS)) - 1);
    t = #table[k] + #shifted((#table[k + 1] - (int64_t)#table[k]) * past, fraction - STEPS);
  }
  return RESULT;
}
"""


def c_fixed_header(function: PolicyFunction, name: str = "trpo_policy") -> str:
    """Write a policy as a C header in integers.

    Parameters
    ----------
    function
        The policy.
    name
        What all names of the header begin with; characters that C does not know become underscores.

    Returns
    -------
    str
        The text of the header.

    Raises
    ------
    ExportError
        The policy cannot be held in 32 bits, or the size of its observations is not known.
    """
    return _Header(function, prefix_of(name)).text()


class _Header:
    def __init__(self, function: PolicyFunction, prefix: str) -> None:
        self.f = function
        self.p = prefix
        self.q = fixed_policy(function)

    def text(self) -> str:
        upper = self.p.upper()
        parts = [
            self._comment(),
            f"#ifndef {upper}_H\n#define {upper}_H\n",
            "#include <stddef.h>\n#include <stdint.h>\n",
            f"#define {upper}_OBSERVATION {self.f.raw_dim}\n"
            f"#define {upper}_ACTION {self.f.action_dim}\n",
            *self._arrays(),
            self._code(_BASICS.replace("ONE", str(ONE))),
            self._activation(),
            self._act(),
            f"#ifndef {upper}_NO_FLOAT",
            self._act_float(),
            f"#endif  /* {upper}_NO_FLOAT */\n",
            f"#endif  /* {upper}_H */\n",
        ]
        return "\n".join(part for part in parts if part)

    def _code(self, text: str) -> str:
        return text.replace("#", f"{self.p}_")

    def _comment(self) -> str:
        f, mask = self.f, "allowed, " if self.f.mask_width else ""
        lines = [
            f"A policy of trpo_fast {__version__} in integers: "
            f"{', '.join(f'{k} {v}' for k, v in f.facts.items())}.",
            "",
            f"int {self.p}_act(observation, {mask}action)",
            f"  observation  {f.raw_dim} raw numbers, number i times 2^{self.p}_observation_shift[i]:",
            *leaf_lines(f),
        ]
        if f.mask_width:
            lines.append(
                f"  allowed      NULL, or {f.mask_width} bytes: whether each choice of "
                f"{', '.join(map(str, f.choices))} is allowed"
            )
        what = "" if f.is_discrete else f", entry i times 2^{self.p}_action_shift[i]"
        lines += [
            f"  action       {f.action_dim} entries, {f.action_shape} in C order, written to{what}",
            "returns 0; 1, and action as it was, for an integer out of range"
            + (", or where nothing is allowed" if f.mask_width else ""),
            "",
            f"{self.p}_act_float takes and gives the numbers of the environment, and returns 1 for a",
            f"NaN or an infinity too; without it if {self.p.upper()}_NO_FLOAT is defined.",
            "",
            "Roundings of predict itself aside:",
            self._bound(),
        ]
        return comment_text(lines)

    def _bound(self) -> str:
        error = self.q.error
        largest = f"{error.max():.2g}"
        if self.f.kind == "bernoulli":
            return f"Bits are those of predict wherever a logit is farther than {largest} from 0."
        if self.f.is_discrete:
            return (
                "Actions are those of predict wherever the largest logit leads by more than "
                f"{2 * error.max():.2g}."
            )
        if self.f.action_dtype.kind in "iu":
            return f"Entries differ from those of predict by at most {largest} before they are rounded."
        each = ", ".join(f"{e:.2g}" for e in error[:8]) + (", ..." if len(error) > 8 else "")
        return f"Entries differ from those of predict by at most {each}."

    def _arrays(self) -> list[str]:
        f, q = self.f, self.q
        unsigned, signed, wide = "unsigned char", "signed char", "int64_t"
        arrays: list[tuple[str, NDArray[Any] | None, str]] = [
            ("observation_shift", q.observation_shift, signed),
            ("action_shift", q.action_shift, signed),
            ("categories", f.categories if f.has_one_hot else None, "int32_t"),
            ("starts", f.starts if f.has_one_hot else None, "int32_t"),
            ("lower", q.lower, "int32_t"),
            ("upper", q.upper, "int32_t"),
            ("factor", q.factor, wide),
            ("offset", q.offset, wide),
            ("input_shift", q.input_shift, unsigned),
        ]
        for i, layer in enumerate(q.layers):
            arrays += [
                (f"weight_{i}", layer.weight, "int32_t"),
                (f"bias_{i}", layer.bias, wide),
                (f"shift_{i}", layer.shift, unsigned),
            ]
        arrays += [
            ("table", None if q.table is None else q.table.values, "int32_t"),
            ("sizes", np.array(f.sizes) if "categorical" in f.kind else None, "int32_t"),
            ("low", q.action_low, "int32_t"),
            ("high", q.action_high, "int32_t"),
            ("action_starts", f.action_starts, "int32_t"),
        ]
        for name, values, kind in arrays:
            if kind == "int32_t" and values is not None and np.abs(values).max() >= 2**31:
                raise ExportError(
                    f"{name}: expected integers of 32 bits, got {np.abs(values).max()}"
                )
        return [array_text(f"{self.p}_{n}", a, kind) for n, a, kind in arrays if a is not None]

    def _activation(self) -> str:
        if len(self.q.layers) == 1:
            return ""
        result = _ACTIVATIONS[self.f.activation]
        if self.q.table is None:
            return self._code(
                f"static inline int32_t #activation(int32_t z) {{ return {result}; }}\n"
            )
        text = _TABLE.replace("RESULT", result).replace("STEPS", str(STEPS))
        return self._code(text.replace("LAST", str(len(self.q.table.values) - 1)))

    def _act(self) -> str:
        f, layers = self.f, self.q.layers
        widths = [f.obs_dim, *(len(layer.bias) for layer in layers)]
        a, b = max(widths[0::2]), max(widths[1::2])
        names = ["a", "b"]
        allowed = "const unsigned char *allowed, " if f.mask_width else ""
        body = [
            f"static inline int #act(const int32_t *observation, {allowed}int32_t *action) {{",
            f"  int32_t a[{a}], b[{b}];",
            "  size_t i;",
            *mask_check(f),
            *self._encode(),
        ]
        for k, (n_in, n_out) in enumerate(pairwise(widths)):
            h, z = names[k % 2], names[(k + 1) % 2]
            body.append(f"  #layer({h}, {n_in}, #weight_{k}, #bias_{k}, #shift_{k}, {n_out}, {z});")
            if k < len(layers) - 1:
                more = "" if self.q.table is None else f", {layers[k].fraction[0]}"
                body.append(f"  for (i = 0; i < {n_out}; ++i) {z}[i] = #activation({z}[i]{more});")
        body += [*self._decide(names[len(layers) % 2]), "  return 0;", "}\n"]
        return self._code("\n".join(body))

    def _encode(self) -> list[str]:
        f = self.f
        if not f.has_one_hot:
            return [f"  for (i = 0; i < {f.raw_dim}; ++i) a[i] = #input(observation[i], i);"]
        return [
            "  {",
            "    size_t at = 0;",
            f"    for (i = 0; i < {f.raw_dim}; ++i) {{",
            "      const int64_t n = #categories[i], index = (int64_t)observation[i] - #starts[i];",
            "      int64_t k;",
            "      if (n == 0) {",
            "        a[at] = #input(observation[i], at);",
            "        ++at;",
            "        continue;",
            "      }",
            "      if (index < 0 || index >= n) return 1;",
            "      for (k = 0; k < n; ++k, ++at)",
            f"        a[at] = #input(k == index ? (int32_t)1 << {ONE} : 0, at);",
            "    }",
            "  }",
        ]

    def _decide(self, out: str) -> list[str]:
        f = self.f
        if not f.is_discrete:
            return [
                f"  for (i = 0; i < {f.action_dim}; ++i)",
                f"    action[i] = #within({out}[i], #low[i], #high[i]);",
            ]
        if f.kind == "bernoulli":
            bit = f"{out}[i] > 0"
            if f.mask_width:
                only = "allowed && !(allowed[2 * i] && allowed[2 * i + 1])"
                bit = f"({only}) ? allowed[2 * i + 1] : {bit}"
            return [f"  for (i = 0; i < {f.n_groups}; ++i) action[i] = ({bit}) ? 1 : 0;"]
        starts = " + #action_starts[g]" if f.action_starts is not None else ""
        may = "(!allowed || allowed[k]) && " if f.mask_width else ""
        return [
            "  {",
            f"    const int32_t *logits = {out};",
            "    size_t g;",
            f"    for (g = 0; g < {f.n_groups}; ++g) {{",
            "      const int32_t n = #sizes[g];",
            "      int32_t k, best = -1;",
            "      for (k = 0; k < n; ++k)",
            f"        if ({may}(best < 0 || logits[k] > logits[best])) best = k;",
            f"      action[g] = best{starts};",
            "      logits += n;",
            *(["      if (allowed) allowed += n;"] if f.mask_width else []),
            "    }",
            "  }",
        ]

    def _act_float(self) -> str:
        f, q = self.f, self.q
        real = "float" if f.dtype == np.float32 else "double"
        kind = action_type(f)
        allowed = "const unsigned char *allowed, " if f.mask_width else ""
        scales = [array_text(f"{self.p}_observation_scale", 2.0**q.observation_shift)]
        entry = "y[i]"
        if q.action_shift is not None and f.action_dtype.kind == "f":
            scales.append(array_text(f"{self.p}_action_unit", 2.0**-q.action_shift))
            entry = "(y[i] * #action_unit[i])"
        body = [
            f"static inline int #act_float(const {real} *observation, {allowed}{kind} *action) {{",
            f"  int32_t x[{f.raw_dim}], y[{f.action_dim}];",
            "  size_t i;",
            f"  for (i = 0; i < {f.raw_dim}; ++i) {{",
            "    const double v = (double)observation[i] * #observation_scale[i];",
            "    const double whole = v < 0 ? v - 0.5 : v + 0.5;",
            "    if (!(v - v == 0)) return 1;",
            "    x[i] = INT32_MAX;",
            "    if (v < INT32_MAX) x[i] = v > -INT32_MAX ? (int32_t)whole : -INT32_MAX;",
            "  }",
            f"  if (#act(x, {'allowed, ' if f.mask_width else ''}y) != 0) return 1;",
            f"  for (i = 0; i < {f.action_dim}; ++i) action[i] = ({kind}){entry};",
            "  return 0;",
            "}\n",
        ]
        return self._code("\n".join([*scales, "\n".join(body)]))
