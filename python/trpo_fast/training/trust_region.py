"""What a configuration says of direction and length of a natural step."""

from __future__ import annotations

from .. import core
from ..config import NaturalStepConfig, TrustRegionConfig
from ..schedules import number_of


def natural_step_options(config: NaturalStepConfig, policy: core.Policy) -> core.TrustRegionOptions:
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

    Returns
    -------
    TrustRegionOptions
        New ones; ``step``, ``step_size`` and ``seed`` are left to the method.
    """
    per_component = config.kl_convention == "mean_over_action_dimensions"
    discrete = policy.distribution.is_discrete
    factor = policy.distribution.action_dim if per_component and not discrete else 1
    options = core.TrustRegionOptions(
        max_kl=number_of(config.max_kl) * factor,
        constraint=config.kl_constraint,
        cg_iterations=config.cg_iterations,
        cg_tolerance=config.cg_tolerance,
        cg_damping=number_of(config.cg_damping) * factor,
        cg_preconditioner=config.cg_preconditioner,
        fisher=config.fisher,
        fisher_fraction=config.fisher_fraction,
        standardize_advantages=config.standardize_advantages,
    )
    if isinstance(config, TrustRegionConfig):
        options.backtrack_ratio = config.backtrack_ratio
        options.max_backtracks = config.max_backtracks
    return options
