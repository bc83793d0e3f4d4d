"""What a policy update says, and the Fisher matrix that it solves with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from .checks import Float64, seed_number, shaped


@dataclass(frozen=True, kw_only=True)
class UpdateSummary:
    """Everything one policy update has to say. ``s`` is the accepted (or last tried) step.

    Unless ``status`` is ``"accepted"`` the parameters are, bit for bit, those before the update.
    """

    status: Literal[
        "accepted", "line_search_failed", "zero_gradient", "non_positive_curvature", "non_finite"
    ]
    message: str  # one sentence with the numbers
    kl: float  # mean KL(old || new) over the batch, nats; 0 when refused
    kl_predicted: float  # 1/2 s^T F s
    kl_max: float  # largest KL over the samples
    max_kl: float  # delta; infinite where nothing bounds the step
    surrogate_gain: float  # L(theta) - L(theta_k), in standardised advantages; 0 when refused
    surrogate_gain_predicted: float  # g^T s
    gradient_norm: float
    step_norm: float
    step_scale: float  # alpha^j
    step_size: float  # alpha^j beta, along x; of an ascent its learning rate
    cg_iterations: int
    cg_status: str
    cg_relative_residual: float
    backtracks: int  # j
    entropy: float  # mean over the batch, nats, after the update
    entropy_before: float
    seconds_gradient: float
    seconds_cg: float
    seconds_line_search: float
    seconds_total: float

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"


class FisherOperator:
    """v -> (F + damping I) v on a fixed batch at fixed parameters.

    ::

        "gauss_newton":  F = mean_n J_n^T M_n J_n                       the Hessian of the mean KL
        "empirical":     F = mean_n s_n s_n^T, s_n = grad log pi(a_n|s_n)   covariance of the scores

    The first is exact at the parameters where it was made and integrates over the actions
    analytically; the second has the same expectation but depends on the sampled actions (Schulman
    et al. 2015, section 7 and appendix C). Activations are computed once, and for few outputs their
    Jacobian too; each call is one tangent and one adjoint pass (Pearlmutter 1994). Calls take and
    return (D,) float64.
    """

    def __init__(self, batch: Any, n_parameters: int, damping: float) -> None:
        self._batch = batch
        self.damping = damping
        self.shape = (n_parameters, n_parameters)

    def __call__(self, vector: ArrayLike) -> Float64:
        v = shaped("vector", vector, np.float64, self.shape[:1])
        product: Float64 = self._batch.fisher_vector_product(v)
        if self.damping:
            product += self.damping * v
        return product

    def kronecker_preconditioner(self, *, seed: int = 0) -> Callable[[ArrayLike], Float64]:
        """r -> M^-1 r with M near F + damping I, for :func:`conjugate_gradient`.

        ::

            M = blocks of (G_l + sqrt(damping) / pi_l I) (x) (A_l + pi_l sqrt(damping) I)
            A_l = mean_n [h; 1] [h; 1]^T,  G_l = mean_n delta delta^T,  h and delta of layer l

        as Martens & Grosse (2015), with one random cotangent a sample, drawn with ``seed``. Of a
        batch of more than some 1,024 samples (or four times the widest layer) every so many-th
        block of 96 takes part. Costs about a product to make and next to nothing to apply. Takes
        and returns (D,) float64.
        """
        native = self._batch.kronecker_preconditioner(self.damping, seed_number(seed))
        return lambda residual: cast(
            Float64, native.apply(shaped("residual", residual, np.float64, self.shape[:1]))
        )
