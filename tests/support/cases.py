"""Which heads, shapes and number types the core is tested on, and how results are compared."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import reference
from trpo_fast import core

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = ("float64", "float32")
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}

HEADS = {
    "gaussian_1": reference.Head("gaussian", (1,)),
    "gaussian_6": reference.Head("gaussian", (6,)),
    "state_dependent_gaussian_3": reference.Head("state_dependent_gaussian", (3,)),
    "categorical_2": reference.Head("categorical", (2,)),
    "categorical_7": reference.Head("categorical", (7,)),
    "multi_categorical_2_5_3": reference.Head("multi_categorical", (2, 5, 3)),
    "bernoulli_1": reference.Head("bernoulli", (1,)),
    "bernoulli_4": reference.Head("bernoulli", (4,)),
}

# One small head of each kind, for tests that need the dense Fisher matrix.
SMALL_HEADS = {
    "gaussian": reference.Head("gaussian", (2,)),
    "state_dependent_gaussian": reference.Head("state_dependent_gaussian", (2,)),
    "categorical": reference.Head("categorical", (3,)),
    "multi_categorical": reference.Head("multi_categorical", (2, 3)),
    "bernoulli": reference.Head("bernoulli", (3,)),
}

# (observation size, hidden sizes, N): linear policies to three hidden layers, widths that are no
# multiple of any vector length, batches of one, around a multiple of 32, and of many tiles.
SHAPES = (
    (3, (), 97),
    (1, (1,), 2),
    (5, (3,), 95),
    (17, (5, 17), 96),
    (4, (31,), 1),
    (3, (64, 64), 1000),
    (100, (17,), 97),
    (5, (100, 31, 3), 95),
    (31, (17, 1, 5), 96),
    (64, (), 2),
    (17, (100, 100), 97),
)


def shape_id(shape: tuple[int, tuple[int, ...], int]) -> str:
    obs_dim, hidden, n = shape
    return f"{'-'.join(map(str, (obs_dim, *hidden)))}_n{n}"


def activation_for(shape: tuple[int, tuple[int, ...], int], head: reference.Head) -> str:
    """Every activation meets every depth and head somewhere in the grid."""
    at = SHAPES.index(shape) + len(head.sizes) + reference.HEAD_KINDS.index(head.kind)
    return reference.ACTIVATIONS[at % len(reference.ACTIVATIONS)]


@functools.cache
def grid_problem(
    head_name: str, shape: tuple[int, tuple[int, ...], int], dtype: str
) -> reference.Problem:
    head, (obs_dim, hidden, n) = HEADS[head_name], shape
    policy = reference.Policy(obs_dim, head, hidden, activation_for(shape, head))
    return reference.make_problem(policy, n, seed=SHAPES.index(shape), dtype=dtype)


def small_problem(
    head: reference.Head, n: int = 7, seed: int = 0, dtype: str = "float64", scale: float = 1.0
) -> reference.Problem:
    policy = reference.Policy(3, head, (4, 3), "tanh")
    return reference.make_problem(policy, n, seed, dtype=dtype, scale=scale)


def normals(seed: int, *shape: int, dtype: str = "float64") -> Array:
    """Standard normals that `dtype` represents exactly, returned as float64."""
    values = reference.random_normals(seed, 7, 0, int(np.prod(shape))).reshape(shape)
    return values.astype(dtype).astype(np.float64)


def moved(parameters: Array, seed: int, dtype: str, scale: float = 0.05) -> Array:
    """Parameters a random step of length 3 scale away, representable in `dtype`."""
    noise = normals(seed, *parameters.shape)
    step = 3.0 * scale / np.linalg.norm(noise) * noise
    return (parameters + step).astype(dtype).astype(np.float64)


def assert_close(
    actual: Any,
    expected: Any,
    tolerance: float,
    *,
    what: str = "result",
    scale: float | None = None,
) -> None:
    """max |actual - expected| <= tolerance * scale, scale = max |expected| unless given."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if expected.size == 0:
        return
    error = float(np.max(np.abs(actual.astype(np.float64) - expected)))
    size = float(np.max(np.abs(expected))) if scale is None else scale
    assert error <= tolerance * size, (
        f"{what}: error {error:.3e} on a size of {size:.3e}, "
        f"relative {error / size if size else np.inf:.3e} > {tolerance:.0e}"
    )


# --------------------------------------------------------------------------------------------
# From a case to the compiled core
# --------------------------------------------------------------------------------------------


def core_distribution(head: reference.Head) -> core.Distribution:
    return core.Distribution(head.kind, head.sizes)


def core_policy(problem: reference.Problem, dtype: str) -> core.Policy:
    """The compiled policy at the parameters of the problem."""
    p = problem.policy
    policy = core.Policy(
        p.obs_dim,
        core_distribution(p.head),
        hidden_sizes=p.hidden_sizes,
        activation=p.activation,
        dtype=dtype,
    )
    policy.parameters = problem.parameters.astype(dtype)
    return policy


def core_value(value: reference.ValueFunction, parameters: Array, dtype: str) -> core.ValueFunction:
    """The compiled value function at the given parameters."""
    function = core.ValueFunction(
        value.obs_dim, hidden_sizes=value.hidden_sizes, activation=value.activation, dtype=dtype
    )
    function.parameters = parameters.astype(dtype)
    return function


def core_batch(problem: reference.Problem, dtype: str) -> tuple[Array, Array, Array]:
    """Observations, actions and advantages in the number types of the core."""
    action_dtype = dtype if problem.policy.head.is_gaussian else "int32"
    return (
        problem.obs.astype(dtype),
        problem.actions.astype(action_dtype),
        problem.advantages.astype(dtype),
    )
