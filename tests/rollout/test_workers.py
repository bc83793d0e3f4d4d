"""Worker processes: the same bits as in this process, one sentence per mishap, nothing left behind.

Starting a Python costs the most here, so a test does much with the workers that it has.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from trpo_fast import TRPO, core
from trpo_fast.callbacks import EvaluateEvery
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    Budget,
    InProcessSampler,
    NoWorkers,
    Rollout,
    VectorEnvSampler,
    WorkerSampler,
    available_cores,
    make_sampler,
)
from trpo_fast.rollout.workers.process import WorkerProcess
from trpo_fast.rollout.workers.worker import BOOTSTRAP


class UnevenEnv(gymnasium.Env[Any, Any]):
    """Episodes of 1 to 60 steps that terminate, or are truncated, or both; noisy everything."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 61))
        return self.np_random.normal(size=3), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        ends = self.left == 0
        how = self.np_random.integers(3)
        reward = float(action.sum() + self.np_random.normal())
        observation = self.np_random.normal(size=3)
        return observation, reward, bool(ends and how != 1), bool(ends and how != 0), {}


class BrokenEnv(gymnasium.Env[Any, Any]):
    """Episodes of 10 steps; it breaks at step `at` of its life, counted from 0."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)
    made = 0  # in this process

    def __init__(self, what: str, at: int = 17) -> None:
        self.what, self.at, self.steps = what, at, 0
        BrokenEnv.made += 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.what == "hangs in reset" and self.steps > self.at:
            time.sleep(60)
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation: Any = np.full(2, self.steps)
        reward = 1.0
        if self.steps == self.at:
            if self.what == "raises":
                raise OSError("simulator lost")
            if self.what == "exits":
                os._exit(3)
            if self.what == "crashes":
                signal.raise_signal(signal.SIGSEGV)
            if self.what == "leaks":
                self.leak()
            if self.what == "leaks until it is killed":
                signal.raise_signal(signal.SIGKILL)  # as the system does with the largest process
            if self.what == "hangs":
                time.sleep(60)
            if self.what == "nan":
                observation = np.full(2, np.nan)
            if self.what == "nan reward":
                reward = np.nan
            if self.what == "wrong shape":
                observation = np.zeros(3)
        self.steps += 1
        return observation, reward, self.steps % 10 == 0, False, {}

    def leak(self) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, limits[1]))
        try:
            leaked = []
            while True:
                leaked.append(np.ones(2**20))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def second_breaks(what: str) -> Callable[[], BrokenEnv]:
    """A factory whose second environment breaks (the second of every worker)."""
    made: list[int] = []

    def make() -> BrokenEnv:
        made.append(1)
        return BrokenEnv(what if len(made) == 2 else "")

    return make


def with_policy(sampler: Any, *, seed: int = 3) -> Any:
    policy = core.Policy(
        sampler.observation_encoder.dim,
        sampler.action_adapter.distribution,
        hidden_sizes=(8,),
        output_gain=1.0,
        dtype=sampler.observation_encoder.dtype,
    )
    sampler.bind(policy, seed=seed)
    return policy


def assert_same(got: Rollout, expected: Rollout) -> None:
    for name in vars(expected):
        if name not in ("seconds", "crashes"):
            mine, other = getattr(got, name), getattr(expected, name)
            assert mine.dtype == other.dtype
            assert mine.tobytes() == other.tobytes(), name


def children() -> set[int]:
    """Process ids of the living children of this process."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def shared_memory() -> set[str]:
    """Files in /dev/shm that Python's shared memory or this package could have made."""
    folder = Path("/dev/shm")
    names = {file.name for file in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if name.startswith(("psm_", "trpo_fast."))}


def abandoned_memory(before: set[str]) -> set[str]:
    """Those that were not there before and that no living process has mapped."""
    new = shared_memory() - before
    for process in Path("/proc").glob("[0-9]*") if new else ():
        with contextlib.suppress(OSError):
            maps = (process / "maps").read_text()
            new = {name for name in new if f"/dev/shm/{name}" not in maps}
    return new & shared_memory()


