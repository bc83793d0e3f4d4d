"""What NumPy would quietly turn into other numbers is refused, and whatever is raised gets a sentence."""

from __future__ import annotations

import itertools
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from stand_ins import Plain
from trpo_fast import TRPO, VineTRPO
from trpo_fast.envs import EnvironmentFailure

COMPLEX = "np.complex64(1+1j)" if repr(np.float32(1)).startswith("np.") else "(1+1j)"  # NumPy 1
SMALL: dict[str, Any] = {"batch_size": 32, "n_envs": 2, "n_workers": 0, "hidden_sizes": (4,)}


class Odd(Plain):
    """From step 5 on, another function of what a step returned."""

    def __init__(self, change: Callable[[Any], Any], entry: int) -> None:
        super().__init__()
        self.change, self.entry = change, entry

    def step(self, action: Any) -> Any:
        returned = list(super().step(action))
        if self.t >= 5:
            returned[self.entry] = self.change(returned[self.entry])
        return tuple(returned)


def said(make: Callable[[], Any], **settings: Any) -> str:
    with (
        TRPO(make, **{**SMALL, **settings}) as agent,
        pytest.raises((EnvironmentFailure, ValueError)) as caught,
    ):
        agent.learn(32)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda reward: np.complex64(1 + 1j),
            "reward: expected one number, got " + COMPLEX,
        ),
        (lambda reward: (-2.0) ** 0.5, "reward: expected one number"),
        (lambda reward: 10**400, "reward: expected one number, got one beyond those of float64"),
        (lambda reward: np.ma.masked, "reward: expected one number, got an array of shape ()"),
    ],
)
def test_rewards_that_are_no_real_number(change: Any, words: str) -> None:
    sentence = said(lambda: Odd(change, 1))
    assert words in sentence
    assert "environment 0 (Odd), step 4" in sentence


@pytest.mark.parametrize(
    ("entry", "odd", "words"),
    [
        (0, np.zeros(2, np.complex64), "expected real numbers"),
        (1, np.str_("1.0"), "reward: expected one number"),
        (2, 2, "terminated: expected True or False"),
        (3, None, "truncated: expected True or False"),
        (4, [], "info: expected a dictionary"),
    ],
)
def test_a_single_odd_step_of_any_environment_is_seen(entry: int, odd: Any, words: str) -> None:
    class OddAtFive(Plain):
        number = itertools.count()

        def __init__(self) -> None:
            super().__init__()
            self.is_first = next(self.number) == 0

        def step(self, action: Any) -> Any:
            returned = list(super().step(action))
            if self.is_first and self.t == 5:
                returned[entry] = odd
            return tuple(returned)

    sentence = said(OddAtFive)
    assert "environment 0" in sentence
    assert words in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o.astype(complex), "expected real numbers, got complex128"),
        (lambda o: o.astype(str), "expected numbers, got dtype <U32"),
        (lambda o: o.astype("datetime64[s]"), "expected numbers, got dtype datetime64"),
        (lambda o: np.zeros(2, [("x", "f8")]), "expected numbers, got dtype"),
        (lambda o: np.ma.masked_array(o, [True, False]), "got masked ones"),
        (lambda o: o[:1], "expected shape (2,), got (1,)"),
    ],
)
@pytest.mark.filterwarnings("error::numpy.exceptions.ComplexWarning")
def test_observations_that_change_their_kind_amid_a_run(change: Any, words: str) -> None:
    sentence = said(lambda: Odd(change, 0))
    assert words in sentence
    assert "(Odd), step 4" in sentence  # of one of the two, which are alike


@pytest.mark.parametrize(
    "change", [lambda o: o.astype(np.float32), lambda o: o.tolist(), lambda o: o.astype(object)]
)
def test_other_forms_of_the_same_numbers_are_the_same_numbers(change: Any) -> None:
    """An array of float32, a list, an array of objects: the policy reads float32 anyway."""
    bits = []
    for function in (lambda o: o, change):
        with TRPO(lambda f=function: Odd(f, 0), **SMALL) as agent:
            bits.append(agent.learn(64).policy.parameters.tobytes())
    assert bits[0] == bits[1]


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Silent(), "the environment raised Silent ("),
        (ValueError("x" * 10**7), "the environment raised ValueError: xxx"),
        (SystemExit(3), "the environment raised SystemExit: 3"),  # a window that was closed
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
    ],
)
def test_whatever_a_step_raises_gets_a_sentence_of_bounded_length(
    error: BaseException, words: str
) -> None:
    def give(_: Any) -> Any:
        raise error

    sentence = said(lambda: Odd(give, 0))
    assert words in sentence
    assert "step 4" in sentence
    assert len(sentence) < 2000


class OddVector(gym.vector.SyncVectorEnv):
    """An entry of what step() returns is another one in step 5."""

    def __init__(self, entry: int, change: Callable[[Any], Any]) -> None:
        super().__init__([Plain, Plain])
        self.entry, self.change, self.taken = entry, change, 0

    def step(self, actions: Any) -> Any:
        returned = list(super().step(actions))
        self.taken += 1
        if self.taken == 5:
            returned[self.entry] = self.change(returned[self.entry])
        return tuple(returned)


