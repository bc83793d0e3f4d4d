"""A stochastic policy and its updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core
from .acting import Actor
from .checks import (
    Float,
    Float64,
    boolean,
    borrowed,
    choice,
    coordinates,
    finite,
    integer,
    numeric_array,
    rectangular,
    seed_number,
    shaped,
    stream_numbers,
)
from .distribution import Distribution
from .network import Network, adam_state
from .options import (
    CONSTRAINTS,
    DEFAULT_ACTIVATION_BUDGET,
    FISHER_FORMS,
    PRECONDITIONERS,
    STEP_RULES,
    Constraint,
    Fisher,
    Preconditioner,
    StepRule,
)
from .update import FisherOperator, UpdateSummary


@dataclass(frozen=True, eq=False)
class Normalizer:
    """y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip)."""

    mean: Float64  # (O,)
    variance: Float64  # (O,)
    clip: float
    epsilon: float


class Policy(Network):
    """A stochastic policy: network, action distribution, optional frozen observation normaliser.

    Every method takes raw observations and normalises them first, as :meth:`set_normalizer` says.
    Whoever has normalised rows at hand, from :meth:`normalize`, says so with ``normalized=True``, where
    a method has that argument. Without a normaliser both are the same.

    Copies and pickles hold parameters, normaliser and Adam's moments, and compute the same bits.

    Parameters start orthogonal (gain ``hidden_gain``, last layer ``output_gain``), biases zero,
    log_std at ``initial_log_std``; deterministic in ``seed``.
    """

    def __init__(
        self,
        obs_dim: int,
        distribution: Distribution,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        dtype: DTypeLike = "float32",
        initial_log_std: float = -0.5,
        hidden_gain: float = math.sqrt(2.0),
        output_gain: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not isinstance(distribution, Distribution):
            raise TypeError(
                f"distribution: expected a Distribution, got {type(distribution).__name__}; "
                'for a Box of 6 actions write Distribution("gaussian", (6,)).'
            )
        super().__init__(obs_dim, distribution.n_outputs, hidden_sizes, activation, dtype)
        self.distribution = distribution
        self._impl = self._make_native()
        self._updater: Any = None
        self._normalizer: Normalizer | None = None
        log_std = finite("initial_log_std", initial_log_std, -20.0, 20.0, "a number in [-20, 20]")
        flat = np.concatenate(
            [
                self._initial(hidden_gain, output_gain, seed),
                np.full(distribution.n_free_parameters, log_std),
            ]
        )
        if distribution.kind == "state_dependent_gaussian":
            A = distribution.sizes[0]
            flat[-A:] = log_std  # the bias of the log_std outputs
        self.parameters = flat

    def _make_native(self) -> Any:
        return getattr(_core, f"Policy{self._suffix}")(
            self.obs_dim,
            list(self.hidden_sizes),
            self.activation,
            self.distribution.kind,
            list(self.distribution.sizes),
        )

    def __getstate__(self) -> dict[str, Any]:
        """As for every network, and Adam's moments where :meth:`ascend` has made some."""
        optimizer = None if self._updater is None else self.optimizer_state()
        return {**super().__getstate__(), "optimizer": optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        optimizer = state.pop("optimizer")
        super().__setstate__(state)
        self._updater = None
        if optimizer is not None:
            self.load_optimizer_state(optimizer)
        if self._normalizer is not None:
            self.set_normalizer(**vars(self._normalizer))

    @property
    def action_dtype(self) -> np.dtype[Any]:
        """dtype of stored actions: S for Gaussians, int32 for discrete distributions."""
        return np.dtype(np.int32) if self.distribution.is_discrete else self.dtype

    @property
    def parameter_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        layout = super().parameter_layout
        n = self.distribution.n_free_parameters
        if n:
            layout["log_std"] = (slice(self.n_parameters - n, self.n_parameters), (n,))
        return layout

    # -- raw observations ---------------------------------------------------------------------------

    def set_normalizer(
        self, mean: ArrayLike, variance: ArrayLike, *, clip: float = 10.0, epsilon: float = 1e-8
    ) -> None:
        """Freeze y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip) in front of the network."""
        m = shaped("mean", mean, np.float64, (self.obs_dim,))
        v = shaped("variance", variance, np.float64, (self.obs_dim,))
        if not (np.isfinite(m).all() and np.isfinite(v).all() and (v >= 0).all()):
            raise ValueError("mean, variance: expected finite numbers and variance >= 0.")
        clip = finite("clip", clip, 1e-6, math.inf, "a positive number")
        epsilon = finite("epsilon", epsilon, 1e-300, math.inf, "a positive number")
        self._impl.set_normalizer(m, 1.0 / np.sqrt(v + epsilon), clip)
        self._normalizer = Normalizer(m.copy(), v.copy(), clip, epsilon)

    def clear_normalizer(self) -> None:
        """Let observations through as they are."""
        self._impl.clear_normalizer()
        self._normalizer = None

    @property
    def normalizer(self) -> Normalizer | None:
        """The frozen normaliser in front of the network, or None."""
        return self._normalizer

    def normalize(self, observations: ArrayLike) -> Float:
        """(N, O) raw -> (N, O) as the network sees them, dtype S."""
        normalized: Float = self._impl.normalize(self._observations(observations))
        return normalized

    def act(
        self,
        observations: ArrayLike,
        *,
        deterministic: bool = False,
        seed: int = 0,
        envs: ArrayLike | None = None,
        steps: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """Actions (N, A) for raw observations (N, O), unclipped.

        Row n draws from the stream (seed, envs[n], steps[n]); by default envs = 0 ... N-1, steps = 0.
        ``deterministic`` gives the mode.

        Raises
        ------
        ValueError
            NaN or infinity among the observations where actions are discrete and could not show it;
            continuous ones are NaN there.
        """
        x = self._observations(observations)
        n = x.shape[0]
        if self.distribution.is_discrete and not np.isfinite(x).all():
            row = int(np.argmin(np.isfinite(x).all(axis=1)))
            raise ValueError(
                f"observations: expected finite numbers, got NaN or infinity in row {row}; "
                "mend them first, a discrete action cannot be NaN."
            )
        ids = np.arange(n, dtype=np.uint32) if envs is None else envs
        counters = np.zeros(n, np.uint64) if steps is None else steps
        actions: NDArray[Any] = self._impl.sample(
            x,
            seed_number(seed),
            coordinates("envs", ids, np.uint32, n),
            coordinates("steps", counters, np.uint64, n),
            boolean("deterministic", deterministic),
        )
        return actions

    def act_one(
        self, observation: Any, *, deterministic: bool = False, seed: int = 0, step: int = 0
    ) -> NDArray[Any] | None:
        """:meth:`act` for one raw observation (O,) and the stream (seed, 0, step): (1, A), unclipped.

        One native call, for loops that step one environment. None, and :meth:`act` must do it, where
        the observation is not a C-contiguous array (O,) of float32 or float64, finite in the policy's
        dtype.

        Raises
        ------
        ValueError, TypeError
            ``seed`` or ``step`` is no number of 64 bits.
        """
        action: NDArray[Any] | None
        try:
            action = self._impl.act_one(observation, seed, step, deterministic)
        except TypeError:
            stream_numbers(seed, 0, step)  # says which of them is wrong
            raise
        return action

    def actor(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        counters: NDArray[np.uint64],
        envs: NDArray[np.uint32],
        *,
        seed: int,
    ) -> Actor:
        """Bind rollout arrays: observations (T, E, O) S, actions (T, E, A), counters and envs (E,).

        The arrays are borrowed and kept alive, so they must be C-contiguous and of the exact dtype;
        ``actor.step(t)`` reads and writes their row t with no other Python in between.
        """
        x = borrowed(
            "observations", observations, self.dtype, (None, None, self.obs_dim), writeable=False
        )
        T, E, _ = x.shape
        dim = self.distribution.action_dim
        borrowed("actions", actions, self.action_dtype, (T, E, dim), writeable=True)
        borrowed("counters", counters, np.dtype(np.uint64), (E,), writeable=True)
        borrowed("envs", envs, np.dtype(np.uint32), (E,), writeable=False)
        return Actor(
            getattr(_core, f"Actor{self._suffix}")(
                self._impl, observations, actions, counters, envs, seed_number(seed)
            )
        )

    # -- raw observations, or normalised ones where normalized=True ----------------------------------

    def _inputs(self, observations: ArrayLike, normalized: bool) -> NDArray[Any]:
        """(N, O) as the network sees them: ``normalize`` is applied unless it has been already."""
        x = self._observations(observations)
        if self._normalizer is None or boolean("normalized", normalized):
            return x
        inputs: NDArray[Any] = self._impl.normalize(x)
        return inputs

    def _actions(self, actions: ArrayLike, n: int) -> NDArray[Any]:
        shape = (n, self.distribution.action_dim)
        array = rectangular("actions", actions)
        if self.distribution.kind == "categorical" and array.shape == (n,):
            array = array.reshape(n, 1)
        if array.shape != shape:
            raise ValueError(
                f"actions: expected shape {shape}, got {array.shape}; does the policy's "
                f"distribution {self.distribution.kind}{self.distribution.sizes} fit the action space?"
            )
        if self.distribution.is_discrete and array.dtype.kind not in "iub":
            raise TypeError(f"actions: expected integers, got dtype {array.dtype}.")
        if array.dtype.itemsize > 4 and self.distribution.is_discrete and array.size:
            low, high = int(array.min()), int(array.max())
            if low < 0 or high > 2**31 - 1:  # would wrap around as int32
                raise ValueError(f"actions: expected integers counted from 0, got {low} to {high}.")
        return numeric_array("actions", array, self.action_dtype)

    def outputs(self, observations: ArrayLike, *, normalized: bool = False) -> Float:
        """Network outputs (N, P), dtype S."""
        outputs: Float = self._impl.outputs(self._inputs(observations, normalized))
        return outputs

    def log_prob(
        self, observations: ArrayLike, actions: ArrayLike, *, normalized: bool = False
    ) -> Float64:
        """log pi(a_n|s_n), (N,) float64, summed over action components."""
        x = self._inputs(observations, normalized)
        result: Float64 = self._impl.log_prob(x, self._actions(actions, x.shape[0]))
        return result

    def entropy(self, observations: ArrayLike, *, normalized: bool = False) -> Float64:
        """Entropy of pi(.|s_n) in nats, (N,) float64."""
        result: Float64 = self._impl.entropy(self._inputs(observations, normalized))
        return result

    def _at(self, parameters: ArrayLike) -> Any:
        other = self._make_native()
        other.set_parameters(shaped("old_parameters", parameters, self.dtype, (self.n_parameters,)))
        return other

    def kl(
        self, observations: ArrayLike, old_parameters: ArrayLike, *, normalized: bool = False
    ) -> Float64:
        """KL(pi_old(.|s_n) || pi(.|s_n)) in nats, (N,) float64, summed over action components."""
        result: Float64 = self._impl.kl(
            self._inputs(observations, normalized), self._at(old_parameters)
        )
        return result

    def _batch(self, x: NDArray[Any], actions: NDArray[Any] | None) -> Any:
        return getattr(_core, f"PolicyBatch{self._suffix}")(self._impl, x, actions)

    def surrogate(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike | None = None,
    ) -> float:
        """L(theta) = mean_n pi_theta(a_n|s_n) / pi_old(a_n|s_n) A_n (equation 14 of the TRPO paper).

        Without ``old_parameters`` the ratio is exactly 1. Advantages (N,) are used as they are.
        """
        x = self._inputs(observations, normalized)
        a = self._actions(actions, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = self._impl if old_parameters is None else self._at(old_parameters)
        ratio = np.exp(self._impl.log_prob(x, a) - old.log_prob(x, a))
        return float(np.mean(ratio * weights))

    def surrogate_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike | None = None,
    ) -> Float64:
        """Gradient of :meth:`surrogate`, (D,) float64; at ``old_parameters=None`` the policy gradient."""
        x = self._inputs(observations, normalized)
        a = self._actions(actions, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = None if old_parameters is None else self._at(old_parameters).log_prob(x, a)
        gradient: Float64 = self._batch(x, a).surrogate_gradient(weights, old)
        return gradient

    def penalised_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        old_parameters: ArrayLike,
        kl_coefficient: float,
    ) -> Float64:
        """Gradient of L(theta) - kl_coefficient mean_n KL(pi_old || pi_theta), (D,) float64.

        L is :meth:`surrogate`, with advantages (N,) used as they are. At ``old_parameters`` the KL
        is flat and this is the policy gradient. Schulman et al. 2017 (PPO), equation 8.
        """
        x = self._inputs(observations, normalized)
        a = self._actions(actions, x.shape[0])
        weights = shaped("advantages", advantages, np.float64, (x.shape[0],))
        coefficient = finite(
            "kl_coefficient", kl_coefficient, 0.0, math.inf, "a finite number of at least 0"
        )
        old = type(self._batch(x, a))(self._at(old_parameters), x, a)
        gradient: Float64 = self._batch(x, a).penalised_gradient(old, weights, coefficient)
        return gradient

    def fisher_operator(
        self,
        observations: ArrayLike,
        *,
        normalized: bool = False,
        actions: ArrayLike | None = None,
        fisher: Fisher = "gauss_newton",
        damping: float = 0.0,
        activation_budget: int = DEFAULT_ACTIVATION_BUDGET,
        expected_products: int = 10,
    ) -> FisherOperator:
        """The Fisher matrix on a batch of observations (N, O), as a callable.

        ``fisher="empirical"`` is the covariance of the scores of ``actions`` (N, A): it needs them.
        ``activation_budget`` bytes of activations are kept; beyond it they are recomputed in every
        product, to the same bits. Where ``expected_products`` are enough for it to pay, the first
        one works out the Jacobian of the outputs with respect to the hidden layers (some 1.5
        products at 64-64 and six outputs) and the later ones skip two of their largest matrix
        products.
        """
        x = self._inputs(observations, normalized)
        choice("fisher", fisher, ("gauss_newton", "empirical"))
        a = None if actions is None else self._actions(actions, x.shape[0])
        if fisher == "empirical" and a is None:
            raise ValueError(
                "actions: expected the sampled actions, because the empirical Fisher matrix is the "
                "covariance of their scores, got None."
            )
        batch = getattr(_core, f"PolicyBatch{self._suffix}")(
            self._impl,
            x,
            a,
            integer("activation_budget", activation_budget, 0),
            fisher,
            min(integer("expected_products", expected_products, 0), 1_000_000),
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
    ) -> Float64:
        """(F + damping I) v once; make a :meth:`fisher_operator` for several products."""
        return self.fisher_operator(
            observations, normalized=normalized, damping=damping, expected_products=1
        )(vector)

    def update(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        max_kl: float = 0.01,
        cg_iterations: int = 10,
        cg_tolerance: float = 1e-10,
        cg_damping: float = 0.1,
        backtrack_ratio: float = 0.8,
        max_backtracks: int = 10,
        fisher_fraction: float = 1.0,
        standardize_advantages: bool = True,
        seed: int = 0,
        activation_budget: int = DEFAULT_ACTIVATION_BUDGET,
        constraint: Constraint = "mean",
        fisher: Fisher = "gauss_newton",
        step: StepRule = "line_search",
        step_size: float | None = None,
        cg_preconditioner: Preconditioner = "none",
    ) -> UpdateSummary:
        """One TRPO update in place (Schulman et al. 2015, section 6), or one of its relatives.

        ::

            g = grad L(theta_k)                      (F + damping I) x = g   by conjugate gradient
            beta = sqrt(2 max_kl / x^T (F + damping I) x)
            theta = theta_k + backtrack_ratio^j beta x,  smallest j with KL <= max_kl and L improved

        observations (N, O), actions (N, A) as sampled (unclipped), advantages (N,).
        ``max_kl`` is in nats, over samples as ``constraint`` says, summed over action components;
        ``fisher_fraction`` of the samples, drawn once with ``seed``, estimate F.

        constraint
            ``"mean"`` bounds the mean KL over the samples; ``"max"`` the largest (equation 11),
            with beta = sqrt(2 max_kl / (max_n x^T F_n x + damping ||x||^2)).
        fisher
            ``"gauss_newton"``; ``"empirical"``, the covariance of the scores (see
            :class:`FisherOperator`); or ``"identity"``: x = g without damping, the vanilla policy
            gradient, where the boundary is that of the ball ||theta - theta_k||^2 / 2 <= max_kl.
        step
            ``"line_search"``; ``"boundary"`` takes j = 0 unchecked (normalised natural gradient);
            ``"fixed"`` takes theta_k + ``step_size`` x (natural gradient, Kakade 2001).
        cg_preconditioner
            ``"none"``; ``"kronecker"``, which reaches the same residual with fewer products, a third
            for one of 0.1 (see :meth:`FisherOperator.kronecker_preconditioner`).
        """
        x = self._inputs(observations, normalized)
        positive = 5e-324
        choice("constraint", constraint, CONSTRAINTS)
        choice("fisher", fisher, FISHER_FORMS)
        choice("step", step, STEP_RULES)
        choice("cg_preconditioner", cg_preconditioner, PRECONDITIONERS)
        if (step_size is not None) != (step == "fixed"):
            raise ValueError(
                f"step_size: expected a number for step='fixed' and None otherwise, "
                f"got {step_size} for step={step!r}."
            )
        summary = self._native_updater().update(
            self._impl,
            x,
            self._actions(actions, x.shape[0]),
            shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            finite("max_kl", max_kl, positive, math.inf, "a positive number"),
            integer("cg_iterations", cg_iterations, 1, 2**31 - 1),
            finite("cg_tolerance", cg_tolerance, 0.0, math.inf, "a finite number of at least 0"),
            finite("cg_damping", cg_damping, 0.0, math.inf, "a finite number of at least 0"),
            finite("backtrack_ratio", backtrack_ratio, positive, 1.0 - 1e-16, "a number in (0, 1)"),
            integer("max_backtracks", max_backtracks, 0, 2**31 - 1),
            finite("fisher_fraction", fisher_fraction, positive, 1.0, "a number in (0, 1]"),
            boolean("standardize_advantages", standardize_advantages),
            seed_number(seed),
            integer("activation_budget", activation_budget, 0),
            constraint,
            fisher,
            step,
            0.0
            if step_size is None
            else finite("step_size", step_size, positive, math.inf, "a positive number"),
            cg_preconditioner,
        )
        return UpdateSummary(**summary)

    def ascend(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        normalized: bool = False,
        learning_rate: float = 3e-4,
        epochs: int = 1,
        minibatch_size: int | None = None,
        kl_coefficient: float = 0.0,
        standardize_advantages: bool = True,
        seed: int = 0,
        activation_budget: int = DEFAULT_ACTIVATION_BUDGET,
    ) -> UpdateSummary:
        """Adam on L(theta) - kl_coefficient mean_n KL(pi_k || pi_theta), in place.

        Arguments are those of :meth:`update`. ``epochs`` passes over shuffled minibatches (the
        order drawn with ``seed``; ``None`` is the full batch) make PPO's penalised update (Schulman
        et al. 2017, equation 8); one epoch on the full batch without penalty is the vanilla policy
        gradient. Advantages are standardised over the whole batch. Moments and step count carry
        over to the next call, see :meth:`optimizer_state`; a NaN on the way restores them and the
        parameters.
        """
        x = self._inputs(observations, normalized)
        at_least_0 = "a finite number of at least 0"
        summary = self._native_updater().ascend(
            self._impl,
            x,
            self._actions(actions, x.shape[0]),
            shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            integer("epochs", epochs, 1, 2**31 - 1),
            0 if minibatch_size is None else integer("minibatch_size", minibatch_size, 1),
            finite("learning_rate", learning_rate, 0.0, math.inf, at_least_0),
            finite("kl_coefficient", kl_coefficient, 0.0, math.inf, at_least_0),
            boolean("standardize_advantages", standardize_advantages),
            seed_number(seed),
            integer("activation_budget", activation_budget, 0),
        )
        return UpdateSummary(**summary)

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """Adam's moments (D,) dtype S and step count (1,) int64, of :meth:`ascend`."""
        first, second, steps = self._native_updater().get_adam(self.n_parameters)
        return {
            "first_moment": first,
            "second_moment": second,
            "steps": np.array([steps], np.int64),
        }

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`optimizer_state` returned, bit for bit."""
        self._native_updater().set_adam(*adam_state(state, self.dtype, self.n_parameters))

    def _native_updater(self) -> Any:
        if self._updater is None:
            self._updater = getattr(_core, f"PolicyUpdater{self._suffix}")()
        return self._updater
