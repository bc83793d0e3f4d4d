"""What a tuning searches: an interval or a list of values for each setting."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .plan import StudyError


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``.

    Raises
    ------
    StudyError
        If it is empty, or logarithmic without being positive.
    """

    low: float
    high: float
    log: bool = False
    """Whether 0.01 to 0.02 is as wide as 0.1 to 0.2."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise StudyError(
                f"search: expected an interval such as 0.003:0.1, got {self.low:g}:{self.high:g}"
            )

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"

    @property
    def is_whole(self) -> bool:
        """Whether it holds integers: both ends are."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


Space = Mapping[str, Interval | Choice]

# What moves TRPO's results most, and nothing that only costs time. The intervals hold the defaults and
# the settings of the presets.
DEFAULT_SPACE: Space = {
    "max_kl": Interval(0.002, 0.1, log=True),
    "gae_lambda": Choice((0.9, 0.95, 0.98, 1.0)),
    "gamma": Choice((0.98, 0.99, 0.995, 0.999)),
    "batch_size": Choice((512, 1024, 2048, 4096, 8192)),
    "cg_damping": Interval(0.003, 0.3, log=True),
    "value_learning_rate": Interval(1e-4, 1e-2, log=True),
    "value_epochs": Choice((5, 10, 20)),
    "initial_log_std": Interval(-2.0, 0.5),
    "hidden_sizes": Choice(("32 32", "64 64", "128 128", "256 256")),
}


def parse_space(entries: Iterable[str]) -> dict[str, Interval | Choice]:
    """Read settings such as ``max_kl=0.003:0.1`` and ``batch_size=1024,2048``.

    Parameters
    ----------
    entries
        A name with an interval, or with values that have commas between; a value of several words is
        a list. An interval of positive numbers whose ends differ by 10 times or more is logarithmic.

    Raises
    ------
    StudyError
        If one is something else.
    """
    space: dict[str, Interval | Choice] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not text.strip() or name in space:
            raise StudyError(
                f"--search: expected a setting, once, as max_kl=0.003:0.1 or batch_size=1024,2048, got "
                f"{entry!r:.80}"
            )
        low, colon, high = text.partition(":")
        if colon:
            ends = (_value(low), _value(high))
            if not all(isinstance(end, int | float) for end in ends):
                raise StudyError(f"--search: expected numbers around the colon, got {entry!r:.80}")
            space[name] = Interval(*ends, log=ends[0] > 0 and ends[1] / ends[0] >= 10)
        else:
            space[name] = Choice(tuple(_value(part) for part in text.split(",")))
    return space


def settings_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the configuration takes them: a text of several integers is a tuple.

    Parameters
    ----------
    chosen
        Values by name, as Optuna stores them.
    """
    return {name: _tuple(value) for name, value in chosen.items()}


def _tuple(value: Any) -> Any:
    if isinstance(value, str) and value.replace(" ", "").isdecimal():
        return tuple(map(int, value.split()))
    return value


def _value(text: str) -> Any:
    text = text.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)
