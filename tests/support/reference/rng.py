"""Counter-based random streams: Philox4x32-10 (Salmon et al., 2011)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .types import Array

_MASK32 = np.uint64(0xFFFFFFFF)


def philox4x32(counter: Sequence[Any], key: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """Ten rounds on four 32-bit counter words (scalars or arrays) and two 32-bit key words."""
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        high0, high1 = product0 >> np.uint64(32), product1 >> np.uint64(32)
        c0, c1, c2, c3 = (
            high1 ^ c1 ^ np.uint64(k0),
            product1 & _MASK32,
            high0 ^ c3 ^ np.uint64(k1),
            product0 & _MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def random_signs(seed: int, stream: int, n: int, width: int) -> Array:
    """Bits of the streams (seed, stream, 0 ... n - 1), lowest first, as -1 or 1: (n, width)."""
    step, block = np.meshgrid(np.arange(n), np.arange(-(-width // 128)), indexing="ij")
    words = philox4x32((block, stream, step, 0), (seed % 2**32, seed >> 32))
    bits = np.stack(words, axis=-1)[..., np.newaxis] >> np.arange(32, dtype=np.uint64)
    return 2.0 * (bits.reshape(n, -1)[:, :width] & np.uint64(1)).astype(np.float64) - 1.0


def _uniform_pairs(seed: int, env: int, step: int, n_blocks: int) -> tuple[Array, Array]:
    """Two uniforms in [0, 1), 53 bits each, from each block 0, 1, ... of the stream."""
    block = np.arange(n_blocks, dtype=np.uint64)
    counter = (block, env, step % 2**32, step >> 32)
    w0, w1, w2, w3 = philox4x32(counter, (seed % 2**32, seed >> 32))

    def to_uniform(high: Array, low: Array) -> Array:
        bits = ((high >> np.uint64(5)) << np.uint64(26)) + (low >> np.uint64(6))
        return bits.astype(np.float64) / 2.0**53

    return to_uniform(w0, w1), to_uniform(w2, w3)


def random_uniforms(seed: int, env: int, step: int, n: int) -> Array:
    """(n,) uniforms in [0, 1) of the stream (seed, env, step)."""
    return np.stack(_uniform_pairs(seed, env, step, (n + 1) // 2), axis=1).ravel()[:n]


def random_normals(seed: int, env: int, step: int, n: int) -> Array:
    """(n,) standard normals of the stream, by Box-Muller from the two uniforms of each block."""
    u1, u2 = _uniform_pairs(seed, env, step, (n + 1) // 2)
    radius, angle = np.sqrt(-2.0 * np.log1p(-u1)), 2.0 * np.pi * u2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:n]
