"""Whole episodes of a policy: evaluation and video."""

from .training.evaluation import (
    EvaluationResult,
    Frame,
    Policy,
    Predictor,
    evaluate_policy,
    own_environment,
    record_video,
    workers_of,
)

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
