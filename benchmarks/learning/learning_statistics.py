"""Statistics over seeds: few runs, skewed, and each of them dear.

What is computed, and why, follows Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of
the Statistical Precipice": interquartile means instead of means or maxima, intervals by the
bootstrap, and the probability that a run of one side beats a run of another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A statistic, and the 95% interval of its bootstrap."""

    value: float
    low: float
    high: float


def interquartile_mean(values: Sequence[float] | Float64) -> float:
    """Mean of the middle half of the values.

    ::

        sum_i w_i x_(i) / sum_i w_i     w_i = |[i/n, (i+1)/n] and [1/4, 3/4]|

    Of four values the middle two; of three the middle one with weight 1/3 and its neighbours with
    1/12 each: no value is rounded in or out.

    Parameters
    ----------
    values
        n >= 1 of them, in any order.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return float(weights @ ordered / weights.sum())


def bootstrap(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[list[Float64]], float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A statistic of one or several groups of runs, and its percentile interval at 95%.

    Every group is resampled by itself, so that tasks and sides keep their numbers of runs.

    Parameters
    ----------
    groups
        Values of the runs of each group, at least one each.
    statistic
        Of the groups, in their order.
    seed
        Of the resampling, so that a table comes out alike every time.
    resamples
        How many.
    """
    arrays = [np.asarray(group, np.float64) for group in groups]
    rng = np.random.default_rng(seed)
    drawn = [
        statistic([group[rng.integers(len(group), size=len(group))] for group in arrays])
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(statistic(arrays), float(low), float(high))


def interquartile_estimate(values: Sequence[float]) -> Estimate:
    """Interquartile mean of the runs of one side on one task, with its interval.

    Parameters
    ----------
    values
        One for each run.
    """
    return bootstrap([values], lambda groups: interquartile_mean(groups[0]))


def improvement(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Estimate:
    """Probability that a run of ours is better than one of theirs, mean over tasks.

    ::

        P = mean over tasks of mean_{i,j} ([x_i > y_j] + [x_i = y_j] / 2)

    Parameters
    ----------
    ours, theirs
        Values of the runs on each task, in the same order of tasks.
    """
    n = len(ours)

    def probability(groups: list[Float64]) -> float:
        pairs = zip(groups[:n], groups[n:], strict=True)
        return float(
            np.mean([np.mean(0.5 * (np.sign(x[:, None] - y[None, :]) + 1.0)) for x, y in pairs])
        )

    return bootstrap([*ours, *theirs], probability)


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


def last_tenth(returns: Sequence[float]) -> float:
    """Mean of the last tenth of the evaluations on the way, at least one; NaN without any.

    Parameters
    ----------
    returns
        Of the evaluations on the way, in their order.
    """
    return float(np.mean(returns[-max(1, len(returns) // 10) :])) if returns else math.nan


def seconds_to_reach(
    seconds: Sequence[float], returns: Sequence[float], target: float
) -> float | None:
    """Seconds of training until an evaluation first reached a return; None if none did.

    Parameters
    ----------
    seconds
        Of training until each evaluation, without those of evaluations.
    returns
        Of the evaluations.
    target
        The return to reach.
    """
    return next((s for s, value in zip(seconds, returns, strict=True) if value >= target), None)
