"""The updates of other libraries on one synthetic batch: the peers of ``update.py``.

Every peer runs as its authors wrote it, at its own defaults; ``Work`` says in the terms of trpo_fast
what that is, so that trpo_fast can be given the same to do. Departures are named beside each peer.

    N batch rows, O = 17 observation width, A = 6 action width; networks O-64-64-A and O-64-64-1, tanh
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

OBS_DIM, ACTION_DIM, HIDDEN = 17, 6, (64, 64)
LEARNING_RATE = 1e-3  # of everybody's critic
GAMMA, GAE_LAMBDA = 0.99, 0.95


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one update does, in the terms of trpo_fast: KL summed over action dimensions."""

    n_rows: int  # N
    max_kl: float = 0.01  # δ, nats, mean over states
    cg_damping: float = 0.1
    cg_iterations: int = 10
    backtrack_ratio: float = 0.8
    line_search_steps: int = 10  # tries, the full step included
    value_epochs: int
    value_minibatch: int | None  # rows; None is the whole batch
    gae_steps: int | None = None  # T of a (T, N / T) rollout whose GAE the update estimates itself


@dataclass(frozen=True)
class Batch:
    """A synthetic rollout of N samples and the weights that everybody starts from."""

    observations: Array  # (N, O)
    actions: Array  # (N, A)
    log_probs: Array  # (N,)
    advantages: Array  # (N,)
    returns: Array  # (N,)
    policy: Array  # flat: W_0, b_0, ..., log_std
    value: Array  # flat: W_0, b_0, ...

    @property
    def rewards(self) -> Array:
        """(N,), of episodes of one step: what GAE turns into these returns ..."""
        return self.returns

    @property
    def values(self) -> Array:
        """(N,), ... and, as every step is terminated, into these advantages."""
        return self.returns - self.advantages


@dataclass
class Side:
    """One implementation: restore the start, train, and tell what came out."""

    prepare: Callable[[], object]
    train: Callable[[], object]
    cg_iterations: Callable[[], int]  # of the last call of train
    policy_parameters: Callable[[], Array]
    value_parameters: Callable[[], Array]
    note: Callable[[], str]


class Spaces(gym.Env[Array, Array]):
    """Only spaces; nobody steps it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)


class CallCounter:
    """A function that counts its calls: nanoseconds beside a Fisher-vector product."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


def torch_side(
    batch: Batch,
    actor: Sequence[Any],
    critic: Sequence[Any],
    optimizer: Any,
    train: Callable[[], object],
    *,
    cg_iterations: Callable[[], int],
    note: Callable[[], str],
    refill: Callable[[], object] = lambda: None,
) -> Side:
    """A side with its weights in PyTorch, in trpo_fast's flat order; `refill` restores the rest."""
    import torch

    from benchmarks.peers.torch_trpo import flatten, set_flat

    optimizer_state = copy.deepcopy(optimizer.state_dict())

    def prepare() -> None:
        set_flat(actor, torch.from_numpy(batch.policy))
        set_flat(critic, torch.from_numpy(batch.value))
        optimizer.load_state_dict(copy.deepcopy(optimizer_state))
        refill()

    return Side(
        prepare,
        train,
        cg_iterations,
        lambda: flatten([p.detach() for p in actor]).numpy(),
        lambda: flatten([p.detach() for p in critic]).numpy(),
        lambda: f"{cg_iterations()} CG iterations, {note()}",
    )


# ---- sb3-contrib


def sb3_work(n_rows: int) -> Work:
    """Its defaults; it averages the KL over action dimensions: δ and damping are A times larger."""
    return Work(
        n_rows=n_rows,
        max_kl=0.01 * ACTION_DIM,
        cg_damping=0.1 * ACTION_DIM,
        cg_iterations=15,
        value_epochs=10,
        value_minibatch=128,
    )


