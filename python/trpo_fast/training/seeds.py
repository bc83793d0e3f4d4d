"""The random streams of an agent, derived from the one seed of its run."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for."""

    POLICY_WEIGHTS = 0
    VALUE_WEIGHTS = 1
    POLICY_UPDATE = 2
    VALUE_FIT = 3
    PREDICT = 4


def derived_seed(seed: int, purpose: Purpose, iteration: int = 0) -> int:
    """The seed of a stream, in [0, 2^64), unrelated to that of any other purpose or iteration.

    Parameters
    ----------
    seed
        Seed of the run, at least 0.
    purpose
        What the stream is for.
    iteration
        Updates made before, for streams that begin anew with each of them.
    """
    sequence = np.random.SeedSequence([seed, int(purpose), iteration])
    return int(sequence.generate_state(1, np.uint64)[0])
