"""Pieces of C that both forms of a header have: names, comments, arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .function import ExportError, PolicyFunction

__all__ = [
    "action_type",
    "array_text",
    "comment_text",
    "leaf_lines",
    "mask_check",
    "number_text",
    "prefix_of",
]

_A_LINE = 8  # numbers in a line of an array


def prefix_of(name: str) -> str:
    """What the names of a header begin with.

    Parameters
    ----------
    name
        Of the file; characters that C does not know become underscores.
    """
    prefix = re.sub(r"\W", "_", name, flags=re.ASCII) or "policy"
    return prefix if not prefix[0].isdigit() else f"_{prefix}"


def comment_text(lines: Iterable[str]) -> str:
    """A comment of C in ASCII, whatever stands in the lines.

    Parameters
    ----------
    lines
        Of the comment.
    """
    safe = (line.replace("*/", "* /").encode("ascii", "replace").decode() for line in lines)
    return "/* " + "\n   ".join(safe).rstrip() + " */\n"


def leaf_lines(f: PolicyFunction) -> list[str]:
    """Which raw numbers are which part of an observation, one line for each part.

    Parameters
    ----------
    f
        The policy.
    """
    return [
        f"               {leaf.columns.start} ... {leaf.columns.stop - 1}: {leaf.name} "
        f"{leaf.shape} {leaf.dtype}"
        for leaf in f.leaves
        if leaf.columns.stop > leaf.columns.start
    ]


def number_text(value: Any, is_float: bool) -> str:
    """A literal with as many digits as tell all numbers of its type apart.

    Parameters
    ----------
    value
        A number, or an infinity.
    is_float
        ``float``, or else ``double``.
    """
    if np.isinf(value):
        return "-INFINITY" if value < 0 else "INFINITY"
    text = f"{float(value):.9g}" if is_float else f"{float(value):.17g}"
    if not any(c in text for c in ".en"):
        text += ".0"
    return text + ("f" if is_float else "")


def array_text(name: str, values: NDArray[Any], integer: str = "int32_t") -> str:
    """A constant array.

    Parameters
    ----------
    name
        Of the array.
    values
        Its numbers, any shape.
    integer
        The type in C, where they are integers.
    """
    if values.dtype.kind == "f":
        is_float = values.dtype == np.float32
        kind = "float" if is_float else "double"
        texts = [number_text(x, is_float) for x in values.ravel()]
    else:
        kind = integer
        literal = "INT64_C({})" if integer == "int64_t" else "{}"
        texts = [literal.format(x) for x in values.ravel().tolist()]
    lines = [", ".join(texts[i : i + _A_LINE]) for i in range(0, len(texts), _A_LINE)]
    body = ",\n  ".join(lines)
    return f"static const {kind} {name}[{len(texts)}] = {{\n  {body}}};\n"


def action_type(f: PolicyFunction) -> str:
    """The type in C of an entry of an action.

    Parameters
    ----------
    f
        The policy.

    Raises
    ------
    ExportError
        C has no such type.
    """
    if f.action_dtype == np.float64:
        return "double"
    if f.action_dtype == np.float32:
        return "float"
    if f.action_dtype.kind in "iu" or f.action_dtype == np.bool_:
        return "int32_t" if f.action_dtype.itemsize < 4 or f.is_discrete else "int64_t"
    raise ExportError(f"action space: expected a dtype that C has, got {f.action_dtype}")


def mask_check(f: PolicyFunction) -> list[str]:
    """Lines that return 1 where a component has no allowed choice; none without masks.

    Parameters
    ----------
    f
        The policy.
    """
    if not f.mask_width:
        return []
    choices = "2" if f.kind == "bernoulli" else "#sizes[i]"
    return [
        "  if (allowed) {",
        "    const unsigned char *flag = allowed;",
        f"    for (i = 0; i < {f.n_groups}; ++i) {{",
        "      int32_t k, any = 0;",
        f"      for (k = 0; k < {choices}; ++k) any |= *flag++ != 0;",
        "      if (!any) return 1;",
        "    }",
        "  }",
    ]
