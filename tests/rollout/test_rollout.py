"""Rollouts: every stored row must be a true transition, whatever resets the environments.

The environment of these tests counts: its observation is (episode, steps taken in it), its reward
is 100 episode + steps, and it writes down the actions it was given. What must come out can be
worked out by hand. The policy of these tests counts too: action = 1000 env + counter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from trpo_fast.envs import EnvironmentFailure
from trpo_fast.envs.envpool import step_of
from trpo_fast.rollout import (
    Budget,
    InProcessSampler,
    Rollout,
    VectorEnvSampler,
    environment_seed,
    make_sampler,
)
from trpo_fast.snapshots import SnapshotError

SCRIPT = ((2, "terminated"), (3, "truncated"))
OTHER_SCRIPT = ((4, "truncated"), (1, "both"), (2, "truncated"))


class CountingEnv(gymnasium.Env[Any, Any]):
    """Episode number k ends as script[k mod len(script)] says: after how many steps, and how."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, script: tuple[tuple[int, str], ...] = SCRIPT) -> None:
        self.script = script
        self.episode = -1
        self.steps = 0
        self.seeds: list[int | None] = []
        self.given: dict[tuple[int, int], float] = {}
        self.closed = 0

    def observe(self) -> Any:
        return np.array([self.episode, self.steps], np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode += 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.given[self.episode, self.steps] = float(action[0])
        reward = 100.0 * self.episode + self.steps
        self.steps += 1
        length, how = self.script[self.episode % len(self.script)]
        ends = self.steps == length
        return (
            self.observe(),
            reward,
            ends and how in ("terminated", "both"),
            ends and how in ("truncated", "both"),
            {},
        )

    def close(self) -> None:
        self.closed += 1


class CountingPolicy:
    """action = 1000 env + counter."""

    obs_dim = 2
    dtype = np.dtype(np.float32)

    def actor(self, observations: Any, actions: Any, counters: Any, envs: Any, *, seed: int) -> Any:
        assert observations.flags.c_contiguous
        assert actions.flags.c_contiguous

        class CountingActor:
            def step(self, t: int) -> None:
                actions[t, :, 0] = 1000.0 * envs + counters
                counters[:] += np.uint64(1)

        return CountingActor()


def in_process(*scripts: Any, policy: Any = None, first_index: int = 0) -> InProcessSampler:
    sampler = InProcessSampler([CountingEnv(s) for s in scripts], first_index=first_index)
    sampler.bind(policy or CountingPolicy(), seed=7)
    return sampler


def vector(mode: AutoresetMode, *scripts: Any) -> VectorEnvSampler:
    environments = [lambda s=s: CountingEnv(s) for s in scripts]
    sampler = VectorEnvSampler(SyncVectorEnv(environments, autoreset_mode=mode))
    sampler.bind(CountingPolicy(), seed=7)
    return sampler


def counting_environments(sampler: Any) -> list[CountingEnv]:
    if isinstance(sampler, InProcessSampler):
        return list(sampler.environments)
    return list(sampler.vector_env.envs)


def check_transitions(rollout: Rollout, environments: list[CountingEnv]) -> None:
    """Every valid row is a true transition: s, the action that env got in s, r, s'."""
    finals = {(t, e): n for n, (t, e) in enumerate(rollout.final_indices.tolist())}
    for t, e in itertools.product(range(rollout.n_steps), range(rollout.n_envs)):
        if not rollout.valid[t, e]:
            continue
        episode, steps = rollout.observations[t, e].tolist()
        assert rollout.actions[t, e, 0] == environments[e].given[episode, steps]
        assert rollout.rewards[t, e] == 100 * episode + steps
        length, how = environments[e].script[int(episode) % len(environments[e].script)]
        ends = steps + 1 == length
        assert rollout.terminated[t, e] == (ends and how in ("terminated", "both"))
        assert rollout.truncated[t, e] == (ends and how in ("truncated", "both"))
        if ends and how == "truncated":
            successor = rollout.final_observations[finals.pop((t, e))]
        elif ends:
            continue
        elif t + 1 < rollout.n_steps:
            successor = rollout.observations[t + 1, e]
        else:
            successor = rollout.last_observations[e]
        assert successor.tolist() == [episode, steps + 1]
    assert not finals


# --- transitions worked out by hand ---


@pytest.mark.parametrize("mode", [None, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_episodes_by_hand(mode: AutoresetMode | None) -> None:
    sampler = in_process(SCRIPT) if mode is None else vector(mode, SCRIPT)
    r = sampler.collect(7)
    # episode 0: two steps, terminated; episode 1: three steps, truncated; episode 2: two steps
    states = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]
    assert r.observations[:, 0].tolist() == states
    assert r.actions[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert r.rewards[:, 0].tolist() == [0, 1, 100, 101, 102, 200, 201]
    assert np.flatnonzero(r.terminated).tolist() == [1, 6]
    assert np.flatnonzero(r.truncated).tolist() == [4]
    assert r.valid.all()
    assert r.last_observations.tolist() == [[3, 0]]
    assert r.final_indices.tolist() == [[4, 0]]
    assert r.final_observations.tolist() == [[1, 3]]
    assert r.episode_returns.tolist() == [1, 303, 401]
    assert r.episode_lengths.tolist() == [2, 3, 2]
    assert r.episode_indices.tolist() == [[1, 0], [4, 0], [6, 0]]
    check_transitions(r, counting_environments(sampler))


def test_next_step_autoreset_by_hand() -> None:
    sampler = vector(AutoresetMode.NEXT_STEP, SCRIPT)
    r = sampler.collect(7)
    # rows 2 and 6 are resets: the action is ignored, no reward is given
    states = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert r.observations[:, 0].tolist() == states
    assert r.valid[:, 0].tolist() == [True, True, False, True, True, True, False]
    assert r.rewards[:, 0].tolist() == [0, 1, 0, 100, 101, 102, 0]
    assert np.flatnonzero(r.terminated).tolist() == [1]
    assert np.flatnonzero(r.truncated).tolist() == [5]
    assert r.last_observations.tolist() == [[2, 0]]
    assert r.final_indices.tolist() == [[5, 0]]
    assert r.final_observations.tolist() == [[1, 3]]
    assert r.episode_returns.tolist() == [1, 303]
    assert r.episode_lengths.tolist() == [2, 3]
    assert r.n_transitions == 5
    check_transitions(r, counting_environments(sampler))


def test_next_step_reset_may_fall_on_the_next_rollout() -> None:
    sampler = vector(AutoresetMode.NEXT_STEP, SCRIPT)
    first, second = sampler.collect(2), sampler.collect(2)
    assert first.valid.all()
    assert first.terminated[1, 0]
    assert second.valid[:, 0].tolist() == [False, True]
    assert second.observations[:, 0].tolist() == [[0, 2], [1, 0]]


def test_terminated_and_truncated_at_once_needs_no_final_observation() -> None:
    r = in_process(((2, "both"),)).collect(4)
    assert r.terminated[:, 0].tolist() == r.truncated[:, 0].tolist() == [False, True] * 2
    assert len(r.final_indices) == 0
    assert r.final_observations.shape == (0, 2)
    assert r.final_indices.shape == (0, 2)


MODES = [None, *AutoresetMode]


def sampler_for(mode: AutoresetMode | None, *scripts: Any) -> Any:
    return in_process(*scripts) if mode is None else vector(mode, *scripts)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [[60], [1] * 60, [7, 13, 1, 39]])
def test_every_row_is_a_transition(mode: Any, chunks: list[int]) -> None:
    sampler = sampler_for(mode, SCRIPT, OTHER_SCRIPT, SCRIPT[::-1])
    for n in chunks:
        rollout = sampler.collect(n)
        assert rollout.observations.shape == (n, 3, 2)
        assert rollout.observations.flags.c_contiguous
        check_transitions(rollout, counting_environments(sampler))


ARRAYS = ("observations", "actions", "rewards", "terminated", "truncated", "valid")


@pytest.mark.parametrize("mode", MODES)
def test_chunks_do_not_matter(mode: Any) -> None:
    scripts = (SCRIPT, OTHER_SCRIPT)
    whole = sampler_for(mode, *scripts).collect(24)
    sampler = sampler_for(mode, *scripts)
    chunks = [1, 5, 2, 16]
    parts = [sampler.collect(n) for n in chunks]
    for name in ARRAYS:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    begins = np.cumsum([0, *chunks[:-1]])
    for name in ("final_observations", "episode_returns", "episode_lengths"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for name in ("final_indices", "episode_indices"):
        shifted = [getattr(p, name) + np.array([b, 0]) for p, b in zip(parts, begins, strict=True)]
        np.testing.assert_array_equal(np.concatenate(shifted), getattr(whole, name))
    np.testing.assert_array_equal(parts[-1].last_observations, whole.last_observations)


def test_rollouts_own_their_arrays() -> None:
    sampler = in_process(SCRIPT)
    first = sampler.collect(5)
    kept = {name: getattr(first, name).copy() for name in (*ARRAYS, "last_observations")}
    sampler.collect(5)
    for name, values in kept.items():
        np.testing.assert_array_equal(getattr(first, name), values)


def test_groups_of_environments_give_the_same_bits_as_the_whole() -> None:
    scripts = (SCRIPT, OTHER_SCRIPT, SCRIPT)
    whole_sampler = in_process(*scripts)
    whole = whole_sampler.collect(30)
    left, right = in_process(*scripts[:1]), in_process(*scripts[1:], first_index=1)
    joined = Rollout.concatenate([left.collect(30), right.collect(30)])
    for name in vars(whole):
        if name != "seconds":
            np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    seeds = [env.seeds for env in counting_environments(whole_sampler)]
    assert seeds == [env.seeds for s in (left, right) for env in counting_environments(s)]


def test_async_vector_environments_give_the_same_rollout() -> None:
    environments = [lambda s=s: CountingEnv(s) for s in (SCRIPT, OTHER_SCRIPT)]
    vector_env = AsyncVectorEnv(environments, autoreset_mode=AutoresetMode.SAME_STEP)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=7)
    rollout = sampler.collect(12)
    sampler.close()
    expected = in_process(SCRIPT, OTHER_SCRIPT).collect(12)
    for name in (*ARRAYS, "final_observations", "final_indices", "episode_returns"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))


# --- budgets ---

LONG_SCRIPT = ((30, "terminated"), (1, "truncated"))
SCRIPTS = (SCRIPT, OTHER_SCRIPT, LONG_SCRIPT, SCRIPT[::-1])


def alone(env: CountingEnv, e: int, begin: int, steps: int, whole: bool) -> list[dict[str, Any]]:
    """What a budget asks of one environment, step by step; it was reset before."""
    rows: list[dict[str, Any]] = []
    ends = True
    while len(rows) < steps or (whole and not ends):
        state = env.observe()
        action = 1000.0 * e + begin + len(rows)
        successor, reward, terminated, truncated, _ = env.step(np.array([action]))
        ends = terminated or truncated
        rows.append(
            {
                "observations": state, "actions": [action], "rewards": reward,
                "terminated": terminated, "truncated": truncated, "valid": True,
                "final": successor if truncated and not terminated else None,
            }
        )  # fmt: skip
        if ends:
            env.reset()
    return rows


@pytest.mark.parametrize("batch_size", [4, 21, 40])
@pytest.mark.parametrize("sampling", ["steps", "total_steps", "episodes"])
def test_budgets_against_environments_on_their_own(sampling: Any, batch_size: int) -> None:
    sampler = in_process(*SCRIPTS)
    environments = [CountingEnv(script) for script in SCRIPTS]
    for e, env in enumerate(environments):
        env.reset(seed=environment_seed(7, e))
    budget = sampler.budget(sampling, batch_size)
    E = len(SCRIPTS)
    each, rest = divmod(batch_size, E)
    shares = [each + (rest > 0 if sampling == "steps" else e < rest) for e in range(E)]
    taken = np.zeros(E, np.int64)
    for _ in range(3):
        rollout = sampler.collect(budget)
        begins = taken.copy()
        finals: dict[tuple[int, int], Any] = {}
        for e, env in enumerate(environments):
            rows = alone(env, e, int(taken[e]), shares[e], sampling == "episodes")
            taken[e] += len(rows)
            for name in ARRAYS:
                got = getattr(rollout, name)[: len(rows), e]
                assert got.tolist() == [np.asarray(row[name]).tolist() for row in rows], name
                # the rest is padding, from which nothing can be learnt by mistake
                padding = getattr(rollout, name)[len(rows) :, e]
                assert (padding == (env.observe() if name == "observations" else 0)).all()
            assert rollout.last_observations[e].tolist() == env.observe().tolist()
            finals |= {(t, e): r["final"] for t, r in enumerate(rows) if r["final"] is not None}
        assert rollout.n_transitions == (taken - begins).sum()
        assert rollout.n_steps == (taken - begins).max()
        assert [tuple(i) for i in rollout.final_indices.tolist()] == sorted(finals)
        for i, final in zip(rollout.final_indices, rollout.final_observations, strict=True):
            assert final.tolist() == finals[tuple(i.tolist())].tolist()
        ends = rollout.terminated | rollout.truncated
        assert rollout.episode_indices.tolist() == np.argwhere(ends).tolist()
        np.testing.assert_array_equal(sampler.state_dict()["counters"], taken)
        if sampling == "total_steps":
            assert rollout.n_transitions == batch_size
        if sampling == "episodes":
            assert rollout.n_transitions >= batch_size
            assert (rollout.last_observations[:, 1] == 0).all()
            assert rollout.episode_lengths.sum() == rollout.n_transitions
            assert sampler.state_dict()["episode_lengths"].tolist() == [0] * E


@pytest.mark.parametrize("sampling", ["total_steps", "episodes"])
def test_groups_keep_their_parts_of_a_budget(sampling: Any) -> None:
    whole = in_process(*SCRIPTS)
    budget = whole.budget(sampling, 10)
    parts = [in_process(*SCRIPTS[:3]), in_process(*SCRIPTS[3:], first_index=3)]
    for _ in range(3):
        expected = whole.collect(budget)
        joined = Rollout.concatenate(
            [
                part.collect(budget.part(group))
                for part, group in zip(parts, (slice(0, 3), slice(3, 4)), strict=True)
            ]
        )
        for name in vars(expected):
            if name != "seconds":
                np.testing.assert_array_equal(getattr(joined, name), getattr(expected, name))


@pytest.mark.parametrize("sampling", ["steps", "total_steps", "episodes"])
def test_on_step_follows_every_row(sampling: Any) -> None:
    sampler = in_process(*SCRIPTS)
    calls: list[int] = []
    rollout = sampler.collect(sampler.budget(sampling, 10), on_step=lambda: calls.append(1))
    assert len(calls) == rollout.n_steps


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_make_up_for_autoresets(mode: AutoresetMode) -> None:
    sampler, rows = vector(mode, *SCRIPTS), vector(mode, *SCRIPTS)
    budget = sampler.budget("total_steps", 41)
    for _ in range(3):
        rollout = sampler.collect(budget)
        check_transitions(rollout, counting_environments(sampler))
        assert 41 <= rollout.n_transitions < 41 + 4
        # the same as so many rows at once
        expected = rows.collect(rollout.n_steps)
        for name in vars(expected):
            if name != "seconds":
                np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name))
    assert sampler.collect(sampler.budget("steps", 41)).n_steps == 11
    with pytest.raises(ValueError, match=r"sampling: expected 'steps' or 'total_steps' .*episode"):
        sampler.budget("episodes", 41)


