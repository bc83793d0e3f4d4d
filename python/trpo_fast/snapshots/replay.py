"""Seeing that an environment goes back to a state: the same actions, the same bits."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..words import words_of
from .nodes import SnapshotError, attributes_of
from .random_actions import RandomActions
from .simulators import Simulators
from .snapshot import Snapshot, inner_name, json_array, json_value, restore, take

if TYPE_CHECKING:
    from .snapshot import Environment

StepResult: TypeAlias = tuple[Any, float, bool, bool]


class Snapshotter:
    """Saves and restores one environment within a process, in the way that was seen to work.

    Parameters
    ----------
    env
        The environment.
    method
        "attributes": its state is read; "deepcopy": `copy.deepcopy` copies it as a whole.
    """

    def __init__(self, env: Environment, method: Literal["attributes", "deepcopy"]) -> None:
        self.env = env
        self.method: Literal["attributes", "deepcopy"] = method
        self._simulators = Simulators(in_place=True)

    @classmethod
    def for_environment(cls, env: Environment, *, n_steps: int = 50, seed: int = 0) -> Snapshotter:
        """Find a way to save an environment, and see it replay random actions bit for bit.

        Parameters
        ----------
        env
            It is reset and stepped: give a separate copy of an environment that matters, and use
            `for_alike` for the other one.
        n_steps
            Actions to replay, at least 1.
        seed
            Seed of the reset and of the actions.

        Raises
        ------
        SnapshotError
            No way replays; one sentence says what stands against it.
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
            f"the state of {inner_name(env)} cannot be saved and restored: "
            f"{problems[0]}; and through copy.deepcopy: {problems[1]}"
        )

    def for_alike(self, env: Environment) -> Snapshotter:
        """The same for another environment, made alike: what was seen once is not tried again.

        Parameters
        ----------
        env
            An environment.
        """
        return Snapshotter(env, self.method)

    def take(self) -> Snapshot:
        """Save the state of the environment."""
        if self.method == "attributes":
            return take(self.env, simulators=self._simulators)
        try:
            # the memo knows env itself: references back to it stay references
            duplicate = copy.deepcopy(attributes_of(self.env), {id(self.env): self.env})
        except Exception as error:  # whatever an object's own __deepcopy__ or __reduce__ raises
            said = f": {str(error).splitlines()[0]}" if str(error) else ""
            raise SnapshotError(f"copy.deepcopy fails with {type(error).__name__}{said}") from None
        return Snapshot(duplicate=duplicate, origin=self.env)

    def restore(self, snapshot: Snapshot) -> None:
        """Put the environment into the state of a snapshot that `take` returned.

        Parameters
        ----------
        snapshot
            The state of an environment.
        """
        if snapshot.duplicate is None or not snapshot.is_of(self.env):
            restore(self.env, snapshot, simulators=self._simulators)
            return
        fresh = copy.deepcopy(snapshot.duplicate, {id(self.env): self.env})
        for name in attributes_of(self.env).keys() - fresh.keys():
            object.__delattr__(self.env, name)
        for name, value in fresh.items():
            object.__setattr__(self.env, name, value)

    def check_replay(self, n_steps: int = 50, *, seed: int = 0) -> None:
        """Raise SnapshotError unless restored steps are bitwise those of the original.

        Takes random actions from the state after a seeded reset and a few steps, goes on through
        ends of episodes, goes back and takes them again. Observations, rewards and flags are
        compared. At the end the environment is put back into the state in which it was found.

        Parameters
        ----------
        n_steps
            Random actions to take twice, at least 1.
        seed
            Of the reset and of the actions.
        """
        found = self.take()
        try:
            self._replay(n_steps, seed)
        except SnapshotError:
            raise
        except Exception as error:  # the environment's own, or what a broken copy of it raises
            raise SnapshotError(
                f"the environment raised {type(error).__name__}: {words_of(error)}, while its state was "
                "being tried out"
            ) from error
        finally:
            self.restore(found)

    def _replay(self, n_steps: int, seed: int) -> None:
        env = self.env
        actions = RandomActions(env, seed)
        models = model_bytes(self.take())

        # a state that is not the first of an episode, and what follows from it
        actions.reset(seed=seed)
        for _ in range(3):
            step_on(actions, actions.sample())
        start = self.take()
        chosen: list[Any] = []
        original: list[StepResult] = []
        for _ in range(n_steps):
            chosen.append(actions.sample())
            original.append(step_on(actions, chosen[-1]))
        refuse_rewritten_models(models, start)

        # the same again
        self.restore(start)
        compare_steps(env, original, chosen)


def check_replay(env: Environment, n_steps: int = 100, *, seed: int = 0) -> Snapshotter:
    """See random actions replay bit for bit from a saved state; return what saves it.

    Parameters
    ----------
    env
        It is reset and stepped, and left in the state in which it was found: give a separate copy
        of an environment that matters.
    n_steps
        Actions to replay, at least 1.
    seed
        Seed of the reset and of the actions.

    Raises
    ------
    SnapshotError
        It cannot be saved, or does not replay; one sentence.
    """
    return Snapshotter.for_environment(env, n_steps=n_steps, seed=seed)


def stored_form(snapshot: Snapshot) -> Snapshot:
    """The snapshot as it comes back from a file.

    Parameters
    ----------
    snapshot
        The state of an environment.

    Raises
    ------
    SnapshotError
        It cannot be stored.
    """
    arrays, metadata = snapshot.to_arrays()
    return Snapshot.from_arrays(arrays, json_value(json_array(metadata)))


def step_on(env: Any, action: Any) -> StepResult:
    """One step, and a reset where the episode ended: the observation is the one acted on next.

    Parameters
    ----------
    env
        An environment that has been reset.
    action
        What its ``step`` takes.
    """
    observation, reward, terminated, truncated, _ = env.step(copy.copy(action))
    if terminated or truncated:
        observation = (copy.deepcopy(observation), env.reset()[0])
    return copy.deepcopy(observation), float(reward), bool(terminated), bool(truncated)


def compare_steps(env: Any, original: list[StepResult], actions: list[Any]) -> None:
    """Raise SnapshotError unless these actions lead to the same results as they did.

    Parameters
    ----------
    env
        An environment in the state from which the results came.
    original
        The results, one an action.
    actions
        What ``step`` takes, one after the other.
    """
    for i, (expected, action) in enumerate(zip(original, actions, strict=True)):
        difference = _difference(expected, step_on(env, action))
        if difference is not None:
            raise SnapshotError(
                f"step {i} after a restored state of {inner_name(env)} does not replay: the "
                f"{difference} differs (it may keep state elsewhere: in a module's variable, the "
                "global np.random, a clock, a server)"
            )


def refuse_rewritten_models(before: list[bytes], snapshot: Snapshot) -> None:
    """Raise SnapshotError where MuJoCo's models are not what they were.

    Parameters
    ----------
    before
        What `model_bytes` returned earlier.
    snapshot
        The state of an environment.
    """
    if before != model_bytes(snapshot):
        raise SnapshotError(
            "the environment rewrites its MuJoCo model while it runs, and a model is not part "
            "of a snapshot"
        )


def model_bytes(snapshot: Snapshot) -> list[bytes]:
    """MuJoCo's models behind a snapshot, as they are now.

    Parameters
    ----------
    snapshot
        The state of an environment.
    """
    found: list[bytes] = []
    for model in snapshot.models:
        mujoco = importlib.import_module("mujoco")
        buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        found.append(buffer.tobytes())
    return found


def _difference(a: StepResult, b: StepResult) -> str | None:
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
