"""The vine's objective (Schulman et al. 2015, section 5.2), and one trust-region step on it.

What is maximised is the mean over the rollout set of

::

    L_s(theta) = sum_a pi(a|s) Q(s, a)                                     all actions (equation 15)
    L_s(theta) = sum_k w_k Q_k / sum_k w_k,  w_k = pi(a_k|s)/pi_old(a_k|s)   sampled (equation 16)

under the same trust region as single-path TRPO, over the states of the rollout set. Neither form
needs a baseline from outside: the first subtracts the mean of Q under the old policy (a constant of
the state), the second is invariant under a shift of Q.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .checks import Float64, choice, numeric_array
from .distribution import Distribution
from .options import TrustRegionOptions, TrustRegionSettings, with_settings
from .policy import Policy
from .update import UpdateSummary

if TYPE_CHECKING:
    from typing_extensions import Unpack

Estimator = Literal["exact_sum", "self_normalized"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)

MOST_ACTIONS = 64  # the largest discrete space of which branches may try every action


def action_space_name(distribution: Distribution, space: Any) -> str:
    """How errors call an action space, by its own text or that of its distribution.

    Parameters
    ----------
    distribution
        Of the actions.
    space
        The action space, for the sentences of errors, or None.
    """
    kind = f"{distribution.kind}{distribution.sizes}" if space is None else str(space)
    return f"the action space {kind}"


def n_actions(distribution: Distribution) -> int:
    """The number of actions of a discrete distribution.

    Parameters
    ----------
    distribution
        Of the actions.
    """
    if distribution.kind == "bernoulli":
        return 1 << distribution.sizes[0]
    return math.prod(distribution.sizes)


def all_actions(distribution: Distribution, space: Any = None) -> NDArray[np.int32]:
    """Every action of a small discrete distribution, shape (number of actions, K), int32.

    Parameters
    ----------
    distribution
        Of the actions.
    space
        The action space, for the sentences of errors, or None.

    Raises
    ------
    ValueError
        A continuous distribution, or more than 64 actions.
    """
    name = action_space_name(distribution, space)
    if not distribution.is_discrete:
        raise ValueError(
            f'branches: "all" needs a discrete action space, got {name}, whose actions have no '
            "end; give a number of branches, 2 or more"
        )
    if n_actions(distribution) > MOST_ACTIONS:
        raise ValueError(
            f'branches: "all" allows up to {MOST_ACTIONS} actions, got {name} with '
            f"{n_actions(distribution)}; give a number of branches, 2 or more"
        )
    sizes = distribution.sizes
    if distribution.kind == "bernoulli":
        sizes = (2,) * sizes[0]
    return np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int32)


def vine_update(
    policy: Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    options: TrustRegionOptions | None = None,
    *,
    estimator: Estimator,
    normalized: bool = False,
    action_masks: ArrayLike | None = None,
    **settings: Unpack[TrustRegionSettings],
) -> UpdateSummary:
    """Make one trust-region step on the vine's objective, in place.

    It is the step of :meth:`Policy.update` on another L, with the same settings and promises: Fisher
    matrix and KL are over the N states of the rollout set, an accepted step is inside the trust
    region and improves L, and after any other the parameters are, bit for bit, those before.

    ::

        g = mean_n sum_k w_nk A_nk grad log pi(a_nk|s_n),   A_nk = Q_nk - sum_k w_nk Q_nk

    where w is the old policy's probability of each of all actions, or 1/K of sampled ones.

    Parameters
    ----------
    policy
        At the old parameters.
    observations
        (N, O), the states of the rollout set, N at least 1.
    actions
        (N, K, A), unclipped: all actions in every state, or at least 2 samples of the policy.
    q_values
        (N, K), finite, in reward units.
    options
        All settings in one object; None: the defaults of :meth:`Policy.update`.
    estimator
        ``"exact_sum"`` over all actions, or ``"self_normalized"`` over samples.
    normalized
        Whether observations are what :meth:`Policy.normalize` returned; raw otherwise.
    action_masks
        (N, W) of 0 and 1: which choices are allowed in a state, see :func:`mask_rows`; None: all. Q of
        a forbidden action means nothing.
    **settings
        Settings that differ from ``options``, by name: see :meth:`Policy.update`. Two of them mean
        something else here. ``fisher="empirical"`` is the covariance of the scores under the old
        policy as the branches estimate it, mean_n sum_k w_nk s_nk s_nk^T; over all actions that is
        exact. ``standardize_advantages`` divides A by its standard deviation under the old policy,
        which is the unit of the gains then; otherwise they are in reward units.

    Returns
    -------
    UpdateSummary
        What the step did.

    Raises
    ------
    ValueError, TypeError
        A shape, number or name is not one of those; nothing was changed.
    """
    x, a, q = _checked(policy, observations, actions, q_values, estimator, normalized)
    masks = policy.checked_masks(action_masks, len(x))
    chosen = with_settings(TrustRegionOptions, options, settings)
    updater = policy.native_updater()
    return UpdateSummary(**updater.vine_update(policy.native, x, a, q, estimator, chosen, masks))


def vine_value(
    policy: Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    *,
    estimator: Estimator,
    normalized: bool = False,
    old_parameters: ArrayLike | None = None,
    action_masks: ArrayLike | None = None,
) -> float:
    """Return the vine's L(theta), in reward units.

    Parameters
    ----------
    policy
        At theta.
    observations, actions, q_values, estimator, normalized
        As of :func:`vine_update`.
    old_parameters
        (D,), of the policy that branched; None: those of now.
    action_masks
        As of :func:`vine_update`.
    """
    x, a, q = _checked(policy, observations, actions, q_values, estimator, normalized)
    old = policy.native if old_parameters is None else policy.native_at(old_parameters)
    masks = policy.checked_masks(action_masks, len(x))
    return _core.vine_value(policy.native, old, x, a, q, estimator, masks)[0]


def vine_gradient(
    policy: Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    *,
    estimator: Estimator,
    normalized: bool = False,
    action_masks: ArrayLike | None = None,
) -> Float64:
    """Return the gradient of the vine's L at the policy's parameters, (D,) float64.

    Parameters
    ----------
    policy
        At the old parameters.
    observations, actions, q_values, estimator, normalized, action_masks
        As of :func:`vine_update`.
    """
    x, a, q = _checked(policy, observations, actions, q_values, estimator, normalized)
    masks = policy.checked_masks(action_masks, len(x))
    return _core.vine_value(policy.native, policy.native, x, a, q, estimator, masks)[1]


def _checked(
    policy: Policy,
    observations: ArrayLike,
    actions: ArrayLike,
    q_values: ArrayLike,
    estimator: Estimator,
    normalized: bool,
) -> tuple[NDArray[Any], NDArray[Any], Float64]:
    """Observations (N, O), actions (N K, A) and Q (N, K), as the compiled core needs them."""
    choice("estimator", estimator, ESTIMATORS)
    Q = numeric_array("q_values", q_values, np.float64)
    if Q.ndim != 2 or 0 in Q.shape:
        raise ValueError(
            f"q_values: expected shape (N, K) with at least one state and one branch, got "
            f"{Q.shape}; an empty rollout set has nothing to learn from."
        )
    N, K = Q.shape
    x = policy.checked_inputs(observations, normalized)
    if x.shape[0] != N:
        raise ValueError(
            f"observations: expected shape {(N, policy.obs_dim)}, as q_values {Q.shape} has it, "
            f"got {x.shape}."
        )
    shape = (N, K, policy.distribution.action_dim)
    branches = np.asarray(actions)
    if branches.shape != shape:
        raise ValueError(f"actions: expected shape {shape}, got {branches.shape}.")
    if estimator == "exact_sum" and (every := len(all_actions(policy.distribution))) != K:
        raise ValueError(f"actions: expected all {every} in every state, got {K}.")
    if estimator == "self_normalized" and K < 2:
        raise ValueError(
            "actions: expected at least 2 samples in every state, got 1: its weight is always "
            "1, and nothing is learned."
        )
    return x, policy.checked_actions(branches.reshape(N * K, shape[2]), N * K), Q
