"""The numerics of TRPO on NumPy arrays: every piece usable by itself.

Letters: N samples, T steps, E environments, O observation width, A action width, P network outputs,
D parameters. ``S`` is the dtype of a network, ``float32`` or ``float64``.

Arguments are array-likes: they are converted to the dtype and layout that the compiled core needs,
never silently reshaped. Wrong shapes raise ``ValueError``, wrong types ``TypeError``. The GIL is
released while the core works; one object must not be used by two threads at once.

>>> policy = Policy(17, Distribution("gaussian", (6,)))
>>> F = policy.fisher_operator(observations, damping=0.1)
>>> x = conjugate_gradient(F, gradient, max_iterations=10).x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import _core

Float = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]

ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")
DEFAULT_ACTIVATION_BUDGET = 512 << 20  # bytes

Constraint = Literal["mean", "max"]
Fisher = Literal["gauss_newton", "empirical", "identity"]
StepRule = Literal["line_search", "boundary", "fixed"]
Preconditioner = Literal["none", "kronecker"]
CONSTRAINTS: tuple[Constraint, ...] = get_args(Constraint)
FISHER_FORMS: tuple[Fisher, ...] = get_args(Fisher)
STEP_RULES: tuple[StepRule, ...] = get_args(StepRule)
PRECONDITIONERS: tuple[Preconditioner, ...] = get_args(Preconditioner)

__all__ = [
    "ActionClip",
    "Actor",
    "ConjugateGradientResult",
    "Distribution",
    "FisherOperator",
    "FitSummary",
    "Normalizer",
    "Policy",
    "RowWriter",
    "RunningStatistics",
    "UpdateSummary",
    "ValueFunction",
    "conjugate_gradient",
    "gae",
    "random_normals",
    "random_uniforms",
]


# --------------------------------------------------------------------------------------- conversion


def _rectangular(name: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a rectangular array of numbers ({error}).") from None


def _array(name: str, value: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """C-contiguous array of ``dtype``; a sentence if the value is not numeric."""
    array = _rectangular(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype}.")
    if array.dtype == dtype:
        return np.asarray(array, order="C")
    with np.errstate(over="ignore"):  # too large for float32 is infinite, which has its own answer
        return np.asarray(array, dtype=dtype, order="C")


def _borrowed(
    name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...], *, writeable: bool
) -> NDArray[Any]:
    """An array that the core reads or writes in place, so that nothing may be converted."""
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name}: expected a NumPy array to work on in place, got {type(array).__name__}."
        )
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}.")
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        text = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({text}), got {array.shape}.")
    if not array.flags.c_contiguous or (writeable and not array.flags.writeable):
        raise ValueError(
            f"{name}: expected a C-contiguous{' writeable' if writeable else ''} array, because it "
            "is used in place; pass np.ascontiguousarray(...) and keep that array."
        )
    return array


def _coordinates(name: str, value: ArrayLike, dtype: DTypeLike, n: int) -> NDArray[Any]:
    """(n,) non-negative integers, refused rather than wrapped around."""
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == (n,):
        return np.ascontiguousarray(value)  # what the core's own callers give, once a step
    array = _rectangular(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}.")
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), got {array.shape}.")
    if n and (int(array.min()) < 0 or int(array.max()) > np.iinfo(dtype).max):
        raise ValueError(
            f"{name}: expected integers between 0 and {np.iinfo(dtype).max}, "
            f"got {array.min()} to {array.max()}."
        )
    return np.asarray(array, dtype=dtype, order="C")


def _entry(owner: str, state: Any, key: str) -> Any:
    try:
        return state[key]
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{owner}: expected an entry {key!r}, got none.") from None


def _shaped(name: str, value: ArrayLike, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = _array(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}.")
    return array


def _flags(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    array = _rectangular(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of booleans, got dtype {array.dtype}.")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}.")
    return np.ascontiguousarray(array != 0).astype(np.uint8)


def _finite(name: str, value: float, low: float, high: float, text: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}.")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name}: expected {text}, got {value}.")
    return number


def _integer(name: str, value: int, low: int, high: int = 2**63 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}.")
    if not low <= int(value) <= high:
        limit = f"at least {low}" if high >= 2**63 - 1 else f"between {low} and {high}"
        raise ValueError(f"{name}: expected an integer of {limit}, got {value}.")
    return int(value)


def _integers(name: str, values: Any) -> tuple[int, ...]:
    try:
        items = None if isinstance(values, (str, bytes)) else tuple(values)
    except TypeError:  # an array of no dimension says only here that it is no sequence
        items = None
    if items is None:
        raise TypeError(f"{name}: expected a sequence of integers, got {type(values).__name__}.")
    return tuple(_integer(name, n, 1, 2**20) for n in items)


def _boolean(name: str, value: bool) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}.")
    return bool(value)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")


def _seed(value: int) -> int:
    return _integer("seed", value, 0, 2**64 - 1)


def _stream(seed: int, env: int, step: int) -> tuple[int, int, int]:
    return (
        _seed(seed),
        _integer("env", env, 0, 2**32 - 1),
        _integer("step", step, 0, 2**64 - 1),
    )


# ------------------------------------------------------------------------------------------ algorithms


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Float64, Float64]:
    """Generalised advantage estimation (Schulman et al. 2016, equations 16 and 18).

    ::

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)       V(s_{t+1}) = 0 where terminated
        A_t     = delta_t + gamma lambda A_{t+1}        A_{t+1} = 0 where terminated or truncated
        R_t     = A_t + V(s_t)

    All arrays are (T, E), time first. ``next_values[t, e]`` is V of the *true* successor of step t:
    at a truncation that of the final observation, not of the first one after the reset; where
    terminated it is ignored. lambda = 1 gives Monte Carlo returns, lambda = 0 one-step TD errors.

    Returns (advantages, returns), float64 (T, E).
    """
    r = _array("rewards", rewards, np.float64)
    if r.ndim != 2:
        raise ValueError(f"rewards: expected shape (T, E), got {r.shape}.")
    return _core.gae(
        r,
        _shaped("values", values, np.float64, r.shape),
        _shaped("next_values", next_values, np.float64, r.shape),
        _flags("terminated", terminated, r.shape),
        _flags("truncated", truncated, r.shape),
        _finite("gamma", gamma, 0.0, 1.0, "a number in [0, 1]"),
        _finite("gae_lambda", gae_lambda, 0.0, 1.0, "a number in [0, 1]"),
    )


@dataclass(frozen=True, kw_only=True)
class ConjugateGradientResult:
    """What :func:`conjugate_gradient` found."""

    x: Float64
    status: Literal[
        "converged", "max_iterations", "non_positive_curvature", "non_finite", "zero_rhs"
    ]
    iterations: int  # products with the operator
    relative_residual: float  # ||b - A x|| / ||b||, by the recursion
    message: str


def conjugate_gradient(
    operator: Callable[[Float64], ArrayLike],
    b: ArrayLike,
    *,
    max_iterations: int = 10,
    tolerance: float = 1e-10,
    preconditioner: Callable[[Float64], ArrayLike] | None = None,
) -> ConjugateGradientResult:
    """Solve A x = b for a symmetric positive definite A given as ``operator(v) = A v``.

    Starts from zero, in float64 (Hestenes & Stiefel 1952). Stops when ||b - A x|| <= tolerance ||b||
    or after ``max_iterations`` products. Non-positive curvature or a non-finite number ends it with
    that status and the last good iterate: numerical trouble is data, not an exception.

    ``preconditioner(r) = M^-1 r``, with M symmetric, positive definite and near A, makes fewer
    products do (Shewchuk 1994, section 12); see :meth:`FisherOperator.kronecker_preconditioner`.
    """
    for name, given in (("operator", operator), ("preconditioner", preconditioner)):
        if not callable(given) and (given is not None or name == "operator"):
            raise TypeError(f"{name}: expected a callable of a vector, got {type(given).__name__}.")
    rhs = _array("b", b, np.float64)
    if rhs.ndim != 1:
        raise ValueError(f"b: expected shape (n,), got {rhs.shape}.")

    def checked(
        name: str, function: Callable[[Float64], ArrayLike]
    ) -> Callable[[Float64], Float64]:
        return lambda v: _shaped(f"{name}'s result", function(v), np.float64, rhs.shape)

    result = _core.conjugate_gradient(
        checked("operator", operator),
        rhs,
        _integer("max_iterations", max_iterations, 0, 2**31 - 1),
        _finite("tolerance", tolerance, 0.0, math.inf, "a finite number of at least 0"),
        None if preconditioner is None else checked("preconditioner", preconditioner),
    )
    return ConjugateGradientResult(**result)


def random_normals(seed: int, env: int, step: int, n: int) -> Float64:
    """First ``n`` standard normals of the stream (seed, env, step). Philox4x32-10, Box-Muller."""
    return _core.normals(*_stream(seed, env, step), _integer("n", n, 0, 2**31 - 1))


def random_uniforms(seed: int, env: int, step: int, n: int) -> Float64:
    """First ``n`` uniforms in [0, 1) of the stream (seed, env, step), 53 bits each."""
    return _core.uniforms(*_stream(seed, env, step), _integer("n", n, 0, 2**31 - 1))


class RunningStatistics:
    """Mean and variance of vectors seen so far, merged in a fixed order (Chan et al. 1979).

    ``update`` with the same rows in the same batches gives the same bits on any machine load.
    """

    def __init__(self, dim: int) -> None:
        self._stats = _core.RunningStats(_integer("dim", dim, 1, 2**31 - 1))

    @property
    def dim(self) -> int:
        return self._stats.dim

    @property
    def count(self) -> float:
        """Rows seen."""
        return self._stats.count

    @property
    def mean(self) -> Float64:
        """(dim,) float64; zeros before the first row."""
        return self._stats.mean

    @property
    def variance(self) -> Float64:
        """(dim,) float64, population variance; ones before the first row."""
        if self.count == 0:
            return np.ones(self.dim)
        return self._stats.m2 / self.count

    def update(self, batch: ArrayLike) -> None:
        """Merge ``batch`` (N, dim)."""
        kind = _rectangular("batch", batch).dtype
        array = _array("batch", batch, np.float32 if kind == np.float32 else np.float64)
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise ValueError(f"batch: expected shape (N, {self.dim}), got {array.shape}.")
        if not np.isfinite(array).all():
            raise ValueError("batch: expected finite numbers, got NaN or infinity.")
        self._stats.update(array)

    def state_dict(self) -> dict[str, Float64]:
        """Exact state: count (1,), mean (dim,), m2 (dim,)."""
        return {
            "count": np.array([self.count]),
            "mean": self._stats.mean,
            "m2": self._stats.m2,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, bit for bit."""
        self._stats.restore(
            float(_shaped("count", _entry("statistics", state, "count"), np.float64, (1,))[0]),
            _shaped("mean", _entry("statistics", state, "mean"), np.float64, (self.dim,)),
            _shaped("m2", _entry("statistics", state, "m2"), np.float64, (self.dim,)),
        )


