"""Slow, clear float64 NumPy of everything that the compiled core computes.

Nothing here imports ``trpo_fast``: the core is tested against this package, this package is tested
against finite differences and exact expectations (``test_reference.py``) and against PyTorch's
automatic differentiation (``test_torch_witness.py``).

Dimension letters, those of the whole library and Q::

    N samples   T time steps   E environments   O observation width   H hidden width
    P network outputs   A action width   D parameters
    Q distribution parameters of one sample (mean and log_std, or logits)
"""

from .activations import ACTIVATIONS, activate, activation_slope, sigmoid
from .advantages import gae
from .distribution import HEAD_KINDS, LOG_STD_MAX, LOG_STD_MIN, Head
from .network import Network
from .policy import Policy
from .problems import Problem, make_problem, random_parameters
from .rng import philox4x32, random_normals, random_signs, random_uniforms
from .running_moments import normalize, running_moments
from .trust_region import (
    ADVANTAGE_STD_FLOOR,
    ConjugateGradientResult,
    Update,
    conjugate_gradient,
    standardize,
    trpo_update,
)
from .types import Array
from .value_function import Adam, ValueFunction

__all__ = [
    "ACTIVATIONS",
    "ADVANTAGE_STD_FLOOR",
    "HEAD_KINDS",
    "LOG_STD_MAX",
    "LOG_STD_MIN",
    "Adam",
    "Array",
    "ConjugateGradientResult",
    "Head",
    "Network",
    "Policy",
    "Problem",
    "Update",
    "ValueFunction",
    "activate",
    "activation_slope",
    "conjugate_gradient",
    "gae",
    "make_problem",
    "normalize",
    "philox4x32",
    "random_normals",
    "random_parameters",
    "random_signs",
    "random_uniforms",
    "running_moments",
    "sigmoid",
    "standardize",
    "trpo_update",
]
