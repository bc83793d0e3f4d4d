"""Bytes that the reader of a simulator is to parse, tried in a process that may die of them.

A checkpoint's checksum tells damage from health, not friend from enemy: whoever forges a file signs
it, too. What NumPy reads is checked number by number, and MuJoCo's states are numbers of a known
count. The Arcade Learning Environment reads bytes of a format of its own and does not defend itself,
so a child process restores them and plays on first; only what it survives is read in this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .nodes import (
    ALENode,
    ContainerNode,
    Node,
    ObjectNode,
    SnapshotError,
    attributes_of,
    is_a,
)

# For a child to start and to play some frames: of a processor, which a busy machine does not
# lengthen, and by the clock, in case the child waits for something that never comes.
_PROCESSOR_SECONDS, _CLOCK_SECONDS = 30, 600.0

_CHILD = """
import sys
import ale_py
from ale_py import roms
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
except (ImportError, OSError, ValueError):
    pass
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
ale = ale_py.ALEInterface()
ale.loadROM(roms.get_rom_path(sys.argv[1]))
while length := sys.stdin.buffer.read(8):
    state = ale_py.ALEState(sys.stdin.buffer.read(int.from_bytes(length, "little")))
    ale.restoreState(state)
    for _ in range(60):
        ale.act(ale_py.Action.NOOP)
print("alive", flush=True)
"""


def refuse_deadly_states(nodes: Sequence[Node], environments: Sequence[Any]) -> None:
    """Raise SnapshotError unless a child process survives the Atari states of some snapshots.

    Parameters
    ----------
    nodes
        What was read from a file, one snapshot an environment.
    environments
        The environments that they are for; they say which game it is.
    """
    states = [node.state for root in nodes for node in _ale_nodes(root)]
    if not states:
        return
    games = {game for env in environments for game in [_game_of(env)] if game}
    if len(games) != 1 or not sys.executable:
        raise SnapshotError("the game of the saved Atari state is not known")
    given = b"".join(len(state).to_bytes(8, "little") + state for state in states)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, games.pop(), str(_PROCESSOR_SECONDS)],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_CLOCK_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        alive = done.returncode == 0 and b"alive" in done.stdout.splitlines()[-1:]
    except (OSError, subprocess.TimeoutExpired):
        alive = False
    if not alive:
        raise SnapshotError(
            "ALE cannot read the saved state (was it taken from another game or version of ale-py?)"
        )


def _ale_nodes(node: Node) -> Iterator[ALENode]:
    if isinstance(node, ALENode):
        yield node
    children: Sequence[Node] = ()
    if isinstance(node, ContainerNode):
        children = node.items
    elif isinstance(node, ObjectNode):
        children = list(node.attributes.values())
    for child in children:
        yield from _ale_nodes(child)


def _game_of(env: Any) -> str | None:
    for _ in range(100):
        attributes = attributes_of(env)
        if is_a(env, "ale_py", "AtariEnv"):
            game = attributes.get("_game")
            return game if type(game) is str else None
        env = attributes.get("env")
        if env is None:
            return None
    return None
