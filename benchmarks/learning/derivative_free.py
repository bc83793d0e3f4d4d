"""Search without derivatives over the same policy class: the cross-entropy method and CMA-ES.

The baselines that the TRPO paper names (Schulman et al. 2015, section 8.1):

    python benchmarks/learning/derivative_free.py --method cem --env CartPole-v1 --timesteps 200000
    python benchmarks/learning/derivative_free.py --method cma-es --env HalfCheetah-v5 --hidden --seed 1

Both see a policy as a vector of weights theta and its worth as the return of whole episodes:

    ask for theta_1 ... theta_n around the mean, play each, tell their returns, ask again

Actions are the policy's mode, and observations are normalised by the running statistics of all
steps so far, as in the other methods. A batch of steps ends with the episode that passes it, so a
run may take up to one episode more than was asked for. CMA-ES comes from the package ``cmaes``
(the ``bench`` extra): with the full covariance up to 500 weights, with a diagonal one (sep-CMA-ES,
Ros and Hansen 2008) beyond, where the full one would cost more than the episodes.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trpo_fast import core
from trpo_fast.envs import ActionAdapter, ObservationEncoder, make_environment

Vector = NDArray[np.float64]
FULL_COVARIANCE_LIMIT = 500  # weights


# ---- the two methods: ask for a population, tell its returns


class Search(Protocol):
    """A distribution over weight vectors that moves towards the better ones."""

    @property
    def mean(self) -> Vector:
        """(D,) centre of the distribution."""

    def ask(self) -> Vector:
        """(n, D) weight vectors to play."""

    def tell(self, thetas: Vector, returns: Vector) -> None:
        """Learn from the returns (n,) of what :meth:`ask` gave."""


class CrossEntropyMethod:
    """Szita and Lőrincz 2006, "Learning Tetris using the noisy cross-entropy method".

        theta_i ~ N(mean, diag(std^2)),  i = 1 ... n
        elite = the best elite_fraction n of them
        mean, std^2 <- mean and variance of the elite, plus noise max(Z_0 - k Z_1, 0) on std^2

    The noise, decreasing in the generations k, keeps the distribution from collapsing early.
    Here Z_0 = (extra_std std_0)^2 and it reaches 0 after ``extra_generations``.
    """

    def __init__(
        self,
        mean: Vector,
        *,
        std: float = 0.5,
        population_size: int = 20,
        elite_fraction: float = 0.25,
        extra_std: float = 0.2,
        extra_generations: int = 50,
        seed: int = 0,
    ) -> None:
        self.mean = np.array(mean, np.float64)
        self.std = np.full(self.mean.shape, std)
        self.population_size = population_size
        self.n_elite = max(2, round(elite_fraction * population_size))
        self._extra = (extra_std * std) ** 2
        self._extra_generations = extra_generations
        self._generation = 0
        self._random = np.random.default_rng(seed)

    def ask(self) -> Vector:
        noise = self._random.standard_normal((self.population_size, len(self.mean)))
        return np.asarray(self.mean + self.std * noise)

    def tell(self, thetas: Vector, returns: Vector) -> None:
        elite = thetas[np.argsort(-returns, kind="stable")[: self.n_elite]]
        self._generation += 1
        extra = self._extra * max(0.0, 1.0 - self._generation / self._extra_generations)
        self.mean = elite.mean(axis=0)
        self.std = np.sqrt(elite.var(axis=0) + extra)


class CMAES:
    """Covariance matrix adaptation (Hansen and Ostermeier 2001), by the package ``cmaes``."""

    def __init__(
        self, mean: Vector, *, std: float = 0.5, population_size: int | None = None, seed: int = 0
    ) -> None:
        try:
            import cmaes
        except ImportError:
            raise ImportError(
                "CMA-ES: expected the package cmaes, found none; pip install cmaes"
            ) from None
        small = len(mean) <= FULL_COVARIANCE_LIMIT
        self._search: Any = (cmaes.CMA if small else cmaes.SepCMA)(
            mean=np.array(mean, np.float64), sigma=std, seed=seed, population_size=population_size
        )

    @property
    def mean(self) -> Vector:
        return np.array(self._search._mean)

    def ask(self) -> Vector:
        return np.stack([self._search.ask() for _ in range(self._search.population_size)])

    def tell(self, thetas: Vector, returns: Vector) -> None:
        self._search.tell([(theta, -r) for theta, r in zip(thetas, returns, strict=True)])


# ---- worth of a weight vector: whole episodes


class Player:
    """One environment and one policy, into which weight vectors are put."""

    def __init__(
        self,
        env_id: str,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        seed: int = 0,
        normalize_observations: bool = True,
    ) -> None:
        self.env = make_environment(env_id)
        self._encoder = ObservationEncoder.from_space(self.env.observation_space)
        self._adapter = ActionAdapter.from_space(self.env.action_space)
        self.policy = core.Policy(
            self._encoder.dim, self._adapter.distribution, hidden_sizes=hidden_sizes, seed=seed
        )
        # log_std plays no part in the mode, so it is no dimension to search
        self.n_weights = self.policy.n_parameters - self._adapter.distribution.n_free_parameters
        self.statistics = core.RunningStatistics(self._encoder.dim)
        self.timesteps = 0
        self._normalize = normalize_observations
        self._seeds = np.random.default_rng(seed)

    def play(self, theta: Vector, *, learn_statistics: bool = True) -> float:
        """Return of one episode of the mode of the policy at ``theta`` (n_weights,)."""
        parameters = self.policy.parameters
        parameters[: self.n_weights] = theta
        self.policy.parameters = parameters
        if self._normalize and self.statistics.count > 0:
            self.policy.set_normalizer(self.statistics.mean, self.statistics.variance)
        observations: list[NDArray[Any]] = []
        total, over = 0.0, False
        observation, _ = self.env.reset(seed=int(self._seeds.integers(2**31)))
        while not over:
            row = self._encoder.encode(observation)[None]
            observations.append(row)
            action = self._adapter.to_env(self.policy.act(row, deterministic=True)[0])
            observation, reward, terminated, truncated, _ = self.env.step(action)
            total += float(reward)
            over = terminated or truncated
        if learn_statistics:
            self.timesteps += len(observations)
            if self._normalize:
                self.statistics.update(np.concatenate(observations))
        return total

    def close(self) -> None:
        self.env.close()


@dataclass
class Run:
    """Learning curve of a search, one entry a generation, and the mean's final evaluation."""

    timesteps: list[int] = field(default_factory=list)
    mean_returns: list[float] = field(default_factory=list)  # over the population
    best_returns: list[float] = field(default_factory=list)
    final_returns: Vector = field(default_factory=lambda: np.zeros(0))
    seconds: float = 0.0