def test_an_episode_without_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trpo_fast.rollout.sampler.LONGEST_EPISODE", 50)
    sampler = in_process(SCRIPT, ((5, "terminated"), (10**9, "")))
    with pytest.raises(
        EnvironmentFailure,
        match=r"environment 1 .*step 56: an episode has not ended after 52 steps.*max_episode_step",
    ):
        sampler.collect(sampler.budget("episodes", 14))
    # by steps it does not matter
    assert sampler.collect(sampler.budget("total_steps", 15)).n_transitions == 15


@pytest.mark.parametrize("what", ["raise", "raise at reset", "nan observation", "nan at reset"])
def test_crashed_episodes_within_a_budget_of_episodes(what: str) -> None:
    def make(first_index: int, *whats: str) -> InProcessSampler:
        sampler = InProcessSampler(
            [BrokenEnv(w, 4) for w in whats],
            first_index=first_index,
            remake=lambda e: CountingEnv(),
        )
        sampler.bind(CountingPolicy(), seed=7)
        return sampler

    whole = make(0, "", what, "")
    parts = [make(0, ""), make(1, what, "")]
    budget = whole.budget("episodes", 14)
    crashes = 0
    for _ in range(3):
        expected = whole.collect(budget)
        groups = (slice(0, 1), slice(1, 3))
        joined = Rollout.concatenate(
            [p.collect(budget.part(g)) for p, g in zip(parts, groups, strict=True)]
        )
        for name in vars(expected):
            if name != "seconds":
                np.testing.assert_array_equal(getattr(joined, name), getattr(expected, name), name)
        crashes += len(expected.crashes)
        # what is left are whole episodes
        assert np.isfinite(expected.observations).all()
        ends = np.count_nonzero(expected.terminated | expected.truncated)
        assert ends == len(expected.episode_lengths)
        assert expected.episode_lengths.sum() == expected.n_transitions
        assert whole.state_dict()["episode_lengths"].tolist() == [0] * 3
    assert crashes == (2 if what == "nan at reset" else 1)  # it fails at every reset


