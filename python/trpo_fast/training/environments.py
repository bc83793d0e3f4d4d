"""The environments of an agent, for who changes them amid a run: curricula, other parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..rollout.changes import EnvironmentChange

if TYPE_CHECKING:
    from .agent import OnPolicyAgent

__all__ = ["Environments"]


class Environments:
    """Reaches every environment that an agent trains in, in worker processes too.

    >>> agent.environments.call("set_level", 3)
    >>> agent.environments.set_attr("gravity", 9.0, evaluation=True)

    Between two calls of ``learn`` or in a callback after an iteration, when none of them is being
    stepped. A name is looked for in the wrappers from the outside in, then in the environment.
    Environments that are made later, to replace one that crashed, get the latest call of each method
    and the latest value of each attribute.

    With ``evaluation=True`` the environments of evaluations and videos, which the agent makes for
    itself, get it too, as long as this agent lives; without it they stay as they are made.

    A checkpoint holds the environments with their attributes where their state can be stored, so a
    resumed run goes on as changed. Where it cannot, and for evaluations, the next record says what
    has to be called again: a file calls no method.

    Parameters
    ----------
    agent
        Whose environments they are.
    """

    def __init__(self, agent: OnPolicyAgent[Any]) -> None:
        self._agent = agent
        self._for_evaluation: dict[tuple[str, str], EnvironmentChange] = {}
        self._made: dict[tuple[str, str], EnvironmentChange] = {}
        self.version = 0
        """Grows with every change of the environments of evaluations."""
        self._told: dict[str, list[str]] = {"training": [], "evaluation": []}  # by a file

    def call(self, name: str, /, *args: Any, evaluation: bool = False, **kwargs: Any) -> list[Any]:
        """Call a method of every training environment.

        Parameters
        ----------
        name
            Of the method.
        *args
            Its arguments.
        evaluation
            Whether environments of evaluations are to get it too: when they are made.
        **kwargs
            Its arguments by name.

        Returns
        -------
        list
            What it returned in each training environment, in their order.

        Raises
        ------
        AttributeError
            No environment or wrapper has the method.
        RuntimeError
            A rollout is under way.
        """
        return self._do(EnvironmentChange("call", name, args, kwargs), evaluation)

    def set_attr(self, name: str, value: Any, *, evaluation: bool = False) -> None:
        """Set an attribute of every training environment, which has it already.

        Parameters
        ----------
        name
            Of the attribute.
        value
            Its new value.
        evaluation
            As in :meth:`call`.

        Raises
        ------
        AttributeError, RuntimeError
            As in :meth:`call`.
        """
        self._do(EnvironmentChange("set", name, (value,)), evaluation)

    def get_attr(self, name: str) -> list[Any]:
        """The attribute of every training environment, in their order.

        Parameters
        ----------
        name
            Of the attribute.

        Raises
        ------
        AttributeError, RuntimeError
            As in :meth:`call`.
        """
        return self._do(EnvironmentChange("get", name), False)

    def reset_options(self, options: Mapping[str, Any] | None, *, evaluation: bool = False) -> None:
        """Pass these as ``options`` to every reset from now on, those at ends of episodes too.

        They go into checkpoints as ``env_kwargs`` do.

        Parameters
        ----------
        options
            Of ``reset(options=...)``; None or nothing passes none.
        evaluation
            As in :meth:`call`.

        Raises
        ------
        NotImplementedError
            A vector environment, which resets its environments itself.
        """
        self._do(EnvironmentChange("reset", kwargs=dict(options or {})), evaluation)

    @property
    def for_evaluation(self) -> tuple[EnvironmentChange, ...]:
        """What the environments of evaluations get when they are made."""
        return tuple(self._for_evaluation.values())

    def _do(self, change: EnvironmentChange, evaluation: bool) -> list[Any]:
        sampler: Any = getattr(self._agent.sampler, "trunk", self._agent.sampler)
        results: list[Any] = sampler.change(change)
        if change.kind != "get":
            self._made[change.key] = change
        if evaluation:
            self._for_evaluation.pop(change.key, None)
            self._for_evaluation[change.key] = change
            self.version += 1
        return results

    # ---- files

    @property
    def options_of_resets(self) -> dict[str, Any]:
        """What every reset is passed as options."""
        change = self._made.get(("reset", ""))
        return {} if change is None else dict(change.kwargs)

    def described(self) -> dict[str, list[str]]:
        """What was done, as a checkpoint names it: of training, and for evaluations."""
        made = [str(c) for c in self._made.values() if c.kind != "reset"]
        done = {"training": made, "evaluation": [str(c) for c in self.for_evaluation]}
        return {
            which: [text for text in self._told[which] if not _repeated(text, made)] + texts
            for which, texts in done.items()
        }

    def take_over(self, described: Any, *, restarted: bool) -> str:
        """Remember changes that a checkpoint names; what to say of those that are not in place.

        Parameters
        ----------
        described
            What :meth:`described` returned, from a file.
        restarted
            Whether the training environments are as they were made.

        Returns
        -------
        str
            A sentence without a full stop, or an empty text.
        """
        names = described if isinstance(described, Mapping) else {}
        for which in self._told:
            texts = names.get(which)
            self._told[which] = [str(t)[:200] for t in texts] if isinstance(texts, list) else []
        said = [
            f"the {which} environments are without {', '.join(self._told[which]):.300}"
            for which, lost in (("training", restarted), ("evaluation", True))
            if lost and self._told[which]
        ]
        return f"{' and '.join(said)}: repeat it with agent.environments" if said else ""


def _repeated(text: str, made: list[str]) -> bool:
    """Whether what a file told was done again: the same method or attribute."""
    name = text.partition("(")[0].partition(" ")[0]
    return any(other.partition("(")[0].partition(" ")[0] == name for other in made)
