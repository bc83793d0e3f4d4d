"""The sides of ``training.py``: trainings by trpo_fast and its peers, parts of them, and their ceilings.

A side is a context that builds everything and yields a callable, which trains for a turn, or does a part
of a training, and returns the environment steps that it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.tools import report
from benchmarks.tools.side_process import Crew, Work

UPDATE_STEPS = 2048
PEER_ENVS = 8  # of trpo_fast's defaults


@dataclass(frozen=True)
class Task:
    """An environment, and how long a training lasts."""

    env: str
    updates: int  # that count, in turns
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    envpool: bool = True  # EnvPool has the same environment
    turn: int = 1  # updates of a turn
    peer_turn: int = 1

    @property
    def turns(self) -> int:
        """Turns of a training that count; one goes before them."""
        return max(1, self.updates // self.turn)


TASKS = {
    task.env: task
    for task in (
        Task("CartPole-v1", 64),
        Task("Pendulum-v1", 32),
        Task("Hopper-v5", 16),
        Task("HalfCheetah-v5", 16),
        Task("Ant-v5", 8),
        Task("Humanoid-v5", 8),
        Task("ale_py:ALE/Boxing-v5", 16, {"obs_type": "ram"}, envpool=False),
    )
}


def make(task: Task) -> Any:
    """One environment as everybody here gets it: without the passive checker."""
    import gymnasium

    report.quiet_simulator(task.env)
    return gymnasium.make(task.env, disable_env_checker=True, **task.env_kwargs)


# ---- the sides


@contextmanager
def environment_only(
    recording: Path, processes: int, turn: int, *, by_arrays: bool = False
) -> Iterator[Work]:
    """Bare environments through the recorded episodes."""
    if processes == 1:
        yield _replay_part(recording, slice(None), turn, by_arrays=by_arrays)
        return
    environments = _load(recording).n_envs
    bounds = [environments * p // processes for p in range(processes + 1)]
    crew = Crew(
        [partial(_replay_part, recording, slice(*bounds[p:][:2]), turn) for p in range(processes)]
    )
    try:
        yield crew
    finally:
        crew.close()


def _replay_part(recording: Path, part: slice, turn: int, *, by_arrays: bool = False) -> Work:
    from benchmarks.tools.replay import replay

    kept = _load(recording)
    report.quiet_simulator(kept.source)
    return replay(kept, part, iterations=turn, by_arrays=by_arrays)


def _load(recording: Path) -> Any:
    import pickle

    return pickle.loads(recording.read_bytes())  # written by this very run


@contextmanager
def rollout_only(recording: Path, workers: int, turn: int) -> Iterator[Work]:
    """The recorded rollouts again, with their policies."""
    from benchmarks.tools.replay import play_policies
    from trpo_fast import TRPO

    kept = _load(recording)
    report.quiet_simulator(kept.source)
    agent = TRPO(kept.source, env_kwargs=kept.env_kwargs, seed=kept.seed, n_workers=workers)
    with contextlib.closing(agent):
        yield play_policies(kept, agent, iterations=turn)


@contextmanager
def trpo_fast(source: str, task: Task, **settings: Any) -> Iterator[Work]:
    """trpo_fast, with its defaults but for the settings."""
    from benchmarks.tools.replay import learn_iterations
    from trpo_fast import TRPO

    report.quiet_simulator(source)
    agent = TRPO(source, env_kwargs=task.env_kwargs, seed=0, **settings)
    with contextlib.closing(agent):
        yield partial(learn_iterations, agent, task.turn)


@contextmanager
def sb3_contrib(task: Task) -> Iterator[Work]:
    """sb3-contrib with its defaults."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.logger import Logger

    env = make(task)
    model = TRPO("MlpPolicy", env, device="cpu", seed=0)
    model.set_logger(Logger(None, []))  # its default leaves a folder behind for every run

    def run() -> int:
        before = model.num_timesteps
        model.learn(task.peer_turn * UPDATE_STEPS, reset_num_timesteps=False)
        return int(model.num_timesteps - before)

    yield run
    env.close()


@contextmanager
def torch_trpo(task: Task) -> Iterator[Work]:
    """The plain PyTorch baseline with the settings of sb3-contrib."""
    import numpy as np
    from gymnasium.spaces import Box

    from benchmarks.peers.torch_trpo import Settings, TorchTRPO

    # sb3-contrib averages the KL over action dimensions: the same trust region in true KL
    env = make(task)
    dimensions = int(np.prod(env.action_space.shape)) if isinstance(env.action_space, Box) else 1
    env.close()
    settings = Settings(max_kl=0.01 * dimensions, cg_damping=0.1 * dimensions)
    agent = TorchTRPO(task.env, settings, seed=0, env_kwargs=task.env_kwargs)

    def run() -> int:
        before = agent.timesteps
        return agent.learn(task.peer_turn * UPDATE_STEPS).timesteps - before

    yield run


