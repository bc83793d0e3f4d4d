"""Simulators written in another language: MuJoCo and the Arcade Learning Environment."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import select
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..words import words_of
from .nodes import (
    ALENode,
    Array,
    SnapshotError,
)


class Simulators:
    """What is worked out once per simulator of an environment.

    Parameters
    ----------
    in_place
        A game whose state cannot be told without playing on is played on and put back. False: that is
        done in a child process, so that this one's is only read.
    """

    def __init__(self, *, in_place: bool = False) -> None:
        self._in_place = in_place
        self._mujoco: dict[int, tuple[_IntegrationState, list[Array]]] = {}
        self._ale: dict[int, _ALETool] = {}

    def mujoco(self, data: Any) -> tuple[_IntegrationState, list[Array]]:
        """Reader and writer of the integration state, and views of the computed arrays.

        Parameters
        ----------
        data
            An ``mjData``.
        """
        if id(data) not in self._mujoco:
            self._mujoco[id(data)] = (_IntegrationState(data), _computed_arrays(data))
        return self._mujoco[id(data)]

    def ale(self, ale: Any) -> _ALETool:
        """Reader and writer of a game.

        Parameters
        ----------
        ale
            An ``ALEInterface``.
        """
        if id(ale) not in self._ale:
            self._ale[id(ale)] = _ALETool(ale, self._in_place)
        return self._ale[id(ale)]


class _IntegrationState:
    """MuJoCo's own definition of everything that the next step depends on."""

    def __init__(self, data: Any) -> None:
        mujoco = importlib.import_module("mujoco")
        self._mujoco, self._data, self._model = mujoco, data, data.model
        self._what = mujoco.mjtState.mjSTATE_INTEGRATION
        self.signature = int(getattr(data, "signature", 0))
        self.size = int(mujoco.mj_stateSize(self._model, self._what))
        # buffers of delayed sensors and actuators begin with places in themselves
        self.has_indices = bool(getattr(self._model, "nhistory", 0))

    def read(self) -> Array:
        state = np.empty(self.size)
        self._mujoco.mj_getState(self._model, self._data, state, self._what)
        return state

    def write(self, state: Array) -> None:
        self._mujoco.mj_setState(self._model, self._data, state, self._what)


# lists of contacts and constraints: their length changes, and each step makes them anew
_PER_STEP = re.compile(r"(efc|iefc|efm|island|map|contact|solver|iacc|ifrc)(_|$)")


def _computed_arrays(data: Any) -> list[Array]:
    """The float arrays of mjData that have a fixed size and place, in alphabetical order."""
    names = [
        name
        for name, member in vars(type(data)).items()
        if isinstance(member, property) and not _PER_STEP.match(name) and name[0] != "_"
    ]
    values = [getattr(data, name) for name in sorted(names)]
    return [
        value
        for value in values
        if isinstance(value, np.ndarray)
        and value.dtype == np.float64
        and value.flags.writeable
        and value.flags.c_contiguous
        and value.size
    ]


def _written(state: Any) -> bytes:
    """The bytes of an ALE state; ale-py before 0.12 takes them for text."""
    with contextlib.suppress(UnicodeDecodeError):
        written = state.serialize()
        if isinstance(written, bytes):
            return written
    raise SnapshotError(
        "this version of ale-py cannot write the state of a game; install ale-py 0.12 or newer"
    )


