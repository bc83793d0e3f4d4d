"""Environments that crash are replaced: what is left of a rollout are whole, true episodes."""

from __future__ import annotations

import numpy as np
import pytest
from counting import (
    BrokenEnv,
    CountingEnv,
    CountingPolicy,
)

from trpo_fast.rollout import (
    InProcessSampler,
    Rollout,
)


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
