"""What every logger is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

Scalar: TypeAlias = float | int | str
Record: TypeAlias = Mapping[str, Scalar]


@runtime_checkable
class Logger(Protocol):
    """Receives one record per training iteration."""

    def write(self, record: Record) -> None:
        """Take one record: ``group/name`` keys, scalar values. It may be changed afterwards."""

    def close(self) -> None:
        """Write out what is pending and release the resources. Calling it twice is harmless."""


class MissingExtraError(ImportError):
    """An optional dependency is needed and not installed; the sentence holds the pip command."""


def import_extra(module: str, *, what: str, extra: str) -> Any:
    """Import ``module``, which comes with the optional dependencies named ``extra``.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, but broken: its own message says more
        raise MissingExtraError(
            f'{what} needs {package}, which is not installed: pip install "trpo_fast[{extra}]"',
            name=package,
        ) from None
