"""What may happen between the iterations of training: evaluations, checkpoints, an early stop.

A callback is a :class:`Callback`, or a plain function ``(agent, record) -> bool | None``. Each is
called in its turn after every iteration; any of them ends training by returning False. Callbacks
have a state that goes into JSON, so that a run that is resumed goes on where it was.

Of the agent, those below use ``timesteps`` (environment steps taken so far), ``config.seed``,
``save(path)``, and what `evaluate_policy` uses; nothing else.
"""

from __future__ import annotations

import math
import operator
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]


class Callback:
    """Base class; every method may be left as it is."""

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        """Training begins; it ends at ``total_timesteps`` environment steps.

        Parameters
        ----------
        agent
            The agent that trains.
        total_timesteps
            Environment steps at which training ends.
        """

    def on_step(self, agent: Any) -> None:
        """All environments were stepped once. Called only if it is overridden: it costs time.

        Parameters
        ----------
        agent
            The agent that trains.
        """

    def on_iteration(self, agent: Any, record: Record) -> bool | None:
        """Act on one iteration of sampling and update; False ends training after all callbacks.

        ``record`` holds the numbers of the iteration and goes to the loggers afterwards; entries
        may be added.

        Parameters
        ----------
        agent
            The agent that trains.
        record
            The numbers of an iteration by name: ``group/name`` keys, numbers and texts
            as values.
        """
        return None

    def on_logged(self, agent: Any) -> None:
        """The record of the iteration has reached the loggers: what is saved now has its row.

        Parameters
        ----------
        agent
            The agent that trains.
        """

    def on_end(self, agent: Any) -> None:
        """Training has ended, also if it was interrupted.

        Parameters
        ----------
        agent
            The agent that trains.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive an interruption, as values that JSON can hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned; called before :meth:`on_start`.

        Parameters
        ----------
        state
            What `state_dict` returned.
        """

    @property
    def wants_steps(self) -> bool:
        """Whether :meth:`on_step` is to be called."""
        return type(self).on_step is not Callback.on_step


CallbackLike: TypeAlias = Callback | Callable[[Any, Record], Any]


class FunctionCallback(Callback):
    """A plain function ``(agent, record) -> bool | None``, called after every iteration.

    Parameters
    ----------
    function
        From the agent and the record to False, to end training, or None.
    """

    def __init__(self, function: Callable[[Any, Record], Any]) -> None:
        self.function = function

    def on_iteration(self, agent: Any, record: Record) -> bool | None:
        """Call the function; anything false but None ends training."""
        answer = self.function(agent, record)
        return None if answer is None else bool(answer)


