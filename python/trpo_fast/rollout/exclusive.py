"""One call at a time: others are refused at once, with a sentence, instead of being mixed up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class Exclusive:
    """Lets one call in at a time.

    Parameters
    ----------
    under_way
        What is under way while it is taken, for the sentence of those that are refused, such as
        "a rollout of this sampler".
    """

    def __init__(self, under_way: str) -> None:
        self._under_way = under_way
        self._lock = threading.Lock()
        self._taken_by: tuple[int, int] | None = None  # process and thread

    @property
    def is_taken(self) -> bool:
        """Whether a call of this process is under way."""
        return self._taken_by is not None and self._taken_by[0] == os.getpid()

    @property
    def is_taken_by_another_thread(self) -> bool:
        """Whether a call is under way in another thread of this process."""
        return self.is_taken and self._taken_by != (os.getpid(), threading.get_ident())

    def refuse_other_threads(self, name: str) -> None:
        """Raise RuntimeError if a call is under way in another thread of this process.

        Parameters
        ----------
        name
            Of the call that must not come in between, for the sentence.
        """
        if self.is_taken_by_another_thread:
            raise RuntimeError(
                f"{name}: {self._under_way} is under way in another thread; wait until that has "
                "returned, or do it in a callback"
            )

    @contextlib.contextmanager
    def taken(self, name: str) -> Iterator[None]:
        """Take it for a ``with`` block.

        Parameters
        ----------
        name
            Of the call, for the sentence.

        Raises
        ------
        RuntimeError
            It is taken, by another thread or by a caller of this one.
        """
        with self._lock:
            if self.is_taken:
                raise RuntimeError(
                    f"{name}: {self._under_way} is under way already (in another thread, or this "
                    "is called from one of its callbacks); wait until that has returned"
                )
            self._taken_by = os.getpid(), threading.get_ident()
        try:
            yield
        finally:
            self._taken_by = None
