"""Random actions to try an environment out with, such as it allows where it says so."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RandomActions:
    """Steps an environment, and samples what it allows: as masks of actions say, else anything.

    A mask is ``info["action_mask"]``, the part "action_mask" of an observation, or what the method
    ``action_masks()`` returns.

    Parameters
    ----------
    env
        The environment.
    seed
        Of the actions.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self._env = env
        self._space = copy.deepcopy(env.action_space)
        self._space.seed(seed)
        self._observation: Any = None
        self._info: Any = None

    def reset(self, **settings: Any) -> tuple[Any, Any]:
        """Reset the environment.

        Parameters
        ----------
        **settings
            Of its ``reset``.
        """
        returned: tuple[Any, Any] = self._env.reset(**settings)
        self._observation, self._info = returned
        return returned

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Step the environment.

        Parameters
        ----------
        action
            What its ``step`` takes.
        """
        returned: tuple[Any, Any, Any, Any, Any] = self._env.step(action)
        self._observation, _, _, _, self._info = returned
        return returned

    def sample(self) -> Any:
        """An action for the state that the environment is in."""
        try:
            flags = _flat(self._mask())
            if flags is not None:
                return _sample(self._space, flags)
        except Exception:  # whatever a mask is or does: without one anything is allowed
            pass
        return self._space.sample()

    def _mask(self) -> Any:
        for told in (self._info, self._observation):
            if isinstance(told, Mapping) and "action_mask" in told:
                return told["action_mask"]
        find = getattr(self._env, "get_wrapper_attr", None)
        method = None if find is None else find("action_masks")
        return method() if callable(method) else None


def _flat(mask: Any) -> NDArray[np.bool_] | None:
    """The flags of a mask one after the other."""
    if mask is None:
        return None
    if isinstance(mask, tuple | list) and any(np.ndim(part) for part in mask):
        mask = np.concatenate([np.ravel(part) for part in mask])
    flags: NDArray[np.bool_] = np.ravel(mask) != 0
    return flags


def _sample(space: Any, flags: NDArray[np.bool_]) -> Any:
    generator = space.np_random
    kind = type(space).__name__
    if kind == "Discrete" and len(flags) == space.n:
        return space.start + generator.choice(np.flatnonzero(flags))
    if kind == "MultiDiscrete":
        groups = np.split(flags, np.cumsum(space.nvec.ravel())[:-1])
        chosen = [generator.choice(np.flatnonzero(group)) for group in groups]
        return (np.reshape(chosen, space.shape) + space.start).astype(space.dtype)
    action = space.sample()
    if kind == "MultiBinary":
        may_be = flags.reshape(action.size, -1)
        one = may_be[:, -1].reshape(action.shape)
        zero = np.ones_like(one) if may_be.shape[1] == 1 else may_be[:, 0].reshape(action.shape)
        return np.where(zero & one, action, one).astype(space.dtype)
    return action