class _ALETool:
    """State of the Arcade Learning Environment, its hidden last action included.

    With sticky actions (Machado et al. 2018) every frame repeats, with probability p, the action of
    the frame before. ALE does not save that action, and nobody can ask for it. The random generator,
    which is saved, has decided how many of the next frames repeat it: mostly none, and then it does
    not matter. Otherwise any action that leads through the same frames is as good as the true one:
    `_sticky_action` looks for one, by playing on for a few frames. A child process does so in its
    own copy of the game; this process's game is played on and put back only where `in_place` says
    that its environment is there to be driven, as that of a vine.
    """

    def __init__(self, ale: Any, in_place: bool) -> None:
        self._ale = ale
        self._in_place = in_place
        self._module = importlib.import_module(type(ale).__module__)
        self._probability = p = float(ale.getFloat("repeat_action_probability"))
        # frames after which a repetition has ended, up to a probability of 1e-12
        self._most_frames = (
            0 if p <= 0.0 else min(400, 1 + math.ceil(math.log(1e-12) / math.log(p)))
        )
        minimal = [int(action.value) for action in ale.getMinimalActionSet()]
        legal = [int(action.value) for action in ale.getLegalActionSet()]
        self._actions = minimal + [action for action in legal if action not in minimal]

    def record(self, number: int) -> ALENode:
        state = self._ale.cloneState(include_rng=True)
        written = _written(state)  # before anything is played: it may be refused
        repeated = self._repeated_frames(written) if self._most_frames else 0
        last = None
        if repeated and self._in_place:
            last = self._sticky_action(state, repeated)
        elif repeated:
            last = found_in_a_child(lambda: self._sticky_action(state, repeated))
        if repeated and last is None:
            raise SnapshotError(
                "the last action of the Atari game could not be found out, so sticky actions would "
                "not replay; make the environment with repeat_action_probability=0"
            )
        return ALENode(number, written, last, self._ale)

    def restore(self, node: ALENode) -> None:
        try:
            state = self._module.ALEState(node.state)
            if node.last_action is not None:
                self._set_last_action(node.last_action, state, self._most_frames)
            self._ale.restoreState(state)
        except Exception as error:  # whatever ALE's reader makes of damaged bytes
            raise SnapshotError(
                f"ALE cannot read the saved state ({type(error).__name__}: {words_of(error)}); "
                "was it taken from another game or version of ale-py?"
            ) from None

    def _repeated_frames(self, written: bytes) -> int:
        """How many of the next frames will repeat the last action, whatever is played."""
        found = _MERSENNE_TWISTER.findall(written)
        if len(found) != 2:  # another standard library writes its generators in another way
            return self._most_frames
        # the first one is the console's, the second one that of the sticky actions
        *key, position = (int(word) for word in found[1].split())
        if max(key) >= 2**32 or position > len(key):
            return self._most_frames
        twister = np.random.MT19937()
        twister.state = {
            "bit_generator": "MT19937",
            "state": {"key": np.array(key, np.uint32), "pos": position},
        }
        # a frame draws two words, and the first one decides; rounding may count a frame too many
        for frame in range(self._most_frames):
            word = int(twister.random_raw(2)[0])
            if word / 2**32 >= self._probability + 1e-8:
                return frame
        return self._most_frames

    def _sticky_action(self, state: Any, n_frames: int) -> int | None:
        """An action that behaves as the hidden last one; ALE is left as it was found."""
        true_frames = self._play_on(n_frames, None)
        for action in self._actions:
            self._set_last_action(action, state, n_frames + 1)
            self._ale.restoreState(state)
            if self._play_on(n_frames, true_frames) is true_frames:
                # played on: set it once more, now for good
                self._set_last_action(action, state, n_frames + 1)
                self._ale.restoreState(state)
                return action
        return None

    def _play_on(self, n_frames: int, expected: list[bytes] | None) -> list[bytes]:
        """The states of the next frames; stops at the first that is not as expected."""
        noop, frames = self._module.Action(self._actions[0]), []
        for i in range(n_frames):
            self._ale.act(noop)
            frames.append(_written(self._ale.cloneState(include_rng=True)))
            if expected is not None and frames[i] != expected[i]:
                return frames
        return frames if expected is None else expected

    def _set_last_action(self, action: int, state: Any, n_frames: int) -> None:
        """Play an action from a state until it has certainly been taken."""
        self._ale.restoreState(state)
        for _ in range(n_frames):
            self._ale.act(self._module.Action(action))


# 624 words and a position, as libstdc++ writes std::mt19937
_MERSENNE_TWISTER = re.compile(rb"(?:\d+ ){624}\d+")


_CHILD_SECONDS = 10.0


def found_in_a_child(find: Callable[[], int | None]) -> int | None:
    """What a function returns in a forked child, which has a copy of everything; None if it fails.

    Parameters
    ----------
    find
        Returns a number in [0, 255), or None. It must not need another thread, nor a lock that one
        may hold.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        try:
            child = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            return None
    if child == 0:  # nothing but `find` runs here, whatever it raises
        try:
            found = find()
            os.write(writer, bytes([255 if found is None else found]))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answered = bool(select.select([reader], [], [], _CHILD_SECONDS)[0])
        answer = os.read(reader, 1) if answered else b""
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return answer[0] if answer and answer[0] != 255 else None
