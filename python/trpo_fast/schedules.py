"""Settings that change over a run: what a number becomes as the remaining share falls from 1 to 0.

Wherever a setting takes a schedule, it takes one of these forms:

>>> TRPO("Hopper-v5", max_kl=schedules.linear(0.04, 0.004))
>>> TRPO("Hopper-v5", max_kl="linear:0.04:0.004")    # the same; the command line's and YAML's form
>>> TRPO("Hopper-v5", max_kl="cosine:0.04")          # from 0.04 to 0
>>> TRPO("Hopper-v5", max_kl="linear")               # from the setting's default to 0
>>> TRPO("Hopper-v5", max_kl=lambda remaining: 0.04 * remaining**2)

The remaining share is 1 as training begins and falls evenly with the environment steps, to 0 at the
end of the first ``learn`` with schedules, or after ``schedule_timesteps`` steps of the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, Union, cast, get_args

__all__ = ["FunctionSchedule", "Schedule", "Scheduled", "cosine", "linear", "number_of", "parsed"]

Shape = Literal["linear", "cosine"]

_FUNCTION = "function:"  # how a file names a function, which it cannot hold


@dataclass(frozen=True, repr=False)
class Schedule:
    """From one number to another over a run.

    ::

        linear   start r + end (1 - r)                                 r the remaining share
        cosine   the same with (1 + cos(pi (1 - r))) / 2 in place of r   (Loshchilov & Hutter 2017)

    Parameters
    ----------
    shape
        "linear", or "cosine": slow at both ends.
    start, end
        Value at the remaining shares 1 and 0; finite.

    Raises
    ------
    ValueError
        Another shape, or an end that is not finite.
    """

    shape: Shape
    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"schedule: expected linear or cosine, got {self.shape!r:.60}")
        for name in ("start", "end"):
            number = float(getattr(self, name))
            if not math.isfinite(number):
                raise ValueError(f"schedule: expected finite numbers, got {name} {number}")
            object.__setattr__(self, name, number)

    def __call__(self, remaining: float) -> float:
        """The value at a remaining share.

        Parameters
        ----------
        remaining
            In [0, 1]: 1 as training begins.
        """
        r = remaining
        if self.shape == "cosine":
            r = 0.5 * (1.0 + math.cos(math.pi * (1.0 - remaining)))
        value = self.start * r + self.end * (1.0 - r)
        low, high = sorted((self.start, self.end))
        return min(max(value, low), high)  # rounding does not lead out of a setting's range

    def __str__(self) -> str:
        """The form that the command line and files take."""
        return f"{self.shape}:{self.start!r}:{self.end!r}"

    def __repr__(self) -> str:
        return repr(str(self))


@dataclass(frozen=True, repr=False)
class FunctionSchedule:
    """A schedule that is a function of the remaining share; files know its name alone.

    Parameters
    ----------
    name
        Module and name of the function.
    function
        From the remaining share, in [0, 1], to the value; None where a file has told the name.
    """

    name: str
    function: Callable[[float], float] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, function: Callable[[float], float]) -> FunctionSchedule:
        """The schedule that a function is.

        Parameters
        ----------
        function
            From the remaining share to the value.
        """
        owner = function if hasattr(function, "__qualname__") else type(function)
        return cls(f"{owner.__module__}.{owner.__qualname__}", function)

    def __call__(self, remaining: float) -> float:
        """The value at a remaining share.

        Parameters
        ----------
        remaining
            In [0, 1]: 1 as training begins.

        Raises
        ------
        LookupError
            Only the name is known.
        """
        if self.function is None:
            raise LookupError(self.name)
        return self.function(remaining)

    def __str__(self) -> str:
        """How files name it."""
        return _FUNCTION + self.name

    def __repr__(self) -> str:
        return repr(str(self))


Scheduled: TypeAlias = Union[  # noqa: UP007  (names of this module, evaluated at run time)
    float, str, Schedule, FunctionSchedule, Callable[[float], float]
]
"""What a setting with a schedule takes. A configuration holds a number or one of the classes."""


def linear(start: float, end: float = 0.0) -> Schedule:
    """A straight line from one number to another over the run.

    Parameters
    ----------
    start, end
        Value as training begins, and at its end; finite.
    """
    return Schedule("linear", start, end)


def cosine(start: float, end: float = 0.0) -> Schedule:
    """Half a cosine from one number to another over the run: slow at both ends.

    Parameters
    ----------
    start, end
        Value as training begins, and at its end; finite.
    """
    return Schedule("cosine", start, end)


def parsed(text: str, default: float | None) -> Schedule | FunctionSchedule:
    """The schedule that a text such as "linear:0.04:0.004" names.

    Parameters
    ----------
    text
        ``SHAPE``, ``SHAPE:START`` or ``SHAPE:START:END``; or the name of a function, from a file.
    default
        Where a text without numbers starts; None if it has to tell.

    Raises
    ------
    ValueError
        Another text.
    """
    if text.startswith(_FUNCTION):
        return FunctionSchedule(text.removeprefix(_FUNCTION))
    shape, *ends = text.split(":")
    if shape not in get_args(Shape) or len(ends) > 2 or (not ends and default is None):
        raise ValueError(f"schedule: expected a text such as 'linear:0.04:0.004', got {text!r:.60}")
    numbers = [float(end) for end in ends] or [cast(float, default)]
    return Schedule(cast(Shape, shape), *numbers)


def number_of(value: Scheduled | None) -> float:
    """The number that a setting is in an iteration, whose schedules have become numbers.

    Parameters
    ----------
    value
        Of a field of the configuration that an agent's ``current`` is.
    """
    assert isinstance(value, float), "ask agent.current, where schedules are numbers"
    return value
