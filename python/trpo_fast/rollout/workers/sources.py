"""What a worker process needs to make the environments: sent by value, or refused in a sentence."""

from __future__ import annotations

import copy
import os
import sys
from typing import TYPE_CHECKING, Any

from ...words import words_of

if TYPE_CHECKING:
    from ...envs import EnvSource


class NoWorkers(ValueError):
    """These environments cannot be stepped by workers; the sentence says why.

    Parameters
    ----------
    sentence
        Why, and what to do.
    is_vector_env
        Whether it is because the factory makes a whole vector environment, which needs none.
    """

    def __init__(self, sentence: str, *, is_vector_env: bool = False) -> None:
        super().__init__(sentence)
        self.is_vector_env = is_vector_env


def portable_source(env: EnvSource, kwargs: dict[str, Any]) -> bytes:
    """Pickle what a worker needs: source, arguments, and registration with Gymnasium.

    Parameters
    ----------
    env
        A Gymnasium id, or a callable without arguments that returns an ``Env``.
    kwargs
        Arguments of ``gymnasium.make``.

    Returns
    -------
    bytes
        For ``pickle.loads`` in a worker.

    Raises
    ------
    NoWorkers
        It exists already, cannot be sent, or this interpreter cannot start workers.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(env, gymnasium.Env | VectorEnv):
        raise NoWorkers(
            "env: an environment that exists already cannot move to worker processes; pass an id "
            "or a function that makes it, or use n_workers=0"
        )
    if os.name != "posix" or getattr(sys, "frozen", False) or not sys.executable:
        raise NoWorkers(
            "worker processes cannot be started by this interpreter (they need a POSIX system and "
            "a Python executable); use n_workers=0"
        )
    try:
        import cloudpickle
    except ModuleNotFoundError:
        raise NoWorkers(
            "worker processes need cloudpickle, which is not installed: pip install cloudpickle, "
            "or use n_workers=0"
        ) from None
    registration = None
    if isinstance(env, str):
        # A worker need not find again what this process has registered.
        registration = gymnasium.registry.get(env.rpartition(":")[2])
        entry = getattr(registration, "entry_point", None)
        if registration and isinstance(entry, str) and entry.startswith("__main__:"):
            main = sys.modules["__main__"]
            registration = copy.copy(registration)
            registration.entry_point = getattr(main, entry.partition(":")[2])
    try:
        pickled: bytes = cloudpickle.dumps((env, kwargs, registration))
    except Exception as error:
        raise NoWorkers(
            f"env: cannot be sent to worker processes: {type(error).__name__}: {words_of(error)}; "
            "make what it needs inside the function, or use n_workers=0"
        ) from error
    return pickled
