"""Whether an environment goes on from a stored state, tried on copies made the way it was made."""

from __future__ import annotations

import contextlib
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..words import words_of
from .code import is_of_code
from .configuration import (
    Configuration,
    configuration_of,
    constructed_by,
    lies_under,
    places_of,
)
from .graph import Budget
from .nodes import SnapshotError, type_name
from .random_actions import RandomActions
from .replay import compare_steps, model_bytes, refuse_rewritten_models, step_on, stored_form
from .snapshot import Snapshot, restore, take

# Seconds as of `_own_seconds`, so that a busy machine comes to the same findings as an idle one.
_LONGEST_MAKING = (1.0, 2.0)  # that a copy may take to be made: of a processor, and in all
_LONGEST_TRIAL = 1.0  # for resets and steps of the copies
_STEP_SECONDS = 0.12  # for each of the four sets of steps, where they are slow
_MOST_VALUES = 16_000  # of one environment
_MOST_STEPS_TO_AN_END = 1000


@dataclass(frozen=True)
class Trial:
    """What a trial has found.

    Attributes
    ----------
    why_not
        Why its state cannot be stored and restored, as a clause behind "because"; None where it can.
    constructed
        What the constructor of the copies set.
    changing
        Names in it whose values resets or steps change: they are state, not configuration.
    remade
        Names of objects that a reset replaces, and that differ between two environments made
        alike: what is inside is state, too.
    """

    why_not: str | None = None
    constructed: Configuration = field(default_factory=dict)
    changing: frozenset[str] = frozenset()
    remade: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()

    def is_state(self, name: str) -> bool:
        """Whether a value is state, not configuration.

        Parameters
        ----------
        name
            As in `configuration_of`.
        """
        return name in self.changing or lies_under(name, self.remade)


def try_out(
    make: Callable[[], Any],
    *,
    n_steps: int = 50,
    seed: int = 0,
    beside: Sequence[Any] = (),
    tables: Set[str] = frozenset(),
) -> Trial:
    """Store the state of one copy of an environment and restore it into another one.

    The first copy is reset and takes random actions; the second one takes the same actions from
    the stored state, and must return the same bits. A second at most is spent on resets and
    steps, as far as that can be told from the first ones: a slow environment is judged by fewer
    steps, and one that takes long to make, to reset or to step not at all. The
    global generators of NumPy and Python are left as they were.

    Parameters
    ----------
    make
        Makes a copy, the way the environment was made.
    n_steps
        Actions to replay, at least 1.
    seed
        Seed of the reset and of the actions.
    beside
        Environments that are in use. Where one of them is made again instead of a copy, it is
        neither stepped nor closed.
    tables
        Those of environments made alike, see `constructed_by`.
    """
    copies: list[Any] = []

    def make_copy() -> Any:
        began = time.thread_time(), _own_seconds()
        made = make()
        if any(_innermost(made) is _innermost(other) for other in (*beside, *copies)):
            raise SnapshotError(
                "the function that makes it returns an environment that it returned before, and "
                "whether a state can be restored is only tried on a separate copy"
            )
        copies.append(made)
        seconds = time.thread_time() - began[0], _own_seconds() - began[1]
        if seconds[0] > _LONGEST_MAKING[0] or seconds[1] > _LONGEST_MAKING[1]:
            raise SnapshotError(
                f"making a copy of it takes {seconds[1]:.1f} s, too long to try out whether its "
                "state can be restored"
            )
        return made

    with _global_generators_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _try_out(make_copy, n_steps, seed, tables)
        except SnapshotError as error:
            return Trial(str(error))
        except (Exception, SystemExit) as error:  # whatever an environment raises
            return Trial(f"a copy of it raised {type_name(error)}: {words_of(error)}")
        finally:
            for made in copies:
                with contextlib.suppress(Exception, SystemExit):
                    made.close()


