"""Environments that crash are replaced: what is left of a rollout are whole, true episodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from counting import (
    SCRIPT,
    BrokenEnv,
    CountingEnv,
    CountingPolicy,
)
from trpo_fast.rollout import InProcessSampler, Rollout, VectorEnvSampler


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


# --- many random scripts, against a simulation of one environment at a time ---


@dataclass
class Spec:
    """One episode: how it ends, and what breaks in it."""

    number: int
    length: int
    how: str  # "terminated" or "truncated"
    fault: str  # "" or what breaks
    at: int  # the step that breaks
    lost: bool = False

    def breaks(self, fault: str, k: int) -> bool:
        return self.fault == fault and self.at == k


FAULTS = ("raise", "observation", "reward", "reset raises", "reset nan")


def script_of(seed: int, e: int) -> Iterator[Spec]:
    """Episodes of environment e without end; the first one is sound."""
    random = np.random.default_rng([seed, e])
    for number in itertools.count():
        length = int(random.integers(1, 7))
        how = str(random.choice(["terminated", "truncated"]))
        fault = str(random.choice(FAULTS)) if number and random.random() < 0.35 else ""
        yield Spec(number, length, how, fault, int(random.integers(length)))


class ScriptedEnv(CountingEnv):
    """Episodes of a script that goes on where the environment that this one replaces stopped."""

    def __init__(self, script: Iterator[Spec]) -> None:
        super().__init__()
        self.specs = script

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.spec, self.k = next(self.specs), 0
        if seed is None and self.spec.fault == "reset raises":
            raise OSError("no display")
        broken = seed is None and self.spec.fault == "reset nan"
        return np.array([np.nan if broken else self.spec.number, 0.0]), {}

    def step(self, action: Any) -> Any:
        spec, k = self.spec, self.k
        self.k += 1
        if spec.breaks("raise", k):
            raise OSError("simulator lost")
        observation = np.array([spec.number, self.k], float)
        if spec.breaks("observation", k):
            observation[1] = np.inf
        reward = np.nan if spec.breaks("reward", k) else 100.0 * spec.number + k
        ends = self.k == spec.length
        terminated = spec.how == "terminated"
        return observation, reward, ends and terminated, ends and not terminated, {}


class Expected:
    """What a rollout should hold of one environment, found episode by episode."""

    def __init__(self, seed: int, e: int) -> None:
        self.e, self.specs, self.steps = e, script_of(seed, e), 0
        self.begin(seeded=True)

    def begin(self, *, seeded: bool) -> None:
        self.spec, self.k, self.sum = next(self.specs), 0, 0.0
        if not seeded and self.spec.fault == "reset raises":
            self.say(
                f"reset after environment {self.e} (environment), step {self.steps - 1}: the e"
            )
            self.begin(seeded=True)
        elif not seeded and self.spec.fault == "reset nan":
            self.lose(f"reset before environment {self.e} (environment), step {self.steps}: obs")

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def lose(self, sentence: str) -> None:
        self.spec.lost = True
        self.say(sentence)

    def rollout(self, share: int, whole: bool) -> None:
        self.said: list[str] = []
        self.rows: list[tuple[Spec, int]] = []
        self.ended: list[tuple[int, Spec, float, int]] = []
        begun = True  # by whole episodes, every rollout begins with one
        while len(self.rows) < share or (whole and not begun):
            spec, k = self.spec, self.k
            where = f"environment {self.e} (environment), step {self.steps}: "
            self.rows.append((spec, k))
            self.steps += 1
            begun = True
            if spec.breaks("raise", k):
                self.lose(where + "the environment raised OSError: simulator lost")
                self.begin(seeded=True)
                continue
            self.k += 1
            ends = self.k == spec.length
            if spec.breaks("reward", k):
                self.lose(where + "the reward is nan")
            # nobody looks at the observation of a terminal state
            if spec.breaks("observation", k) and not (ends and spec.how == "terminated"):
                what = (
                    "entry 1 of the final observation is inf" if ends else "observation entry 1 is"
                )
                self.lose(where + what)
            self.sum += 100.0 * spec.number + k
            if ends:
                self.ended.append((len(self.rows) - 1, spec, self.sum, self.k))
                self.begin(seeded=False)
            else:
                begun = False
        if self.spec.lost:
            self.begin(seeded=True)
        self.ended = [end for end in self.ended if not end[1].lost]


@pytest.mark.parametrize("sampling", ["steps", "total_steps", "episodes"])
def test_what_is_left_are_the_whole_true_episodes(sampling: Any) -> None:
    n_lost = n_kept = 0
    for seed in range(60):
        scripts = [script_of(seed, e) for e in range(3)]
        sampler = InProcessSampler(
            [ScriptedEnv(script) for script in scripts],
            remake=lambda e, scripts=scripts: ScriptedEnv(scripts[e]),
        )
        sampler.bind(CountingPolicy(), seed=7)
        simulations = [Expected(seed, e) for e in range(3)]
        budget = sampler.budget(sampling, 5 + seed % 17)
        for _ in range(4):
            rollout = sampler.collect(budget)
            for e, expected in enumerate(simulations):
                expected.rollout(budget.steps[e], sampling == "episodes")
                n = len(expected.rows)
                valid = [not spec.lost for spec, _ in expected.rows]
                n_lost, n_kept = n_lost + valid.count(False), n_kept + valid.count(True)
                assert rollout.valid[:, e].tolist() == valid + [False] * (rollout.n_steps - n)
                for t, (spec, k) in enumerate(expected.rows):
                    ends = not spec.lost and k + 1 == spec.length
                    state, reward = ([spec.number, k], 100.0 * spec.number + k)
                    assert rollout.observations[t, e].tolist() == ([0, 0] if spec.lost else state)
                    assert rollout.rewards[t, e] == (0.0 if spec.lost else reward)
                    assert rollout.terminated[t, e] == (ends and spec.how == "terminated")
                    assert rollout.truncated[t, e] == (ends and spec.how == "truncated")
                goes_on_from = [expected.spec.number, expected.k]
                assert rollout.last_observations[e].tolist() == goes_on_from
                assert (rollout.observations[n:, e] == goes_on_from).all()
                assert (rollout.actions[n:, e] == 0).all()
                assert sampler.state.lengths[e] == expected.k
                assert sampler.state.returns[e] == expected.sum
            ends = sorted((t, e, *end) for e, x in enumerate(simulations) for t, *end in x.ended)
            assert rollout.episode_indices.tolist() == [[t, e] for t, e, *_ in ends]
            assert rollout.episode_returns.tolist() == [total for *_, total, _ in ends]
            assert rollout.episode_lengths.tolist() == [length for *_, length in ends]
            cut = [(t, e, spec) for t, e, spec, *_ in ends if spec.how == "truncated"]
            assert rollout.final_indices.tolist() == [[t, e] for t, e, _ in cut]
            finals = [[spec.number, spec.length] for *_, spec in cut]
            assert rollout.final_observations.tolist() == finals
            said = [sentence for expected in simulations for sentence in expected.said]
            assert len(rollout.crashes) == len(said)
            for got, begin in zip(rollout.crashes, said, strict=True):
                assert got.startswith(begin)
    assert n_lost > 300
    assert n_kept > 1500


# --- odd cases by hand ---


class Plan(CountingEnv):
    """Counts, but for what a plan says: {(episode, step): what comes back instead}."""

    def __init__(self, plan: dict[tuple[int, int], Any], script: Any = SCRIPT) -> None:
        super().__init__(script)
        self.plan = plan

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return self.plan.get((self.episode, -1), observation), info

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        change = self.plan.get((self.episode, self.steps - 1), {})
        if "raise" in change:
            raise change["raise"]
        return (change.get("observation", observation), change.get("reward", reward), *rest)


NAN = np.full(2, np.nan)


def recovering(*environments: Any, remake: Callable[[int], Any] | None = None) -> InProcessSampler:
    sampler = InProcessSampler(
        list(environments), remake=remake or (lambda e: CountingEnv(((100, "terminated"),)))
    )
    sampler.bind(CountingPolicy(), seed=7)
    return sampler


def test_a_nan_of_the_reset_after_the_last_row_costs_no_step() -> None:
    # episode 0 ends with row 1
    sampler = recovering(Plan({(1, -1): NAN}))
    rollout = sampler.collect(2)
    assert rollout.valid.all()
    assert rollout.episode_returns.tolist() == [1.0]
    assert rollout.last_observations.tolist() == [[0, 0]]
    (sentence,) = rollout.crashes
    assert sentence.startswith("reset before environment 0 (environment), step 2: observation ent")
    # the fresh environment goes on
    following = sampler.collect(3)
    assert following.observations[:, 0].tolist() == [[0, 0], [0, 1], [0, 2]]
    assert following.crashes == ()


def test_two_broken_episodes_of_one_environment() -> None:
    script = ((2, "terminated"), (3, "truncated"), (2, "truncated"), (2, "terminated"))
    sampler = recovering(Plan({(0, 0): {"observation": NAN}, (2, 1): {"reward": np.inf}}, script))
    rollout = sampler.collect(9)
    assert rollout.valid[:, 0].tolist() == [False] * 2 + [True] * 3 + [False] * 2 + [True] * 2
    assert rollout.episode_lengths.tolist() == [3, 2]
    assert rollout.episode_returns.tolist() == [303.0, 601.0]
    # the truncated end of the second broken episode has no final observation any more
    assert rollout.final_indices.tolist() == [[4, 0]]
    assert rollout.final_observations.tolist() == [[1, 3]]
    first, second = rollout.crashes
    assert "step 0: observation entry 0 is nan" in first
    assert "step 6: the reward is inf" in second


@pytest.mark.parametrize("how", ["terminated", "truncated", "both"])
def test_a_nan_reward_at_the_last_step_of_an_episode(how: str) -> None:
    sampler = recovering(Plan({(0, 1): {"reward": np.nan}}, ((2, how), (2, "terminated"))))
    rollout = sampler.collect(4)
    assert rollout.valid[:, 0].tolist() == [False, False, True, True]
    assert not rollout.terminated[1, 0]
    assert not rollout.truncated[:, 0].any()
    assert len(rollout.final_indices) == 0
    assert rollout.episode_returns.tolist() == [201.0]
    assert len(rollout.crashes) == 1


def test_a_nan_final_observation_of_one_of_two_environments() -> None:
    script = ((2, "truncated"),)
    broken = Plan({(0, 1): {"observation": NAN}}, script)
    rollout = recovering(CountingEnv(script), broken).collect(4)
    assert rollout.valid.tolist() == [[True, False]] * 2 + [[True, True]] * 2
    assert rollout.final_indices.tolist() == [[1, 0], [3, 0], [3, 1]]
    assert rollout.final_observations.tolist() == [[0, 2], [1, 2], [1, 2]]
    assert rollout.episode_indices.tolist() == [[1, 0], [3, 0], [3, 1]]
    (sentence,) = rollout.crashes
    assert "environment 1 (environment), step 1: entry 0 of the final observation" in sentence


def test_the_last_successor_of_a_rollout_is_looked_at() -> None:
    sampler = recovering(Plan({(1, 0): {"observation": NAN}}))
    rollout = sampler.collect(3)
    assert rollout.valid[:, 0].tolist() == [True, True, False]
    assert rollout.last_observations.tolist() == [[0, 0]]
    assert sampler.state_dict()["episode_lengths"].tolist() == [0]


def test_the_first_reset_of_a_replacement_may_be_broken_as_well() -> None:
    def remake(e: int) -> Plan:
        return Plan({(0, -1): NAN})

    # in the middle of a rollout, its episode is dropped as any other
    sampler = recovering(Plan({(0, 1): {"raise": OSError("lost")}}), remake=remake)
    rollout = sampler.collect(5)
    assert rollout.valid[:, 0].tolist() == [False] * 4 + [True]
    assert rollout.observations[4, 0].tolist() == [1, 0]
    first, second = rollout.crashes
    assert "step 1: the environment raised OSError: lost" in first
    assert second.startswith("reset before environment 0 (environment), step 2: observation")
    # at the end there is nothing to go on from
    sampler = recovering(Plan({(1, 0): {"observation": NAN}}), remake=remake)
    with pytest.raises(ValueError, match=r"^reset before environment 0 .*, step 3: observation"):
        sampler.collect(3)


def test_the_environment_that_broke_is_named_not_another_one() -> None:
    script = ((9, "terminated"),)
    odd = Plan({(0, 1): {"observation": NAN}}, script)
    lost = Plan({(0, 4): {"raise": OSError("lost")}}, script)
    rollout = recovering(odd, lost).collect(6)
    first, second = rollout.crashes
    assert "environment 0 (environment), step 1: observation entry 0 is nan" in first
    assert "environment 1 (environment), step 4: the environment raised OSError: lost" in second


def test_the_cause_within_an_episode_is_named_once() -> None:
    plan = {(0, 1): {"observation": NAN}, (0, 4): {"raise": OSError("lost")}}
    rollout = recovering(Plan(plan, ((9, "terminated"),))).collect(6)
    (sentence,) = rollout.crashes
    assert "step 1: observation entry 0 is nan" in sentence


class BrokenPolicy(CountingPolicy):
    def actor(self, observations: Any, actions: Any, counters: Any, envs: Any, *, seed: int) -> Any:
        class BrokenActor:
            def step(self, t: int) -> None:
                actions[t] = np.nan if t == 2 else 0.0

        return BrokenActor()


@pytest.mark.parametrize("change", [{}, {"raise": OSError("lost")}, {"observation": NAN}])
def test_a_broken_policy_is_no_crash_of_an_environment(change: dict[str, Any]) -> None:
    sampler = InProcessSampler(
        [Plan({(0, 2): change}, ((9, "terminated"),))], remake=lambda e: CountingEnv()
    )
    sampler.bind(BrokenPolicy(), seed=7)
    with pytest.raises(ValueError, match=r"step 2: the policy chose the action nan"):
        sampler.collect(5)
    assert isinstance(sampler.environments[0], Plan)  # nobody replaced it


def test_the_final_observation_of_a_next_step_reset_is_not_blamed_on_the_reset() -> None:
    for how, words in (
        ("terminated", r"^environment 0 .*, step 1: observation entry 0 is nan"),
        ("truncated", r"^environment 0 .*, step 1: entry 0 of the final observation is nan"),
    ):
        plan = {(0, 1): {"observation": NAN}}
        vector_env = SyncVectorEnv(
            [lambda p=plan, h=how: Plan(p, ((2, h),))], autoreset_mode=AutoresetMode.NEXT_STEP
        )
        sampler = VectorEnvSampler(vector_env)
        sampler.bind(CountingPolicy(), seed=7)
        with pytest.raises(ValueError, match=words):
            sampler.collect(5)
    plan = {(1, -1): NAN}
    vector_env = SyncVectorEnv([lambda: Plan(plan)], autoreset_mode=AutoresetMode.NEXT_STEP)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=7)
    with pytest.raises(ValueError, match=r"^reset before environment 0 .*, step 3: observation"):
        sampler.collect(5)
