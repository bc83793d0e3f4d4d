"""A plain PyTorch TRPO in one file: the baseline of the benchmarks.

It does what the usual libraries do, without their machinery: Fisher-vector products by double
backpropagation, conjugate gradient, backtracking line search, GAE, and a critic fitted by Adam on
minibatches. It is written to be read and to be as fast as plain PyTorch allows; nothing is held
back. KL is summed over action dimensions and averaged over states.

    python benchmarks/peers/torch_trpo.py CartPole-v1 --total-timesteps 50_000

trains it by itself. ``fvp.py``, ``update.py`` and ``training.py`` import it.

    T steps, E environments, N = T E batch rows, O observation width, A action width
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run; the defaults are those of sb3-contrib, but for the true KL."""

    n_envs: int = 1
    n_steps: int = 2048  # T, steps of each environment per update
    gamma: float = 0.99
    gae_lambda: float = 0.95
    hidden_sizes: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    max_kl: float = 0.01  # δ, nats, mean over states
    cg_iterations: int = 15
    cg_tolerance: float = 1e-6  # relative residual
    cg_damping: float = 0.1
    backtrack_ratio: float = 0.8
    line_search_steps: int = 10
    value_learning_rate: float = 1e-3
    value_epochs: int = 10
    value_minibatch_size: int = 128


# ---- networks


def mlp(sizes: Sequence[int], output_gain: float) -> nn.Sequential:
    """Linear, tanh, ..., Linear with orthogonal weights of gain √2 and zero biases."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, 2.0**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    nn.init.orthogonal_(last.weight, output_gain)
    return nn.Sequential(*layers[:-1])


class GaussianPolicy(nn.Module):
    """Diagonal Gaussian whose mean is a network and whose log-std is a free vector."""

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: Sequence[int], log_std: float
    ) -> None:
        super().__init__()
        self.net = mlp([obs_dim, *hidden, action_dim], output_gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std))

    def forward(self, observations: Tensor) -> Distribution:
        """π(·|s) for each row."""
        return Independent(Normal(self.net(observations), self.log_std.exp()), 1)


class CategoricalPolicy(nn.Module):
    """Categorical distribution whose logits are a network."""

    def __init__(self, obs_dim: int, n_actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([obs_dim, *hidden, n_actions], output_gain=0.01)

    def forward(self, observations: Tensor) -> Distribution:
        """π(·|s) for each row."""
        return Categorical(logits=self.net(observations))


# ---- flat parameters


def actor_parameters(policy: nn.Module) -> list[nn.Parameter]:
    """Weights and biases in layer order, then log_std: the flat order of trpo_fast."""
    named = dict(policy.named_parameters())
    last = [named.pop("log_std")] if "log_std" in named else []
    return [*named.values(), *last]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors into one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])


@torch.no_grad()
def set_flat(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Write a flat vector back into the parameters."""
    start = 0
    for p in parameters:
        p.copy_(flat[start : start + p.numel()].view_as(p))
        start += p.numel()


# ---- policy update


class DoubleBackpropFisher:
    """v -> (F + damping I) v as the gradient of (∇KL)ᵀ v. The graph of ∇KL is built once."""

    def __init__(
        self,
        policy: Callable[[Tensor], Distribution],
        parameters: Sequence[nn.Parameter],
        observations: Tensor,
        *,
        damping: float = 0.0,
    ) -> None:
        self._parameters = list(parameters)
        self._damping = damping
        with torch.no_grad():
            old = policy(observations)
        kl = kl_divergence(old, policy(observations)).mean()
        gradient = torch.autograd.grad(kl, self._parameters, create_graph=True)
        self._kl_gradient = flatten(gradient)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product; `vector` is flat."""
        product = torch.autograd.grad(
            self._kl_gradient @ vector, self._parameters, retain_graph=True
        )
        return flatten(product).add_(vector, alpha=self._damping)


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor], b: Tensor, *, iterations: int, tolerance: float
) -> tuple[Tensor, int]:
    """Solve A x = b from x = 0; stop at ‖b - A x‖ ≤ tolerance ‖b‖. Returns x and iterations."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = r @ r
    stop = tolerance**2 * rr
    for iteration in range(iterations):
        if rr <= stop:
            return x, iteration
        q = operator(p)
        alpha = rr / (p @ q)
        x += alpha * p
        r -= alpha * q
        rr_new = r @ r
        p = r + (rr_new / rr) * p
        rr = rr_new
    return x, iterations


