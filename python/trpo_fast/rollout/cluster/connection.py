"""A connection with a Ray cluster: made within seconds, or refused in one sentence."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...extras import import_extra
from ...words import end_of, words_of
from ..cores import available_cores

_REACH_SECONDS = 5.0  # for the head to answer
_FREE_SECONDS = 10.0  # for cores that another agent has just left to be counted as free
_LOOK_SECONDS = 0.25


class ClusterError(RuntimeError):
    """A cluster that cannot be used; the sentence says why, and what to do."""


class Connection:
    """This process's connection with a cluster.

    A process has one, which its agents share. Who is connected already, by ``ray.init``, stays so,
    and is not disconnected; otherwise the last one that closes disconnects.

    Parameters
    ----------
    cluster
        "local": a cluster of this machine, started now; "auto": the one that this machine belongs to
        (or that RAY_ADDRESS names); "HOST:PORT" or "ray://HOST:PORT": that of this head.
    runtime_env
        What Ray brings to the nodes, see `read_runtime_env`; None brings nothing.

    Attributes
    ----------
    ray
        The module.

    Raises
    ------
    ClusterError
        There is no such cluster.
    MissingExtraError
        (an ``ImportError``) Ray is not installed.
    """

    _lock = threading.Lock()
    _users = 0  # connections that are open, where the process was connected by the first of them
    _cluster = ""  # what that one was asked for

    def __init__(self, cluster: str, runtime_env: str | None = None) -> None:
        self.ray = import_extra("ray", what="cluster", extra="ray")
        brought = read_runtime_env(runtime_env)
        with self._lock:
            self._is_ours = not self.ray.is_initialized() or Connection._users > 0
            if not self.ray.is_initialized():
                _connect(self.ray, cluster, brought)
            elif brought is not None and Connection._users == 0:
                raise ClusterError(
                    "runtime_env: this process is connected to Ray already, whose environment cannot "
                    "change any more; pass it to ray.init, or leave ray.init to the agent"
                )
            elif Connection._users > 0 and cluster != Connection._cluster:
                raise ClusterError(
                    f"cluster: expected {Connection._cluster!r}, which this process is connected to, "
                    f"got {cluster!r}; close the other agents first, or use another process"
                )
            if self._is_ours:
                Connection._users += 1
                Connection._cluster = cluster
        self._is_open = True
        self._store_bytes: int | None = None  # that of a node never changes

    def close(self) -> None:
        """Disconnect, if nobody else is connected through this process; a second call does nothing."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            if was_open and self._is_ours:
                Connection._users -= 1
                if Connection._users == 0:
                    self.ray.shutdown()

    @property
    def is_alive(self) -> bool:
        """Whether this process is connected still."""
        return bool(self._is_open and self.ray.is_initialized())

    # ---- what there is

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as Ray describes them."""
        return [node for node in self.ray.nodes() if node.get("Alive", node.get("alive"))]

    def cores(self) -> int:
        """Cores of all nodes, whether they are free or not."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def free_cores(self) -> int:
        """Cores that nobody has asked for."""
        return int(self.ray.available_resources().get("CPU", 0))

    def require_cores(self, wanted: int | None, *, at_most: int, name: str) -> int:
        """Return how many actors of one core each there can be, or raise where they are too few.

        Parameters
        ----------
        wanted
            How many; None takes all that are free.
        at_most
            More than these have nothing to do.
        name
            Of the setting, for the sentence.

        Raises
        ------
        ClusterError
            There are fewer cores, or fewer free ones.
        """
        needed = min(wanted or 1, at_most)
        deadline = time.monotonic() + _FREE_SECONDS
        while (free := self.free_cores()) < needed and time.monotonic() < deadline:
            if self.cores() < needed:
                break
            time.sleep(_LOOK_SECONDS)
        if free < needed:
            cores, n_nodes = self.cores(), len(self.nodes())
            where = f"on {n_nodes} node{'s' * (n_nodes != 1)}"
            in_use = f", {cores - free} of which are in use" if cores >= needed else ""
            raise ClusterError(
                f"{name}: expected {needed} free cores, one for each actor, got {cores} {where}"
                f"{in_use}; ask for fewer, or let nodes join with `ray start --address`"
            )
        return min(wanted or free, at_most)

    def store_bytes_here(self) -> int:
        """Bytes of the object store that this process reads from; 0 where that is not known."""
        if self._store_bytes is None:
            own = self.ray.get_runtime_context().get_node_id()
            here = [node for node in self.nodes() if node.get("NodeID") == own]
            found = here[0]["Resources"].get("object_store_memory", 0) if here else 0
            self._store_bytes = int(found)
        return self._store_bytes


def read_runtime_env(text: str | None) -> dict[str, Any] | None:
    """Read what Ray is to bring to the nodes: packages, files, variables.

    Parameters
    ----------
    text
        A JSON object, or the name of a YAML or JSON file that holds one, see Ray's "runtime
        environments"; None reads nothing.

    Raises
    ------
    ClusterError
        It is neither.
    """
    if text is None:
        return None
    import yaml

    try:
        given = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        value = yaml.safe_load(given)
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(
            f"runtime_env: expected a JSON object or a YAML file, got {text!r:.80}: {words_of(error)}"
        ) from None
    if not isinstance(value, Mapping):
        raise ClusterError(
            f'runtime_env: expected a mapping such as {{"working_dir": "."}}, got '
            f"{json.dumps(value)[:80]}; see Ray's runtime environments"
        )
    return dict(value)


def _connect(ray: Any, cluster: str, runtime_env: dict[str, Any] | None) -> None:
    settings: dict[str, Any] = {"logging_level": logging.WARNING, "runtime_env": runtime_env}
    address = cluster
    if cluster == "local":
        settings |= {"num_cpus": available_cores(), "include_dashboard": False}
    elif cluster == "auto":
        address = os.environ.get("RAY_ADDRESS") or _noted_address()
    if address != "local":
        _reach(address)
    try:
        ray.init(address=address, **settings)
    except Exception as error:
        # of a traceback that comes from a node, the end says what is wrong
        said = f"{type(error).__name__}: {end_of(str(error))}"
        remedy = ""
        if runtime_env is not None and "runtime_env" in str(error):
            remedy = "; mend runtime_env, or install on the nodes what it names"
        elif isinstance(error, ConnectionError):
            remedy = (
                "; if the cluster has tokens, set RAY_AUTH_MODE=token here, and have its token "
                "(`ray get-auth-token`)"
            )
        raise ClusterError(f"cluster: {cluster!r} cannot be joined: {said}{remedy}") from error


def _noted_address() -> str:
    """Where the cluster that this machine belongs to has its head, as ``ray start`` notes it.

    ``ray.init(address="auto")`` reads the same file; but where the head is gone, it tries for minutes.
    """
    folder = os.environ.get("RAY_TMPDIR") or "/tmp"
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        raise ClusterError(
            "cluster: expected a Ray cluster that this machine belongs to, got none; start one with "
            "`ray start --head`, or pass cluster='local' for this machine alone"
        ) from None


def _reach(address: str) -> None:
    """Raise ClusterError where nothing listens at an address: Ray would try for a minute."""
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(
            f"cluster: expected 'local', 'auto', 'HOST:PORT' or 'ray://HOST:PORT', got {address!r:.80}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        kind = "ray-client-server-port" if address.startswith("ray://") else "port"
        raise ClusterError(
            f"cluster: nothing answers at {place} ({error}); is a head running there (`ray start --head "
            f"--{kind}={port}`), "
            "and does a firewall let this machine in?"
        ) from None
