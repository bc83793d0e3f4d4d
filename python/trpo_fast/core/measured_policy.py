"""What a policy says of a batch: probabilities, divergences, surrogates and Fisher matrices."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .checks import Float, Float64, choice, finite, integer, shaped
from .masks import Masks, refuse_forbidden
from .options import DEFAULT_ACTIVATION_BUDGET
from .stochastic_policy import StochasticPolicy
from .update import FisherOperator


class MeasuredPolicy(StochasticPolicy):
    """The part of :class:`Policy` that measures batches; parameters are those of :class:`Policy`."""

    def outputs(
        self,
        observations: ArrayLike,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
    ) -> Float:
        """Return the network's outputs, (N, P) dtype S.

        Parameters
        ----------
        observations
            (N, O), N at least 1.
        normalized
            Whether they are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all. The logit
            of a forbidden one is a large negative number, finite, whose probability is exactly 0.
        """
        x = self.checked_inputs(observations, normalized)
        return self.native.outputs(x, self.checked_masks(action_masks, len(x)))

    def log_prob(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return log pi(a_n|s_n), (N,) float64, summed over the components of an action.

        Parameters
        ----------
        observations
            (N, O).
        actions
            (N, A), unclipped.
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all. For a
            forbidden action the result is a large negative number, finite, whose exponential is 0.
        """
        x = self.checked_inputs(observations, normalized)
        a = self.checked_actions(actions, x.shape[0])
        return self.native.log_prob(x, a, self.checked_masks(action_masks, len(x)))

    def entropy(
        self,
        observations: ArrayLike,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return the entropy of pi(.|s_n) in nats, (N,) float64.

        Parameters
        ----------
        observations
            (N, O).
        normalized
            Whether they are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        """
        x = self.checked_inputs(observations, normalized)
        return self.native.entropy(x, self.checked_masks(action_masks, len(x)))

    def kl(
        self,
        observations: ArrayLike,
        old_parameters: ArrayLike,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return KL(pi_old(.|s_n) || pi(.|s_n)) in nats, (N,) float64, summed over action components.

        Parameters
        ----------
        observations
            (N, O).
        old_parameters
            (D,), of pi_old.
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        """
        x = self.checked_inputs(observations, normalized)
        masks = self.checked_masks(action_masks, len(x))
        return self.native.kl(x, self.native_at(old_parameters), masks)

    def surrogate(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike | None = None,
        action_masks: ArrayLike | None = None,
    ) -> float:
        """Return L(theta), Schulman et al. 2015, equation 14.

        ::

            L(theta) = mean_n pi_theta(a_n|s_n) / pi_old(a_n|s_n) A_n

        Parameters
        ----------
        observations
            (N, O).
        actions
            (N, A), unclipped.
        advantages
            (N,), used as they are; L has their unit.
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        old_parameters
            (D,), of pi_old; None: those of now, where every ratio is exactly 1.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        """
        x = self.checked_inputs(observations, normalized)
        a, masks = self.checked_choices(actions, action_masks, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = self.native if old_parameters is None else self.native_at(old_parameters)
        ratio = np.exp(self.native.log_prob(x, a, masks) - old.log_prob(x, a, masks))
        return float(np.mean(ratio * weights))

    def surrogate_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike | None = None,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return the gradient of :meth:`surrogate`, (D,) float64.

        At ``old_parameters=None`` it is the policy gradient, mean_n A_n grad log pi(a_n|s_n).

        Parameters
        ----------
        observations, actions, advantages, normalized, old_parameters, action_masks
            As of :meth:`surrogate`.
        """
        x = self.checked_inputs(observations, normalized)
        a, masks = self.checked_choices(actions, action_masks, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = None
        if old_parameters is not None:
            old = self.native_at(old_parameters).log_prob(x, a, masks)
        return self._batch(self.native, x, a, masks).surrogate_gradient(weights, old)

    def penalised_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike,
        kl_coefficient: float,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return the gradient of a penalised surrogate, (D,) float64 (Schulman et al. 2017, eq. 8).

        ::

            L(theta) - kl_coefficient mean_n KL(pi_old(.|s_n) || pi_theta(.|s_n))

        At ``old_parameters`` the gradient of the KL is zero, and this is the policy gradient.

        Parameters
        ----------
        observations, actions, advantages, normalized
            As of :meth:`surrogate`.
        old_parameters
            (D,), of pi_old.
        kl_coefficient
            In the unit of the advantages per nat, at least 0.
        action_masks
            As of :meth:`surrogate`.
        """
        x = self.checked_inputs(observations, normalized)
        a, masks = self.checked_choices(actions, action_masks, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        coefficient = finite(
            "kl_coefficient", kl_coefficient, 0.0, math.inf, "a finite number of at least 0"
        )
        old = self._batch(self.native_at(old_parameters), x, a, masks)
        return self._batch(self.native, x, a, masks).penalised_gradient(old, weights, coefficient)

    def fisher_operator(
        self,
        observations: ArrayLike,
        *,
        normalized: bool = False,
        actions: ArrayLike | None = None,
        fisher: Literal["gauss_newton", "empirical"] = "gauss_newton",
        damping: float = 0.0,
        activation_budget: int = DEFAULT_ACTIVATION_BUDGET,
        expected_products: int = 10,
        action_masks: ArrayLike | None = None,
    ) -> FisherOperator:
        """Return the Fisher matrix on a batch, at the parameters of now, as a callable.

        Parameters
        ----------
        observations
            (N, O); copied.
        normalized
            Whether they are what :meth:`normalize` returned; raw otherwise.
        actions
            (N, A), unclipped; copied. Needed by ``fisher="empirical"``, the covariance of their
            scores.
        fisher
            ``"gauss_newton"`` or ``"empirical"``, see :class:`FisherOperator`.
        damping
            lambda in F + lambda I, at least 0.
        activation_budget
            Bytes of activations to keep, at least 0; beyond it they are recomputed in every product,
            to the same bits.
        expected_products
            About how many products will be asked for, at least 0. Where they are enough for it to
            pay, the first one works out the Jacobian of the outputs with respect to the hidden
            layers (some 1.5 products at 64-64 and six outputs) and the later ones skip two of their
            largest matrix products.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all. Copied. A
            forbidden choice adds no curvature.
        """
        x = self.checked_inputs(observations, normalized)
        choice("fisher", fisher, ("gauss_newton", "empirical"))
        masks = self.checked_masks(action_masks, len(x))
        a = None if actions is None else self.checked_choices(actions, masks, len(x))[0]
        if fisher == "empirical" and a is None:
            raise ValueError(
                "actions: expected the sampled actions, because the empirical Fisher matrix is the "
                "covariance of their scores, got None."
            )
        kind = self.by_dtype(_core.PolicyBatchF32, _core.PolicyBatchF64)
        batch = kind(
            self.native,
            x,
            a,
            integer("activation_budget", activation_budget, 0),
            fisher,
            min(integer("expected_products", expected_products, 0), 1_000_000),
            masks,
        )
        return FisherOperator(
            batch,
            self.n_parameters,
            finite("damping", damping, 0.0, math.inf, "a finite number of at least 0"),
        )

    def fisher_vector_product(
        self,
        observations: ArrayLike,
        vector: ArrayLike,
        *,
        normalized: bool = False,
        damping: float = 0.0,
        action_masks: ArrayLike | None = None,
    ) -> Float64:
        """Return (F + damping I) v once, (D,) float64; :meth:`fisher_operator` is for several.

        Parameters
        ----------
        observations
            (N, O).
        vector
            v, (D,).
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        damping
            At least 0.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        """
        return self.fisher_operator(
            observations,
            normalized=normalized,
            damping=damping,
            expected_products=1,
            action_masks=action_masks,
        )(vector)

    def checked_choices(
        self, actions: ArrayLike, action_masks: ArrayLike | None, n: int
    ) -> tuple[NDArray[Any], Masks | None]:
        """Return actions and masks as :meth:`checked_actions` and :meth:`checked_masks` do.

        Parameters
        ----------
        actions, action_masks
            What was given; no action may be one that its mask forbids.
        n
            Rows that there must be.
        """
        a, masks = self.checked_actions(actions, n), self.checked_masks(action_masks, n)
        refuse_forbidden(self.distribution, a, masks)
        return a, masks

    def native_at(self, parameters: ArrayLike) -> _core.PolicyF32 | _core.PolicyF64:
        """Return a compiled policy like this one at other parameters (D,).

        Parameters
        ----------
        parameters
            (D,), finite.
        """
        other = self.new_native()
        other.set_parameters(shaped("old_parameters", parameters, self.dtype, (self.n_parameters,)))
        return other

    def _batch(
        self,
        policy: _core.PolicyF32 | _core.PolicyF64,
        x: NDArray[Any],
        actions: NDArray[Any],
        masks: Masks | None,
    ) -> _core.PolicyBatchF32 | _core.PolicyBatchF64:
        kind = self.by_dtype(_core.PolicyBatchF32, _core.PolicyBatchF64)
        return kind(policy, x, actions, action_masks=masks)
