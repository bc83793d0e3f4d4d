"""The methods: a file and its page each, found by name.

``kl_penalty.py`` defines the agent class of the method ``kl-penalty``, ``kl_penalty.md`` is the page
about it: equations, facts, pseudocode with the code behind each line, and when to use the method
(``trpo-fast explain kl-penalty``). A new method is a new file and its page in this folder, and
nothing else: ``--algorithm``, ``explain``, ``trpo_fast.NAME`` and the loading of checkpoints find it.

A page may stand alone, about a theme rather than a method. Nothing heavy is imported here: names
are those of files, and only the module of a method that is asked for is loaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ConfigError, did_you_mean

if TYPE_CHECKING:
    from ..training.agent import OnPolicyAgent

__all__ = [
    "ALGORITHMS",
    "PAGES",
    "algorithm_class",
    "algorithm_name",
    "class_named",
    "page",
    "public_name",
    "title",
]

_FOLDER = Path(__file__).parent


def _names(suffix: str) -> list[str]:
    stems = [file.name[: -len(suffix)] for file in _FOLDER.iterdir() if file.name.endswith(suffix)]
    return sorted(stem.replace("_", "-") for stem in stems)


PAGES: tuple[str, ...] = tuple(_names(".md"))
"""The names of all pages: what ``explain`` takes."""

ALGORITHMS: tuple[str, ...] = tuple(name for name in _names(".py") if name in PAGES)
"""The names of all methods: what ``--algorithm`` takes."""


def algorithm_class(name: str) -> type[OnPolicyAgent[Any]]:
    """The agent class of a method such as "kl-penalty"; ConfigError names the closest one.

    Parameters
    ----------
    name
        Of the method, as ``--algorithm`` takes it.
    """
    if name not in ALGORITHMS:
        raise _unknown("algorithm", name, ALGORITHMS)
    from ..training.agent import OnPolicyAgent

    module = _module(name)
    classes = [
        value
        for value in vars(module).values()
        # the module first: to Python 3.10 an alias such as NDArray[Any] is a type without subclasses
        if getattr(value, "__module__", None) == module.__name__
        and isinstance(value, type)
        and issubclass(value, OnPolicyAgent)
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"algorithm {name}: expected one agent class in {module.__file__}, got {len(classes)}; "
            "define one subclass of OnPolicyAgent there"
        )
    return classes[0]


def algorithm_name(cls: type[OnPolicyAgent[Any]]) -> str:
    """The name of an agent class, ``trpo`` for :class:`trpo_fast.TRPO`.

    Parameters
    ----------
    cls
        The agent class of a method of this folder.
    """
    return cls.__module__.rpartition(".")[2].replace("_", "-")


def class_named(name: str) -> type[OnPolicyAgent[Any]] | None:
    """The agent class with this name among the methods of this folder, or None.

    Parameters
    ----------
    name
        Of the class, such as ``KLPenalty``.
    """
    for algorithm in _likely_first(name):
        found = algorithm_class(algorithm)
        if found.__name__ == name:
            return found
    return None


def public_name(name: str) -> Any:
    """What a method's module makes public (``__all__``) under this name; KeyError if none does.

    Parameters
    ----------
    name
        A class, such as ``KLPenalty`` or ``VineOptions``.
    """
    for algorithm in _likely_first(name):
        module = _module(algorithm)
        if name in module.__all__:
            return getattr(module, name)
    raise KeyError(name)


def title(name: str) -> str:
    """What a page is about: its first line.

    Parameters
    ----------
    name
        Of the page, as ``explain`` takes it.
    """
    return page(name).partition("\n")[0].removeprefix("# ")


def page(name: str) -> str:
    """The page about a method, in Markdown; ConfigError names the closest one.

    Parameters
    ----------
    name
        Of the page, as ``explain`` takes it.
    """
    if name not in PAGES:
        raise _unknown("method", name, PAGES)
    return (_FOLDER / f"{_stem(name)}.md").read_text(encoding="utf-8")


def _stem(name: str) -> str:
    return name.replace("-", "_")


def _module(name: str) -> Any:
    return importlib.import_module(f".{_stem(name)}", __name__)


def _likely_first(class_name: str) -> list[str]:
    """All methods; first those whose names a class name begins with, as a rule the only one loaded."""
    lower = class_name.lower()
    return sorted(ALGORITHMS, key=lambda name: not lower.startswith(name.replace("-", "")))


def _unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    known = list(known)
    remedy = did_you_mean(name, known) or f"choose one, for instance {known[0]!r}"
    return ConfigError(f"{what}: expected one of {', '.join(known)}, got {name!r}; {remedy}")