def is_alive(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        n_threads = len(list((process / "task").iterdir()))
    except OSError:
        return False
    # its main thread may be gone while another one still holds its connection open
    return state != "Z" or n_threads > 1


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    if not Path("/proc/self/task").exists():
        yield
        return
    memory = shared_memory()
    before = (children(), len(list(Path("/proc/self/fd").iterdir())))
    yield
    after = (children(), len(list(Path("/proc/self/fd").iterdir())))
    assert after == before
    assert not abandoned_memory(memory)


# --- the same bits ---


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


# --- mishaps ---

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


def now_impatient(sampler: Any) -> None:
    """The timeout of half a second, but not for a busy machine to start the processes."""
    for worker in sampler._workers:
        worker._timeout = 0.5


def test_the_timeout_is_that_of_the_sampler() -> None:
    with make_sampler(UnevenEnv, n_envs=2, n_workers=2, worker_timeout=123.0) as sampler:
        assert [worker._timeout for worker in sampler._workers] == [123.0, 123.0]


@pytest.mark.parametrize("what", SENTENCES)
def test_mishaps_are_named_and_survived(what: str) -> None:
    kind, words = SENTENCES[what]
    sampler = make_sampler(second_breaks(what), n_envs=4, n_workers=2)
    with_policy(sampler)
    sampler.collect(15)
    now_impatient(sampler)
    with pytest.raises(kind, match=words) as caught:
        sampler.collect(15)
    assert "\n" not in str(caught.value)
    # the cause is what the worker saw
    if what not in ("exits", "leaks until it is killed"):
        cause = str(caught.value.__cause__)
        assert "test_workers.py" in cause or what in ("nan", "nan reward", "wrong shape")
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


# --- evaluations ---


def trained(**settings: Any) -> TRPO:
    agent = TRPO(UnevenEnv, n_envs=4, batch_size=64, seed=1, hidden_sizes=(8,), **settings)
    return agent.learn(128, progress=False)


def test_evaluations_are_shared_out_to_the_workers() -> None:
    agents = [trained(n_workers=n) for n in (0, 2, 3)]
    pids = [agent.sampler.worker_pids for agent in agents[1:]]
    for episodes, settings in (
        (7, {}),
        (1, {}),  # fewer than workers
        (7, {"seed": 6}),
        (3, {"deterministic": False}),  # stays in this process
        (3, {"env": UnevenEnv}),  # as well
    ):
        results = [agent.evaluate(episodes, **{"seed": 5, **settings}) for agent in agents]
        for result in results[1:]:
            np.testing.assert_array_equal(result.returns, results[0].returns)
            np.testing.assert_array_equal(result.lengths, results[0].lengths)
    assert len(set(agents[1].evaluate(7).returns)) == 7
    # training goes on as if nothing had happened
    untouched = trained(n_workers=0)
    for agent in (untouched, *agents):
        agent.learn(64, progress=False)
        np.testing.assert_array_equal(agent.policy.parameters, untouched.policy.parameters)
    assert [agent.sampler.worker_pids for agent in agents[1:]] == pids
    for agent in (untouched, *agents):
        agent.close()


def evaluated(n_workers: int, path: Path) -> str:
    """The rows of evaluations during training."""
    evaluate = EvaluateEvery(128, 3, csv_path=path)
    made_here: list[bool] = []

    def look(*_: Any) -> None:
        made_here.append(evaluate._environment is not None)

    agent = trained(n_workers=n_workers)
    agent.learn(512, callback=[evaluate, look], progress=False)
    agent.close()
    assert made_here[-1] == (n_workers == 0)
    return path.read_text()


def test_evaluations_between_iterations_are_shared_out(tmp_path: Path) -> None:
    # each after an update, with the policy and the statistics of that moment
    rows = evaluated(0, tmp_path / "here.csv")
    assert evaluated(2, tmp_path / "shared.csv") == rows
    assert len(rows.splitlines()) == 1 + 4 * 3


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("raises", OSError, "^simulator lost$"),
        ("nan reward", ValueError, "got nan at step 7 of evaluation episode [23]"),
        ("nan", ValueError, "observation: expected finite numbers, got NaN"),
        (
            "exits",
            EnvironmentFailure,
            r"^worker \d \(evaluation\): the process ended with exit code 3",
        ),
        (
            "hangs",
            EnvironmentFailure,
            r"^worker \d \(evaluation\): nothing came back for 0\.5 seconds; .*worker_timeout",
        ),
    ],
)
def test_mishaps_of_evaluations_are_survived(what: str, kind: type[Exception], words: str) -> None:
    def make() -> BrokenEnv:  # the third of every worker is that of its evaluations
        return BrokenEnv(what if BrokenEnv.made == 2 else "")

    agent = TRPO(make, n_envs=4, n_workers=2, batch_size=64, seed=1, hidden_sizes=(8,))
    agent.learn(64, progress=False)
    now_impatient(agent.sampler)
    with pytest.raises(kind, match=words):
        agent.evaluate(6, seed=0)
    lost = what in ("exits", "hangs")
    assert (agent.sampler.worker_pids == []) == lost
    if not lost:
        assert agent.evaluate(6, seed=0).returns.tolist() == [10.0] * 6
    agent.learn(64, progress=False)
    agent.close()


