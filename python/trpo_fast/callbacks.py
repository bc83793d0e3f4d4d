"""Callbacks of a run: checkpoints, evaluations, early stops."""

from .training.callbacks import (
    Callback,
    CallbackLike,
    CallbackList,
    CheckpointEvery,
    FunctionCallback,
    Record,
    StopAtReturn,
)
from .training.evaluate_every import EvaluateEvery

__all__ = [
    "Callback",
    "CallbackLike",
    "CallbackList",
    "CheckpointEvery",
    "EvaluateEvery",
    "FunctionCallback",
    "Record",
    "StopAtReturn",
]
