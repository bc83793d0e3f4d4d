"""The numerics of TRPO on NumPy arrays: every piece usable by itself.

Letters: N samples, T steps, E environments, O observation width, A action width, W flags of an action
mask, P network outputs, D parameters. ``S`` is the dtype of a network, ``float32`` or ``float64``.

Arguments are array-likes: they are converted to the dtype and layout that the compiled core needs,
never silently reshaped. Wrong shapes raise ``ValueError``, wrong types ``TypeError``. The GIL is
released while the core works; one object must not be used by two threads at once.

>>> policy = Policy(17, Distribution("gaussian", (6,)))
>>> F = policy.fisher_operator(observations, damping=0.1)
>>> x = conjugate_gradient(F, gradient, max_iterations=10).x
"""

from .acting import ActionClip, Actor, MaskWriter, RowWriter, StepWriter
from .algorithms import ConjugateGradientResult, conjugate_gradient, gae
from .distribution import LOG_STD_BOUNDS, Distribution
from .first_layer import sums_columns
from .masks import Masks, mask_rows
from .network import ACTIVATIONS
from .options import (
    CONSTRAINTS,
    DEFAULT_ACTIVATION_BUDGET,
    FISHER_FORMS,
    PRECONDITIONERS,
    STEP_RULES,
    AscentOptions,
    Constraint,
    Fisher,
    Preconditioner,
    StepRule,
    TrustRegionOptions,
    ValueFitOptions,
)
from .policy import Policy
from .random_streams import random_normals, random_uniforms
from .statistics import RunningStatistics
from .stochastic_policy import Normalizer
from .update import FisherOperator, GradientSignal, UpdateSummary
from .value_function import FitSummary, ValueFunction
from .vine import all_actions, vine_gradient, vine_update, vine_value

__all__ = [
    "ACTIVATIONS",
    "CONSTRAINTS",
    "DEFAULT_ACTIVATION_BUDGET",
    "FISHER_FORMS",
    "LOG_STD_BOUNDS",
    "PRECONDITIONERS",
    "STEP_RULES",
    "ActionClip",
    "Actor",
    "AscentOptions",
    "ConjugateGradientResult",
    "Constraint",
    "Distribution",
    "Fisher",
    "FisherOperator",
    "FitSummary",
    "GradientSignal",
    "MaskWriter",
    "Masks",
    "Normalizer",
    "Policy",
    "Preconditioner",
    "RowWriter",
    "RunningStatistics",
    "StepRule",
    "StepWriter",
    "TrustRegionOptions",
    "UpdateSummary",
    "ValueFitOptions",
    "ValueFunction",
    "all_actions",
    "conjugate_gradient",
    "gae",
    "mask_rows",
    "random_normals",
    "random_uniforms",
    "sums_columns",
    "vine_gradient",
    "vine_update",
    "vine_value",
]
