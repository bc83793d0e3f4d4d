"""The settings of policy updates: option objects, and the same settings as keyword arguments.

Fields, defaults, ranges and documentation of the option objects are those of the compiled core;
``TrustRegionOptions.fields()`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, TypeVar, get_args

from .._core import AscentOptions, TrustRegionOptions, ValueFitOptions

__all__ = [
    "CONSTRAINTS",
    "DEFAULT_ACTIVATION_BUDGET",
    "FISHER_FORMS",
    "PRECONDITIONERS",
    "STEP_RULES",
    "AscentOptions",
    "AscentSettings",
    "Constraint",
    "Fisher",
    "Preconditioner",
    "StepRule",
    "TrustRegionOptions",
    "TrustRegionSettings",
    "ValueFitMethod",
    "ValueFitOptions",
    "ValueFitSettings",
    "with_settings",
]

Constraint = Literal["mean", "max"]
Fisher = Literal["gauss_newton", "empirical", "identity"]
StepRule = Literal["line_search", "boundary", "fixed"]
Preconditioner = Literal["none", "kronecker"]
ValueFitMethod = Literal["adam", "lbfgs"]

CONSTRAINTS: tuple[Constraint, ...] = get_args(Constraint)
FISHER_FORMS: tuple[Fisher, ...] = get_args(Fisher)
STEP_RULES: tuple[StepRule, ...] = get_args(StepRule)
PRECONDITIONERS: tuple[Preconditioner, ...] = get_args(Preconditioner)

DEFAULT_ACTIVATION_BUDGET = TrustRegionOptions().activation_budget  # bytes


class TrustRegionSettings(TypedDict, total=False):
    """The fields of :class:`TrustRegionOptions`, as keyword arguments."""

    max_kl: float
    constraint: Constraint
    fisher: Fisher
    fisher_fraction: float
    cg_damping: float
    cg_iterations: int
    cg_tolerance: float
    cg_preconditioner: Preconditioner
    step: StepRule
    step_size: float | None
    backtrack_ratio: float
    max_backtracks: int
    standardize_advantages: bool
    seed: int
    activation_budget: int


class AscentSettings(TypedDict, total=False):
    """The fields of :class:`AscentOptions`, as keyword arguments."""

    learning_rate: float
    epochs: int
    minibatch_size: int | None
    kl_coefficient: float
    standardize_advantages: bool
    seed: int
    activation_budget: int


class ValueFitSettings(TypedDict, total=False):
    """The fields of :class:`ValueFitOptions`, as keyword arguments."""

    method: ValueFitMethod
    epochs: int
    minibatch_size: int | None
    learning_rate: float
    iterations: int
    seed: int


Options = TypeVar("Options", TrustRegionOptions, AscentOptions, ValueFitOptions)


def with_settings(
    kind: type[Options], options: Options | None, settings: Mapping[str, Any]
) -> Options:
    """Return a copy of the options, or the defaults for None, with the settings in place.

    Parameters
    ----------
    kind
        The class that the options must have.
    options
        Where to start from; None: the defaults.
    settings
        Options by name, which win.

    Raises
    ------
    TypeError
        Options of another class, or a name that is none of its fields.
    ValueError
        A value out of range.
    """
    if options is not None and not isinstance(options, kind):
        raise TypeError(f"options: expected {kind.__name__}, got {type(options).__name__}.")
    return (kind() if options is None else options).replace(**settings)
