"""Where the numbers of a run go: the terminal, a CSV file, TensorBoard, Weights & Biases.

An agent hands every logger one record per iteration, a flat mapping such as
``{"time/timesteps": 2048, "policy/kl": 0.0098, "policy/status": "accepted"}``. A logger is
anything with ``write(record)`` and ``close()``. Loggers know nothing of agents or of the core.
"""

from __future__ import annotations

from ._atomic import file_to_replace, write_atomically
from .base import Logger, Record, Scalar
from .console import ConsoleLogger, ProgressBar
from .csv_file import CsvLogger, read_columns, read_rows
from .tensorboard import TensorBoardLogger
from .wandb import WandbLogger

__all__ = [
    "ConsoleLogger",
    "CsvLogger",
    "Logger",
    "ProgressBar",
    "Record",
    "Scalar",
    "TensorBoardLogger",
    "WandbLogger",
    "file_to_replace",
    "read_columns",
    "read_rows",
    "write_atomically",
]
