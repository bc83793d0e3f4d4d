"""The policy as users meet it: what acts and is measured, and its updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, NDArray

from .. import _core
from .checks import integer, shaped
from .masks import Masks, mask_rows
from .measured_policy import MeasuredPolicy
from .network import adam_state, load_adam_state
from .options import (
    AscentOptions,
    AscentSettings,
    TrustRegionOptions,
    TrustRegionSettings,
    with_settings,
)
from .update import GradientSignal, UpdateSummary

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Policy(MeasuredPolicy):
    """A stochastic policy: network, action distribution, optional frozen observation normaliser.

    Every method takes raw observations and normalises them first, as :meth:`set_normalizer` says.
    Where a method has the argument ``normalized``, ``normalized=True`` says that the rows come from
    :meth:`normalize` already. Without a normaliser both are the same.

    Copies and pickles hold parameters, normaliser and Adam's moments, and compute the same bits.

    Parameters
    ----------
    obs_dim
        O, width of an observation, at least 1.
    distribution
        What the network's P outputs mean.
    hidden_sizes
        Widths of the hidden layers, each at least 1; at most 15 layers.
    activation
        Of the hidden layers: one of :data:`ACTIVATIONS`.
    dtype
        float32 or float64: the dtype S of parameters and observations.
    initial_log_std
        log of the standard deviation of Gaussians to begin with, in [-20, 20].
    hidden_gain
        Hidden weights begin orthogonal times this, at least 0; biases at zero.
    output_gain
        The same of the last layer.
    seed
        Of the initial weights, from 0 to 2^64 - 1.

    Raises
    ------
    ValueError, TypeError
        A size, name, number or dtype is not one of those.
    """

    _compiled = ("_native", "_updater", "_ascent")
    _updater: _core.TrustRegionUpdaterF32 | _core.TrustRegionUpdaterF64 | None
    _ascent: _core.PolicyAscentF32 | _core.PolicyAscentF64 | None

    def make_native(self) -> None:
        super().make_native()
        self._updater = self._ascent = None

    def __getstate__(self) -> dict[str, Any]:
        """As for every network, and Adam's moments where :meth:`ascend` has made some."""
        optimizer = None if self._ascent is None else self.optimizer_state()
        return {**super().__getstate__(), "optimizer": optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        optimizer = state.pop("optimizer")
        super().__setstate__(state)
        if optimizer is not None:
            self.load_optimizer_state(optimizer)

    def update(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        options: TrustRegionOptions | None = None,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
        further_observations: ArrayLike | None = None,
        further_masks: ArrayLike | None = None,
        **settings: Unpack[TrustRegionSettings],
    ) -> UpdateSummary:
        """Make one TRPO update in place (Schulman et al. 2015, section 6), or one of its relatives.

        ::

            g = grad L(theta_k)               L is the surrogate, see surrogate()
            (F + cg_damping I) x = g          by conjugate gradient from x = 0
            beta = sqrt(2 max_kl / x^T (F + cg_damping I) x)
            theta = theta_k + backtrack_ratio^j beta x,  smallest j with KL <= max_kl and L improved

        >>> policy.update(observations, actions, advantages, max_kl=0.01)

        Parameters
        ----------
        observations
            (N, O).
        actions
            (N, A), as sampled (unclipped).
        advantages
            (N,), finite.
        options
            All settings in one object, for many updates; None: the defaults below.
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        further_observations
            (k, O), of states that the trust region covers as well: F and the mean KL are means over
            N + k states then, where F of the k is exact; L and g stay those of the N.
        further_masks
            (k, W), of those; None: everything is allowed there.
        **settings
            Settings that differ from ``options``, by name: those listed from here on.
        max_kl
            delta, the most KL(old || new) that a step may have: nats, summed over the components of
            an action, over samples as ``constraint`` says; positive, by default 0.01.
        constraint
            ``"mean"`` (default) bounds the mean KL over the samples; ``"max"`` the largest
            (equation 11), with beta = sqrt(2 max_kl / (max_n x^T F_n x + cg_damping ||x||^2)).
        fisher
            ``"gauss_newton"`` (default); ``"empirical"``, the covariance of the scores (see
            :class:`FisherOperator`); or ``"identity"``: x = g without damping, the vanilla policy
            gradient, where the boundary is that of the ball ||theta - theta_k||^2 / 2 <= max_kl.
        fisher_fraction
            Share of the samples, drawn once, that F is estimated on, in (0, 1]; by default 1.
        cg_damping
            lambda in (F + lambda I) x = g, at least 0; by default 0.1.
        cg_iterations
            The most products of conjugate gradient, at least 1; by default 10.
        cg_tolerance
            Conjugate gradient ends at a residual of this, relative to ||g||; at least 0, by default
            1e-10.
        cg_preconditioner
            ``"none"`` (default); ``"kronecker"`` reaches the same residual with fewer products, a
            third for one of 0.1 (see :meth:`FisherOperator.kronecker_preconditioner`).
        step
            ``"line_search"`` (default); ``"boundary"`` takes j = 0 unchecked (normalised natural
            gradient); ``"fixed"`` takes theta_k + ``step_size`` x (natural gradient, Kakade 2001).
        step_size
            Factor of x for ``step="fixed"``, positive; None (default) for the other steps.
        backtrack_ratio
            Factor of the step from one candidate of the line search to the next, in (0, 1); by
            default 0.8.
        max_backtracks
            Candidates after the first, at least 0; by default 10.
        standardize_advantages
            Subtract their mean and divide by their standard deviation; by default True. Gains are
            in that unit, and in the advantages' own otherwise.
        seed
            Of what is drawn at random, the share of the samples and the preconditioner's
            cotangents: from 0 to 2^64 - 1; by default 0.
        activation_budget
            Bytes of activations to keep, at least 0; beyond it they are recomputed, to the same
            bits; by default 512 MiB.

        Returns
        -------
        UpdateSummary
            Unless its status is ``"accepted"`` the parameters are, bit for bit, those before.

        Raises
        ------
        ValueError, TypeError
            A shape, number or name is not one of those; nothing was changed. Numerical trouble is
            no error but a status.
        """
        x = self.checked_inputs(observations, normalized)
        a, masks = self.checked_choices(actions, action_masks, x.shape[0])
        summary = self.native_updater().update(
            self.native,
            x,
            a,
            shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            with_settings(TrustRegionOptions, options, settings),
            masks,
            *self.checked_further(further_observations, further_masks, normalized),
        )
        return UpdateSummary(**summary)

    def checked_further(
        self, observations: ArrayLike | None, masks: ArrayLike | None, normalized: bool
    ) -> tuple[NDArray[Any] | None, Masks | None]:
        """Return further states of a trust region as the core takes them, and their masks, or raise.

        Parameters
        ----------
        observations, masks, normalized
            As of :meth:`update`.
        """
        if observations is None:
            if masks is not None:
                raise ValueError(
                    "further_masks: expected None without further_observations, got masks."
                )
            return None, None
        x = self.checked_inputs(observations, normalized)
        if masks is None:
            return x, None
        return x, mask_rows(self.distribution, masks, len(x), name="further_masks")

    def gradient_signal(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        options: TrustRegionOptions | None = None,
        *,
        split: int | None = None,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
        **settings: Unpack[TrustRegionSettings],
    ) -> GradientSignal | None:
        """Measure how much of the gradient of :meth:`update` is signal, without an update.

        ::

            x_i = (F_i + cg_damping I)^{-1} g_i           of the two halves of the batch, i = 1, 2
            validated = 1/2 (x_1^T g_2 + x_2^T g_1)       the noise of the halves is independent
            apparent  = 1/4 (x_1 + x_2)^T (g_1 + g_2)

        Parameters
        ----------
        observations, actions, advantages
            As of :meth:`update`.
        split
            Rows of the first half, from 1 to N - 1; the others are the second. None: floor(N / 2). The
            halves should share no episode: a common state of affairs counts as signal, or as its
            opposite.
        options, normalized, action_masks, **settings
            As of :meth:`update`. What says how far to step has no effect, and F is that of all
            samples of a half.

        Returns
        -------
        GradientSignal or None
            None where a half has no gradient, or a number is not finite.
        """
        x = self.checked_inputs(observations, normalized)
        n = int(x.shape[0])
        half = n // 2 if split is None else integer("split", split, 1, max(1, n - 1))
        a, masks = self.checked_choices(actions, action_masks, n)
        gains = self.native_updater().signal(
            self.native,
            x,
            a,
            shaped("advantages", advantages, self.dtype, (n,)),
            half,
            with_settings(TrustRegionOptions, options, settings),
            masks,
        )
        return None if gains is None else GradientSignal(*gains)

    def ascend(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        options: AscentOptions | None = None,
        *,
        normalized: bool = False,
        action_masks: ArrayLike | None = None,
        **settings: Unpack[AscentSettings],
    ) -> UpdateSummary:
        """Ascend a penalised surrogate by Adam, in place (Schulman et al. 2017, equation 8).

        ::

            L(theta) - kl_coefficient mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n))

        One epoch on the full batch without penalty is the vanilla policy gradient. Moments and step
        count carry over to the next call, see :meth:`optimizer_state`; a NaN on the way restores
        them and the parameters.

        Parameters
        ----------
        observations
            (N, O).
        actions
            (N, A), as sampled (unclipped).
        advantages
            (N,), finite.
        options
            All settings in one object; None: the defaults below.
        normalized
            Whether observations are what :meth:`normalize` returned; raw otherwise.
        action_masks
            (N, W) of 0 and 1: which choices are allowed, see :func:`mask_rows`; None: all.
        **settings
            Settings that differ from ``options``, by name: those listed from here on.
        learning_rate
            Step size of Adam, at least 0; by default 3e-4.
        epochs
            Passes over the samples, at least 1; by default 1.
        minibatch_size
            Samples a step, at least 1; None (default): the full batch.
        kl_coefficient
            In standardised advantages per nat, at least 0; by default 0.
        standardize_advantages
            Subtract their mean and divide by their standard deviation, over the whole batch; by
            default True.
        seed
            Of the order of the samples, from 0 to 2^64 - 1; by default 0.
        activation_budget
            Bytes of activations to keep, at least 0; by default 512 MiB.

        Returns
        -------
        UpdateSummary
            Its ``max_kl`` is infinite: nothing bounds the step.

        Raises
        ------
        ValueError, TypeError
            As of :meth:`update`.
        """
        x = self.checked_inputs(observations, normalized)
        a, masks = self.checked_choices(actions, action_masks, x.shape[0])
        summary = self._native_ascent().ascend(
            self.native,
            x,
            a,
            shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            with_settings(AscentOptions, options, settings),
            masks,
        )
        return UpdateSummary(**summary)

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """Return Adam's moments (D,) dtype S and step count (1,) int64, of :meth:`ascend`."""
        return adam_state(self._native_ascent())

    def load_optimizer_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Restore what :meth:`optimizer_state` returned, bit for bit.

        Parameters
        ----------
        state
            Entries ``first_moment`` (D,), ``second_moment`` (D,) and ``steps`` (1,).
        """
        load_adam_state(self._native_ascent(), state, self.dtype, self.n_parameters)

    def native_updater(self) -> _core.TrustRegionUpdaterF32 | _core.TrustRegionUpdaterF64:
        """Return the compiled updater, which holds the memory of this policy's updates."""
        if self._updater is None:
            self._updater = self.by_dtype(
                _core.TrustRegionUpdaterF32, _core.TrustRegionUpdaterF64
            )()
        return self._updater

    def _native_ascent(self) -> _core.PolicyAscentF32 | _core.PolicyAscentF64:
        if self._ascent is None:
            kind = self.by_dtype(_core.PolicyAscentF32, _core.PolicyAscentF64)
            self._ascent = kind(self.native)
        return self._ascent
