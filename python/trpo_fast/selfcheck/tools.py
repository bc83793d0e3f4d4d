"""What the checks are made of: a check and its result, small problems, comparisons."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import core

Array: TypeAlias = NDArray[np.float64]

N, OBS_DIM, HIDDEN = 11, 3, (5, 4)  # samples, width of an observation, hidden units

HEADS = (
    core.Distribution("gaussian", (2,)),
    core.Distribution("state_dependent_gaussian", (2,)),
    core.Distribution("categorical", (3,)),
    core.Distribution("multi_categorical", (2, 3)),
    core.Distribution("bernoulli", (3,)),
)


class CheckFailed(Exception):
    """A promise that does not hold here; the message is one sentence with the numbers."""


@dataclass(frozen=True)
class Check:
    """A name and a function that returns a sentence, or raises."""

    name: str
    function: Callable[[], str]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How a check went; ``trace`` is empty unless something unexpected was raised."""

    name: str
    passed: bool
    message: str
    seconds: float
    trace: str = ""


def run_check(check: Check) -> CheckResult:
    """Run one check; whatever it raises becomes its result.

    Parameters
    ----------
    check
        The check.
    """
    started = time.perf_counter()
    passed, trace = False, ""
    try:
        message, passed = check.function(), True
    except CheckFailed as failure:
        message = str(failure)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    seconds = time.perf_counter() - started
    return CheckResult(
        name=check.name, passed=passed, message=message, seconds=seconds, trace=trace
    )


def problem(
    head: core.Distribution,
    *,
    activation: str = "tanh",
    hidden: tuple[int, ...] = HIDDEN,
    n: int = N,
    dtype: str = "float64",
) -> tuple[core.Policy, Array, NDArray[Any], Array]:
    """A policy with outputs of size 1, observations, actions drawn from it, and weights.

    Parameters
    ----------
    head
        The action distribution.
    activation
        Of the hidden layers.
    hidden
        Units of the hidden layers.
    n
        N, number of samples.
    dtype
        float32 or float64.
    """
    policy = core.Policy(
        OBS_DIM, head, hidden_sizes=hidden, activation=activation, dtype=dtype, output_gain=1.0
    )
    observations = normals(1, n, OBS_DIM).astype(policy.dtype)
    return policy, observations, policy.act(observations, seed=2), normals(3, n)


def normals(seed: int, *shape: int) -> Array:
    """Return standard normal numbers of a stream of the core.

    Parameters
    ----------
    seed
        Seed of the stream.
    *shape
        Shape of the array.
    """
    return core.random_normals(seed, 0, 0, int(np.prod(shape))).reshape(shape)


def differences(function: Callable[[Array], Any], theta: Array, h: float = 1e-5) -> Array:
    """d function / d theta_i, stacked over i, by central differences; ``theta`` is called last.

    Parameters
    ----------
    function
        From parameters (D,) to a number or an array.
    theta
        (D,), where the derivative is taken.
    h
        Half the distance between the two points of a difference.
    """
    rows = []
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = h
        rows.append((np.asarray(function(theta + step)) - function(theta - step)) / (2.0 * h))
    function(theta)
    return np.array(rows)


def compare(what: str, actual: Any, expected: Any, tolerance: float) -> float:
    """Largest error, relative to the largest expected entry.

    Parameters
    ----------
    what
        What is compared, for the sentence.
    actual
        An array.
    expected
        An array of the same shape.
    tolerance
        Largest error allowed, relative to the largest expected entry.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        raise CheckFailed(f"{what}: expected shape {expected.shape}, got {actual.shape}")
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if not error <= tolerance:
        raise CheckFailed(f"{what}: expected a relative error of at most {tolerance}, got {error}")
    return error


def same_bits(
    what: str, expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]
) -> None:
    """Raise CheckFailed unless two sets of arrays have the same names, dtypes, shapes and bits.

    Parameters
    ----------
    what
        What is compared, for the sentence.
    expected
        Arrays by name.
    got
        Arrays by name.
    """
    differing = [
        name
        for name in sorted(expected.keys() | got.keys())
        if name not in expected
        or name not in got
        or expected[name].dtype != got[name].dtype
        or expected[name].shape != got[name].shape
        or expected[name].tobytes() != got[name].tobytes()
    ]
    if differing:
        raise CheckFailed(f"{what}: expected the same bits, got others in {', '.join(differing)}")
