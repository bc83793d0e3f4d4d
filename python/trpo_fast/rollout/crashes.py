"""Episodes of one rollout, and which of them are broken.

The rows of an environment fall into episodes, each an interval [begin, end] of rows. Every number
that an environment returned belongs to exactly one of them::

    s_begin       came from the reset before the first step
    r_t, s_{t+1}  came from the step of row t, begin <= t <= end; s_{end+1} is the final observation,
                  or, where the episode goes on after the rollout, what the next action is chosen for

If one of these numbers is a NaN or an infinity, the whole episode is lost, and no other one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .filling import Events, RolloutBuffers

Array: TypeAlias = npt.NDArray[Any]

MOST_CRASHES = 10
"""Crashes of one environment in one rollout, before its error is raised after all."""


class Kind(IntEnum):
    """What a number of row t is, in the order in which such numbers come about."""

    STATE = 0  # s_t
    ACTION = 1  # a_t
    REWARD = 2  # r_t
    FINAL_STATE = 3  # s_{t+1} of an episode that was cut off at row t


@dataclass(frozen=True, order=True)
class NonFinite:
    """A NaN or an infinity. What came about earlier is less."""

    t: int
    kind: Kind
    e: int
    entry: int  # index within the observation or the action
    value: float = field(compare=False)


@dataclass(slots=True)
class Episode:
    """An interval of rows of one environment."""

    e: int
    begin: int  # first row
    end: int  # last row; begin - 1 if the rollout stopped before the first one
    goes_on: bool  # whether it is still running after the rollout
    lost: bool  # whether it crashed, or is broken

    @property
    def rows(self) -> slice:
        """Its rows, of arrays (T, E, ...)."""
        return slice(self.begin, self.end + 1)

    @property
    def states(self) -> slice:
        """Its states, of observations (T + 1, E, O), but for its final one."""
        return slice(self.begin, self.end + 1 + self.goes_on)

    def erase(self, buffers: RolloutBuffers) -> None:
        """Take its steps back: zeros that are not valid, and masks that allow everything.

        Parameters
        ----------
        buffers
            The arrays of the rollout, see `RolloutBuffers`.
        """
        buffers.observations[self.states, self.e] = 0
        buffers.action_masks[self.states, self.e] = True
        for values in (buffers.actions, buffers.rewards):
            values[self.rows, self.e] = 0
        for flags in (buffers.terminated, buffers.truncated, buffers.valid):
            flags[self.rows, self.e] = False


def split_into_episodes(events: Events, n_rows: npt.NDArray[np.int64]) -> list[Episode]:
    """All episodes of a rollout, by environment, then time.

    Parameters
    ----------
    events
        What happened in it.
    n_rows
        Rows that each environment took: (E,), int64.

    Returns
    -------
    list of Episode
        The last one of every environment goes on after the rollout, and may have no row yet. Those
        that crashed are marked as lost.
    """
    ends = set(events.ends)
    of_environment: list[list[Episode]] = [[] for _ in n_rows]
    begins = [0 for _ in n_rows]
    for last in sorted(ends | events.crashes.keys()):
        t, e = last
        of_environment[e].append(Episode(e, begins[e], t, goes_on=False, lost=last not in ends))
        begins[e] = t + 1
    for e, n in enumerate(n_rows.tolist()):
        of_environment[e].append(Episode(e, begins[e], n - 1, goes_on=True, lost=False))
    return list(itertools.chain.from_iterable(of_environment))


def all_finite(buffers: RolloutBuffers, events: Events) -> bool:
    """Whether a rollout holds neither NaN nor infinity.

    Every entry is looked at, because the sum of finite numbers may overflow.

    Parameters
    ----------
    buffers
        The arrays of the rollout, see `RolloutBuffers`.
    events
        What happened in it.
    """
    arrays = (buffers.observations, buffers.actions, buffers.rewards, np.array(events.finals))
    return all(bool(np.isfinite(values).all()) for values in arrays)


def first_non_finite(
    buffers: RolloutBuffers,
    events: Events,
    *,
    states: slice,
    rewards: slice,
    e: int | None = None,
) -> NonFinite | None:
    """The NaN or infinity of some rows that came about first, if there is one.

    Parameters
    ----------
    buffers, events
        The rollout.
    states
        Rows whose states and actions are looked at.
    rewards
        Rows whose rewards and final observations are looked at.
    e
        The environment; None: all of them.
    """
    envs = slice(None) if e is None else slice(e, e + 1)
    first_env = e or 0
    found = []
    for kind, rows, values in (
        (Kind.STATE, states, buffers.observations),
        (Kind.ACTION, states, buffers.actions),
        (Kind.REWARD, rewards, buffers.rewards[..., np.newaxis]),
    ):
        broken = np.argwhere(~np.isfinite(values[rows, envs]))
        if len(broken):
            t, column, entry = (int(index) for index in broken[0])
            t, env = (rows.start or 0) + t, first_env + column
            found.append(NonFinite(t, kind, env, entry, values[t, env, entry]))
    taken = range(len(buffers.rewards))[rewards]
    for (t, env), final in zip(events.final_indices, events.finals, strict=True):
        if t in taken and e in (None, env) and not np.isfinite(final).all():
            entry = int(np.argmin(np.isfinite(final)))
            found.append(NonFinite(t, Kind.FINAL_STATE, env, entry, final[entry]))
    return min(found, default=None)


def broken_episodes(
    buffers: RolloutBuffers, events: Events, episodes: Iterable[Episode]
) -> list[tuple[Episode, NonFinite]]:
    """Episodes in which an environment returned a NaN or an infinity, with the first of these.

    Two kinds of them are no fault that a fresh environment mends, and are left out: a policy that
    chose such an action for a finite observation, and an environment whose first reset of the
    rollout returned one.

    Parameters
    ----------
    buffers
        The arrays of the rollout, see `RolloutBuffers`.
    events
        What happened in it.
    episodes
        Those to look at.
    """
    found = []
    for episode in episodes:
        first = first_non_finite(
            buffers, events, states=episode.states, rewards=episode.rows, e=episode.e
        )
        if first is not None and first.kind is not Kind.ACTION and (first.t, first.kind) != (0, 0):
            found.append((episode, first))
    return found