def test_budgets_that_cannot_be() -> None:
    sampler = in_process(SCRIPT, SCRIPT)
    with pytest.raises(
        ValueError, match=r"batch_size: expected at least one step for each of the 2"
    ):
        sampler.budget("episodes", 1)
    with pytest.raises(ValueError, match="budget: expected at least 1 step of each environment"):
        Budget("steps", (1, 0))
    with pytest.raises(
        ValueError, match="budget: expected one for the 2 environments, got one for 3"
    ):
        sampler.collect(Budget.share("steps", 9, 3))


# --- seeds and state ---


@pytest.mark.parametrize("mode", MODES)
def test_seeds_follow_the_documented_rule(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT, SCRIPT)
    sampler.collect(6)
    for e, environment in enumerate(counting_environments(sampler)):
        word = int(np.random.SeedSequence([7, e]).generate_state(1)[0])
        assert environment_seed(7, e) == word
        assert environment.seeds[0] == word
        # later resets go on with the environment's own generator
        assert set(environment.seeds[1:]) == {None}


def test_state_survives_and_environments_restart_with_fresh_seeds() -> None:
    sampler = in_process(SCRIPT)
    sampler.collect(4)
    state = sampler.state_dict()
    assert state["counters"].tolist() == [4]
    assert state["episode_returns"].tolist() == [201]  # steps 0 and 1 of episode 1
    assert state["episode_lengths"].tolist() == [2]

    resumed = in_process(SCRIPT)
    resumed.load_state_dict(state)
    rollout = resumed.collect(2)
    (environment,) = counting_environments(resumed)
    assert environment.seeds[0] == environment_seed(7, 0, 4) != environment_seed(7, 0)
    assert rollout.actions[:, 0, 0].tolist() == [4, 5]
    # nobody can finish the episode that was running: the new one is counted from its own start
    assert rollout.episode_returns.tolist() == [1]
    assert rollout.episode_lengths.tolist() == [2]

    with pytest.raises(ValueError, match=r"expected counters of shape \(2,\), got shape \(1,\)"):
        in_process(SCRIPT, SCRIPT).load_state_dict(state)
    with pytest.raises(ValueError, match="got nothing"):
        in_process(SCRIPT).load_state_dict({})


