"""The numerics on NumPy arrays: the compiled core with names and checks."""

from .policy import *  # noqa: F403
from .policy import (  # noqa: F401
    ACTIVATIONS,
    CONSTRAINTS,
    DEFAULT_ACTIVATION_BUDGET,
    FISHER_FORMS,
    PRECONDITIONERS,
    STEP_RULES,
    Constraint,
    Fisher,
    Preconditioner,
    StepRule,
    __all__,
    _choice,
    _finite,
    _integer,
)
