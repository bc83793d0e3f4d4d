"""Whether documents name code that is there: dotted names, files, and what is defined in them."""

from __future__ import annotations

import importlib
import re
from typing import Any


def resolve(reference: str) -> Any:
    """The object behind a dotted name: a module, then attributes; fields of dataclasses count."""
    names = reference.split(".")
    for cut in range(len(names), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(names[:cut]))
        except ModuleNotFoundError:
            continue
        for name in names[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(reference)


def defines(source: str, name: str) -> bool:
    """Whether a file of C++ or Python has a definition of a function or class of this name."""
    cpp = rf"^(?!\s*(//|return\b))[\w:<>*&,\s]*[\w>*&]\s+(?:[\w<>:]+::)?{name}\s*\([^;]*?\{{"
    struct = rf"^(?:struct|class)\s+{name}\b[^;]*?\{{"
    python = rf"^\s*(?:def|class)\s+{name}\b"
    return bool(re.search(f"{cpp}|{struct}|{python}", source, flags=re.MULTILINE))
