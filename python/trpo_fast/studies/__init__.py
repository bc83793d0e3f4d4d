"""Many runs as one experiment: environments x settings x seeds, and what they say together.

>>> trpo_fast.study("CartPole-v1", seeds=range(5), grid={"max_kl": [0.01, 0.02]}, run_dir="study")

A study is a folder of run folders. Killed and started again, it goes on where it was: runs that are
done are left alone, the others are resumed. `plan` says which runs there are, `processes` runs them,
`results` reads them, `statistics` holds what is said of several seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import names_on_first_use

if TYPE_CHECKING:
    from .plan import Plan, PlannedRun, StudyError
    from .results import StudyResult
    from .running import study
    from .space import Choice, Interval
    from .tuning import TuneResult, tune

__all__ = [
    "Choice",
    "Interval",
    "Plan",
    "PlannedRun",
    "StudyError",
    "StudyResult",
    "TuneResult",
    "study",
    "tune",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_on_first_use(
        __name__,
        {
            "plan": "Plan PlannedRun StudyError",
            "results": "StudyResult",
            "running": "study",
            "space": "Choice Interval",
            "tuning": "TuneResult tune",
        },
    )
