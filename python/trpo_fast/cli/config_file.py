"""``--config FILE``: flags from a file in YAML or JSON, and ``--save-config``, which writes one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import AgentConfig
from ..logging import write_atomically
from ..words import words_of
from .output import UsageError

_ALIASES = {"workers": "n_workers"}
# flags of which only one counts: naming one on the command line puts the others of the file aside
_ALTERNATIVES = ({"env", "env_factory"}, {"seed", "seeds"})
_NOT_IN_FILES = ("config", "save_config", "resume")


def expand(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Put the flags of a file among those that were typed; those that were typed win.

    Parameters
    ----------
    arguments
        What was typed.

    Returns
    -------
    tuple
        The arguments with the flags of the file behind them, and the environment of the file, which
        has no flag.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds something else than flags.
    """
    file = _file_in(arguments)
    if file is None:
        return list(arguments), None
    typed = {_name(argument) for argument in arguments if argument.startswith("--")}
    aside = set().union(*(names for names in _ALTERNATIVES if names & typed), typed)
    flags: list[str] = []
    env: str | None = None
    for name, value in _flat(_read(file)).items():
        if name in _NOT_IN_FILES:
            raise UsageError(
                f"--config: expected settings in {file}, got {name}, which belongs on the command "
                "line; leave it out"
            )
        if name in aside:
            continue
        if name == "env":
            env = None if value is None else str(value)
        elif name == "env_factory" and value is None:
            continue
        else:
            flags += _as_flags(name, value)
    # behind what was typed: a list would take a positional argument that follows it
    return [*arguments, *flags], env


def save_config(file: str, flags: Mapping[str, Any], config: AgentConfig) -> None:
    """Write a file that `expand` reads.

    Parameters
    ----------
    file
        Its path; an existing file is replaced.
    flags
        Flags besides the settings, by name.
    config
        The settings.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    import yaml

    plain = json.loads(json.dumps({**flags, **config.to_dict()}))
    with write_atomically(Path(file)) as stream:
        yaml.safe_dump(plain, stream, sort_keys=False, allow_unicode=True)


def _file_in(arguments: Sequence[str]) -> str | None:
    if arguments[:1] != ["train"]:
        return None
    for flag, value in itertools.pairwise([*arguments, ""]):
        name, equals, given = flag.partition("=")
        if name == "--config":
            return given if equals else value
    return None


def _read(file: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config: expected a readable file, got {error.strerror or error} for {file!r}; "
            "check the path"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        said = words_of(error, 300)
        raise UsageError(f"--config: expected YAML in {file}, got {said}; mend it") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UsageError(
            f"--config: expected lines such as `max_kl: 0.02` in {file}, got "
            f"{type(content).__name__} without names; see trpo-fast train ENV --save-config FILE"
        )
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags by their names in Python; the settings of a group stand beside the others."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = _name(str(key))
        if name == "env_kwargs" and isinstance(value, dict):
            # a text is quoted so that "3" does not become a number
            flat[name] = [f"{key}={value!r}" for key, value in value.items()]
        elif isinstance(value, dict):
            flat.update(_flat(value))
        else:
            flat[name] = value
    return flat


def _name(flag: str) -> str:
    name = flag.partition("=")[0].removeprefix("--")
    name = name.removeprefix("no-").replace("-", "_")
    return _ALIASES.get(name, name)


def _as_flags(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return [flag]
    if value is False:
        return ["--no-" + flag.removeprefix("--")]
    if name == "wrapper":
        return [part for text in _as_list(value) for part in (flag, str(text))]
    if isinstance(value, list) or name == "env_kwargs":
        texts = [str(item) for item in _as_list(value)]
        return [flag, *texts] if texts or name != "env_kwargs" else []
    return [f"{flag}={value}"]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
