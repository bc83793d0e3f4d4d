"""Actors that hold parts of a batch, one a node, and what an update asks of them.

A holder is an actor without a core of its own: it works while the actors that step environments wait.
What it returns is added up over its rows already, as far as the fixed tree of the core allows, so a
node answers with one vector where the batch is cut into whole subtrees.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.parts import PartsLost
from ...words import end_of
from .actor import facts
from .connection import ClusterError, Connection

__all__ = ["Group", "HeldParts", "Holder", "Holders", "RayParts", "RowsLost"]

_LEVEL = "TRPO_FAST_SIMD_LEVEL"
_LARGE = 10_000  # bytes from which an argument is put into the object store, once for all holders


class RowsLost(ClusterError, PartsLost):
    """An actor that held rows is gone, or a node with all of them."""


class Holder:
    """The inside of an actor that holds parts of a batch.

    Parameters
    ----------
    n_threads
        Threads of the core in this process, at least 1.
    paths
        Where the parent looks for modules: what of it is on this node is looked through as well.
    """

    def __init__(self, n_threads: int, paths: Sequence[str] = ()) -> None:
        sys.path += [path for path in paths if path not in sys.path and os.path.isdir(path)]
        from ... import runtime

        runtime.set_num_threads(n_threads)
        self._parts: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """What must be alike on all nodes, and where this one is."""
        return facts()

    def make(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Make a part, in the place of what had its name.

        Parameters
        ----------
        name
            Of the part.
        function
            Makes it; it is given the other parts by name first.
        *arguments
            What else it is given.
        """
        self._parts.pop(name, None)
        self._parts[name] = function(self._parts, *arguments)

    def ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Call a method of a part.

        Parameters
        ----------
        name
            Of the part.
        method
            Of it.
        *arguments
            Of the method.
        """
        return getattr(self._parts[name], method)(*arguments)

    def call(
        self,
        actors: Sequence[Any],
        name: str,
        bounds: Sequence[int],
        function: Callable[..., Any],
        *arguments: Any,
    ) -> tuple[str, Any]:
        """Call a function with parts that other holders have.

        Parameters
        ----------
        actors
            Handles of those holders.
        name, bounds
            Of the parts, see `HeldParts`.
        function
            Called with the parts, and ``arguments``.
        *arguments
            What else it is given.

        Returns
        -------
        tuple
            ("result", what it returned), or ("lost", a sentence).
        """
        import ray

        try:
            parts = HeldParts(Group(ray, actors), name, bounds)
            return "result", function(parts, *arguments)
        except RowsLost as lost:
            return "lost", str(lost)

    def forget(self, name: str) -> None:
        """Drop a part.

        Parameters
        ----------
        name
            Of the part; one that there is not is no error.
        """
        self._parts.pop(name, None)

    def peak_bytes(self) -> int:
        """The most memory that this process has had so far, bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Group:
    """Holders, to be asked together.

    Parameters
    ----------
    ray
        The module.
    actors
        Handles of them, in the order of their parts.
    """

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self._ray = ray
        self.actors = list(actors)

    def __len__(self) -> int:
        return len(self.actors)

    def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every holder, all at once; the answers in their order.

        Parameters
        ----------
        method
            Of `Holder`.
        *arguments
            The same for all.
        """
        return self.ask_first(len(self), method, *arguments)

    def ask_first(self, n: int, method: str, *arguments: Any) -> list[Any]:
        """Call a method of the first n holders, all at once; the answers in their order.

        Parameters
        ----------
        n
            How many.
        method
            Of `Holder`.
        *arguments
            The same for all; large arrays go into the object store once.
        """
        shared = [self._stored(argument) for argument in arguments]
        return self._answers([getattr(a, method).remote(*shared) for a in self._first(n)])

    def ask_each(self, method: str, arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """Call a method of the first holders, all at once, each with arguments of its own.

        Parameters
        ----------
        method
            Of `Holder`.
        arguments
            A sequence of arguments for each of them.
        """
        asked = self._first(len(arguments))
        pairs = zip(asked, arguments, strict=True)
        return self._answers([getattr(a, method).remote(*given) for a, given in pairs])

    def ask_one(self, holder: int, method: str, *arguments: Any) -> Any:
        """Call a method of one holder.

        Parameters
        ----------
        holder
            Its number, from 0.
        method
            Of `Holder`.
        *arguments
            Of it.
        """
        actor = self._first(holder + 1)[holder]
        return self._answers([getattr(actor, method).remote(*arguments)])[0]

    def _first(self, n: int) -> list[Any]:
        asked = self.actors[:n]
        if len(asked) < n:
            raise RowsLost("distribute_update: the processes that held the batch have been ended")
        return asked

    def _stored(self, argument: Any) -> Any:
        is_large = isinstance(argument, np.ndarray) and argument.nbytes >= _LARGE
        return self._ray.put(argument) if is_large else argument

    def _answers(self, references: Sequence[Any]) -> list[Any]:
        errors = self._ray.exceptions
        lost = (
            errors.RayActorError,
            errors.ObjectLostError,
            errors.NodeDiedError,
            errors.ActorUnschedulableError,  # its node was taken to be alive
        )
        try:
            return [self._ray.get(reference) for reference in references]
        except lost as error:
            raise RowsLost(
                "distribute_update: rows of the batch are lost with their actor or node "
                f"({type(error).__name__}: {end_of(str(error))}); resume from the last checkpoint"
            ) from error


class Holders(Group):
    """One `Holder` on every node that has cores.

    Parameters
    ----------
    connection
        With the cluster.
    n_holders
        The most of them; None: one on every node.

    Attributes
    ----------
    actors
        Those that run now, in their order.

    Raises
    ------
    ClusterError
        A node that cannot start one, or would compute other bits than this machine.
    """

    def __init__(self, connection: Connection, n_holders: int | None = None) -> None:
        self._connection = connection
        # in a fixed order: which node holds which rows changes no bit, but where they travel
        nodes = sorted(connection.nodes(), key=lambda node: str(node["NodeID"]))
        nodes = [node for node in nodes if node["Resources"].get("CPU", 0) >= 1] or nodes
        self._nodes = nodes[:n_holders]
        self._beside: Any = None
        super().__init__(connection.ray, ())
        self.actors = [self._started_on(node) for node in self._nodes]
        try:
            self._refuse_others(self.ask_all("facts"))
        except BaseException:
            self.close()
            raise

    def _started_on(self, node: Mapping[str, Any]) -> Any:
        made = self._ray.remote(Holder).options(num_cpus=0, **_placed_on(node))
        return made.remote(max(1, int(node["Resources"].get("CPU", 1))), sys.path)

    def call_beside(
        self, name: str, bounds: Sequence[int], function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Call a function with parts in a process on one of their nodes, which is started for it.

        Parameters
        ----------
        name, bounds, function, *arguments
            See `Holder.call`.
        """
        actors = self._first(len(bounds) - 1)
        if self._beside is None:
            self._beside = self._started_on(self._nodes[-1])
        asked = self._beside.call.remote(actors, name, bounds, function, *arguments)
        kind, content = self._answers([asked])[0]
        if kind == "lost":
            raise RowsLost(content)
        return content

    def peak_bytes_beside(self) -> int:
        """The most memory that the process of `call_beside` has had so far, bytes; 0 without one."""
        if self._beside is None:
            return 0
        return int(self._answers([self._beside.peak_bytes.remote()])[0])

    def _refuse_others(self, found: Sequence[Mapping[str, Any]]) -> None:
        here = facts()
        for name in ("version", "level"):
            others = sorted({f"{f[name]} on {f['node']}" for f in found if f[name] != here[name]})
            if others:
                raise ClusterError(
                    f"cluster: expected the {name} {here[name]} of this machine on every node that "
                    f"holds a part of the batch, got {', '.join(others)[:300]}; install one version, "
                    f"and set {_LEVEL} here to the lowest level"
                )

    def close(self) -> None:
        """End all of them; a second call does nothing."""
        beside = [] if self._beside is None else [self._beside]
        for actor in (*self.actors, *beside):
            with contextlib.suppress(Exception):  # it is gone already
                if self._connection.is_alive:
                    self._ray.kill(actor)
        self.actors, self._beside = [], None