def sb3_contrib(batch: Batch, work: Work) -> Side:
    """``train()`` of sb3-contrib's TRPO with its defaults, on its own rollout buffer."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.logger import Logger

    model = TRPO("MlpPolicy", Spaces(), n_steps=work.n_rows, device="cpu", seed=0)
    model.set_logger(Logger(None, []))
    extractor, policy = model.policy.mlp_extractor, model.policy
    products = CallCounter(model.hessian_vector_product)
    model.hessian_vector_product = products

    def refill() -> None:
        products.calls = 0
        buffer = model.rollout_buffer
        buffer.reset()  # (N, 1, ...) again, as after a rollout
        buffer.observations[:, 0] = batch.observations
        buffer.actions[:, 0] = batch.actions
        buffer.log_probs[:, 0] = batch.log_probs
        buffer.advantages[:, 0] = batch.advantages
        buffer.returns[:, 0] = batch.returns
        buffer.full = True

    return torch_side(
        batch,
        [
            *extractor.policy_net.parameters(),
            *policy.action_net.parameters(),
            policy.log_std,
        ],
        [*extractor.value_net.parameters(), *policy.value_net.parameters()],
        policy.optimizer,
        model.train,
        # but one for the residual of its random start, and one for the step length
        cg_iterations=lambda: products.calls - 2,
        note=lambda: f"{products.calls} Fisher-vector products",
        refill=refill,
    )


def plain_torch(batch: Batch, work: Work) -> Side:
    """``update_policy`` and ``fit_value`` of ``torch_trpo.py``."""
    import torch

    from benchmarks.peers.torch_trpo import (
        GaussianPolicy,
        PolicyStep,
        Settings,
        actor_parameters,
        fit_value,
        mlp,
        update_policy,
    )

    settings = Settings(
        max_kl=work.max_kl,
        cg_damping=work.cg_damping,
        cg_iterations=work.cg_iterations,
        cg_tolerance=0.0,  # all iterations
        backtrack_ratio=work.backtrack_ratio,
        line_search_steps=work.line_search_steps,
        value_learning_rate=LEARNING_RATE,
        value_epochs=work.value_epochs,
        value_minibatch_size=work.value_minibatch or work.n_rows,
    )
    policy = GaussianPolicy(OBS_DIM, ACTION_DIM, HIDDEN, log_std=0.0)
    value = mlp([OBS_DIM, *HIDDEN, 1], output_gain=1.0)
    optimizer = torch.optim.Adam(value.parameters(), lr=LEARNING_RATE)
    observations = torch.from_numpy(batch.observations)
    actions, returns = torch.from_numpy(batch.actions), torch.from_numpy(batch.returns)
    advantages = torch.from_numpy(batch.advantages)
    last: list[PolicyStep] = []

    def train() -> None:
        last[:] = [update_policy(policy, observations, actions, advantages, settings)]
        fit_value(value, optimizer, observations, returns, settings)

    return torch_side(
        batch,
        actor_parameters(policy),
        list(value.parameters()),
        optimizer,
        train,
        cg_iterations=lambda: last[0].cg_iterations,
        note=lambda: f"{last[0].backtracks} backtracks",
    )


# ---- Tianshou


def tianshou_work(n_rows: int) -> Work:
    """Its defaults: ten CG iterations, five Adam steps of the critic on the whole batch."""
    return Work(n_rows=n_rows, value_epochs=5, value_minibatch=None)


def tianshou(batch: Batch, work: Work) -> Side:
    """``_update_with_batch`` of Tianshou 2's TRPO with its defaults.

    Advantages and old log-probabilities come with the batch, as from its ``_preprocess_batch``, which
    stays outside the clock; it has standardised the advantages, which trpo_fast does inside.
    """
    import torch
    from tianshou.algorithm import TRPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch as Samples
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
    from torch.distributions import Independent, Normal

    warnings.filterwarnings("ignore", "Backtracking to step", module="tianshou")

    def body() -> Any:
        return Net(state_shape=(OBS_DIM,), hidden_sizes=HIDDEN, activation=torch.nn.Tanh)

    actor = ContinuousActorProbabilistic(
        preprocess_net=body(), action_shape=(ACTION_DIM,), unbounded=True
    )
    critic = ContinuousCritic(preprocess_net=body())
    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=lambda output: Independent(Normal(*output), 1),
        action_space=Spaces.action_space,
        action_scaling=False,  # nobody acts
        action_bound_method=None,
    )
    algorithm: Any = TRPO(
        policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=LEARNING_RATE)
    )
    algorithm.train()
    products = CallCounter(algorithm._MVP)
    algorithm._MVP = products
    advantages = torch.from_numpy(batch.advantages)
    samples = Samples(
        obs=batch.observations,
        info=Samples(),
        act=torch.from_numpy(batch.actions),
        logp_old=torch.from_numpy(batch.log_probs),
        adv=(advantages - advantages.mean()) / advantages.std(),
        returns=torch.from_numpy(batch.returns),
    )

    def refill() -> None:
        products.calls = 0

    return torch_side(
        batch,
        [*actor.preprocess.parameters(), *actor.mu.parameters(), actor.sigma_param],
        [*critic.preprocess.parameters(), *critic.last.parameters()],
        algorithm.optim,
        lambda: algorithm._update_with_batch(samples, batch_size=None, repeat=1),
        cg_iterations=lambda: products.calls - 1,  # but one for the step length
        note=lambda: f"{products.calls} Fisher-vector products",
        refill=refill,
    )


# ---- skrl

SKRL_STEPS, SKRL_MINIBATCHES = 16, 2  # T of a rollout; minibatches of an epoch


def skrl_work(n_rows: int) -> Work:
    """Its defaults: step halving, eight epochs on halves of the batch, GAE inside the update."""
    if n_rows % (SKRL_STEPS * SKRL_MINIBATCHES):
        raise ValueError(
            f"--rows: expected multiples of {SKRL_STEPS * SKRL_MINIBATCHES} for skrl, whose rollout "
            f"has {SKRL_STEPS} steps and is cut into {SKRL_MINIBATCHES} minibatches, got {n_rows}"
        )
    return Work(
        n_rows=n_rows,
        backtrack_ratio=0.5,
        value_epochs=8,
        value_minibatch=n_rows // SKRL_MINIBATCHES,
        gae_steps=SKRL_STEPS,
    )


def skrl(batch: Batch, work: Work) -> Side:
    """``update()`` of skrl's TRPO with its defaults but two.

    Gradients are not clipped (``grad_norm_clip=0``; 0.5 by default), and a step is accepted if it
    improves the surrogate at all (``accept_ratio=0``; half of the predicted gain by default), because
    trpo_fast, like everybody else here, does so.
    """
    import torch
    from skrl.agents.torch.trpo import TRPO, trpo
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model

    from benchmarks.peers.torch_trpo import mlp

    spaces = {
        "observation_space": Spaces.observation_space,
        "action_space": Spaces.action_space,
        "device": "cpu",
    }

    class Policy(GaussianMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            GaussianMixin.__init__(self)
            self.net = mlp([OBS_DIM, *HIDDEN, ACTION_DIM], output_gain=0.01)
            self.log_std = torch.nn.Parameter(torch.zeros(ACTION_DIM))

        def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, dict[str, Any]]:
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Value(DeterministicMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.net = mlp([OBS_DIM, *HIDDEN, 1], output_gain=1.0)

        def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    policy, value = Policy(), Value()
    n_envs = work.n_rows // SKRL_STEPS
    memory = RandomMemory(memory_size=SKRL_STEPS, num_envs=n_envs, device="cpu")
    agent = TRPO(
        models={"policy": policy, "value": value},
        memory=memory,
        **spaces,
        cfg={
            "rollouts": SKRL_STEPS,
            "mini_batches": SKRL_MINIBATCHES,
            "grad_norm_clip": 0.0,
            "accept_ratio": 0.0,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
    )
    agent.init()
    agent.enable_models_training_mode(True)
    columns = {
        "observations": batch.observations,
        "actions": batch.actions,
        "log_prob": batch.log_probs,
        "rewards": batch.rewards,
        "values": batch.values,
        "terminated": np.ones(work.n_rows, np.bool_),
        "truncated": np.zeros(work.n_rows, np.bool_),
    }
    for name, rows in columns.items():
        stored = torch.from_numpy(rows).view(SKRL_STEPS, n_envs, -1)
        memory.set_tensor_by_name(name, stored)
    memory.filled = True
    agent._current_next_observations = torch.from_numpy(batch.observations[-n_envs:])

    original = trpo.fisher_vector_product  # a function of the module, not a method
    products = CallCounter(getattr(original, "function", original))

    def refill() -> None:
        products.calls = 0
        trpo.fisher_vector_product = products
        agent.tracking_data.clear()

    return torch_side(
        batch,
        [*policy.net.parameters(), policy.log_std],
        list(value.net.parameters()),
        agent.value_optimizer,
        lambda: agent.update(timestep=0, timesteps=1),
        cg_iterations=lambda: products.calls - 1,  # but one for the step length
        note=lambda: f"{products.calls} Fisher-vector products",
        refill=refill,
    )