@dataclass(frozen=True)
class PolicyStep:
    """What an update did."""

    accepted: bool
    kl: float
    surrogate_gain: float
    cg_iterations: int
    backtracks: int


def update_policy(
    policy: nn.Module,
    observations: Tensor,
    actions: Tensor,
    advantages: Tensor,
    settings: Settings,
) -> PolicyStep:
    """One TRPO step on a batch; the policy is changed in place, or left as it was."""
    parameters = actor_parameters(policy)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    with torch.no_grad():
        old = policy(observations)
        old_log_prob = old.log_prob(actions)

    # g, the gradient of the surrogate mean(ratio · advantage)
    ratio = torch.exp(policy(observations).log_prob(actions) - old_log_prob)
    surrogate = (ratio * advantages).mean()
    g = flatten(torch.autograd.grad(surrogate, parameters))

    # x ≈ (F + λ I)⁻¹ g, scaled onto the trust region
    fisher = DoubleBackpropFisher(policy, parameters, observations, damping=settings.cg_damping)
    x, iterations = conjugate_gradient(
        fisher, g, iterations=settings.cg_iterations, tolerance=settings.cg_tolerance
    )
    step = x * torch.sqrt(2.0 * settings.max_kl / (x @ g))

    # largest α^j that keeps KL ≤ δ and improves the surrogate
    theta = flatten([p.detach() for p in parameters])
    scale = 1.0
    with torch.no_grad():
        for backtracks in range(settings.line_search_steps):
            set_flat(parameters, theta + scale * step)
            new = policy(observations)
            ratio = torch.exp(new.log_prob(actions) - old_log_prob)
            gain = float((ratio * advantages).mean() - surrogate)
            kl = float(kl_divergence(old, new).mean())
            if kl <= settings.max_kl and gain > 0.0:
                return PolicyStep(True, kl, gain, iterations, backtracks)
            scale *= settings.backtrack_ratio
        set_flat(parameters, theta)
    return PolicyStep(False, 0.0, 0.0, iterations, settings.line_search_steps)


# ---- value function


