"""The folder of one run: what lies where.

::

    config.json          environment, configuration, versions, command
    progress.csv         one row per iteration
    evaluations.csv      one row per evaluation episode: timesteps, episode, return, length
    latest.safetensors   newest checkpoint
    best.safetensors     checkpoint of the best evaluation
    tensorboard/         if asked for
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunFolderError(ValueError):
    """A run folder that cannot be made or read; the message is one sentence."""


class RunFolder:
    """Paths of one run; :meth:`create` makes a new folder, :meth:`open` takes an existing one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.progress_file = self.path / "progress.csv"
        self.evaluations_file = self.path / "evaluations.csv"
        self.latest = self.path / "latest.safetensors"
        self.best = self.path / "best.safetensors"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def create(cls, path: str | os.PathLike[str], record: Mapping[str, Any]) -> RunFolder:
        """Make the folder and write its config.json; an existing folder is refused."""
        run = cls(path)
        run.refuse_if_present()
        try:
            run.path.mkdir(parents=True)
        except OSError as error:
            raise RunFolderError(
                f"run folder: expected to make {run.path}, got {error.strerror or error}; "
                f"choose another one with --run-dir"
            ) from error
        run.write_record(record)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Take a folder that a run has made."""
        run = cls(path)
        if not run.config_file.is_file():
            raise RunFolderError(
                f"run folder: expected {run.config_file}, got no such file; "
                f"give the folder that `trpo-fast train` made"
            )
        return run

    def refuse_if_present(self) -> None:
        """Raise if the path is taken: no run writes over another one."""
        if self.path.exists():
            raise RunFolderError(
                f"run folder: expected a new folder, got {self.path}, which exists; "
                f"choose another one with --run-dir or continue it with --resume {self.path}"
            )

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write config.json, whole or not at all."""
        aside = self.config_file.with_suffix(".json.tmp")
        aside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(aside, self.config_file)

    def read_record(self) -> dict[str, Any]:
        """Return config.json, with at least the environment and the configuration in it."""
        try:
            record = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"run folder: expected JSON in {self.config_file}, got {error}; "
                f"restore the file from a copy"
            ) from error
        if not isinstance(record, dict) or not {"env", "config"} <= record.keys():
            raise RunFolderError(
                f"run folder: expected the entries env and config in {self.config_file}, got "
                f"neither or one; restore the file from a copy"
            )
        return record

    def checkpoint(self, which: str | None = None) -> Path:
        """Return the "best" or "latest" checkpoint; None takes the best one there is."""
        candidates = {"best": [self.best], "latest": [self.latest]}
        for file in candidates.get(which or "", [self.best, self.latest]):
            if file.is_file():
                return file
        raise RunFolderError(
            f"run folder: expected the {which or 'best or latest'} checkpoint in {self.path}, got "
            f"none; train longer, or choose another one with --checkpoint"
        )
