"""The settings of a run: frozen dataclasses, checked once, with units.

Every field is also a flag of the command line (``max_kl`` is ``--max-kl``), and its help text is
the docstring below the field. A field says in one place all that is known of it: its default, the
values that it takes, and what to do about another one.

A method has the fields that it uses and no others, so that nothing given is ignored:

===========================  ====================================================================
:class:`AgentConfig`         what every method needs: run, sampling, policy network, normalisation
:class:`TrustRegionConfig`   direction and length of a natural step, and its line search
:class:`ValueConfig`         generalised advantages, and the fit of the value function
:class:`TRPOConfig`          all of them
===========================  ====================================================================

The other methods' classes stand in ``trpo_fast.algorithms``. A setting that has an effect only
beside a certain value of another one (``value_lbfgs_iterations`` with ``value_optimizer="lbfgs"``)
keeps its default otherwise, and any other value is refused. Presets, and files of versions that
knew no such rule, are read without what has no effect.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..schedules import FunctionSchedule, Schedule, Scheduled, linear
from .checked import CheckedConfig
from .cluster import cluster_address, refuse_unclustered, runtime_environment
from .fields import (
    LARGEST_SEED,
    RECORDED,
    ConfigError,
    choice,
    flag,
    integer,
    layer_sizes,
    mask_source,
    names,
    number,
    scheduled,
)

if TYPE_CHECKING:
    from typing_extensions import Self

DType = Literal["float32", "float64"]
Activation = Literal["tanh", "relu", "elu", "silu", "gelu", "identity"]
KLConvention = Literal["sum", "mean_over_action_dimensions"]
KLConstraint = Literal["mean", "max"]
FisherForm = Literal["gauss_newton", "empirical"]
DampingUnit = Literal["noise", "precision", "absolute"]
Preconditioner = Literal["none", "kronecker"]
ValueOptimizer = Literal["adam", "lbfgs"]
LearningRateSchedule = Literal["constant", "linear"]
Sampling = Literal["steps", "total_steps", "episodes"]

_OF_THE_SAMPLER = (
    "n_envs",
    "n_workers",
    "dtype",
    "state_dependent_std",
    "action_scaling",
    "worker_timeout",
    "restart_crashed_environments",
    "action_masks",
    "cluster",
    "runtime_env",
)


@dataclass(frozen=True, kw_only=True)
class AgentConfig(CheckedConfig):
    """Settings that every method has, keyword-only and immutable.

    Change a copy with :meth:`replace`; store with :meth:`to_dict`, restore with :meth:`from_dict`.

    Raises
    ------
    ConfigError
        (a ``ValueError``) if a value has the wrong type or lies outside its range.
    """

    before: ClassVar[Mapping[str, object]] = {
        "cg_damping_unit": "absolute",
        "cg_preconditioner": "none",
        "sampling": "steps",
        "action_scaling": False,
        "action_masks": "none",
    }
    updates_in_parts: ClassVar[bool] = False  # whether the method's update is a sum of rows

    seed: int = integer(
        0, 0, LARGEST_SEED, remedy="any fixed number makes a run repeatable", changes="never"
    )
    """Seed of every random stream: initial weights, actions, minibatches, environments."""

    dtype: DType = choice("float32", DType, changes="never")
    """Precision of networks, observations and updates (scalars accumulate in double anyway)."""

    n_threads: int | None = integer(
        None, 1, optional=True, remedy="None uses every core that is allowed"
    )
    """Threads of the C++ core, None for all that are allowed; results do not depend on it."""
    # allowed: by processor affinity, cgroup limits and OMP_NUM_THREADS

    # ---- sampling

    n_envs: int = integer(8, 1, remedy="1 is the smallest number of environments", changes="never")
    """Environments stepped side by side."""

    batch_size: int = integer(2048, 2, remedy="an update needs some hundred steps to mean anything")
    """Environment steps per update, over all environments; sampling says how they are counted."""

    sampling: Sampling = choice("steps", Sampling)
    """A batch: the same steps of each environment, exactly batch_size in all, or whole episodes."""
    # steps: ceil(batch_size / n_envs) of each environment; episodes go on in the next batch.
    # total_steps: batch_size over all; the first (batch_size mod n_envs) environments take one more.
    # episodes: whole ones of each environment until it has its share of total_steps; the paper's.
    # None of them depends on how long a step takes: no bias towards what is quick to simulate.

    n_workers: int | None = integer(
        None, 0, optional=True, remedy="0 steps all environments in this process", changes="load"
    )
    """Processes that step the environments: None chooses by the cores allowed, 0 stays in process."""
    # the results do not depend on it

    worker_timeout: float = number(
        300.0, "(0, inf)", remedy="300 seconds suit most simulators", changes="load"
    )
    """Seconds that an environment in a worker may take for one step before it counts as hung."""

    cluster: str | None = cluster_address(changes="load")
    """Ray cluster whose actors step the environments: "local", "auto", "HOST:PORT", "ray://HOST:PORT"."""
    # n_workers actors of one core each; None takes all free cores. Files do not keep it.

    runtime_env: str | None = runtime_environment(changes="load")
    """What Ray brings to the nodes of a cluster: a JSON object, or the name of a YAML file."""

    distribute_update: bool = flag(False, changes="load")
    """Leave the rows of a batch on the nodes of a cluster, and update by sums of them; same results."""
    # for batches that no single machine holds. Files do not keep it.

    restart_crashed_environments: bool = flag(False, changes="load")
    """Replace an environment that crashes and drop its episode, instead of ending the run."""

    schedule_timesteps: int | None = integer(
        None, 1, high=2**62, optional=True, remedy="None takes the first learn with schedules"
    )
    """Environment steps of the whole run over which schedules go; None: to the end of learn."""
    # None: from the beginning to the end of the first learn after schedules were set

    save_environments: bool = flag(True)
    """Save the states of the environments, so that a resume goes on in the middle of episodes."""

    episode_metrics: tuple[str, ...] = names((), RECORDED, changes="load")
    """Keys of the info of an episode's last step to record; is_success and success are anyway."""

    action_masks: str = mask_source("auto", changes="never")
    """Where an environment allows actions: "info", "method" or "observation:<name>"; "none"; "auto"."""
    # info: info["action_mask"]; method: action_masks(), also of a wrapper; observation: a part of a
    # Dict, which the network does not read then; auto looks for a part "action_mask", the method, and
    # the info of the first reset, in this order

    gamma: float = number(0.995, "[0, 1]", remedy="0.99 to 0.995 suit most tasks")
    """Discount factor γ per step, in [0, 1]."""

    # ---- networks

    hidden_sizes: tuple[int, ...] = layer_sizes((64, 64))
    """Units of each hidden layer of the policy; empty for a linear policy."""

    activation: Activation = choice("tanh", Activation, changes="never")
    """Activation of the policy's hidden layers."""

    hidden_gain: float = number(
        math.sqrt(2.0), "(0, inf)", remedy="sqrt(2) is usual", changes="never"
    )
    """Gain of the orthogonal initialisation of hidden layers, policy and value function."""

    policy_output_gain: float = number(
        0.01, "[0, inf)", remedy="0.01 starts near equal actions", changes="never"
    )
    """Gain of the orthogonal initialisation of the policy's last layer."""

    initial_log_std: float = number(-0.75, "[-20, 20]", remedy="0: a std of 1", changes="never")
    """Initial logarithm of the standard deviation of continuous actions, before they are scaled."""

    state_dependent_std: bool = flag(False, changes="never")
    """Let the policy network output log-stds too, instead of one free vector."""

    action_scaling: bool = flag(True, changes="never")
    """Map [-1, 1] to the finite bounds of continuous actions; without it they are only clipped."""

    # ---- normalisation

    normalize_observations: bool = flag(True, changes="never")
    """Bring observations to running mean 0 and deviation 1; frozen while a batch is collected."""

    observation_clip: float = number(10.0, "(0, inf)", remedy="10 standard deviations are usual")
    """Bound on the absolute value of a normalised observation, in standard deviations."""

    standardize_advantages: bool = flag(True)
    """Bring the advantages of a batch to mean 0 and deviation 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < self.n_envs:
            raise ConfigError(
                f"batch_size: expected at least one step for each of the {self.n_envs} "
                f"environments, got {self.batch_size}; raise batch_size or lower n_envs"
            )
        refuse_unclustered(self)

    @property
    def of_the_run(self) -> Self:
        """The settings without those of the machines that it happens to use: what files keep.

        A file names no address to connect to, and holds no secret of a runtime environment.
        """
        return self.replace(cluster=None, runtime_env=None, distribute_update=False)

    @property
    def of_the_sampler(self) -> dict[str, Any]:
        """The settings that `trpo_fast.rollout.make_sampler` takes, by name."""
        return {name: getattr(self, name) for name in _OF_THE_SAMPLER}

    @classmethod
    def elsewhere(cls) -> tuple[str, ...]:
        """The settings of TRPO, which has them all."""
        return field_names()

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The fields that other fields' values leave without effect, and which values these are.

        Parameters
        ----------
        values
            A value for every field.
        """
        idle = {}
        if not values["normalize_observations"]:
            idle["observation_clip"] = "normalize_observations=False"
        if values["cluster"] is None:
            idle["runtime_env"] = "cluster=None"
        return idle

    @property
    def steps_per_env(self) -> int:
        """Steps T of each environment per update by sampling "steps", ceil(batch_size / n_envs)."""
        return -(-self.batch_size // self.n_envs)


@dataclass(frozen=True, kw_only=True)
class NaturalStepConfig(AgentConfig):
    """Settings of a natural gradient: the Fisher matrix, conjugate gradient, the KL to make."""

    max_kl: Scheduled | None = scheduled(0.01, "(0, inf)", optional=True, remedy="0.01 is usual")
    """Trust region δ: bound on KL(old‖new) in nats, mean over states; None: 0.02, of choices 0.01."""

    kl_constraint: KLConstraint = choice("mean", KLConstraint)
    """What max_kl bounds: the mean KL over the states of the batch, or the largest one."""

    kl_convention: KLConvention = choice("sum", KLConvention)
    """How the KL counts action dimensions: summed (the true KL) or averaged, as by sb3-contrib."""

    cg_iterations: int = integer(6, 1, remedy="6 are usual, 10 to 15 without a preconditioner")
    """Most conjugate gradient iterations per update; without a preconditioner 10 to 15 are usual."""

    cg_tolerance: float = number(1e-6, "[0, 1)", remedy="it is relative to the gradient's norm")
    """Relative residual ‖b − Ax‖ / ‖b‖ at which conjugate gradient stops."""

    cg_damping: Scheduled = scheduled(0.03, "[0, inf)", remedy="0.01 to 0.1 is usual")
    """λ added to the diagonal of the Fisher matrix F, in the unit that cg_damping_unit says."""

    cg_damping_unit: DampingUnit = choice("noise", DampingUnit)
    """What cg_damping counts in: r min(r², 100), mean 1/σ² ("precision"), or 1 ("absolute")."""
    # r = mean σ₀²/σ² of continuous actions, σ₀ their initial deviation; see `trpo-fast explain noise`

    cg_preconditioner: Preconditioner = choice("kronecker", Preconditioner)
    """What makes conjugate gradient need fewer iterations: Kronecker-factored curvature, or none."""

    fisher: FisherForm = choice("gauss_newton", FisherForm)
    """The Fisher matrix: Gauss-Newton form of the KL's Hessian, or covariance of the scores."""

    fisher_fraction: float = number(1.0, "(0, 1]", remedy="1 uses the whole batch")
    """Share of the batch, in (0, 1], behind the Fisher matrix; gradient and line search use all."""


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(NaturalStepConfig):
    """Settings of a trust-region step: a natural gradient with a line search behind it."""

    backtrack_ratio: float = number(0.8, "(0, 1)", remedy="0.8 is usual")
    """Factor α in (0, 1) by which the line search shrinks the step."""

    max_backtracks: int = integer(10, 0, remedy="10 is usual")
    """Most times the line search shrinks the step; 0 tries the full step only."""

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The line search's ratio where it makes no second try."""
        idle = super().without_effect(values)
        if values["max_backtracks"] == 0:
            idle["backtrack_ratio"] = "max_backtracks=0"
        return idle


@dataclass(frozen=True, kw_only=True)
class ValueConfig(AgentConfig):
    """Settings of the value function, and of the advantages that it helps to estimate."""

    gae_lambda: Scheduled | None = scheduled(
        None, "[0, 1]", optional=True, start=0.95, remedy="0.95 suits most tasks"
    )
    """λ of generalised advantages, [0, 1]: 0 one-step TD, 1 Monte Carlo; None: 0.95, γ > 0.999: 0.98."""

    value_hidden_sizes: tuple[int, ...] = layer_sizes((64, 64))
    """Units of each hidden layer of the value function; empty for a linear one."""

    value_activation: Activation = choice("tanh", Activation, changes="never")
    """Activation of the value function's hidden layers."""

    value_output_gain: float = number(1.0, "[0, inf)", remedy="1 is usual", changes="never")
    """Gain of the orthogonal initialisation of the value function's last layer."""

    value_optimizer: ValueOptimizer = choice("adam", ValueOptimizer)
    """How the value function is fitted: Adam on minibatches, or L-BFGS on the whole batch."""

    value_learning_rate: Scheduled = scheduled(1e-3, "(0, inf)", remedy="0.001 is usual")
    """Step size of Adam."""

    value_learning_rate_schedule: LearningRateSchedule = choice("constant", LearningRateSchedule)
    """Adam's step size over a run: as value_learning_rate says, or linear from there to 0."""

    value_epochs: int = integer(5, 1, remedy="5 to 10 are usual")
    """Passes of Adam over the batch per update."""

    value_minibatch_size: int | None = integer(
        128, 1, optional=True, remedy="None takes the whole batch"
    )
    """Samples per Adam step; None takes the whole batch."""

    value_lbfgs_iterations: int = integer(25, 1, remedy="25 is usual")
    """L-BFGS iterations per update."""

    overlap_value_fit: bool = flag(True)
    """Fit the value function in a thread beside policy update and rollout; same results."""

    scale_returns: bool = flag(True, changes="never")
    """Fit the value function to returns divided by their running standard deviation."""

    @property
    def lam(self) -> Scheduled:
        """λ: ``gae_lambda``, or what suits γ: a V that sums 1,000 steps and more is the less trusted."""
        if self.gae_lambda is not None:
            return self.gae_lambda
        return 0.98 if self.gamma > 0.999 else 0.95

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The settings of the other optimiser."""
        idle = super().without_effect(values)
        if values["value_optimizer"] == "adam":
            idle["value_lbfgs_iterations"] = "value_optimizer='adam'"
        if values["value_optimizer"] == "lbfgs":
            for name in ("learning_rate", "learning_rate_schedule", "epochs", "minibatch_size"):
                idle[f"value_{name}"] = "value_optimizer='lbfgs'"
        elif isinstance(values["value_learning_rate"], (Schedule, FunctionSchedule)):
            reason = f"value_learning_rate={values['value_learning_rate']!r}"
            idle["value_learning_rate_schedule"] = reason
        return idle

    @property
    def schedules(self) -> dict[str, Schedule | FunctionSchedule]:
        """The settings that change over a run; value_learning_rate_schedule makes one too."""
        found = super().schedules
        rate = self.value_learning_rate
        if self.value_learning_rate_schedule == "linear" and isinstance(rate, float):
            found["value_learning_rate"] = linear(rate)
        return found


@dataclass(frozen=True, kw_only=True)
class TRPOConfig(ValueConfig, TrustRegionConfig):
    """Settings of :class:`trpo_fast.TRPO`, keyword-only and immutable.

    Change a copy with :meth:`replace`; store with :meth:`to_dict`, restore with :meth:`from_dict`.

    Raises
    ------
    ConfigError
        (a ``ValueError``) if a value has the wrong type or lies outside its range.
    """

    method: ClassVar[str] = "TRPO"
    updates_in_parts: ClassVar[bool] = True
    before: ClassVar[Mapping[str, object]] = {**TrustRegionConfig.before, "remembered_states": 0}

    max_kl: Scheduled | None = scheduled(
        None, "(0, inf)", optional=True, start=0.02, remedy="0.01 to 0.02 nats are usual"
    )
    """Trust region δ: bound on KL(old‖new) in nats, mean over states; None: 0.02, of choices 0.01."""

    signal_guard: float = number(0.0, "[0, inf)", remedy="0.02 to 0.1 halve the radius in noise")
    """Share of signal in the gradient that leaves half of max_kl, less leaves less; 0: always all."""

    signal_memory: int = integer(12, 1, remedy="12 measurements, one in two updates, are usual")
    """Measurements of the share of signal that its mean goes over."""

    remembered_states: int | None = integer(
        None, 0, optional=True, remedy="None takes batch_size / 4 or 8, 0 none", changes="load"
    )
    """States of earlier batches that F and KL average over too; None: batch_size / 4, of choices / 8."""

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The memory of a guard that is off."""
        idle = super().without_effect(values)
        if values["signal_guard"] == 0.0:
            idle["signal_memory"] = "signal_guard=0"
        return idle


def field_names(config: type[CheckedConfig] = TRPOConfig) -> tuple[str, ...]:
    """Return the names of all fields of a configuration class, in their order.

    Parameters
    ----------
    config
        The class.
    """
    return tuple(field.name for field in dataclasses.fields(config))
