"""Taking and restoring snapshots, and seeing that they replay."""

from __future__ import annotations

import copy
import importlib
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from .graph import Recorder, Restorer
from .nodes import (
    Array,
    Node,
    SnapshotError,
    attributes_of,
)
from .simulators import Simulators
from .storage import Reader, Writer

if TYPE_CHECKING:
    import gymnasium

    Environment: TypeAlias = gymnasium.Env[Any, Any]

FORMAT = 1  # version of what to_arrays gives


class Snapshot:
    """The state of an environment at one moment. `take` makes it; restore it as often as you like.

    Attributes:
        why_not_storable: why it cannot be stored in a file, in one sentence; None where it can.
    """

    def __init__(
        self,
        *,
        node: Node | None = None,
        duplicate: dict[str, Any] | None = None,
        origin: Any = None,
        simulators: Simulators | None = None,
    ) -> None:
        self._node = node
        self._duplicate = duplicate  # attributes of the outermost object, deep-copied
        self._origin = None if origin is None else weakref.ref(origin)
        self._simulators = simulators
        self._models: tuple[Any, ...] = ()

    @property
    def is_storable(self) -> bool:
        """Whether `to_arrays` works."""
        return self.why_not_storable is None

    @property
    def why_not_storable(self) -> str | None:
        """One sentence, or None."""
        if self._node is None:
            return "the environment's state is a copy.deepcopy, which only pickle could store"
        try:
            Writer().write(self._node, "env")
        except SnapshotError as error:
            return str(error)
        return None

    def to_arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """(arrays by name, the rest as JSON values); `from_arrays` is the inverse.

        Raises:
            SnapshotError: not storable.
        """
        if self._node is None:
            raise SnapshotError(f"snapshot: {self.why_not_storable}")
        writer = Writer()
        tree = writer.write(self._node, "env")
        return writer.arrays, {"format": FORMAT, "state": tree}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> Snapshot:
        """The snapshot that `to_arrays` gave. Makes no object but numbers, strings and arrays.

        Raises:
            SnapshotError: damaged, or of a newer format.
        """
        if not isinstance(metadata, Mapping) or "state" not in metadata:
            raise SnapshotError("snapshot: expected the metadata of to_arrays, with a state")
        if metadata.get("format") != FORMAT:
            raise SnapshotError(
                f"snapshot: expected format {FORMAT}, got {metadata.get('format')!r}; "
                "was it written by a newer trpo_fast?"
            )
        return cls(node=Reader(arrays).read(metadata["state"]))

    def __repr__(self) -> str:
        how = "deepcopy" if self._node is None else "attributes"
        return f"Snapshot({how})"


def take(env: Environment) -> Snapshot:
    """Save the whole state of `env`, which is left as it is.

    Raises:
        SnapshotError: it holds something whose state cannot be read (then see `Snapshotter`, which
            also tries `copy.deepcopy`).
    """
    return _take(env, Simulators())


def restore(env: Environment, snapshot: Snapshot) -> None:
    """Put `env` into the state of `snapshot`: the environment it was taken from, or one made alike.

    Where it is another one, or the snapshot comes from a file, `env` must have been reset once.

    Raises:
        SnapshotError: `env` is not such an environment. It may be partly changed then: reset it.
    """
    _restore(env, snapshot, Simulators())


def _take(env: Any, simulators: Simulators) -> Snapshot:
    recorder = Recorder(simulators)
    node = recorder.record(env, "env")
    snapshot = Snapshot(node=node, origin=env, simulators=simulators)
    snapshot._models = tuple(recorder.models)
    return snapshot


def _restore(env: Any, snapshot: Snapshot, simulators: Simulators) -> None:
    same = snapshot._origin is not None and snapshot._origin() is env
    if snapshot._duplicate is not None:
        if not same:
            raise SnapshotError(
                "snapshot: a state that was deep-copied goes back only into the environment that "
                "it was taken from"
            )
        _restore_copy(env, snapshot._duplicate)
        return
    if snapshot._node is None:
        raise SnapshotError("snapshot: it is empty")
    Restorer(simulators, same).restore(snapshot._node, env, "env")


def _take_copy(env: Any, _: Simulators) -> Snapshot:
    try:
        # through a list and a memo that knows env itself: references back to it stay references
        duplicate = copy.deepcopy(attributes_of(env), {id(env): env})
    except Exception as error:  # whatever an object's own __deepcopy__ or __reduce__ raises
        raise SnapshotError(
            f"copy.deepcopy fails with {type(error).__name__}: {str(error).splitlines()[0]}"
            if str(error)
            else f"copy.deepcopy fails with {type(error).__name__}"
        ) from None
    return Snapshot(duplicate=duplicate, origin=env)


