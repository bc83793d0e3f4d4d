"""What a configuration says of direction and length of a natural step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import core
from ..config import NaturalStepConfig, TRPOConfig, TrustRegionConfig
from ..schedules import number_of

LARGEST_NOISE = 100.0  # the most by which lambda grows faster than F does, see the page "noise"


def natural_step_options(
    config: NaturalStepConfig,
    policy: core.Policy,
    observations: NDArray[Any],
    *,
    normalized: bool = True,
) -> core.TrustRegionOptions:
    """The options of :meth:`trpo_fast.core.Policy.update` that this configuration decides.

    The core sums the KL over action components. A mean over A components (``kl_convention``) is the
    same step with max_kl and cg_damping times A; discrete actions have no components to average.

    Parameters
    ----------
    config
        Settings of a natural step in this iteration (:attr:`~OnPolicyAgent.current`); those of the
        line search too where it has them.
    policy
        What is to be updated.
    observations
        (N, O), of the batch.
    normalized
        Whether they are what ``policy.normalize`` returned; raw otherwise.

    Returns
    -------
    TrustRegionOptions
        New ones; ``step``, ``step_size`` and ``seed`` are left to the method.
    """
    per_component = config.kl_convention == "mean_over_action_dimensions"
    discrete = policy.distribution.is_discrete
    factor = policy.distribution.action_dim if per_component and not discrete else 1
    damping = number_of(config.cg_damping) * factor
    if config.cg_damping_unit != "absolute":
        unit = mean_precision(policy, observations, normalized=normalized)
        if config.cg_damping_unit == "noise" and not discrete:
            # r min(r^2, 100), r = mean_a sigma_0^2 / sigma_a^2
            r = unit * math.exp(2.0 * config.initial_log_std)
            unit = r * min(r**2, LARGEST_NOISE)
        damping *= unit
    options = core.TrustRegionOptions(
        max_kl=radius(config, policy) * factor,
        constraint=config.kl_constraint,
        cg_iterations=config.cg_iterations,
        cg_tolerance=config.cg_tolerance,
        cg_damping=damping,
        cg_preconditioner=config.cg_preconditioner,
        fisher=config.fisher,
        fisher_fraction=config.fisher_fraction,
        standardize_advantages=config.standardize_advantages,
    )
    if isinstance(config, TrustRegionConfig):
        options.backtrack_ratio = config.backtrack_ratio
        options.max_backtracks = config.max_backtracks
    return options


def radius(config: NaturalStepConfig, policy: core.Policy) -> float:
    """Delta of this iteration, nats: ``max_kl``, or what is usual for the actions.

    Parameters
    ----------
    config
        Settings of this iteration.
    policy
        What is to be updated. The damping of a Gaussian grows as it becomes sure of itself and makes
        steps shorter than the radius; choices have nothing like that, and half the radius.
    """
    if config.max_kl is None:
        return 0.01 if policy.distribution.is_discrete else 0.02
    return number_of(config.max_kl)


def n_remembered(config: TRPOConfig, policy: core.Policy) -> int:
    """The most states of earlier batches that an update covers: as set, or what is usual.

    Parameters
    ----------
    config
        Settings of the agent.
    policy
        What is updated. The radius of choices is half of a Gaussian's, and they remember half as much.
    """
    if config.remembered_states is None:
        return max(1, config.batch_size // (8 if policy.distribution.is_discrete else 4))
    return config.remembered_states


def mean_precision(
    policy: core.Policy, observations: NDArray[Any], *, normalized: bool = True
) -> float:
    """Mean of 1 / sigma^2 over the components of a Gaussian's actions; 1 for discrete actions.

    Parameters
    ----------
    policy
        Whose sigma.
    observations
        (N, O): the states that a mean goes over where sigma depends on the state.
    normalized
        Whether they are what ``policy.normalize`` returned; raw otherwise.
    """
    distribution = policy.distribution
    if distribution.is_discrete:
        return 1.0
    if distribution.n_free_parameters:
        where, _ = policy.parameter_layout["log_std"]
        log_std = policy.parameters[where].astype(np.float64)
    else:
        outputs = policy.outputs(observations, normalized=normalized).astype(np.float64)
        log_std = np.clip(outputs[:, distribution.action_dim :], *core.LOG_STD_BOUNDS)
    return float(np.mean(np.exp(-2.0 * log_std)))
