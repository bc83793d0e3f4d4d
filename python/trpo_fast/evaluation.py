"""Whole episodes of a policy: evaluation and video."""

from .training.evaluation import (
    EvaluationResult,
    Policy,
    Predictor,
    evaluate_policy,
    own_environment,
    workers_of,
)
from .training.video import Frame, record_video

__all__ = [
    "EvaluationResult",
    "Frame",
    "Policy",
    "Predictor",
    "evaluate_policy",
    "own_environment",
    "record_video",
    "workers_of",
]
