"""Memory that a worker process and its parent share.

It has no name: nothing in /dev/shm or on a disk outlives its processes, however they end, and a
container's limit on /dev/shm does not apply.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trpo_fast.rollout.data import RolloutBuffers

Array: TypeAlias = npt.NDArray[Any]

_ALIGNMENT = 64  # bytes, a cache line

# NaNs that no arithmetic makes: "nothing was written here". They tell how far a worker came without
# any bookkeeping between two steps.
_UNWRITTEN = {4: np.uint32(0x7FC0DEAD), 8: np.uint64(0x7FF800000000DEAD)}


def anonymous_file() -> int:
    """A new file descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trpo_fast")
    with tempfile.TemporaryFile() as file:  # unlinked from the start
        return os.dup(file.fileno())


@dataclass(frozen=True)
class BlockShape:
    """What the sizes of a block follow from; T grows with the rollouts."""

    n_envs: int  # E, of this worker
    obs_dim: int  # O
    action_dim: int  # K
    n_parameters: int  # P
    dtype: str  # S
    action_dtype: str

    def lasting(self) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        """What stays from one rollout to the next."""
        E, O, P = self.n_envs, self.obs_dim, self.n_parameters  # noqa: E741
        return {
            # from the parent: the policy that acts
            "parameters": ((P,), self.dtype),
            "mean": ((O,), np.float64),
            "variance": ((O,), np.float64),
            "normalizer": ((3,), np.float64),  # whether there is one, clip, epsilon
            # from the worker: where each environment is
            "counters": ((E,), np.uint64),
            "returns": ((E,), np.float64),
            "lengths": ((E,), np.int64),
            "observations": ((E, O), self.dtype),
        }

    def rollout(self, T: int) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        """One rollout of T steps. As many episodes may end as there are rows."""
        E, O, K = self.n_envs, self.obs_dim, self.action_dim  # noqa: E741
        return {
            "observations": ((T + 1, E, O), self.dtype),
            "actions": ((T, E, K), self.action_dtype),
            "rewards": ((T, E), np.float64),
            "terminated": ((T, E), np.bool_),
            "truncated": ((T, E), np.bool_),
            "valid": ((T, E), np.bool_),
            # memory that is never touched is never taken
            "final_observations": ((T * E, O), self.dtype),
            "final_indices": ((T * E, 2), np.int64),
            "episode_returns": ((T * E,), np.float64),
            "episode_lengths": ((T * E,), np.int64),
            "episode_indices": ((T * E, 2), np.int64),
        }


class SharedBlock:
    """The arrays of one worker, mapped from the anonymous file that both sides hold.

    Attributes:
        lasting: arrays by name, see `BlockShape.lasting`.
        arrays: arrays of the current rollout by name, see `BlockShape.rollout`.
    """

    def __init__(self, file: int, shape: BlockShape, *, owner: bool) -> None:
        self.shape = shape
        self._file = file
        self._owner = owner  # the parent sizes the file, the worker maps what is there
        self._begin = _mapped_size(shape.lasting())
        self.lasting = self._map(shape.lasting(), 0)
        self.arrays: dict[str, Array] = {}
        self.n_steps = 0

    def reserve(self, n_steps: int) -> None:
        """Map the arrays of rollouts of T = `n_steps`."""
        if n_steps != self.n_steps:
            self.arrays = self._map(self.shape.rollout(n_steps), self._begin)
            self.n_steps = n_steps

    def buffers(self, begin: int, end: int, *, fresh: bool) -> RolloutBuffers:
        """Rows begin to end - 1 for a sampler to fill, marked as not written.

        `fresh`: the environments are reset first.
        """
        arrays = self.arrays
        rows = slice(begin, end)
        buffers = RolloutBuffers(
            observations=arrays["observations"][begin : end + 1],
            **{
                name: arrays[name][rows]
                for name in ("actions", "rewards", "terminated", "truncated", "valid")
            },
        )
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
        return int(self.lasting["counters"].sum())

    def position(self, begin: int, end: int) -> tuple[int, bool]:
        """Where a worker that fills rows begin to end - 1 stands: (environment, in a reset?)."""
        E = self.shape.n_envs
        if _is_unwritten(self.arrays["observations"][begin, :, 0]).any():
            # not even s_0: the first environment without an observation is in its first reset
            unwritten = _is_unwritten(self.lasting["observations"][:, 0])
            return int(np.argmax(unwritten)), True
        unwritten = _is_unwritten(self.arrays["rewards"][begin:end].ravel())
        row = int(np.argmax(unwritten)) if unwritten.any() else (end - begin) * E
        if row > 0:
            # r_t without s_{t+1}: the reset between them
            successor = self.arrays["observations"][begin:, :, 0].ravel()[row - 1 + E]
            if bool(_is_unwritten(np.array([successor]))[0]):
                return (row - 1) % E, True
        return row % E, False

    def _map(
        self, layout: dict[str, tuple[tuple[int, ...], npt.DTypeLike]], begin: int
    ) -> dict[str, Array]:
        size = _mapped_size(layout)
        if self._owner and os.fstat(self._file).st_size < begin + size:
            os.ftruncate(self._file, begin + size)
        memory = mmap.mmap(self._file, size, offset=begin)
        arrays: dict[str, Array] = {}
        offset = 0
        for name, (shape, dtype) in layout.items():
            # the arrays keep the mapping alive
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
