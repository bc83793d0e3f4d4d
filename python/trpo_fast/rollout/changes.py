"""What a user changes in environments amid a run: a method called, an attribute set, options of resets.

A change reaches every environment wherever it is stepped, and every environment that takes the place
of one: after a crash, or in a worker process that is started again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .in_process import InProcessSampler

__all__ = ["EnvironmentChange", "made_with", "on_group", "to_one", "to_vector"]


@dataclass(frozen=True)
class EnvironmentChange:
    """One thing to do with every environment.

    Parameters
    ----------
    kind
        "call" a method, "set" or "get" an attribute, or pass options to every "reset" from now on.
    name
        Of the method or attribute.
    args, kwargs
        Of the method; the value of the attribute; the options.
    """

    kind: Literal["call", "set", "get", "reset"]
    name: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Changes of the same key replace each other."""
        return self.kind, self.name

    def __str__(self) -> str:
        if self.kind == "set":
            return f"{self.name} = {self.args[0]!r:.60}"
        given = [f"{value!r:.60}" for value in self.args]
        given += [f"{name}={value!r:.60}" for name, value in self.kwargs.items()]
        return f"{self.name or 'reset_options'}({', '.join(given)})"


def to_one(change: EnvironmentChange, environment: Any) -> Any:
    """Do it with one environment: with the outermost of its wrappers that has the name.

    Parameters
    ----------
    change
        A call, or an attribute to set or get.
    environment
        The environment, in its wrappers.

    Returns
    -------
    object
        What the method returned, or the value of the attribute.

    Raises
    ------
    AttributeError
        None of the wrappers, nor the environment, has the name.
    """
    for layer in _layers(environment):
        if change.name in getattr(layer, "__dict__", ()) or hasattr(type(layer), change.name):
            break
    else:
        raise AttributeError(
            f"environments: expected {change.name!r} in the environment or one of its wrappers, got "
            f"none in {' of '.join(type(layer).__name__ for layer in _layers(environment))}; check "
            "the name"
        )
    if change.kind == "set":
        setattr(layer, change.name, change.args[0])
        return None
    found = getattr(layer, change.name)
    return found(*change.args, **change.kwargs) if change.kind == "call" else found


def _layers(environment: Any) -> Iterator[Any]:
    for _ in range(100):  # wrappers in a circle are a mistake that is not ours
        yield environment
        environment = vars(environment).get("env") if hasattr(environment, "__dict__") else None
        if environment is None:
            return


def on_group(sampler: InProcessSampler, change: EnvironmentChange) -> list[Any]:
    """Do it with every environment of a group, in the process where they are.

    Parameters
    ----------
    sampler
        Steps the group.
    change
        The change.

    Returns
    -------
    list
        One result an environment.
    """
    if change.kind == "reset":
        sampler.reset_options = dict(change.kwargs) or None
        return [None] * len(sampler.environments)
    if change.kind == "get":
        return [to_one(change, environment) for environment in sampler.environments]
    sampler.keeper.note()
    results = [to_one(change, environment) for environment in sampler.environments]
    sampler.changes[change.key] = change
    return results


def to_vector(change: EnvironmentChange, vector_env: Any) -> list[Any]:
    """Do it with every environment of a Gymnasium vector environment.

    Parameters
    ----------
    change
        A call, or an attribute to set or get.
    vector_env
        The vector environment.

    Raises
    ------
    NotImplementedError
        It has no way to its environments, or resets them without options.
    """
    name = {"call": "call", "set": "set_attr", "get": "get_attr"}.get(change.kind)
    function = None if name is None else getattr(vector_env, name, None)
    if function is None:
        what = "options of resets" if name is None else f"a method {name}"
        raise NotImplementedError(
            f"environments: expected {what} in the vector environment, got "
            f"{type(vector_env).__name__} without it; pass an id or a function that makes one "
            "environment"
        )
    if change.kind == "set" and hasattr(vector_env, "get_attr"):
        vector_env.get_attr(change.name)  # raises where there is none, which would be made
    results = function(change.name, *change.args, **change.kwargs)
    return [None] * int(vector_env.num_envs) if results is None else list(results)


def made_with(make: Any, changes: tuple[EnvironmentChange, ...], **rendering: Any) -> Any:
    """Make an environment and bring the changes to it.

    Parameters
    ----------
    make
        Makes one.
    changes
        In their order.
    **rendering
        Passed on to ``make``.
    """
    environment = make(**rendering)
    for change in changes:
        if change.kind == "reset":
            environment = _with_options(environment, dict(change.kwargs))
        else:
            to_one(change, environment)
    return environment


def _with_options(environment: Any, options: dict[str, Any]) -> Any:
    import gymnasium

    class WithOptions(gymnasium.Wrapper[Any, Any, Any, Any]):
        """Passes these options to every reset."""

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return self.env.reset(seed=seed, options={**given, **(options or {})})

    given = options
    return WithOptions(environment)
