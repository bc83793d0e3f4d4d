"""What a pool asks of its workers, whatever carries their messages: pipes, or Ray's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy.typing as npt

from ...envs import EnvironmentFailure
from .memory import BlockShape

Array: TypeAlias = npt.NDArray[Any]


_ERRORS: dict[str, type[Exception]] = {
    "EnvironmentFailure": EnvironmentFailure,
    "ValueError": ValueError,
    "TypeError": TypeError,
    "ImportError": ImportError,
    "MemoryError": MemoryError,
    "RuntimeError": RuntimeError,
}

ROW = object()
"""The answer of a worker that waits after a row of its rollout."""


class Lost(Exception):
    """A worker ended, or does not move."""


class WorkerLost(EnvironmentFailure):
    """What the parent is told of a worker that is `Lost`."""


class WorkerTraceback(Exception):
    """Where the error came up, inside the worker: the cause of the exception in the parent."""

    def __str__(self) -> str:
        return "\n" + super().__str__()


def raise_error(kind: str, sentence: str, trace: str) -> NoReturn:
    """Raise in the parent what a worker has raised.

    Parameters
    ----------
    kind
        One of `commands.ERROR_KINDS`, or "RuntimeError".
    sentence
        Of the error.
    trace
        Where it came up, as text.
    """
    raise _ERRORS[kind](sentence) from WorkerTraceback(trace)


class Block(Protocol):
    """The arrays that a worker and its parent exchange, as the parent sees them.

    Attributes
    ----------
    shape
        What the sizes follow from.
    lasting
        Arrays by name that stay from one rollout to the next, see `BlockShape.lasting`: those of
        `RunState` at least.
    arrays
        Arrays of the latest rollout by name, see `BlockShape.rollout`.
    """

    shape: BlockShape
    lasting: dict[str, Array]
    arrays: dict[str, Array]

    def reserve(self, n_steps: int) -> None:
        """Make room for a rollout of T = ``n_steps``.

        Parameters
        ----------
        n_steps
            T, at least 1.
        """

    def follow(self) -> None:
        """Take `arrays` from where the worker has put them."""

    def place(self, first_index: int, name: str) -> str:
        """Name the environment and the step that a rollout stands at, as far as is known here.

        Parameters
        ----------
        first_index
            Index of the worker's first environment.
        name
            Of the environments.
        """


class Worker(Protocol):
    """A worker as its pool sees it.

    Attributes
    ----------
    index
        Number of the worker.
    group
        Indices of its environments.
    command
        The last command and its arguments.
    block
        What both exchange; missing before `bind`.
    """

    index: int
    group: slice
    command: tuple[Any, ...]
    block: Any

    @property
    def pid(self) -> int:
        """Process id, on whichever machine."""

    def send(self, *command: Any) -> None:
        """Give a command; its answer comes with `receive`.

        Parameters
        ----------
        *command
            Its name, and its arguments, which can be pickled.
        """

    def bind(self, facts: dict[str, Any], shape: BlockShape, seed: int) -> None:
        """Give it a twin of the policy, and make the block; the answer comes with `receive`.

        Parameters
        ----------
        facts
            What the policy is made of.
        shape
            Of the block.
        seed
            Of the run.
        """

    def take_policy(self, published: Any) -> None:
        """Let the next rollout act by these parameters.

        Parameters
        ----------
        published
            What `Transport.publish` returned.
        """

    def go_on(self) -> None:
        """Let it go on after a row."""

    def receive(self, where: Callable[[], str]) -> Any:
        """The answer to the last command, or `ROW`; it must be there.

        Parameters
        ----------
        where
            Names the worker and what it is doing.

        Raises
        ------
        Lost
            The worker is gone.
        Exception
            What the worker raised.
        """

    def look(self, where: Callable[[], str]) -> None:
        """Raise `Lost` if the worker ended, or has not moved for too long.

        Parameters
        ----------
        where
            Names the worker and what it is doing.
        """

    def ask_to_end(self) -> None:
        """Have the environments closed, at once where the worker is idle."""

    def end(self, deadline: float) -> None:
        """Wait until `deadline`, then kill; nothing is left afterwards.

        Parameters
        ----------
        deadline
            In seconds, as of `time.monotonic`.
        """

    def kill(self) -> None:
        """End it at once, whatever it is doing; nothing is left afterwards."""


class Transport(Protocol):
    """Starts workers, and waits for their answers.

    Attributes
    ----------
    patience
        Seconds for which a worker that is lost while it starts is started again and again; 0: it is
        not.
    """

    patience: float

    def launch(self, index: int, group: slice) -> Worker:
        """Start a worker.

        Parameters
        ----------
        index
            Number of the worker.
        group
            Indices of its environments.
        """

    def ready(self, workers: Sequence[Any], timeout: float) -> set[int]:
        """Wait for answers; the indices, within ``workers``, of those that have one.

        Parameters
        ----------
        workers
            Those that were given a command.
        timeout
            Seconds after which none may be ready.
        """

    def publish(self, policy: Any) -> Any:
        """Put the numbers of a policy where every worker can take them, once for all of them.

        Parameters
        ----------
        policy
            A `PortablePolicy`.
        """

    def check(self, opened: Sequence[Mapping[str, Any]]) -> None:
        """Raise where workers cannot compute alike.

        Parameters
        ----------
        opened
            What `Commands.open` returned in each of them.
        """
