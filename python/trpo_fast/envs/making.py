"""How environments are made: from an id, a factory, or what exists already."""

from __future__ import annotations

import difflib
import importlib.util
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..words import words_of
from .asking import asked, has_agents
from .errors import EnvironmentFailure, error_sentence, is_of_old_gym

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

    EnvSource: TypeAlias = (
        str | gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | Callable[[], Any]
    )


@dataclass(frozen=True)
class OpenedEnvironments:
    """What `open_environments` returns: either `environments` or one `vector_env`, and a name."""

    name: str
    """The Gymnasium id where there is one, otherwise the name of a class or function."""

    environments: tuple[gymnasium.Env[Any, Any], ...] = ()
    """Separate environments, to be stepped one after the other; empty with a `vector_env`."""

    vector_env: VectorEnv[Any, Any, Any] | None = None
    """Environments that are stepped together, by one call."""

    parallel: tuple[Any, ...] = ()
    """Environments of several agents that act at once, PettingZoo's."""


def make_environment(source: EnvSource, /, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make one environment.

    Parameters
    ----------
    source
        A Gymnasium id (`"CartPole-v1"`, `"ALE/Breakout-v5"`, `"module:Id-v0"`, where the module is
        imported first; `"envpool:Id-v0"` is an EnvPool of one, `"pettingzoo:name_v0"` an environment
        of several agents), an `Env` (returned as it is), a `ParallelEnv` of PettingZoo, or a callable
        without arguments that returns one of these.
    **kwargs
        Passed to `gymnasium.make`; allowed with an id only. Gymnasium's passive checker is left out
        unless `disable_env_checker=False` is given: one call less per step.

    Returns
    -------
    gymnasium.Env
        The environment, not reset yet.

    Raises
    ------
    ValueError
        If the id is unknown (the sentence names the closest known ones), or there are keyword
        arguments without an id.
    ImportError
        If the module of the id, or a package that the environment needs, is missing.
    TypeError
        If `source`, or what the callable returns, is no environment.
    EnvironmentFailure
        If the construction raised anything else; what it raised, and where, is named.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(source, str) and source.startswith("envpool:"):
        from .single_envpool import SingleEnvPool

        return SingleEnvPool(source, **kwargs)
    if isinstance(source, str) and source.startswith("pettingzoo:"):
        from .pettingzoo import SharedPolicyEnv, make_parallel

        return SharedPolicyEnv(make_parallel(source, **kwargs))
    if isinstance(source, str):
        return _make_from_id(source, kwargs)
    if kwargs:
        names = ", ".join(sorted(kwargs))
        raise ValueError(
            f"environment keyword arguments ({names}): allowed with a Gymnasium id only, got "
            f"{type(source).__name__}; set them where that environment is made"
        )
    if isinstance(source, VectorEnv):
        raise TypeError(
            f"env: expected one environment, got the vector environment {source!r}; "
            "pass an id, an Env or a factory"
        )
    if isinstance(source, gymnasium.Env):
        return source
    if (shared := _of_several_agents(source, owned=False)) is not None:
        return shared
    if not callable(source):
        raise TypeError(
            f"env: expected a Gymnasium id, an Env, a VectorEnv or a callable that returns an Env, "
            f"got {type(source).__name__}{_foreign_remedy(source)}"
        )
    made = _called(source)
    if (shared := _of_several_agents(made, owned=True)) is not None:
        return shared
    if not isinstance(made, gymnasium.Env):
        remedy = _foreign_remedy(made) or "; does the function end with `return env`?"
        raise TypeError(
            f"env: the factory must return a gymnasium.Env, got {type(made).__name__}{remedy}"
        )
    for space in ("observation_space", "action_space"):
        if asked(made, space) is None:
            raise TypeError(
                f"env: expected an environment with an observation_space and an action_space, got "
                f"{environment_name(made)} without {space}; set it in __init__"
            )
    return made


def _of_several_agents(made: Any, *, owned: bool) -> gymnasium.Env[Any, Any] | None:
    """The environment for one policy of all its agents, where it is one of PettingZoo."""
    if not has_agents(made):
        return None
    from .pettingzoo import SharedPolicyEnv, as_parallel, is_of_several_agents

    return SharedPolicyEnv(as_parallel(made), owned=owned) if is_of_several_agents(made) else None


def _called(factory: Callable[[], Any]) -> Any:
    """Call a user's factory; what it raises names the factory and the place."""
    if asked(factory, "explains_itself", False) is True:
        return factory()
    try:
        return factory()
    except Exception as error:
        raise construction_error(environment_name(factory), error) from error


def construction_error(name: str, error: Exception) -> Exception:
    """Return the exception about an environment whose construction raised; its kind is kept.

    Parameters
    ----------
    name
        What the environment is called.
    error
        What was raised.
    """
    sentence = f"environment {name!r} cannot be made: {error_sentence(error)}"
    for kind in (ImportError, ValueError, TypeError, MemoryError):
        if isinstance(error, kind):
            return kind(sentence)
    return EnvironmentFailure(sentence)


def _foreign_remedy(made: object) -> str:
    """Return how to convert an environment of another interface, if it is one; or nothing."""
    if is_of_old_gym(made):
        return (
            ": it is an environment of the old gym, not of gymnasium; convert it with "
            'gymnasium.make("GymV26Environment-v0", env=...) or "GymV21Environment-v0" of the '
            "package shimmy, or derive its class from gymnasium.Env"
        )
    homes = {base.__module__.partition(".")[0] for base in type(made).__mro__}
    if "pettingzoo" in homes:
        return (
            ": it is of PettingZoo, but has no agents; pass a ParallelEnv, a function that makes one, "
            'or an id such as "pettingzoo:pursuit_v5"'
        )
    if "dm_env" in homes or "dm_control" in homes:
        return ": it is an environment of dm_env; shimmy makes a gymnasium.Env of it"
    if "stable_baselines3" in homes:
        return (
            ": it is a vector environment of Stable-Baselines3; give the function that makes one of its "
            "environments, and n_envs"
        )
    if hasattr(made, "single_observation_space"):
        return ": it is a vector environment; give one environment, or a function that makes one"
    if isinstance(made, (list, tuple)):
        return ": give the function that makes one of them, and n_envs"
    if hasattr(type(made), "step") and hasattr(type(made), "reset"):
        return ": derive its class from gymnasium.Env"
    return ""


def copy_environment(source: EnvSource, /, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make one more of an environment that `make_environment` has made before.

    MuJoCo warns while it compiles a model. The user has seen those warnings when the first
    environment was made, so they are kept quiet here.

    Parameters
    ----------
    source, **kwargs
        As in `make_environment`.

    Returns
    -------
    gymnasium.Env
        Another environment, not reset yet.

    Raises
    ------
    ValueError, ImportError, TypeError
        As in `make_environment`.
    """
    mujoco = _mujoco_of(source)
    if mujoco is None:
        return make_environment(source, **kwargs)
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        return make_environment(source, **kwargs)
    finally:
        mujoco.set_mju_user_warning(handler)


def maker_of(env: Any) -> Callable[..., gymnasium.Env[Any, Any]] | None:
    """Find out how to make another environment like a given one.

    Parameters
    ----------
    env
        An environment, or a vector environment, where one like those inside is meant.

    Returns
    -------
    callable or None
        Makes such an environment; its keyword arguments are those of `gymnasium.make`. None where
        `env` was not made by `gymnasium.make` or `make_vec`, or where something around a vector
        environment may change what the environments inside return.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    spec = asked(env, "spec")
    if not isinstance(spec, gymnasium.envs.registration.EnvSpec):
        return None
    if not isinstance(env, VectorEnv):
        # a wrapper that does not note its arguments cannot be made again
        if any(wrapper.kwargs is None for wrapper in spec.additional_wrappers):
            return None
        return partial(gymnasium.make, spec)
    if asked(env, "unwrapped") is not env:
        return None
    # the spec of a vector environment holds arguments of make_vec too: drop those
    kwargs = dict(spec.kwargs)
    for name in ("num_envs", "vectorization_mode", "vector_kwargs"):
        kwargs.pop(name, None)
    wrappers = kwargs.pop("wrappers", None) or ()

    def make(**more: Any) -> gymnasium.Env[Any, Any]:
        made = gymnasium.make(spec.id, **{**kwargs, **more})
        for wrapper in wrappers:
            made = wrapper(made)
        return made

    return make


def _mujoco_of(source: EnvSource) -> Any:
    """Return the module mujoco if it is imported, or is going to be for this environment."""
    import gymnasium

    if isinstance(source, str) and "mujoco" not in sys.modules:
        spec = gymnasium.registry.get(source)
        uses_it = spec is not None and ".mujoco" in str(spec.entry_point)
        if uses_it and importlib.util.find_spec("mujoco") is not None:
            importlib.import_module("mujoco")
    module = sys.modules.get("mujoco")
    return module if hasattr(module, "get_mju_user_warning") else None  # since MuJoCo 2.3.3


def open_environments(
    source: EnvSource,
    *,
    n_envs: int,
    env_kwargs: Mapping[str, Any] | None = None,
    are_copies: bool = False,
) -> OpenedEnvironments:
    """Open the environments of a run.

    Parameters
    ----------
    source
        As in `make_environment`, or a `VectorEnv`, or a callable that makes one.
    n_envs
        How many environments to make, at least 1. Not used with an `Env`, which cannot be copied
        and gives exactly one, nor with a `VectorEnv`, which gives as many as it holds.
    env_kwargs
        Passed to `gymnasium.make`; with an id only.
    are_copies
        True where another process has made the first of these environments already: all of them
        are made by `copy_environment` then.

    Returns
    -------
    OpenedEnvironments
        The environments and their name.

    Raises
    ------
    ValueError, ImportError, TypeError
        As in `make_environment`; also if a factory returns the same object twice.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(n_envs, bool) or operator.index(n_envs) < 1:
        raise ValueError(f"n_envs: expected at least 1, got {n_envs}")
    kwargs = dict(env_kwargs or {})
    name = environment_name(source)
    if isinstance(source, VectorEnv):
        if kwargs:
            make_environment(source, **kwargs)  # raises the sentence about keyword arguments
        return OpenedEnvironments(name, vector_env=source)
    if isinstance(source, gymnasium.Env):
        return OpenedEnvironments(name, (make_environment(source, **kwargs),))
    if isinstance(source, str) and source.startswith("pettingzoo:"):
        from .pettingzoo import make_parallel

        return OpenedEnvironments(
            name, parallel=tuple(make_parallel(source, **kwargs) for _ in range(n_envs))
        )
    if has_agents(source) and not kwargs:
        from .pettingzoo import as_parallel

        return OpenedEnvironments(name, parallel=(as_parallel(source),))
    if callable(source) and not kwargs:
        # a factory may make a whole vector environment
        first = _called(source)
        if isinstance(first, VectorEnv):
            return OpenedEnvironments(environment_name(first), vector_env=first)
        if has_agents(first):
            from .pettingzoo import as_parallel

            parallel = [as_parallel(first)]
            parallel += [as_parallel(_called(source)) for _ in range(n_envs - 1)]
            return OpenedEnvironments(environment_name(first), parallel=tuple(parallel))
        made = [make_environment(lambda: first)]
    else:
        make_first = copy_environment if are_copies else make_environment
        made = [make_first(source, **kwargs)]
    try:
        while len(made) < n_envs:
            environment = copy_environment(source, **kwargs)
            if any(environment is other for other in made):
                raise ValueError(
                    f"env: the factory returned the same object for environments 0 and {len(made)};"
                    " it must make a new environment at every call (or use n_envs=1)"
                )
            made.append(environment)
    except BaseException:
        for environment in made:
            environment.close()
        raise
    if not isinstance(source, str):
        name = environment_name(made[0])
    return OpenedEnvironments(name, tuple(made))


def environment_name(source: EnvSource) -> str:
    """Return the Gymnasium id where there is one, otherwise the name of the class or function.

    Parameters
    ----------
    source
        As in `make_environment`.
    """
    if isinstance(source, str):
        return source
    env_id = asked(asked(source, "spec"), "id")
    if isinstance(env_id, str):
        return env_id
    if has_agents(source):
        name = (asked(source, "metadata") or {}).get("name")
        if name:
            return str(name)
    # What a class has as `unwrapped` is a property.
    unwrapped = source if isinstance(source, type) else asked(source, "unwrapped", source)
    name = asked(unwrapped, "__name__")
    return name if isinstance(name, str) else type(unwrapped).__name__


def _make_from_id(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    import gymnasium

    _register_atari(env_id)
    try:
        return gymnasium.make(env_id, **{"disable_env_checker": True, **kwargs})
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        raise ValueError(_unknown_id_sentence(env_id)) from error
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise ImportError(
            f"environment {env_id!r} needs a package that cannot be imported: {words_of(error, 1000)}"
        ) from error
    except gymnasium.error.Error as error:
        raise ValueError(
            f"environment {env_id!r} cannot be made: {words_of(error, 1000)}"
        ) from error
    except Exception as error:
        raise construction_error(env_id, error) from error


def _register_atari(env_id: str) -> None:
    """Register the Arcade Learning Environment, whose ids exist only once it is imported."""
    import gymnasium

    if ":" in env_id or env_id in gymnasium.registry:
        return
    if importlib.util.find_spec("ale_py") is not None:
        import ale_py

        gymnasium.register_envs(ale_py)
    elif env_id.startswith("ALE/"):
        raise ImportError(
            f"environment {env_id!r} needs the package ale-py, which is not installed; "
            "pip install 'trpo_fast[atari]'"
        )


def _unknown_id_sentence(env_id: str) -> str:
    import gymnasium

    known = sorted(gymnasium.registry)
    name = env_id.rpartition(":")[2]
    stem = name.partition("-v")[0].lower()
    # suggest the same name in other versions or spellings, newest first, or else similar names
    matches = [other for other in known if other.partition("-v")[0].lower() == stem][::-1]
    if not matches:
        lowered = {other.lower(): other for other in known}
        close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
        matches = [lowered[other] for other in close]
    hint = (
        f"did you mean {' or '.join(matches[:3])}?"
        if matches
        else "gymnasium.pprint_registry() lists the known ids"
    )
    return (
        f"env: no environment is registered as {env_id!r}; {hint} "
        "(an environment of your own package is named 'module:Id-v0')"
    )
