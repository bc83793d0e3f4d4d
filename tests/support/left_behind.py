"""What a process leaves behind: children, memory without an owner, open files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def children() -> set[int]:
    """Process ids of the living children of this process."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def shared_memory() -> set[str]:
    """Files in /dev/shm that Python's shared memory or this package could have made."""
    folder = Path("/dev/shm")
    names = {file.name for file in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if name.startswith(("psm_", "trpo_fast."))}


def abandoned_memory(before: set[str]) -> set[str]:
    """Those that were not there before and that no living process has mapped."""
    new = shared_memory() - before
    for process in Path("/proc").glob("[0-9]*") if new else ():
        with contextlib.suppress(OSError):
            maps = (process / "maps").read_text()
            new = {name for name in new if f"/dev/shm/{name}" not in maps}
    return new & shared_memory()


def is_alive(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        n_threads = len(list((process / "task").iterdir()))
    except OSError:
        return False
    # its main thread may be gone while another one still holds its connection open
    return state != "Z" or n_threads > 1


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
