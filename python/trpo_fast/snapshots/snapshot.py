"""Taking, restoring, storing and reading the state of an environment."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .graph import Budget, Recorder
from .nodes import Array, Node, SnapshotError, dictionary_of, short_name
from .restorer import Restorer
from .simulators import Simulators
from .storage import Reader, Writer

if TYPE_CHECKING:
    import gymnasium

    Environment: TypeAlias = gymnasium.Env[Any, Any]

# Version of what to_arrays gives: 1 had no arrays of text, dates and complex numbers, and 2 no tables.
FORMAT = 3


class Snapshot:
    """The state of an environment at one moment. `take` makes it; restore it as often as you like.

    Parameters
    ----------
    node
        What was recorded, attribute by attribute.
    duplicate
        Attributes of the outermost object, deep-copied, where it was copied as a whole.
    origin
        The environment that it was taken from.
    models
        MuJoCo's models that were met.

    Attributes
    ----------
    models
        MuJoCo's models that were met, which are no part of the state.
    """

    def __init__(
        self,
        *,
        node: Node | None = None,
        duplicate: dict[str, Any] | None = None,
        origin: Any = None,
        models: Sequence[Any] = (),
    ) -> None:
        self.node = node
        self.duplicate = duplicate  # attributes of the outermost object, deep-copied
        self._origin = None if origin is None else weakref.ref(origin)
        self.models = tuple(models)

    def is_of(self, env: Environment) -> bool:
        """Whether it was taken from this very environment.

        Parameters
        ----------
        env
            An environment.
        """
        return self._origin is not None and self._origin() is env

    @property
    def is_storable(self) -> bool:
        """Whether `to_arrays` works."""
        return self.why_not_storable is None

    @property
    def why_not_storable(self) -> str | None:
        """Why it cannot be stored in a file, as a clause behind "because"; None where it can."""
        try:
            self.to_arrays()
        except SnapshotError as error:
            return str(error)
        return None

    def to_arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return what a file holds; `from_arrays` is the inverse.

        Returns
        -------
        tuple
            Arrays by name, of dtypes that a checkpoint can hold, and the rest as JSON values.

        Raises
        ------
        SnapshotError
            It is not storable.
        """
        if self.node is None:
            raise SnapshotError(
                "the environment can only be copied as a whole, which no file holds"
            )
        writer = Writer()
        tree = writer.write(self.node, "env")
        return writer.arrays, {"format": FORMAT, "state": tree}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> Snapshot:
        """Return the snapshot that `to_arrays` gave. Makes no object but numbers, texts and arrays.

        Parameters
        ----------
        arrays, metadata
            What `to_arrays` returned.

        Raises
        ------
        SnapshotError
            Damaged, or of a newer format.
        """
        if not isinstance(metadata, Mapping) or "state" not in metadata:
            raise SnapshotError("snapshot: expected the metadata of to_arrays, with a state")
        if metadata.get("format") not in (1, 2, FORMAT):
            raise SnapshotError(
                f"snapshot: expected format {FORMAT}, got {metadata.get('format')!r:.40}; "
                "was it written by a newer trpo_fast?"
            )
        return cls(node=Reader(arrays).read(metadata["state"]))

    def __repr__(self) -> str:
        how = "deepcopy" if self.node is None else "attributes"
        return f"Snapshot({how})"


def take(
    env: Environment,
    *,
    simulators: Simulators | None = None,
    budget: Budget | None = None,
    tables: Set[str] = frozenset(),
) -> Snapshot:
    """Read the whole state of an environment, which is left as it is.

    Parameters
    ----------
    env
        The environment; none of its methods is called.
    simulators
        Readers of its simulators, kept from an earlier call.
    budget
        How much may be read; None: no limit.
    tables
        What `tables_in` found when the environment was made: they are compared, not read.

    Raises
    ------
    SnapshotError
        It holds something whose state cannot be read, or too much.
    """
    recorder = Recorder(simulators or Simulators(), budget, tables)
    try:
        node = recorder.record(env, short_name(env))
    except SnapshotError:
        raise
    except RecursionError:
        raise SnapshotError(f"the objects of {inner_name(env)} are nested too deeply") from None
    except Exception as error:  # whatever foreign classes and simulators raise
        raise SnapshotError(
            f"reading the state of {inner_name(env)} raised {type(error).__name__}"
        ) from error
    return Snapshot(node=node, origin=env, models=recorder.models)


