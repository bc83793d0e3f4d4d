"""Memory that a worker process and its parent share.

It has no name: nothing in /dev/shm or on a disk outlives its processes, however they end, and a
container's limit on /dev/shm does not apply.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data import ROW_ARRAYS
from ..filling import RolloutBuffers

Array: TypeAlias = npt.NDArray[Any]

_ALIGNMENT = 64  # bytes, a cache line

# NaNs that no arithmetic makes, for entries that nothing was written to. They tell how far a worker
# came without any bookkeeping between two steps.
_UNWRITTEN = {4: np.uint32(0x7FC0DEAD), 8: np.uint64(0x7FF800000000DEAD)}


def anonymous_file() -> int:
    """A new file descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        return beyond_standard(os.memfd_create("trpo_fast"))
    with tempfile.TemporaryFile() as file:  # unlinked from the start
        return beyond_standard(os.dup(file.fileno()))


def beyond_standard(descriptor: int) -> int:
    """Move a file descriptor out of the numbers of the standard streams.

    It has such a number where a standard stream was closed, and a child that inherits it would take
    it for its own standard stream.

    Parameters
    ----------
    descriptor
        An open descriptor; closed if it is moved.

    Returns
    -------
    int
        A descriptor of the same file, at least 3.
    """
    if descriptor > 2:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


@dataclass(frozen=True)
class PolicyNumbers:
    """The numbers of a policy that change: those that workers act by.

    Attributes
    ----------
    parameters
        (D,), dtype.
    normalizer
        Whether observations are normalised, the clip and the epsilon: (3,), float64.
    mean, variance
        Of the normalisation: (O,), float64.
    """

    parameters: Array
    normalizer: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, policy: Any) -> PolicyNumbers:
        """The numbers of a policy at this moment.

        Parameters
        ----------
        policy
            A `PortablePolicy`.
        """
        by, zeros = policy.normalizer, np.zeros(policy.obs_dim)
        if by is None:
            return cls(policy.parameters, np.zeros(3), zeros, zeros)
        facts = np.array([1.0, by.clip, by.epsilon])
        return cls(policy.parameters, facts, by.mean, by.variance)

    def write(self, lasting: Mapping[str, Array]) -> None:
        """Put them into a block.

        Parameters
        ----------
        lasting
            Arrays by name, see `BlockShape.lasting`; written to.
        """
        for name, values in vars(self).items():
            lasting[name][:] = values


@dataclass(frozen=True)
class BlockShape:
    """What the sizes of a block follow from; T is that of the rollout.

    Parameters
    ----------
    n_envs
        E, of this worker.
    obs_dim, action_dim, n_parameters, mask_width
        O, A, D, W.
    dtype
        dtype of observations and parameters: "float32" or "float64".
    action_dtype
        dtype that actions are stored in: that one, or "int32".
    """

    n_envs: int
    obs_dim: int
    action_dim: int
    n_parameters: int
    dtype: str
    action_dtype: str
    mask_width: int = 0

    def lasting(self) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        """What stays from one rollout to the next."""
        E, O, D = self.n_envs, self.obs_dim, self.n_parameters  # noqa: E741
        return {
            # Written by the parent: the policy that acts.
            "parameters": ((D,), self.dtype),
            "mean": ((O,), np.float64),
            "variance": ((O,), np.float64),
            "normalizer": ((3,), np.float64),  # whether there is one, clip, epsilon
            # Written by the worker: where each environment is, see `RunState`.
            "counters": ((E,), np.uint64),
            "returns": ((E,), np.float64),
            "lengths": ((E,), np.int64),
            "observations": ((E, O), self.dtype),
            "action_masks": ((E, self.mask_width), np.bool_),
            "steps_beside": ((1,), np.int64),
            # Written by both: where the arrays of the rollout begin in the file, and their T.
            "place": ((2,), np.int64),
        }

    def rollout(self, T: int) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        """One rollout of T steps. As many episodes may end as there are rows.

        Parameters
        ----------
        T
            Time steps, at least 1.
        """
        E, O, A = self.n_envs, self.obs_dim, self.action_dim  # noqa: E741
        return {
            "observations": ((T + 1, E, O), self.dtype),
            "action_masks": ((T + 1, E, self.mask_width), np.bool_),
            "actions": ((T, E, A), self.action_dtype),
            "rewards": ((T, E), np.float64),
            "terminated": ((T, E), np.bool_),
            "truncated": ((T, E), np.bool_),
            "valid": ((T, E), np.bool_),
            # Room for the worst case: memory that is never touched is never taken.
            "final_observations": ((T * E, O), self.dtype),
            "final_indices": ((T * E, 2), np.int64),
            "episode_returns": ((T * E,), np.float64),
            "episode_lengths": ((T * E,), np.int64),
            "episode_indices": ((T * E, 2), np.int64),
        }