class HeldParts:
    """Parts of a batch that are held on nodes of a cluster, see :class:`trpo_fast.core.parts.Parts`.

    Parameters
    ----------
    holders
        Where they are.
    name
        What the holders call them.
    bounds
        The first row of each part, ascending from 0, and N; there may be fewer parts than holders.
    """

    def __init__(self, holders: Group, name: str, bounds: Sequence[int]) -> None:
        self.bounds: Sequence[int] = list(bounds)
        self._holders, self._name = holders, name

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of every part, all at once.

        Parameters
        ----------
        name
            Of the method.
        *arguments
            The same for all.
        """
        with self._named():
            n = len(self.bounds) - 1
            return self._holders.ask_first(n, "ask", self._name, name, *arguments)

    def ask_one(self, part: int, name: str, *arguments: Any) -> Any:
        """Call a method of one part.

        Parameters
        ----------
        part
            Its number, from 0.
        name
            Of the method.
        *arguments
            Of it.
        """
        with self._named():
            return self._holders.ask_one(part, "ask", self._name, name, *arguments)

    def ask_each(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every part, all at once, each with its argument.

        Parameters
        ----------
        name
            Of the method.
        arguments
            One for each part.
        """
        with self._named():
            asked = [(self._name, name, argument) for argument in arguments]
            return self._holders.ask_each("ask", asked)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """A loss says whose rows are lost."""
        try:
            yield
        except RowsLost as lost:
            lost.parts = self
            raise


class RayParts(HeldParts):
    """Parts that are held on nodes of a cluster, beside which a process can run.

    Parameters
    ----------
    holders
        Where they are.
    name, bounds
        See `HeldParts`.
    """

    def __init__(self, holders: Holders, name: str, bounds: Sequence[int]) -> None:
        super().__init__(holders, name, bounds)
        self._all = holders

    def call_beside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a process on one of the nodes.

        Parameters
        ----------
        function
            Called with parts that ask the same holders, and ``arguments``.
        *arguments
            Of it.
        """
        with self._named():
            return self._all.call_beside(self._name, self.bounds, function, *arguments)


def _placed_on(node: Mapping[str, Any]) -> dict[str, Any]:
    """Options that bind an actor to a node."""
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    with contextlib.suppress(ImportError):  # a stand-in for Ray has one node
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    if forced := os.environ.get(_LEVEL):  # a level that is forced here is forced there
        options["runtime_env"] = {"env_vars": {_LEVEL: forced}}
    return options
