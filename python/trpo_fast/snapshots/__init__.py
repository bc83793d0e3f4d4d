"""Saving and restoring the whole state of an environment, bit for bit.

One protocol for every environment: `take(env)` gives a `Snapshot`, `restore(env, snapshot)` puts
it back. Steps after a restore are bitwise those of the original, random numbers included. Vine
sampling restarts an environment from a state many times this way; exact resume carries the state in
a checkpoint.

How it works
------------
An environment is a graph of Python objects: wrappers, the environment itself, what it holds.
`take` walks it and copies every value that can change: numbers, strings, arrays, containers, the
attributes of Python objects, NumPy and Python random generators. Simulators written in another
language have a state of their own and a handler each:

* MuJoCo: the integration state (`mj_getState`), and the computed float arrays of `mjData`, because
  environments read body positions that were computed one substep before the state;
* the Arcade Learning Environment: its state clone with the random generator, and the last action,
  which the clone leaves out although sticky actions repeat it (see `_sticky_action`).

What cannot change is left alone: functions, classes, specs, models, windows. Anything else (a Box2D
world, a socket) cannot be walked; then `copy.deepcopy` of the whole environment is the second way.

No way is trusted before `check_replay` has seen it replay. The check cannot see state that its
steps never touch; state outside the object (a module's variable, a server) is not saved.

`Snapshot.to_arrays` gives arrays and plain JSON values, without pickle. Reading them back makes no
object of any class and runs no code: values are written into an environment that was made the same
way. ALE's bytes are read by ALE, which does not defend itself against forged ones: restore Atari
states from files that you trust.
"""

from __future__ import annotations

from .nodes import SnapshotError
from .snapshot import (
    Snapshot,
    Snapshotter,
    check_replay,
    load_environments,
    restore,
    save_environments,
    take,
    why_not_storable,
)

__all__ = [
    "Snapshot",
    "SnapshotError",
    "Snapshotter",
    "check_replay",
    "load_environments",
    "restore",
    "save_environments",
    "take",
    "why_not_storable",
]
