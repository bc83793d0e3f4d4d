"""Vector environments: their arrays, their seeds, their ways to reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from counting import (
    ARRAYS,
    CountingEnv,
    CountingPolicy,
    core_sampler,
)
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    VectorEnvSampler,
)


class OtherArrays(SyncVectorEnv):
    """What it returns is right, or wrong, but not laid out as the arrays of Gymnasium's own."""

    def __init__(self, change: Callable[..., Any], mode: AutoresetMode) -> None:
        super().__init__([CountingEnv, CountingEnv], autoreset_mode=mode)
        self._change = change

    def step(self, actions: Any) -> Any:
        return self._change(*super().step(actions))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    "change",
    [
        lambda o, r, *rest: (np.asfortranarray(o), r.tolist(), *rest),
        lambda o, r, te, tr, i: (o.tolist(), r, te.tolist(), tr.astype(np.uint8), i),
        lambda o, r, te, tr, i: (o.astype(np.int64), r.astype(np.int32), te, tr[:], i),
    ],
    ids=["Fortran order", "lists", "integers"],
)
def test_vector_environments_may_return_other_arrays(
    mode: AutoresetMode, change: Callable[..., Any]
) -> None:
    rollouts = []
    for vector_env in (
        OtherArrays(change, mode),
        SyncVectorEnv([CountingEnv, CountingEnv], autoreset_mode=mode),
    ):
        sampler = VectorEnvSampler(vector_env)
        sampler.bind(CountingPolicy(), seed=0)
        rollouts.append(sampler.collect(12))
        sampler.close()
    assert rollouts[1].terminated.any()
    for name in (*ARRAYS, "episode_returns", "final_observations"):
        np.testing.assert_array_equal(getattr(rollouts[0], name), getattr(rollouts[1], name))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            lambda o, r, *rest: (o, r[:1, None].repeat(3, 1), *rest),
            EnvironmentFailure,
            r"step 0: TypeError: rewards: expected 2 numbers, got .*step\(\) must return .* each for 2",
        ),
        (
            lambda o, r, te, *rest: (o, r, None, *rest[:1], {}, 0),
            EnvironmentFailure,
            r"step 0: ValueError: .*step\(\) must return",
        ),
        (
            lambda o, *rest: (o[:, :1], *rest),
            ValueError,
            r"step 0: observation: expected shape \(2, 2\), got \(2, 1\)",
        ),
    ],
    ids=["rewards", "six values", "observations"],
)
def test_wrong_arrays_of_a_vector_environment_get_a_sentence(
    change: Callable[..., Any], error: type[Exception], words: str
) -> None:
    sampler = VectorEnvSampler(OtherArrays(change, AutoresetMode.NEXT_STEP))
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(error, match=words):
        sampler.collect(2)
    sampler.close()


class NoFinalObservation(SyncVectorEnv):
    def step(self, actions: Any) -> Any:
        *rest, infos = super().step(actions)
        infos.pop("final_obs", None)
        return (*rest, infos)


def test_same_step_without_final_observation_is_refused() -> None:
    vector_env = NoFinalObservation([CountingEnv], autoreset_mode=AutoresetMode.SAME_STEP)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(
        EnvironmentFailure, match=r"step 4: truncated, but info\['final_obs'\]\[0\]"
    ):
        sampler.collect(10)


def test_an_undeclared_autoreset_mode_is_refused() -> None:
    vector_env = SyncVectorEnv([CountingEnv])
    vector_env.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode: expected one of NextStep, SameStep"):
        VectorEnvSampler(vector_env)
    assert VectorEnvSampler(vector_env, autoreset_mode="NextStep").autoreset_mode == "NextStep"


def test_a_vector_environment_equals_single_environments() -> None:
    vector_env = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    rollout = core_sampler(vector_env).collect(100)
    expected = core_sampler("CartPole-v1", n_envs=3).collect(100)
    for name in (*ARRAYS, "final_observations", "final_indices", "episode_returns"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))


def test_a_custom_vector_environment_takes_one_seed() -> None:
    vector_env = gymnasium.make_vec(
        "CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point"
    )
    first = core_sampler(vector_env).collect(80)
    vector_env = gymnasium.make_vec(
        "CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point"
    )
    second = core_sampler(vector_env).collect(80)
    np.testing.assert_array_equal(first.observations, second.observations)
    # CartPole: every valid step is worth 1
    assert first.rewards.sum() == first.n_transitions
    assert not first.valid.all()