# ------------------------------------------------------------------------------------------ distributions

DistributionKind = Literal[
    "gaussian", "state_dependent_gaussian", "categorical", "multi_categorical", "bernoulli"
]
_KINDS = ("gaussian", "state_dependent_gaussian", "categorical", "multi_categorical", "bernoulli")


@dataclass(frozen=True)
class Distribution:
    """What the policy network's outputs mean.

    ============================  ================  ==============================  ===================
    kind                          sizes             network outputs                 action row
    ============================  ================  ==============================  ===================
    ``gaussian``                  (A,)              mean (A); log_std is free       A numbers
    ``state_dependent_gaussian``  (A,)              mean (A), log_std (A)           A numbers
    ``categorical``               (n,)              logits (n)                      1 integer
    ``multi_categorical``         (n1, n2, ...)     logits (n1 + n2 + ...)          one integer a group
    ``bernoulli``                 (n,)              logits (n)                      n bits
    ============================  ================  ==============================  ===================

    State-dependent log-stds are clamped to [-20, 2], with zero derivative outside.
    """

    kind: DistributionKind
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        _choice("kind", self.kind, _KINDS)
        sizes = _integers("sizes", self.sizes)
        if not sizes or (len(sizes) > 1 and self.kind != "multi_categorical"):
            raise ValueError(
                f"sizes: expected one size for {self.kind!r} (several only for "
                f"multi_categorical), got {sizes}."
            )
        object.__setattr__(self, "sizes", sizes)

    @property
    def is_discrete(self) -> bool:
        return self.kind not in ("gaussian", "state_dependent_gaussian")

    @property
    def action_dim(self) -> int:
        """Columns of an action array."""
        if self.kind == "categorical":
            return 1
        return len(self.sizes) if self.kind == "multi_categorical" else self.sizes[0]

    @property
    def n_outputs(self) -> int:
        """P, outputs of the network."""
        if self.kind == "multi_categorical":
            return sum(self.sizes)
        return 2 * self.sizes[0] if self.kind == "state_dependent_gaussian" else self.sizes[0]

    @property
    def n_free_parameters(self) -> int:
        """Parameters beside the network: log_std (A) of ``gaussian``."""
        return self.sizes[0] if self.kind == "gaussian" else 0


