"""What may be said of a method from a few seeds: few runs, skewed, and each of them dear.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". The
mean of ten seeds is moved by one of them, and the median leaves out most of what was measured: the
interquartile mean is the mean of the middle half. Intervals are percentile bootstraps over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import import_extra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_RESAMPLES = 2_000
_SEED = 0  # the same runs always give the same interval


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95% interval; both NaN where one seed says nothing of others."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> Any:
    """Mean of the middle half of the scores.

    ::

        sum_i w_i x_(i) / sum_i w_i     w_i = |[i/n, (i+1)/n] and [1/4, 3/4]|

    Of four values the middle two; of three the middle one with weight 1/3 and its neighbours with
    1/12 each: no value is rounded in or out.

    Parameters
    ----------
    scores
        One number a seed, n >= 1 of them along the axis, in any order.
    axis
        Of the seeds.

    Returns
    -------
    float or ndarray
        The mean; of several axes, an array without that of the seeds.

    Raises
    ------
    ValueError
        Without scores.
    """
    ordered = np.sort(np.moveaxis(np.asarray(scores, np.float64), axis, -1), axis=-1)
    n = ordered.shape[-1]
    if n == 0:
        raise ValueError("scores: expected at least one number, got none")
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    mean = ordered @ weights / weights.sum()
    return float(mean) if mean.ndim == 0 else mean


def interquartile_estimate(scores: ArrayLike) -> Estimate:
    """Interquartile mean with its interval.

    Parameters
    ----------
    scores
        (n,) one number a seed, n >= 1.

    Raises
    ------
    ValueError
        Without scores.
    MissingExtraError
        (an ``ImportError``) without SciPy.
    """
    return _bootstrap([scores], interquartile_mean)


def improvement(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> Estimate:
    """Probability that a run of ours is better than one of theirs, mean over tasks.

    ::

        P = mean over tasks of mean_{i,j} ([x_i > y_j] + [x_i = y_j] / 2)

    the statistic of Mann and Whitney over n m: 0.5 where they are alike.

    Parameters
    ----------
    ours, theirs
        One number a seed for each task, at least one, in the same order of tasks. Every task of
        either side is resampled by itself, so that it keeps its number of runs.

    Raises
    ------
    ValueError
        Without scores.
    MissingExtraError
        (an ``ImportError``) without SciPy.
    """
    n = len(ours)

    def probability(*groups: Any, axis: int = -1) -> Any:
        pairs = zip(groups[:n], groups[n:], strict=True)
        shares = [np.sign(x[..., :, np.newaxis] - y[..., np.newaxis, :]) for x, y in pairs]
        return np.mean([(0.5 * (s + 1.0)).mean(axis=(-2, -1)) for s in shares], axis=0)

    return _bootstrap([*ours, *theirs], probability)


def unlearnt(returns: Sequence[float]) -> int:
    """Evaluations in the second half of a run that are less than half as good as the best so far.

    Half as good as 3,000 is 1,500, half as good as -200 is -400.

    Parameters
    ----------
    returns
        Of the evaluations on the way, in their order.
    """
    best, count = -math.inf, 0
    for index, value in enumerate(returns):
        if 2 * index >= len(returns) and value < (0.5 * best if best > 0.0 else 2.0 * best):
            count += 1
        best = max(best, value)
    return count


def second_half(returns: Sequence[float]) -> int:
    """How many evaluations :func:`unlearnt` looks at.

    Parameters
    ----------
    returns
        Of the evaluations on the way.
    """
    return len(returns) - (len(returns) + 1) // 2


def unlearning_share(returns: Sequence[float]) -> float:
    """Share of the evaluations in the second half of a run that :func:`unlearnt` counts.

    Parameters
    ----------
    returns
        Of the evaluations on the way, in their order; fewer than two have nothing to unlearn.
    """
    looked = second_half(returns)
    return unlearnt(returns) / looked if looked else 0.0


def last_tenth(returns: Sequence[float]) -> float:
    """Mean of the last tenth of the evaluations on the way, at least one; NaN without any.

    Parameters
    ----------
    returns
        Of the evaluations on the way, in their order.
    """
    return float(np.mean(returns[-max(1, len(returns) // 10) :])) if returns else math.nan


def _bootstrap(samples: Sequence[ArrayLike], statistic: Any) -> Estimate:
    stats = import_extra("scipy.stats", what="statistics of several seeds", extra="study")
    groups = [np.asarray(sample, np.float64) for sample in samples]
    if min(group.size for group in groups) == 0:
        raise ValueError("scores: expected at least one number, got none")
    value = float(statistic(*groups))
    if max(group.size for group in groups) == 1:
        return Estimate(value, math.nan, math.nan)
    interval = stats.bootstrap(
        # SciPy resamples no group of one; one run twice is drawn as the one run is
        [np.repeat(group, 2) if group.size == 1 else group for group in groups],
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))