class SharedBlock:
    """The arrays of one worker, mapped from the anonymous file that both sides hold.

    Parameters
    ----------
    file
        Descriptor of the file, see `anonymous_file`.
    shape
        What the sizes follow from.

    Attributes
    ----------
    lasting
        Arrays by name, see `BlockShape.lasting`.
    arrays
        Arrays of the current rollout by name, see `BlockShape.rollout`.
    """

    def __init__(self, file: int, shape: BlockShape) -> None:
        self.shape = shape
        self._file = file
        self._begin = _mapped_size(shape.lasting())
        self.lasting = self._map(shape.lasting(), 0)
        self.arrays: dict[str, Array] = {}
        self._place = (0, 0)

    def reserve(self, n_steps: int) -> None:
        """Make room for a rollout of T = ``n_steps``, where the last one was.

        Parameters
        ----------
        n_steps
            T, at least 1.
        """
        self._move(self._begin, n_steps)

    def grow(self, n_steps: int) -> None:
        """Make room for T = ``n_steps`` behind the arrays, which are left as they are.

        Parameters
        ----------
        n_steps
            T, more than there are.
        """
        begin, smaller = self._place
        self._move(begin + _mapped_size(self.shape.rollout(smaller)), n_steps)

    def follow(self) -> None:
        """Map the arrays where the other side has put them."""
        begin, n_steps = self.lasting["place"].tolist()
        if (begin, n_steps) != self._place:
            self.arrays = self._map(self.shape.rollout(n_steps), begin)
            self._place = (begin, n_steps)

    def _move(self, begin: int, n_steps: int) -> None:
        self.lasting["place"][:] = begin, n_steps
        self.follow()

    def buffers(self, *, fresh: bool) -> RolloutBuffers:
        """The arrays for a sampler to fill, marked as not written.

        Parameters
        ----------
        fresh
            Whether the environments are reset first.
        """
        buffers = RolloutBuffers(**{name: self.arrays[name] for name in ROW_ARRAYS})
        _mark(buffers.observations[..., 0])
        _mark(buffers.rewards)
        if fresh:
            _mark(self.lasting["observations"][:, 0])
        buffers.terminated.fill(False)
        buffers.truncated.fill(False)
        buffers.valid.fill(True)
        return buffers

    def progress(self) -> int:
        """A number that changes with every time step of the worker."""
        return int(self.lasting["counters"].sum()) + int(self.lasting["steps_beside"][0])

    def place(self, first_index: int, name: str) -> str:
        """Name the environment and the step that a worker which fills the arrays stands at.

        Parameters
        ----------
        first_index
            Index of the worker's first environment.
        name
            Of the environments.
        """
        e, resetting = self._position()
        counter = int(self.lasting["counters"][e])
        index = first_index + e
        if resetting:
            return f"reset before environment {index} ({name}), step {counter}"
        # The action of the running step is drawn already.
        return f"environment {index} ({name}), step {max(0, counter - 1)}"

    def _position(self) -> tuple[int, bool]:
        """The environment, counted from 0 in its group, and whether that is in a reset."""
        self.follow()
        E = self.shape.n_envs
        no_observation = _is_unwritten(self.arrays["observations"][..., 0])
        if no_observation[0].any():
            # Not even s_0 is there: the first environment without one is in its first reset.
            return int(np.argmax(_is_unwritten(self.lasting["observations"][:, 0]))), True
        no_reward = _is_unwritten(self.arrays["rewards"])
        # Where r_t is there and s_{t+1} is not, the environment is in the reset between them.
        resetting = ~no_reward & no_observation[1:]
        stands_at = resetting if resetting.any() else no_reward
        return int(np.argmax(stands_at)) % E, bool(resetting.any())

    def _map(
        self, layout: dict[str, tuple[tuple[int, ...], npt.DTypeLike]], begin: int
    ) -> dict[str, Array]:
        size = _mapped_size(layout)
        if os.fstat(self._file).st_size < begin + size:
            os.ftruncate(self._file, begin + size)
        memory = mmap.mmap(self._file, size, offset=begin)
        arrays: dict[str, Array] = {}
        offset = 0
        for name, (shape, dtype) in layout.items():
            # The arrays keep the mapping alive.
            arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=offset)
            offset += _aligned(arrays[name].nbytes, _ALIGNMENT)
        return arrays


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _mapped_size(layout: dict[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> int:
    size = 0
    for shape, dtype in layout.values():
        size += _aligned(int(np.prod(shape)) * np.dtype(dtype).itemsize, _ALIGNMENT)
    return _aligned(size, mmap.ALLOCATIONGRANULARITY)


def _bits(values: Array) -> Array:
    size = values.dtype.itemsize
    return values.view(np.uint32 if size == 4 else np.uint64)


def _mark(values: Array) -> None:
    _bits(values)[...] = _UNWRITTEN[values.dtype.itemsize]


def _is_unwritten(values: Array) -> npt.NDArray[np.bool_]:
    unwritten: npt.NDArray[np.bool_] = _bits(values) == _UNWRITTEN[values.dtype.itemsize]
    return unwritten
