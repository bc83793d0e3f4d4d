"""Parallel environments of several agents: who takes part, what is learned from, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO
from trpo_fast.checkpoint import module_to_trust
from trpo_fast.envs import EnvironmentFailure, make_environment
from trpo_fast.rollout import make_sampler
from trpo_fast.rollout.pettingzoo_workers import PettingZooWorkerSampler

SMALL: dict[str, Any] = {
    "n_envs": 2,
    "batch_size": 60,
    "hidden_sizes": (8,),
    "seed": 3,
    "n_workers": 0,
}


class Meeting:
    """Three agents: a stays 7 steps, b terminates after 3, c comes at step 2 and is cut at step 5.

    As PettingZoo's ParallelEnv. An agent sees its number and the time; its reward is its action.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "meeting_v0", "render_modes": ["rgb_array"]}
    possible_agents: ClassVar[list[str]] = ["a", "b", "c"]
    render_mode = "rgb_array"

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(-10, 10, (2,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents = 0, ["a", "b"]
        self.bonus = float((options or {}).get("bonus", 0.0))
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def seen(self, agents: Any) -> Any:
        return {a: np.array(["abc".index(a), self.t], np.float32) for a in agents}

    def step(self, actions: Any) -> Any:
        if sorted(actions) != sorted(self.agents):  # no assert: pytest would rewrite the code
            raise AssertionError(f"actions of {sorted(actions)} for {sorted(self.agents)}")
        here = list(self.agents)
        self.t += 1
        terminated = {a: a == "b" and self.t == 3 for a in here}
        truncated = {a: (a == "c" and self.t == 5) or (a == "a" and self.t == 7) for a in here}
        rewards = {a: float(actions[a]) + self.bonus for a in here}
        infos = {a: {"is_success": a == "a", "place": 2.0} for a in here}
        self.agents = [a for a in here if not (terminated[a] or truncated[a])]
        if self.t == 2:
            self.agents.append("c")
        return self.seen({*here, *self.agents}), rewards, terminated, truncated, infos

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        self.closed = True


def test_agents_that_are_not_there_are_left_out() -> None:
    agent = TRPO(Meeting, **SMALL)
    assert (agent.sampler.n_envs, agent.env_name) == (6, "meeting_v0")
    rollout = agent.collect()  # 10 rows: a whole episode and 3 rows
    there = {
        "a": [True] * 10, "b": [True] * 3 + [False] * 4 + [True] * 3,
        "c": [False] * 2 + [True] * 3 + [False] * 4 + [True],
    }  # fmt: skip
    for e in range(6):
        assert rollout.valid[:, e].tolist() == there["abc"[e % 3]]
        assert not rollout.rewards[~rollout.valid[:, e], e].any()
        rows = rollout.observations[rollout.valid[:, e], e]
        assert set(rows[:, 0]) == {e % 3}
    assert rollout.observations[:, 0, 1].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert rollout.n_transitions == 2 * (10 + 6 + 4)
    # what ended, and how: rows, lengths, returns of an episode's own actions
    ends = {(int(t), int(e)) for t, e in rollout.episode_indices}
    assert ends == {(2, 1), (2, 4), (4, 2), (4, 5), (6, 0), (6, 3), (9, 1), (9, 4)}
    for (t, e), total, length in zip(
        rollout.episode_indices, rollout.episode_returns, rollout.episode_lengths, strict=True
    ):
        begin = t + 1 - {0: 7, 1: 3, 2: 3}[e % 3]
        assert length == t + 1 - begin
        assert total == rollout.rewards[begin : t + 1, e].sum()
    assert {(int(t), int(e)) for t, e in rollout.final_indices} == {(4, 2), (4, 5), (6, 0), (6, 3)}
    assert rollout.final_observations.tolist() == [[2, 5], [2, 5], [0, 7], [0, 7]]
    assert rollout.terminated[2, 1]
    assert not rollout.truncated[2, 1]
    success = rollout.episode_metrics["success"]
    assert success.tolist() == [float(e % 3 == 0) for _, e in rollout.episode_indices]


def test_rollouts_go_on_where_the_last_one_stopped() -> None:
    whole, parts = (TRPO(Meeting, **SMALL) for _ in range(2))
    long = whole.sampler.collect(21)
    short = [parts.sampler.collect(n) for n in (1, 9, 11)]
    for name in ("observations", "actions", "rewards", "valid", "terminated", "truncated"):
        joined = np.concatenate([getattr(part, name) for part in short])
        np.testing.assert_array_equal(joined, getattr(long, name))
    np.testing.assert_array_equal(
        np.concatenate([part.episode_returns for part in short]), long.episode_returns
    )


def test_it_learns_from_the_steps_that_were_taken() -> None:
    agent = TRPO(Meeting, **{**SMALL, "batch_size": 600, "max_kl": 0.05}, sampling="total_steps")
    agent.learn(12_000, progress=False)
    assert agent.last_record["rollout/steps"] >= 600
    result = agent.evaluate(3, seed=0)
    # the mean over agents of 7, 3 and 3 steps with the highest action
    assert result.mean_return == pytest.approx((14 + 6 + 6) / 3)
    assert result.lengths.tolist() == [7] * 3
    assert result.success_rate == pytest.approx(1 / 3)
    assert agent.predict(np.array([0, 0], np.float32), deterministic=True)[0] == 2
    agent.close()


class NoisyMeeting(Meeting):
    """Meetings at which what is seen, and how long a stays, is drawn."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        return super().reset(seed, options)

    def seen(self, agents: Any) -> Any:
        noise = self.random.normal(size=2).astype(np.float32)
        return {a: seen + noise for a, seen in super().seen(agents).items()}

    def step(self, actions: Any) -> Any:
        self.t = min(self.t + int(self.random.integers(2)), 6) if self.t > 4 else self.t
        return super().step(actions)


class OddMeeting(Meeting):
    """From step 2 on, what step() returns for agent a is another thing."""

    def __init__(self, entry: int, odd: Any) -> None:
        self.entry, self.odd = entry, odd

    def step(self, actions: Any) -> Any:
        returned = list(super().step(actions))
        if self.t == 2:
            if self.entry == 4:
                returned[4] = self.odd
            else:
                returned[self.entry]["a"] = self.odd
        return tuple(returned)


@pytest.mark.parametrize(
    ("entry", "odd", "words"),
    [
        (0, np.ma.masked_array(np.zeros(2), [True, False]), "expected numbers in every entry"),
        (1, "1.0", "reward: expected one number, got '1.0'"),
        (1, 1j, "reward: expected one number"),
        (2, None, "terminated: expected True or False, got None"),
        (3, float("nan"), "truncated: expected True or False"),
        (4, None, "info: expected a dictionary"),
    ],
)
def test_a_single_odd_step_of_one_agent_is_seen(entry: int, odd: Any, words: str) -> None:
    with (
        TRPO(OddMeeting(entry, odd), **{**SMALL, "n_envs": 1}) as agent,
        pytest.raises((EnvironmentFailure, ValueError)) as caught,
    ):
        agent.learn(60)
    assert words in str(caught.value)
    if entry:
        with (
            TRPO(Meeting(), **{**SMALL, "n_envs": 1}) as agent,
            pytest.raises(EnvironmentFailure, match="step 1 of evaluation episode 0") as caught,
        ):
            agent.evaluate(1, env=OddMeeting(entry, odd))
        assert words in str(caught.value)


def test_a_stored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, agent = TRPO(NoisyMeeting, **SMALL), TRPO(NoisyMeeting, **SMALL)
    for i in range(4):  # amid episodes: some agents are gone, others have not come yet
        for one in (whole, agent):
            one.learn(1, progress=False)  # an iteration
        path = agent.save(tmp_path / f"{i}.safetensors")
        agent.close()
        agent = TRPO.load(path, env=NoisyMeeting)
        assert agent.notice == ""
    assert agent.iteration == whole.iteration == 4
    np.testing.assert_array_equal(agent.policy.parameters, whole.policy.parameters)
    np.testing.assert_array_equal(agent.sampler.state.counters, whole.sampler.state.counters)
    assert agent.sampler.state.counters.min() > 0
    whole.close()
    agent.close()


@pytest.mark.usefixtures("nothing_is_left")
def test_workers_give_the_same_bits_and_share_their_files(tmp_path: Path) -> None:
    settings = {**SMALL, "n_envs": 3}
    here = TRPO(NoisyMeeting, **settings).learn(150, progress=False)
    there = TRPO(NoisyMeeting, **{**settings, "n_workers": 2}).learn(150, progress=False)
    sampler = there.sampler
    assert isinstance(sampler, PettingZooWorkerSampler)
    assert (sampler.n_workers, sampler.n_envs) == (2, 9)
    assert [group.stop - group.start for group in sampler.groups] == [3, 6]  # no agents apart

    path = there.save(tmp_path / "there.safetensors")
    assert there.notice == ""
    again = TRPO.load(path, env=NoisyMeeting, n_workers=0)
    assert again.notice == ""
    for agent in (here, there, again):
        agent.learn(100, progress=False)
        lengths = agent.evaluate(2, seed=0).lengths.tolist()
        assert lengths == here.evaluate(2, seed=0).lengths.tolist()
    for agent in (there, again):
        np.testing.assert_array_equal(agent.policy.parameters, here.policy.parameters)
        np.testing.assert_array_equal(
            agent.environments.get_attr("t"), here.environments.get_attr("t")
        )
        agent.environments.reset_options({"bonus": 100.0})
        assert agent.collect().rewards.max() >= 100.0
        with pytest.raises(NotImplementedError, match="map_environments needs environments of one"):
            agent.sampler.map_environments(id)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="got 'episodes'"):
            agent.sampler.budget("episodes", 60)
    for agent in (here, there, again):
        agent.close()


def test_what_cannot_be_stored_begins_anew_and_says_so(tmp_path: Path) -> None:
    agent = TRPO(Meeting(), **SMALL).learn(60, progress=False)  # an object: no copy to try it on
    path = agent.save(tmp_path / "agent.safetensors")
    loaded = TRPO.load(path, env=Meeting())
    assert "the environment was given as an object" in loaded.notice
    loaded.learn(60, progress=False)
    assert loaded.iteration == 2 * agent.iteration
    np.testing.assert_array_equal(
        loaded.sampler.state.counters > agent.sampler.state.counters, True
    )


def test_an_object_is_one_environment_and_evaluated_in_another() -> None:
    mine = Meeting()
    agent = TRPO(mine, **SMALL).learn(60, progress=False)
    assert agent.sampler.n_envs == 3
    with pytest.raises(ValueError, match="given as an object and cannot be made again"):
        agent.evaluate(1)
    with pytest.raises(ValueError, match="the one that the agent trains in"):
        agent.evaluate(1, env=mine)
    other = Meeting()
    assert agent.evaluate(2, env=other, seed=0).lengths.tolist() == [7, 7]
    assert not hasattr(other, "closed")
    agent.environments.reset_options({"bonus": 100.0})
    agent.environments.set_attr("t", 6)
    rewards = agent.collect().rewards
    assert rewards[0].max() < 100 <= rewards[1, 0]


@pytest.mark.parametrize("n_workers", [0, 1])
def test_crashes_are_not_mended(n_workers: int) -> None:
    with pytest.raises(ValueError, match="one of several agents, is not made again"):
        make_sampler(Meeting, n_workers=n_workers, restart_crashed_environments=True)


def test_a_video_shows_all_agents(tmp_path: Path) -> None:
    environment = make_environment(Meeting)
    environment.reset(seed=0)
    assert environment.render().shape == (4, 4, 3)


def test_other_environments_are_refused_in_one_sentence() -> None:
    class Turns(Meeting):
        metadata: ClassVar[dict[str, Any]] = {"name": "chess_v6", "is_parallelizable": False}

        def agent_iter(self) -> None: ...

    class Unlike(Meeting):
        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2 if agent == "b" else 3)

    class Breaks(Meeting):
        def step(self, actions: Any) -> Any:
            raise KeyError("b")

    with pytest.raises(TypeError, match="got chess_v6, whose agents take turns"):
        TRPO(Turns, **SMALL)
    with pytest.raises(
        TypeError, match=r"expected agents of equal spaces.*action_space.*of b; pad"
    ):
        TRPO(Unlike(), **SMALL)
    with pytest.raises(
        EnvironmentFailure, match="meeting_v0, step 0: the environment raised KeyError"
    ):
        TRPO(Breaks, **SMALL).learn(60)
    with pytest.raises(ValueError, match="sampling: expected 'steps' or 'total_steps'"):
        TRPO(Meeting, sampling="episodes", **SMALL)


def test_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a module of another package, which a file may not choose."""
    import sys
    import types

    home = types.ModuleType("zoo_of_mine.meeting_v0")
    home.parallel_env = Meeting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo_of_mine", types.ModuleType("zoo_of_mine"))
    monkeypatch.setitem(sys.modules, "zoo_of_mine.meeting_v0", home)
    with make_sampler("pettingzoo:zoo_of_mine.meeting_v0", n_envs=2, n_workers=0) as sampler:
        assert (sampler.n_envs, sampler.name) == (6, "pettingzoo:zoo_of_mine.meeting_v0")
    assert module_to_trust("pettingzoo:zoo_of_mine.meeting_v0") == "zoo_of_mine.meeting_v0"
    assert module_to_trust("pettingzoo:pursuit_v5") is None
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(ImportError, match=r"pip install \"trpo_fast\[pettingzoo\]\""):
        TRPO("pettingzoo:pursuit_v5")
