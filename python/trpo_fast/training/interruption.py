"""A request, made by a signal, to end an evaluation that is under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EvaluationInterrupted(KeyboardInterrupt):
    """An evaluation was ended by a request; what it had found so far is dropped."""


class Interruption:
    """Whether a signal asked for an end, and how it reaches an evaluation that is under way.

    A signal handler calls `request`. An evaluation in this process is then left at once, wherever it
    stands, by an exception; one in worker processes is ended by them.
    """

    def __init__(self) -> None:
        self.requested = False
        self._raises = False

    def request(self) -> None:
        """Ask for an end. May raise `EvaluationInterrupted`: call it last in a signal handler."""
        self.requested = True
        if self._raises:
            self._raises = False
            raise EvaluationInterrupted("the evaluation was interrupted")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While entered, a request raises where it comes, in the main thread."""
        if self.requested:
            raise EvaluationInterrupted("the evaluation was interrupted")
        self._raises = True
        try:
            yield
        finally:
            self._raises = False
