"""Does the installed package compute what it should, on this machine?

>>> results = [run_check(check) for check in checks()]

Every check holds the compiled core against something slower that shares no code with it: finite
differences, a dense matrix, known numbers, or itself under other circumstances that must not
matter. ``trpo-fast selfcheck`` prints the outcome.
"""

from __future__ import annotations

from functools import partial

from .. import runtime
from .invariance import (
    check_checkpoint,
    check_level,
    check_resume,
    check_threads,
    check_training,
    check_workers,
)
from .numerics import (
    NUMERICS,
    check_fisher,
    check_gradients,
    check_random_streams,
    check_single_precision,
    check_trust_region,
)
from .tools import Check, CheckFailed, CheckResult, run_check

__all__ = [
    "Check",
    "CheckFailed",
    "CheckResult",
    "check_checkpoint",
    "check_fisher",
    "check_gradients",
    "check_level",
    "check_random_streams",
    "check_resume",
    "check_single_precision",
    "check_threads",
    "check_training",
    "check_trust_region",
    "check_workers",
    "checks",
    "run_check",
]


def checks() -> list[Check]:
    """All checks for this machine, the quickest first."""
    levels = [
        Check(f"level {level}", partial(check_level, level))
        for level in runtime.available_simd_levels()
    ]
    return [
        *NUMERICS,
        Check("threads", check_threads),
        *levels,
        Check("checkpoint", check_checkpoint),
        Check("training", check_training),
        Check("resume", check_resume),
        Check("workers", check_workers),
    ]