def test_vector_environments_have_no_state_to_save() -> None:
    sampler = vector(AutoresetMode.SAME_STEP, SCRIPT)
    sampler.collect(2)
    with pytest.raises(SnapshotError, match="inside a vector environment cannot be reached"):
        sampler.environment_state()


@pytest.mark.parametrize("mode", MODES)
def test_interruption_leaves_a_usable_sampler(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT)
    calls = itertools.count()

    def interrupt() -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.collect(10, on_step=interrupt)
    rollout = sampler.collect(8)
    check_transitions(rollout, counting_environments(sampler))
    assert rollout.observations[0, 0, 1] == 0
    sampler.close()
    sampler.close()
    if mode is None:
        assert counting_environments(sampler)[0].closed == 1
    with pytest.raises(RuntimeError, match="closed"):
        sampler.collect(1)


@pytest.mark.parametrize("mode", MODES)
def test_on_step_is_called_once_a_vector_step(mode: Any) -> None:
    sampler = sampler_for(mode, SCRIPT, SCRIPT)
    calls: list[int] = []
    sampler.collect(5, on_step=lambda: calls.append(1))
    assert len(calls) == 5


@pytest.mark.parametrize("mode", MODES)
def test_errors_of_on_step_are_not_blamed_on_the_environment(mode: Any) -> None:
    def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        sampler_for(mode, SCRIPT).collect(5, on_step=fail)


