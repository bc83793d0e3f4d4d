"""Names of the choices that an update has."""

from __future__ import annotations

from typing import Literal, get_args

DEFAULT_ACTIVATION_BUDGET = 512 << 20  # bytes

Constraint = Literal["mean", "max"]
Fisher = Literal["gauss_newton", "empirical", "identity"]
StepRule = Literal["line_search", "boundary", "fixed"]
Preconditioner = Literal["none", "kronecker"]

CONSTRAINTS: tuple[Constraint, ...] = get_args(Constraint)
FISHER_FORMS: tuple[Fisher, ...] = get_args(Fisher)
STEP_RULES: tuple[StepRule, ...] = get_args(StepRule)
PRECONDITIONERS: tuple[Preconditioner, ...] = get_args(Preconditioner)
