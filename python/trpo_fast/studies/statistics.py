"""What may be said of a method from a few seeds (Agarwal et al. 2021, "Deep RL at the Edge").

The mean of ten seeds is moved by one of them, and the median leaves out most of what was measured:
the interquartile mean is the mean of the middle half. Intervals are bootstraps over seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..extras import import_extra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2_000
_SEED = 0  # the same runs always give the same interval


class Estimate(NamedTuple):
    """A number and the ends of its 95% interval; both NaN where one seed says nothing of others."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> Estimate:
    """Mean of the middle half of the scores, with its 95% bootstrap interval.

    Parameters
    ----------
    scores
        (n,) one number a seed, at least one.

    Returns
    -------
    Estimate
        The interval is the percentile bootstrap over seeds.

    Raises
    ------
    ValueError
        Without scores.
    MissingExtraError
        (an ``ImportError``) without SciPy.
    """
    return _bootstrap((_scores(scores),), _trimmed_mean)


def improvement_probability(scores: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Probability that a random run of the one is better than a random run of the other.

    P(X > Y) + P(X = Y) / 2, the statistic of Mann and Whitney over n m: 0.5 where they are alike.

    Parameters
    ----------
    scores
        (n,) of the method.
    baseline
        (m,) of what it is compared with.

    Returns
    -------
    Estimate
        The interval resamples the seeds of both.

    Raises
    ------
    ValueError
        Without scores.
    MissingExtraError
        (an ``ImportError``) without SciPy.
    """
    return _bootstrap((_scores(scores), _scores(baseline)), _share_of_better_pairs)


def unlearning_share(evaluations: ArrayLike) -> float:
    """Share of the evaluations in the second half of a run that are below half of the best so far.

    Half as good as 3,000 is 1,500, half as good as -200 is -400.

    Parameters
    ----------
    evaluations
        (n,) mean return of each evaluation, in the order of the run.

    Returns
    -------
    float
        In [0, 1]; NaN without evaluations.
    """
    returns = np.asarray(evaluations, np.float64)
    if returns.size == 0:
        return float("nan")
    best = np.maximum.accumulate(returns)
    lost = returns < np.where(best > 0, best / 2, best * 2)
    later = lost[(returns.size + 1) // 2 :]
    return float(np.mean(later)) if later.size else 0.0


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64).ravel()
    if values.size == 0:
        raise ValueError("scores: expected at least one number, got none")
    return values


def _bootstrap(samples: tuple[NDArray[np.float64], ...], statistic: Any) -> Estimate:
    stats = import_extra("scipy.stats", what="statistics of several seeds", extra="study")
    value = float(statistic(*samples))
    if min(sample.size for sample in samples) < 2:
        return Estimate(value, float("nan"), float("nan"))
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def _trimmed_mean(scores: NDArray[np.float64], axis: int = -1) -> Any:
    from scipy.stats import trim_mean

    return trim_mean(scores, 0.25, axis=axis)


def _share_of_better_pairs(
    scores: NDArray[np.float64], baseline: NDArray[np.float64], axis: int = -1
) -> Any:
    difference = scores[..., :, np.newaxis] - baseline[..., np.newaxis, :]
    return ((np.sign(difference) + 1) / 2).mean(axis=(-2, -1))