def restore(env: Environment, snapshot: Snapshot, *, simulators: Simulators | None = None) -> None:
    """Put an environment into the state of a snapshot.

    Parameters
    ----------
    env
        The environment that the snapshot was taken from, or one made alike. Where it is another
        one, or the snapshot comes from a file, it must have been reset once.
    snapshot
        The state.
    simulators
        Readers of its simulators, kept from an earlier call.

    Raises
    ------
    SnapshotError
        It is not such an environment. It may be partly changed then: reset it.
    """
    if snapshot.node is None:
        raise SnapshotError(
            "snapshot: a state that was deep-copied goes back only into the environment that it "
            "was taken from, through its Snapshotter"
        )
    Restorer(simulators or Simulators(), snapshot.is_of(env)).restore_all(snapshot.node, env)


def save_environments(
    environments: Sequence[Environment],
    *,
    budget: Budget | None = None,
    tables: Set[str] = frozenset(),
) -> dict[str, Array]:
    """The states of several environments as arrays only, for a checkpoint.

    Parameters
    ----------
    environments
        In their order.
    budget
        How much of all of them may be read; None: no limit.
    tables
        As for `take`.

    Returns
    -------
    dict
        Entries `"{e}.metadata"` (uint8, JSON) and `"{e}.{name}"` of `Snapshot.to_arrays`.

    Raises
    ------
    SnapshotError
        A state cannot be stored; a clause behind "because".
    """
    state: dict[str, Array] = {}
    for e, env in enumerate(environments):
        arrays, metadata = take(env, budget=budget, tables=tables).to_arrays()
        state[f"{e}.metadata"] = json_array(metadata)
        state.update({f"{e}.{name}": array for name, array in arrays.items()})
    return state


def load_environments(environments: Sequence[Environment], state: Mapping[str, Array]) -> None:
    """Put environments, each reset once, into the states that `save_environments` returned.

    Everything is read before the first environment is touched.

    Parameters
    ----------
    environments
        In their order.
    state
        What `save_environments` returned.

    Raises
    ------
    SnapshotError
        Damaged, of another number of environments, or of other environments; then reset them.
    """
    saved = sum(name.endswith(".metadata") and name.count(".") == 1 for name in state)
    if saved != len(environments):
        raise SnapshotError(
            f"environment states: expected {len(environments)}, one an environment, got {saved}; "
            "resume with the number of environments that the run was started with"
        )
    snapshots = [read_snapshot(state, f"{e}.") for e in range(len(environments))]
    for env, snapshot in zip(environments, snapshots, strict=True):
        restore(env, snapshot)


def read_snapshot(state: Mapping[str, Array], prefix: str) -> Snapshot:
    """The snapshot whose entries begin with `prefix` in what `save_environments` returned.

    Parameters
    ----------
    state
        What `save_environments` returned.
    prefix
        Number of the environment and a dot.

    Raises
    ------
    SnapshotError
        It is damaged or missing.
    """
    arrays = {name[len(prefix) :]: a for name, a in state.items() if name.startswith(prefix)}
    return Snapshot.from_arrays(arrays, json_value(arrays.pop("metadata", None)))


def json_array(value: Any) -> Array:
    """A JSON value as bytes (uint8), which `json_value` reads.

    Parameters
    ----------
    value
        Numbers, texts, lists, dictionaries, None.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8).copy()


def json_value(array: Array | None) -> Any:
    """The JSON value that `json_array` wrote.

    Parameters
    ----------
    array
        What `json_array` returned.

    Raises
    ------
    SnapshotError
        It is damaged or missing.
    """
    try:
        return json.loads(np.ascontiguousarray(array, np.uint8).tobytes().decode())
    except (ValueError, TypeError, RecursionError) as error:
        raise SnapshotError(f"the stored state is damaged ({type(error).__name__})") from None


def inner_name(env: Any) -> str:
    """The class of the environment inside all wrappers, without asking any of them.

    Parameters
    ----------
    env
        An environment.
    """
    for _ in range(100):
        inner = (dictionary_of(env) or {}).get("env")
        if inner is None:
            break
        env = inner
    return short_name(env)