def _restore_copy(env: Any, duplicate: dict[str, Any]) -> None:
    fresh = copy.deepcopy(duplicate, {id(env): env})
    for name in attributes_of(env).keys() - fresh.keys():
        object.__delattr__(env, name)
    for name, value in fresh.items():
        object.__setattr__(env, name, value)


class Snapshotter:
    """Saves and restores one environment in the way that was seen to work.

    Attributes:
        env: the environment.
        method: "attributes" or "deepcopy".
        why_not_storable: why its snapshots cannot be stored in a file; None where they can.
    """

    def __init__(self, env: Environment, method: Literal["attributes", "deepcopy"]) -> None:
        self.env = env
        self.method: Literal["attributes", "deepcopy"] = method
        self.why_not_storable: str | None = None
        self._simulators = Simulators()
        self._take: Callable[[Any, Simulators], Snapshot] = (
            _take if method == "attributes" else _take_copy
        )

    @classmethod
    def for_environment(cls, env: Environment, *, n_steps: int = 50, seed: int = 0) -> Snapshotter:
        """Find a way to save `env`, and see it replay `n_steps` random actions bit for bit.

        The environment is left in the state in which it was found.

        Raises:
            SnapshotError: no way replays; one sentence says what stands against it.
        """
        methods: tuple[Literal["attributes", "deepcopy"], ...] = ("attributes", "deepcopy")
        problems: list[str] = []
        for method in methods:
            snapshotter = cls(env, method)
            try:
                snapshotter.check_replay(n_steps, seed=seed)
            except SnapshotError as error:
                problems.append(str(error))
            else:
                return snapshotter
        raise SnapshotError(
            f"environment {_name(env)}: its state cannot be saved and restored: "
            f"{problems[0]}; and through copy.deepcopy: {problems[1]}"
        )

    def for_alike(self, env: Environment) -> Snapshotter:
        """The same for another environment, made alike: what was seen once is not tried again."""
        other = Snapshotter(env, self.method)
        other.why_not_storable = self.why_not_storable
        return other

    def take(self) -> Snapshot:
        """Save the state of the environment."""
        return self._take(self.env, self._simulators)

    def restore(self, snapshot: Snapshot) -> None:
        """Put the environment into the state of `snapshot`."""
        _restore(self.env, snapshot, self._simulators)

    def check_replay(self, n_steps: int = 50, *, seed: int = 0) -> None:
        """Raise SnapshotError unless restored steps are bitwise those of the original.

        Takes random actions from the state after a seeded reset and a few steps, goes on through
        ends of episodes, goes back and takes them again; then a third time from the stored form,
        where there is one. Observations, rewards and flags are compared. At the end the environment
        is put back into the state in which it was found.
        """
        found = self.take()
        try:
            self._replay(n_steps, seed)
        except SnapshotError:
            raise
        except Exception as error:  # the environment's own, or what a broken copy of it raises
            raise SnapshotError(
                f"the environment raised {type(error).__name__}: {error}, while its state was "
                "being tried out"
            ) from error
        finally:
            self.restore(found)

    def _replay(self, n_steps: int, seed: int) -> None:
        env = self.env
        actions = copy.deepcopy(env.action_space)
        actions.seed(seed)
        models = _model_bytes(self.take())

        # a state that is not the first of an episode, and what follows from it
        env.reset(seed=seed)
        for _ in range(3):
            _step(env, actions.sample())
        start = self.take()
        chosen = [actions.sample() for _ in range(n_steps)]
        original = [_step(env, action) for action in chosen]

        if models != _model_bytes(start):
            raise SnapshotError(
                "the environment rewrites its MuJoCo model while it runs, and a model is not part "
                "of a snapshot"
            )

        # the same again, from memory and from the stored form
        self._compare(original, start, chosen, "restored")
        self.why_not_storable = start.why_not_storable
        if start.is_storable:
            arrays, metadata = start.to_arrays()
            text = json.dumps(metadata, allow_nan=False)
            try:
                stored = Snapshot.from_arrays(arrays, json.loads(text))
                self._compare(original, stored, chosen, "stored")
            except SnapshotError as error:
                self.why_not_storable = str(error)

    def _compare(
        self, original: list[_StepResult], snapshot: Snapshot, actions: list[Any], form: str
    ) -> None:
        self.restore(snapshot)
        for i, action in enumerate(actions):
            difference = _difference(original[i], _step(self.env, action))
            if difference is not None:
                raise SnapshotError(
                    f"step {i} after a {form} state does not replay: the {difference} differs; "
                    "does the environment keep state elsewhere (a module's variable, the global "
                    "np.random, a clock, a server)?"
                )