# --- errors ---


class BrokenEnv(CountingEnv):
    """Counts until step `at` (over all episodes), where it does `what`."""

    def __init__(self, what: str, at: int = 3) -> None:
        super().__init__()
        self.what, self.at, self.total = what, at, 0

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        if self.what == "raise at first reset":
            raise OSError("no display")
        if self.what == "raise at reset" and self.total > 0:
            raise OSError("no display")
        if self.what == "old reset" and self.total > 0:
            return observation[:1]
        if self.what == "nan at reset" and self.total > 0:
            return observation * np.nan, info
        return observation, info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.total += 1
        what = self.what if self.total == self.at + 1 else ""
        if self.what == "nan, then raise" and self.total == self.at + 2:
            raise FloatingPointError("unstable")
        if what == "raise":
            raise OSError("simulator lost")
        if what in ("nan observation", "nan, then raise"):
            observation[1] = np.nan
        if what == "huge observation":
            observation[1] = 1e300
        if what == "nan reward":
            reward = np.nan
        if what == "infinite reward":
            reward = -np.inf
        if what == "reward None":
            reward = None
        if what == "short":
            observation = observation[:1]
        if what == "column":
            observation = observation[:, None]
        if what == "nothing":
            observation = None
        if what == "nan final":
            return observation * np.nan, reward, False, True, info
        if what == "four values":
            return observation, reward, terminated, info
        return observation, reward, terminated, truncated, info


