"""The inside of a Ray actor: the `Commands` of a worker, as calls.

What a worker process and its parent share as memory goes into a call here, and comes back from it:
parameters, and where the environments are, go in; the arrays of a rollout come back. The arrays of a
worker's block lie in memory of the actor's own.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..state import RunState
from ..workers.commands import Commands, answer
from ..workers.memory import anonymous_file
from ..workers.pooled import view_of
from ..workers.worker import GRACE_SECONDS
from .block import packed, unpacked, without_rows
from .errands import Errands

Array = npt.NDArray[Any]

_LOOK_SECONDS = 0.5  # how often the actor looks whether its environments move

_REMEDY = (
    "define it in a module that every node can import (runtime_env brings files and packages there), "
    "or step it on this machine, without cluster"
)


class RolloutActor:
    """One worker of a sampler, wherever Ray has put it.

    All environments are made, stepped and closed by one thread, while another one looks whether they
    move.

    Parameters
    ----------
    index
        Number of the worker.
    first_index
        Index of its first environment in the whole run.
    timeout
        Seconds without a step after which the environments are taken to hang; may be infinite.
    paths
        Where the parent looks for modules: what of it is on this node is looked through as well.
    """

    def __init__(
        self, index: int, first_index: int, timeout: float, paths: Sequence[str] = ()
    ) -> None:
        sys.path += [path for path in paths if path not in sys.path and os.path.isdir(path)]
        self._index, self._first_index, self._timeout = index, first_index, timeout
        self._commands = Commands(anonymous_file(), _no_pause, remedy=_REMEDY)
        self._thread = Errands("environments")
        self._kept: Any = None  # the latest rollout, where its rows stay here

    def ping(self) -> None:
        """Answer."""

    def do(self, command: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Carry out a command.

        Parameters
        ----------
        command
            A method of `Commands`.
        arguments
            Its arguments.

        Returns
        -------
        tuple
            What `commands.answer` returns, or ("lost", sentence, traceback) where nothing moves.
        """
        done: tuple[Any, ...] = self._watched(
            lambda: answer(getattr(self._commands, command), arguments), command
        )
        if command == "open" and done[0] == "result" and done[1] is not None:
            done[1].update(facts())
        return done

    def collect(self, policy: Any, request: bytes) -> Any:
        """Collect a rollout.

        Parameters
        ----------
        policy
            What acts: `PolicyNumbers`, `packed`.
        request
            Pickled: arrays of a `RunState` to begin with, by name, or None to go on from the last
            rollout; T to make room for; arguments of `Commands.collect`; whether the states of the
            environments come back as well; whether the rows stay here, for `rows`: then the arrays
            are what `without_rows` leaves.

        Returns
        -------
        tuple
            `packed`: ("result", what `Commands.collect` returned, arrays of the rollout, arrays of the
            state, states of the environments or why there are none); or ("error", kind, sentence,
            traceback, counters); or ("lost", sentence, traceback).
        """
        state, n_rows, arguments, saves_states, keeps_rows = pickle.loads(request)
        block = self._commands.block
        block.reserve(n_rows)
        unpacked(policy).write(block.lasting)
        if state is not None:
            for name, values in state.items():
                block.lasting[name][:] = values

        def work() -> Any:
            done = answer(self._commands.collect, arguments)
            if done[0] == "error":
                return *done, block.lasting["counters"].copy()
            block.follow()
            own = {name: block.lasting[name] for name in RunState.NAMES}
            states = self._states() if saves_states else ""
            arrays = _filled(block.arrays, done[1][:3])
            if keeps_rows:
                crashes, metrics, source = done[1][3:]
                has_masks = source not in ("none", "auto")
                self._kept = view_of(block, done[1][:3], crashes, metrics, has_masks)
                arrays = without_rows(arrays)
            kept = () if isinstance(states, str) else states
            whole = [*arrays.values(), *(array for each in kept for array in each.values())]
            return packed((*done, arrays, own, states), whole)

        return self._watched(work, "collect")

    def rows(self, function: Callable[..., Sequence[Any]], *arguments: Any) -> Any:
        """Make objects of the rollout whose rows have stayed here, one for each return of the call.

        Parameters
        ----------
        function
            Called with the rollout, the index of its first environment, and ``arguments``.
        *arguments
            Of it.
        """
        made = tuple(function(self._kept, self._first_index, *arguments))
        return made[0] if len(made) == 1 else made

    def close(self) -> None:
        """Close the environments, unless they hang."""
        self._thread.submit(self._commands.close).wait(GRACE_SECONDS)

    def _states(self) -> list[dict[str, Array]] | str:
        """The states of the environments, or why they cannot be stored."""
        from ...snapshots import SnapshotError

        try:
            states: list[dict[str, Array]] = self._commands.sampler.keeper.save()
        except SnapshotError as error:
            return str(error)
        return states

    def _watched(self, work: Callable[[], Any], command: str) -> Any:
        """Have the other thread do it, and look meanwhile whether it moves."""
        begun = self._thread.submit(work)
        progress, moved = -1, time.monotonic()
        while not begun.wait(_LOOK_SECONDS):
            now = self._progress()
            if now != progress:
                progress, moved = now, time.monotonic()
            elif time.monotonic() - moved > self._timeout:
                where = f"worker {self._index} on node {node_name()} ({command})"
                if command == "collect":
                    name = self._commands.sampler.name
                    where = f"worker {self._index} on node {node_name()}: "
                    where += self._commands.block.place(self._first_index, name)
                return (
                    "lost",
                    f"{where}: nothing came back for {self._timeout:g} seconds; mend the "
                    "environment, or raise worker_timeout if it may take so long",
                    self._thread.stack(),
                )
        return begun.result()

    def _progress(self) -> int:
        block = self._commands.block
        return 0 if block is None else int(block.progress())


def facts() -> dict[str, Any]:
    """What must be alike on all nodes, and where this one is."""
    from ... import _version, runtime

    return {
        "level": runtime.simd_level(),
        "version": _version.__version__,
        "node": node_name(),
        "pid": os.getpid(),
    }


def _filled(arrays: Mapping[str, Array], counts: tuple[int, int, int]) -> dict[str, Array]:
    """The arrays of a rollout as far as something was written: rows, final observations, episodes."""
    n_rows, n_finals, n_episodes = counts
    rows = {"observations": n_rows + 1, "action_masks": n_rows + 1}
    rows |= dict.fromkeys(("final_observations", "final_indices"), n_finals)
    rows |= dict.fromkeys(("episode_returns", "episode_lengths", "episode_indices"), n_episodes)
    return {name: values[: rows.get(name, n_rows)] for name, values in arrays.items()}


def _no_pause() -> None:
    raise RuntimeError("an actor does not wait for its parent after a row")


def node_name() -> str:
    """Return what messages call this machine."""
    return socket.gethostname()