def _try_out(
    make_copy: Callable[[], Any], n_steps: int, seed: int, tables: Set[str] = frozenset()
) -> Trial:
    def read(env: Any) -> Snapshot:
        return take(env, budget=Budget(_MOST_VALUES), tables=tables)

    first = make_copy()
    constructed, tables = constructed_by(first, tables)
    untouched = read(first)
    models, places = model_bytes(untouched), places_of(untouched)
    actions = RandomActions(first, seed)

    # a state that is not the first of an episode, and what follows from it
    began = _own_seconds()
    actions.reset(seed=seed)
    was_reset = _own_seconds()
    _steps(actions, 1)
    _refuse_slow(was_reset - began, _own_seconds() - was_reset)
    _steps(actions, 2)
    snapshot = read(first)
    stored = stored_form(snapshot)
    original = _steps(actions, n_steps)
    after = read(first)
    refuse_rewritten_models(models, after)
    changing = _changed(first, after, constructed)

    # another copy, which has gone elsewhere, goes on from the stored state
    second = make_copy()
    # An object that every reset makes anew, with other contents in each copy, is state.
    there = configuration_of(second, snapshot=read(second))
    now = places_of(after)
    replaced = {name for name, place in places.items() if now.get(name) is not place}
    unlike = {
        name
        for name in constructed.keys() | there.keys()
        if constructed.get(name) != there.get(name) and name not in changing
    }
    remade = {prefix for prefix in replaced if any(lies_under(name, {prefix}) for name in unlike)}
    # counters of a class or a module go on with every environment
    changing |= {name for name in unlike if is_of_code(name)}
    for name in sorted(unlike):
        if not is_of_code(name) and not lies_under(name, remade):
            raise SnapshotError(f"{name} differs between two environments that are made alike")
    elsewhere = RandomActions(second, seed + 1)
    elsewhere.reset(seed=seed + 1)
    step_on(elsewhere, elsewhere.sample())
    restore(second, stored)
    compare_steps(second, [result for result, _ in original], [action for _, action in original])

    # on to the end of an episode: what only changes there is state, too
    _run_to_an_end(actions)
    changing |= _changed(first, read(first), constructed)
    return Trial(None, constructed, frozenset(changing), frozenset(remade), frozenset(tables))


def _refuse_slow(reset: float, step: float) -> None:
    """Raise SnapshotError where a reset and a step of such lengths would make a long trial."""
    if 3 * reset + 6 * step > _LONGEST_TRIAL:
        slow = (
            f"a reset of it takes {reset:.1f} s"
            if reset > 2 * step
            else f"a step takes {step:.1f} s"
        )
        raise SnapshotError(f"{slow}, too long to try out whether its state can be restored")


def _innermost(env: Any) -> Any:
    try:
        return env.unwrapped
    except Exception:  # it has none, or a foreign property raises
        return env


def _steps(actions: RandomActions, n_steps: int) -> list[tuple[Any, Any]]:
    """Random steps with their actions, fewer where they are slow, but one at least."""
    taken: list[tuple[Any, Any]] = []
    end = _own_seconds() + _STEP_SECONDS
    while len(taken) < n_steps and (not taken or _own_seconds() < end):
        action = actions.sample()
        taken.append((step_on(actions, action), action))
    return taken


def _run_to_an_end(actions: RandomActions) -> None:
    end = _own_seconds() + _STEP_SECONDS
    for _ in range(_MOST_STEPS_TO_AN_END):
        _, _, terminated, truncated, _ = actions.step(actions.sample())
        if terminated or truncated:
            actions.reset()
            return
        if _own_seconds() > end:
            return


def _changed(env: Any, snapshot: Snapshot, constructed: Configuration) -> set[str]:
    now = configuration_of(env, snapshot=snapshot)
    return {name for name, value in constructed.items() if now.get(name) != value}


def _own_seconds() -> float:
    """A clock that stands still while this thread waits for a processor that others use.

    Where the system does not count that time (Linux does), it is an ordinary clock.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            queued = int(file.read(100).split()[1])
    except (OSError, ValueError, IndexError):
        queued = 0
    return time.monotonic() - 1e-9 * queued


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