def fit_value(
    value: nn.Module,
    optimizer: torch.optim.Optimizer,
    observations: Tensor,
    returns: Tensor,
    settings: Settings,
) -> None:
    """Adam on the mean squared error over shuffled minibatches."""
    for _ in range(settings.value_epochs):
        order = torch.randperm(len(returns))
        for rows in order.split(settings.value_minibatch_size):
            loss = nn.functional.mse_loss(value(observations[rows]).squeeze(-1), returns[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def gae(
    rewards: FloatArray,
    values: FloatArray,
    next_values: FloatArray,
    terminated: BoolArray,
    truncated: BoolArray,
    gamma: float,
    gae_lambda: float,
) -> tuple[FloatArray, FloatArray]:
    """Advantages and returns, all arrays (T, E); next_values is V of the true successor."""
    delta = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    carry = gamma * gae_lambda * ~(terminated | truncated)
    advantages = np.zeros_like(delta)
    running = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = delta[t] + carry[t] * running
        advantages[t] = running
    return advantages, advantages + values


# ---- agent


class TorchTRPO:
    """TRPO on E copies of a Gymnasium environment, stepped in this process."""

    def __init__(
        self,
        env_id: str,
        settings: Settings | None = None,
        *,
        seed: int = 0,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        torch.manual_seed(seed)
        self.envs = [
            gym.make(env_id, disable_env_checker=True, **(env_kwargs or {}))
            for _ in range(self.settings.n_envs)
        ]
        observation_space, action_space = self.envs[0].observation_space, self.envs[0].action_space
        if not isinstance(observation_space, gym.spaces.Box):
            raise TypeError(f"observation space: expected Box, got {observation_space}")
        obs_dim, hidden = int(np.prod(observation_space.shape)), self.settings.hidden_sizes
        self.policy: nn.Module
        self._bounds: tuple[FloatArray, FloatArray] | None
        if isinstance(action_space, gym.spaces.Box):
            action_dim = int(np.prod(action_space.shape))
            log_std = self.settings.initial_log_std
            self.policy = GaussianPolicy(obs_dim, action_dim, hidden, log_std)
            self._bounds = (action_space.low, action_space.high)
        elif isinstance(action_space, gym.spaces.Discrete):
            self.policy = CategoricalPolicy(obs_dim, int(action_space.n), hidden)
            self._bounds = None
        else:
            raise TypeError(f"action space: expected Box or Discrete, got {action_space}")
        self.value = mlp([obs_dim, *hidden, 1], output_gain=1.0)
        self.optimizer = torch.optim.Adam(
            self.value.parameters(), lr=self.settings.value_learning_rate
        )
        self.timesteps = 0
        self.episode_returns: list[float] = []
        self._observations = np.stack(
            [env.reset(seed=seed + e)[0] for e, env in enumerate(self.envs)]
        ).astype(np.float32)
        self._running_returns = np.zeros(len(self.envs))

    def learn(self, total_timesteps: int) -> TorchTRPO:
        """Collect, estimate advantages, update the policy, fit the value function; repeat."""
        start = self.timesteps
        while self.timesteps - start < total_timesteps:
            observations, actions, advantages, returns = self._collect()
            update_policy(self.policy, observations, actions, advantages, self.settings)
            fit_value(self.value, self.optimizer, observations, returns, self.settings)
        return self

    def _collect(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        T, E = self.settings.n_steps, len(self.envs)
        observations = np.empty((T, E, self._observations.shape[1]), np.float32)
        successors = np.empty_like(observations)
        rewards = np.empty((T, E), np.float32)
        terminated, truncated = np.zeros((T, E), np.bool_), np.zeros((T, E), np.bool_)
        actions = []

        for t in range(T):
            observations[t] = self._observations
            with torch.no_grad():
                sampled = self.policy(torch.from_numpy(observations[t])).sample()
            actions.append(sampled)
            for e, (env, action) in enumerate(zip(self.envs, sampled.numpy(), strict=True)):
                taken = np.clip(action, *self._bounds) if self._bounds else action
                obs, reward, terminated[t, e], truncated[t, e], _ = env.step(taken)
                successors[t, e], rewards[t, e] = obs, float(reward)
                self._running_returns[e] += float(reward)
                if terminated[t, e] or truncated[t, e]:
                    self.episode_returns.append(float(self._running_returns[e]))
                    self._running_returns[e] = 0.0
                    obs, _ = env.reset()
                self._observations[e] = obs
        self.timesteps += T * E

        with torch.no_grad():
            values = self.value(torch.from_numpy(observations)).squeeze(-1).numpy()
            next_values = self.value(torch.from_numpy(successors)).squeeze(-1).numpy()
        advantages, returns = gae(
            rewards,
            values,
            next_values,
            terminated,
            truncated,
            self.settings.gamma,
            self.settings.gae_lambda,
        )
        flat_observations = torch.from_numpy(observations.reshape(T * E, -1))
        return (
            flat_observations,
            torch.stack(actions).flatten(0, 1),
            torch.from_numpy(advantages.astype(np.float32).ravel()),
            torch.from_numpy(returns.astype(np.float32).ravel()),
        )

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


def main() -> None:
    """Train and print the mean return as it goes."""
    parser = argparse.ArgumentParser(description="train the plain PyTorch TRPO by itself")
    parser.add_argument("env", help="Gymnasium id, for instance CartPole-v1")
    parser.add_argument("--total-timesteps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()

    torch.set_num_threads(flags.threads)
    agent = TorchTRPO(flags.env, seed=flags.seed)
    start = time.perf_counter()
    while agent.timesteps < flags.total_timesteps:
        agent.learn(1)
        recent = agent.episode_returns[-20:]
        mean = float(np.mean(recent)) if recent else float("nan")
        speed = agent.timesteps / (time.perf_counter() - start)
        print(f"{agent.timesteps:>9} steps  return {mean:9.2f}  {speed:7.0f} steps/s", flush=True)
    agent.close()


if __name__ == "__main__":
    main()
