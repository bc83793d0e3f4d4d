"""Names of a package that are loaded when they are first used.

A package whose modules are many makes them names of its own without loading them: what a program
does not use costs it no time at its start.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names_on_first_use(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package
        Name of the package, its ``__name__``.
    homes
        What each module inside the package gives it: names divided by spaces, by name of the module.

    Returns
    -------
    tuple of two functions
        To be assigned to ``__getattr__`` and ``__dir__`` in the package's module.

    Raises
    ------
    AttributeError
        By ``__getattr__``, for a name that is neither among them nor that of such a module.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        if name in homes:
            return importlib.import_module(f".{name}", package)
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{home_of[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return __getattr__, __dir__
