"""The inside of a worker process: `Commands`, through a pipe.

The parent starts ``python -c BOOTSTRAP``, see `WorkerProcess`. What is large goes
through the shared block, what is rare through the connection: ``(command, *arguments)`` in, and one
of ``("result", value)`` and ``("error", kind, sentence, traceback)`` out; in between, where the parent
has something to do after every row, ``("row",)`` out and anything in. The worker ends when it is told to,
at SIGTERM, or when its parent is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

from ... import _core
from .commands import Commands, answer

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Only what is installed beside the interpreter is imported before the parent's own path is known.
# A parent that is gone by then has nobody to tell.
BOOTSTRAP = """
import sys
sys.path[:] = filter(None, sys.path)
from multiprocessing.connection import Connection
connection = Connection({connection})
try:
    sys.path[:] = connection.recv()
except (EOFError, OSError):
    sys.exit()
from trpo_fast.rollout.workers.worker import main
main(connection, {memory}, {report}, {output}, {stderr}, {prefix!r}, {pending})
"""

GRACE_SECONDS = 3.0  # for environments to close before they are killed

_IMPORT_SECONDS = 0.01  # between two looks whether an import has ended


class _Terminated(BaseException):
    """SIGTERM: leave whatever is running and close the environments.

    Raised where the signal comes, but never out of an import, see `_terminate`. Inside a destructor
    Python drops what is raised, so `came` is looked at before the next command as well.
    """

    came = False


def main(
    connection: Connection,
    memory: int,
    report: int,
    output: int,
    stderr: int,
    prefix: str,
    pending: int,
) -> None:
    """Serve the parent until it says goodbye.

    Parameters
    ----------
    connection
        To the parent.
    memory
        Descriptor of the file that both map.
    report
        Descriptor of the file that tells the parent where this process is.
    output
        Descriptor of the pipe that standard output and error of this process go into.
    stderr
        Descriptor of the parent's standard error.
    prefix
        What stands before every line there.
    pending
        Descriptor of the file that tells the parent what has not been forwarded yet.
    """
    _core.forward_lines(output, stderr, prefix, pending)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _survive_only_the_parent(connection.fileno())
    # A crash, or SIGUSR1, writes where the process is into a file that the parent reads.
    faulthandler.enable(report, all_threads=False)
    faulthandler.register(signal.SIGUSR1, report, all_threads=False)

    def pause() -> None:
        connection.send(("row",))
        connection.recv()

    worker = Commands(memory, pause)
    try:
        sys.unraisablehook = _report_unraisable
        with contextlib.suppress(_Terminated):  # wherever between these two lines it comes
            signal.signal(signal.SIGTERM, _terminate)
            _serve(connection, worker)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        # Closing is what remains to do anyhow; who cannot wait sends SIGKILL.
        with contextlib.suppress(Exception):
            worker.close()


def _serve(connection: Connection, worker: Commands) -> None:
    """Answer commands until the parent says goodbye, or is gone."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while not _Terminated.came:
            command, *arguments = connection.recv()
            if command == "close":
                break
            connection.send(answer(getattr(worker, command), arguments))


def _terminate(_: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        # The C++ of a module that is being made may not survive an exception: look again soon.
        signal.signal(signal.SIGALRM, _terminate)
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_SECONDS)
        return
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    _Terminated.came = True
    raise _Terminated


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, _Terminated):
        sys.__unraisablehook__(unraisable)


def _survive_only_the_parent(connection: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        # No events are asked for: poll only tells that the other side hung up. A process that the
        # parent forked may keep that side open, so look who the parent is as well.
        poll = select.poll()
        poll.register(connection, 0)
        while not poll.poll(1000.0) and os.getppid() == parent:
            pass
        # Give the environments time to close; then end in a way that nothing can hold up.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="trpo_fast parent watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit("trpo_fast.rollout.workers.worker: started by trpo_fast itself, not by hand")