@contextmanager
def tianshou(task: Task, *, envpool: bool) -> Iterator[Work]:
    """Tianshou 2 with the settings of its MuJoCo example, but eight environments and our batch."""
    import numpy as np
    import torch
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv, VectorEnvNormObs
    from tianshou.trainer import OnPolicyTrainerParams

    from benchmarks.peers import tianshou_trpo

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (Tianshou draws from it)
    if envpool:
        import envpool as pools

        bare = pools.make_gymnasium(task.env, num_envs=PEER_ENVS, seed=0, **task.env_kwargs)
    else:
        bare = DummyVectorEnv([partial(make, task) for _ in range(PEER_ENVS)])
    environments = VectorEnvNormObs(bare)
    one = make(task)
    algorithm = tianshou_trpo.algorithm(one.observation_space, one.action_space)
    one.close()
    buffer = VectorReplayBuffer(UPDATE_STEPS, PEER_ENVS)
    collector: Any = Collector(algorithm, environments, buffer)
    params: Any = OnPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=task.peer_turn * UPDATE_STEPS,
        collection_step_num_env_steps=UPDATE_STEPS,
        batch_size=None,  # the whole batch
        update_step_num_repetitions=1,
        show_progress=False,
        verbose=False,
    )

    def run() -> int:
        algorithm.run_training(params)
        return int(collector.collect_step)

    yield run
    environments.close()


# ---- all sides of one environment


@dataclass(frozen=True)
class Plan:
    """A side of an environment's table."""

    group: str  # for --sides
    side: Any  # contextmanager function with its arguments bound
    ceiling: str | None = None  # the side that it is a share of
    packages: tuple[str, ...] = ()  # that it needs


def plans(task: Task, folder: Path, workers: int) -> dict[str, Plan]:
    """All sides of an environment, each beside its ceiling."""
    gym_recording, pool_recording = folder / "gymnasium.pickle", folder / "envpool.pickle"
    one, many = "environment only, 1 process", f"environment only, {workers} processes"
    pool_only = "EnvPool only"
    torch, sb3 = "torch", "sb3_contrib"
    bare, rollout = partial(environment_only, gym_recording, turn=task.turn), "rollout"
    ours = partial(trpo_fast, task.env, task)
    sides = {
        f"rollout only, {workers} workers": Plan(
            rollout, partial(rollout_only, gym_recording, workers, task.turn), many
        ),
        many: Plan("environment", partial(bare, processes=workers), many),
        f"trpo_fast, {workers} workers": Plan("trpo_fast", partial(ours, n_workers=workers), many),
        "trpo_fast, in process": Plan("trpo_fast", partial(ours, n_workers=0), one),
        one: Plan("environment", partial(bare, processes=1), one),
        "rollout only, in process": Plan(
            rollout, partial(rollout_only, gym_recording, 0, task.turn), one
        ),
        "trpo_fast, sb3 settings": Plan(
            "trpo_fast", partial(ours, preset="sb3", n_envs=1, n_workers=0), one
        ),
        "sb3-contrib": Plan("sb3", partial(sb3_contrib, task), one, (sb3, torch)),
        "torch_trpo": Plan("torch", partial(torch_trpo, task), one, (torch,)),
        "Tianshou": Plan(
            "tianshou", partial(tianshou, task, envpool=False), one, ("tianshou", torch)
        ),
    }
    if task.envpool:
        pool = ("envpool",)
        bare_pool = partial(environment_only, pool_recording, 1, task.turn)
        sides |= {
            "EnvPool only, by its arrays": Plan(
                "envpool", partial(bare_pool, by_arrays=True), pool_only, pool
            ),
            pool_only: Plan("envpool", bare_pool, pool_only, pool),
            "trpo_fast, EnvPool": Plan(
                "envpool", partial(trpo_fast, f"envpool:{task.env}", task), pool_only, pool
            ),
            "Tianshou, EnvPool": Plan(
                "tianshou",
                partial(tianshou, task, envpool=True),
                pool_only,
                (*pool, "tianshou", torch),
            ),
        }
    return sides


GROUPS = ("environment", "rollout", "trpo_fast", "sb3", "torch", "tianshou", "envpool")
