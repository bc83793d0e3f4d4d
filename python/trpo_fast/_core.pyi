"""The compiled module in full. It is strict about dtype and layout and converts nothing: an array that
is not C-contiguous and of exactly the dtype below is a TypeError, one of another shape a ValueError.
``trpo_fast.core`` is what to use.

Letters: N samples, K branches, T time steps, E environments, O observation width, P network outputs,
A action width, W flags of an action mask, D parameters. Classes that end in F32 and F64 work in
float32 and float64. Names that begin with an underscore exist in this description alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

_F32: TypeAlias = NDArray[np.float32]
_F64: TypeAlias = NDArray[np.float64]
_Actions: TypeAlias = NDArray[Any]  # (N, A): int32 where discrete, else the dtype of the policy
_Masks: TypeAlias = NDArray[np.bool_] | None  # (N, W): which choices are allowed; None: all
_AnyPolicy: TypeAlias = PolicyF32 | PolicyF64  # a TypeError where it is not of the same dtype
_AnyBatch: TypeAlias = PolicyBatchF32 | PolicyBatchF64
_Constraint: TypeAlias = Literal["mean", "max"]
_Fisher: TypeAlias = Literal["gauss_newton", "empirical", "identity"]
_Preconditioner: TypeAlias = Literal["none", "kronecker"]
_Step: TypeAlias = Literal["line_search", "boundary", "fixed"]
_FitMethod: TypeAlias = Literal["adam", "lbfgs"]
_Estimator: TypeAlias = Literal["exact_sum", "self_normalized"]
_Fields: TypeAlias = dict[str, tuple[Any, str, str]]  # name -> (default, expected, documentation)

class _ConjugateGradient(TypedDict):
    x: _F64
    status: Literal[
        "converged", "max_iterations", "non_positive_curvature", "non_finite", "zero_rhs"
    ]
    iterations: int
    relative_residual: float
    message: str

class _Update(TypedDict):
    status: Literal[
        "accepted", "line_search_failed", "zero_gradient", "non_positive_curvature", "non_finite"
    ]
    message: str
    kl: float
    kl_predicted: float
    kl_max: float
    max_kl: float
    surrogate_gain: float
    surrogate_gain_predicted: float
    gradient_norm: float
    step_norm: float
    step_scale: float
    step_size: float
    cg_iterations: int
    cg_status: str
    cg_relative_residual: float
    backtracks: int
    entropy: float
    entropy_before: float
    seconds_gradient: float
    seconds_cg: float
    seconds_line_search: float
    seconds_total: float

class _Fit(TypedDict):
    status: Literal["ok", "non_finite"]
    message: str
    loss_before: float
    loss_after: float
    steps: int
    seconds: float

__version__: str

def simd_level() -> str: ...
def available_simd_levels() -> list[str]: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def default_num_threads() -> int: ...
def granted_num_threads() -> int: ...
def rest_threads() -> None: ...
def get_first_layer() -> Literal["auto", "dense"]: ...
def set_first_layer(choice: str) -> None: ...
def sums_columns(rows: _F32 | _F64) -> bool: ...  # (N, O)

line_forwarder_bytes: int

def forward_lines(source: int, target: int, prefix: str, pending: int) -> None: ...
def compiler_version() -> str: ...
def eigen_version() -> str: ...
def gae(
    rewards: _F64,  # (T, E)
    values: _F64,  # (T, E)
    next_values: _F64,  # (T, E)
    terminated: NDArray[np.uint8],  # (T, E)
    truncated: NDArray[np.uint8],  # (T, E)
    gamma: float,
    gae_lambda: float,
) -> tuple[_F64, _F64]: ...  # advantages (T, E), returns (T, E)
def conjugate_gradient(
    operator: Callable[[_F64], _F64],
    b: _F64,
    max_iterations: int,
    tolerance: float,
    preconditioner: Callable[[_F64], _F64] | None,
) -> _ConjugateGradient: ...
def normals(seed: int, environment: int, step: int, n: int) -> _F64: ...  # (n,)
def uniforms(seed: int, environment: int, step: int, n: int) -> _F64: ...  # (n,)
def initialize_orthogonal(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    hidden_gain: float,
    output_gain: float,
    seed: int,
) -> _F64: ...  # (D,), of the network alone

class RunningStats:
    def __init__(self, dim: int) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def count(self) -> float: ...
    @property
    def mean(self) -> _F64: ...  # (dim,)
    @property
    def m2(self) -> _F64: ...  # (dim,), sum of squared deviations
    def update(self, batch: _F32 | _F64) -> None: ...  # (N, dim)
    def restore(self, count: float, mean: _F64, m2: _F64) -> None: ...

class KroneckerPreconditioner:
    def apply(self, residual: _F64) -> _F64: ...  # (D,) -> (D,)

class TrustRegionOptions:
    def __init__(
        self,
        *,
        max_kl: float = 0.01,
        constraint: _Constraint = "mean",
        fisher: _Fisher = "gauss_newton",
        fisher_fraction: float = 1.0,
        cg_damping: float = 0.1,
        cg_iterations: int = 10,
        cg_tolerance: float = 1e-10,
        cg_preconditioner: _Preconditioner = "none",
        step: _Step = "line_search",
        step_size: float | None = None,
        backtrack_ratio: float = 0.8,
        max_backtracks: int = 10,
        standardize_advantages: bool = True,
        seed: int = 0,
        activation_budget: int = 536870912,
    ) -> None: ...
    max_kl: float
    constraint: _Constraint
    fisher: _Fisher
    fisher_fraction: float
    cg_damping: float
    cg_iterations: int
    cg_tolerance: float
    cg_preconditioner: _Preconditioner
    step: _Step
    step_size: float | None
    backtrack_ratio: float
    max_backtracks: int
    standardize_advantages: bool
    seed: int
    activation_budget: int
    def replace(
        self,
        *,
        max_kl: float = ...,
        constraint: _Constraint = ...,
        fisher: _Fisher = ...,
        fisher_fraction: float = ...,
        cg_damping: float = ...,
        cg_iterations: int = ...,
        cg_tolerance: float = ...,
        cg_preconditioner: _Preconditioner = ...,
        step: _Step = ...,
        step_size: float | None = ...,
        backtrack_ratio: float = ...,
        max_backtracks: int = ...,
        standardize_advantages: bool = ...,
        seed: int = ...,
        activation_budget: int = ...,
    ) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...
    @staticmethod
    def from_dict(settings: dict[str, Any]) -> TrustRegionOptions: ...
    @staticmethod
    def fields() -> _Fields: ...
    def __eq__(self, other: object, /) -> bool: ...

class ValueFitOptions:
    def __init__(
        self,
        *,
        method: _FitMethod = "adam",
        epochs: int = 10,
        minibatch_size: int | None = 128,
        learning_rate: float = 1e-3,
        iterations: int = 25,
        seed: int = 0,
    ) -> None: ...
    method: _FitMethod
    epochs: int
    minibatch_size: int | None
    learning_rate: float
    iterations: int
    seed: int
    def replace(
        self,
        *,
        method: _FitMethod = ...,
        epochs: int = ...,
        minibatch_size: int | None = ...,
        learning_rate: float = ...,
        iterations: int = ...,
        seed: int = ...,
    ) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...
    @staticmethod
    def from_dict(settings: dict[str, Any]) -> ValueFitOptions: ...
    @staticmethod
    def fields() -> _Fields: ...
    def __eq__(self, other: object, /) -> bool: ...

class AscentOptions:
    def __init__(
        self,
        *,
        learning_rate: float = 3e-4,
        epochs: int = 1,
        minibatch_size: int | None = None,
        kl_coefficient: float = 0.0,
        standardize_advantages: bool = True,
        seed: int = 0,
        activation_budget: int = 536870912,
    ) -> None: ...
    learning_rate: float
    epochs: int
    minibatch_size: int | None
    kl_coefficient: float
    standardize_advantages: bool
    seed: int
    activation_budget: int
    def replace(
        self,
        *,
        learning_rate: float = ...,
        epochs: int = ...,
        minibatch_size: int | None = ...,
        kl_coefficient: float = ...,
        standardize_advantages: bool = ...,
        seed: int = ...,
        activation_budget: int = ...,
    ) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...
    @staticmethod
    def from_dict(settings: dict[str, Any]) -> AscentOptions: ...
    @staticmethod
    def fields() -> _Fields: ...
    def __eq__(self, other: object, /) -> bool: ...

# L(theta) of the vine in the unit of Q, and its gradient (D,) at theta_k, the parameters of `old`
def vine_value(
    policy: _AnyPolicy,
    old: _AnyPolicy,
    observations: _F32 | _F64,  # (N, O), of their dtype
    actions: _Actions,  # (N K, A)
    q_values: _F64,  # (N, K)
    estimator: _Estimator,
    action_masks: _Masks = None,
) -> tuple[float, _F64]: ...

# for every dtype of stored actions that the dtype of the bounds can hold
class ActionClipF32ToF32:
    def __init__(
        self,
        low: _F32,  # (A,)
        high: _F32,  # (A,)
        center: _F32 | None = None,  # (A,)
        half: _F32 | None = None,  # (A,)
    ) -> None: ...
    def clip(self, actions: _F32) -> _F32: ...  # (E, A) -> (E, A)

class ActionClipF32ToF64:
    def __init__(
        self,
        low: _F64,  # (A,)
        high: _F64,  # (A,)
        center: _F64 | None = None,  # (A,)
        half: _F64 | None = None,  # (A,)
    ) -> None: ...
    def clip(self, actions: _F32) -> _F64: ...  # (E, A) -> (E, A)

class ActionClipF64ToF64:
    def __init__(
        self,
        low: _F64,  # (A,)
        high: _F64,  # (A,)
        center: _F64 | None = None,  # (A,)
        half: _F64 | None = None,  # (A,)
    ) -> None: ...
    def clip(self, actions: _F64) -> _F64: ...  # (E, A) -> (E, A)

class MaskWriter:
    def __init__(
        self,
        rows: NDArray[np.bool_],  # (R, W), written in place
        sizes: Sequence[int],  # flags of each component, W in all
    ) -> None: ...
    def write(self, row: int, mask: object) -> bool: ...  # mask (W,)

class PolicyF32:
    def __init__(
        self,
        obs_dim: int,
        hidden_sizes: Sequence[int],
        activation: str,
        distribution: str,
        sizes: Sequence[int],
    ) -> None: ...
    @property
    def n_parameters(self) -> int: ...
    def get_parameters(self) -> _F32: ...  # (D,)
    def set_parameters(self, flat: _F32) -> None: ...  # (D,)
    def set_normalizer(self, mean: _F64, inverse_std: _F64, clip: float) -> None: ...  # (O,), (O,)
    def clear_normalizer(self) -> None: ...
    def normalize(self, observations: _F32) -> _F32: ...  # (N, O) -> (N, O)
    def outputs(
        self, observations: _F32, action_masks: _Masks = None
    ) -> _F32: ...  # (N, O) -> (N, P)
    def log_prob(
        self, observations: _F32, actions: _Actions, action_masks: _Masks = None
    ) -> _F64: ...  # -> (N,)
    def entropy(self, observations: _F32, action_masks: _Masks = None) -> _F64: ...  # -> (N,)
    def kl(
        self, observations: _F32, old: _AnyPolicy, action_masks: _Masks = None
    ) -> _F64: ...  # -> (N,)
    def sample(
        self,
        observations: _F32,  # (N, O), raw
        seed: int,
        envs: NDArray[np.uint32],  # (N,)
        steps: NDArray[np.uint64],  # (N,)
        deterministic: bool,
        action_masks: _Masks = None,
    ) -> _Actions: ...
    def act_one(
        self,
        observation: object,
        seed: int,
        step: int,
        deterministic: bool,
        action_mask: _Masks = None,  # (W,)
    ) -> _Actions | None: ...  # (1, A)

class ActorF32:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (T, E, O), read in place
        actions: _Actions,  # (T, E, A), written in place
        counters: NDArray[np.uint64],  # (E,), counted up in place
        envs: NDArray[np.uint32],  # (E,)
        seed: int,
        action_masks: _Masks = None,  # (T, E, W), read in place
    ) -> None: ...
    def step(self, t: int) -> None: ...

class StepWriterF32:
    def __init__(
        self,
        rewards: _F64,  # (T, E), written in place
        observations: _F32 | None = None,  # (T + 1, E, O), written in place
    ) -> None: ...
    def write(self, i: int, returned: object) -> bool: ...

class RowWriterF32:
    def __init__(
        self,
        observations: _F32,  # (T + 1, E, O), written in place
        rewards: _F64,  # (T, E), written in place
        terminated: NDArray[np.bool_],  # (T, E), written in place
        truncated: NDArray[np.bool_],  # (T, E), written in place
    ) -> None: ...
    def write(
        self,
        t: int,
        observations: object,
        rewards: object,
        terminated: object,
        truncated: object,
    ) -> bool | None: ...

class PolicyBatchF32:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (N, O), copied
        actions: _Actions | None,  # copied
        activation_budget: int = ...,
        fisher: Literal["gauss_newton", "empirical"] = "gauss_newton",
        products: int = 0,
        action_masks: _Masks = None,  # copied
    ) -> None: ...
    def fisher_vector_product(self, vector: _F64) -> _F64: ...  # (D,) -> (D,)
    def largest_curvature(self, vector: _F64) -> float: ...  # (D,)
    def kronecker_preconditioner(self, damping: float, seed: int) -> KroneckerPreconditioner: ...
    def surrogate_gradient(
        self, advantages: _F64, old_log_probs: _F64 | None
    ) -> _F64: ...  # (N,), (N,) -> (D,)
    def penalised_gradient(
        self, old: _AnyBatch, advantages: _F64, kl_coefficient: float
    ) -> _F64: ...  # (N,) -> (D,)

class TrustRegionUpdaterF32:
    def __init__(self) -> None: ...
    def update(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (N, O)
        actions: _Actions,
        advantages: _F32,  # (N,)
        options: TrustRegionOptions,
        action_masks: _Masks = None,
        further_observations: _F32 | None = None,  # (k, O)
        further_masks: _Masks = None,
    ) -> _Update: ...
    def signal(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (N, O)
        actions: _Actions,
        advantages: _F32,  # (N,)
        split: int,
        options: TrustRegionOptions,
        action_masks: _Masks = None,
    ) -> tuple[float, float] | None: ...
    def vine_update(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (N, O)
        actions: _Actions,  # (N K, A)
        q_values: _F64,  # (N, K)
        estimator: _Estimator,
        options: TrustRegionOptions,
        action_masks: _Masks = None,
    ) -> _Update: ...

class PolicyAscentF32:
    def __init__(self, policy: _AnyPolicy) -> None: ...
    def ascend(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (N, O)
        actions: _Actions,
        advantages: _F32,  # (N,)
        options: AscentOptions,
        action_masks: _Masks = None,
    ) -> _Update: ...
    def get_adam(self) -> tuple[_F32, _F32, int]: ...  # (D,), (D,), steps
    def set_adam(self, first_moment: _F32, second_moment: _F32, steps: int) -> None: ...

class ValueFunctionF32:
    def __init__(self, obs_dim: int, hidden_sizes: Sequence[int], activation: str) -> None: ...
    @property
    def n_parameters(self) -> int: ...
    def get_parameters(self) -> _F32: ...  # (D,)
    def set_parameters(self, flat: _F32) -> None: ...  # (D,)
    def predict(self, observations: _F32) -> _F32: ...  # (N, O) -> (N,)
    def loss(self, observations: _F32, targets: _F32) -> float: ...  # (N, O), (N,)
    def loss_gradient(self, observations: _F32, targets: _F32) -> _F64: ...  # -> (D,)
    def fit(
        self,
        observations: _F32,  # (N, O)
        targets: _F32,  # (N,)
        options: ValueFitOptions,
    ) -> _Fit: ...
    def get_adam(self) -> tuple[_F32, _F32, int]: ...  # (D,), (D,), steps
    def set_adam(self, first_moment: _F32, second_moment: _F32, steps: int) -> None: ...

class PolicyF64:
    def __init__(
        self,
        obs_dim: int,
        hidden_sizes: Sequence[int],
        activation: str,
        distribution: str,
        sizes: Sequence[int],
    ) -> None: ...
    @property
    def n_parameters(self) -> int: ...
    def get_parameters(self) -> _F64: ...  # (D,)
    def set_parameters(self, flat: _F64) -> None: ...  # (D,)
    def set_normalizer(self, mean: _F64, inverse_std: _F64, clip: float) -> None: ...  # (O,), (O,)
    def clear_normalizer(self) -> None: ...
    def normalize(self, observations: _F64) -> _F64: ...  # (N, O) -> (N, O)
    def outputs(
        self, observations: _F64, action_masks: _Masks = None
    ) -> _F64: ...  # (N, O) -> (N, P)
    def log_prob(
        self, observations: _F64, actions: _Actions, action_masks: _Masks = None
    ) -> _F64: ...  # -> (N,)
    def entropy(self, observations: _F64, action_masks: _Masks = None) -> _F64: ...  # -> (N,)
    def kl(
        self, observations: _F64, old: _AnyPolicy, action_masks: _Masks = None
    ) -> _F64: ...  # -> (N,)
    def sample(
        self,
        observations: _F64,  # (N, O), raw
        seed: int,
        envs: NDArray[np.uint32],  # (N,)
        steps: NDArray[np.uint64],  # (N,)
        deterministic: bool,
        action_masks: _Masks = None,
    ) -> _Actions: ...
    def act_one(
        self,
        observation: object,
        seed: int,
        step: int,
        deterministic: bool,
        action_mask: _Masks = None,  # (W,)
    ) -> _Actions | None: ...  # (1, A)

class ActorF64:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (T, E, O), read in place
        actions: _Actions,  # (T, E, A), written in place
        counters: NDArray[np.uint64],  # (E,), counted up in place
        envs: NDArray[np.uint32],  # (E,)
        seed: int,
        action_masks: _Masks = None,  # (T, E, W), read in place
    ) -> None: ...
    def step(self, t: int) -> None: ...

class StepWriterF64:
    def __init__(
        self,
        rewards: _F64,  # (T, E), written in place
        observations: _F64 | None = None,  # (T + 1, E, O), written in place
    ) -> None: ...
    def write(self, i: int, returned: object) -> bool: ...

class RowWriterF64:
    def __init__(
        self,
        observations: _F64,  # (T + 1, E, O), written in place
        rewards: _F64,  # (T, E), written in place
        terminated: NDArray[np.bool_],  # (T, E), written in place
        truncated: NDArray[np.bool_],  # (T, E), written in place
    ) -> None: ...
    def write(
        self,
        t: int,
        observations: object,
        rewards: object,
        terminated: object,
        truncated: object,
    ) -> bool | None: ...

class PolicyBatchF64:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (N, O), copied
        actions: _Actions | None,  # copied
        activation_budget: int = ...,
        fisher: Literal["gauss_newton", "empirical"] = "gauss_newton",
        products: int = 0,
        action_masks: _Masks = None,  # copied
    ) -> None: ...
    def fisher_vector_product(self, vector: _F64) -> _F64: ...  # (D,) -> (D,)
    def largest_curvature(self, vector: _F64) -> float: ...  # (D,)
    def kronecker_preconditioner(self, damping: float, seed: int) -> KroneckerPreconditioner: ...
    def surrogate_gradient(
        self, advantages: _F64, old_log_probs: _F64 | None
    ) -> _F64: ...  # (N,), (N,) -> (D,)
    def penalised_gradient(
        self, old: _AnyBatch, advantages: _F64, kl_coefficient: float
    ) -> _F64: ...  # (N,) -> (D,)

class TrustRegionUpdaterF64:
    def __init__(self) -> None: ...
    def update(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (N, O)
        actions: _Actions,
        advantages: _F64,  # (N,)
        options: TrustRegionOptions,
        action_masks: _Masks = None,
        further_observations: _F64 | None = None,  # (k, O)
        further_masks: _Masks = None,
    ) -> _Update: ...
    def signal(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (N, O)
        actions: _Actions,
        advantages: _F64,  # (N,)
        split: int,
        options: TrustRegionOptions,
        action_masks: _Masks = None,
    ) -> tuple[float, float] | None: ...
    def vine_update(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (N, O)
        actions: _Actions,  # (N K, A)
        q_values: _F64,  # (N, K)
        estimator: _Estimator,
        options: TrustRegionOptions,
        action_masks: _Masks = None,
    ) -> _Update: ...

class PolicyAscentF64:
    def __init__(self, policy: _AnyPolicy) -> None: ...
    def ascend(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (N, O)
        actions: _Actions,
        advantages: _F64,  # (N,)
        options: AscentOptions,
        action_masks: _Masks = None,
    ) -> _Update: ...
    def get_adam(self) -> tuple[_F64, _F64, int]: ...  # (D,), (D,), steps
    def set_adam(self, first_moment: _F64, second_moment: _F64, steps: int) -> None: ...

class ValueFunctionF64:
    def __init__(self, obs_dim: int, hidden_sizes: Sequence[int], activation: str) -> None: ...
    @property
    def n_parameters(self) -> int: ...
    def get_parameters(self) -> _F64: ...  # (D,)
    def set_parameters(self, flat: _F64) -> None: ...  # (D,)
    def predict(self, observations: _F64) -> _F64: ...  # (N, O) -> (N,)
    def loss(self, observations: _F64, targets: _F64) -> float: ...  # (N, O), (N,)
    def loss_gradient(self, observations: _F64, targets: _F64) -> _F64: ...  # -> (D,)
    def fit(
        self,
        observations: _F64,  # (N, O)
        targets: _F64,  # (N,)
        options: ValueFitOptions,
    ) -> _Fit: ...
    def get_adam(self) -> tuple[_F64, _F64, int]: ...  # (D,), (D,), steps
    def set_adam(self, first_moment: _F64, second_moment: _F64, steps: int) -> None: ...

# --- batches in parts

TILE_ROWS: int
ROWS_LOOKED_AT: int

def are_few_entries(entries: int, rows: int, width: int) -> bool: ...

_Sums: TypeAlias = tuple[float, float, float, float]
_Partial: TypeAlias = tuple[NDArray[Any], _F64]

def chunks_of(rows: int, n_parameters: int) -> tuple[int, int]: ...  # number, rows of each
def likely_background(looked_at: NDArray[Any]) -> NDArray[Any] | None: ...  # (32, O) -> (O,)
def count_entries(observations: NDArray[Any], background: NDArray[Any]) -> int: ...
def loss_part(
    value_function: ValueFunctionF32 | ValueFunctionF64,
    observations: NDArray[Any],  # (n, O)
    targets: NDArray[Any],  # (n,)
    whole_size: int,
    first_row: int,
    with_gradient: bool,
) -> tuple[_F64, NDArray[Any] | None]: ...
def ascend_parts(
    policy: _AnyPolicy,
    parts: object,
    rows: int,
    first_chunks: Sequence[int],
    options: AscentOptions,
    first_moment: NDArray[Any],  # (D,)
    second_moment: NDArray[Any],  # (D,)
    steps: int,
) -> tuple[_Update, NDArray[Any], NDArray[Any], int]: ...
def fit_parts(
    value_function: ValueFunctionF32 | ValueFunctionF64,
    rows: object,
    count: int,
    first_chunks: Sequence[int],
    options: ValueFitOptions,
) -> _Fit: ...

class PolicyPartF32:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F32,  # (n, O), borrowed as all rows
        actions: _Actions,
        advantages: _F32,  # (n,)
        action_masks: _Masks,
        whole_size: int,
        first_row: int,
        fisher: str,
        products: int,
        activation_budget: int,
    ) -> None: ...
    def entropy_sums(self) -> _F64: ...  # (chunks,)
    def add_advantages(self, sums: _Sums) -> _Sums: ...
    def add_advantage_squares(self, sums: _Sums, mean: float) -> _Sums: ...
    def weigh(self, mean: float, scale: float) -> None: ...
    def surrogate_gradient(self) -> _Partial: ...
    def fisher_vector_product(self, vector: _F64) -> _Partial: ...  # (D,)
    def largest_curvature(self, vector: _F64) -> float: ...  # (D,)
    def evaluation_sums(self, parameters: _F32) -> _F64: ...  # (D,) -> (chunks, 4)

class PolicyPartF64:
    def __init__(
        self,
        policy: _AnyPolicy,
        observations: _F64,  # (n, O), borrowed as all rows
        actions: _Actions,
        advantages: _F64,  # (n,)
        action_masks: _Masks,
        whole_size: int,
        first_row: int,
        fisher: str,
        products: int,
        activation_budget: int,
    ) -> None: ...
    def entropy_sums(self) -> _F64: ...  # (chunks,)
    def add_advantages(self, sums: _Sums) -> _Sums: ...
    def add_advantage_squares(self, sums: _Sums, mean: float) -> _Sums: ...
    def weigh(self, mean: float, scale: float) -> None: ...
    def surrogate_gradient(self) -> _Partial: ...
    def fisher_vector_product(self, vector: _F64) -> _Partial: ...  # (D,)
    def largest_curvature(self, vector: _F64) -> float: ...  # (D,)
    def evaluation_sums(self, parameters: _F64) -> _F64: ...  # (D,) -> (chunks, 4)

class PartedUpdaterF32:
    def __init__(self) -> None: ...
    def update(
        self,
        policy: _AnyPolicy,
        parts: object,
        rows: int,
        first_chunks: Sequence[int],
        options: TrustRegionOptions,
        further_observations: _F32 | None = None,  # (k, O)
        further_masks: _Masks = None,
    ) -> _Update: ...

class PartedUpdaterF64:
    def __init__(self) -> None: ...
    def update(
        self,
        policy: _AnyPolicy,
        parts: object,
        rows: int,
        first_chunks: Sequence[int],
        options: TrustRegionOptions,
        further_observations: _F64 | None = None,  # (k, O)
        further_masks: _Masks = None,
    ) -> _Update: ...