def collect_twos(sampler: Any) -> None:
    for _ in range(4):
        sampler.collect(2)


# steps of BrokenEnv: 0, 1 (terminated), then 2, 3, 4 (truncated), 5, ...
SENTENCES = {
    "nan observation": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is nan"),
    "nan, then raise": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is nan"),
    "huge observation": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is inf"),
    "nan reward": (ValueError, r"environment 6 \(\w+\), step 3: the reward is nan"),
    "infinite reward": (ValueError, r"environment 6 \(\w+\), step 3: the reward is -inf"),
    "nan final": (ValueError, r"step 3: entry 0 of the final observation is nan"),
    "nan at reset": (
        ValueError,
        r"reset before environment 6 \(\w+\), step 2: observation entry 0",
    ),
    "short": (
        ValueError,
        r"environment 6 .*, step 3: observation: expected shape \(2,\), got \(1,\)",
    ),
    "column": (ValueError, r"step 3: observation: expected shape \(2,\), got \(2, 1\)"),
    "nothing": (ValueError, r"step 3: observation: expected shape \(2,\), got \(\) \(NoneType\)"),
    "raise": (EnvironmentFailure, r"6 .*, step 3: the environment raised OSError: simulator lost"),
    "raise at reset": (EnvironmentFailure, r"reset after environment 6 .*, step 1: .*no display"),
    "raise at first reset": (
        EnvironmentFailure,
        r"reset before environment 6 .*, step 0: .*no disp",
    ),
    "old reset": (EnvironmentFailure, r"reset after environment 6 .*, step 1: .*must return \(obs"),
    "four values": (
        EnvironmentFailure,
        r"step 3: ValueError: .*step\(\) must return \(observation",
    ),
    "reward None": (EnvironmentFailure, r"step 3: TypeError: .*the reward one number"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_bad_environments_get_a_sentence(what: str) -> None:
    expected, words = SENTENCES[what]
    # the second of two environments, in a group that starts at 5; a rollout that ends half-way
    sampler = InProcessSampler([CountingEnv(), BrokenEnv(what)], first_index=5)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(expected, match=words) as caught:
        collect_twos(sampler)
    assert "\n" not in str(caught.value)
    if expected is EnvironmentFailure:
        assert caught.value.__cause__ is not None
    sampler.close()


VECTOR_SENTENCES = {
    "nan observation": (ValueError, r"environment 1 \(.*\), step 3: observation entry 1 is nan"),
    "nan, then raise": (ValueError, r"environment 1 \(.*\), step 3: observation entry 1 is nan"),
    "nan reward": (ValueError, r"environment 1 \(.*\), step 3: the reward is nan"),
    "raise": (EnvironmentFailure, r"step 3: the environment raised OSError: simulator lost"),
    "raise at first reset": (EnvironmentFailure, r"reset before .*, step 0: .*no display"),
    "raise at reset": (EnvironmentFailure, r"no display"),
}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("what", VECTOR_SENTENCES)
def test_bad_vector_environments_get_a_sentence(mode: AutoresetMode, what: str) -> None:
    expected, words = VECTOR_SENTENCES[what]
    at = 3 if mode != AutoresetMode.NEXT_STEP else 2  # one step was a reset
    vector_env = SyncVectorEnv([CountingEnv, lambda: BrokenEnv(what, at)], autoreset_mode=mode)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(expected, match=words):
        collect_twos(sampler)
    sampler.close()


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
            r"step 0: ValueError: .*step\(\) must return .* each for 2 environments",
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


class NanPolicy(CountingPolicy):
    def actor(self, observations: Any, actions: Any, counters: Any, envs: Any, *, seed: int) -> Any:
        class NanActor:
            def step(self, t: int) -> None:
                actions[t] = np.nan if t == 2 else 0.0

        return NanActor()


def test_a_policy_that_is_not_finite_is_named() -> None:
    sampler = in_process(SCRIPT, policy=NanPolicy())
    with pytest.raises(
        ValueError, match=r"environment 0 .*step 2: the policy chose the action nan"
    ):
        sampler.collect(4)


def test_misuse_gets_a_sentence() -> None:
    sampler = InProcessSampler([CountingEnv()])
    with pytest.raises(RuntimeError, match="no policy is bound"):
        sampler.collect(1)
    with pytest.raises(ValueError, match="seed: expected an integer in"):
        sampler.bind(CountingPolicy(), seed=-1)
    policy = CountingPolicy()
    policy.obs_dim = 3
    with pytest.raises(ValueError, match=r"policy: expected obs_dim 2 .*, got 3"):
        sampler.bind(policy, seed=0)
    policy = CountingPolicy()
    policy.dtype = np.dtype(np.float64)
    with pytest.raises(ValueError, match="policy: expected dtype float32, got float64"):
        sampler.bind(policy, seed=0)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(ValueError, match="n_steps: expected at least 1, got 0"):
        sampler.collect(0)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        InProcessSampler([])
    with pytest.raises(ValueError, match="environment 1: expected the observation_space"):
        InProcessSampler([CountingEnv(), gymnasium.make("CartPole-v1")])
    with pytest.raises(ValueError, match="parts: expected at least one rollout, got none"):
        Rollout.concatenate([])


# --- with the compiled policy ---


def core_sampler(env: Any, *, n_envs: int = 1, seed: int = 0, dtype: str = "float32") -> Any:
    core = pytest.importorskip("trpo_fast.core")
    sampler = make_sampler(env, n_envs=n_envs, dtype=dtype)
    policy = core.Policy(
        sampler.observation_encoder.dim,
        sampler.action_adapter.distribution,
        hidden_sizes=(8,),
        dtype=dtype,
        output_gain=1.0,
    )
    sampler.bind(policy, seed=seed)
    return sampler


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_seed_alone_decides(env_id: str, dtype: str) -> None:
    whole = core_sampler(env_id, n_envs=3, dtype=dtype).collect(60)
    sampler = core_sampler(env_id, n_envs=3, dtype=dtype)
    parts = [sampler.collect(n) for n in (1, 20, 39)]
    for name in ARRAYS:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    other = core_sampler(env_id, n_envs=3, dtype=dtype, seed=1).collect(60)
    assert not np.array_equal(other.observations, whole.observations)
    assert whole.observations.dtype == np.dtype(dtype)
    # environments differ from each other
    assert not np.array_equal(whole.observations[:, 0], whole.observations[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cuts", [(0, 1, 5), (0, 2, 3, 5)])
def test_who_steps_which_environment_does_not_matter(cuts: tuple[int, ...], dtype: str) -> None:
    core = pytest.importorskip("trpo_fast.core")

    def collect(begin: int, end: int) -> Rollout:
        environments = [gymnasium.make("Pendulum-v1") for _ in range(begin, end)]
        sampler = InProcessSampler(environments, first_index=begin, dtype=dtype)
        distribution = sampler.action_adapter.distribution
        sampler.bind(core.Policy(3, distribution, dtype=dtype, output_gain=1.0), seed=3)
        return sampler.collect(40)

    whole = collect(0, 5)
    joined = Rollout.concatenate([collect(*ends) for ends in itertools.pairwise(cuts)])
    for name in (*ARRAYS, "last_observations"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


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


class AnySpaces(gymnasium.Env[Any, Any]):
    """Random observations of any space; accepts actions of any space and checks them."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, False, bool(self.np_random.random() < 0.2), {}


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), spaces.Discrete(3, start=2)),
        (spaces.Discrete(5, start=1), spaces.MultiDiscrete([2, 3], start=[1, 0])),
        (spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)),
        (spaces.MultiBinary([2, 2]), spaces.Box(-0.1, 0.1, (2, 2), np.float64)),
        (
            spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2, 2))}),
            spaces.Box(-0.1, 0.1, (1,)),
        ),
        (spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,)))), spaces.Discrete(2)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_all_spaces_run_end_to_end(observation_space: Any, action_space: Any, mode: Any) -> None:
    def make() -> AnySpaces:
        return AnySpaces(observation_space, action_space)

    env = make if mode is None else SyncVectorEnv([make, make], autoreset_mode=mode)
    sampler = core_sampler(env, n_envs=2)
    rollout = sampler.collect(40)
    adapter = sampler.action_adapter
    assert rollout.actions.shape == (40, 2, adapter.action_dim)
    assert rollout.actions.dtype == adapter.stored_dtype("float32")
    assert rollout.truncated.any()
    assert len(rollout.final_observations) == rollout.truncated.sum()
    if not adapter.is_discrete:
        # clipped for the environment, stored as they were sampled
        assert np.abs(rollout.actions).max() > 0.1


@pytest.mark.parametrize(
    ("make", "busy"),
    [
        (lambda: make_sampler(CountingEnv, n_envs=3), 1),
        (lambda: make_sampler("CartPole-v1", n_envs=3, n_workers=2), 2),
        (lambda: make_sampler(SyncVectorEnv([CountingEnv] * 3)), 1),
        (lambda: make_sampler(AsyncVectorEnv([CountingEnv] * 3)), 3),
    ],
    ids=["in process", "workers", "sync", "async"],
)
def test_a_sampler_knows_how_many_cores_it_keeps_busy(make: Callable[[], Any], busy: int) -> None:
    with make() as sampler:
        assert sampler.busy_cores == busy


# --- EnvPool, by what it looks like; see test_envpool.py for the real one ---


def fake_pool(**changes: Any) -> Any:
    """Two environments of CartPole in the parts of an EnvPool that `step_of` uses."""
    spec = SimpleNamespace(
        _action_keys=["env_id", "players.env_id", "action"],
        _action_spec=[(np.int32, [], None), (np.int32, [], None), (np.int32, [-1], None)],
    )
    parts: dict[str, Any] = {
        "_state_keys": ["info:env_id", "done", "reward", "trunc", "obs"],
        "_spec": spec,
        "config": {"max_num_players": 1},
        "is_async": False,
        "all_env_ids": np.arange(2, dtype=np.int32),
        "_recv": lambda: [
            np.arange(2), np.array([True, True]), np.ones(2), np.array([True, False]),
            np.zeros((2, 4)),
        ],
        "step": lambda actions: "step",
    }  # fmt: skip
    pool = SimpleNamespace(**(parts | changes), sent=[])
    pool._send = pool.sent.append
    return pool


def test_a_pool_is_stepped_by_its_arrays() -> None:
    pool = fake_pool()
    observations, rewards, terminated, truncated, info = step_of(pool)(np.array([1, 0], np.int64))
    assert observations.shape == (2, 4)
    assert rewards.tolist() == [1.0, 1.0]
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [True, False])
    assert info == {}
    ((envs, players, actions),) = pool.sent
    assert envs.tolist() == players.tolist() == [0, 1]
    assert (actions.dtype, actions.tolist()) == (np.int32, [1, 0])


@pytest.mark.parametrize(
    "changes",
    [
        {"_state_keys": ["done", "reward", "trunc", "obs:position", "obs:speed"]},
        {"_state_keys": None},
        {"_spec": None},
        {"_spec": SimpleNamespace(_action_keys=["env_id", "action"], _action_spec=[])},
        {"config": {"max_num_players": 2}},
        {"is_async": True},
        {"all_env_ids": None, "is_async": True},
    ],
)
def test_a_pool_of_another_kind_is_stepped_by_its_own_step(changes: dict[str, Any]) -> None:
    pool = fake_pool(**changes)
    assert step_of(pool) is pool.step
    del pool._state_keys
    assert step_of(pool) is pool.step
