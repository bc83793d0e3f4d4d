"""Masks come from where environments have them, belong to the right state, and cost nobody else."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from masked_envs import SIZES, SOURCES, SPACES, MaskedEnv, masked_factory
from trpo_fast import TRPO
from trpo_fast.rollout import (
    InProcessSampler,
    Rollout,
    VectorEnvSampler,
    make_sampler,
)
from worker_envs import assert_same, with_policy

KINDS = tuple(SPACES)
ROWS = ("action_masks", "last_action_masks")


def check_masks(rollout: Rollout, kind: str, *, has_masks: bool = True) -> None:
    """Every mask is the one that its observation repeats, and every action is allowed."""
    assert rollout.has_masks is has_masks
    transitions = rollout.transitions()
    if not has_masks:
        assert transitions.action_masks is None
        return
    W = sum(SIZES[kind])
    masks = transitions.action_masks
    assert masks is not None
    assert masks.shape == (rollout.n_transitions, W)
    np.testing.assert_array_equal(masks, transitions.observations[:, :W] > 0.5)
    starts = np.concatenate([[0], np.cumsum(SIZES[kind])[:-1]])
    assert np.take_along_axis(masks, transitions.actions + starts, axis=1).all()
    assert not masks.all()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_found_and_kept(kind: str, source: str) -> None:
    with make_sampler(masked_factory(kind, source), n_envs=3) as sampler:
        with_policy(sampler)
        assert sampler.observation_encoder.dim == sum(SIZES[kind]) + 2  # the mask is no input
        for _ in range(3):
            rollout = sampler.collect(40)
            check_masks(rollout, kind)
            W = sum(SIZES[kind])
            last = rollout.last_observations[:, :W] > 0.5
            np.testing.assert_array_equal(rollout.last_action_masks, last)
        found = {"observation": "observation:action_mask"}.get(source, source)
        assert sampler.mask_source == found


@pytest.mark.parametrize("source", SOURCES)
def test_the_bits_do_not_depend_on_the_number_of_workers(source: str) -> None:
    """Whole episodes: rows of environments that stop early are padded."""
    make = masked_factory("multi_discrete", source)
    rollouts = []
    for n_workers in (0, 1, 3) if source == "info" else (0, 2):
        with make_sampler(make, n_envs=4, n_workers=n_workers) as sampler:
            with_policy(sampler)
            budgets = [sampler.budget("episodes", 60), 25, sampler.budget("total_steps", 90)]
            rollouts.append([sampler.collect(budget) for budget in budgets])
            assert sampler.mask_source != "auto"
    for others in rollouts[1:]:
        for mine, other in zip(others, rollouts[0], strict=True):
            assert_same(mine, other)
            for name in ROWS:
                np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
    assert not rollouts[0][0].valid.all()
    for rollout in rollouts[0]:
        check_masks(rollout, "multi_discrete")
    together = Rollout.join(rollouts[0])
    check_masks(together, "multi_discrete")


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("source", SOURCES)
def test_vector_environments(source: str, mode: AutoresetMode) -> None:
    """A terminal state may allow nothing: its mask is of no action that anybody takes."""
    zeros = mode is AutoresetMode.NEXT_STEP
    make = [lambda: MaskedEnv("discrete", source, terminal_zeros=zeros)] * 3
    vector_env = SyncVectorEnv(make, autoreset_mode=mode)
    with VectorEnvSampler(vector_env) as sampler:
        with_policy(sampler)
        rollout = sampler.collect(60)
        assert len(rollout.episode_returns) > 5
        check_masks(rollout, "discrete")
        check_masks(sampler.collect(10), "discrete")


@pytest.mark.parametrize("source", ["info", "observation"])
def test_a_vector_environment_has_the_bits_of_single_ones(source: str) -> None:
    make = [lambda: MaskedEnv("multi_binary", source)] * 3
    vector_env = SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    rollouts = []
    for sampler in (
        VectorEnvSampler(vector_env),
        InProcessSampler([MaskedEnv("multi_binary", source) for _ in range(3)]),
    ):
        with sampler:
            with_policy(sampler)
            rollouts.append(sampler.collect(50))
    assert_same(*rollouts)
    np.testing.assert_array_equal(rollouts[0].action_masks, rollouts[1].action_masks)


def test_asynchronous_vector_environments_are_called() -> None:
    make = [lambda: MaskedEnv("discrete", "method")] * 2
    with VectorEnvSampler(AsyncVectorEnv(make), action_masks="method") as sampler:
        with_policy(sampler)
        check_masks(sampler.collect(20), "discrete")


class WithMethod(SyncVectorEnv):
    """A vector environment with a method of its own."""

    def action_masks(self) -> Any:
        return np.stack([env.unwrapped.mask for env in self.envs])  # type: ignore[attr-defined]


def test_vector_environments_may_have_the_method_themselves() -> None:
    make = [lambda: MaskedEnv("discrete", "silent")] * 2
    vector_env = WithMethod(make, autoreset_mode=AutoresetMode.SAME_STEP)
    with VectorEnvSampler(vector_env) as sampler:
        with_policy(sampler)
        check_masks(sampler.collect(20), "discrete")


# ---- settings ------------------------------------------------------------------------------


def test_none_turns_masks_off() -> None:
    for source in ("info", "observation"):
        make = masked_factory("discrete", source)
        with make_sampler(make, n_envs=2, action_masks="none") as sampler:
            with_policy(sampler)
            width = 7 if source == "info" else 12
            assert sampler.observation_encoder.dim == width  # the mask is an input like others
            with pytest.raises(Exception, match=r"the action \d is forbidden"):
                sampler.collect(200)


def test_environments_without_masks_have_none() -> None:
    for n_workers in (0, 1):
        with make_sampler("CartPole-v1", n_envs=2, n_workers=n_workers) as sampler:
            with_policy(sampler)
            rollout = sampler.collect(30)
            assert sampler.mask_source == "none"
            assert rollout.action_masks.shape == (30, 2, 0)
            assert rollout.transitions().action_masks is None
            check_masks(rollout, "discrete", has_masks=False)


class SeveralParts(MaskedEnv):
    """A mask under another name, beside a part of as many entries."""

    def __init__(self) -> None:
        super().__init__("discrete", "observation")
        parts = dict(self.observation_space.spaces)  # type: ignore[attr-defined]
        parts["legal"] = parts.pop("action_mask")
        self.observation_space = spaces.Dict(parts)

    def observe(self) -> tuple[Any, dict[str, Any]]:
        observation, info = super().observe()
        observation["legal"] = observation.pop("action_mask")
        return observation, info


def test_a_part_of_the_observation_by_name() -> None:
    with make_sampler(SeveralParts, n_envs=2, action_masks="observation:legal") as sampler:
        with_policy(sampler)
        check_masks(sampler.collect(30), "discrete")
        assert sampler.observation_encoder.dim == 7


@pytest.mark.parametrize(
    ("env", "setting", "words"),
    [
        ("CartPole-v1", "method", r"expected an environment with a method action_masks\(\)"),
        ("CartPole-v1", "observation:mask", "expected a part of the observation, one of"),
        ("Pendulum-v1", "info", "expected 'auto' or 'none' for the action space Box"),
        (SeveralParts, "observation:observation", "a part of 5 entries beside others"),
    ],
)
def test_settings_that_cannot_be_kept(env: Any, setting: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"action_masks: .*{words}"):
        make_sampler(env, n_envs=1, action_masks=setting)


def test_info_that_is_asked_for_and_missing() -> None:
    with make_sampler("CartPole-v1", n_envs=1, action_masks="info") as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"reset before environment 0 .*info\['action_mask'\]"):
            sampler.collect(5)


# ---- masks that are none -------------------------------------------------------------------

BAD = {
    "nothing allowed": "at least one allowed choice",
    "shape": r"expected 0 and 1 of shape \(\d,\)",
    "nan": "expected 0 or 1 in every entry, got nan",
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("spoil", BAD)
def test_a_mask_that_is_none_is_named_with_its_step(source: str, spoil: str) -> None:
    for n_workers in (0, 1) if source == "info" else (0,):
        make = masked_factory("multi_discrete", source, spoil=spoil, at=7)
        with make_sampler(make, n_envs=1, n_workers=n_workers) as sampler:
            with_policy(sampler)
            with pytest.raises(ValueError, match=rf"environment 0 .*step 7: .*{BAD[spoil]}"):
                sampler.collect(30)
            # the sampler is still usable
            check_masks(sampler.collect(5), "multi_discrete")


def test_a_component_without_choice_is_named() -> None:
    make = masked_factory("multi_discrete", "info", spoil="nothing allowed", at=-1)
    with make_sampler(make, n_envs=1) as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"reset before .* choice of component 1, got none of"):
            sampler.collect(5)


def test_a_mask_that_is_missing_at_a_step() -> None:
    with make_sampler(masked_factory("discrete", "info", spoil="missing"), n_envs=1) as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"step 3: .*info\['action_mask'\] at every reset"):
            sampler.collect(30)


def test_vector_environments_name_whose_mask_is_none() -> None:
    make = [lambda: MaskedEnv(), lambda: MaskedEnv(spoil="nothing allowed", at=4)]
    with VectorEnvSampler(SyncVectorEnv(make)) as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"step \d: environment 1: .*at least one allowed"):
            sampler.collect(30)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_spoilt_mask_is_a_crash_where_these_are_mended(n_workers: int) -> None:
    """Every environment spoils the mask of its step 7: its episode is dropped, and it is replaced."""
    make = masked_factory("discrete", "info", spoil="nan", at=7)
    settings: dict[str, Any] = {"restart_crashed_environments": True, "n_workers": n_workers}
    with make_sampler(make, n_envs=2, **settings) as sampler:
        with_policy(sampler)
        rollout = sampler.collect(40)
        assert len(rollout.crashes) >= 2
        assert "got nan" in rollout.crashes[0]
        assert not rollout.valid.all()
        check_masks(rollout, "discrete")


class Other(MaskedEnv):
    """The method raises."""

    def __init__(self) -> None:
        super().__init__("discrete", "silent")

    def action_masks(self) -> Any:
        raise KeyError("board")


def test_a_method_that_raises() -> None:
    with make_sampler(Other, n_envs=1) as sampler:
        with_policy(sampler)
        with pytest.raises(ValueError, match=r"action_masks\(\) raised KeyError: 'board'"):
            sampler.collect(3)


# ---- states --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "n_workers"), [("info", 0), ("method", 0), ("observation", 0), ("info", 2)]
)
def test_a_stored_run_goes_on_with_its_masks(source: str, n_workers: int) -> None:
    make = masked_factory("multi_binary", source)
    settings: dict[str, Any] = {"n_envs": 3, "n_workers": n_workers}
    with make_sampler(make, **settings) as sampler:
        with_policy(sampler)
        sampler.prepare_states()
        sampler.collect(17)
        stored = {**sampler.state_dict(), **sampler.environment_state()}
        found = sampler.mask_source
        expected = sampler.collect(21)
    with make_sampler(make, **settings) as sampler:
        with_policy(sampler)
        sampler.mask_source = found
        sampler.load_environment_state(stored)
        got = sampler.collect(21)
    assert_same(got, expected)
    np.testing.assert_array_equal(got.action_masks, expected.action_masks)
    check_masks(got, "multi_binary")


def test_registered_environments_too() -> None:
    gymnasium.register("tests/Masked-v0", MaskedEnv)
    try:
        with make_sampler("tests/Masked-v0", n_envs=2, env_kwargs={"source": "method"}) as sampler:
            with_policy(sampler)
            check_masks(sampler.collect(20), "discrete")
    finally:
        del gymnasium.registry["tests/Masked-v0"]


# ---- several agents ------------------------------------------------------------------------


class Agents:
    """Two agents, as PettingZoo has them; what one may do depends on the time, and on who it is."""

    metadata: ClassVar[dict[str, Any]] = {"name": "agents_v0"}
    possible_agents: ClassVar[list[str]] = ["a", "b"]

    def __init__(self, source: str) -> None:
        self.source = source

    def observation_space(self, agent: str) -> Any:
        seen = spaces.Box(-10, 10, (5,), np.float32)
        if self.source == "info":
            return seen
        return spaces.Dict({"observation": seen, "action_mask": spaces.MultiBinary(3)})

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def allowed(self, agent: str) -> Any:
        mask = np.ones(3, np.int8)
        mask[(self.t + "ab".index(agent)) % 3] = 0
        return mask

    def told(self, agents: Any) -> tuple[Any, Any]:
        seen = {a: np.array([*self.allowed(a), "ab".index(a), self.t], np.float32) for a in agents}
        masks = {a: {"action_mask": self.allowed(a)} for a in agents}
        if self.source == "info":
            return seen, masks
        return {a: {"observation": seen[a], **masks[a]} for a in agents}, {a: {} for a in agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents = 0, ["a", "b"]
        return self.told(self.agents)

    def step(self, actions: Any) -> Any:
        for agent, action in actions.items():
            assert self.allowed(agent)[action], f"{agent} may not {action} at {self.t}"
        here = list(self.agents)
        self.t += 1
        over = {a: self.t == (3 if a == "a" else 7) for a in here}
        self.agents = [a for a in here if not over[a]]
        seen, infos = self.told(here)
        return seen, {a: float(actions[a]) for a in here}, over, dict.fromkeys(here, False), infos

    def close(self) -> None:
        pass


@pytest.mark.parametrize("source", ["info", "observation"])
def test_several_agents_have_masks_of_their_own(source: str) -> None:
    agent = TRPO(lambda: Agents(source), n_envs=2, batch_size=60, hidden_sizes=(8,))
    agent.learn(180, progress=False)
    rollout = agent.collect()
    transitions = rollout.transitions()
    assert transitions.action_masks is not None
    np.testing.assert_array_equal(transitions.action_masks, transitions.observations[:, :3] > 0.5)
    assert agent.evaluate(3).lengths.tolist() == [7, 7, 7]
    agent.close()
