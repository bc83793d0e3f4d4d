"""Writing the state of an agent, without losing a better one."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from ..checkpoint import CheckpointError, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from .agent import OnPolicyAgent

# Entries of the metadata in which two files of one run agree.
_OF_A_RUN = (
    "algorithm",
    "env",
    "env_source",
    "env_kwargs",
    "env_kwargs_left_out",
    "n_envs",
    "spaces",
)
NOT_WANTED = "save_environments=False"


class SavedState(NamedTuple):
    """Everything that an agent is, without its environments' code."""

    tensors: dict[str, NDArray[Any]]
    """Every array by name."""
    metadata: dict[str, Any]
    """The rest, as JSON can hold it."""


def save_agent(agent: OnPolicyAgent[Any], path: str | os.PathLike[str]) -> Path:
    """Write a checkpoint of an agent, unless a better one of this very step stands there.

    An exact file holds the states of the environments. Where the new one cannot, the agent says so
    once, and a warning says what becomes of an exact file of this step or a later one.

    Parameters
    ----------
    agent
        The agent.
    path
        The file.

    Returns
    -------
    pathlib.Path
        The file that stands there now.

    Raises
    ------
    CheckpointError
        It cannot be written; what stood there is intact.
    """
    state = agent.state()
    unsaved = state.metadata["unsaved_environments"]
    if unsaved and unsaved != NOT_WANTED:
        sentence = (
            f"episodes start anew after a resume, because {unsaved}; training is not affected "
            "otherwise"
        )
        agent.say_once(sentence)
        better = _better_file(path, state)
        if better is not None:
            kept = better == agent.timesteps
            what = "the better one stands" if kept else "it is kept as .previous"
            warnings.warn(
                f"the checkpoint {path} of {better} timesteps holds the states of the "
                f"environments, and the one to be saved now does not: {sentence}; {what}",
                stacklevel=3,
            )
            if kept:
                return Path(path)
    return save_checkpoint(path, *state)


def _better_file(path: str | os.PathLike[str], state: SavedState) -> int | None:
    """The timesteps of an exact file of this run at the path, of this step or a later one."""
    if not Path(path).is_file():
        return None
    try:
        tensors, metadata = load_checkpoint(path)
        timesteps, now = int(metadata["timesteps"]), int(state.metadata["timesteps"])
        is_exact = "sampler.observations" in tensors and not metadata["unsaved_environments"]
        is_of_run = all(metadata.get(name) == state.metadata[name] for name in _OF_A_RUN)
        if not is_exact or not is_of_run or timesteps < now:
            return None
        if timesteps == now and any(
            tensors[name].tobytes() != array.tobytes()
            for name, array in state.tensors.items()
            if not name.startswith("sampler.")
        ):
            return None
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None
    return timesteps
