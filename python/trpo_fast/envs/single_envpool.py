"""An EnvPool of one as an ordinary environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from .envpool import make_pool, read_spaces, step_of
from .masks import INFO_KEY


class SingleEnvPool(gymnasium.Env[Any, Any]):
    """One environment of EnvPool as an ordinary `gymnasium.Env`, for evaluation.

    `reset(seed=...)` makes it anew, because EnvPool takes seeds only then; `reset()` starts the
    next episode.

    Parameters
    ----------
    source
        "envpool:" and a task of EnvPool.
    **kwargs
        Further arguments of `envpool.make_gymnasium`.
    """

    def __init__(self, source: str, **kwargs: Any) -> None:
        self.metadata = {"render_modes": []}
        self._source, self._kwargs = source, kwargs
        self._renew(0)
        self.observation_space, self.action_space = read_spaces(self._pool)

    def _renew(self, seed: int) -> None:
        self._pool = make_pool(self._source, seeds=[seed], kwargs=self._kwargs, n_threads=1)
        self._step = step_of(self._pool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Parameters
        ----------
        seed
            Makes the pool anew with this seed; None goes on.
        options
            Not used.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._renew(seed)
        observations, infos = self._pool.reset()
        info = _mask_of(infos)
        if info:
            self._step = self._pool.step
        return _first(observations), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step.

        Parameters
        ----------
        action
            An element of the action space.
        """
        batch = np.asarray(action, self.action_space.dtype)[np.newaxis]
        observations, rewards, terminated, truncated, infos = self._step(batch)
        ends = bool(terminated[0]), bool(truncated[0])
        return _first(observations), float(rewards[0]), *ends, _mask_of(infos)


def _first(observations: Any) -> Any:
    if isinstance(observations, Mapping):
        return {key: _first(part) for key, part in observations.items()}
    return observations[0]


def _mask_of(infos: Any) -> dict[str, Any]:
    """What the infos say of allowed actions; nothing else of them is kept."""
    masks = infos.get(INFO_KEY) if isinstance(infos, Mapping) else None
    return {} if masks is None else {INFO_KEY: masks[0]}
