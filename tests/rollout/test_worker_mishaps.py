"""One sentence for every mishap of a worker process, and training that goes on."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from left_behind import is_alive, wait_until
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    Budget,
    InProcessSampler,
    make_sampler,
)
from worker_envs import BrokenEnv, UnevenEnv, assert_same, now_impatient, second_breaks, with_policy

pytestmark = pytest.mark.usefixtures("nothing_is_left")


PLACE = r"worker \d: environment [13] \(BrokenEnv\), step 17: "


SENTENCES = {
    "raises": (EnvironmentFailure, PLACE + "the environment raised OSError: simulator lost"),
    "exits": (EnvironmentFailure, PLACE + "the process ended with exit code 3"),
    "crashes": (EnvironmentFailure, PLACE + "the process was killed by SIGSEGV"),
    "leaks": (EnvironmentFailure, PLACE + "the environment raised .*MemoryError"),
    "leaks until it is killed": (
        EnvironmentFailure,
        PLACE + r"the process was killed by SIGKILL \(is there enough memory\?\)",
    ),
    "hangs": (EnvironmentFailure, PLACE + r"nothing came back for 0\.5 seconds; .*worker_timeout"),
    "hangs in reset": (
        EnvironmentFailure,
        r"worker \d: reset before environment [13] \(BrokenEnv\), step 20: nothing came back",
    ),
    "nan": (ValueError, PLACE + "observation entry 0 is nan"),
    "nan reward": (ValueError, PLACE + "the reward is nan"),
    "wrong shape": (ValueError, PLACE + r"observation: expected shape \(2,\), got \(3,\)"),
}


def test_the_timeout_is_that_of_the_sampler() -> None:
    with make_sampler(UnevenEnv, n_envs=2, n_workers=2, worker_timeout=123.0) as sampler:
        assert [worker.timeout for worker in sampler.pool.workers] == [123.0, 123.0]


@pytest.mark.parametrize("what", SENTENCES)
def test_mishaps_are_named_and_survived(what: str) -> None:
    kind, words = SENTENCES[what]
    sampler = make_sampler(second_breaks(what), n_envs=4, n_workers=2)
    with_policy(sampler)
    sampler.collect(15)
    if what.startswith("hangs"):
        now_impatient(sampler)
    with pytest.raises(kind, match=words) as caught:
        sampler.collect(15)
    assert "\n" not in str(caught.value)
    # the cause is what the worker saw
    if what not in ("exits", "leaks until it is killed"):
        cause = str(caught.value.__cause__)
        assert "worker_envs.py" in cause or what in ("nan", "nan reward", "wrong shape")
    assert sampler.worker_pids == []
    # fresh episodes, beyond every random number drawn so far
    counters = sampler.state_dict()["counters"]
    assert counters.min() >= 15
    assert counters.max() >= 18
    if what in ("raises", "exits", "hangs"):
        sampler.collect(5)
        np.testing.assert_array_equal(sampler.state_dict()["counters"], counters + np.uint64(5))
    sampler.close()


@pytest.mark.parametrize("what", ["raises", "nan", "nan reward", "wrong shape"])
def test_crashed_environments_are_replaced_alike_everywhere(what: str) -> None:
    samplers = []
    for n_workers in (0, 2):
        # two environments of each worker, one of which breaks; in one process: two of four
        made: list[int] = []

        def make(made: list[int] = made) -> BrokenEnv:
            made.append(1)
            return BrokenEnv(what if len(made) in (2, 4) else "")

        samplers.append(
            make_sampler(make, n_envs=4, n_workers=n_workers, restart_crashed_environments=True)
        )
    for sampler in samplers:
        with_policy(sampler)
    for n in (15, 15, 15):
        expected, got = (sampler.collect(n) for sampler in samplers)
        assert_same(got, expected)
        assert got.crashes == expected.crashes
        if n == 15 and len(got.crashes):
            assert len(got.crashes) == 2
            assert "environment 1 (BrokenEnv), step 17" in got.crashes[0]
            assert not got.valid.all()
            assert np.isfinite(got.observations).all()
            # the rows that are left are true ones
            assert (got.rewards[got.valid] == 1.0).all()
            assert (got.episode_lengths == 10).all()
    for sampler in samplers:
        sampler.close()


@pytest.mark.parametrize("what", ["raises", "hangs", "hangs in reset"])
def test_mishaps_behind_padding_are_named(what: str) -> None:
    # environments 0 and 2 have taken their share when 1 and 3 break
    sampler = make_sampler(
        lambda made=[]: made.append(1) or BrokenEnv(what if len(made) == 2 else "", 37),
        n_envs=4,
        n_workers=2,
    )
    with_policy(sampler)
    sampler.collect(1)
    now_impatient(sampler)
    kind, words = SENTENCES[what]
    words = words.replace("17", "37").replace("20", "40")
    with pytest.raises(kind, match=words):
        sampler.collect(Budget("episodes", (3, 45, 3, 45)))
    sampler.close()


@pytest.mark.parametrize("what", ["exits", "hangs"])
def test_lost_workers_are_restarted(what: str) -> None:
    sampler = make_sampler(
        second_breaks(what),
        n_envs=4,
        n_workers=2,
        restart_crashed_environments=True,
    )
    with_policy(sampler)
    assert sampler.collect(15).crashes == ()
    now_impatient(sampler)
    rollout = sampler.collect(15)
    assert len(rollout.crashes) == 2
    assert rollout.valid.all()
    assert rollout.episode_lengths.tolist() == [10] * 4
    sampler.close()


def test_a_worker_killed_between_rollouts_is_named() -> None:
    sampler = make_sampler(UnevenEnv, n_envs=2, n_workers=2)
    with_policy(sampler)
    sampler.collect(3)
    victim = sampler.worker_pids[1]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not is_alive(victim))
    with pytest.raises(EnvironmentFailure, match=r"worker 1 .*was killed by SIGKILL"):
        sampler.collect(3)
    sampler.collect(3)
    sampler.close()


def test_dropped_episodes_by_hand() -> None:
    sampler = InProcessSampler(
        [BrokenEnv("raises", at=13)], remake=lambda e: BrokenEnv("raises", at=4)
    )
    with_policy(sampler)
    first, second = sampler.collect(12), sampler.collect(8)
    assert first.valid.all()
    # 12 and 13 belong to the episode that broke; so do 14 to 18, of the environment after it
    assert second.valid[:, 0].tolist() == [False] * 7 + [True]
    assert second.observations[7].tolist() == [[0, 0]]
    assert len(second.crashes) == 2
    assert len(second.episode_returns) == 0
    # the episode that runs now is counted from its own start
    assert sampler.state_dict()["episode_lengths"].tolist() == [1]

    sampler = InProcessSampler([BrokenEnv("raises", at=0)], remake=lambda e: BrokenEnv("raises", 0))
    with_policy(sampler)
    with pytest.raises(EnvironmentFailure, match="simulator lost"):
        sampler.collect(30)
