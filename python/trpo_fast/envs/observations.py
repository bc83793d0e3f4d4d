"""Observations of any supported space as flat rows of numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ObservationError, unsupported_space
from .given import got, part_of, tuple_of_the_interface
from .plain_spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, plain_space

Array: TypeAlias = npt.NDArray[Any]

_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"

_Write: TypeAlias = Callable[[Any, Array], None]


class ObservationEncoder:
    """Writes observations of one space into flat rows of O = `dim` numbers.

    The row is what `gymnasium.spaces.flatten` gives, as floating-point numbers:

    * Box of any shape: its entries in C order (uint8 images and RAM as 0.0 to 255.0);
    * Discrete: one-hot of `value - start`; MultiDiscrete: one one-hot after the other, in C order;
    * MultiBinary: its entries in C order;
    * Tuple: its parts one after the other; Dict: its parts in the order of `space.spaces`, which
      is sorted by key where the space was built from a plain dictionary.

    Parameters
    ----------
    space
        The space of one observation: Gymnasium's, or one of :mod:`.plain_spaces`.
    dtype
        dtype of the rows: float32 or float64.

    Attributes
    ----------
    space
        The space of one observation.
    dim : int
        Length O of a row.
    dtype : numpy.dtype
        dtype of the rows.
    is_plain : bool
        The space is a one-dimensional Box, so that `row[:] = observation` is the whole encoding
        once `len(observation) == dim` is checked.

    Raises
    ------
    TypeError
        If the space has no fixed-size encoding.
    ValueError
        If the space has no entries.
    """

    def __init__(self, space: Any, dtype: npt.DTypeLike) -> None:
        self.space = space
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._plain = plain = plain_space(space)
        self.dim = _flat_dim(plain, space)
        if self.dim == 0:
            raise ValueError(
                f"observation space: {space} has no entries; a policy needs at least one number"
            )
        self.is_plain = isinstance(plain, Box) and len(plain.shape) == 1
        self._write: _Write = _observation_writer(plain, "observation")
        self._write_batch: _Write = _batch_writer(plain, "observation")

    @classmethod
    def from_space(cls, space: Any, dtype: npt.DTypeLike = "float32") -> ObservationEncoder:
        """Return `ObservationEncoder(space, dtype)`, in the precision of a policy by default.

        Parameters
        ----------
        space
            The Gymnasium space.
        dtype
            float32 or float64.
        """
        return cls(space, dtype)

    def write(self, observation: Any, row: Array) -> None:
        """Write one observation into a row.

        Parameters
        ----------
        observation
            An element of the space, as the environment gives it.
        row
            (O,) float, written to.

        Raises
        ------
        ObservationError
            If the observation has a wrong shape, or a discrete value outside its range; `row` may
            be partly written then.
        """
        self._write(observation, row)

    def write_batch(self, observations: Any, rows: Array) -> None:
        """Write a batch of observations into rows.

        Parameters
        ----------
        observations
            N observations, laid out as vector environments do: one leading axis in every leaf.
        rows
            (N, O) float, written to.

        Raises
        ------
        ObservationError
            As in `write`.
        """
        self._write_batch(observations, rows)

    def encode(self, observation: Any) -> Array:
        """Return one observation as a new row, (O,); see `write`.

        Parameters
        ----------
        observation
            An element of the space.
        """
        row = np.empty(self.dim, self.dtype)
        self._write(observation, row)
        return row

    def encode_batch(self, observations: Any, n: int) -> Array:
        """Return a batch of `n` observations as new rows, (n, O); see `write_batch`.

        Parameters
        ----------
        observations
            As in `write_batch`.
        n
            How many threads to leave to others, at least 0.
        """
        rows = np.empty((n, self.dim), self.dtype)
        self._write_batch(observations, rows)
        return rows

    def encode_any(self, observation: Any) -> tuple[Array, bool]:
        """Encode one observation or a batch, whichever is given.

        Parameters
        ----------
        observation
            An element of the space, or a batch: one leading axis more than the space, in every leaf
            of a Dict or Tuple space.

        Returns
        -------
        rows : ndarray
            (N, O) float; N is 1 for one observation.
        is_batch : bool
            Whether a batch was given.

        Raises
        ------
        ObservationError
            If it is neither one observation nor a batch of at least one.
        """
        try:
            return self._encode_any(observation)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            mistake = tuple_of_the_interface(observation, self._plain)
            if mistake is not None:
                raise ObservationError(mistake) from None
            if isinstance(error, ObservationError):
                raise
            raise ObservationError(
                f"observation: expected an element of {self.space} or a batch of them, got "
                f"{got(observation)}, which does not become numbers ({error!s:.120})"
            ) from error

    def _encode_any(self, observation: Any) -> tuple[Array, bool]:
        leaf_space, leaf = _first_leaf(self._plain, observation)
        extra = np.ndim(leaf) - len(leaf_space.shape)
        if extra == 1 and len(leaf) == 0:
            raise ObservationError(
                "observation: expected one observation or a batch of at least one, got an empty "
                f"batch: {got(leaf)}"
            )
        if extra == 1:
            return self.encode_batch(observation, len(leaf)), True
        if extra != 0:
            raise ObservationError(
                f"observation: expected shape {leaf_space.shape} or a batch "
                f"{_batch_shape(leaf_space.shape)}, got {got(leaf)}"
            )
        return self.encode(observation)[np.newaxis], False

    def __reduce__(self) -> tuple[Any, ...]:
        # the writers are closures, which cannot be pickled: the copy builds them from the space
        return ObservationEncoder, (self.space, self.dtype.name)

    def __repr__(self) -> str:
        return f"ObservationEncoder({self.space}, dim={self.dim}, dtype={self.dtype.name})"


def _flat_dim(space: Any, whole: Any) -> int:
    if isinstance(space, Box | MultiBinary):
        return int(np.prod(space.shape, dtype=np.int64))
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, Dict):
        return sum(_flat_dim(part, whole) for part in space.spaces.values())
    if isinstance(space, Tuple):
        return sum(_flat_dim(part, whole) for part in space.spaces)
    raise unsupported_space("observation", whole, _SUPPORTED)


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


def _real(value: Any, where: str, expected: tuple[int, ...]) -> Array:
    """A value as an array; ObservationError where it is ragged, masked, or holds no real numbers.

    NumPy would turn texts and dates into numbers, and drop masks and imaginary parts.
    """
    try:
        values = np.asarray(value)
    except ValueError:
        raise _wrong_shape(where, expected, value) from None
    if values.dtype.kind == "c":
        raise ObservationError(
            f"{where}: expected real numbers, got {values.dtype.name}; return real and imaginary "
            "parts as entries of their own"
        )
    if values.dtype.kind not in "fiubO":
        raise ObservationError(
            f"{where}: expected numbers, got dtype {values.dtype}; encode them as numbers"
        )
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ObservationError(
            f"{where}: expected numbers in every entry, got masked ones; fill them (array.filled)"
        )
    return values


def _observation_writer(space: Any, where: str) -> _Write:
    """Return the function that writes one observation of `space` into a row of its length."""
    if isinstance(space, Box) and len(space.shape) == 1:
        return _plain_writer(space.shape[0], where)
    if isinstance(space, Box | MultiBinary):
        return _array_writer(space.shape, where)
    if isinstance(space, Discrete):
        return _one_hot_writer(int(space.n), int(space.start), where)
    if isinstance(space, MultiDiscrete):
        write_rows = _multi_one_hot_batch_writer(space, where)

        def write_multi(observation: Any, row: Array) -> None:
            write_rows(np.asarray(observation)[np.newaxis], row[np.newaxis])

        return write_multi
    return _parts_writer(space, where, _observation_writer, batched=False)


def _plain_writer(dim: int, where: str) -> _Write:
    shape = (dim,)

    def write(observation: Any, row: Array) -> None:
        is_array = type(observation) is np.ndarray and observation.shape == shape
        if is_array and observation.dtype.kind in "fiub":
            row[:] = observation
            return
        # len() refuses what NumPy would silently broadcast: numbers and one-entry arrays
        try:
            agrees = len(observation) == dim
        except TypeError:
            agrees = False
        if not agrees or _real(observation, where, shape).ndim != 1:
            raise _wrong_shape(where, shape, observation)
        row[:] = observation

    return write


def _array_writer(shape: tuple[int, ...], where: str) -> _Write:
    def write(observation: Any, row: Array) -> None:
        values = _real(observation, where, shape)
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
    """Return the function that writes a batch, laid out as vector environments do, into rows."""
    if isinstance(space, Box | MultiBinary):
        return _array_batch_writer(space.shape, where)
    if isinstance(space, Discrete):
        as_multi = MultiDiscrete(np.array([space.n]), np.array([space.start]))
        write_rows = _multi_one_hot_batch_writer(as_multi, where)

        def write_discrete(observations: Any, rows: Array) -> None:
            values = np.asarray(observations)
            if values.shape != rows.shape[:1]:
                raise _wrong_shape(where, rows.shape[:1], observations)
            write_rows(values[:, np.newaxis], rows)

        return write_discrete
    if isinstance(space, MultiDiscrete):
        return _multi_one_hot_batch_writer(space, where)
    return _parts_writer(space, where, _batch_writer, batched=True)


def _array_batch_writer(shape: tuple[int, ...], where: str) -> _Write:
    def write(observations: Any, rows: Array) -> None:
        expected = (len(rows), *shape)
        values = _real(observations, where, expected)
        if values.shape != expected:
            raise _wrong_shape(where, expected, observations)
        # the assignment converts while it copies: no intermediate array of another dtype is made
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
    """Return a writer of the parts of a Dict or Tuple space, in the order of `space.spaces`."""
    keyed = isinstance(space, Dict)
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
        if not keyed and isinstance(observation, Mapping):
            raise ObservationError(f"{where}: expected a tuple, got {got(observation)}")
        if not keyed and len(observation) != len(items):
            raise ObservationError(
                f"{where}: expected a tuple of {len(items)} parts, got {len(observation)}"
            )
        for key, columns, write_part in parts:
            write_part(part_of(observation, key, where), out[..., columns])

    return write


def _first_leaf(space: Any, value: Any) -> tuple[Any, Any]:
    """Return the space and the value of the first part that is not a Dict or Tuple."""
    while isinstance(space, Dict | Tuple):
        items = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        key, part = next(iter(items))
        value = part_of(value, key, "observation")
        space = part
    return space, value
