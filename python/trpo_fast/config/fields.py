"""Fields of a configuration: a default, the values that it takes, what to do about another one.

Each function here makes a field of a dataclass. Its check takes the field's name and a value, and
gives the value back in its plain Python type or raises :class:`ConfigError`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from .. import schedules

When = Literal["always", "load", "never"]
"""When a trained agent's setting may change: at any time, while it is loaded, or never."""

LARGEST_COUNT = 2**31 - 1  # sizes cross into C++ as 32-bit integers
LARGEST_SEED = 2**63 - 1
RECORDED = (  # what records hold of episodes already, under rollout/ and eval/
    "steps",
    "episodes",
    "episode_return",
    "episode_length",
    "crashes",
    "success_rate",
    "return",
    "return_std",
    "length",
    "cut",
    "max_steps",
    "episode",
    "timesteps",
)


class ConfigError(ValueError):
    """A configuration that cannot be: what, expected, got, and what to do, in one sentence."""


def setting(default: Any, check: Callable[[str, Any], Any], changes: When = "always") -> Any:
    """A field of a configuration.

    Parameters
    ----------
    default
        Its value where none is given.
    check
        Called with the field's name and a value; returns the value to store, or raises
        :class:`ConfigError`.
    changes
        When the setting of a trained agent may change.
    """
    return dataclasses.field(default=default, metadata={"check": check, "changes": changes})


def integer(
    default: int | None,
    low: int,
    high: int = LARGEST_COUNT,
    *,
    remedy: str,
    optional: bool = False,
    changes: When = "always",
) -> Any:
    """A field for an integer in [low, high]; `optional` allows None; `remedy` ends the error.

    Parameters
    ----------
    default
        Its value where none is given.
    low, high
        Smallest and largest value.
    remedy
        What to do about another value: the end of the error's sentence.
    optional
        Whether None is a value too.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        return checked_integer(name, value, low, high, remedy)

    return setting(default, check, changes)


def number(
    default: float | None,
    interval: str,
    *,
    remedy: str,
    optional: bool = False,
    changes: When = "always",
) -> Any:
    """A field for a finite number in an interval such as "(0, 1]", whose 0 is left out.

    Parameters
    ----------
    default
        Its value where none is given.
    interval
        Such as "(0, 1]": a round bracket leaves its end out.
    remedy
        What to do about another value: the end of the error's sentence.
    optional
        Whether None is a value too.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        return _checked_number(name, value, interval, remedy)

    return setting(default, check, changes)


def scheduled(
    default: float | None,
    interval: str,
    *,
    remedy: str,
    optional: bool = False,
    start: float | None = None,
    changes: When = "always",
) -> Any:
    """A field for a number in an interval as in :func:`number`, or for a schedule of such numbers.

    A schedule may end at 0, which no iteration reaches, whatever the interval says.

    Parameters
    ----------
    default
        Its value where none is given.
    interval
        Such as "(0, 1]": a round bracket leaves its end out.
    remedy
        What to do about another value: the end of the error's sentence.
    optional
        Whether None is a value too.
    start
        Where a schedule without numbers starts; None: at the default.
    changes
        When the setting of a trained agent may change.
    """

    def check(
        name: str, value: Any
    ) -> float | schedules.Schedule | schedules.FunctionSchedule | None:
        if value is None and optional:
            return None
        if isinstance(value, str):
            try:
                value = schedules.parsed(value, default if start is None else start)
            except ValueError:
                raise ConfigError(
                    f"{name}: expected a number in {interval} or a schedule such as "
                    f"'linear:START:END' or 'cosine:START:END', got {show(value)}; {remedy}"
                ) from None
        if isinstance(value, schedules.Schedule):
            for end in (value.start, value.end):
                if not (_within(end, interval) or end == value.end == 0.0):
                    raise ConfigError(
                        f"{name}: expected a schedule between numbers in {interval}, got {value}; "
                        f"{remedy}"
                    )
            return value
        if isinstance(value, schedules.FunctionSchedule):
            return value
        if callable(value):
            return schedules.FunctionSchedule.of(value)
        return _checked_number(name, value, interval, remedy)

    metadata = {"check": check, "changes": changes, "interval": interval}
    return dataclasses.field(default=default, metadata=metadata)


def value_at(name: str, value: Any, remaining: float, interval: str) -> Any:
    """What a setting is at a remaining share: a schedule's value, or what it is anyway.

    Parameters
    ----------
    name
        Of the field, for the error.
    value
        What the field holds.
    remaining
        Share of the run that remains, in [0, 1].
    interval
        Of the field.

    Raises
    ------
    ConfigError
        A schedule's value outside the interval, or a function of which only the name is known.
    """
    if not isinstance(value, (schedules.Schedule, schedules.FunctionSchedule)):
        return value
    try:
        number = value(remaining)
    except LookupError:
        if not isinstance(value, schedules.FunctionSchedule) or value.function is not None:
            raise
        raise ConfigError(
            f"{name}: expected its schedule, the function {value.name:.80}, which no file holds; "
            f"pass {name}= to load, or set it"
        ) from None
    remedy = (
        f"training goes on beyond the end of {value}: end it at such a number, or let "
        "schedule_timesteps reach as far"
        if remaining == 0.0 and isinstance(value, schedules.Schedule)
        else f"at the remaining share {remaining:.3g} {value} gives another one"
    )
    return _checked_number(name, number, interval, remedy)


