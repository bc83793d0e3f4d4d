"""Optional dependencies: imported where they are needed, missed in one sentence."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """An optional dependency is needed and not installed; the sentence holds the pip command."""


def import_extra(module: str, *, what: str, extra: str, package: str | None = None) -> Any:
    """Import a module that comes with one of the package's optional dependencies.

    Parameters
    ----------
    module
        Name of the module.
    what
        What needs it: the subject of the sentence.
    extra
        The name of the optional dependencies, as in ``pip install "trpo_fast[extra]"``.
    package
        The name of the package at pip, where that is not the module's.

    Returns
    -------
    module
        The module.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # the package is installed but broken: its own message says more
        raise MissingExtraError(
            f"{what} needs {package or top}, which is not installed: "
            f'pip install "trpo_fast[{extra}]"',
            name=top,
        ) from None
