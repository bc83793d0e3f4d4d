"""Records as the history of a Weights & Biases run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..extras import import_extra
from .base import Record


class WandbLogger:
    """Send each record to a Weights & Biases run (extra ``wandb``).

    Environment steps are the horizontal axis of every chart.

    Parameters
    ----------
    project, name
        Where the run appears and what it is called; None leaves the choice to wandb.
    config
        Settings shown beside the run, such as ``agent.config.to_dict()``.
    folder
        Where wandb keeps its local files; None is wandb's own choice.
    run_id
        Identity of a run to be continued; None begins a new one. See the attribute ``run_id``.
    mode
        "online", "offline" or "disabled"; None follows the environment variable WANDB_MODE.
    step_key
        The key that counts environment steps.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if wandb is not installed.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
        run_id: str | None = None,
        mode: str | None = None,
        step_key: str = "time/timesteps",
    ) -> None:
        wandb = import_extra("wandb", what="WandbLogger", extra="wandb")
        self._run: Any | None = wandb.init(
            project=project,
            name=name,
            config=dict(config or {}),
            dir=None if folder is None else os.fspath(folder),
            id=run_id,
            resume=None if run_id is None else "allow",
            mode=mode,
        )
        self.run_id: str = self._run.id
        self._run.define_metric(step_key)
        self._run.define_metric("*", step_metric=step_key)

    def write(self, record: Record) -> None:
        """Send one record.

        Parameters
        ----------
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.

        Raises
        ------
        ValueError
            if the logger is closed.
        """
        if self._run is None:
            raise ValueError("WandbLogger: expected an open run, got one that has been closed")
        self._run.log(dict(record))

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
