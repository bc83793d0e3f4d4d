"""A policy as one C header: weights as arrays, one function, no dependencies and no allocation.

>>> agent.export("trpo_policy.h")

.. code-block:: c

    #include "trpo_policy.h"

    float observation[TRPO_POLICY_OBSERVATION];   // the raw numbers, see trpo_fast.export
    float action[TRPO_POLICY_ACTION];
    trpo_policy_act(observation, NULL, action);   // the mode; or a sample, given noise

It is C99 and C++11, includes only the standard headers math.h, stddef.h and stdint.h, and compiles
without a warning under ``-Wall -Wextra -pedantic -Wconversion``; link with ``-lm``. Names begin with
that of the file, so one program may include several policies. The function keeps no state: it may be
called from several threads. Its only memory is two layers on the stack.

``TRPO_POLICY_OBSERVATION`` is R raw numbers and ``TRPO_POLICY_ACTION`` A entries of an action in C
order. Noise is A numbers: standard normals for a Box, uniforms in [0, 1) for discrete spaces. The
function returns 0; it returns 1, and leaves the action as it was, where ``predict`` would refuse the
observation: a NaN, an infinity, or an integer outside its range.

A policy that was trained with action masks takes them as its second argument, one byte for every choice
(``trpo_policy_act(observation, allowed, NULL, action)``), or NULL where everything is allowed; it returns
1 where a component has no allowed choice.

Arithmetic is in the policy's dtype, ``float`` or ``double``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..core import LOG_STD_BOUNDS
from .c_text import (
    action_type,
    array_text,
    comment_text,
    leaf_lines,
    mask_check,
    number_text,
    prefix_of,
)
from .function import ExportError, PolicyFunction

__all__ = ["c_header"]

Array = NDArray[Any]

_ACTIVATIONS = {
    "tanh": "tanh@(z)",
    "relu": "z < 0 ? 0 : z",
    "elu": "z > 0 ? z : expm1@(z)",
    "silu": "z / (1 + exp@(-z))",
    "gelu": "$(0.5) * z * erfc@(-z * $(0.70710678118654752440))",
    "identity": "z",
}


def c_header(function: PolicyFunction, name: str = "trpo_policy") -> str:
    """Write a policy as a C header.

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
        An action space whose dtype C does not have.
    """
    return _Header(function, prefix_of(name)).text()


class _Header:
    def __init__(self, function: PolicyFunction, prefix: str) -> None:
        self.f = function
        self.p = prefix
        self.is_float = function.dtype == np.float32
        self.real = "float" if self.is_float else "double"

    def text(self) -> str:
        guard = f"{self.p.upper()}_H"
        parts = [
            self._comment(),
            f"#ifndef {guard}\n#define {guard}\n",
            "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n",
            f"#define {self.p.upper()}_OBSERVATION {self.f.raw_dim}\n"
            f"#define {self.p.upper()}_ACTION {self.f.action_dim}\n",
            *self._arrays(),
            self._activation(),
            self._layer(),
            self._act(),
            f"#endif  /* {guard} */\n",
        ]
        return "\n".join(part for part in parts if part)

    # ---- what a reader sees first

    def _comment(self) -> str:
        f = self.f
        lines = [
            f"A policy of trpo_fast {__version__}: {', '.join(f'{k} {v}' for k, v in f.facts.items())}.",
            "",
            f"int {self.p}_act(observation, {'allowed, ' if f.mask_width else ''}noise, action)",
            f"  observation  {f.raw_dim} raw numbers:",
            *leaf_lines(f),
            *(
                [
                    f"  allowed      NULL, or {f.mask_width} bytes: whether each choice of "
                    f"{', '.join(map(str, f.choices))} is allowed"
                ]
                if f.mask_width
                else []
            ),
            f"  noise        NULL for the mode, or {f.action_dim} "
            + ("uniforms in [0, 1)" if f.is_discrete else "standard normals")
            + " for a sample",
            f"  action       {f.action_dim} entries, {f.action_shape} in C order, written to",
            "returns 0; 1, and action as it was, for a NaN, an infinity, or an integer out of range"
            + (", or where nothing is allowed" if f.mask_width else ""),
        ]
        return comment_text(lines)

    # ---- numbers

    def _arrays(self) -> list[str]:
        f = self.f
        arrays: dict[str, Array | None] = {
            "categories": f.categories if f.has_one_hot else None,
            "starts": f.starts if f.has_one_hot else None,
            "mean": f.mean,
            "inverse_std": f.inverse_std,
        }
        for i, layer in enumerate(f.layers):
            # columns first, so that the inner loop runs over outputs and can be vectorised
            arrays[f"weight_{i}"] = layer.weight.T
            arrays[f"bias_{i}"] = layer.bias
        if f.log_std is not None:
            arrays["std"] = np.exp(f.log_std).astype(f.dtype)
        if "categorical" in f.kind:
            arrays["sizes"] = np.array(f.sizes)
        arrays |= {"low": f.low, "high": f.high, "center": f.center, "half": f.half}
        arrays["action_starts"] = f.action_starts
        for name in ("categories", "starts", "action_starts"):
            values = arrays[name]
            if values is not None and np.abs(values).max() >= 2**31:
                raise ExportError(
                    f"{name}: expected integers of 32 bits, got {np.abs(values).max()}"
                )
        return [array_text(f"{self.p}_{name}", a) for name, a in arrays.items() if a is not None]

    # ---- code

    def _code(self, text: str) -> str:
        """@ is the suffix of mathematical functions, $(x) a literal, # the prefix of names."""
        text = text.replace("@", "f" if self.is_float else "").replace("#", f"{self.p}_")
        text = re.sub(r"\$\(([^)]*)\)", r"\1f" if self.is_float else r"\1", text)
        return text.replace("REAL", self.real)

    def _activation(self) -> str:
        if len(self.f.layers) == 1:
            return ""
        return self._code(
            f"static inline REAL #activation(REAL z) {{ "
            f"return {_ACTIVATIONS[self.f.activation]}; }}\n"
        )

    def _layer(self) -> str:
        return self._code(
            "/* z = weight^T h + bias */\n"
            "static inline void #layer(const REAL *h, size_t n_in, const REAL *weight,\n"
            "                          const REAL *bias, size_t n_out, REAL *z) {\n"
            "  size_t i, o;\n"
            "  for (o = 0; o < n_out; ++o) z[o] = bias[o];\n"
            "  for (i = 0; i < n_in; ++i)\n"
            "    for (o = 0; o < n_out; ++o) z[o] += weight[i * n_out + o] * h[i];\n"
            "}\n"
        )

    def _act(self) -> str:
        f = self.f
        outputs = [layer.weight.shape[0] for layer in f.layers]
        # layers take turns between two buffers; the first holds the row too
        widths = [f.obs_dim, *outputs]
        a, b = max(widths[0::2]), max(widths[1::2])
        names = ["a", "b"]
        body = [
            "static inline int #act(const REAL *observation,"
            + (" const unsigned char *allowed,\n                       " if f.mask_width else "")
            + " const REAL *noise,\n"
            f"                       {action_type(f)} *action) {{",
            f"  REAL a[{a}], b[{b}];",
            "  size_t i;",
            *mask_check(f),
            *self._encode(),
        ]
        for k, (n_in, n_out) in enumerate(zip(widths[:-1], outputs, strict=True)):
            h, z = names[k % 2], names[(k + 1) % 2]
            body.append(f"  #layer({h}, {n_in}, #weight_{k}, #bias_{k}, {n_out}, {z});")
            if k < len(f.layers) - 1:
                body.append(f"  for (i = 0; i < {n_out}; ++i) {z}[i] = #activation({z}[i]);")
        body += [*self._decide(names[len(f.layers) % 2]), "  return 0;", "}\n"]
        return self._code("\n".join(body))

    def _encode(self) -> list[str]:
        """From raw numbers to the row in `a`."""
        f = self.f
        lines = [
            f"  for (i = 0; i < {f.raw_dim}; ++i)",
            "    if (!(observation[i] - observation[i] == 0)) return 1;",
        ]
        if f.has_one_hot:
            lines += [
                "  {",
                "    size_t at = 0;",
                f"    for (i = 0; i < {f.raw_dim}; ++i) {{",
                "      const int32_t n = #categories[i];",
                "      const REAL index = observation[i] - (REAL)#starts[i];",
                "      int32_t k;",
                "      if (n == 0) {",
                "        a[at++] = observation[i];",
                "        continue;",
                "      }",
                "      if (!(index >= 0 && index < (REAL)n)) return 1;",
                "      for (k = 0; k < n; ++k) a[at++] = (REAL)(k == (int32_t)index ? 1 : 0);",
                "    }",
                "  }",
            ]
        else:
            lines.append(f"  for (i = 0; i < {f.raw_dim}; ++i) a[i] = observation[i];")
        if f.mean is not None:
            clip = number_text(f.clip, self.is_float)
            lines += [
                f"  for (i = 0; i < {f.obs_dim}; ++i) {{",
                "    const REAL y = (a[i] - #mean[i]) * #inverse_std[i];",
                f"    a[i] = y > {clip} ? {clip} : (y < -{clip} ? -{clip} : y);",
                "  }",
            ]
        return lines

    def _decide(self, out: str) -> list[str]:
        """From outputs of the network to the action."""
        f = self.f
        if not f.is_discrete:
            return self._decide_box(out)
        starts = " + #action_starts[g]" if f.action_starts is not None else ""
        if f.kind == "bernoulli":
            return [
                f"  for (i = 0; i < {f.n_groups}; ++i) {{",
                f"    const double e = exp(-fabs((double){out}[i]));",
                f"    const double p = {out}[i] >= 0 ? 1 / (1 + e) : e / (1 + e);",
                *(
                    [
                        "    if (allowed && !(allowed[2 * i] && allowed[2 * i + 1])) {",
                        "      action[i] = allowed[2 * i + 1] ? 1 : 0;",
                        "      continue;",
                        "    }",
                    ]
                    if f.mask_width
                    else []
                ),
                f"    action[i] = (noise ? (double)noise[i] < p : {out}[i] > 0) ? 1 : 0;",
                "  }",
            ]
        if f.mask_width:
            return self._decide_among_allowed(out, starts)
        return [
            "  {",
            f"    const REAL *logits = {out};",
            "    size_t g;",
            f"    for (g = 0; g < {f.n_groups}; ++g) {{",
            "      const int32_t n = #sizes[g];",
            "      int32_t k, best = 0;",
            "      for (k = 1; k < n; ++k)",
            "        if (logits[k] > logits[best]) best = k;",
            "      if (noise) {",
            "        const double largest = (double)logits[best];",
            "        double sum = 0, below = 0;",
            "        for (k = 0; k < n; ++k) sum += exp((double)logits[k] - largest);",
            "        /* the inverse of the cumulative distribution; the last takes the rest */",
            "        for (best = 0; best + 1 < n; ++best) {",
            "          below += exp((double)logits[best] - largest) / sum;",
            "          if ((double)noise[g] < below) break;",
            "        }",
            "      }",
            f"      action[g] = best{starts};",
            "      logits += n;",
            "    }",
            "  }",
        ]

    def _decide_among_allowed(self, out: str, starts: str) -> list[str]:
        return [
            "  {",
            f"    const REAL *logits = {out};",
            "    size_t g;",
            f"    for (g = 0; g < {self.f.n_groups}; ++g) {{",
            "      const int32_t n = #sizes[g];",
            "      int32_t k, best = -1;",
            "      for (k = 0; k < n; ++k)",
            "        if ((!allowed || allowed[k]) && (best < 0 || logits[k] > logits[best])) best = k;",
            "      if (noise) {",
            "        const double largest = (double)logits[best];",
            "        double sum = 0, below = 0;",
            "        for (k = 0; k < n; ++k)",
            "          if (!allowed || allowed[k]) sum += exp((double)logits[k] - largest);",
            "        /* the inverse of the cumulative distribution; the last allowed takes the rest */",
            "        for (k = 0; k < n; ++k) {",
            "          if (allowed && !allowed[k]) continue;",
            "          best = k;",
            "          below += exp((double)logits[k] - largest) / sum;",
            "          if ((double)noise[g] < below) break;",
            "        }",
            "      }",
            f"      action[g] = best{starts};",
            "      logits += n;",
            "      if (allowed) allowed += n;",
            "    }",
            "  }",
        ]

    def _decide_box(self, out: str) -> list[str]:
        f = self.f
        decode = "float" if f.decode_dtype == np.float32 else "double"
        n, suffix = f.action_dim, "f" if decode == "float" else ""
        if f.log_std is not None:
            std = "#std[i]"
        else:
            low, high = (number_text(x, self.is_float) for x in LOG_STD_BOUNDS)
            log_std = f"{out}[{n} + i]"
            std = f"exp@({log_std} < {low} ? {low} : ({log_std} > {high} ? {high} : {log_std}))"
        lines = [
            f"  for (i = 0; i < {n}; ++i) {{",
            f"    {decode} v = ({decode})(noise ? {out}[i] + noise[i] * {std} : {out}[i]);",
        ]
        if f.center is not None:
            lines.append("    v = #center[i] + #half[i] * v;")
        if f.low is not None:
            lines.append("    v = v < #low[i] ? #low[i] : (v > #high[i] ? #high[i] : v);")
        value = f"rint{suffix}(v)" if f.action_dtype.kind in "iub" else "v"
        return [*lines, f"    action[i] = ({action_type(f)}){value};", "  }"]