def masked(values: Any) -> Any:
    return np.ma.masked_array(values, np.ones(np.shape(values), np.bool_))


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        (0, masked, "observation: expected numbers in every entry, got masked ones"),
        (1, masked, "rewards: expected 2 numbers"),
        (1, lambda rewards: rewards.astype(str), "rewards: expected 2 numbers"),
        (1, lambda rewards: rewards + 1j, "rewards: expected 2 numbers"),
        (1, lambda rewards: ["1.0", 2.0], "rewards: expected 2 numbers"),
        (1, lambda rewards: [None, 2.0], "reward: expected one number, got None"),
        (1, lambda rewards: 1.0, "rewards: expected 2 numbers, got"),
        (2, masked, "terminated: expected 2 flags, True or False each"),
        (2, lambda flags: flags.astype(str), "terminated: expected 2 flags"),
        (2, lambda flags: np.full(2, np.nan), "terminated: expected 2 flags"),
        (3, lambda flags: np.full(2, 2), "truncated: expected 2 flags"),
        (3, lambda flags: [None, False], "truncated: expected 2 flags"),
        (4, lambda infos: None, "info: expected a dictionary"),
    ],
)
def test_a_single_odd_step_of_a_vector_environment_is_seen(
    entry: int, change: Any, words: str
) -> None:
    sentence = said(lambda: OddVector(entry, change))
    assert "OddVector, step 4" in sentence
    assert words in sentence


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        (1, list),
        (1, lambda rewards: np.array(rewards.tolist(), object)),
        (2, lambda flags: flags.astype(np.int8)),
        (3, lambda flags: flags.astype(object)),
        (3, lambda flags: flags.tolist()),
    ],
)
def test_other_forms_of_the_same_rows_are_the_same_rows(entry: int, change: Any) -> None:
    bits = []
    for function in (lambda usual: usual, change):
        with TRPO(lambda f=function: OddVector(entry, f), **SMALL) as agent:
            bits.append(agent.learn(64).policy.parameters.tobytes())
    assert bits[0] == bits[1]


def test_a_step_that_ends_the_process_in_a_vector_environment_is_named() -> None:
    def leave(_: Any) -> Any:
        sys.exit(3)

    env = gym.vector.SyncVectorEnv([lambda: Odd(leave, 0)])
    assert "SyncVectorEnv, step 4: the environment raised SystemExit: 3" in said(lambda: env)


def test_an_exit_that_the_users_signal_handler_asks_for_is_one() -> None:
    def leave(*_: Any) -> None:
        sys.exit(7)

    def give(observation: Any) -> Any:
        signal.raise_signal(signal.SIGUSR2)
        return observation

    before = signal.signal(signal.SIGUSR2, leave)
    try:
        with TRPO(lambda: Odd(give, 0), **SMALL) as agent, pytest.raises(SystemExit) as caught:
            agent.learn(32)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert caught.value.code == 7


class Bounded(Plain):
    def __init__(self, low: float, high: float, name: str = "action_space") -> None:
        super().__init__()
        space = spaces.Box(-1.0, 1.0, (2,), np.float64)
        space.low, space.high = np.full(2, low), np.full(2, high)
        setattr(self, name, space)


@pytest.mark.parametrize(("low", "high"), [(1.0, -1.0), (np.nan, np.nan)])
def test_actions_between_which_no_number_lies_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="expected lower bounds up to the upper ones") as caught:
        TRPO(lambda: Bounded(low, high), **SMALL)
    assert f"got {low} and {high} of entry 0" in str(caught.value)


def test_bounds_of_observations_may_be_nan() -> None:
    with TRPO(lambda: Bounded(np.nan, np.nan, "observation_space"), **SMALL) as agent:
        agent.learn(32)


class Wide(Plain):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.observation_space = spaces.Discrete(n)


def test_what_cannot_fit_into_memory_is_refused_before_it_is_tried() -> None:
    with pytest.raises(ValueError, match=r"of memory hold, got observations of 50,000,000"):
        TRPO(lambda: Wide(50_000_000), **{**SMALL, "batch_size": 100_000})


class Leaving(Plain):
    """Ends the process in its n-th reset."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left -= 1
        if self.left == 0:
            sys.exit(0)
        return super().reset(seed=seed)


def test_a_reset_that_ends_the_process_is_named_wherever_it_is_called() -> None:
    raised = "the environment raised SystemExit: 0"
    vector_env = gym.vector.SyncVectorEnv([lambda: Leaving(1)])
    assert f"SyncVectorEnv, step 0: {raised}" in said(lambda: vector_env)
    with TRPO(lambda: Plain(), **SMALL) as agent:
        with pytest.raises(EnvironmentFailure, match=f"reset of evaluation episode 1: {raised}"):
            agent.evaluate(2, env=Leaving(2))
        leaving = Odd(lambda _: sys.exit(0), 0)
        with pytest.raises(EnvironmentFailure, match=f"step 4 of evaluation episode 0: {raised}"):
            agent.evaluate(1, env=leaving, seed=1)


class OddInBranches(Plain):
    """In the branches of a vine, whose steps follow a restored state, an entry is another one."""

    def __init__(self, change: Callable[[], Any], entry: int) -> None:
        super().__init__()
        self.change, self.entry = change, entry

    def step(self, action: Any) -> Any:
        returned = list(super().step(action))
        frames = traceback.walk_stack(sys._getframe())
        places = [(Path(f.f_code.co_filename).name, f.f_code.co_name) for f, _ in frames]
        if ("growing.py", "run") in places:
            returned[self.entry] = self.change()
        return tuple(returned)


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        (1, lambda: np.complex64(1 + 1j), "reward: expected one number, got " + COMPLEX),
        (1, lambda: "1.0", "reward: expected one number, got '1.0'"),
        (2, lambda: None, "terminated: expected True or False, got None"),
        (2, lambda: sys.exit(0), "the environment raised SystemExit: 0"),
    ],
)
def test_branches_of_a_vine_take_what_a_trunk_takes(entry: int, change: Any, words: str) -> None:
    with (
        VineTRPO(lambda: OddInBranches(change, entry), **{**SMALL, "batch_size": 64}) as agent,
        pytest.raises(EnvironmentFailure) as caught,
    ):
        agent.learn(64)
    assert "branch 0 from step" in str(caught.value)
    assert words in str(caught.value)
