"""Masks of an EnvPool: arrays in its infos, or a part of its observations. Here they are in a stand-in
with its interface, which knows the truth; test_envpool.py plays a task of EnvPool that has masks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from masked_envs import SIZES, SPACES, MaskedEnv
from trpo_fast import TRPO
from trpo_fast.rollout import PoolSampler, make_sampler
from worker_envs import assert_same, with_policy

KINDS = tuple(SPACES)


class Pool(VectorEnv[Any, Any, Any]):
    """Masked environments as EnvPool's Gymnasium interface shows them.

    Arrays of all environments in ``infos`` beside ``env_id``, no flags of who has them; observations of a
    Dict space as a dictionary of arrays; an environment is reset by the step after its end.
    """

    metadata: ClassVar[Any] = {"autoreset_mode": "NextStep"}

    def __init__(self, kind: str, source: str, n: int) -> None:
        self.envs = [MaskedEnv(kind, source) for _ in range(n)]
        self.all_env_ids = np.arange(n, dtype=np.int32)
        self.num_envs, self.is_async, self.source = n, False, source
        self.config = {"num_envs": n, "max_num_players": 1}
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.ended = np.zeros(n, bool)
        self.elapsed = np.zeros(n, np.int32)

    def _stacked(self, answers: list[tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
        infos: dict[str, Any] = {"env_id": self.all_env_ids, "elapsed_step": self.elapsed.copy()}
        infos["players"] = {"env_id": self.all_env_ids}
        if self.source == "info":
            infos["action_mask"] = np.stack([info["action_mask"] for _, info in answers])
        first = answers[0][0]
        if isinstance(first, dict):
            return {key: np.stack([x[key] for x, _ in answers]) for key in first}, infos
        return np.stack([x for x, _ in answers]), infos

    def reset(self) -> tuple[Any, dict[str, Any]]:
        self.ended[:], self.elapsed[:] = False, 0
        return self._stacked([env.reset(seed=i) for i, env in enumerate(self.envs)])

    def step(self, actions: Any) -> tuple[Any, ...]:
        answers, rewards = [], np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        for e, env in enumerate(self.envs):
            if self.ended[e]:
                answers.append(env.reset())
                self.elapsed[e] = 0
                continue
            observation, rewards[e], terminated[e], truncated[e], info = env.step(actions[e])
            answers.append((observation, info))
            self.elapsed[e] += 1
        self.ended = terminated | truncated
        observations, infos = self._stacked(answers)
        return observations, rewards, terminated, truncated, infos

    def close(self, **_: Any) -> None:
        pass


Pool.__module__ = "envpool.stand_in"  # what it is known by


@pytest.mark.parametrize("source", ["info", "observation"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_pool_belong_to_the_right_state(kind: str, source: str) -> None:
    with make_sampler(Pool(kind, source, 3)) as sampler:
        assert isinstance(sampler, PoolSampler)
        with_policy(sampler)
        ends = 0
        for _ in range(3):
            rollout = sampler.collect(40)  # a forbidden action raises
            transitions = rollout.transitions()
            width = sum(SIZES[kind])
            masks = transitions.action_masks
            assert masks is not None
            assert not masks.all()
            np.testing.assert_array_equal(masks, transitions.observations[:, :width] > 0.5)
            ends += int((rollout.terminated | rollout.truncated).sum())
            assert rollout.n_transitions < 3 * 40  # resets are no steps
        assert ends > 10
        found = "observation:action_mask" if source == "observation" else source
        assert sampler.mask_source == found


def test_masks_that_are_turned_off_are_no_masks() -> None:
    pool = Pool("discrete", "info", 3)
    for env in pool.envs:
        env.lenient = True
    with make_sampler(pool, action_masks="none") as sampler:
        with_policy(sampler)
        assert sampler.collect(20).transitions().action_masks is None


def test_an_agent_trains_and_acts_in_a_masked_pool() -> None:
    agents = []
    for _ in range(2):
        agent = TRPO(Pool("multi_discrete", "info", 4), batch_size=64, hidden_sizes=(8,), seed=1)
        agent.learn(3 * 64)
        assert agent.mask_source == "info"
        assert agent.last_record["policy/kl"] <= agent.last_record["policy/max_kl"]
        agents.append(agent)
    assert_same(*(agent.collect() for agent in agents))
    one = np.array([0, 0, 1, 1, 0, 0, 0], np.int8)
    observation = np.zeros(agents[0].policy.obs_dim)
    for _ in range(5):
        action, _ = agents[0].predict(observation, action_masks=one)
        assert action.tolist() == [2, 0]
    for agent in agents:
        agent.close()
