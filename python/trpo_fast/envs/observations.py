"""Environments: how they are made, and how their spaces become rows of numbers.

Three things live here, and none of them knows a policy:

* `make_environment` and `open_environments` turn what a user has (a Gymnasium id, an `Env`, a
  factory, a `VectorEnv`) into environments, or into one sentence that says why not;
* `ObservationEncoder` writes an observation of any supported space into one flat row;
* `ActionAdapter` turns a row of stored (unclipped) actions into what `env.step` expects.

Gymnasium is imported when the first environment or space is needed, not with this module.
"""

from __future__ import annotations

import difflib
import importlib.util
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

    from ..core import Distribution

    EnvSource: TypeAlias = (
        str | gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | Callable[[], Any]
    )

Array: TypeAlias = npt.NDArray[Any]

__all__ = [
    "ActionAdapter",
    "EnvironmentFailure",
    "ObservationEncoder",
    "ObservationError",
    "OpenedEnvironments",
    "describe_spaces",
    "environment_name",
    "make_environment",
    "open_environments",
    "spaces_mismatch",
]

_SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"
_SUPPORTED_ACTIONS = "Box, Discrete, MultiDiscrete or MultiBinary"


class EnvironmentFailure(RuntimeError):
    """An environment raised, or broke the Gymnasium interface; `__cause__` holds the original."""


class ObservationError(ValueError):
    """An observation that does not belong to the observation space."""


# --- making environments ---------------------------------------------------------------------


@dataclass(frozen=True)
class OpenedEnvironments:
    """What `open_environments` returns: either `environments` or one `vector_env`, and a name."""

    name: str
    environments: tuple[gymnasium.Env[Any, Any], ...] = ()
    vector_env: VectorEnv[Any, Any, Any] | None = None


