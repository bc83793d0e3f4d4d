"""Environments that say which actions are allowed, raise where another one is taken, and repeat every
mask in their observation, so that no rollout can mix them up."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from masked_reference import random_masks

SPACES: dict[str, Any] = {
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary(3),
}
SIZES = {"discrete": (5,), "multi_discrete": (3, 4), "multi_binary": (2, 2, 2)}
SOURCES = ("info", "method", "observation")


class MaskedEnv(gymnasium.Env[Any, Any]):
    """Episodes of 1 to 12 steps; the mask of a state is drawn from the environment's generator.

    Parameters
    ----------
    kind
        One of `SPACES`.
    source
        Where the mask is: one of `SOURCES`, or "silent" for nowhere.
    spoil
        What is wrong with the mask that step `at` of the environment's life returns: "nothing allowed",
        "shape", "nan", "missing", or "" for nothing.
    at
        Counted from 0; -1 is the first reset.
    terminal_zeros
        Whether the mask of a last observation allows nothing, as of some environments.
    lenient
        Whether forbidden actions may be taken.
    """

    def __init__(
        self,
        kind: str = "discrete",
        source: str = "info",
        spoil: str = "",
        at: int = 3,
        terminal_zeros: bool = False,
        lenient: bool = False,
        **_: Any,
    ) -> None:
        self.metadata = {"render_modes": []}
        self.kind, self.source, self.spoil, self.at = kind, source, spoil, at
        self.terminal_zeros, self.lenient = terminal_zeros, lenient
        self.action_space = SPACES[kind]
        width = sum(SIZES[kind])
        numbers = spaces.Box(-np.inf, np.inf, (width + 2,), np.float64)
        self.observation_space = numbers
        if source == "observation":
            mask = spaces.MultiBinary(width)
            self.observation_space = spaces.Dict({"observation": numbers, "action_mask": mask})
        self.steps = -1
        self.forbidden_taken = 0
        if source == "method":
            self.action_masks = lambda: self.given(self.mask)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 13))
        self.renew()
        return self.observe()

    def renew(self) -> None:
        seed = int(self.np_random.integers(2**31))
        self.mask = random_masks(SIZES[self.kind], 1, seed, share=0.5)[0]

    def observe(self) -> tuple[Any, dict[str, Any]]:
        numbers = np.concatenate([self.mask.astype(np.float64), self.np_random.normal(size=2)])
        if self.source == "observation":
            return {"observation": numbers, "action_mask": self.given(self.mask)}, {}
        if self.source == "info" and (given := self.given(self.mask)) is not None:
            return numbers, {"action_mask": given}
        return numbers, {}

    def given(self, mask: Any) -> Any:
        spoil = ""
        if self.steps == self.at:  # once
            spoil, self.spoil = self.spoil, ""
        if spoil == "shape":
            return np.ones(len(mask) + 2, np.int8)
        if spoil == "missing":
            return None
        if spoil == "nan":
            values = mask.astype(np.float64)
            values[1] = np.nan
            return values
        if spoil == "nothing allowed":
            values = mask.astype(np.int8)
            values[-SIZES[self.kind][-1] :] = 0
            return values
        return mask.astype(np.int8)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chosen = np.ravel(np.asarray(action) - getattr(self.action_space, "start", 0))
        begins = np.concatenate([[0], np.cumsum(SIZES[self.kind])[:-1]])
        if not self.lenient and not self.mask[begins + chosen].all():
            raise RuntimeError(f"the action {action} is forbidden by {self.mask}")
        self.steps += 1
        self.left -= 1
        reward = float(self.np_random.normal() + chosen.sum())
        self.renew()
        ends, how = self.left == 0, self.np_random.integers(3)
        if ends and self.terminal_zeros:
            self.mask = np.zeros_like(self.mask)
        observation, info = self.observe()
        return observation, reward, bool(ends and how != 1), bool(ends and how != 0), info


class Wrapped(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that knows nothing of masks."""


def masked_factory(kind: str, source: str, **settings: Any) -> Any:
    """A function that makes such environments, as agents take them.

    Parameters
    ----------
    kind, source, **settings
        As of `MaskedEnv`.
    """
    return lambda: Wrapped(MaskedEnv(kind, source, **settings))
