"""How many steps of which environment a rollout takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from counting import (
    ARRAYS,
    SCRIPT,
    SCRIPTS,
    CountingEnv,
    check_transitions,
    counting_environments,
    in_process,
    vector,
)
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    Budget,
    Rollout,
    environment_seed,
)


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
    monkeypatch.setattr("trpo_fast.rollout.filling.LONGEST_EPISODE", 50)
    sampler = in_process(SCRIPT, ((5, "terminated"), (10**9, "")))
    with pytest.raises(
        EnvironmentFailure,
        match=r"environment 1 .*step 56: an episode has not ended after 52 steps.*max_episode_step",
    ):
        sampler.collect(sampler.budget("episodes", 14))
    # by steps it does not matter
    assert sampler.collect(sampler.budget("total_steps", 15)).n_transitions == 15


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
