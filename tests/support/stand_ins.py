"""Small environments, one for each kind of trouble that users' environments bring."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

TAXI = max(name for name in gym.registry if name.startswith("Taxi-v"))
"""Gymnasium has one version of it at a time."""


class Plain(gym.Env[Any, Any]):
    """An observation of two numbers, episodes of random length, all state in Python."""

    def __init__(self, strength: float = 0.3) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2)
        self.strength = strength
        self.place = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.place = 0, float(self.np_random.normal())
        return self._observe(), {}

    def _observe(self) -> Any:
        return np.array([self.place, float(self.t)])

    def step(self, action: Any) -> Any:
        self.t += 1
        self.place += self.strength * (2 * int(action) - 1) + 0.1 * self.np_random.normal()
        ended = bool(self.np_random.random() < 0.02)
        return self._observe(), -abs(self.place), ended, self.t >= 50, {}


SIMULATORS: dict[int, dict[str, Any]] = {}  # the world outside: handle to state


class Handle(Plain):
    """The simulator lives behind an integer handle; Python holds the handle and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.handle = 1 + max(SIMULATORS, default=0)
        SIMULATORS[self.handle] = {"place": 0.0, "calls": []}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        simulator = SIMULATORS[self.handle]
        simulator["place"] = 0.0
        simulator["calls"].append("reset")
        return np.array([0.0, 0.0]), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        simulator = SIMULATORS[self.handle]
        simulator["place"] += 0.1 * (2 * int(action) - 1)
        simulator["calls"].append("step")
        observation = np.array([simulator["place"], float(self.t)])
        return observation, -abs(simulator["place"]), False, self.t >= 50, {}


class _WithoutModule(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise AttributeError("__module__")


class Swig(metaclass=_WithoutModule):
    """An object of a class that has no `__module__`, as those of SWIG."""

    def __init__(self) -> None:
        self.this = iter([1])  # what holds the state of another language


class SwigEnv(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.world = Swig()


class OddArrays(Plain):
    """Arrays of text, bytes, dates and complex numbers, one of which changes."""

    def __init__(self) -> None:
        super().__init__()
        self.map = np.array([b"SF", b"FG"])
        self.names = np.array(["left", "rigth"])
        self.start = np.array(["2026-01-01", "2026-01-02"], "datetime64[D]")
        self.wave = np.array([1j, 2.0])
        self.large = np.arange(3, dtype=">i4")
        self.wide = np.arange(3, dtype=np.longdouble)
        self.one = np.str_("a")
        self.plain = [
            datetime.timedelta(1, 2, 3),
            datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
            datetime.date(2026, 1, 2),
            decimal.Decimal("0.10"),
            fractions.Fraction(1, 3),
            pathlib.Path("a") / "b",
        ]

    def step(self, action: Any) -> Any:
        self.wave = self.wave * np.exp(0.1j * (1 + int(action)))
        self.start = self.start + np.timedelta64(1, "D")
        result = super().step(action)
        reward = float(self.wave[0].real) + float(self.start[0].astype(int) % 7)
        return result[0], reward, *result[2:]


class Closing(Plain):
    """Its copies close the original when they are collected: both hold one connection."""

    open_connections: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.connection = 1 + max(self.open_connections, default=0)
        self.open_connections.add(self.connection)

    def step(self, action: Any) -> Any:
        assert self.connection in self.open_connections, "Not connected to physics server"
        return super().step(action)

    def __del__(self) -> None:
        self.open_connections.discard(self.connection)


class Counting(Plain):
    """Notes every call that reaches it."""

    made: ClassVar[list[Counting]] = []

    def __init__(self) -> None:
        super().__init__()
        self.log = [0, 0]  # resets, steps
        self.made.append(self)

    def reset(self, **kwargs: Any) -> Any:
        self.log[0] += 1
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.log[1] += 1
        return super().step(action)


class Slow(Plain):
    """20 ms a step, as a robot or a remote simulator."""

    def step(self, action: Any) -> Any:
        time.sleep(0.02)
        return super().step(action)


class Huge(Plain):
    """More objects than can be read in some milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = [[i, i + 1] for i in range(400_000)]


class Hostile(Plain):
    """Answers every question about it with an error, and every copy too."""

    def __init__(self) -> None:
        super().__init__()
        self.part = HostilePart()


class HostilePart:
    asked: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> Any:
        HostilePart.asked.append(name)
        raise RuntimeError(f"do not ask for {name}")

    def __deepcopy__(self, memo: Any) -> Any:
        HostilePart.asked.append("copy")
        raise RuntimeError("do not copy")

    def __repr__(self) -> str:
        raise RuntimeError("no name")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class Raising(Plain):
    """Raises in its second life: a copy of it cannot be reset."""

    lives = 0

    def __init__(self) -> None:
        super().__init__()
        Raising.lives += 1
        self.life = "first" if Raising.lives == 1 else "later"

    def reset(self, **kwargs: Any) -> Any:
        if self.life == "later":
            raise OSError("only one client may connect")
        return super().reset(**kwargs)