# ------------------------------------------------------------------------------------------ networks


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        resolved = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}.") from None
    if resolved not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype: expected float32 or float64, got {resolved}.")
    return resolved


def _activation(name: str) -> str:
    _choice("activation", name, ACTIVATIONS)
    return name


def _layout(sizes: Sequence[int]) -> dict[str, tuple[slice, tuple[int, ...]]]:
    layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
    at = 0
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layout[f"{i}.weight"] = (slice(at, at + n_in * n_out), (n_out, n_in))
        at += n_in * n_out
        layout[f"{i}.bias"] = (slice(at, at + n_out), (n_out,))
        at += n_out
    return layout


class _Network:
    """What policies and value functions share: a compiled network behind a flat parameter vector."""

    _impl: Any

    def __init__(
        self,
        obs_dim: int,
        n_outputs: int,
        hidden_sizes: Sequence[int],
        activation: str,
        dtype: DTypeLike,
    ) -> None:
        self.obs_dim = _integer("obs_dim", obs_dim, 1, 2**24)
        self.hidden_sizes = _integers("hidden_sizes", hidden_sizes)
        self.activation = _activation(activation)
        self.dtype = _dtype(dtype)
        self._sizes = (self.obs_dim, *self.hidden_sizes, n_outputs)

    @property
    def _suffix(self) -> str:
        return "F32" if self.dtype == np.float32 else "F64"

    @property
    def n_parameters(self) -> int:
        """D, length of the flat parameter vector."""
        return int(self._impl.n_parameters)

    @property
    def parameters(self) -> Float:
        """(D,) copy of the parameters, dtype S; assign to replace them.

        Order: W_0 (out x in, row-major), b_0, W_1, b_1, ..., and for a Gaussian policy log_std last:
        the order of PyTorch's ``nn.Sequential(Linear, act, ..., Linear)``.
        """
        parameters: Float = self._impl.get_parameters()
        return parameters

    @parameters.setter
    def parameters(self, flat: ArrayLike) -> None:
        array = _shaped("parameters", flat, self.dtype, (self.n_parameters,))
        if not np.isfinite(array).all():
            raise ValueError("parameters: expected finite numbers, got NaN or infinity.")
        self._impl.set_parameters(array)

    @property
    def parameter_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name -> (slice of the flat vector, shape): "0.weight", "0.bias", "1.weight", ..."""
        return _layout(self._sizes)

    def _initial(self, hidden_gain: float, output_gain: float, seed: int) -> Float64:
        return _core.initialize_orthogonal(
            self._sizes[0],
            list(self.hidden_sizes),
            self._sizes[-1],
            _finite("hidden_gain", hidden_gain, 0.0, math.inf, "a finite number of at least 0"),
            _finite("output_gain", output_gain, 0.0, math.inf, "a finite number of at least 0"),
            _seed(seed),
        )

    def _observations(self, observations: ArrayLike) -> NDArray[Any]:
        x = _array("observations", observations, self.dtype)
        if x.ndim != 2 or x.shape[1] != self.obs_dim:
            raise ValueError(f"observations: expected shape (N, {self.obs_dim}), got {x.shape}.")
        if x.shape[0] == 0:
            raise ValueError("observations: expected at least one row, got none.")
        return x


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
        v = _shaped("vector", vector, np.float64, self.shape[:1])
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
        native = self._batch.kronecker_preconditioner(self.damping, _seed(seed))
        return lambda residual: cast(
            Float64, native.apply(_shaped("residual", residual, np.float64, self.shape[:1]))
        )


@dataclass(frozen=True, eq=False)
class Normalizer:
    """y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip)."""

    mean: Float64  # (O,)
    variance: Float64  # (O,)
    clip: float
    epsilon: float


class Actor:
    """Samples actions for the rows of preallocated rollout arrays, one native call a step."""

    def __init__(self, impl: Any) -> None:
        #: ``step(t)``: read observations[t] (raw), write actions[t] (unclipped), counters += 1.
        self.step: Callable[[int], None] = impl.step


class ActionClip:
    """Clips the stored actions of a group of environments, one native call a step."""

    def __init__(self, low: NDArray[Any], high: NDArray[Any], dtype: DTypeLike) -> None:
        """Bind the bounds.

        low, high
            (K,), float32 or float64: what comes out has their dtype.
        dtype
            Of stored actions: float32, or what the bounds have.
        """
        names = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64"}
        stored, bound = names.get(np.dtype(dtype)), names.get(low.dtype)
        kind = f"ActionClip{stored}To{bound}"
        if stored is None or bound is None or high.dtype != low.dtype or not hasattr(_core, kind):
            raise TypeError(
                f"low, high: expected float bounds at least as wide as actions of "
                f"{np.dtype(dtype)}, got {low.dtype} and {high.dtype}."
            )
        impl = getattr(_core, kind)(np.ascontiguousarray(low), np.ascontiguousarray(high))
        #: ``clip(actions)``: min(max(a, low), high) of C-contiguous (E, K), a new array.
        self.clip: Callable[[NDArray[Any]], NDArray[Any]] = impl.clip


class RowWriter:
    """Writes what a vector environment returns into rollout arrays, one native call a step."""

    def __init__(
        self,
        observations: NDArray[Any],
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """Bind rollout arrays: observations (T + 1, E, O) S, the others (T, E); C-contiguous."""
        suffix = "F32" if observations.dtype == np.float32 else "F64"
        impl = getattr(_core, f"RowWriter{suffix}")(observations, rewards, terminated, truncated)
        #: ``write(t, observations, rewards, terminated, truncated)``: fill row t, and row t + 1 of
        #: the observations. Returns whether an episode ended there; None where what is given is not
        #: (E, O), (E,), (E,), (E,), C-contiguous, of float32 or float64 and bool.
        self.write: Callable[..., bool | None] = impl.write


class Policy(_Network):
    """A stochastic policy: network, action distribution, optional frozen observation normaliser.

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
        self._impl = getattr(_core, f"Policy{self._suffix}")(
            self.obs_dim,
            list(self.hidden_sizes),
            self.activation,
            distribution.kind,
            list(distribution.sizes),
        )
        self._updater: Any = None
        self._normalizer: Normalizer | None = None
        log_std = _finite("initial_log_std", initial_log_std, -20.0, 20.0, "a number in [-20, 20]")
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
        m = _shaped("mean", mean, np.float64, (self.obs_dim,))
        v = _shaped("variance", variance, np.float64, (self.obs_dim,))
        if not (np.isfinite(m).all() and np.isfinite(v).all() and (v >= 0).all()):
            raise ValueError("mean, variance: expected finite numbers and variance >= 0.")
        clip = _finite("clip", clip, 1e-6, math.inf, "a positive number")
        epsilon = _finite("epsilon", epsilon, 1e-300, math.inf, "a positive number")
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
            _seed(seed),
            _coordinates("envs", ids, np.uint32, n),
            _coordinates("steps", counters, np.uint64, n),
            _boolean("deterministic", deterministic),
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
            _stream(seed, 0, step)  # says which of them is wrong
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
        x = _borrowed(
            "observations", observations, self.dtype, (None, None, self.obs_dim), writeable=False
        )
        T, E, _ = x.shape
        dim = self.distribution.action_dim
        _borrowed("actions", actions, self.action_dtype, (T, E, dim), writeable=True)
        _borrowed("counters", counters, np.dtype(np.uint64), (E,), writeable=True)
        _borrowed("envs", envs, np.dtype(np.uint32), (E,), writeable=False)
        return Actor(
            getattr(_core, f"Actor{self._suffix}")(
                self._impl, observations, actions, counters, envs, _seed(seed)
            )
        )

    # -- normalised observations --------------------------------------------------------------------

    def _actions(self, actions: ArrayLike, n: int) -> NDArray[Any]:
        shape = (n, self.distribution.action_dim)
        array = _rectangular("actions", actions)
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
        return _array("actions", array, self.action_dtype)

    def outputs(self, observations: ArrayLike) -> Float:
        """Network outputs (N, P), dtype S."""
        outputs: Float = self._impl.outputs(self._observations(observations))
        return outputs

    def log_prob(self, observations: ArrayLike, actions: ArrayLike) -> Float64:
        """log pi(a_n|s_n), (N,) float64, summed over action components."""
        x = self._observations(observations)
        result: Float64 = self._impl.log_prob(x, self._actions(actions, x.shape[0]))
        return result

    def entropy(self, observations: ArrayLike) -> Float64:
        """Entropy of pi(.|s_n) in nats, (N,) float64."""
        result: Float64 = self._impl.entropy(self._observations(observations))
        return result

    def _at(self, parameters: ArrayLike) -> Any:
        other = type(self._impl)(
            self.obs_dim,
            list(self.hidden_sizes),
            self.activation,
            self.distribution.kind,
            list(self.distribution.sizes),
        )
        other.set_parameters(
            _shaped("old_parameters", parameters, self.dtype, (self.n_parameters,))
        )
        return other

    def kl(self, observations: ArrayLike, old_parameters: ArrayLike) -> Float64:
        """KL(pi_old(.|s_n) || pi(.|s_n)) in nats, (N,) float64, summed over action components."""
        result: Float64 = self._impl.kl(self._observations(observations), self._at(old_parameters))
        return result

    def _batch(self, x: NDArray[Any], actions: NDArray[Any] | None) -> Any:
        return getattr(_core, f"PolicyBatch{self._suffix}")(self._impl, x, actions)

    def surrogate(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        old_parameters: ArrayLike | None = None,
    ) -> float:
        """L(theta) = mean_n pi_theta(a_n|s_n) / pi_old(a_n|s_n) A_n (equation 14 of the TRPO paper).

        Without ``old_parameters`` the ratio is exactly 1. Advantages (N,) are used as they are.
        """
        x = self._observations(observations)
        a = self._actions(actions, x.shape[0])
        weights = _shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = self._impl if old_parameters is None else self._at(old_parameters)
        ratio = np.exp(self._impl.log_prob(x, a) - old.log_prob(x, a))
        return float(np.mean(ratio * weights))

    def surrogate_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        old_parameters: ArrayLike | None = None,
    ) -> Float64:
        """Gradient of :meth:`surrogate`, (D,) float64; at ``old_parameters=None`` the policy gradient."""
        x = self._observations(observations)
        a = self._actions(actions, x.shape[0])
        weights = _shaped("advantages", advantages, np.float64, (x.shape[0],))
        old = None if old_parameters is None else self._at(old_parameters).log_prob(x, a)
        gradient: Float64 = self._batch(x, a).surrogate_gradient(weights, old)
        return gradient

    def penalised_gradient(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
        old_parameters: ArrayLike,
        kl_coefficient: float,
    ) -> Float64:
        """Gradient of L(theta) - kl_coefficient mean_n KL(pi_old || pi_theta), (D,) float64.

        L is :meth:`surrogate`, with advantages (N,) used as they are. At ``old_parameters`` the KL
        is flat and this is the policy gradient. Schulman et al. 2017 (PPO), equation 8.
        """
        x = self._observations(observations)
        a = self._actions(actions, x.shape[0])
        weights = _shaped("advantages", advantages, np.float64, (x.shape[0],))
        coefficient = _finite(
            "kl_coefficient", kl_coefficient, 0.0, math.inf, "a finite number of at least 0"
        )
        old = type(self._batch(x, a))(self._at(old_parameters), x, a)
        gradient: Float64 = self._batch(x, a).penalised_gradient(old, weights, coefficient)
        return gradient

    def fisher_operator(
        self,
        observations: ArrayLike,
        *,
        actions: ArrayLike | None = None,
        fisher: Fisher = "gauss_newton",
        damping: float = 0.0,
        activation_budget: int = DEFAULT_ACTIVATION_BUDGET,
        expected_products: int = 10,
    ) -> FisherOperator:
        """The Fisher matrix on a batch of normalised observations (N, O), as a callable.

        ``fisher="empirical"`` is the covariance of the scores of ``actions`` (N, A): it needs them.
        ``activation_budget`` bytes of activations are kept; beyond it they are recomputed in every
        product, to the same bits. Where ``expected_products`` are enough for it to pay, the first
        one works out the Jacobian of the outputs with respect to the hidden layers (some 1.5
        products at 64-64 and six outputs) and the later ones skip two of their largest matrix
        products.
        """
        x = self._observations(observations)
        _choice("fisher", fisher, ("gauss_newton", "empirical"))
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
            _integer("activation_budget", activation_budget, 0),
            fisher,
            min(_integer("expected_products", expected_products, 0), 1_000_000),
        )
        return FisherOperator(
            batch,
            self.n_parameters,
            _finite("damping", damping, 0.0, math.inf, "a finite number of at least 0"),
        )

    def fisher_vector_product(
        self, observations: ArrayLike, vector: ArrayLike, *, damping: float = 0.0
    ) -> Float64:
        """(F + damping I) v once; make a :meth:`fisher_operator` for several products."""
        return self.fisher_operator(observations, damping=damping, expected_products=1)(vector)

    def update(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
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

        observations (N, O) normalised, actions (N, A) as sampled (unclipped), advantages (N,).
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
        x = self._observations(observations)
        positive = 5e-324
        _choice("constraint", constraint, CONSTRAINTS)
        _choice("fisher", fisher, FISHER_FORMS)
        _choice("step", step, STEP_RULES)
        _choice("cg_preconditioner", cg_preconditioner, PRECONDITIONERS)
        if (step_size is not None) != (step == "fixed"):
            raise ValueError(
                f"step_size: expected a number for step='fixed' and None otherwise, "
                f"got {step_size} for step={step!r}."
            )
        summary = self._native_updater().update(
            self._impl,
            x,
            self._actions(actions, x.shape[0]),
            _shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            _finite("max_kl", max_kl, positive, math.inf, "a positive number"),
            _integer("cg_iterations", cg_iterations, 1, 2**31 - 1),
            _finite("cg_tolerance", cg_tolerance, 0.0, math.inf, "a finite number of at least 0"),
            _finite("cg_damping", cg_damping, 0.0, math.inf, "a finite number of at least 0"),
            _finite(
                "backtrack_ratio", backtrack_ratio, positive, 1.0 - 1e-16, "a number in (0, 1)"
            ),
            _integer("max_backtracks", max_backtracks, 0, 2**31 - 1),
            _finite("fisher_fraction", fisher_fraction, positive, 1.0, "a number in (0, 1]"),
            _boolean("standardize_advantages", standardize_advantages),
            _seed(seed),
            _integer("activation_budget", activation_budget, 0),
            constraint,
            fisher,
            step,
            0.0
            if step_size is None
            else _finite("step_size", step_size, positive, math.inf, "a positive number"),
            cg_preconditioner,
        )
        return UpdateSummary(**summary)

    def ascend(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        advantages: ArrayLike,
        *,
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
        x = self._observations(observations)
        at_least_0 = "a finite number of at least 0"
        summary = self._native_updater().ascend(
            self._impl,
            x,
            self._actions(actions, x.shape[0]),
            _shaped("advantages", advantages, self.dtype, (x.shape[0],)),
            _integer("epochs", epochs, 1, 2**31 - 1),
            0 if minibatch_size is None else _integer("minibatch_size", minibatch_size, 1),
            _finite("learning_rate", learning_rate, 0.0, math.inf, at_least_0),
            _finite("kl_coefficient", kl_coefficient, 0.0, math.inf, at_least_0),
            _boolean("standardize_advantages", standardize_advantages),
            _seed(seed),
            _integer("activation_budget", activation_budget, 0),
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
        self._native_updater().set_adam(*_adam_state(state, self.dtype, self.n_parameters))

    def _native_updater(self) -> Any:
        if self._updater is None:
            self._updater = getattr(_core, f"PolicyUpdater{self._suffix}")()
        return self._updater


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """What one value fit did. With status ``"non_finite"`` the parameters are those before."""

    status: Literal["ok", "non_finite"]
    message: str
    loss_before: float  # mean squared error on the whole batch
    loss_after: float
    steps: int  # optimiser steps
    seconds: float


class ValueFunction(_Network):
    """V(s): a network with one output, fitted by least squares. Observations are normalised ones."""

    def __init__(
        self,
        obs_dim: int,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        dtype: DTypeLike = "float32",
        hidden_gain: float = math.sqrt(2.0),
        output_gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(obs_dim, 1, hidden_sizes, activation, dtype)
        self._impl = getattr(_core, f"ValueFunction{self._suffix}")(
            self.obs_dim, list(self.hidden_sizes), self.activation
        )
        self.parameters = self._initial(hidden_gain, output_gain, seed)

    def predict(self, observations: ArrayLike) -> Float:
        """V(s_n), (N,) dtype S."""
        values: Float = self._impl.predict(self._observations(observations))
        return values

    def loss(self, observations: ArrayLike, targets: ArrayLike) -> float:
        """mean_n (V(s_n) - targets_n)^2."""
        x = self._observations(observations)
        return float(self._impl.loss(x, _shaped("targets", targets, self.dtype, (x.shape[0],))))

    def loss_gradient(self, observations: ArrayLike, targets: ArrayLike) -> Float64:
        """Gradient of :meth:`loss`, (D,) float64."""
        x = self._observations(observations)
        y = _shaped("targets", targets, self.dtype, (x.shape[0],))
        gradient: Float64 = self._impl.loss_gradient(x, y)
        return gradient

    def fit(
        self,
        observations: ArrayLike,
        targets: ArrayLike,
        *,
        method: Literal["adam", "lbfgs"] = "adam",
        epochs: int = 10,
        minibatch_size: int | None = 128,
        learning_rate: float = 1e-3,
        iterations: int = 25,
        seed: int = 0,
    ) -> FitSummary:
        """Fit V to ``targets`` (N,) in place.

        ``"adam"`` (Kingma & Ba 2015, PyTorch's form) makes ``epochs`` passes over shuffled
        minibatches, the order drawn with ``seed``; ``minibatch_size=None`` is the full batch. Moments
        and step count carry over to the next fit. ``"lbfgs"`` makes ``iterations`` full-batch steps.
        """
        _choice("method", method, ("adam", "lbfgs"))
        x = self._observations(observations)
        size = 0 if minibatch_size is None else _integer("minibatch_size", minibatch_size, 1)
        summary = self._impl.fit(
            x,
            _shaped("targets", targets, self.dtype, (x.shape[0],)),
            method,
            _integer("epochs", epochs, 1, 2**31 - 1),
            size,
            _finite("learning_rate", learning_rate, 0.0, math.inf, "a finite number of at least 0"),
            _integer("iterations", iterations, 1, 2**31 - 1),
            _seed(seed),
        )
        return FitSummary(**summary)

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """Adam's moments (D,) dtype S and step count (1,) int64."""
        first, second, steps = self._impl.get_adam()
        return {
            "first_moment": first,
            "second_moment": second,
            "steps": np.array([steps], np.int64),
        }

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`optimizer_state` returned, bit for bit."""
        self._impl.set_adam(*_adam_state(state, self.dtype, self.n_parameters))


def _adam_state(
    state: dict[str, Any], dtype: np.dtype[Any], n: int
) -> tuple[NDArray[Any], NDArray[Any], int]:
    first, second, steps = (
        _shaped(name, _entry("optimizer", state, name), kind, shape)
        for name, kind, shape in (
            ("first_moment", dtype, (n,)),
            ("second_moment", dtype, (n,)),
            ("steps", np.dtype(np.int64), (1,)),
        )
    )
    return first, second, int(steps[0])