class CallbackList(Callback):
    """Several callbacks as one, called in their order.

    Parameters
    ----------
    callbacks
        None, one callback or function, or several of them.

    Raises
    ------
    TypeError
        if one of them is neither a callback nor a function.
    """

    def __init__(self, callbacks: CallbackLike | Iterable[CallbackLike] | None = None) -> None:
        if callbacks is None:
            callbacks = ()
        elif isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
            callbacks = (callbacks,)
        self.callbacks: list[Callback] = [_as_callback(callback) for callback in callbacks]
        self._steppers = [callback for callback in self.callbacks if callback.wants_steps]

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        """Forward to every callback."""
        for callback in self.callbacks:
            callback.on_start(agent, total_timesteps)

    def on_step(self, agent: Any) -> None:
        """Forward to those that override it."""
        for callback in self._steppers:
            callback.on_step(agent)

    def on_iteration(self, agent: Any, record: Record) -> bool | None:
        """Forward to every callback; False if any of them returns False."""
        # a list, not a generator: everyone is asked, also after one has said no
        answers = [callback.on_iteration(agent, record) for callback in self.callbacks]
        return all(answer is None or bool(answer) for answer in answers)

    def on_logged(self, agent: Any) -> None:
        """Forward to every callback."""
        for callback in self.callbacks:
            callback.on_logged(agent)

    def on_end(self, agent: Any) -> None:
        """Forward to every callback."""
        for callback in self.callbacks:
            callback.on_end(agent)

    def state_dict(self) -> dict[str, Any]:
        """Return the states with the names of the classes."""
        return {
            "callbacks": [
                {"kind": type(callback).__name__, "state": callback.state_dict()}
                for callback in self.callbacks
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each callback the state of its class and turn; one without a state starts anew."""
        states: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in state.get("callbacks", ()):
            states[entry["kind"]].append(entry["state"])
        for callback in self.callbacks:
            if waiting := states[type(callback).__name__]:
                callback.load_state_dict(waiting.pop(0))

    @property
    def wants_steps(self) -> bool:
        """Whether any of them overrides `on_step`."""
        return bool(self._steppers)


class CheckpointEvery(Callback):
    """Save the agent every so many environment steps, and at the end of training.

    Put it after the callbacks whose state the checkpoint is to hold.

    Parameters
    ----------
    timesteps
        Environment steps between checkpoints: one is saved after the iteration that reaches the
        next multiple.
    path
        The file, replaced each time. With ``{timesteps}`` in it, such as
        ``checkpoints/{timesteps:09d}.safetensors``, every checkpoint is kept.

    Raises
    ------
    ValueError
        if ``timesteps`` is out of range, or ``path`` has other braces beside these.
    """

    def __init__(self, timesteps: int, path: str | os.PathLike[str]) -> None:
        check_count("timesteps", timesteps)
        self.timesteps = timesteps
        self.path = os.fspath(path)
        self._home = Path.cwd()  # an environment may change the working folder of the process
        if "{timesteps" in self.path:
            self._numbered(0)
        self._next = timesteps
        self._saved_at: int | None = None

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        """Find the next multiple."""
        self._next = next_multiple(agent.timesteps, self.timesteps)
        self._saved_at = agent.timesteps

    def on_logged(self, agent: Any) -> None:
        """Save if it is time."""
        if agent.timesteps >= self._next:
            self._next = next_multiple(agent.timesteps, self.timesteps)
            self._save(agent)

    def on_end(self, agent: Any) -> None:
        """Save what has been learned since, unless an iteration was broken off half-way."""
        whole = getattr(agent, "is_between_iterations", True)
        if whole and agent.timesteps != self._saved_at:
            self._save(agent)

    def _save(self, agent: Any) -> None:
        numbered = "{timesteps" in self.path
        path = self._home / (self._numbered(agent.timesteps) if numbered else self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        agent.save(path)
        self._saved_at = agent.timesteps

    def _numbered(self, timesteps: int) -> str:
        try:
            return self.path.format(timesteps=timesteps)
        except (LookupError, ValueError) as error:
            raise ValueError(
                "path: expected {timesteps}, or one with a format such as {timesteps:09d}, and no "
                f"other braces, got {self.path!r}"
            ) from error


class StopAtReturn(Callback):
    """End training once a mean return is reached.

    Parameters
    ----------
    value
        The return to be reached.
    key
        Which entry of the record is compared: ``rollout/episode_return`` is that of the latest
        training episodes; ``eval/return`` that of :class:`EvaluateEvery`, which then has to stand
        before this callback; ``rollout/success_rate``, ``eval/success_rate`` and those of
        ``episode_metrics`` are compared alike. Where the record has no such entry, training goes on.

    Raises
    ------
    ValueError
        if ``value`` is not finite.
    """

    def __init__(self, value: float, key: str = "rollout/episode_return") -> None:
        if not math.isfinite(value):
            raise ValueError(f"value: expected a finite return, got {value}")
        self.value = float(value)
        self.key = key

    def on_iteration(self, agent: Any, record: Record) -> bool | None:
        """Return False if the value is reached."""
        value = record.get(self.key, math.nan)
        if not isinstance(value, Real):
            raise TypeError(f"record: expected a number under {self.key!r}, got {value!r:.60}")
        return False if float(value) >= self.value else None


def _as_callback(callback: CallbackLike) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if callable(callback) and not isinstance(callback, type):
        return FunctionCallback(callback)
    hint = ", with its arguments" if isinstance(callback, type) else ""
    raise TypeError(
        "callback: expected a Callback or a function (agent, record) -> bool | None, got "
        f"{callback!r}{'; make an instance of it' + hint if hint else ''}"
    )


def check_count(name: str, value: int) -> None:
    """Raise ValueError unless a value is an integer of at least 1.

    Parameters
    ----------
    name
        The name of the value, for the sentence.
    value
        The value to check.
    """
    try:
        wrong = isinstance(value, bool) or operator.index(value) < 1
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")


def next_multiple(timesteps: int, every: int) -> int:
    """Return the smallest multiple of `every` above `timesteps`.

    Parameters
    ----------
    timesteps
        Environment steps taken in all.
    every
        Steps between two multiples, at least 1.
    """
    return (timesteps // every + 1) * every