def test_an_environment_for_evaluations_is_made_once_and_closed() -> None:
    made: list[UnevenEnv] = []
    closed: list[UnevenEnv] = []

    class Closing(UnevenEnv):
        def close(self) -> None:
            closed.append(self)

    def make() -> UnevenEnv:
        made.append(Closing())
        return made[-1]

    sampler = InProcessSampler([UnevenEnv()])
    for _ in range(2):
        with sampler.spare_environment(make) as environment:
            assert made == [environment]
    with pytest.raises(ZeroDivisionError), sampler.spare_environment(make):
        _ = 1 // 0
    assert closed == made
    with sampler.spare_environment(make) as environment:
        assert made[1:] == [environment]
    assert closed == made[:1]
    sampler.close()
    assert closed == made


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


# --- what can be sent, and what cannot ---


def test_sources_that_stay_here() -> None:
    environment = gymnasium.make("CartPole-v1")
    assert isinstance(make_sampler(environment, n_workers=2), InProcessSampler)
    vector_env = SyncVectorEnv([UnevenEnv, UnevenEnv])
    assert isinstance(make_sampler(vector_env, n_workers=2), VectorEnvSampler)
    sampler = make_sampler(lambda: SyncVectorEnv([UnevenEnv] * 2), n_envs=2, n_workers=2)
    assert isinstance(sampler, VectorEnvSampler)
    with pytest.raises(ValueError, match="exists already cannot be made again"):
        make_sampler(environment, restart_crashed_environments=True)

    lock = threading.Lock()

    def unsendable() -> Any:
        with lock:
            return UnevenEnv()

    with pytest.raises(NoWorkers, match=r"cannot be sent to worker processes: .*lock.*n_workers=0"):
        make_sampler(unsendable, n_envs=2, n_workers=2)


def test_the_default_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr("trpo_fast.rollout.available_cores", lambda: 1)
    assert isinstance(make_sampler(UnevenEnv, n_envs=4, n_workers=None), InProcessSampler)
    monkeypatch.setattr("trpo_fast.rollout.available_cores", lambda: 2)
    assert isinstance(make_sampler(UnevenEnv, n_envs=1, n_workers=None), InProcessSampler)
    with make_sampler(UnevenEnv, n_envs=3, n_workers=None) as sampler:
        assert isinstance(sampler, WorkerSampler)
        assert sampler.n_workers == 2
    # as few as have no more environments each than among all cores
    monkeypatch.setattr("trpo_fast.rollout.available_cores", lambda: 3)
    with make_sampler(UnevenEnv, n_envs=4, n_workers=None) as sampler:
        assert [(g.start, g.stop) for g in sampler.groups] == [(0, 2), (2, 4)]
    monkeypatch.setattr("trpo_fast.rollout.available_cores", lambda: 2)
    lock = threading.Lock()
    with pytest.warns(UserWarning, match="cannot be sent .*; stepping it in this process"):
        made = make_sampler(lambda: UnevenEnv() if lock else None, n_envs=2, n_workers=None)
    assert isinstance(made, InProcessSampler)
    with pytest.raises(ValueError, match="n_workers: expected at least 0, or None, got -1"):
        make_sampler(UnevenEnv, n_workers=-1)


def test_errors_of_making_environments_are_those_of_this_process() -> None:
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        make_sampler("CartPol-v1", n_envs=2, n_workers=2)
    with pytest.raises(TypeError, match=r"factory must return a gymnasium\.Env, got NoneType"):
        make_sampler(lambda: None, n_envs=2, n_workers=2)
    with pytest.raises(RuntimeError, match="no licence"):
        make_sampler(_no_licence, n_envs=2, n_workers=2)


def _no_licence() -> Any:
    raise RuntimeError("no licence")


# --- everywhere Python works ---

