"""What every logger is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

Scalar: TypeAlias = float | int | str
Record: TypeAlias = Mapping[str, Scalar]


@runtime_checkable
class Logger(Protocol):
    """Receives one record per training iteration."""

    def write(self, record: Record) -> None:
        """Take one record: ``group/name`` keys, scalar values. It may be changed afterwards."""

    def close(self) -> None:
        """Write out what is pending and release the resources. Calling it twice is harmless."""
