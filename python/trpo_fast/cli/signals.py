"""A signal ends training after whole iterations."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from ..studies.processes import STOP_WITH_INPUT
from ..training.interruption import Interruption

if TYPE_CHECKING:
    from ..training.agent import OnPolicyAgent


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopOnSignal:
    """While entered, SIGINT, SIGTERM and SIGHUP end training after the current iteration.

    The checkpoint saved then is that of a whole iteration, so that the run continues exactly. An
    evaluation, which changes nothing, is left at once. A second signal interrupts anything at once.
    SIGHUP comes when a terminal is closed; nohup has it ignored, and it stays so.

    Attributes
    ----------
    interruption
        For the evaluations that a signal is to end.
    """

    def __init__(self) -> None:
        self.interruption = Interruption()
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        """Take over the signals."""
        for number in _SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # the run is to outlive its terminal
            self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_iteration(self, agent: OnPolicyAgent[Any], record: Mapping[str, object]) -> bool | None:
        """Stop training (return False) once a signal has come; a callback of learn().

        Parameters
        ----------
        agent
            The agent that trains.
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.
        """
        return False if self.requested else None

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.interruption.requested

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        # not print: the signal may have come inside of print, which cannot be entered twice
        with suppress(OSError):  # standard error may be closed
            os.write(
                2, b"trpo-fast: stopping after this iteration; a second signal stops at once\n"
            )
        self.interruption.request()


def stop_when_input_ends() -> None:
    """Send this process SIGTERM at the end of standard input, where its parent asks for that.

    A study that is killed cannot end its runs; the pipe that it holds open ends with it.
    """
    if os.environ.pop(STOP_WITH_INPUT, None) is not None:
        threading.Thread(target=_wait_for_the_end_of_input, daemon=True).start()


def _wait_for_the_end_of_input() -> None:
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
