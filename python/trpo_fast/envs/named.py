"""Environments by names alone: an id or a factory, its arguments, and wrappers around it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import error_sentence
from .making import construction_error, make_environment

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Reference:
    """Something callable in a module, and arguments for it: ``module:name(key=value)``."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, what: str) -> Reference:
        """Read ``module:name`` or ``module:name(argument, key=argument)``; nothing is imported.

        Parameters
        ----------
        text
            What to read; the arguments are literals of Python, such as 3, 2.5, "text" or [1, 2].
        what
            What the sentence of an error begins with, such as ``--wrapper``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        module, _, rest = text.strip().partition(":")
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        try:
            tree = ast.parse(rest.strip(), mode="eval").body
            if isinstance(tree, ast.Call):
                args = tuple(ast.literal_eval(value) for value in tree.args)
                # of `**more` the name is None, which is no text
                kwargs = {
                    str(key.arg or "**"): ast.literal_eval(key.value) for key in tree.keywords
                }
                tree = tree.func
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            tree = None
        is_module = all(part.isidentifier() for part in module.split("."))
        if not is_module or not isinstance(tree, ast.Name) or "**" in kwargs:
            raise ValueError(
                f"{what}: expected module:name, or module:name(key=value) with plain values, got "
                f"{text!r:.200}; write it as gymnasium.wrappers:TimeLimit(max_episode_steps=200)"
            )
        return cls(module, tree.id, args, kwargs)

    def load(self, what: str) -> Callable[..., Any]:
        """Import the module and return what is named.

        Parameters
        ----------
        what
            What the sentence of an error begins with.

        Raises
        ------
        ImportError
            If the module cannot be imported.
        ValueError
            If it has no such callable.
        """
        try:
            module = importlib.import_module(self.module)
        except Exception as error:
            raise ImportError(
                f"{what}: expected a module {self.module!r}, got {error_sentence(error)}; it is "
                "looked for where Python looks, and in the present folder"
            ) from error
        found: Callable[..., Any] | None = getattr(module, self.name, None)
        if not callable(found):
            raise ValueError(
                f"{what}: expected a class or function {self.name!r} in {self.module}, got "
                f"{'none' if found is None else type(found).__name__}; check the name"
            )
        return found


class NamedEnvironment:
    """Makes environments from names, so that it can be sent to workers and written down.

    Parameters
    ----------
    env
        A Gymnasium id; None with a factory.
    factory
        A function that returns an environment, as :meth:`Reference.parse` reads it; None with an
        id.
    kwargs
        Keyword arguments of ``gymnasium.make``, or of the factory.
    wrappers
        Called with the environment in this order, the first one innermost; each as
        :meth:`Reference.parse` reads it.

    Raises
    ------
    ValueError
        If a name cannot be read, or wrappers are given for an EnvPool.
    """

    explains_itself = True
    """What is raised here is a sentence already."""

    def __init__(
        self,
        env: str | None = None,
        *,
        factory: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wrappers: tuple[str, ...] = (),
    ) -> None:
        if (env is None) == (factory is None):
            raise ValueError(
                f"environment: expected an id or a factory, got {'none' if env is None else 'both'}"
                "; name one"
            )
        if wrappers and env is not None and env.startswith("envpool:"):
            raise ValueError(
                f"--wrapper: expected none around {env!r}, which steps all environments by one "
                "call, got one; take the environment of Gymnasium, or leave the wrapper out"
            )
        self.env = env
        self.factory = None if factory is None else Reference.parse(factory, "--env-factory")
        self.kwargs = dict(kwargs or {})
        self.wrappers = tuple(Reference.parse(wrapper, "--wrapper") for wrapper in wrappers)
        self.__name__ = str(factory if env is None else env)

    def load(self) -> None:
        """Import what is named, so that a wrong name is told before anything is made.

        Raises
        ------
        ImportError, ValueError
            As :meth:`Reference.load`.
        """
        if self.factory is not None:
            self.factory.load("--env-factory")
        for wrapper in self.wrappers:
            wrapper.load("--wrapper")

    def __call__(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Make an environment.

        Parameters
        ----------
        render_mode
            Of Gymnasium, for a video; a factory that takes no such argument does not get it.

        Returns
        -------
        gymnasium.Env
            A new one; of a factory and wrappers it is what they return.

        Raises
        ------
        ValueError, ImportError, TypeError, EnvironmentFailure
            As ``make_environment``; what a wrapper raised is named with the wrapper.
        """
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        if self.factory is None:
            made: Any = make_environment(str(self.env), **{**self.kwargs, **rendering})
        else:
            factory = self.factory.load("--env-factory")
            if not _takes(factory, "render_mode"):
                rendering = {}
            arguments = {**self.factory.kwargs, **self.kwargs, **rendering}
            try:
                made = factory(*self.factory.args, **arguments)
            except Exception as error:
                raise construction_error(self.__name__, error) from error
        for wrapper in self.wrappers:
            wrap = wrapper.load("--wrapper")
            try:
                made = wrap(made, *wrapper.args, **wrapper.kwargs)
            except Exception as error:
                name = f"{self.__name__} in {wrapper.module}:{wrapper.name}"
                raise construction_error(name, error) from error
        return made  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
