"""Which environment a command means: what was typed, and what the run folder holds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..run_folder import RunFolder, RunFolderError
from .output import UsageError

if TYPE_CHECKING:
    from ..envs import EnvSource

_WORDS = {"true": True, "false": False, "null": None, "none": None}
# wrappers that a run folder may choose, and the one among them that writes files
_KNOWN_WRAPPERS, _WRITES_FILES = "gymnasium.wrappers", ("RecordVideo",)


@dataclass(frozen=True, kw_only=True)
class EnvironmentFlags:
    """The flags that say how an environment is made, besides its id."""

    env_kwargs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Arguments of the environment, as g=2.0 window=[3,4] mode=fast: literals, else text."""

    wrapper: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODULE:NAME")
    ] = ()
    """Wrapper around the environment, as gymnasium.wrappers:TimeLimit(max_episode_steps=200); may be
    repeated, the first one is innermost."""

    env_factory: Annotated[str | None, tyro.conf.arg(metavar="MODULE:FUNCTION")] = None
    """Function that makes the environment, instead of an id; --env-kwargs are its arguments."""


@dataclass(frozen=True, kw_only=True)
class ChosenEnvironment:
    """An environment by names, as it was typed or as config.json holds it."""

    env: str | None = None
    env_factory: str | None = None
    env_kwargs: tuple[str, ...] = ()
    wrapper: tuple[str, ...] = ()

    @classmethod
    def typed(cls, command: Any) -> ChosenEnvironment:
        """Take what was typed.

        Parameters
        ----------
        command
            A parsed command with an ``env`` and the `EnvironmentFlags`.

        Raises
        ------
        UsageError
            If an id and a factory were named, or an argument is no NAME=VALUE.
        """
        if command.env and command.env_factory:
            raise UsageError(
                f"--env-factory: expected none with an environment's id, got {command.env_factory} "
                f"and {command.env}; leave one out"
            )
        _values(command.env_kwargs)
        return cls(
            env=command.env or None,
            env_factory=command.env_factory,
            env_kwargs=tuple(command.env_kwargs),
            wrapper=tuple(command.wrapper),
        )

    @classmethod
    def stored(cls, run: RunFolder) -> ChosenEnvironment:
        """Take what the config.json of a run holds; no module is imported.

        Parameters
        ----------
        run
            The folder.

        Raises
        ------
        RunFolderError
            If it cannot be read.
        """
        record = run.read_record()
        factory = record.get("env_factory")
        lists = {name: record.get(name, []) for name in ("env_kwargs", "wrapper")}
        if not isinstance(factory, str | None) or not all(
            isinstance(value, list) and all(isinstance(text, str) for text in value)
            for value in lists.values()
        ):
            raise RunFolderError(
                f"run folder: expected texts as env_kwargs, wrapper and env_factory in "
                f"{run.shown(run.config_file)}, got other values; restore the file from a copy"
            )
        return cls(
            env=None if factory else record["env"],
            env_factory=factory,
            **{name: tuple(value) for name, value in lists.items()},
        )

    @property
    def record(self) -> dict[str, Any]:
        """What config.json holds of it; of a factory's environment ``env`` is the factory's name."""
        return {
            "env": self.name,
            "env_kwargs": list(self.env_kwargs),
            "wrapper": list(self.wrapper),
            "env_factory": self.env_factory,
        }

    @property
    def name(self) -> str:
        """The id, or the name of the factory."""
        return self.env or self.env_factory or ""

    def source(self) -> tuple[EnvSource | None, dict[str, Any] | None]:
        """What an agent is given as ``env`` and ``env_kwargs``; modules that are named are imported.

        Raises
        ------
        UsageError
            If there are wrappers, but nothing to wrap.
        ValueError, ImportError
            If something that is named is not there.
        """
        values = _values(self.env_kwargs)
        if not self.wrapper and self.env_factory is None:
            return self.env, values or None
        if self.env is None and self.env_factory is None:
            raise UsageError(
                "--wrapper: expected an environment to wrap, got none; name it with --env"
            )
        from ..envs import NamedEnvironment

        named = NamedEnvironment(
            self.env, factory=self.env_factory, kwargs=values, wrappers=self.wrapper
        )
        named.load()
        return named, None


