"""Tianshou 2's TRPO as its MuJoCo example builds it (examples/mujoco/mujoco_trpo.py)."""

from __future__ import annotations

from typing import Any

HIDDEN = (64, 64)
LEARNING_RATE = 1e-3


def algorithm(
    observations: Any, actions: Any, *, gamma: float = 0.99, scheduler: Any = None
) -> Any:
    """Networks, policy and algorithm; the policy acts by its mode outside training.

    Parameters
    ----------
    observations, actions
        Spaces of one environment; actions of a box or of a choice.
    gamma
        Discount factor.
    scheduler
        A factory of learning rates; None for a constant one.
    """
    import torch
    from gymnasium.spaces import Discrete
    from tianshou.algorithm import TRPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
    from torch.distributions import Categorical, Independent, Normal

    discrete = isinstance(actions, Discrete)

    def body() -> Any:
        return Net(state_shape=observations.shape, hidden_sizes=HIDDEN, activation=torch.nn.Tanh)

    actor: Any
    if discrete:
        actor = DiscreteActor(
            preprocess_net=body(), action_shape=int(actions.n), softmax_output=False
        )
        critic: Any = DiscreteCritic(preprocess_net=body())
    else:
        actor = ContinuousActorProbabilistic(
            preprocess_net=body(), action_shape=actions.shape, unbounded=True
        )
        torch.nn.init.constant_(actor.sigma_param, -0.5)
        critic = ContinuousCritic(preprocess_net=body())
    for module in (*actor.modules(), *critic.modules()):
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.orthogonal_(module.weight, 2**0.5)
            torch.nn.init.zeros_(module.bias)
    if not discrete:
        with torch.no_grad():  # the first actions are near 0
            for module in actor.mu.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.mul_(0.01)

    def distribution(output: Any) -> Any:
        return Categorical(logits=output) if discrete else Independent(Normal(*output), 1)

    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=distribution,
        action_space=actions,
        deterministic_eval=True,
        action_scaling=not discrete,
        action_bound_method=None if discrete else "clip",
    )
    optimizer = AdamOptimizerFactory(lr=LEARNING_RATE)
    if scheduler is not None:
        optimizer.with_lr_scheduler_factory(scheduler)
    return TRPO(
        policy=policy,
        critic=critic,
        optim=optimizer,
        max_kl=0.01,
        optim_critic_iters=20,
        advantage_normalization=True,
        gae_lambda=0.95,
        gamma=gamma,
        max_batchsize=99999,
        return_scaling=True,
    )