def flag(default: bool, *, changes: When = "always") -> Any:
    """A field for True or False.

    Parameters
    ----------
    default
        Its value where none is given.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{name}: expected True or False, got {show(value)}; write one of them")

    return setting(default, check, changes)


def choice(default: str, literal: object, *, changes: When = "always") -> Any:
    """A field for one of the texts of a ``Literal``.

    Parameters
    ----------
    default
        Its value where none is given.
    literal
        The ``Literal`` of all texts.
    changes
        When the setting of a trained agent may change.
    """
    choices = get_args(literal)

    def check(name: str, value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        listed = ", ".join(repr(one) for one in choices)
        remedy = did_you_mean(value, choices) or f"choose one, for instance {choices[0]!r}"
        raise ConfigError(f"{name}: expected one of {listed}, got {show(value)}; {remedy}")

    return setting(default, check, changes)


def layer_sizes(default: tuple[int, ...], *, changes: When = "never") -> Any:
    """A field for the units of each hidden layer.

    Parameters
    ----------
    default
        Its value where none is given.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, (tuple, list)):
            raise ConfigError(
                f"{name}: expected a sequence of layer sizes, got {show(value)}; "
                f"write (64, 64) for two hidden layers"
            )
        remedy = "write (64, 64) for two hidden layers, () for none"
        return tuple(
            checked_integer(f"{name}[{i}]", size, 1, LARGEST_COUNT, remedy)
            for i, size in enumerate(value)
        )

    return setting(default, check, changes)


def names(default: tuple[str, ...], taken: Iterable[str], *, changes: When = "always") -> Any:
    """A field for texts, each once, none of which is taken for something else.

    Parameters
    ----------
    default
        Its value where none is given.
    taken
        Texts that mean something else.
    changes
        When the setting of a trained agent may change.
    """
    refused = frozenset(taken)

    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (tuple, list)) or not all(
            isinstance(one, str) and one.isprintable() and one.strip() == one != "" for one in value
        ):
            raise ConfigError(
                f"{name}: expected a sequence of names, got {show(value)}; write ('score',) for one"
            )
        used = [one for one in value if one in refused]
        if used:
            raise ConfigError(
                f"{name}: expected names that are free, got {used[0]!r}, which records hold already; "
                f"leave it out"
            )
        return tuple(dict.fromkeys(value))

    return setting(default, check, changes)


def mask_source(default: str, *, changes: When = "always") -> Any:
    """A field for where an environment says which actions are allowed.

    Parameters
    ----------
    default
        Its value where none is given.
    changes
        When the setting of a trained agent may change.
    """

    def check(name: str, value: Any) -> str:
        known = ("auto", "none", "info", "method")
        if isinstance(value, str):
            kind, _, part = value.partition(":")
            if value in known or (kind == "observation" and part):
                return value
        raise ConfigError(
            f"{name}: expected {', '.join(map(repr, known))} or 'observation:<name>', got "
            f"{show(value)}; 'auto' finds masks where the environment has them"
        )

    return setting(default, check, changes)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return "did you mean ...?" for the known name closest to the given one, or an empty text.

    Parameters
    ----------
    given
        What was given.
    known
        The names that there are.
    """
    matches = difflib.get_close_matches(str(given).lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""


# ---- checks


def _checked_number(name: str, value: object, interval: str, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{name}: expected a number in {interval}, got {show(value)}; {remedy}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not _within(number, interval):
        raise ConfigError(f"{name}: expected a number in {interval}, got {number:g}; {remedy}")
    return number


def checked_integer(name: str, value: object, low: int, high: int, remedy: str) -> int:
    """The value as an int in [low, high]; ConfigError that ends with the remedy otherwise.

    Parameters
    ----------
    name
        Of the field, for the error.
    value
        What was given.
    low, high
        Smallest and largest value.
    remedy
        The end of the error's sentence.
    """
    wanted = f"an integer of at least {low}"
    if isinstance(value, float) and value.is_integer():
        remedy = f"write {int(value)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name}: expected {wanted}, got {show(value)}; {remedy}")
    number = int(value)
    if number < low:
        raise ConfigError(f"{name}: expected {wanted}, got {number}; {remedy}")
    if number > high:
        raise ConfigError(f"{name}: expected an integer of at most {high}, got {number}; {remedy}")
    return number


def _within(number: float, interval: str) -> bool:
    # "(0, 1]": a round bracket leaves its end out; NaN and infinities are in no interval
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number > low if interval[0] == "(" else number >= low
    below = number < high if interval[-1] == ")" else number <= high
    return math.isfinite(number) and above and below


def show(value: object) -> str:
    """The value as errors show it: its text, cut to 60 characters, and its type.

    Parameters
    ----------
    value
        What was given.
    """
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"