SCRIPT = """
    import os, signal, sys, threading, time
    import gymnasium
    import numpy as np
    from trpo_fast import core
    from trpo_fast.rollout import make_sampler

    # a test run in the background may have handed down an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("begin", flush=True)  # once: nothing imports this script again

    class SlowEnv(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2), {}
        def step(self, action):
            time.sleep(PAUSE)
            return np.zeros(2), 0.0, False, False, {}

    PAUSE = float(sys.argv[1])
    gymnasium.register("Slow-v0", entry_point="__main__:SlowEnv")
    sampler = make_sampler("Slow-v0", n_envs=2, n_workers=2)
    distribution = sampler.action_adapter.distribution
    sampler.bind(core.Policy(2, distribution), seed=0)
    print(*sampler.worker_pids, flush=True)
    try:
        sampler.collect(3)
    except KeyboardInterrupt:
        print("interrupted", sampler.worker_pids, flush=True)
    print("end", flush=True)
"""


def start_script(pause: float, *, stdin: bool = False, tmp_path: Path) -> subprocess.Popen[str]:
    text = textwrap.dedent(SCRIPT)
    path = tmp_path / "script.py"
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-" if stdin else str(path), str(pause)],
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if stdin:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    return process


@pytest.mark.parametrize("stdin", [False, True])
def test_a_script_needs_no_main_guard(stdin: bool, tmp_path: Path) -> None:
    with start_script(0.0, stdin=stdin, tmp_path=tmp_path) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert [lines[0], lines[-1]] == ["begin", "end"]
    assert len(lines) == 3
    # it never closed the sampler; its end did
    assert not any(is_alive(int(pid)) for pid in lines[1].split())


@pytest.mark.parametrize("how", ["terminated", "left alone"])
def test_workers_die_in_silence(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    # at every stage: the interpreter starts, its path arrives, imports, environments are made
    source = cloudpickle.dumps((_slowly, {}, None))
    settings = {
        "n_envs": 20, "first_index": 0, "dtype": "float32", "state_dependent_std": False,
        "restart_crashed_environments": False,
    }  # fmt: skip
    workers = []
    for index in range(8):
        workers.append(WorkerProcess(index, slice(0, 20), 10.0))
        if index % 2:
            workers[-1].send("open", source, settings)
    random = np.random.default_rng(0)
    for worker in workers:
        time.sleep(random.uniform(0.0, 0.2))
        if how == "terminated":
            worker.process.terminate()
            time.sleep(random.choice([0.0, 0.001]))
            worker.process.terminate()
        else:
            worker.connection.close()
    for worker in workers:
        worker.process.wait(20.0)
        worker.end(0.0)
    assert capfd.readouterr().err == ""


class _Terminates:
    """Its destructor sends the process SIGTERM: Python drops what a signal handler raises there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # the handler runs between two instructions
            pass


def _terminated_in_a_destructor() -> UnevenEnv:
    _Terminates()
    return UnevenEnv()


def _terminated_in_an_import() -> UnevenEnv:
    import terminated_while_it_is_imported  # noqa: F401

    return UnevenEnv()


def _ends_in_silence(make_env: Any, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {
        "n_envs": 1, "first_index": 0, "dtype": "float32", "state_dependent_std": False,
        "restart_crashed_environments": False,
    }  # fmt: skip
    worker = WorkerProcess(0, slice(0, 1), 10.0)
    worker.send("open", cloudpickle.dumps((make_env, {}, None)), settings)
    assert worker.process.wait(60.0) == 0
    worker.end(0.0)
    assert capfd.readouterr().err == ""


def test_a_worker_terminated_where_exceptions_are_dropped_ends_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _ends_in_silence(_terminated_in_a_destructor, capfd)


def test_a_worker_terminated_in_an_import_ends_after_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an exception in the middle, and the C++ of some modules calls std::terminate
    (tmp_path / "terminated_while_it_is_imported.py").write_text(
        "import os, pathlib, signal\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "for _ in range(1000):\n"
        "    pass\n"
        "pathlib.Path(__file__).with_name('whole').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    _ends_in_silence(_terminated_in_an_import, capfd)
    assert (tmp_path / "whole").exists()


def _slowly() -> UnevenEnv:
    time.sleep(0.02)
    return UnevenEnv()


def test_a_worker_whose_parent_is_gone_before_it_began_says_nothing() -> None:
    ours, theirs = socket.socketpair()
    program = BOOTSTRAP.format(connection=theirs.fileno(), memory=0, report=0)
    with ours, theirs:
        ours.close()
        done = subprocess.run(
            [sys.executable, "-c", program],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            timeout=60.0,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    before = shared_memory()
    with start_script(100.0, tmp_path=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.3)  # in the middle of a step
        assert all(is_alive(pid) for pid in pids)
        process.send_signal(how)
        rest = process.stdout.read()
    if how == signal.SIGINT:
        assert rest == "interrupted []\nend\n"
        assert process.returncode == 0
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids))
    assert not abandoned_memory(before)
