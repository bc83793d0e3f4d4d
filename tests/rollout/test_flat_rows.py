"""What a rollout hands to those who learn from it: transitions, and nothing of its padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from counting import SCRIPTS, BrokenEnv, CountingEnv, CountingPolicy, in_process, vector
from trpo_fast import core
from trpo_fast.rollout import InProcessSampler, Rollout

GAMMA, LAMBDA = 0.9, 0.8


def value_of(observations: Any) -> Any:
    """Some V of raw observations (..., 2)."""
    return np.sin(observations[..., 0].astype(np.float64)) + 0.3 * observations[..., 1]


def advantages(rollout: Rollout) -> tuple[Any, Any]:
    """GAE as an agent computes it, for the transitions alone: (N,), (N,)."""
    values = value_of(rollout.observations)
    next_values = rollout.next_values(
        values, value_of(rollout.last_observations), value_of(rollout.final_observations)
    )
    found = core.gae(
        rollout.rewards,
        values,
        next_values,
        rollout.terminated,
        rollout.boundaries,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    return rollout.select(found[0]), rollout.select(found[1])


def crashed_rollout() -> Rollout:
    sampler = InProcessSampler(
        [CountingEnv(), BrokenEnv("raise", 7), CountingEnv()], remake=lambda e: CountingEnv()
    )
    sampler.bind(CountingPolicy(), seed=0)
    return sampler.collect(20)


ROLLOUTS = {
    "full": lambda: in_process(*SCRIPTS).collect(9),
    "padded": lambda: (lambda s: s.collect(s.budget("episodes", 21)))(in_process(*SCRIPTS)),
    "autoresets": lambda: vector(AutoresetMode.NEXT_STEP, *SCRIPTS).collect(20),
    "dropped": crashed_rollout,
}


@pytest.mark.parametrize("kind", ROLLOUTS)
def test_transitions_are_the_valid_rows_in_the_order_of_time(kind: str) -> None:
    rollout = ROLLOUTS[kind]()
    assert rollout.valid.all() == (kind == "full")
    rows = [(t, e) for t in range(rollout.n_steps) for e in range(rollout.n_envs)]
    rows = [row for row in rows if rollout.valid[row]]
    transitions = rollout.transitions()
    assert len(transitions) == len(rows) == rollout.n_transitions
    for name in ("observations", "actions", "rewards", "terminated", "truncated"):
        flat, whole = getattr(transitions, name), getattr(rollout, name)
        assert flat.dtype == whole.dtype
        assert flat.shape == (len(rows), *whole.shape[2:])
        assert flat.tolist() == [whole[row].tolist() for row in rows], name
        # nothing is copied where there is nothing to leave out
        assert np.shares_memory(flat, whole) == (kind == "full")


@pytest.mark.parametrize("kind", ["full", "padded"])
def test_steps_from_start_are_counted_by_hand(kind: str) -> None:
    rollout = ROLLOUTS[kind]()
    # the environments begin with the rollout, and say themselves how many steps they took
    assert rollout.steps_from_start().tolist() == rollout.transitions().observations[:, 1].tolist()


@pytest.mark.parametrize("sampling", ["steps", "total_steps", "episodes"])
def test_advantages_do_not_know_of_padding(sampling: Any) -> None:
    sampler = in_process(*SCRIPTS)
    budget = sampler.budget(sampling, 21)
    rollout = sampler.collect(budget)
    _, e = np.nonzero(rollout.valid)
    together = advantages(rollout)
    for env, script in enumerate(SCRIPTS):
        alone = in_process(script, first_index=env).collect(budget.part(slice(env, env + 1)))
        assert alone.valid.all()
        for mine, other in zip(together, advantages(alone), strict=True):
            np.testing.assert_array_equal(mine[e == env], other)


def test_advantages_do_not_know_of_autoresets() -> None:
    found = {}
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        rollout = vector(mode, SCRIPTS[0]).collect(23)
        ended = rollout.episode_lengths.sum()
        found[mode] = [values[:ended].tolist() for values in advantages(rollout)]
    resets, none = found.values()
    n = min(len(resets[0]), len(none[0]))
    assert n > 12
    assert [values[:n] for values in resets] == [values[:n] for values in none]


def test_boundaries_are_the_truncated_steps_and_the_last_before_padding() -> None:
    sampler = in_process(((3, "truncated"),), ((9, "terminated"),))
    rollout = sampler.collect(sampler.budget("total_steps", 7))
    assert rollout.valid[:, 1].tolist() == [True, True, True, False]
    assert np.argwhere(rollout.truncated).tolist() == [[2, 0]]
    assert np.argwhere(rollout.boundaries).tolist() == [[2, 0], [2, 1]]
    # where nothing follows that is no transition, they are the truncated steps themselves
    following = sampler.collect(2)
    assert (
        following.boundaries.tolist()
        == following.truncated.tolist()
        == [[False] * 2, [True, False]]
    )
