"""The part of a sampler that goes into checkpoints and comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..seeds import Purpose, derive_reset
from ..words import words_of
from .calls import load_states, pack_states, prepare_states, save_states, unpack_state
from .state import RunState

Array: TypeAlias = npt.NDArray[Any]


def environment_seed(seed: int, env: int, counter: int = 0) -> int:
    """Seed of a reset: that of :func:`trpo_fast.seeds.derive_reset` for resets.

    Parameters
    ----------
    seed
        Seed of the run, in [0, 2**64).
    env
        Index of the environment in the whole run.
    counter
        Actions that it has drawn so far.

    Returns
    -------
    int
        In [0, 2**31).
    """
    return derive_reset(seed, Purpose.RESETS, env, counter)


class StoredSampler:
    """Counters, running episodes and the states of the environments, for files."""

    name: str
    n_envs: int
    first_index: int
    state: RunState
    mask_source: str
    _seed: int
    _started: bool
    _closed: bool
    _why_not_saved = ""  # what went wrong where that was tried out

    @property
    def groups(self) -> list[slice]:
        """Which environments are stepped together, one group a process."""
        return [slice(0, self.n_envs)]

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Call a function on the `InProcessSampler` of each group, wherever that is.

        Parameters
        ----------
        function
            Called as ``function(sampler)``, or ``function(sampler, arguments[w])`` in group w.
        arguments
            One for each group, or None.
        name
            What errors call the function.

        Returns
        -------
        list
            The results in the order of `groups`.

        Raises
        ------
        NotImplementedError
            A vector environment, whose parts cannot be reached.
        """
        raise NotImplementedError(
            f"{self.name}: the environments inside a vector environment cannot be reached; pass an "
            "id or a function that makes one environment"
        )

    def state_dict(self) -> dict[str, Array]:
        """Copies of ``counters``, ``episode_returns`` and ``episode_lengths``, each (E,).

        They are actions drawn so far, and the running episodes, see `RunState`.
        """
        return {
            "counters": self.state.counters.copy(),
            "episode_returns": self.state.returns.copy(),
            "episode_lengths": self.state.lengths.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Restore the counters; the environments start anew (or see `load_environment_state`).

        At the next rollout, environment e is reset with ``environment_seed(seed, e, counter)``, and
        its running episode is forgotten, because nobody can finish it.

        Parameters
        ----------
        state
            What `state_dict` returned, at least.

        Raises
        ------
        ValueError
            An entry is missing or belongs to another number of environments.
        """
        counters = state.get("counters")
        if counters is None or np.shape(counters) != (self.n_envs,):
            got = "nothing" if counters is None else f"shape {np.shape(counters)}"
            raise ValueError(
                f"sampler state: expected counters of shape ({self.n_envs},), got {got}; "
                "resume with the number of environments that the run was started with"
            )
        self.state.counters[:] = counters
        self._started = False

    def prepare_states(self) -> None:
        """Find out whether the states of the environments can be saved, before the first rollout.

        That is tried on separate copies, see ``trpo_fast.snapshots.StateKeeper``, and costs the
        making of two environments and some steps of them. In the middle of training this does
        nothing. Whatever a copy does, training goes on; `environment_state` then says why not.
        """
        if self._started or self._closed:
            return
        try:
            self.map_groups(prepare_states, name="trying out whether environments can be saved")
        except NotImplementedError:  # a vector environment
            return
        except Exception as error:  # whatever a copy does to its process
            self._why_not_saved = (
                f"trying that out raised {type(error).__name__}: {words_of(error)}"
            )

    def environment_state(self) -> dict[str, Array]:
        """What an exact resume needs beside `state_dict`: the state of every environment.

        The environments are read, and nothing else, see ``trpo_fast.snapshots.StateKeeper``.

        Returns
        -------
        dict
            ``observations`` (E, O), dtype, what the next action will be chosen for, and
            ``environments.{e}.{name}``, what the keeper of environment e returns. Empty before the
            first rollout, when the environments start anew anyway.

        Raises
        ------
        SnapshotError
            The state of an environment cannot be saved; a clause behind "because".
        """
        from ..snapshots import SnapshotError

        if self._closed:
            raise SnapshotError("the environments are closed")
        if self._why_not_saved:
            raise SnapshotError(self._why_not_saved)
        if not self._started:
            if self.state.counters.any():
                raise SnapshotError("a rollout is under way or was broken off")
            return {}
        try:
            groups = self._saved_states()
        except NotImplementedError as error:
            raise SnapshotError(str(error)) from None
        states = [arrays for group in groups for arrays in group]
        own = {"observations": self.state.observations.copy()}
        if self.mask_source not in ("none", "auto"):
            own["action_masks"] = self.state.action_masks.copy()
        return {**own, **pack_states(states)}

    def _state_holders(self) -> Sequence[int]:
        """Those whose seed an environment was reset with, one for each state of `save_states`."""
        return range(self.n_envs)

    def _saved_states(self) -> list[list[dict[str, Array]]]:
        """The states of the environments of every group."""
        return self.map_groups(save_states, name="saving the environments")

    def load_environment_state(self, state: Mapping[str, Array]) -> None:
        """Go on exactly where ``{**state_dict(), **environment_state()}`` was taken.

        Call `bind` first. Where the entries of `environment_state` are missing, the environments
        start anew, as after `load_state_dict`.

        Parameters
        ----------
        state
            Both dictionaries in one.

        Raises
        ------
        SnapshotError
            The environments cannot be put into this state; they start anew then.
        ValueError
            See `load_state_dict`.
        """
        self.load_state_dict(state)
        if "observations" not in state:
            return
        holders, counters = self._state_holders(), self.state.counters.tolist()
        seeds = (environment_seed(self._seed, self.first_index + e, counters[e]) for e in holders)
        given = [(seed, unpack_state(state, k)) for k, seed in enumerate(seeds)]
        parts = [
            [one for e, one in zip(holders, given, strict=True) if group.start <= e < group.stop]
            for group in self.groups
        ]
        try:
            self.map_groups(load_states, parts, name="loading environments")
        except NotImplementedError as error:
            from ..snapshots import SnapshotError

            raise SnapshotError(str(error)) from None
        self.state.observations[:] = state["observations"]
        if self.mask_source not in ("none", "auto"):
            self.state.action_masks[:] = state["action_masks"]
        self.state.returns[:] = state["episode_returns"]
        self.state.lengths[:] = state["episode_lengths"]
        self._started = True
