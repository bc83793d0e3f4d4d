"""What every configuration can do: check its fields, change them, become a dictionary and back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..schedules import FunctionSchedule, Schedule
from .fields import ConfigError, did_you_mean, show, value_at

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class CheckedConfig:
    """A configuration whose fields carry their checks, see :mod:`trpo_fast.config.fields`.

    Raises
    ------
    ConfigError
        (a ``ValueError``) if a value has the wrong type or lies outside its range.
    """

    method: ClassVar[str] = "this method"
    lacks: ClassVar[str] = "it has no use for it"  # why a setting of TRPO is none of this method

    # fields that files of earlier versions lack, with what was done before there were these fields
    before: ClassVar[Mapping[str, object]] = {}

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            if "check" in one.metadata:
                value = one.metadata["check"](one.name, getattr(self, one.name))
                object.__setattr__(self, one.name, value)
        defaults = defaults_of(type(self))
        for name, other in self.without_effect(vars(self)).items():
            value = getattr(self, name)
            if value != defaults[name]:
                raise ConfigError(
                    f"{name}: expected its default {defaults[name]!r} with {other}, under which it "
                    f"has no effect, got {show(value)}; leave it out"
                )

    @classmethod
    def without_effect(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The fields that other fields' values leave without effect, and which values these are.

        Parameters
        ----------
        values
            A value for every field.
        """
        return {}

    @classmethod
    def elsewhere(cls) -> tuple[str, ...]:
        """The fields of a complete method, which this one may lack."""
        return ()

    def replace(self, **changes: object) -> Self:
        """Return a copy with these fields changed, checked again.

        Parameters
        ----------
        **changes
            Fields and their new values.
        """
        self.refuse_unknown(changes)
        return dataclasses.replace(self, **cast(Any, changes))

    def changed(self, changes: Mapping[str, object], *, loading: bool = False) -> Self:
        """Return a copy for an agent that exists: what it was built with stays as it is.

        Parameters
        ----------
        changes
            Fields and their new values.
        loading
            Whether the agent is being loaded, when more may change.

        Raises
        ------
        ConfigError
            for a setting that cannot change any more, an unknown one, or an invalid value.
        """
        new = self.replace(**changes)
        allowed = ("always", "load") if loading else ("always",)
        for one in dataclasses.fields(self):
            before, after = getattr(self, one.name), getattr(new, one.name)
            if before != after and one.metadata.get("changes", "always") not in allowed:
                at_load = one.metadata["changes"] == "load"
                remedy = f"pass {one.name} to load" if at_load else "make a new agent for that"
                raise ConfigError(
                    f"{one.name}: expected the {before!r} that the agent was made with, got "
                    f"{after!r}, which cannot change any more; {remedy}"
                )
        return new

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them: tuples become lists, schedules become texts."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @property
    def schedules(self) -> dict[str, Schedule | FunctionSchedule]:
        """The settings that change over a run, by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, (Schedule, FunctionSchedule))}

    @property
    def functions(self) -> dict[str, FunctionSchedule]:
        """The settings that are functions of the remaining share, which no file can hold."""
        return {k: v for k, v in vars(self).items() if isinstance(v, FunctionSchedule)}

    def at(self, remaining: float) -> Self:
        """The settings as they are when a share of the run remains: every schedule is a number.

        Parameters
        ----------
        remaining
            Share of the run that remains, in [0, 1]: 1 as training begins.

        Raises
        ------
        ConfigError
            A schedule gives a number that its setting does not take, or is a function of which a
            file knew the name alone.
        """
        schedules = self.schedules
        if not schedules:
            return self
        copied = copy.copy(self)
        for one in dataclasses.fields(self):
            if one.name in schedules:
                interval = one.metadata["interval"]
                number = value_at(one.name, schedules[one.name], remaining, interval)
                object.__setattr__(copied, one.name, number)
        return copied

    def values_for(self, other: type[CheckedConfig]) -> dict[str, Any]:
        """The values that a configuration of another method takes over, or has to refuse.

        Left out are defaults of fields that the other one does not have.

        Parameters
        ----------
        other
            The other configuration's class.
        """
        known, defaults = field_names(other), defaults_of(type(self))
        return {
            name: value
            for name, value in {**self.to_dict(), **self.functions}.items()
            if name in known or getattr(self, name) != defaults[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Build a configuration from (a part of) what :meth:`to_dict` gave; the rest is default.

        Parameters
        ----------
        values
            Field names and values.

        Raises
        ------
        ConfigError
            on an unknown name, with the closest known one, or an invalid value.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"configuration: expected a mapping of field names to values, got "
                f"{show(values)}; start from {cls.__name__}().to_dict()"
            )
        cls.refuse_unknown(values)
        return cls(**cast(Any, dict(values)))

    @classmethod
    def from_saved(cls, values: Mapping[str, object]) -> Self:
        """As :meth:`from_dict`, of a file: it may be older than a field, or than its absence.

        A field younger than the file means what was done then. Fields that the method ignored,
        when it had them still, are left out.

        Parameters
        ----------
        values
            Field names and values, as the file holds them.
        """
        if isinstance(values, Mapping):
            values = cls.usable({**cls.before, **values})
        return cls.from_dict(values)

    @classmethod
    def usable(cls, values: Mapping[str, Any], **given: Any) -> dict[str, Any]:
        """These values of TRPO's fields, as far as this method uses them, and those given.

        Parameters
        ----------
        values
            Of a preset, or of a file; what has no effect is left out.
        **given
            Values that win over them, kept in any case.
        """
        known = field_names(cls)
        kept = {k: v for k, v in values.items() if k in known or k not in cls.elsewhere()}
        idle = cls.without_effect({**defaults_of(cls), **kept, **given})
        return {**{k: v for k, v in kept.items() if k not in idle}, **given}

    @classmethod
    def refuse_unknown(cls, values: Iterable[str]) -> None:
        """Raise ConfigError for a name that is no field of this class.

        Parameters
        ----------
        values
            The names.
        """
        known = field_names(cls)
        for name in values:
            if name in known:
                continue
            if name in cls.elsewhere():
                raise ConfigError(
                    f"{name}: expected a setting of {cls.method}, got one of TRPO; {cls.method} has "
                    f"no {name}: {cls.lacks}, so leave it out"
                )
            remedy = did_you_mean(name, known) or f"the fields are listed under {cls.__name__}"
            raise ConfigError(f"configuration: expected known field names, got {name!r}; {remedy}")


def _plain(value: Any) -> Any:
    if isinstance(value, (Schedule, FunctionSchedule)):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def field_names(config: type[CheckedConfig]) -> tuple[str, ...]:
    """Return the names of all fields of a configuration class, in their order.

    Parameters
    ----------
    config
        The class.
    """
    return tuple(field.name for field in dataclasses.fields(config))


def defaults_of(config: type[CheckedConfig]) -> dict[str, Any]:
    """Return the default of every field.

    Parameters
    ----------
    config
        The class.
    """
    return {
        one.name: one.default_factory()
        if one.default_factory is not dataclasses.MISSING
        else one.default
        for one in dataclasses.fields(config)
    }
