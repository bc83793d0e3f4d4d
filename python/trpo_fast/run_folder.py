"""The folder of one run: what lies where.

::

    config.json          environment, configuration, versions, command; the last file of a start
    progress.csv         one row per iteration
    evaluations.csv      one row per evaluation episode: timesteps, episode, return, length
    latest.safetensors   newest checkpoint
    best.safetensors     checkpoint of the best evaluation
    tensorboard/         if asked for
    .lock                held by the process that trains
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .checkpoint import module_to_trust
from .logging import write_atomically


class RunFolderError(ValueError):
    """A run folder that cannot be made or read; the message is one sentence."""


class RunFolder:
    """Paths of one run: `create` makes a new folder, `open` takes an existing one.

    Parameters
    ----------
    path
        The folder. It is neither made nor looked at.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # an environment may change the working folder of the process
        self._place = place = self.path.absolute()
        self.config_file = place / "config.json"
        self.progress_file = place / "progress.csv"
        self.evaluations_file = place / "evaluations.csv"
        self.latest = place / "latest.safetensors"
        self.best = place / "best.safetensors"
        self.tensorboard = place / "tensorboard"
        self.lock_file = place / ".lock"

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Make the folder; one that exists already is refused.

        It becomes a run, which `open` takes, with its config.json: write that last. The files of a
        start that was killed before its config.json was written are taken over.

        Parameters
        ----------
        path
            The folder, made with its parents.

        Raises
        ------
        RunFolderError
            If it exists, or cannot be made.
        """
        run = cls(path)
        run.make()
        return run

    def make(self) -> None:
        """Make the folder, see `create`.

        Raises
        ------
        RunFolderError
            If it exists, or cannot be made.
        """
        self.refuse_if_present()
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"run folder: expected to make {self.path}, got {error.strerror or error}; "
                f"choose another one with --run-dir"
            ) from error

    def shown(self, file: Path) -> Path:
        """What messages call a file of the folder: by the name that the user has given the folder.

        Parameters
        ----------
        file
            One of the paths of this object.
        """
        return self.path / file.name

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take a folder that a run has made.

        Parameters
        ----------
        path
            The folder.

        Raises
        ------
        RunFolderError
            If it has no config.json.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise RunFolderError(
                f"run folder: expected {run.shown(run.config_file)}, got no such file; "
                f"give the folder that `trpo-fast train` made"
            )
        return run

    def refuse_if_present(self) -> None:
        """Raise RunFolderError if the path is taken: no run writes over another one."""
        if self._place.exists() and not self._is_unfinished_start():
            raise RunFolderError(
                f"run folder: expected a new folder, got {self.path}, which exists; "
                f"choose another one with --run-dir or continue it with --resume {self.path}"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While entered, no other process trains in this folder.

        The lock belongs to the process and ends with it, however it ends: none is ever stale.
        Whoever holds it clears away the temporary files of killed writers.

        Raises
        ------
        RunFolderError
            If another process holds it, or the folder cannot be written.
        """
        try:
            file = _open_regular(self.lock_file)
        except OSError as error:
            raise RunFolderError(
                f"run folder: expected to write in {self.path}, got {error.strerror or error}; "
                f"make it writeable, or copy the run"
            ) from error
        with file:
            if not _try_lock(file):
                raise RunFolderError(
                    f"run folder: expected one process to train in {self.path}, got another one"
                    f"{self._holder()}; wait for its end, or choose another folder"
                )
            self._say_who_holds(file)
            self._clear_leftovers()
            yield

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write config.json, whole or not at all.

        Parameters
        ----------
        record
            Values that JSON can hold; at least "env" and "config".
        """
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        with write_atomically(self.config_file) as stream:
            stream.write(text)

    def read_record(self) -> dict[str, Any]:
        """Return config.json, with at least the entries "env" and "config" in it.

        Raises
        ------
        RunFolderError
            If the file cannot be read, or lacks one of them.
        """
        try:
            record = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"run folder: expected JSON in {self.shown(self.config_file)}, got {error}; "
                f"restore the file from a copy"
            ) from error
        if not isinstance(record, dict) or not {"env", "config"} <= record.keys():
            raise RunFolderError(
                f"run folder: expected the entries env and config in {self.shown(self.config_file)}, got "
                f"neither or one; restore the file from a copy"
            )
        if not isinstance(record["env"], str) or not isinstance(record["config"], dict):
            raise RunFolderError(
                f"run folder: expected a text as env and settings as config in "
                f"{self.shown(self.config_file)}, got other values; restore the file from a copy"
            )
        return record

    def trusted_environment(self) -> str:
        """Return the environment that config.json names, unless it would import a module.

        Whoever made the folder chose that module, and reading a run runs no code of its choice.

        Raises
        ------
        RunFolderError
            If the module is none that trpo_fast knows; the user may name the environment.
        """
        name = str(self.read_record()["env"])
        module = module_to_trust(name)
        if module is not None:
            raise RunFolderError(
                f"run folder: its environment {name!r:.200} lives in the module {module!r:.100}, "
                f"and reading a run runs no code of its choice; if you trust the module, name the "
                f"environment: --env {name:.200}, or train {name:.200} --resume {self.path}"
            )
        return name

    def checkpoint(self, which: str | None = None) -> Path:
        """Return the path of a checkpoint.

        Parameters
        ----------
        which
            "best" or "latest"; None takes the best one, or the latest if there is no best.

        Raises
        ------
        RunFolderError
            If there is no such checkpoint.
        """
        candidates = {"best": [self.best], "latest": [self.latest]}
        for file in candidates.get(which or "", [self.best, self.latest]):
            if file.is_file():
                return file
        raise RunFolderError(
            f"run folder: expected the {which or 'best or latest'} checkpoint in {self.path}, got "
            f"none; train longer, or choose another one with --checkpoint"
        )

    def _is_unfinished_start(self) -> bool:
        """Return whether the folder is empty, or holds only what is written before config.json."""
        if not self._place.is_dir():
            return False
        entries = set(self._place.iterdir())
        previous = self.latest.with_name(self.latest.name + ".previous")
        known = {self.lock_file, self.latest, previous, *self._leftovers()}
        return not entries or (self.lock_file in entries and entries <= known)

    def _leftovers(self) -> list[Path]:
        """Return the temporary files of processes that were killed before they renamed them."""
        return [file for file in self._place.glob(".*.tmp") if file.is_file()]

    def _clear_leftovers(self) -> None:
        for file in self._leftovers():
            with contextlib.suppress(OSError):
                file.unlink()

    def _say_who_holds(self, file: BinaryIO) -> None:
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
            file.flush()

    def _holder(self) -> str:
        try:
            text = self.lock_file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
        return f", {text[:200]}" if text else ""


def _open_regular(path: Path) -> BinaryIO:
    """Open a file to read and append, made if it is missing; OSError for a link or a device."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is no file")
    return os.fdopen(descriptor, "a+b")


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file for this process; return False if another process holds the lock.

    The lock belongs to the process, not to the open file: children that outlive it do not keep it.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # any other error: a file system without locks, where nothing can be held
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
