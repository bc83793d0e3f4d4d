"""The other sides of ``learning.py``: peers with their documented settings, evaluated as we are.

A side trains one seed and returns the record that ours returns. Peers that normalise observations are
evaluated with the statistics that they have at that moment, by deterministic episodes in an environment
of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.tools import report

if TYPE_CHECKING:
    from benchmarks.learning.method_runs import Curve, Job

Evaluate = Callable[[int, int], list[float]]  # episodes, seed -> returns


def _make(job: Job) -> Any:
    import gymnasium

    report.quiet_simulator(job.env)
    return gymnasium.make(job.env, disable_env_checker=True, **job.env_kwargs)


def _evaluator(job: Job, act: Callable[[Any], Any]) -> Evaluate:
    """Episodes in an environment of their own; episode i of a seed starts as it does for our side."""
    from trpo_fast.evaluation import evaluate_policy

    env = _make(job)
    return lambda episodes, seed: [
        float(value) for value in evaluate_policy(act, env, episodes, seed=seed).returns
    ]


# ---- Stable-Baselines3 and sb3-contrib


def _train_sb3(
    job: Job, curve: Curve, algorithm: Any, n_envs: int, settings: dict[str, Any]
) -> tuple[int, list[float]]:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    gamma = settings.get("gamma", 0.99)
    env = VecNormalize(DummyVecEnv([lambda: _make(job) for _ in range(n_envs)]), gamma=gamma)
    env.seed(job.seed)
    model = algorithm("MlpPolicy", env, seed=job.seed, device="cpu", **settings)
    model.set_logger(Logger(None, []))  # its default leaves a folder behind for every run

    def act(observation: Any) -> Any:
        return model.predict(env.normalize_obs(observation), deterministic=True)[0]

    evaluate = _evaluator(job, act)

    class Watch(BaseCallback):
        """Looks at the curve where a rollout ends, which is where the policy has not moved since."""

        def _on_rollout_start(self) -> None:
            curve.look(model.num_timesteps, lambda seed: evaluate(job.episodes, seed))

        def _on_step(self) -> bool:
            return True

    model.learn(job.timesteps, callback=Watch())
    return int(model.num_timesteps), evaluate(job.final_episodes, _final_seed())


def sb3_contrib(job: Job, curve: Curve) -> tuple[int, list[float]]:
    """TRPO of sb3-contrib, rl-baselines3-zoo's settings for MuJoCo (hyperparams/trpo.yml)."""
    from sb3_contrib import TRPO

    settings: dict[str, Any] = {
        "n_steps": 1024,
        "batch_size": 128,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "sub_sampling_factor": 1,
        "cg_max_steps": 25,
        "cg_damping": 0.1,
        "n_critic_updates": 20,
        "learning_rate": 1e-3,
    }
    if job.env.startswith("HalfCheetah"):
        settings["target_kl"] = 0.04
    return _train_sb3(job, curve, TRPO, 2, {**settings, **job.settings})


def sb3_ppo(job: Job, curve: Curve) -> tuple[int, list[float]]:
    """PPO of Stable-Baselines3 with its own defaults and VecNormalize, one environment."""
    from stable_baselines3 import PPO

    return _train_sb3(job, curve, PPO, 1, dict(job.settings))


def sbx_ppo(job: Job, curve: Curve) -> tuple[int, list[float]]:
    """PPO of SBX, on JAX, with its own defaults and VecNormalize, one environment."""
    from sbx import PPO

    return _train_sb3(job, curve, PPO, 1, dict(job.settings))


# ---- Tianshou

_EPOCH = 30_000  # environment steps, of its MuJoCo example
_COLLECTED = 1_024  # for an update


def tianshou(job: Job, curve: Curve) -> tuple[int, list[float]]:
    """TRPO of Tianshou 2 with the settings of its MuJoCo example: 16 environments, falling rate."""
    import numpy as np
    import torch
    from tianshou.algorithm.optim import LRSchedulerFactoryLinear
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv, VectorEnvNormObs
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.torch_utils import policy_within_training_step

    from benchmarks.peers import tianshou_trpo

    torch.manual_seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002  (Tianshou draws from it)
    epoch = min(_EPOCH, job.timesteps)
    epochs = -(-job.timesteps // epoch)
    environments = VectorEnvNormObs(DummyVectorEnv([lambda: _make(job) for _ in range(16)]))
    environments.seed(job.seed)
    one = _make(job)
    algorithm = tianshou_trpo.algorithm(
        one.observation_space,
        one.action_space,
        scheduler=LRSchedulerFactoryLinear(epochs, epoch, _COLLECTED),
        **job.settings,
    )
    one.close()
    collector: Any = Collector(algorithm, environments, VectorReplayBuffer(4_096, 16))

    def act(observation: Any) -> Any:
        return algorithm.policy.compute_action(environments.get_obs_rms().norm(observation))

    evaluate = _evaluator(job, act)

    def look(epoch: int, steps: int) -> None:
        with policy_within_training_step(algorithm.policy, enabled=False):  # acts by its mode
            curve.look(steps, lambda seed: evaluate(job.episodes, seed))

    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            training_fn=look,
            max_epochs=epochs,
            epoch_num_steps=epoch,
            collection_step_num_env_steps=_COLLECTED,
            batch_size=None,  # the whole batch
            update_step_num_repetitions=1,
            show_progress=False,
            verbose=False,
        )
    )
    return int(collector.collect_step), evaluate(job.final_episodes, _final_seed())


def _final_seed() -> int:
    from benchmarks.learning.method_runs import EVALUATION_SEED

    return EVALUATION_SEED


SIDES: dict[str, tuple[Any, Sequence[str]]] = {
    "sb3-contrib": (sb3_contrib, ("sb3_contrib", "torch")),
    "sb3-ppo": (sb3_ppo, ("stable_baselines3", "torch")),
    "sbx-ppo": (sbx_ppo, ("sbx", "jax")),
    "tianshou": (tianshou, ("tianshou", "torch")),
}
"""Name -> how it trains a job, and the packages that it needs."""


def train_side(job: Job, curve: Curve) -> dict[str, Any]:
    """Train a job by the side that its kind names; versions, final returns and seconds.

    Parameters
    ----------
    job
        The training.
    curve
        Takes the evaluations on the way.
    """
    import warnings

    warnings.simplefilter("ignore")  # of peers about each other's versions
    report.use_threads(1)
    side, packages = SIDES[job.kind]
    start = time.perf_counter()
    timesteps, final = side(job, curve)
    return {
        "timesteps": timesteps,
        "final_returns": final,
        "seconds": time.perf_counter() - start - curve.seconds,
        "versions": {name: report.version(name.replace("_", "-")) for name in packages},
    }