def make_environment(source: EnvSource, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make one environment.

    Args:
        source: a Gymnasium id (`"CartPole-v1"`, `"ALE/Breakout-v5"`, `"module:Id-v0"`, where the
            module is imported first; `"envpool:Id-v0"` is an EnvPool of one), an `Env` (returned
            as it is), or a callable without arguments that returns an `Env`.
        kwargs: passed to `gymnasium.make`; allowed with an id only. Gymnasium's passive checker is
            left out unless `disable_env_checker=False` is given: one call less per step.

    Raises:
        ValueError: an unknown id (with the closest known ones), or keyword arguments without an id.
        ImportError: the module of the id, or a package that the environment needs, is missing.
        TypeError: anything that is not an environment.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(source, str) and source.startswith("envpool:"):
        from .single_envpool import SingleEnvPool

        return SingleEnvPool(source, **kwargs)
    if isinstance(source, str):
        return _make_from_id(source, kwargs)
    if kwargs:
        names = ", ".join(sorted(kwargs))
        raise ValueError(
            f"environment keyword arguments ({names}): allowed with a Gymnasium id only, got "
            f"{type(source).__name__}; set them where that environment is made"
        )
    if isinstance(source, VectorEnv):
        raise TypeError(
            f"env: expected one environment, got the vector environment {source!r}; "
            "pass an id, an Env or a factory"
        )
    if isinstance(source, gymnasium.Env):
        return source
    if not callable(source):
        raise TypeError(
            f"env: expected a Gymnasium id, an Env, a VectorEnv or a callable that returns an Env, "
            f"got {type(source).__name__}"
        )
    made = source()
    if not isinstance(made, gymnasium.Env):
        raise TypeError(
            f"env: the factory must return a gymnasium.Env, got {type(made).__name__}; "
            "does the function end with `return env`?"
        )
    return made


def copy_environment(source: EnvSource, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make one more of an environment that was made before, by `make_environment`.

    What MuJoCo warns of while it compiles the model has been said then, and is not said again.
    """
    mujoco = _mujoco_of(source)
    if mujoco is None:
        return make_environment(source, **kwargs)
    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        return make_environment(source, **kwargs)
    finally:
        mujoco.set_mju_user_warning(handler)


def maker_of(env: Any) -> Callable[..., gymnasium.Env[Any, Any]] | None:
    """Makes an environment like the given one, or like those inside a vector environment.

    Keyword arguments of the result are those of `gymnasium.make`.

    Returns:
        None where it was not made by `gymnasium.make` or `make_vec`, or where something around a vector
        environment may change what the environments inside return.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    spec = getattr(env, "spec", None)
    if not isinstance(spec, gymnasium.envs.registration.EnvSpec):
        return None
    if not isinstance(env, VectorEnv):
        return partial(gymnasium.make, spec)
    if env.unwrapped is not env:
        return None
    # what make_vec keeps beside the arguments of one environment
    kwargs = dict(spec.kwargs)
    for name in ("num_envs", "vectorization_mode", "vector_kwargs"):
        kwargs.pop(name, None)
    wrappers = kwargs.pop("wrappers", None) or ()

    def make(**more: Any) -> gymnasium.Env[Any, Any]:
        made = gymnasium.make(spec.id, **{**kwargs, **more})
        for wrapper in wrappers:
            made = wrapper(made)
        return made

    return make


def _mujoco_of(source: EnvSource) -> Any:
    """The module mujoco, if it is imported, or is going to be for this environment."""
    import gymnasium

    if isinstance(source, str) and "mujoco" not in sys.modules:
        spec = gymnasium.registry.get(source)
        uses_it = spec is not None and ".mujoco" in str(spec.entry_point)
        if uses_it and importlib.util.find_spec("mujoco") is not None:
            importlib.import_module("mujoco")
    module = sys.modules.get("mujoco")
    return module if hasattr(module, "get_mju_user_warning") else None  # since MuJoCo 2.3.3


def open_environments(
    source: EnvSource,
    *,
    n_envs: int,
    env_kwargs: Mapping[str, Any] | None = None,
    are_copies: bool = False,
) -> OpenedEnvironments:
    """Open the environments of a run: `n_envs` of them from an id or a factory.

    An `Env` instance cannot be copied, so it gives exactly one environment; a `VectorEnv` gives as
    many as it holds. In both cases `n_envs` is not used. `are_copies`: others were made elsewhere, see
    `copy_environment`.

    Raises:
        ValueError, ImportError, TypeError: see `make_environment`; also a factory that returns the
            same object twice.
    """
    import gymnasium
    from gymnasium.vector import VectorEnv

    if isinstance(n_envs, bool) or operator.index(n_envs) < 1:
        raise ValueError(f"n_envs: expected at least 1, got {n_envs}")
    kwargs = dict(env_kwargs or {})
    name = environment_name(source)
    if isinstance(source, VectorEnv):
        if kwargs:
            make_environment(source, **kwargs)  # raises the sentence about keyword arguments
        return OpenedEnvironments(name, vector_env=source)
    if isinstance(source, gymnasium.Env):
        return OpenedEnvironments(name, (make_environment(source, **kwargs),))
    if callable(source) and not kwargs:
        # a factory may make a whole vector environment
        first = source()
        if isinstance(first, VectorEnv):
            return OpenedEnvironments(environment_name(first), vector_env=first)
        made = [make_environment(lambda: first)]
    else:
        make_first = copy_environment if are_copies else make_environment
        made = [make_first(source, **kwargs)]
    try:
        while len(made) < n_envs:
            environment = copy_environment(source, **kwargs)
            if any(environment is other for other in made):
                raise ValueError(
                    f"env: the factory returned the same object for environments 0 and {len(made)};"
                    " it must make a new environment at every call (or use n_envs=1)"
                )
            made.append(environment)
    except BaseException:
        for environment in made:
            environment.close()
        raise
    if not isinstance(source, str):
        name = environment_name(made[0])
    return OpenedEnvironments(name, tuple(made))


def environment_name(source: EnvSource) -> str:
    """The Gymnasium id where there is one, otherwise the name of the class or function."""
    if isinstance(source, str):
        return source
    env_id = getattr(getattr(source, "spec", None), "id", None)
    if env_id is not None:
        return str(env_id)
    unwrapped = getattr(source, "unwrapped", source)
    return str(getattr(unwrapped, "__name__", type(unwrapped).__name__))


def _make_from_id(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    import gymnasium

    _register_atari(env_id)
    try:
        return gymnasium.make(env_id, **{"disable_env_checker": True, **kwargs})
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        raise ValueError(_unknown_id_sentence(env_id)) from error
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise ImportError(
            f"environment {env_id!r} needs a package that cannot be imported: {error}"
        ) from error
    except gymnasium.error.Error as error:
        raise ValueError(f"environment {env_id!r} cannot be made: {error}") from error


def _register_atari(env_id: str) -> None:
    """Register the Arcade Learning Environment, whose ids exist only once it is imported."""
    import gymnasium

    if ":" in env_id or env_id in gymnasium.registry:
        return
    if importlib.util.find_spec("ale_py") is not None:
        import ale_py

        gymnasium.register_envs(ale_py)
    elif env_id.startswith("ALE/"):
        raise ImportError(
            f"environment {env_id!r} needs the package ale-py, which is not installed; "
            "pip install 'trpo_fast[atari]'"
        )


def _unknown_id_sentence(env_id: str) -> str:
    import gymnasium

    known = sorted(gymnasium.registry)
    name = env_id.rpartition(":")[2]
    stem = name.partition("-v")[0].lower()
    # the same name in another version or spelling, newest first, or else names that look alike
    matches = [other for other in known if other.partition("-v")[0].lower() == stem][::-1]
    if not matches:
        lowered = {other.lower(): other for other in known}
        close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
        matches = [lowered[other] for other in close]
    hint = (
        f"did you mean {' or '.join(matches[:3])}?"
        if matches
        else "gymnasium.pprint_registry() lists the known ids"
    )
    return (
        f"env: no environment is registered as {env_id!r}; {hint} "
        "(an environment of your own package is named 'module:Id-v0')"
    )


# --- observations ----------------------------------------------------------------------------

_Write: TypeAlias = Callable[[Any, Array], None]


class ObservationEncoder:
    """Writes observations of one space into flat rows of `dim` numbers.

    The row is what `gymnasium.spaces.flatten` gives, as floating-point numbers:

    * Box of any shape: its entries in C order (uint8 images and RAM as 0.0 to 255.0);
    * Discrete: one-hot of `value - start`; MultiDiscrete: one one-hot after the other, in C order;
    * MultiBinary: its entries in C order;
    * Tuple: its parts one after the other; Dict: its parts in the order of `space.spaces`, which
      is sorted by key where the space was built from a plain dictionary.

    Attributes:
        space: the space of one observation.
        dim: length of a row.
        dtype: NumPy dtype of the rows.
        is_plain: the space is a one-dimensional Box, so that `row[:] = observation` is the whole
            encoding once `len(observation) == dim` is checked.
    """

    def __init__(self, space: Any, dtype: npt.DTypeLike) -> None:
        from gymnasium import spaces

        self.space = space
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.dim = _flat_dim(space, space)
        if self.dim == 0:
            raise ValueError(
                f"observation space: {space} has no entries; a policy needs at least one number"
            )
        self.is_plain = isinstance(space, spaces.Box) and len(space.shape) == 1
        self._write: _Write = _observation_writer(space, "observation")
        self._write_batch: _Write = _batch_writer(space, "observation")

    @classmethod
    def from_space(cls, space: Any, dtype: npt.DTypeLike = "float32") -> ObservationEncoder:
        """An encoder for `space`; raises TypeError for a space that has no fixed-size encoding."""
        return cls(space, dtype)

    def write(self, observation: Any, row: Array) -> None:
        """Write one observation into `row`, shape `(dim,)`.

        Raises:
            ObservationError: a wrong shape, or a discrete value outside its range; `row` may be
                partly written.
        """
        self._write(observation, row)

    def write_batch(self, observations: Any, rows: Array) -> None:
        """Write the observation batch of a vector environment into `rows`, shape `(N, dim)`."""
        self._write_batch(observations, rows)

    def encode(self, observation: Any) -> Array:
        """One observation as a new row, shape `(dim,)`."""
        row = np.empty(self.dim, self.dtype)
        self._write(observation, row)
        return row

    def encode_batch(self, observations: Any, n: int) -> Array:
        """A batch of `n` observations, laid out as vector environments do, shape `(n, dim)`."""
        rows = np.empty((n, self.dim), self.dtype)
        self._write_batch(observations, rows)
        return rows

    def encode_any(self, observation: Any) -> tuple[Array, bool]:
        """One observation or a batch: `(rows of shape (N, dim), whether it was a batch)`.

        A batch has one leading axis more than the space, in every leaf of a Dict or Tuple space.

        Raises:
            ObservationError: the shape is neither that of one observation nor that of a batch.
        """
        leaf_space, leaf = _first_leaf(self.space, observation)
        extra = np.ndim(leaf) - len(leaf_space.shape)
        if extra == 1:
            return self.encode_batch(observation, len(leaf)), True
        if extra != 0:
            raise ObservationError(
                f"observation: expected shape {leaf_space.shape} or a batch "
                f"{_batch_shape(leaf_space.shape)}, got {np.shape(leaf)}"
            )
        return self.encode(observation)[np.newaxis], False

    def __reduce__(self) -> tuple[Any, ...]:
        # the writers are closures: rebuild them from the space
        return ObservationEncoder, (self.space, self.dtype.name)

    def __repr__(self) -> str:
        return f"ObservationEncoder({self.space}, dim={self.dim}, dtype={self.dtype.name})"


def _unsupported(kind: str, space: Any, supported: str) -> TypeError:
    return TypeError(
        f"{kind} space: {space} is not supported; expected {supported}. "
        f"Wrap the environment (gymnasium.{kind.capitalize()}Wrapper) so that its {kind} space is "
        "one of these"
    )


def _flat_dim(space: Any, whole: Any) -> int:
    from gymnasium import spaces

    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape, dtype=np.int64))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Dict):
        return sum(_flat_dim(part, whole) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return sum(_flat_dim(part, whole) for part in space.spaces)
    raise _unsupported("observation", whole, _SUPPORTED_OBSERVATIONS)


def _batch_shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["N", *map(str, shape)]) + ")"


