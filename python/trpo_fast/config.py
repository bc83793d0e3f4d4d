"""The configuration of a run: one frozen dataclass, validated once, with its units.

Every field is also a flag of the command line (``max_kl`` is ``--max-kl``), and its help text is
the docstring below the field.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

if TYPE_CHECKING:
    from typing_extensions import Self

DType = Literal["float32", "float64"]
Activation = Literal["tanh", "relu", "elu", "silu", "gelu", "identity"]
KLConvention = Literal["sum", "mean_over_action_dimensions"]
KLConstraint = Literal["mean", "max"]
FisherForm = Literal["gauss_newton", "empirical"]
Preconditioner = Literal["none", "kronecker"]
ValueOptimizer = Literal["adam", "lbfgs"]
LearningRateSchedule = Literal["constant", "linear"]
Sampling = Literal["steps", "total_steps", "episodes"]

_LARGEST_COUNT = 2**31 - 1  # sizes cross into C++ as 32-bit integers
_LARGEST_SEED = 2**63 - 1


class ConfigError(ValueError):
    """A configuration that cannot be: what, expected, got, and what to do, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class TRPOConfig:
    """Settings of one training run, keyword-only and immutable.

    Change a copy with :meth:`replace`; store with :meth:`to_dict`, restore with :meth:`from_dict`.

    Raises
    ------
    ConfigError
        (a ``ValueError``) if a value has the wrong type or lies outside its range.
    """

    # fields that files of earlier versions lack, with what was done before there were these fields
    _before: ClassVar[Mapping[str, object]] = {"cg_preconditioner": "none", "sampling": "steps"}

    seed: int = 0
    """Seed of every random stream: initial weights, actions, minibatches, environments."""

    dtype: DType = "float32"
    """Precision of networks, observations and updates (scalars accumulate in double anyway)."""

    n_threads: int | None = None
    """Threads of the C++ core, None for all that are allowed; results do not depend on it."""
    # allowed: by processor affinity, cgroup limits and OMP_NUM_THREADS

    # ---- sampling

    n_envs: int = 8
    """Environments stepped side by side."""

    batch_size: int = 2048
    """Environment steps per update, over all environments; sampling says how they are counted."""

    sampling: Sampling = "steps"
    """A batch: the same steps of each environment, exactly batch_size in all, or whole episodes."""
    # steps: ceil(batch_size / n_envs) of each environment; episodes go on in the next batch.
    # total_steps: batch_size over all; the first (batch_size mod n_envs) environments take one more.
    # episodes: whole ones of each environment until it has its share of total_steps; the paper's.
    # None of them depends on how long a step takes: no bias towards what is quick to simulate.

    n_workers: int | None = None
    """Processes that step the environments: None chooses by the cores allowed, 0 stays in process."""
    # the results do not depend on it

    worker_timeout: float = 300.0
    """Seconds that an environment in a worker may take for one step before it counts as hung."""

    restart_crashed_environments: bool = False
    """Replace an environment that crashes and drop its episode, instead of ending the run."""

    gamma: float = 0.99
    """Discount factor γ per step, in [0, 1]."""

    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, in [0, 1]: 0 is one-step TD, 1 is Monte Carlo."""

    # ---- networks

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the policy; empty for a linear policy."""

    activation: Activation = "tanh"
    """Activation of the policy's hidden layers."""

    value_hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the value function; empty for a linear one."""

    value_activation: Activation = "tanh"
    """Activation of the value function's hidden layers."""

    hidden_gain: float = math.sqrt(2.0)
    """Gain of the orthogonal initialisation of hidden layers, policy and value function."""

    policy_output_gain: float = 0.01
    """Gain of the orthogonal initialisation of the policy's last layer."""

    value_output_gain: float = 1.0
    """Gain of the orthogonal initialisation of the value function's last layer."""

    initial_log_std: float = -0.5
    """Initial logarithm of the standard deviation of continuous actions, in action units."""

    state_dependent_std: bool = False
    """Let the policy network output log-stds too, instead of one free vector."""

    # ---- policy update

    max_kl: float = 0.01
    """Trust region δ: bound on KL(old‖new) in nats, mean over the states of the batch."""

    kl_constraint: KLConstraint = "mean"
    """What max_kl bounds: the mean KL over the states of the batch, or the largest one."""

    kl_convention: KLConvention = "sum"
    """How the KL counts action dimensions: summed (the true KL) or averaged, as by sb3-contrib."""
    # the mean over A dimensions of a Gaussian is the sum with max_kl and cg_damping times A

    cg_iterations: int = 6
    """Most conjugate gradient iterations per update; without a preconditioner 10 to 15 are usual."""

    cg_tolerance: float = 1e-6
    """Relative residual ‖b − Ax‖ / ‖b‖ at which conjugate gradient stops."""

    cg_damping: float = 0.03
    """λ added to the diagonal of the Fisher matrix, in the matrix's own units."""

    cg_preconditioner: Preconditioner = "kronecker"
    """What makes conjugate gradient need fewer iterations: Kronecker-factored curvature, or none."""

    backtrack_ratio: float = 0.8
    """Factor α in (0, 1) by which the line search shrinks the step."""

    max_backtracks: int = 10
    """Most times the line search shrinks the step; 0 tries the full step only."""

    fisher: FisherForm = "gauss_newton"
    """The Fisher matrix: Gauss-Newton form of the KL's Hessian, or covariance of the scores."""

    fisher_fraction: float = 1.0
    """Share of the batch, in (0, 1], behind the Fisher matrix; gradient and line search use all."""

    standardize_advantages: bool = True
    """Bring the advantages of a batch to mean 0 and deviation 1."""

    # ---- value function

    value_optimizer: ValueOptimizer = "adam"
    """How the value function is fitted: Adam on minibatches, or L-BFGS on the whole batch."""

    value_learning_rate: float = 1e-3
    """Step size of Adam."""

    value_learning_rate_schedule: LearningRateSchedule = "constant"
    """Adam's step size over a run: constant, or linear to 0 over the total steps of learn()."""

    value_epochs: int = 10
    """Passes of Adam over the batch per update."""

    value_minibatch_size: int | None = 128
    """Samples per Adam step; None takes the whole batch."""

    value_lbfgs_iterations: int = 25
    """L-BFGS iterations per update."""

    overlap_value_fit: bool = True
    """Fit the value function in a thread beside policy update and rollout; same results."""

    # ---- normalisation

    normalize_observations: bool = True
    """Bring observations to running mean 0 and deviation 1; frozen while a batch is collected."""

    observation_clip: float = 10.0
    """Bound on the absolute value of a normalised observation, in standard deviations."""

    scale_returns: bool = True
    """Fit the value function to returns divided by their running standard deviation."""

    def __post_init__(self) -> None:
        # each line: the field, the values it takes, what to do about another one

        # run
        self._integer("seed", 0, _LARGEST_SEED, remedy="any fixed number makes a run repeatable")
        self._choice("dtype", DType)
        self._optional_integer("n_threads", 1, remedy="None uses every core that is allowed")

        # sampling
        self._integer("n_envs", 1, remedy="1 is the smallest number of environments")
        self._integer("batch_size", 2, remedy="an update needs some hundred steps to mean anything")
        self._choice("sampling", Sampling)
        self._optional_integer("n_workers", 0, remedy="0 steps all environments in this process")
        self._number("worker_timeout", "(0, inf)", remedy="300 seconds suit most simulators")
        self._flag("restart_crashed_environments")
        self._number("gamma", "[0, 1]", remedy="0.99 suits most tasks")
        self._number("gae_lambda", "[0, 1]", remedy="0.95 suits most tasks")

        # networks
        self._sizes("hidden_sizes")
        self._choice("activation", Activation)
        self._sizes("value_hidden_sizes")
        self._choice("value_activation", Activation)
        self._number("hidden_gain", "(0, inf)", remedy="sqrt(2) is usual")
        self._number("policy_output_gain", "[0, inf)", remedy="0.01 starts near equal actions")
        self._number("value_output_gain", "[0, inf)", remedy="1 is usual")
        self._number("initial_log_std", "[-20, 20]", remedy="it is a logarithm: 0 is a std of 1")
        self._flag("state_dependent_std")

        # policy update
        self._number("max_kl", "(0, inf)", remedy="0.01 nats is usual")
        self._choice("kl_constraint", KLConstraint)
        self._choice("kl_convention", KLConvention)
        self._integer("cg_iterations", 1, remedy="6 are usual, 10 to 15 without a preconditioner")
        self._number("cg_tolerance", "[0, 1)", remedy="it is relative to the gradient's norm")
        self._number("cg_damping", "[0, inf)", remedy="0.01 to 0.1 is usual")
        self._choice("cg_preconditioner", Preconditioner)
        self._number("backtrack_ratio", "(0, 1)", remedy="0.8 is usual")
        self._integer("max_backtracks", 0, remedy="10 is usual")
        self._choice("fisher", FisherForm)
        self._number("fisher_fraction", "(0, 1]", remedy="1 uses the whole batch")
        self._flag("standardize_advantages")

        # value function
        self._choice("value_optimizer", ValueOptimizer)
        self._number("value_learning_rate", "(0, inf)", remedy="0.001 is usual")
        self._choice("value_learning_rate_schedule", LearningRateSchedule)
        self._integer("value_epochs", 1, remedy="10 is usual")
        self._optional_integer("value_minibatch_size", 1, remedy="None takes the whole batch")
        self._integer("value_lbfgs_iterations", 1, remedy="25 is usual")

        self._flag("overlap_value_fit")

        # normalisation
        self._flag("normalize_observations")
        self._number("observation_clip", "(0, inf)", remedy="10 standard deviations are usual")
        self._flag("scale_returns")

        # what must hold between fields
        if self.batch_size < self.n_envs:
            raise ConfigError(
                f"batch_size: expected at least one step for each of the {self.n_envs} "
                f"environments, got {self.batch_size}; raise batch_size or lower n_envs"
            )

    @property
    def steps_per_env(self) -> int:
        """Steps T of each environment per update by sampling "steps", ceil(batch_size / n_envs)."""
        return -(-self.batch_size // self.n_envs)

    def replace(self, **changes: object) -> Self:
        """Return a copy with these fields changed, validated again."""
        _refuse_unknown(type(self), changes)
        return dataclasses.replace(self, **cast(Any, changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; tuples become lists."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Build a configuration from (a part of) what :meth:`to_dict` gave; the rest is default.

        Raises
        ------
        ConfigError
            on an unknown name, with the closest known one, or an invalid value.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"configuration: expected a mapping of field names to values, got "
                f"{_show(values)}; start from TRPOConfig().to_dict()"
            )
        _refuse_unknown(cls, values)
        return cls(**cast(Any, dict(values)))

    @classmethod
    def from_saved(cls, values: Mapping[str, object]) -> Self:
        """As :meth:`from_dict`, of a file: a field younger than the file means what was done then."""
        if isinstance(values, Mapping):
            values = {**cls._before, **values}
        return cls.from_dict(values)

    # ---- validation: each check stores the value back in its plain Python type

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _integer(self, name: str, low: int, high: int = _LARGEST_COUNT, *, remedy: str) -> None:
        self._store(name, _checked_integer(name, getattr(self, name), low, high, remedy))

    def _optional_integer(self, name: str, low: int, *, remedy: str) -> None:
        if getattr(self, name) is not None:
            self._integer(name, low, remedy=remedy)

    def _number(self, name: str, interval: str, *, remedy: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ConfigError(
                f"{name}: expected a number in {interval}, got {_show(value)}; {remedy}"
            )
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not _within(number, interval):
            raise ConfigError(f"{name}: expected a number in {interval}, got {number:g}; {remedy}")
        self._store(name, number)

    def _flag(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise ConfigError(
                f"{name}: expected True or False, got {_show(value)}; write one of them"
            )

    def _choice(self, name: str, literal: object) -> None:
        value = getattr(self, name)
        choices = get_args(literal)
        if not isinstance(value, str) or value not in choices:
            listed = ", ".join(repr(choice) for choice in choices)
            remedy = did_you_mean(value, choices) or f"choose one, for instance {choices[0]!r}"
            raise ConfigError(f"{name}: expected one of {listed}, got {_show(value)}; {remedy}")

    def _sizes(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, (tuple, list)):
            raise ConfigError(
                f"{name}: expected a sequence of layer sizes, got {_show(value)}; "
                f"write (64, 64) for two hidden layers"
            )
        remedy = "write (64, 64) for two hidden layers, () for none"
        sizes = (
            _checked_integer(f"{name}[{i}]", v, 1, _LARGEST_COUNT, remedy)
            for i, v in enumerate(value)
        )
        self._store(name, tuple(sizes))


def field_names(config: type[TRPOConfig] = TRPOConfig) -> tuple[str, ...]:
    """Return the names of all fields of a configuration class, in their order."""
    return tuple(field.name for field in dataclasses.fields(config))


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return "did you mean ...?" for the known name closest to the given one, or an empty text."""
    matches = difflib.get_close_matches(str(given).lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""


def _refuse_unknown(config: type[TRPOConfig], values: Mapping[str, object]) -> None:
    known = field_names(config)
    for name in values:
        if name not in known:
            remedy = did_you_mean(name, known) or f"the fields are listed under {config.__name__}"
            raise ConfigError(f"configuration: expected known field names, got {name!r}; {remedy}")


def _checked_integer(name: str, value: object, low: int, high: int, remedy: str) -> int:
    wanted = f"an integer of at least {low}"
    if isinstance(value, float) and value.is_integer():
        remedy = f"write {int(value)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name}: expected {wanted}, got {_show(value)}; {remedy}")
    number = int(value)
    if number < low:
        raise ConfigError(f"{name}: expected {wanted}, got {number}; {remedy}")
    if number > high:
        raise ConfigError(f"{name}: expected an integer of at most {high}, got {number}; {remedy}")
    return number


def _within(number: float, interval: str) -> bool:
    # "(0, 1]": a round bracket leaves its end out; NaN and infinities are in no interval
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number > low if interval[0] == "(" else number >= low
    below = number < high if interval[-1] == ")" else number <= high
    return math.isfinite(number) and above and below


def _show(value: object) -> str:
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"
