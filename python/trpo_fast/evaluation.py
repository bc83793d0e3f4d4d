"""Whole episodes of a policy: evaluation and video."""

from .training.episodes import EvaluationResult, Policy, Predictor
from .training.evaluation import evaluate_policy, own_environment, workers_of
from .training.interruption import EvaluationInterrupted, Interruption
from .training.video import Frame, record_video

__all__ = [
    "EvaluationInterrupted",
    "EvaluationResult",
    "Frame",
    "Interruption",
    "Policy",
    "Predictor",
    "evaluate_policy",
    "own_environment",
    "record_video",
    "workers_of",
]
