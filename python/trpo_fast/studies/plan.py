"""Which runs a study consists of, and the file that remembers it."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..logging import write_atomically

_FORMAT = 1
_MOST_RUNS = 100_000


class StudyError(ValueError):
    """A study that cannot be made or continued; the message is one sentence."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: an environment, settings, a seed."""

    env: str
    variant: str
    """What the settings of the grid are, such as ``max_kl=0.02``; empty without a grid."""
    settings: Mapping[str, str]
    """The same by name."""
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    """Of ``trpo-fast train``, without seed and folder."""

    @property
    def name(self) -> str:
        """The run in a line: environment, settings, seed."""
        return ", ".join(part for part in (self.env, self.variant, f"seed {self.seed}") if part)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Environments x settings of a grid x seeds.

    Raises
    ------
    StudyError
        If it is empty, or if a name of the grid is none of a flag.
    """

    envs: tuple[str, ...]
    """Gymnasium ids; where the arguments name an ``--env-factory``, that one name."""
    seeds: tuple[int, ...]
    grid: Mapping[str, tuple[str, ...]]
    """Values by flag of ``trpo-fast train``, such as ``{"max_kl": ("0.01", "0.02")}``."""
    arguments: tuple[str, ...]
    """Flags of ``trpo-fast train`` that every run is given."""
    folder: Path

    def __post_init__(self) -> None:
        for what, given in (("environment", self.envs), ("seed", self.seeds)):
            if not given:
                raise StudyError(f"study: expected at least one {what}, got none; name one")
            if len(set(given)) < len(given):
                raise StudyError(f"study: expected every {what} once, got {given}; name it once")
        for name, values in self.grid.items():
            if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or not values or "" in values:
                raise StudyError(
                    f"grid: expected a setting and values such as max_kl=0.01,0.02, got "
                    f"{name}={','.join(values)!s:.80}"
                )
        if len(self.runs) > _MOST_RUNS:
            raise StudyError(f"study: expected at most {_MOST_RUNS} runs, got {len(self.runs)}")

    @cached_property
    def variants(self) -> dict[str, dict[str, str]]:
        """The settings of every combination of the grid, by its name."""
        chosen = (
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        )
        return {" ".join(f"{k}={v}" for k, v in each.items()): each for each in chosen}

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All runs: first one seed of everything, then the next."""
        own = not any(a.partition("=")[0] == "--env-factory" for a in self.arguments)
        return [
            PlannedRun(
                env,
                variant,
                settings,
                seed,
                self.folder / _file_name(env) / _file_name(variant) / f"seed{seed}",
                (*([env] if own else []), *self.arguments, *as_arguments(settings)),
            )
            for seed in self.seeds
            for env in self.envs
            for variant, settings in self.variants.items()
        ]

    def write(self) -> None:
        """Make the folder and its ``study.json``, or compare the plan with the one that is there.

        More environments, seeds and values of a setting may come to a study later.

        Raises
        ------
        StudyError
            If the folder holds a study of other arguments or settings, or something else.
        """
        file = self.folder / "study.json"
        if file.exists():
            self._compare(_read(file))
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise StudyError(
                f"study: expected a new folder or that of a study, got {self.folder} without a "
                "study.json; choose another one"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as stream:
            json.dump(self._record, stream, indent=2)

    @property
    def _record(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "envs": list(self.envs),
            "seeds": list(self.seeds),
            "grid": {name: list(values) for name, values in self.grid.items()},
            "arguments": list(self.arguments),
        }

    def _compare(self, stored: Mapping[str, Any]) -> None:
        for what, theirs, ours in (
            ("flags", stored.get("arguments"), list(self.arguments)),
            ("settings in the grid", list(stored.get("grid", {})), list(self.grid)),
        ):
            if theirs != ours:
                raise StudyError(
                    f"study: expected the {what} of {self.folder}, {theirs}, got {ours}; repeat its "
                    "command, or choose another folder"
                )

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read the plan of a study's folder.

        Parameters
        ----------
        folder
            The folder.

        Raises
        ------
        StudyError
            If it holds no study.
        """
        record = _read(folder / "study.json")
        try:
            return cls(
                envs=tuple(map(str, record["envs"])),
                seeds=tuple(map(int, record["seeds"])),
                grid={k: tuple(map(str, v)) for k, v in record["grid"].items()},
                arguments=tuple(map(str, record["arguments"])),
                folder=folder,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StudyError(
                f"study: expected the record of a study in {folder / 'study.json'}, got an entry "
                f"that does not fit ({error}); restore the file from a copy"
            ) from error


def parse_grid(entries: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read settings such as ``max_kl=0.01,0.02``; a value of several words is a list.

    Parameters
    ----------
    entries
        Texts of a name and values with commas between, such as ``hidden_sizes=32 32,64 64``.

    Raises
    ------
    StudyError
        If one is something else.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, equals, values = entry.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or name in grid:
            raise StudyError(
                "--grid: expected a setting, once, and values such as max_kl=0.01,0.02, got "
                f"{entry!r:.80}"
            )
        grid[name] = tuple(value.strip() for value in values.split(","))
    return grid


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings by name as flags of ``trpo-fast train``.

    Parameters
    ----------
    settings
        Values by name; a list becomes several words, None leaves the default.
    """
    flags: list[str] = []
    for name, value in settings.items():
        if value is not None:
            flags += _as_flag(name, text_of(value))
    return flags


def text_of(value: object) -> str:
    """A value as :func:`parse_grid` reads it.

    Parameters
    ----------
    value
        A number, a text, a truth value, or a list of those.
    """
    if isinstance(value, list | tuple):
        return " ".join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_flag(name: str, value: str) -> list[str]:
    flag = name.replace("_", "-")
    if value in ("true", "false"):
        return [f"--{flag}" if value == "true" else f"--no-{flag}"]
    words = shlex.split(value)
    return [f"--{flag}={words[0]}"] if len(words) == 1 else [f"--{flag}", *words]


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.=,-]+", "-", text) or "runs"


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"study: expected the record of a study in {file}, got {error}; give the folder that "
            "`trpo-fast study` made"
        ) from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise StudyError(f"study: expected a record of format {_FORMAT} in {file}, got another one")
    return record
