"""Every random stream of a run, derived here from the run's one seed.

Each purpose has a word of its own, so that no two purposes can meet in the same numbers::

    derive(seed, purpose, index, step)
        = first 64 bits of SeedSequence([seed, word(purpose), index, step])

``seed``, ``index`` and ``step`` enter as two 32-bit words each and ``word(purpose)`` as one. The
sequence therefore always has seven words, and different arguments never give the same sequence
(NumPy pads shorter ones with zeros and splits larger integers, so lists of plain integers do).

What ``index`` and ``step`` count is said beside each purpose. A stream depends on nothing else: not
on the number of workers, threads or environments, nor on how often a run was stopped and resumed.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

__all__ = ["Purpose", "derive", "derive_reset"]

_LARGEST = 2**64 - 1
_HALF = 2**32 - 1


class Purpose(Enum):
    """What random numbers are for; the value is the domain word, four letters of ASCII."""

    POLICY_WEIGHTS = b"poli"
    """Initial weights of the policy."""

    VALUE_WEIGHTS = b"valu"
    """Initial weights of the value function."""

    RESETS = b"rese"
    """Seed of ``env.reset``. index: environment; step: actions drawn by it so far."""

    ACTION_NOISE = b"acti"
    """Key of the stream of actions in rollouts, which counts environments and steps itself."""

    POLICY_UPDATE = b"updt"
    """What one policy update draws: rows of a subsample, signs, minibatches. step: iteration."""

    REMEMBERED_STATES = b"reme"
    """States of a batch to remember. step: iteration."""

    VALUE_FIT = b"vfit"
    """Order of the minibatches of one value fit. step: iteration."""

    PREDICTIONS = b"pred"
    """Key of the stream of actions that ``predict`` samples."""

    EVALUATIONS = b"eval"
    """Seed of one evaluation during training. step: timesteps."""

    EPISODES = b"epis"
    """Seed of ``env.reset`` of one episode of an evaluation. index: episode."""

    ROLLOUT_SET = b"rset"
    """States of the trunk that a vine branches from. step: trunk actions drawn so far."""

    FIRST_ACTIONS = b"firs"
    """Key of the stream of the first actions of a vine's branches."""

    BRANCH_NOISE = b"bran"
    """Key of the stream of all later actions of a vine's branches."""


def derive(seed: int, purpose: Purpose, index: int = 0, step: int = 0) -> int:
    """The seed of one stream.

    Parameters
    ----------
    seed
        Seed of the run, in [0, 2**64).
    purpose
        What the numbers are for.
    index, step
        Which stream of that purpose, see :class:`Purpose`; each in [0, 2**64).

    Returns
    -------
    int
        In [0, 2**64).

    Raises
    ------
    ValueError
        A number outside its range.
    """
    for name, number in (("seed", seed), ("index", index), ("step", step)):
        if not 0 <= number <= _LARGEST:
            raise ValueError(f"{name}: expected an integer in [0, 2**64), got {number}")
    word = int.from_bytes(purpose.value, "big")
    words = [*_halves(seed), word, *_halves(index), *_halves(step)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def derive_reset(seed: int, purpose: Purpose, index: int = 0, step: int = 0) -> int:
    """The seed of one stream, as small as every simulator's ``env.reset(seed=...)`` takes it.

    Parameters
    ----------
    seed, purpose, index, step
        As in :func:`derive`.

    Returns
    -------
    int
        The upper 31 bits of what :func:`derive` gives, in [0, 2**31).
    """
    return derive(seed, purpose, index, step) >> 33


def _halves(number: int) -> tuple[int, int]:
    """The low and the high 32 bits."""
    return int(number) & _HALF, int(number) >> 32
