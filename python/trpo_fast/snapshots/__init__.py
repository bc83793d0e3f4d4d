"""Saving and restoring the whole state of an environment, bit for bit.

One protocol for every environment: `take(env)` gives a `Snapshot`, `restore(env, snapshot)` puts
it back. Steps after a restore are bitwise those of the original, random numbers included. Vine
sampling restarts an environment from a state many times this way; exact resume carries the state in
a checkpoint.

How it works
------------
An environment is a graph of Python objects: wrappers, the environment itself, what it holds.
`take` walks it and copies every value that can change: numbers, texts, arrays, containers, the
attributes of Python objects, NumPy and Python random generators. No method or property of them is
called. Simulators written in another language have a state of their own and a handler each:

* MuJoCo: the integration state (`mj_getState`), and the computed float arrays of `mjData`, because
  environments read body positions that were computed one substep before the state;
* the Arcade Learning Environment: its state clone with the random generator, and the last action,
  which the clone leaves out although sticky actions repeat it (see `simulators`).

What cannot change is left alone: functions, classes, specs, models, windows. Anything else (a Box2D
world, a socket) cannot be walked, and is named in the `SnapshotError`.

Whose the environments are
--------------------------
Training environments belong to training. A save reads them; a resume resets them and writes them;
nothing else touches them. Whether an environment goes on from a stored state is tried on separate
copies (`try_out`), made the way it was made; where none can be made, nothing is tried, and episodes
start anew after a resume. The trial cannot see state that its steps never touch; state outside the
object (a module's variable, a server) is not saved.

What a constructor set is configuration, not state: it belongs to the environment at hand.
`StateKeeper` reads it from a copy and stores it beside the state; where the environment at hand
differs from it at a resume, episodes start anew and the message names what differs.

`Snapshot.to_arrays` gives arrays and plain JSON values, without pickle. Reading them back makes no
object of any class and runs no code: values are written into an environment that was made the same
way. Every number that NumPy or a simulator would take for a place in memory is checked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import names_on_first_use

if TYPE_CHECKING:
    from .configuration import configuration_of
    from .keeper import StateKeeper
    from .nodes import SnapshotError
    from .replay import Snapshotter, check_replay
    from .snapshot import Snapshot, load_environments, restore, save_environments, take
    from .trial import Trial, try_out

__all__ = [
    "Snapshot",
    "SnapshotError",
    "Snapshotter",
    "StateKeeper",
    "Trial",
    "check_replay",
    "configuration_of",
    "load_environments",
    "restore",
    "save_environments",
    "take",
    "try_out",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_on_first_use(
        __name__,
        {
            "configuration": "configuration_of",
            "keeper": "StateKeeper",
            "nodes": "SnapshotError",
            "replay": "Snapshotter check_replay",
            "snapshot": "Snapshot load_environments restore save_environments take",
            "trial": "Trial try_out",
        },
    )
