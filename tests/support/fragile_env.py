"""An environment that takes what it lives in with it, once."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium


class FragileEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """CartPole that is the end of its actor at its n-th step, unless that has happened already.

    Parameters
    ----------
    flag
        File that says that it has happened.
    at
        Steps after which it happens, counted over episodes.
    times
        How often it happens.
    """

    def __init__(self, flag: str, at: int, times: int = 1) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.flag, self.at, self.times, self.taken, self.level = flag, at, times, 0, 0

    def step(self, action: Any) -> Any:
        self.taken += 1
        if self.taken == self.at and len(_read(self.flag)) < self.times:
            with open(self.flag, "a") as file:
                file.write("x")
            end_of_the_actor()
        return self.env.step(action)

    def raise_level(self, by: int) -> int:
        """What it returns depends on how often it was called."""
        self.level += by
        return self.level


class ClosedEnv(FragileEnv):
    """One whose state cannot be stored: it holds a lock."""

    def __init__(self, flag: str, at: int, times: int = 1) -> None:
        super().__init__(flag, at, times)
        self.lock = threading.Lock()


def end_of_the_actor() -> None:
    """Kill the process of a Ray actor; the stand-in's actors share this process."""
    import ray

    if hasattr(ray, "handles"):
        from fake_ray import Die

        raise Die
    os.kill(os.getpid(), 9)


def fragile(flag: Path, at: int, kind: type[FragileEnv] = FragileEnv, times: int = 1) -> Any:
    """A function that makes one."""
    return partial(kind, str(flag), at, times)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
