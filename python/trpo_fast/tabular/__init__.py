"""Finite Markov decision processes solved exactly: the theory behind TRPO, executable.

Everything here is a small dense computation in float64 NumPy. Nothing is sampled, so that each
statement of the papers can be checked to rounding: the performance-difference identity, the two
lower bounds, the monotonic improvement that follows from them.

    >>> from trpo_fast import tabular
    >>> mdp = tabular.random_mdp(n_states=8, n_actions=3, gamma=0.8, seed=1)
    >>> solution = tabular.trpo(mdp, delta=0.05)
    >>> bool(solution.J > tabular.evaluate(mdp, mdp.uniform_policy()).J)
    True

Symbols, the same in docstrings and code: states s (S of them), actions a (A of them), policy
pi(a|s), discount gamma, return J, values V, Q, advantage A(s, a) = Q(s, a) - V(s), unnormalised
discounted visitation rho, its normalised form d = (1 - gamma) rho, surrogate L, penalty
coefficient C, eps = max |A|. Divergences are old || new, in nats.

Papers:

- Kakade and Langford 2002, "Approximately Optimal Approximate Reinforcement Learning".
- Kakade 2001, "A Natural Policy Gradient".
- Schulman, Levine, Moritz, Jordan and Abbeel 2015, "Trust Region Policy Optimization".
"""

from __future__ import annotations

from .algorithms import (
    Iterate,
    Solution,
    Step,
    ValueIterationResult,
    conservative_policy_iteration,
    conservative_policy_step,
    greedy_step,
    monotonic_improvement,
    natural_gradient_step,
    penalised_step,
    policy_iteration,
    trpo,
    trust_region_step,
    value_iteration,
)
from .exact import (
    PolicyEvaluation,
    conservative_bound,
    conservative_step_size,
    evaluate,
    kl_divergence,
    lower_bound,
    max_kl,
    max_total_variation,
    mean_kl,
    natural_gradient,
    penalty_coefficient,
    performance_difference,
    policy_advantage,
    policy_gradient,
    surrogate,
    total_variation,
)
from .mdp import FiniteMDP, chain_mdp, greedy_policy, gridworld_mdp, random_mdp, softmax
from .trust_region import Maximum, maximise_max_kl, maximise_mean_kl, maximise_penalised

__all__ = [
    "FiniteMDP",
    "Iterate",
    "Maximum",
    "PolicyEvaluation",
    "Solution",
    "Step",
    "ValueIterationResult",
    "chain_mdp",
    "conservative_bound",
    "conservative_policy_iteration",
    "conservative_policy_step",
    "conservative_step_size",
    "evaluate",
    "greedy_policy",
    "greedy_step",
    "gridworld_mdp",
    "kl_divergence",
    "lower_bound",
    "max_kl",
    "max_total_variation",
    "maximise_max_kl",
    "maximise_mean_kl",
    "maximise_penalised",
    "mean_kl",
    "monotonic_improvement",
    "natural_gradient",
    "natural_gradient_step",
    "penalised_step",
    "penalty_coefficient",
    "performance_difference",
    "policy_advantage",
    "policy_gradient",
    "policy_iteration",
    "random_mdp",
    "softmax",
    "surrogate",
    "total_variation",
    "trpo",
    "trust_region_step",
    "value_iteration",
]
