"""Recordings of a training, from which others do exactly the same steps with less around them.

How fast an environment steps depends on what it is made to do: a hopper that falls after twenty
steps is reset all the time, a leg in contact costs the simulator more than one in the air. So the
ceiling of a training is not the environment under random actions, but the environment under the
very actions of that training. A recording holds them, and the policies that chose them:

- :func:`replay` steps bare environments through the same episodes: the environment alone;
- :func:`play_policies` collects the same rollouts with the recorded policies: no learning.

Both go through the recording in turns of so many iterations, so that they can be timed in turns with
the training itself. Both must see the recorded rewards, bit for bit, or it was not the same work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from trpo_fast import TRPO, core
from trpo_fast.envs import make_environment
from trpo_fast.envs.envpool import is_envpool_source, make_pool, step_of
from trpo_fast.rollout import Budget, environment_seed

Episode = tuple[dict[str, Any], list[Any]]  # arguments of reset; actions


@dataclass
class Recording:
    """One training: its policies, and what they made of each environment."""

    source: str
    env_kwargs: dict[str, Any]
    seed: int
    n_envs: int
    budgets: list[int | Budget] = field(default_factory=list)  # of each iteration
    policies: list[tuple[NDArray[Any], core.Normalizer | None]] = field(default_factory=list)
    reward: float = 0.0  # of all transitions
    steps: int = 0  # transitions
    episodes: list[list[Episode]] = field(default_factory=list)  # of each environment
    pool_actions: list[NDArray[Any]] = field(default_factory=list)  # of an EnvPool, of each step
    pool_is_valid: list[NDArray[np.bool_]] = field(default_factory=list)  # no autoreset

    def turns(self, iterations: int | None) -> int:
        """Turns of so many iterations, which must go into the recording without a rest."""
        turns, rest = divmod(len(self.budgets), iterations or len(self.budgets))
        if rest:
            raise ValueError(f"iterations: {len(self.budgets)} are not turns of {iterations}")
        return turns


class _Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the arguments of reset and step."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.episodes: list[Episode] = []

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        self.episodes.append((arguments, []))
        return self.env.reset(**arguments)

    def step(self, action: Any) -> Any:
        self.episodes[-1][1].append(copy.copy(action))
        return self.env.step(action)


def learn_iterations(agent: TRPO, iterations: int) -> int:
    """Train for exactly so many iterations, and return their steps.

    An EnvPool's autoresets are no steps: by a number of steps it may take an iteration more.
    """
    before, goal = agent.timesteps, agent.iteration + iterations
    most = iterations * agent.config.batch_size
    agent.learn(most, callback=lambda agent, _: agent.iteration < goal, progress=False)
    return agent.timesteps - before


def record(source: str, iterations: int, env_kwargs: dict[str, Any], *, seed: int = 0) -> Recording:
    """Train as :class:`trpo_fast.TRPO` does by default, and keep what was done."""
    pool = is_envpool_source(source)
    recorders: list[_Recorder] = []

    def recorded() -> gym.Env[Any, Any]:
        recorders.append(_Recorder(make_environment(source, **env_kwargs)))
        return recorders[-1]

    agent = (
        TRPO(source, env_kwargs=env_kwargs, seed=seed, n_workers=0)
        if pool
        # the copies on which a trial finds out whether states can be saved are no part of training
        else TRPO(recorded, seed=seed, n_workers=0, save_environments=False)
    )
    recording = Recording(source, env_kwargs, seed, agent.sampler.n_envs)
    collect = agent.sampler.collect

    def collect_and_keep(budget: int | Budget, **arguments: Any) -> Any:
        recording.policies.append((agent.policy.parameters, agent.policy.normalizer))
        recording.budgets.append(budget)
        rollout = collect(budget, **arguments)
        recording.reward += float(rollout.rewards[rollout.valid].sum())
        if pool:
            to_env = agent.sampler.action_adapter.to_env
            recording.pool_actions += [np.array(to_env(row)) for row in rollout.actions]
            recording.pool_is_valid += list(rollout.valid)
        return rollout

    agent.sampler.collect = collect_and_keep  # type: ignore[method-assign]
    recording.steps = learn_iterations(agent, iterations)
    recording.episodes = [recorder.episodes for recorder in recorders if recorder.episodes]
    agent.close()
    return recording


def replay(
    recording: Recording,
    part: slice = slice(None),
    *,
    iterations: int | None = None,
    by_arrays: bool = False,
) -> Callable[[], int]:
    """Open bare environments and return the call that takes them through their episodes.

    ``part`` are the environments that this process steps, one after the other; a call is a turn of
    so many ``iterations``, by default all of them. ``by_arrays``: an EnvPool as trpo_fast steps it,
    around the dictionaries of its ``step``.
    """
    turns = recording.turns(iterations)
    if is_envpool_source(recording.source):
        return _replay_pool(recording, turns, step_of if by_arrays else attrgetter("step"))
    environments = [
        (
            make_environment(recording.source, **recording.env_kwargs),
            list(cut_into_turns(episodes, turns)),
        )
        for episodes in recording.episodes[part]
    ]
    coming = iter(range(turns))

    def run() -> int:
        turn = next(coming)
        steps = 0
        for env, pieces in environments:
            step = env.step
            for arguments, actions in pieces[turn]:
                if arguments is not None:
                    env.reset(**arguments)
                for action in actions:
                    step(action)
                steps += len(actions)
        return steps

    return run


def cut_into_turns(
    episodes: list[Episode], turns: int
) -> Iterator[list[tuple[dict[str, Any] | None, list[Any]]]]:
    """Episodes in so many turns of equally many steps; None: an episode goes on."""
    size = sum(len(actions) for _, actions in episodes) // turns
    turn: list[tuple[dict[str, Any] | None, list[Any]]] = []
    room = size
    for arguments, actions in episodes:
        begin: dict[str, Any] | None = arguments
        rest = actions
        while len(rest) >= room:
            yield [*turn, (begin, rest[:room])]
            begin, rest, turn, room = None, rest[room:], [], size
        if rest or begin is not None:
            turn.append((begin, rest))
            room -= len(rest)


def _replay_pool(
    recording: Recording, turns: int, step_of_pool: Callable[[Any], Any]
) -> Callable[[], int]:
    pool = make_pool(
        recording.source,
        seeds=[environment_seed(recording.seed, e, 0) for e in range(recording.n_envs)],
        kwargs=recording.env_kwargs,
        n_threads=threads_of_pool(recording.n_envs),
    )
    size = len(recording.pool_actions) // turns
    coming = iter(range(turns))

    def run() -> int:
        turn = next(coming)
        rows = slice(turn * size, (turn + 1) * size)
        if turn == 0:
            pool.reset()
        step = step_of_pool(pool)
        for actions in recording.pool_actions[rows]:
            step(actions)
        return int(np.count_nonzero(recording.pool_is_valid[rows]))

    return run


def threads_of_pool(n_envs: int) -> int:
    """Threads that ``TRPO("envpool:...")`` gives to its EnvPool."""
    from trpo_fast.rollout import available_cores

    return min(available_cores(), n_envs)


def check_replay(recording: Recording) -> None:
    """Step the bare environments once and compare the rewards.

    Raises
    ------
    RuntimeError
        They are not those of the recording.
    """
    total = 0.0
    if is_envpool_source(recording.source):
        pool = make_pool(
            recording.source,
            seeds=[environment_seed(recording.seed, e, 0) for e in range(recording.n_envs)],
            kwargs=recording.env_kwargs,
            n_threads=1,
        )
        pool.reset()
        for row, valid in zip(recording.pool_actions, recording.pool_is_valid, strict=True):
            total += float(np.asarray(pool.step(row)[1], np.float64)[valid].sum())
        pool.close()
    else:
        for episodes in recording.episodes:
            env = make_environment(recording.source, **recording.env_kwargs)
            for arguments, actions in episodes:
                env.reset(**arguments)
                for action in actions:
                    total += float(env.step(action)[1])
            env.close()
    _compare(recording, total, "the bare environments")


def play_policies(
    recording: Recording, agent: TRPO, *, iterations: int | None = None
) -> Callable[[], int]:
    """Return the call that collects the recorded rollouts again, with a fresh agent's sampler.

    A call is a turn of so many ``iterations``, by default all of them.
    """
    size = len(recording.budgets) // recording.turns(iterations)
    coming = iter(list(zip(recording.budgets, recording.policies, strict=True)))
    total, steps = 0.0, 0

    def run() -> int:
        nonlocal total, steps
        before = steps
        for budget, (parameters, normalizer) in islice(coming, size):
            agent.policy.parameters = parameters
            if normalizer is not None:
                agent.policy.set_normalizer(
                    normalizer.mean,
                    normalizer.variance,
                    clip=normalizer.clip,
                    epsilon=normalizer.epsilon,
                )
            rollout = agent.sampler.collect(budget)
            total += float(rollout.rewards[rollout.valid].sum())
            steps += rollout.n_transitions
        if steps == recording.steps:
            _compare(recording, total, "the rollouts")
        return steps - before

    return run


def _compare(recording: Recording, total: float, who: str) -> None:
    # episodes are summed in another order
    if not np.isclose(total, recording.reward, rtol=1e-9, atol=1e-9):
        raise RuntimeError(
            f"{recording.source}: {who} got a reward of {total!r} where the training got "
            f"{recording.reward!r}; not the same work"
        )
