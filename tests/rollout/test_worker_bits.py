"""Worker processes give the bits of this process, whatever their number.

Starting a Python costs the most here, so a test does much with the workers that it has.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trpo_fast.rollout import (
    Rollout,
    WorkerSampler,
    make_sampler,
)
from worker_envs import UnevenEnv, assert_same, with_policy

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def collect_some(sampler: Any, on_step: Callable[[], object] | None = None) -> list[Rollout]:
    """Rollouts of several lengths, with a policy and a normaliser that change in between."""
    policy = with_policy(sampler)
    random = np.random.default_rng(0)
    rollouts = []
    for n_steps in (40, 7, 90, 90):
        rollouts.append(sampler.collect(n_steps, on_step=on_step))
        policy.parameters = policy.parameters + 0.1 * random.normal(size=policy.n_parameters)
        policy.set_normalizer(random.normal(size=policy.obs_dim), np.full(policy.obs_dim, 2.0))
    policy.clear_normalizer()
    rollouts.append(sampler.collect(5, on_step=on_step))
    return rollouts


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_the_number_of_workers(dtype: str) -> None:
    env: Any = UnevenEnv if dtype == "float32" else "CartPole-v1"
    reference = make_sampler(env, n_envs=5, dtype=dtype)
    expected = collect_some(reference)
    assert sum(len(rollout.final_indices) for rollout in expected) > 5 or dtype == "float64"
    for n_workers in (1, 2, 4) if dtype == "float32" else (3,):
        with make_sampler(env, n_envs=5, n_workers=n_workers, dtype=dtype) as sampler:
            assert isinstance(sampler, WorkerSampler)
            assert sampler.n_workers == n_workers
            assert sampler.name == reference.name
            got = collect_some(sampler)
            for mine, other in zip(got, expected, strict=True):
                assert_same(mine, other)
            for name, values in reference.state_dict().items():
                np.testing.assert_array_equal(sampler.state_dict()[name], values)
        assert got[0].observations.flags.c_contiguous


@pytest.mark.parametrize("sampling", ["total_steps", "episodes"])
def test_budgets_have_the_same_bits_with_workers(sampling: Any) -> None:
    # shares of 3 or 2 steps, episodes of up to 60: the shared arrays grow several times
    samplers = [make_sampler(UnevenEnv, n_envs=5, n_workers=n) for n in (0, 1, 2, 4)]
    calls: list[int] = []
    for sampler in samplers:
        with_policy(sampler)
    for batch_size in (12, 12, 100, 12):
        budget = samplers[0].budget(sampling, batch_size)
        expected = samplers[0].collect(budget)
        assert sampling == "total_steps" or not expected.valid.all()
        for sampler in samplers[1:]:
            assert_same(sampler.collect(budget), expected)
            for name, values in samplers[0].state_dict().items():
                np.testing.assert_array_equal(sampler.state_dict()[name], values)
    # with a hook, and from a state, whoever it comes from
    budget = samplers[0].budget(sampling, 12)
    state = {**samplers[2].state_dict(), **samplers[2].environment_state()}
    expected = [samplers[0].collect(budget), samplers[0].collect(budget)]
    for sampler in (samplers[3], samplers[1], samplers[0]):
        sampler.load_environment_state(state)
        calls.clear()
        assert_same(sampler.collect(budget, on_step=lambda: calls.append(1)), expected[0])
        assert len(calls) == expected[0].n_steps
        assert_same(sampler.collect(budget), expected[1])
    for sampler in samplers:
        sampler.close()


def test_hooks_state_binding_and_calls() -> None:
    reference = make_sampler(UnevenEnv, n_envs=3)
    sampler = make_sampler(UnevenEnv, n_envs=3, n_workers=2)
    # a hook between the steps runs here, and changes nothing
    calls: list[int] = []
    for mine, other in zip(
        collect_some(sampler, lambda: calls.append(1)), collect_some(reference), strict=True
    ):
        assert_same(mine, other)
    assert len(calls) == 40 + 7 + 90 + 90 + 5

    # arrays belong to the rollout
    first = sampler.collect(10)
    kept = first.observations.copy()
    sampler.collect(10)
    np.testing.assert_array_equal(first.observations, kept)
    reference.collect(10)
    reference.collect(10)

    # another policy, another seed, in the middle of the run
    with_policy(sampler, seed=11)
    with_policy(reference, seed=11)
    assert_same(sampler.collect(20), reference.collect(20))

    # resuming from a state
    state = reference.state_dict()
    reference.load_state_dict(state)
    sampler.load_state_dict(state)
    assert_same(sampler.collect(20), reference.collect(20))

    # calls on the environments
    assert sampler.map_environments(lambda env: env.left) == reference.map_environments(
        lambda env: env.left
    )
    assert sampler.map_environments(lambda env, x: 2 * x, [1, 2, 3]) == [2, 4, 6]
    pids = sampler.worker_pids
    with pytest.raises(ZeroDivisionError):
        sampler.map_environments(lambda env: 1 // 0)
    assert_same(sampler.collect(20), reference.collect(20))
    assert sampler.worker_pids == pids

    # an exception of a hook, or Ctrl-C, stops the workers; the next rollout starts them again
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.collect(10, on_step=interrupt)
    assert sampler.worker_pids == []
    assert sampler.collect(5).observations.shape == (5, 3, 3)
    assert len(sampler.worker_pids) == 2
    sampler.close()
    sampler.close()
    with pytest.raises(RuntimeError, match="closed"):
        sampler.collect(1)
    with pytest.raises(RuntimeError, match="closed"):
        sampler.map_environments(str)


def test_workers_have_one_thread_and_no_terminal() -> None:
    with make_sampler(UnevenEnv, n_envs=2, n_workers=2) as sampler:

        def look(_: Any) -> tuple[int, str, bool, int]:
            from trpo_fast import runtime

            ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            threads = runtime.get_num_threads()
            return threads, os.environ["OMP_NUM_THREADS"], ignored, os.getpgid(0)

        seen = sampler.map_environments(look)
        assert [facts[:3] for facts in seen] == [(1, "1", True)] * 2
        assert [facts[3] for facts in seen] == sampler.worker_pids  # groups of their own


def test_exact_resume_with_any_number_of_workers() -> None:
    samplers = [make_sampler(UnevenEnv, n_envs=3, n_workers=n) for n in (0, 2)]
    for sampler in samplers:
        with_policy(sampler)
        assert sampler.environment_state() == {}
        sampler.collect(50)
    states = [{**s.state_dict(), **s.environment_state()} for s in samplers]
    assert states[0].keys() == states[1].keys()
    expected = [samplers[0].collect(n) for n in (20, 30)]
    for state in states:
        for sampler in samplers[::-1]:  # from 0 to 2 workers and back
            sampler.load_environment_state(state)
            for rollout in expected:
                assert_same(sampler.collect(rollout.n_steps), rollout)
    # without the environments: new episodes
    for sampler in samplers:
        sampler.load_environment_state(
            {k: a for k, a in states[0].items() if k in samplers[0].state_dict()}
        )
    assert_same(samplers[0].collect(20), samplers[1].collect(20))
    for sampler in samplers:
        sampler.close()