def of_run(run: RunFolder, typed: ChosenEnvironment) -> ChosenEnvironment:
    """Return the environment that a run's policy is to act in: the run's, but for what was typed.

    Parameters
    ----------
    run
        The folder.
    typed
        What the user named: an id or a factory, wrappers instead of those of the run, arguments
        that are added to those of the run or replace them.

    Raises
    ------
    RunFolderError
        If the folder would choose a module to import that trpo_fast does not know, or cannot be
        read.
    """
    stored = ChosenEnvironment.stored(run)
    refuse_modules_of(run, stored, typed)
    names_another = typed.env is not None or typed.env_factory is not None
    return ChosenEnvironment(
        env=typed.env if names_another else stored.env,
        env_factory=typed.env_factory if names_another else stored.env_factory,
        env_kwargs=(*stored.env_kwargs, *typed.env_kwargs),
        wrapper=typed.wrapper or stored.wrapper,
    )


def of_resumed(run: RunFolder, typed: ChosenEnvironment) -> ChosenEnvironment:
    """Return the environment of a run that goes on; what was typed must be the same.

    Parameters
    ----------
    run
        The folder.
    typed
        What the user named again.

    Raises
    ------
    UsageError
        If something else was typed than the run has.
    RunFolderError
        As `of_run`.
    """
    stored = ChosenEnvironment.stored(run)
    for flag, name in (
        ("train", "env"),
        ("--env-factory", "env_factory"),
        ("--env-kwargs", "env_kwargs"),
        ("--wrapper", "wrapper"),
    ):
        given, expected = getattr(typed, name), getattr(stored, name)
        if given and (
            _values(given) != _values(expected) if name == "env_kwargs" else given != expected
        ):
            what = {"env": "environment", "env_kwargs": "arguments"}.get(name, name)
            raise UsageError(
                f"{flag}: expected the run's {what} {_listed(expected)}, got {_listed(given)}; "
                f"leave it out with --resume"
            )
    refuse_modules_of(run, stored, typed)
    return stored


def refuse_modules_of(run: RunFolder, stored: ChosenEnvironment, typed: ChosenEnvironment) -> None:
    """Raise RunFolderError where a folder would choose a module to import.

    Reading a run runs no code of its choice: a module is one that trpo_fast knows, or the user
    names it again.

    Parameters
    ----------
    run
        The folder.
    stored
        What it holds.
    typed
        What the user named.
    """
    names_another = typed.env is not None or typed.env_factory is not None
    if not names_another and stored.env is not None:
        run.trusted_environment()
    if not names_another and stored.env_factory is not None:
        _refuse(run, "is made by", "--env-factory", (stored.env_factory,))
    if not typed.wrapper and not all(map(_is_known, stored.wrapper)):
        _refuse(run, "is wrapped in", "--wrapper", stored.wrapper)


def _refuse(run: RunFolder, how: str, flag: str, texts: tuple[str, ...]) -> None:
    again = " ".join(f"{flag} {text!r:.200}" for text in texts)
    raise RunFolderError(
        f"run folder: the environment of {run.path} {how} {_listed(texts):.200}, and reading a run "
        f"runs no code of its choice; if you trust it, name it again: {again}"
    )


def _is_known(wrapper: str) -> bool:
    from ..envs import Reference

    try:
        reference = Reference.parse(wrapper, "--wrapper")
    except ValueError:
        return False
    is_class = reference.name[:1].isupper()
    return reference.module == _KNOWN_WRAPPERS and is_class and reference.name not in _WRITES_FILES


def _listed(value: str | tuple[str, ...] | None) -> str:
    return value if isinstance(value, str) else " ".join(value or ("none",))


def _values(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return arguments by name from NAME=VALUE; a later one of a name wins.

    A value is a literal of Python, or true, false and null of JSON, or else the text itself.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(
                f"--env-kwargs: expected NAME=VALUE, got {text!r:.200}; write g=2.0 "
                "window=[3,4], and other arguments before it"
            )
        try:
            values[name] = ast.literal_eval(value.strip())
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            values[name] = _WORDS.get(value, value)
    return values
