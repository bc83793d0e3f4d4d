"""Parts of a batch, wherever they are, and how all of them are asked: see `parts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["LocalParts", "Parts", "PartsElsewhere", "PartsLost"]


class Parts(Protocol):
    """The parts of a batch, in the order of their rows; each is a `PolicyPart`, wherever it is.

    Attributes
    ----------
    bounds
        The first row of each part, ascending from 0, and N.
    """

    bounds: Sequence[int]

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of every part, all at once where that is possible.

        Parameters
        ----------
        name
            Of the method.
        *arguments
            The same for all.

        Returns
        -------
        list
            What they return, in their order.
        """

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

    def ask_each(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every part, all at once where that is possible, each with its argument.

        Parameters
        ----------
        name
            Of the method.
        arguments
            One for each part.

        Returns
        -------
        list
            What they return, in their order.
        """


@runtime_checkable
class PartsElsewhere(Parts, Protocol):
    """Parts beside which a process runs, to which rows are nearer than to this one."""

    def call_beside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function there.

        Parameters
        ----------
        function
            Called with parts that ask the same holders, and ``arguments``.
        *arguments
            Of it.

        Returns
        -------
        Any
            What it returns.
        """


class PartsLost(RuntimeError):
    """Some of the parts are gone with the process that held them; whoever made them may do so again.

    Attributes
    ----------
    parts
        Of which some are gone; None where that is not known.
    retry
        Makes them, and what was asked of them, again, in the thread that has everything; None: nobody
        can.
    """

    parts: Parts | None = None
    retry: Callable[[], Any] | None = None


class LocalParts:
    """Parts in this process.

    Parameters
    ----------
    parts
        In the order of their rows; together they hold all of them.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.bounds = [*(part.first_row for part in parts), parts[0].whole_size]

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of every part, one after the other.

        Parameters
        ----------
        name
            Of the method.
        *arguments
            The same for all.
        """
        return [getattr(part, name)(*arguments) for part in self.parts]

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
        return getattr(self.parts[part], name)(*arguments)

    def ask_each(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every part, one after the other, each with its argument.

        Parameters
        ----------
        name
            Of the method.
        arguments
            One for each part.
        """
        pairs = zip(self.parts, arguments, strict=True)
        return [getattr(part, name)(argument) for part, argument in pairs]
