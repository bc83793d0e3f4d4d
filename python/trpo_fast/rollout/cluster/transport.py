"""Ray actors as the workers of a pool."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ...words import end_of
from ..workers.memory import BlockShape, PolicyNumbers
from ..workers.transport import Lost, WorkerTraceback, raise_error
from .actor import RolloutActor, facts
from .beginning import Beginning
from .block import CallBlock, packed, unpacked, with_empty_rows
from .connection import ClusterError, Connection

Array = npt.NDArray[Any]

_PLACE_SECONDS = 15.0  # after which an actor that finds no core shares one
_LEVEL = "TRPO_FAST_SIMD_LEVEL"


class WorkerActor:
    """An actor as its pool sees it, see `Worker`.

    Parameters
    ----------
    transport
        What started it.
    index
        Number of the worker.
    group
        Indices of its environments.

    Attributes
    ----------
    node
        Name of the node that it is on; empty before it has answered once.
    shares_a_core
        Whether no core was free for it.
    states
        Those of the environments after the latest rollout, or why there are none.
    holds
        Where the rollout began whose rows have stayed there; None: there are none.
    """

    block: CallBlock

    def __init__(self, transport: Actors, index: int, group: slice) -> None:
        self.index, self.group = index, group
        self.command: tuple[Any, ...] = ("start",)
        self.node = ""
        self.shares_a_core = False
        self.states: list[dict[str, Array]] | str = ""
        self.holds: Beginning | None = None
        self._transport, self._ray = transport, transport.connection.ray
        self._published: Any = None
        self._answer: Any = None  # reference of what comes back
        self._start(n_cores=1)
        self._asked = time.monotonic()
        self._pid = 0

    @property
    def pid(self) -> int:
        """Process id, on its node; 0 before it has answered once."""
        return self._pid

    @property
    def answer(self) -> Any:
        """Reference of the answer to the last command."""
        return self._answer

    def send(self, *command: Any) -> None:
        """Give a command; its answer comes with `receive`.

        Parameters
        ----------
        *command
            Its name, and its arguments, which can be pickled.
        """
        self.command = command
        self._asked = time.monotonic()
        name, *arguments = command
        if name != "collect":
            self._answer = self._actor.do.remote(name, arguments)
            return
        self.holds = None
        # An actor that goes on knows where its environments are.
        begins = arguments[2] != ""
        request = (
            dict(self.block.lasting) if begins else None,
            self.block.n_rows,
            arguments,
            self._transport.saves_states,
            self._transport.keeps_rows,
        )
        self._answer = self._actor.collect.remote(self._published, pickle.dumps(request))

    def bind(self, facts: dict[str, Any], shape: BlockShape, seed: int) -> None:
        """Give it a twin of the policy; the answer comes with `receive`.

        Parameters
        ----------
        facts
            What the policy is made of.
        shape
            Of the block.
        seed
            Of the run.
        """
        self.block = CallBlock(shape)
        self.send("bind", facts, vars(shape), seed)

    def take_policy(self, published: Any) -> None:
        """Let the next rollout act by these parameters.

        Parameters
        ----------
        published
            What `Actors.publish` returned.
        """
        self._published = published

    def go_on(self) -> None:
        """An actor never waits after a row."""
        raise NotImplementedError

    def receive(self, where: Callable[[], str]) -> Any:
        """The answer to the last command; it must be there.

        Parameters
        ----------
        where
            Names the worker and what it is doing.

        Raises
        ------
        Lost
            The actor is gone, or its environments hang.
        Exception
            What the actor raised.
        """
        kind, *content = self._fetched(where)
        if kind == "lost":
            raise Lost(content[0]) from WorkerTraceback(content[1])
        is_rollout = self.command[0] == "collect"
        if kind == "error":
            if is_rollout:
                content[1] = f"worker {self.index} on node {self.node}: {content[1]}"
                self.block.lasting["counters"][:] = content.pop()
            elif self.command[0] == "open":
                content[1] = f"worker {self.index}: {content[1]}"
            raise_error(*content)
        if is_rollout:
            told, arrays, own, self.states = content
            keeps = self._transport.keeps_rows
            dtype = self.block.shape.dtype
            self.block.arrays = with_empty_rows(arrays, dtype) if keeps else arrays
            for name, values in own.items():
                self.block.lasting[name][:] = values
            return told
        if self.command[0] == "open" and content[0] is not None:
            self.node, self._pid = content[0]["node"], content[0]["pid"]
        return content[0]

    def _fetched(self, where: Callable[[], str]) -> Any:
        errors = self._ray.exceptions
        try:
            return unpacked(self._ray.get(self._answer))
        except errors.RuntimeEnvSetupError as error:
            raise ClusterError(
                f"runtime_env: a node could not make it: {end_of(str(error))}; mend it, or install there "
                "what is needed"
            ) from error
        except (errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError) as error:
            if getattr(error, "actor_init_failed", False) or "ModuleNotFound" in str(error):
                raise ClusterError(sentence_of_a_start(str(error))) from error
            node = f" on node {self.node}" if self.node else ""
            raise Lost(
                f"{where()}: the actor{node} is gone ({type(error).__name__}); its log under the "
                "node's Ray folder may say why"
            ) from error
        except errors.RayError as error:
            if "ObjectStoreFull" in str(error) or "OutOfDisk" in str(error):
                raise ClusterError(
                    f"cluster: the object store of node {self.node} is too small for a part of the "
                    "rollout; start Ray there with a larger --object-store-memory, or take a smaller "
                    "batch_size or more actors"
                ) from error
            raise ClusterError(f"cluster: {where()} failed: {end_of(str(error))}") from error

    def look(self, where: Callable[[], str]) -> None:
        """Let an actor that finds no core share one; raise `Lost` if it does not start at all.

        Parameters
        ----------
        where
            Names the worker and what it is doing.
        """
        if self.command[0] != "open":
            return  # the actor itself looks whether its environments move
        waited = time.monotonic() - self._asked
        if waited > self._transport.timeout:
            raise Lost(
                f"{where()}: the actor did not start within {self._transport.timeout:g} seconds; "
                "see `ray status`, or raise worker_timeout if starting takes so long"
            )
        if waited > _PLACE_SECONDS and self._transport.may_share and not self.shares_a_core:
            placed, _ = self._ray.wait([self._ping], timeout=0)
            if not placed and self._transport.connection.free_cores() < 1:
                self._share_a_core()

    def _share_a_core(self) -> None:
        """Start the actor where there is room, though no core is free for it alone."""
        asked = self._asked
        self.kill()
        self.shares_a_core = True
        self._start(n_cores=0)
        self.send(*self.command)
        self._asked = asked

    def _start(self, *, n_cores: int) -> None:
        self._actor = self._transport.make(self, n_cores=n_cores)
        self._ping = self._actor.ping.remote()

    def rows(self, n: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """References of n objects made of the rollout whose rows have stayed there.

        Parameters
        ----------
        n
            How many.
        function, *arguments
            See `RolloutActor.rows`.
        """
        made = self._actor.rows.options(num_returns=n).remote(function, *arguments)
        return [made] if n == 1 else list(made)

    def ask_to_end(self) -> None:
        """Have the environments closed, once it has answered."""
        with contextlib.suppress(Exception):  # it is gone, or the cluster is
            if self._transport.connection.is_alive:
                self._answer = self._actor.close.remote()

    def end(self, deadline: float) -> None:
        """Wait until `deadline`, then kill; nothing is left afterwards.

        Parameters
        ----------
        deadline
            In seconds, as of `time.monotonic`.
        """
        with contextlib.suppress(Exception):
            if self._transport.connection.is_alive:
                seconds = max(0.0, deadline - time.monotonic())
                self._ray.wait([self._answer], timeout=seconds)
        self.kill()

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._answer = self._published = None
        with contextlib.suppress(Exception):  # it is gone already
            if self._transport.connection.is_alive:
                self._ray.kill(self._actor)


class Actors:
    """Starts actors of one core each, spread over the nodes, and waits for them, see `Transport`.

    Parameters
    ----------
    connection
        With the cluster.
    timeout
        Seconds without a step after which an actor's environments are taken to hang; may be infinite.

    Attributes
    ----------
    saves_states
        Whether every rollout brings the states of the environments along.
    keeps_rows
        Whether the rows of every rollout stay with the actors.
    may_share
        Whether an actor that finds no free core may share one.
    """

    patience = 60.0

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection, self.timeout = connection, timeout
        self.saves_states = self.keeps_rows = False
        self.may_share = False
        # A level that is forced here is forced there.
        forced = os.environ.get(_LEVEL)
        self._options: dict[str, Any] = {
            "scheduling_strategy": "SPREAD",
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if forced:
            self._options["runtime_env"] = {"env_vars": {_LEVEL: forced}}
        self._class = connection.ray.remote(RolloutActor)

    def make(self, worker: WorkerActor, *, n_cores: int) -> Any:
        """Start the actor of a worker.

        Parameters
        ----------
        worker
            Whose.
        n_cores
            Cores to ask for, 0 or 1.
        """
        made = self._class.options(num_cpus=n_cores, **self._options)
        return made.remote(worker.index, worker.group.start, self.timeout, sys.path)

    def launch(self, index: int, group: slice) -> WorkerActor:
        """Start a worker, see `Transport.launch`.

        Parameters
        ----------
        index
            Number of the worker.
        group
            Indices of its environments.
        """
        return WorkerActor(self, index, group)

    def ready(self, workers: Sequence[WorkerActor], timeout: float) -> set[int]:
        """Wait for answers, see `Transport.ready`.

        Parameters
        ----------
        workers
            Those that were given a command.
        timeout
            Seconds after which none may be ready.
        """
        answers = [worker.answer for worker in workers]
        # Half of them are read while the others still come.
        some = (len(answers) + 1) // 2
        self.connection.ray.wait(answers, num_returns=some, timeout=timeout)
        ready, _ = self.connection.ray.wait(answers, num_returns=len(answers), timeout=0)
        came = set(ready)
        return {i for i, answer in enumerate(answers) if answer in came}

    def publish(self, policy: Any) -> Any:
        """Make the numbers of a policy ready to be sent: pickled, or large ones in the object store.

        Parameters
        ----------
        policy
            A `PortablePolicy`.

        Returns
        -------
        bytes or object
            For `RolloutActor.collect`: the bytes, or a reference.
        """
        numbers = PolicyNumbers.of(policy)
        ready = packed(numbers, vars(numbers).values())
        return ready if isinstance(ready, bytes) else self.connection.ray.put(numbers)

    def check(self, opened: Sequence[Mapping[str, Any]]) -> None:
        """Raise where a node would compute other bits than this machine, or has another package.

        Parameters
        ----------
        opened
            What every actor told when it was opened.

        Raises
        ------
        ClusterError
            Nodes of another instruction-set level or version.
        """
        here = facts()
        for name, what, remedy in (
            (
                "version",
                "trpo_fast",
                "install one version on every node, or name it in runtime_env",
            ),
            (
                "level",
                "the instruction-set level",
                f"set {_LEVEL} here to the lowest of them: it goes to the nodes, and all results have "
                "the same bits again",
            ),
        ):
            others = sorted(
                {f"{one[name]} on {one['node']}" for one in opened if one[name] != here[name]}
            )
            if others:
                raise ClusterError(
                    f"cluster: expected {what} {here[name]} of this machine on every node, got "
                    f"{', '.join(others)[:300]}; {remedy}"
                )


def sentence_of_a_start(said: str) -> str:
    """Say why an actor could not be started.

    Parameters
    ----------
    said
        What Ray says about it.
    """
    return (
        f"cluster: a node cannot start a worker: {end_of(said)}; install trpo_fast and what the "
        "environments need on every node, or name them in runtime_env"
    )