def _wrong_shape(where: str, expected: object, value: Any) -> ObservationError:
    try:
        got = str(np.shape(value))
    except ValueError:
        got = "a ragged sequence"
    if not isinstance(value, np.ndarray):
        got += f" ({type(value).__name__})"
    return ObservationError(
        f"{where}: expected shape {expected}, got {got}; "
        "the environment's observation_space and what it returns must agree"
    )


def _observation_writer(space: Any, where: str) -> _Write:
    """The function that writes one observation of `space` into a row of its length."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return _plain_writer(space.shape[0], where)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return _array_writer(space.shape, where)
    if isinstance(space, spaces.Discrete):
        return _one_hot_writer(int(space.n), int(space.start), where)
    if isinstance(space, spaces.MultiDiscrete):
        write_rows = _multi_one_hot_batch_writer(space, where)

        def write_multi(observation: Any, row: Array) -> None:
            write_rows(np.asarray(observation)[np.newaxis], row[np.newaxis])

        return write_multi
    return _parts_writer(space, where, _observation_writer, batched=False)


def _plain_writer(dim: int, where: str) -> _Write:
    def write(observation: Any, row: Array) -> None:
        # len() refuses what NumPy would silently broadcast: numbers and one-entry arrays
        try:
            agrees = len(observation) == dim
        except TypeError:
            agrees = False
        if not agrees or np.ndim(observation) != 1:
            raise _wrong_shape(where, (dim,), observation)
        row[:] = observation

    return write


def _array_writer(shape: tuple[int, ...], where: str) -> _Write:
    def write(observation: Any, row: Array) -> None:
        values = np.asarray(observation)
        if values.shape != shape:
            raise _wrong_shape(where, shape, observation)
        row.reshape(shape)[...] = values

    return write


def _one_hot_writer(n: int, start: int, where: str) -> _Write:
    def write(observation: Any, row: Array) -> None:
        try:
            index = operator.index(observation) - start
        except TypeError:
            raise ObservationError(
                f"{where}: expected an integer in [{start}, {start + n - 1}], got {observation!r}"
            ) from None
        if not 0 <= index < n:
            raise ObservationError(
                f"{where}: expected an integer in [{start}, {start + n - 1}], got {index + start}"
            )
        row[:] = 0
        row[index] = 1

    return write


def _batch_writer(space: Any, where: str) -> _Write:
    """The function that writes a batch, laid out as vector environments do, into rows."""
    from gymnasium import spaces

    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return _array_batch_writer(space.shape, where)
    if isinstance(space, spaces.Discrete):
        as_multi = spaces.MultiDiscrete([int(space.n)], start=[int(space.start)])
        write_rows = _multi_one_hot_batch_writer(as_multi, where)

        def write_discrete(observations: Any, rows: Array) -> None:
            values = np.asarray(observations)
            if values.shape != rows.shape[:1]:
                raise _wrong_shape(where, rows.shape[:1], observations)
            write_rows(values[:, np.newaxis], rows)

        return write_discrete
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_one_hot_batch_writer(space, where)
    return _parts_writer(space, where, _batch_writer, batched=True)


def _array_batch_writer(shape: tuple[int, ...], where: str) -> _Write:
    def write(observations: Any, rows: Array) -> None:
        values = np.asarray(observations)
        expected = (len(rows), *shape)
        if values.shape != expected:
            raise _wrong_shape(where, expected, observations)
        # assignment converts in place: no intermediate array of another dtype
        rows[...] = values.reshape(len(rows), -1)

    return write


def _multi_one_hot_batch_writer(space: Any, where: str) -> _Write:
    shape: tuple[int, ...] = space.shape
    sizes = space.nvec.ravel().astype(np.int64)
    start = space.start.ravel().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def write(observations: Any, rows: Array) -> None:
        values = np.asarray(observations)
        expected = (len(rows), *shape)
        if values.shape != expected:
            raise _wrong_shape(where, expected, observations)
        if values.dtype.kind not in "iu":
            raise ObservationError(f"{where}: expected integers, got dtype {values.dtype}")
        indices = values.reshape(len(rows), -1).astype(np.int64) - start
        wrong = np.argwhere((indices < 0) | (indices >= sizes))
        if len(wrong):
            n, k = wrong[0]
            raise ObservationError(
                f"{where}: entry {k}: expected an integer in "
                f"[{start[k]}, {start[k] + sizes[k] - 1}], got {indices[n, k] + start[k]}"
            )
        rows[...] = 0
        np.put_along_axis(rows, indices + offsets, 1, axis=1)

    return write


def _parts_writer(
    space: Any, where: str, writer: Callable[[Any, str], _Write], *, batched: bool
) -> _Write:
    """Writes the parts of a Dict or Tuple space side by side, in the order of `space.spaces`."""
    from gymnasium import spaces

    keyed = isinstance(space, spaces.Dict)
    items = list(space.spaces.items()) if keyed else list(enumerate(space.spaces))
    parts: list[tuple[Any, slice, _Write]] = []
    begin = 0
    for key, part in items:
        end = begin + _flat_dim(part, space)
        parts.append((key, slice(begin, end), writer(part, f"{where}[{key!r}]")))
        begin = end

    def write(observation: Any, out: Array) -> None:
        if keyed and not isinstance(observation, Mapping):
            raise ObservationError(
                f"{where}: expected a dictionary with the keys {[key for key, _ in items]}, "
                f"got {type(observation).__name__}"
            )
        if not keyed and len(observation) != len(items):
            raise ObservationError(
                f"{where}: expected a tuple of {len(items)} parts, got {len(observation)}"
            )
        for key, columns, write_part in parts:
            try:
                value = observation[key]
            except KeyError:
                raise ObservationError(
                    f"{where}: key {key!r} is missing, got {sorted(map(str, observation))}"
                ) from None
            write_part(value, out[..., columns])

    return write


def _first_leaf(space: Any, value: Any) -> tuple[Any, Any]:
    """The first part of `value` that is not a Dict or Tuple, with its space."""
    from gymnasium import spaces

    while isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        key, part = next(iter(items))
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise ObservationError(
                f"observation: expected the structure of {space}, got {type(value).__name__} "
                f"without {key!r}"
            ) from None
        space = part
    return space, value


# --- actions ---------------------------------------------------------------------------------


class ActionAdapter:
    """Turns stored actions into what `env.step` expects.

    Stored actions are what the distribution sampled: float rows, unclipped, for a Gaussian;
    int32 rows, counted from 0, for discrete distributions. Clipping and shifting happen here and
    touch a copy only, because the log-probability belongs to the action that was sampled.

    * Box: clipped to `[low, high]`, reshaped, in the dtype of the space (integer dtypes: rounded to
      the nearest integer);
    * Discrete: `int(action) + start`; MultiDiscrete: `action + start`, reshaped; MultiBinary:
      reshaped; all in the dtype of the space.

    Attributes:
        space: the action space of one environment.
        kind: kind of the distribution, see `trpo_fast.core.Distribution`.
        sizes: its sizes: `(A,)`, `(n,)`, `(n1, n2, ...)` or `(n,)`.
        action_dim: K, the length of a stored row.
    """

    def __init__(self, space: Any, state_dependent_std: bool = False) -> None:
        from gymnasium import spaces

        self.space = space
        self.state_dependent_std = bool(state_dependent_std)
        self.kind: str
        self.sizes: tuple[int, ...]
        # start: what is added to a stored discrete action
        self._start: Array | None = None
        if isinstance(space, spaces.Box):
            self.kind = "state_dependent_gaussian" if state_dependent_std else "gaussian"
            self.sizes = (int(np.prod(space.shape, dtype=np.int64)),)
        elif isinstance(space, spaces.Discrete):
            self.kind, self.sizes = "categorical", (int(space.n),)
            self._start = np.asarray(space.start)
        elif isinstance(space, spaces.MultiDiscrete):
            self.kind = "multi_categorical"
            self.sizes = tuple(int(n) for n in space.nvec.ravel())
            self._start = np.asarray(space.start)
        elif isinstance(space, spaces.MultiBinary):
            self.kind = "bernoulli"
            self.sizes = (int(np.prod(space.shape, dtype=np.int64)),)
        else:
            raise _unsupported("action", space, _SUPPORTED_ACTIONS)
        if sum(self.sizes) == 0:
            raise ValueError(f"action space: {space} has no entries; a policy needs at least one")
        self.action_dim = {"categorical": 1, "multi_categorical": len(self.sizes)}.get(
            self.kind, self.sizes[0]
        )
        self.is_discrete = "gaussian" not in self.kind

    @classmethod
    def from_space(cls, space: Any, *, state_dependent_std: bool = False) -> ActionAdapter:
        """An adapter for `space`; raises TypeError for a space without a distribution."""
        return cls(space, state_dependent_std)

    @property
    def distribution(self) -> Distribution:
        """The action distribution that fits this space."""
        from ..core import Distribution

        return Distribution(self.kind, self.sizes)  # type: ignore[arg-type, unused-ignore]

    def stored_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """dtype of stored actions under a policy of the given dtype."""
        return np.dtype(np.int32) if self.is_discrete else np.dtype(dtype)

    def to_env(self, actions: Array) -> Any:
        """Stored actions as the environment wants them.

        Args:
            actions: one row `(K,)`, or a batch `(N, K)`.

        Returns:
            For one row: an array of the space's shape, or an `int` for Discrete. For a batch: an
            array of shape `(N, *space.shape)`, as `VectorEnv.step` expects. Always a new object,
            never a view of `actions`.

        Raises:
            ValueError: a wrong shape.
        """
        actions = np.asarray(actions)
        if actions.shape[-1:] != (self.action_dim,) or actions.ndim > 2:
            raise ValueError(
                f"actions: expected shape ({self.action_dim},) or (N, {self.action_dim}), "
                f"got {actions.shape}; is the action space {self.space}?"
            )
        if actions.ndim == 1:
            row = self.batch_converter(1)(actions[np.newaxis])[0, ...]
            return int(row) if self.kind == "categorical" else row
        return self.batch_converter(len(actions))(actions)

    def batch_converter(
        self, n: int, dtype: npt.DTypeLike | None = None
    ) -> Callable[[Array], Array]:
        """The function behind `to_env` for batches of exactly `n`, without its checks.

        `dtype` is that of the stored actions where the caller knows it; they must be C-contiguous
        then.
        """
        space_dtype = np.dtype(self.space.dtype)
        shape: tuple[int, ...] = (n, *self.space.shape)
        if self.is_discrete:
            return self._discrete_converter(space_dtype, shape)
        low, high = self.space.low.ravel(), self.space.high.ravel()
        is_float = space_dtype in (np.float32, np.float64)
        if is_float and dtype is not None and np.promote_types(dtype, space_dtype) == space_dtype:
            from ..core import ActionClip

            native = ActionClip(low, high, dtype).clip
            return native if len(shape) == 2 else lambda actions: native(actions).reshape(shape)

        def clip(actions: Array) -> Array:
            clipped: Array = np.minimum(np.maximum(actions, low), high)
            return clipped

        if space_dtype.kind != "f":
            return lambda actions: np.rint(clip(actions)).astype(space_dtype).reshape(shape)
        return lambda actions: clip(actions).astype(space_dtype, copy=False).reshape(shape)

    def _discrete_converter(
        self, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Callable[[Array], Array]:
        start = self._start
        if start is None or not start.any():
            return lambda actions: actions.astype(dtype).reshape(shape)
        return lambda actions: actions.astype(dtype).reshape(shape) + start

    def step_converter(
        self, n: int, dtype: npt.DTypeLike | None = None
    ) -> Callable[[Array], Sequence[Any]]:
        """Stored actions `(n, K)` as `n` separate arguments of `env.step`.

        As `batch_converter`, except that Discrete gives a list of `int`. The objects are new at
        every call: an environment may keep the action that it was given.
        """
        if self.kind != "categorical":
            convert = self.batch_converter(n, dtype)
            if self.space.shape:
                return convert  # type: ignore[return-value]
            # a Box without axes: arrays without axes, not NumPy scalars
            return lambda actions: list(map(np.squeeze, np.split(convert(actions), n)))
        start = int(self.space.start)
        if start == 0:
            return lambda actions: actions.ravel().tolist()
        return lambda actions: (actions.ravel() + start).tolist()

    def __repr__(self) -> str:
        return f"ActionAdapter({self.space}, kind={self.kind!r}, sizes={self.sizes})"


# --- what a checkpoint says about its environment ----------------------------------------------


def describe_spaces(observation_space: Any, action_space: Any) -> dict[str, Any]:
    """The two spaces as plain JSON values, for checkpoints.

    Observation bounds are left out: they do not change what a policy reads. Action bounds are kept:
    they are what actions are clipped to. Infinite bounds are the strings "inf" and "-inf".
    """
    return {
        "observation": _describe(observation_space, with_bounds=False),
        "action": _describe(action_space, with_bounds=True),
    }


def spaces_mismatch(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """One sentence about how two results of `describe_spaces` differ, or None if they agree."""
    for part in ("observation", "action"):
        if saved.get(part) != current.get(part):
            return (
                f"{part} space: expected {_summarise(saved.get(part))}, "
                f"got {_summarise(current.get(part))}; "
                "the environment must be the one that the policy was trained on"
            )
    return None


def _describe(space: Any, *, with_bounds: bool) -> dict[str, Any]:
    from gymnasium import spaces

    description: dict[str, Any] = {"type": type(space).__name__}
    if isinstance(space, spaces.Box):
        description["shape"] = [int(n) for n in space.shape]
        description["dtype"] = np.dtype(space.dtype).name
        if with_bounds:
            description["low"] = [_json_number(x) for x in space.low.ravel()]
            description["high"] = [_json_number(x) for x in space.high.ravel()]
    elif isinstance(space, spaces.Discrete):
        description["n"] = int(space.n)
        description["start"] = int(space.start)
    elif isinstance(space, spaces.MultiDiscrete):
        description["shape"] = [int(n) for n in space.shape]
        description["nvec"] = [int(n) for n in space.nvec.ravel()]
        description["start"] = [int(n) for n in space.start.ravel()]
    elif isinstance(space, spaces.MultiBinary):
        description["shape"] = [int(n) for n in space.shape]
    elif isinstance(space, spaces.Dict):
        # a list of pairs, because the order is part of the meaning
        description["spaces"] = [
            [str(key), _describe(part, with_bounds=with_bounds)]
            for key, part in space.spaces.items()
        ]
    elif isinstance(space, spaces.Tuple):
        description["spaces"] = [
            [str(k), _describe(part, with_bounds=with_bounds)]
            for k, part in enumerate(space.spaces)
        ]
    return description


def _json_number(value: Any) -> float | str:
    number = float(value)
    return number if np.isfinite(number) else str(number)


def _summarise(description: Any) -> str:
    if not isinstance(description, Mapping):
        return "none"
    settings = ", ".join(
        f"{key}={value}"
        if key != "spaces"
        else ", ".join(f"{name}: {_summarise(part)}" for name, part in value)
        for key, value in description.items()
        if key != "type"
    )
    return f"{description.get('type')}({settings})"