METHODS: dict[str, Callable[..., Search]] = {"cem": CrossEntropyMethod, "cma-es": CMAES}


def search(
    method: str,
    env_id: str,
    *,
    timesteps: int,
    seed: int = 0,
    hidden_sizes: Sequence[int] = (64, 64),
    std: float = 0.5,
    evaluation_episodes: int = 20,
    progress: Callable[[Run], None] | None = None,
    **settings: Any,
) -> Run:
    """Search ``timesteps`` environment steps long; evaluate the mean of the last distribution.

    ``settings`` are those of the method. The search starts at zero weights with deviation ``std``.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    started = time.perf_counter()
    player = Player(env_id, hidden_sizes=hidden_sizes, seed=seed)
    run = Run()
    try:
        distribution = METHODS[method](np.zeros(player.n_weights), std=std, seed=seed, **settings)
        while player.timesteps < timesteps:
            thetas = distribution.ask()
            returns = np.array([player.play(theta) for theta in thetas])
            distribution.tell(thetas, returns)
            run.timesteps.append(player.timesteps)
            run.mean_returns.append(float(returns.mean()))
            run.best_returns.append(float(returns.max()))
            if progress is not None:
                progress(run)
        run.final_returns = np.array(
            [
                player.play(distribution.mean, learn_statistics=False)
                for _ in range(evaluation_episodes)
            ]
        )
    finally:
        player.close()
    run.seconds = time.perf_counter() - started
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--method", choices=sorted(METHODS), default="cem")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--timesteps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--std", type=float, default=0.5, help="initial deviation of the weights")
    parser.add_argument(
        "--hidden", type=int, nargs="*", default=[64, 64], help="units; none for a linear policy"
    )
    parser.add_argument("--population", type=int, default=None)
    parser.add_argument("--csv", type=Path, default=None, help="write the learning curve here")
    options = parser.parse_args(arguments)
    settings = {} if options.population is None else {"population_size": options.population}

    def show(run: Run) -> None:
        sys.stderr.write(
            f"\r{run.timesteps[-1]:>10,} steps  mean {run.mean_returns[-1]:>10.1f}  "
            f"best {run.best_returns[-1]:>10.1f}"
        )

    run = search(
        options.method,
        options.env,
        timesteps=options.timesteps,
        seed=options.seed,
        hidden_sizes=tuple(options.hidden),
        std=options.std,
        progress=show if sys.stderr.isatty() else None,
        **settings,
    )
    final = run.final_returns
    print(
        f"\n{options.method} {options.env} seed {options.seed}: {run.timesteps[-1]:,} steps, "
        f"{run.seconds:.0f} s, return {final.mean():.1f} ± {final.std():.1f}"
    )
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["timesteps", "mean_return", "best_return"])
            writer.writerows(zip(run.timesteps, run.mean_returns, run.best_returns, strict=True))


if __name__ == "__main__":
    main()
