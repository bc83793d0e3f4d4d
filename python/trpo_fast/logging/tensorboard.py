"""Records as TensorBoard scalars, written without TensorFlow, PyTorch or a background thread."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ..extras import import_extra
from .base import Record, ScalarFilter


class TensorBoardLogger:
    """Write the numbers of each record as scalars over environment steps, flushed at once.

    Text values are left out. The event files go through TensorBoard's own record writer and
    protocol buffers (extra ``tensorboard``); there is no writer thread, so the process may fork.

    Parameters
    ----------
    folder
        Where the event file goes; made if needed. Every logger begins a new file in it.
    resume_timesteps
        None for a new run. A number continues a run after that many environment steps:
        TensorBoard then hides what an earlier file holds beyond it.
    step_key
        The key that counts environment steps.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if tensorboard is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        resume_timesteps: int | None = None,
        step_key: str = "time/timesteps",
    ) -> None:
        events, summaries, writers = self.require()
        self._event = events.Event
        self._summary = summaries.Summary
        session_log = events.SessionLog
        record_writer = writers.RecordWriter

        self._step_key = step_key
        self._filter = ScalarFilter("TensorBoardLogger")
        self.path = _new_event_file(Path(folder).absolute())
        self._writer = record_writer(self.path.open("xb"))
        self._append(file_version="brain.Event:2")
        if resume_timesteps is not None:
            # A session start at a step makes TensorBoard drop earlier sessions from that step on.
            start = session_log(status=session_log.START)
            self._append(step=resume_timesteps + 1, session_log=start)
        self._writer.flush()

    @staticmethod
    def require() -> tuple[Any, ...]:
        """Import what the logger needs of TensorBoard.

        Returns
        -------
        tuple of modules
            The protocol buffers of events and of summaries, and the writer of records.

        Raises
        ------
        MissingExtraError
            (an ``ImportError``) if tensorboard is not installed.
        """
        names = (
            "compat.proto.event_pb2",
            "compat.proto.summary_pb2",
            "summary.writer.record_writer",
        )
        return tuple(
            import_extra(f"tensorboard.{name}", what="TensorBoardLogger", extra="tensorboard")
            for name in names
        )

    def write(self, record: Record) -> None:
        """Append the numbers of one record at its step and flush.

        Parameters
        ----------
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.

        Raises
        ------
        KeyError
            if the record has no step.
        """
        values = [
            self._summary.Value(tag=key, simple_value=float(value))
            for key, value in self._filter(record).items()
            if key != self._step_key and not isinstance(value, str)
        ]
        step = int(record[self._step_key])
        self._append(step=step, summary=self._summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if not self._writer.closed:
            self._writer.close()

    def _append(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())


def _new_event_file(folder: Path) -> Path:
    # TensorBoard finds files by "tfevents" in their names and reads them in alphabetical order.
    folder.mkdir(parents=True, exist_ok=True)
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return folder / f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{os.getpid()}"
