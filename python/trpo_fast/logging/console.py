"""What the user sees while training: a compact table now and then, and a progress bar.

Both write to standard error unless told otherwise, so that standard output stays free for
results. rich is imported when something is first drawn. No thread is started.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .base import Record, ScalarFilter
from .record_text import NO_VALUE, clock_time, is_refused, number_text, plain_line, table

if TYPE_CHECKING:
    from rich.console import Console
    from typing_extensions import Self

Style = Literal["auto", "table", "plain", "quiet"]


class ConsoleLogger:
    """Show a compact table of the latest record every few seconds.

    A record with an evaluation is shown at once, and so is the last one at `close`. Refused
    updates are counted in between, so that none goes unseen.

    Parameters
    ----------
    stream
        Where to; None is standard error, shared with a `ProgressBar` that may be there.
    style
        "table" (rich), "plain" (one line per record shown), "quiet", or "auto": a table on a
        terminal, nothing elsewhere.
    interval_seconds
        Least time between two records shown, in seconds; 0 shows all of them.
    clock
        Seconds that only grow; for tests.

    Raises
    ------
    ValueError
        if ``style`` or ``interval_seconds`` is not one of these.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        style: Style = "auto",
        interval_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if style not in ("auto", "table", "plain", "quiet"):
            raise ValueError(f"style: expected auto, table, plain or quiet, got {style!r}")
        if not interval_seconds >= 0.0:
            raise ValueError(
                f"interval_seconds: expected a number >= 0, got {interval_seconds}; 0 shows "
                "every record"
            )
        if style == "auto":
            style = "table" if _is_terminal(stream) else "quiet"
        self.style: Style = style
        self._stream = stream
        self._interval = interval_seconds
        self._filter = ScalarFilter("ConsoleLogger")
        self._clock = clock
        self._next_time = -math.inf
        self._pending: dict[str, float | int | str] | None = None
        self._updates = 0
        self._refused = 0

    def write(self, record: Record) -> None:
        """Take one record and show it if it is time.

        Parameters
        ----------
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.
        """
        if self.style == "quiet":
            return
        self._pending = self._filter(record)
        self._updates += 1
        self._refused += is_refused(record)
        if self._clock() >= self._next_time or "eval/return" in record:
            self._show()

    def close(self) -> None:
        """Show the latest record, unless that has happened."""
        self._show()

    def _show(self) -> None:
        if self._pending is None:
            return
        record, self._pending = self._pending, None
        self._next_time = self._clock() + self._interval
        console = _console(self._stream) if self.style == "table" else None
        if console is None:
            _print_line(self._stream, plain_line(record, self._refused, self._updates))
        else:
            console.print(table(record, self._refused, self._updates))
        self._updates = self._refused = 0


class ProgressBar:
    """Steps taken, steps per second and the time left.

    Parameters
    ----------
    total_timesteps
        Environment steps at the end.
    start
        Environment steps already taken when the bar begins (a resumed run).
    stream
        Where to; None is standard error.
    enabled
        None: on a terminal only. True: elsewhere too, then as a plain line every ten seconds.
    clock
        Seconds that only grow; for tests.

    Raises
    ------
    ValueError
        if ``total_timesteps`` is not positive.

    Notes
    -----
    A context manager. Tables of a `ConsoleLogger` on standard error, and what is printed
    meanwhile, appear above the bar.
    """

    redraw_seconds = 0.1
    line_seconds = 10.0
    rate_seconds = 30.0  # the rate is that of this last stretch of time

    def __init__(
        self,
        total_timesteps: int,
        start: int = 0,
        *,
        stream: TextIO | None = None,
        enabled: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total_timesteps <= 0:
            raise ValueError(
                f"total_timesteps: expected a positive number of steps, got {total_timesteps}"
            )
        terminal = _is_terminal(stream)
        self.enabled = terminal if enabled is None else enabled
        self.total_timesteps = total_timesteps
        self.timesteps = start
        self._stream = stream
        self._clock = clock
        self._history: deque[tuple[float, int]] = deque([(clock(), start)])
        self._live: Any = None
        self._wait = self.line_seconds
        if self.enabled and terminal:
            self._wait = self.redraw_seconds
            self._live = _live_bar(_console(stream))
            self._task = self._live.add_task("", total=total_timesteps, completed=start, **_NO_RATE)
            self._live.start()
        self._next_time = clock() + self._wait

    def update(self, timesteps: int) -> None:
        """Take the number of environment steps taken in all; cheap enough for every step.

        Parameters
        ----------
        timesteps
            Environment steps taken in all.
        """
        self.timesteps = timesteps
        if self.enabled and self._clock() >= self._next_time:
            self._draw()

    def close(self) -> None:
        """Draw the last state and leave the terminal as it was."""
        if self.enabled:
            self._draw()
            self.enabled = False
            if self._live is not None:
                self._live.stop()

    def steps_per_second(self) -> float:
        """Rate over the last half minute; NaN before any time has passed."""
        (t0, n0), t1 = self._history[0], self._clock()
        return (self.timesteps - n0) / (t1 - t0) if t1 > t0 else math.nan

    def seconds_left(self) -> float:
        """Time to the end at that rate, in seconds; NaN while the rate is unknown or zero."""
        rate = self.steps_per_second()
        return max(self.total_timesteps - self.timesteps, 0) / rate if rate > 0.0 else math.nan

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _draw(self) -> None:
        now = self._clock()
        self._next_time = now + self._wait
        rate, left = (
            f"{number_text(self.steps_per_second())} steps/s",
            clock_time(self.seconds_left()),
        )
        if self._live is not None:
            self._live.update(
                self._task, completed=self.timesteps, rate=rate, left=left, refresh=True
            )
        else:
            percent = 100.0 * self.timesteps / self.total_timesteps
            _print_line(
                self._stream,
                f"{self.timesteps:,} of {self.total_timesteps:,} steps ({percent:.0f}%), "
                f"{rate}, {left} left",
            )
        # drop entries older than rate_seconds, but keep the last of them: the rate begins there
        self._history.append((now, self.timesteps))
        while len(self._history) > 2 and now - self._history[1][0] >= self.rate_seconds:
            self._history.popleft()


def _is_terminal(stream: TextIO | None) -> bool:
    stream = sys.stderr if stream is None else stream
    # sys.stderr is None in a program without a console
    return stream is not None and not stream.closed and stream.isatty()


def _print_line(stream: TextIO | None, line: str) -> None:
    stream = sys.stderr if stream is None else stream
    if stream is not None:
        stream.write(line + "\n")
        stream.flush()


@functools.cache
def _standard_error() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)  # follows sys.stderr when that is replaced


def _console(stream: TextIO | None) -> Console:
    from rich.console import Console

    # one console for standard error, so that a table is printed above the bar and not into it
    return _standard_error() if stream is None else Console(file=stream, highlight=False)


_NO_RATE = {"rate": f"{NO_VALUE} steps/s", "left": "-:--:--"}


def _live_bar(console: Console) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("[progress.percentage]{task.percentage:>3.0f}%"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,} of {task.total:,} steps"),
        TextColumn("[cyan]{task.fields[rate]}"),
        TextColumn("[progress.remaining]{task.fields[left]} left"),
        console=console,
        auto_refresh=False,  # no thread: it is redrawn by update()
        expand=True,
    )
