"""What a policy update says, and the Fisher matrix that it solves with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .checks import Float64, seed_number, shaped


@dataclass(frozen=True, kw_only=True)
class UpdateSummary:
    """What one policy update did. ``s`` is the accepted (or last tried) step.

    Unless ``status`` is ``"accepted"`` the parameters are, bit for bit, those before the update.
    """

    status: Literal[
        "accepted", "line_search_failed", "zero_gradient", "non_positive_curvature", "non_finite"
    ]
    """How it ended."""

    message: str
    """One sentence with the numbers."""

    kl: float
    """Mean KL(old || new) over the samples, nats; 0 when refused."""

    kl_predicted: float
    """1/2 s^T F s, nats."""

    kl_max: float
    """Largest KL over the samples, nats; 0 when refused."""

    max_kl: float
    """delta, nats; infinite where nothing bounds the step."""

    surrogate_gain: float
    """L(theta) - L(theta_k), in standardised advantages or their own unit; 0 when refused."""

    surrogate_gain_predicted: float
    """g^T s, in the same unit."""

    gradient_norm: float
    """||g||."""

    step_norm: float
    """||s||."""

    step_scale: float
    """backtrack_ratio^j."""

    step_size: float
    """backtrack_ratio^j beta, along x; of an ascent its learning rate."""

    cg_iterations: int
    """Products of conjugate gradient."""

    cg_status: str
    """How conjugate gradient ended, see :class:`ConjugateGradientResult`."""

    cg_relative_residual: float
    """||g - (F + cg_damping I) x|| / ||g||."""

    backtracks: int
    """j, candidates of the line search that were refused before the last one."""

    entropy: float
    """Mean over the samples after the update, nats."""

    entropy_before: float
    """Mean over the samples before it, nats."""

    seconds_gradient: float
    """Wall-clock seconds of the pass over the batch and the gradient."""

    seconds_cg: float
    """Wall-clock seconds of conjugate gradient."""

    seconds_line_search: float
    """Wall-clock seconds of the candidates of the line search."""

    seconds_total: float
    """Wall-clock seconds of the whole update."""

    @property
    def accepted(self) -> bool:
        """Whether the parameters were changed."""
        return self.status == "accepted"


@dataclass(frozen=True)
class GradientSignal:
    """How much of a gradient is signal, see :meth:`Policy.gradient_signal`."""

    validated_gain: float
    """1/2 (x_1^T g_2 + x_2^T g_1): what the direction of each half gains on the other."""

    apparent_gain: float
    """1/4 (x_1 + x_2)^T (g_1 + g_2): what the direction of both gains on both."""

    @property
    def share(self) -> float:
        """rho = validated / apparent: about 1 without noise, about 0 where there is nothing else."""
        return self.validated_gain / self.apparent_gain if self.apparent_gain > 0.0 else 0.0


class FisherOperator:
    """v -> (F + damping I) v on a fixed batch at fixed parameters.

    ::

        "gauss_newton":  F = mean_n J_n^T M_n J_n                       the Hessian of the mean KL
        "empirical":     F = mean_n s_n s_n^T, s_n = grad log pi(a_n|s_n)   covariance of the scores

    The first is exact at the parameters where it was made and integrates over the actions
    analytically; the second has the same expectation but depends on the sampled actions (Schulman
    et al. 2015, section 7 and appendix C). Activations are computed once, and for few outputs their
    Jacobian too; each call is one tangent and one adjoint pass (Pearlmutter 1994). Policy
    and rows are copied: whatever becomes of them later, F stays.

    Made by :meth:`Policy.fisher_operator`.

    Parameters
    ----------
    batch
        The compiled batch.
    n_parameters
        D.
    damping
        At least 0.
    """

    def __init__(
        self, batch: _core.PolicyBatchF32 | _core.PolicyBatchF64, n_parameters: int, damping: float
    ) -> None:
        self._batch = batch
        self.damping = damping
        self.shape = (n_parameters, n_parameters)

    def __call__(self, vector: ArrayLike) -> Float64:
        """Return (F + damping I) v, (D,) float64.

        Parameters
        ----------
        vector
            v, (D,).
        """
        v = shaped("vector", vector, np.float64, self.shape[:1])
        product = self._batch.fisher_vector_product(v)
        if self.damping:
            product += self.damping * v
        return product

    def largest_curvature(self, vector: ArrayLike) -> float:
        """Return max_n v^T J_n^T M_n J_n v, twice the quadratic model of the largest KL along v.

        Parameters
        ----------
        vector
            v, (D,).
        """
        return self._batch.largest_curvature(shaped("vector", vector, np.float64, self.shape[:1]))

    def kronecker_preconditioner(self, *, seed: int = 0) -> Callable[[ArrayLike], Float64]:
        """Return r -> M^-1 r with M near F + damping I, for :func:`conjugate_gradient`.

        ::

            M = blocks of (G_l + sqrt(damping) / pi_l I) (x) (A_l + pi_l sqrt(damping) I)
            A_l = mean_n [h; 1] [h; 1]^T,  G_l = mean_n delta delta^T,  h and delta of layer l

        as Martens & Grosse (2015), with one random cotangent a sample. Of a batch of more than some
        1,024 samples (or four times the widest layer) every so many-th block of 96 takes part. Costs
        about a product to make and next to nothing to apply.

        Parameters
        ----------
        seed
            Of the cotangents, from 0 to 2^64 - 1.

        Returns
        -------
        Callable
            Takes and returns (D,) float64.
        """
        native = self._batch.kronecker_preconditioner(self.damping, seed_number(seed))

        def precondition(residual: ArrayLike) -> Float64:
            return native.apply(shaped("residual", residual, np.float64, self.shape[:1]))

        return precondition
