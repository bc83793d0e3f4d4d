"""Running mean and variance, and observations normalised by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .types import Array


def running_moments(batches: Sequence[Array]) -> tuple[float, Array, Array]:
    """Count, mean and population variance by Welford's recurrence, one sample after another."""
    count = 0.0
    mean = np.zeros(batches[0].shape[1])
    m2 = np.zeros(batches[0].shape[1])
    for batch in batches:
        for row in batch.astype(np.float64):
            count += 1.0
            delta = row - mean
            mean = mean + delta / count
            m2 = m2 + delta * (row - mean)
    return count, mean, m2 / count


def normalize(
    obs: Array, mean: Array, variance: Array, clip: float = 10.0, epsilon: float = 1e-8
) -> Array:
    return np.clip((obs - mean) / np.sqrt(variance + epsilon), -clip, clip)
