"""What every logger is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

Scalar: TypeAlias = float | int | str
Record: TypeAlias = Mapping[str, Scalar]


@runtime_checkable
class Logger(Protocol):
    """Receives one record per training iteration."""

    def write(self, record: Record) -> None:
        """Take one record: ``group/name`` keys, scalar values. It may be changed afterwards.

        Parameters
        ----------
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.
        """

    def close(self) -> None:
        """Write out what is pending and release the resources. Calling it twice is harmless."""


class ScalarFilter:
    """Leaves out what a logger cannot write, and names each such key once, as a warning.

    Parameters
    ----------
    logger
        The name of the logger, for the warning.
    """

    def __init__(self, logger: str) -> None:
        self._logger = logger
        self._named: set[str] = set()

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the numbers and texts of a record; an array of one entry is a number."""
        return {
            key: cast(Scalar, scalar)
            for key, value in record.items()
            if (scalar := self._scalar(key, value)) is not None
        }

    def _scalar(self, key: str, value: Any) -> object:
        if isinstance(value, (str, Real)):  # NumPy's numbers are Real
            return value
        if getattr(value, "size", 0) == 1 and getattr(value, "dtype", None) is not None:
            return self._scalar(key, value.item())
        if key not in self._named:
            self._named.add(key)
            shape = getattr(value, "shape", None)
            got = f"an array of shape {shape}" if shape else f"{value!r:.60}"
            warnings.warn(
                f"record: expected a number or a text under {key!r}, got {got}; "
                f"{self._logger} leaves it out",
                stacklevel=4,
            )
        return None
