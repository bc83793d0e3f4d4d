"""The states of training environments: read at a save, written at a resume, and never tried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..words import words_of
from .configuration import Configuration, constructed_by, difference
from .foreign import refuse_deadly_states
from .graph import Budget
from .nodes import Array, SnapshotError, type_name
from .snapshot import json_array, json_value, read_snapshot, restore, save_environments
from .trial import Trial, try_out

_MOST_VALUES = 16_000  # of all environments, read at a save: some 50 ms
_VALUES_AN_ENVIRONMENT = 500  # or this times their number, where that is more


class StateKeeper:
    """Saves and restores the environments of one sampler in this process.

    Whether their state can be stored is found out once, on separate copies, and before training
    where `prepare` is called: the environments themselves are read at a save, and written to at a
    resume, and that is all. They are not read before, because up to Python 3.12 an object whose
    attributes were listed once is slower ever after: what their constructors set is read from a copy.

    Parameters
    ----------
    environments
        The environments, as they were made. The list itself is kept: who replaces one of them calls
        `renewed`.
    make_copy
        Makes one more environment, the way these were made; None where that cannot be done.
    """

    def __init__(
        self, environments: Sequence[Any], make_copy: Callable[[], Any] | None = None
    ) -> None:
        self._environments = environments
        self._make_copy = make_copy
        self._trial: Trial | None = None
        self._tables: frozenset[str] = frozenset()
        self._noted: list[Configuration | SnapshotError] = []

    def note(self) -> None:
        """Note now what the constructors set, before somebody changes it from outside."""
        for env in self._environments[len(self._noted) :]:
            self._noted.append(self._read(env))

    def renewed(self, e: int) -> None:
        """Environment e was replaced by a new one, which has not been reset yet.

        Parameters
        ----------
        e
            Index of the environment, from 0.
        """
        if self._noted:
            self._noted[e] = self._read(self._environments[e])

    def prepare(self) -> None:
        """Find out now whether the states can be saved, if that is not known yet.

        A copy may share what is behind the environments with them: a simulator, a server, a robot. It
        does no harm before their first reset.
        """
        if self._make_copy is not None and self._trial is None:
            self._trial = try_out(self._make_copy, beside=self._environments, tables=self._tables)
            self._tables |= self._trial.tables

    def save(self) -> list[dict[str, Array]]:
        """The state of every environment, as arrays that a checkpoint can hold.

        Raises
        ------
        SnapshotError
            One cannot be stored, or not be restored; a clause behind "because".
        """
        configuration = json_array(self._configuration())
        budget = Budget(max(_MOST_VALUES, _VALUES_AN_ENVIRONMENT * len(self._environments)))
        saved: list[dict[str, Array]] = []
        for env in self._environments:
            try:
                state = save_environments([env], budget=budget, tables=self._tables)
            except SnapshotError as error:
                # what is too large once is not tried at every save
                self._trial = Trial(str(error))
                raise
            saved.append({**state, "configuration": configuration})
        return saved

    def load(self, given: Sequence[tuple[int, Mapping[str, Array]]]) -> None:
        """Reset every environment with a seed and put it into a state that `save` returned.

        Everything is read and compared before the first environment is touched.

        Parameters
        ----------
        given
            Seed and state of each environment.

        Raises
        ------
        SnapshotError
            A state is damaged, or what the constructor of an environment set differs from what was
            saved; a clause behind "because". The environments must be reset then.
        """
        self.note()
        snapshots = []
        for constructed, (_, state) in zip(self._noted, given, strict=True):
            snapshots.append(read_snapshot(state, "0."))
            if "configuration" not in state:
                raise SnapshotError(
                    "the file was written by an earlier version, which did not tell the state of "
                    "an environment from its configuration"
                )
            if isinstance(constructed, SnapshotError):
                raise constructed
            saved = json_value(state["configuration"])
            if not isinstance(saved, dict):
                raise SnapshotError("the stored configuration of an environment is damaged")
            differs = difference(constructed, saved)
            if differs is not None:
                raise SnapshotError(differs)
        refuse_deadly_states(
            [snapshot.node for snapshot in snapshots if snapshot.node], self._environments
        )
        self.prepare()
        try:
            for env, snapshot, (seed, _) in zip(self._environments, snapshots, given, strict=True):
                env.reset(seed=seed)
                restore(env, snapshot)
        except SnapshotError:
            raise
        except (Exception, SystemExit) as error:  # whatever an environment raises
            raise SnapshotError(
                f"its reset raised {type_name(error)}: {words_of(error)}"
            ) from error

    def _configuration(self) -> Configuration:
        """What the constructor of each environment set; SnapshotError where nothing can be saved."""
        if self._make_copy is None:
            raise SnapshotError(
                "the environment was given as an object that cannot be made again, and whether a "
                "state can be restored is only tried on a separate copy; give a function that "
                "makes it"
            )
        self.prepare()
        trial = self._trial
        assert trial is not None
        if trial.why_not is not None:
            raise SnapshotError(trial.why_not)
        return {k: value for k, value in trial.constructed.items() if not trial.is_state(k)}

    def _read(self, env: Any) -> Configuration | SnapshotError:
        """What the constructor of an environment set; what is large in it is noted as a table.

        Where one of them cannot be read, the others are not tried.
        """
        for earlier in self._noted:
            if isinstance(earlier, SnapshotError):
                return earlier
        try:
            configuration, self._tables = constructed_by(env, self._tables)
        except SnapshotError as error:
            return error
        return configuration
