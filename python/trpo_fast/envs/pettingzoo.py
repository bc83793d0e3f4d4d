"""PettingZoo: environments of several agents that act at the same time, one policy for all of them.

``"pettingzoo:pursuit_v5"`` is searched for in PettingZoo's families, ``"pettingzoo:sisl/pursuit_v5"``
names the family; ``"pettingzoo:mpe2.simple_spread_v3"``, with a dot, is a module of another package
with a function ``parallel_env``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from ..extras import import_extra
from ..words import words_of
from .asking import asked, has_agents
from .interface import is_end, one_number, require_info
from .masks import INFO_KEY

__all__ = [
    "PREFIX",
    "JointEnv",
    "SharedPolicyEnv",
    "as_parallel",
    "is_of_several_agents",
    "make_parallel",
]

PREFIX = "pettingzoo:"

_FAMILIES = ("sisl", "butterfly", "mpe", "atari", "classic", "magent")


def is_of_several_agents(env: Any) -> bool:
    """Whether something is an environment of PettingZoo, parallel or turn by turn.

    Parameters
    ----------
    env
        Anything.
    """
    return (
        has_agents(env)
        and asked(env, "step") is not None
        and callable(asked(env, "observation_space"))
    )


def as_parallel(env: Any) -> Any:
    """The environment with all agents acting at once, converted where PettingZoo can.

    Parameters
    ----------
    env
        What `is_of_several_agents`.

    Returns
    -------
    ParallelEnv
        Itself, or what steps it so.

    Raises
    ------
    TypeError
        Agents take turns in a way that cannot be made parallel, or differ in their spaces.
    """
    name = _name_of(env)
    if hasattr(env, "agent_iter") or hasattr(env, "last"):
        if not (getattr(env, "metadata", None) or {}).get("is_parallelizable", False):
            raise TypeError(
                f"env: expected a parallel environment of PettingZoo, got {name}, whose agents take "
                "turns and which cannot be made parallel (is_parallelizable); one policy that all "
                "agents share at the same time cannot play it"
            )
        utils = import_extra("pettingzoo.utils", what=f"env={name!r}", extra="pettingzoo")
        env = utils.aec_to_parallel(env)
    first, *others = env.possible_agents
    for other in others:
        for kind in ("observation_space", "action_space"):
            expected, got = getattr(env, kind)(first), getattr(env, kind)(other)
            if expected != got:
                raise TypeError(
                    f"env: expected agents of equal spaces, since they share one policy, got {name} "
                    f"with the {kind} {expected} of {first} and {got} of {other}; pad them, as with "
                    "supersuit.pad_observations_v0 and pad_action_space_v0"
                )
    return env


def make_parallel(source: str, **kwargs: Any) -> Any:
    """Make the parallel environment that an id names.

    Parameters
    ----------
    source
        `PREFIX` and a name, see this module.
    **kwargs
        Arguments of the environment.

    Raises
    ------
    ImportError
        PettingZoo, or what the environment needs, is not installed.
    ValueError
        There is no such environment.
    TypeError
        As in `as_parallel`.
    """
    name = source.removeprefix(PREFIX)
    if "." in name:
        return as_parallel(_from_module(name, source, kwargs))
    zoo = import_extra("pettingzoo", what=f"env={source!r}", extra="pettingzoo")
    family, _, short = name.rpartition("/")
    short = short.replace("-v", "_v")
    for candidate in (family,) if family else _FAMILIES:
        try:
            made = _from_registry(zoo, candidate, short, kwargs)
        except Exception as error:
            missing = isinstance(error, ImportError) or "import" in type(error).__name__.lower()
            kind = ImportError if missing else ValueError
            raise kind(f"environment {source!r} cannot be made: {words_of(error)}") from error
        if made is not None:
            return as_parallel(made)
        module = f"pettingzoo.{candidate}.{short}"
        if _exists(module):
            return as_parallel(_from_module(module, source, kwargs))
    raise ValueError(
        f"env: no environment of PettingZoo is called {source!r}; {_closest(short)}write "
        "pettingzoo:MODULE.NAME for one of another package (mpe2.simple_spread_v3)"
    )


def _closest(short: str) -> str:
    """The start of a remedy: a name of the registry that is like this one, or nothing."""
    known = {str(key).rpartition("/")[2].replace("-v", "_v") for key in _registry_of("aec")}
    close = difflib.get_close_matches(short, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {PREFIX}{close[0]}? Or " if close else ""


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # there is no such family, or it has moved into a package of its own
        return False


def _from_registry(zoo: Any, family: str, short: str, kwargs: Mapping[str, Any]) -> Any:
    """What ``pettingzoo.make`` of version 1.27 and later knows; it sets the length of episodes."""
    make = getattr(zoo, "make", None)
    if make is None:
        return None
    env_id = f"{family}/{short.replace('_v', '-v')}"
    for kind in ("parallel", "aec"):
        registry = getattr(zoo, f"{kind}_registry", None)
        if registry is None:
            registry = _registry_of(kind)
        if env_id in registry:
            return make(kind, env_id, **kwargs)
    return None


def _registry_of(kind: str) -> Mapping[str, Any]:
    try:
        registration = importlib.import_module("pettingzoo.env_registry.registration")
    except ImportError:  # before 1.27
        return {}
    found: Mapping[str, Any] = getattr(registration, f"{kind}_registry", {})
    return found


def _from_module(module: str, source: str, kwargs: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # says that there is a registry now
        try:
            home = importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"environment {source!r} needs a package that cannot be imported: {words_of(error, 1000)}"
            ) from error
        make = getattr(home, "parallel_env", None) or getattr(home, "env", None)
        if make is None:
            raise ValueError(
                f"env: expected a function parallel_env in the module {module}, got none; is it a "
                "module of an environment, as mpe2.simple_spread_v3?"
            )
        return make(**kwargs)


def _name_of(env: Any) -> str:
    name = (getattr(env, "metadata", None) or {}).get("name")
    return str(name or type(getattr(env, "unwrapped", env)).__name__)


class SharedPolicyEnv(gymnasium.Env[Any, Any]):
    """A parallel environment for evaluations: one episode of all its agents, by one policy.

    ``reset`` and ``step`` give the observations of the agents that are there, as a batch, and ``step``
    takes as many actions. The reward is the mean over all agents, so that an episode's return is the
    mean of the agents' returns. The episode terminates when no agent is left.

    Parameters
    ----------
    parallel
        The parallel environment.
    owned
        Whether to close it.
    """

    def __init__(self, parallel: Any, *, owned: bool = True) -> None:
        self.env = parallel
        self._owned = owned
        first = parallel.possible_agents[0]
        self.observation_space = parallel.observation_space(first)
        self.action_space = parallel.action_space(first)
        self.metadata = dict(parallel.metadata or {})
        self.render_mode = getattr(parallel, "render_mode", None)
        self._here: list[Any] = []
        self._told: dict[str, list[float]] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Parameters
        ----------
        seed, options
            Of the parallel environment.
        """
        observations, infos = self.env.reset(seed=seed, options=options)
        self._here, self._told = list(self.env.agents), {}
        return batch_of([observations[name] for name in self._here]), self._masks_in(infos)

    def step(self, actions: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let every agent that is there act.

        Parameters
        ----------
        actions
            One for each, in the order of the observations.
        """
        here = self._here
        given = dict(zip(here, actions, strict=True))
        observations, rewards, terminated, truncated, infos = self.env.step(given)
        require_info(infos)
        total = sum(one_number(rewards[name]) for name in here)
        reward = total / len(self.env.possible_agents)
        for name in here:
            if is_end(terminated[name], truncated[name]):
                for key, value in infos.get(name, {}).items():
                    if isinstance(value, (bool, int, float, np.number, np.bool_)):
                        self._told.setdefault(key, []).append(float(value))
        self._here = list(self.env.agents)
        if self._here:
            batch = batch_of([observations[name] for name in self._here])
            return batch, reward, False, False, self._masks_in(infos)
        means = {key: float(np.mean(values)) for key, values in self._told.items()}
        return None, reward, True, False, means

    def _masks_in(self, infos: Any) -> dict[str, Any]:
        """The masks of the agents that are there, one a row, where all infos hold one."""
        told = [infos.get(name, {}) if isinstance(infos, Mapping) else {} for name in self._here]
        if not all(INFO_KEY in info for info in told):
            return {}
        return {INFO_KEY: batch_of([info[INFO_KEY] for info in told])}

    def render(self) -> Any:
        """A frame of the parallel environment."""
        return self.env.render()

    def close(self) -> None:
        """Close the parallel environment, unless it belongs to somebody else."""
        if self._owned:
            self.env.close()


class JointEnv(gymnasium.Env[Any, Any]):
    """A parallel environment as one of Gymnasium, with no state of its own: for files of states.

    An action is one for each of its possible agents; what is for agents that are not there is dropped.

    Parameters
    ----------
    parallel
        The parallel environment.
    """

    def __init__(self, parallel: Any) -> None:
        self.env = parallel

    @property
    def unwrapped(self) -> Any:
        """What the parallel environment is inside."""
        return getattr(self.env, "unwrapped", self.env)

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        """One action for each agent."""
        return gymnasium.spaces.Tuple(
            [self.env.action_space(name) for name in self.env.possible_agents]
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Parameters
        ----------
        seed, options
            Of the parallel environment.
        """
        returned: tuple[Any, dict[str, Any]] = self.env.reset(seed=seed, options=options)
        return returned

    def step(self, actions: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let every agent that is there act; the episode terminates when none is left.

        Parameters
        ----------
        actions
            One for each possible agent.
        """
        chosen = dict(zip(self.env.possible_agents, actions, strict=True))
        given = {name: chosen[name] for name in self.env.agents}
        observations, rewards, terminated, truncated, _ = self.env.step(given)
        told = (observations, dict(terminated), dict(truncated))
        total = sum(map(one_number, rewards.values()))
        return told, total, not self.env.agents, False, {}

    def close(self) -> None:
        """Close the parallel environment."""
        self.env.close()


def batch_of(observations: Sequence[Any]) -> Any:
    """Observations of several agents as one batch: arrays, or dictionaries or tuples of arrays.

    Parameters
    ----------
    observations
        Those of N agents.
    """
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: batch_of([one[key] for one in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(batch_of(parts) for parts in zip(*observations, strict=True))
    return np.stack([np.asarray(one) for one in observations])