def check_replay(env: Environment, n_steps: int = 100, *, seed: int = 0) -> Snapshotter:
    """See `n_steps` random actions replay bit for bit from a saved state; return what saves it.

    The environment is left in the state in which it was found.

    Raises:
        SnapshotError: it cannot be saved, or does not replay; one sentence.
    """
    return Snapshotter.for_environment(env, n_steps=n_steps, seed=seed)


def why_not_storable(env: Environment, *, n_steps: int = 50, seed: int = 0) -> str | None:
    """None where `env` goes on bit for bit from its stored state, or one sentence why it does not.

    Steps the environment, see `Snapshotter.check_replay`, and leaves it as it was.
    """
    try:
        return Snapshotter.for_environment(env, n_steps=n_steps, seed=seed).why_not_storable
    except SnapshotError as error:
        return str(error)


def save_environments(environments: Sequence[Environment]) -> dict[str, Array]:
    """The states of several environments as arrays only, for a checkpoint.

    Entries are `"{e}.metadata"` (uint8, JSON) and `"{e}.{name}"` of `Snapshot.to_arrays`.

    Raises:
        SnapshotError: a state cannot be stored; one sentence that names the environment.
    """
    state: dict[str, Array] = {}
    for e, env in enumerate(environments):
        try:
            arrays, metadata = take(env).to_arrays()
        except SnapshotError as error:
            which = _name(env) if len(environments) == 1 else f"{e} ({_name(env)})"
            raise SnapshotError(f"environment {which}: {error}") from None
        text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
        state[f"{e}.metadata"] = np.frombuffer(text.encode(), np.uint8).copy()
        state.update({f"{e}.{name}": array for name, array in arrays.items()})
    return state


def load_environments(environments: Sequence[Environment], state: Mapping[str, Array]) -> None:
    """Put environments, each reset once, into the states that `save_environments` returned.

    Everything is read before the first environment is touched.

    Raises:
        SnapshotError: damaged, of another number of environments, or of other environments; then
            reset them.
    """
    saved = sum(name.endswith(".metadata") and name.count(".") == 1 for name in state)
    if saved != len(environments):
        raise SnapshotError(
            f"environment states: expected {len(environments)}, one an environment, got {saved}; "
            "resume with the number of environments that the run was started with"
        )
    snapshots: list[Snapshot] = []
    for e in range(len(environments)):
        prefix = f"{e}."
        arrays = {name[len(prefix) :]: a for name, a in state.items() if name.startswith(prefix)}
        try:
            text = np.ascontiguousarray(arrays.pop("metadata"), np.uint8).tobytes().decode()
            metadata = json.loads(text)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise SnapshotError(
                f"environment state {e}: it is damaged ({type(error).__name__}: {error})"
            ) from None
        snapshots.append(Snapshot.from_arrays(arrays, metadata))
    for env, snapshot in zip(environments, snapshots, strict=True):
        restore(env, snapshot)


# ------------------------------------------------------------------------------------------ helpers


def _name(env: Any) -> str:
    from ..envs import environment_name

    return environment_name(env)


_StepResult: TypeAlias = tuple[Any, float, bool, bool]


def _step(env: Any, action: Any) -> _StepResult:
    """One step, and a reset where the episode ended: the observation is the one acted on next."""
    observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
    if terminated or truncated:
        observation = (copy.deepcopy(observation), env.reset()[0])
    return copy.deepcopy(observation), float(reward), bool(terminated), bool(truncated)


def _difference(a: _StepResult, b: _StepResult) -> str | None:
    names = ("observation", "reward", "terminated flag", "truncated flag")
    for name, x, y in zip(names, a, b, strict=True):
        if not _same_bits(x, y):
            return name
    return None


def _same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return (
            isinstance(b, Mapping)
            and a.keys() == b.keys()
            and all(_same_bits(a[k], b[k]) for k in a)
        )
    if isinstance(a, tuple | list):
        return isinstance(b, tuple | list) and len(a) == len(b) and all(map(_same_bits, a, b))
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def _model_bytes(snapshot: Snapshot) -> list[bytes]:
    """MuJoCo's models behind a snapshot, as they are now."""
    found: list[bytes] = []
    for model in snapshot._models:
        mujoco = importlib.import_module("mujoco")
        buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        found.append(buffer.tobytes())
    return found
