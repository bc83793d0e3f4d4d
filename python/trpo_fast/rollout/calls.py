"""What is called on a sampler where its environments are: in this process, or in a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

if TYPE_CHECKING:
    from .in_process import InProcessSampler

Array: TypeAlias = npt.NDArray[Any]


def on_environments(
    sampler: InProcessSampler, call: tuple[Callable[..., Any], list[Any] | None]
) -> list[Any]:
    """Call a function on each environment, with its argument if there are any.

    Parameters
    ----------
    sampler
        Where the environments are stepped.
    call
        The function, and an argument for each environment or None.
    """
    function, arguments = call
    if arguments is None:
        return [function(environment) for environment in sampler.environments]
    pairs = zip(sampler.environments, arguments, strict=True)
    return [function(environment, argument) for environment, argument in pairs]


def prepare_states(sampler: InProcessSampler) -> None:
    """Find out whether the states of the environments can be saved, before they are reset.

    Parameters
    ----------
    sampler
        Where the environments are stepped.
    """
    sampler.keeper.prepare()


def save_states(sampler: InProcessSampler) -> list[dict[str, Array]]:
    """The states of the environments.

    Parameters
    ----------
    sampler
        Where the environments are stepped.
    """
    return sampler.keeper.save()


def load_states(
    sampler: InProcessSampler, given: Sequence[tuple[int, Mapping[str, Array]]]
) -> None:
    """Put the environments into states; each comes with the seed of a reset before it.

    Parameters
    ----------
    sampler
        Where the environments are stepped.
    given
        For each environment the seed of a reset, in [0, 2**31), and the arrays of its state
        by name.
    """
    sampler.keeper.load(given)


def pack_states(states: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of all environments in one dictionary: ``environments.{e}.{name}``.

    Parameters
    ----------
    states
        For each environment the arrays of its state by name.
    """
    return {
        f"environments.{e}.{name}": array
        for e, arrays in enumerate(states)
        for name, array in arrays.items()
    }


def unpack_state(state: Mapping[str, Array], e: int) -> dict[str, Array]:
    """The arrays of environment e of a dictionary of `pack_states`.

    Parameters
    ----------
    state
        What `pack_states` returned.
    e
        Environment, from 0.
    """
    prefix = f"environments.{e}."
    return {k.removeprefix(prefix): a for k, a in state.items() if k.startswith(prefix)}
