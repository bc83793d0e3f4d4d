"""Policies, value functions and statistics are copied and pickled, and compute the same bits."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trpo_fast import core

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}
KINDS: list[tuple[Any, tuple[int, ...]]] = [
    ("gaussian", (2,)),
    ("state_dependent_gaussian", (2,)),
    ("categorical", (4,)),
    ("multi_categorical", (2, 3)),
    ("bernoulli", (3,)),
]
OBSERVATIONS = 5.0 + 3.0 * np.random.default_rng(0).normal(size=(40, 5))


def policy_of(kind: Any, sizes: Any, dtype: str, *, normalizer: bool = True) -> core.Policy:
    policy = core.Policy(
        5,
        core.Distribution(kind, sizes),
        hidden_sizes=(7, 6),
        activation="silu",
        output_gain=1.0,
        dtype=dtype,
        seed=3,
    )
    if normalizer:
        policy.set_normalizer(np.full(5, 4.5), np.full(5, 8.0), clip=1.5, epsilon=1e-4)
    return policy


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "sizes"), KINDS)
def test_a_copy_of_a_policy_does_the_same(kind: Any, sizes: Any, dtype: str, how: str) -> None:
    policy = policy_of(kind, sizes, dtype)
    actions = policy.act(OBSERVATIONS, seed=1)
    advantages = np.random.default_rng(1).normal(size=40)
    policy.ascend(OBSERVATIONS, actions, advantages)  # moments that are not zero
    other = COPIES[how](policy)
    assert other is not policy
    assert other.distribution == policy.distribution
    np.testing.assert_array_equal(other.parameters, policy.parameters)
    np.testing.assert_array_equal(other.act(OBSERVATIONS, seed=2), policy.act(OBSERVATIONS, seed=2))
    np.testing.assert_array_equal(
        other.log_prob(OBSERVATIONS, actions), policy.log_prob(OBSERVATIONS, actions)
    )
    # neither knows of what the other does
    before = policy.parameters
    first = other.ascend(OBSERVATIONS, actions, advantages)
    other.clear_normalizer()
    np.testing.assert_array_equal(policy.parameters, before)
    assert policy.normalizer is not None
    assert policy.ascend(OBSERVATIONS, actions, advantages).kl == first.kl
    np.testing.assert_array_equal(policy.parameters, other.parameters)
    assert policy.update(OBSERVATIONS, actions, advantages).status is not None


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_policy_that_was_only_made(how: str) -> None:
    policy = policy_of("gaussian", (2,), "float32", normalizer=False)
    other = COPIES[how](policy)
    assert other.normalizer is None
    np.testing.assert_array_equal(other.outputs(OBSERVATIONS), policy.outputs(OBSERVATIONS))
    assert len(pickle.dumps(policy)) < 4 * policy.n_parameters + 2000  # no moments of zeros


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_of_a_value_function_goes_on_alike(dtype: str, how: str) -> None:
    value = core.ValueFunction(5, hidden_sizes=(7,), activation="relu", dtype=dtype)
    targets = np.sin(OBSERVATIONS[:, 0])
    value.fit(OBSERVATIONS, targets, epochs=2)
    other = COPIES[how](value)
    for _ in range(2):
        np.testing.assert_array_equal(other.predict(OBSERVATIONS), value.predict(OBSERVATIONS))
        one, two = (v.fit(OBSERVATIONS, targets, epochs=2, seed=9) for v in (value, other))
        assert one.loss_after == two.loss_after


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_running_statistics_goes_on_alike(how: str) -> None:
    statistics = core.RunningStatistics(5)
    statistics.update(OBSERVATIONS)
    other = COPIES[how](statistics)
    other.update(OBSERVATIONS[:7])
    assert statistics.count == 40
    statistics.update(OBSERVATIONS[:7])
    np.testing.assert_array_equal(other.variance, statistics.variance)


# ---- one convention: raw observations, unless normalized=True


def methods_of(policy: core.Policy) -> dict[str, Callable[..., Any]]:
    actions = policy.act(OBSERVATIONS, seed=1)
    advantages = np.random.default_rng(1).normal(size=40)
    old = (policy.parameters * policy.dtype.type(1.1)).copy()
    vector = np.random.default_rng(2).normal(size=policy.n_parameters)

    def updated(name: str) -> Callable[..., Any]:
        def call(x: Any, **options: Any) -> Any:
            other = copy.deepcopy(policy)
            getattr(other, name)(x, actions, advantages, **options)
            return other.parameters

        return call

    return {
        "outputs": policy.outputs,
        "entropy": policy.entropy,
        "log_prob": lambda x, **o: policy.log_prob(x, actions, **o),
        "kl": lambda x, **o: policy.kl(x, old, **o),
        "surrogate": lambda x, **o: policy.surrogate(
            x, actions, advantages, old_parameters=old, **o
        ),
        "surrogate_gradient": lambda x, **o: policy.surrogate_gradient(x, actions, advantages, **o),
        "penalised_gradient": lambda x, **o: policy.penalised_gradient(
            x, actions, advantages, old_parameters=old, kl_coefficient=0.3, **o
        ),
        "fisher_operator": lambda x, **o: policy.fisher_operator(x, **o)(vector),
        "fisher_vector_product": lambda x, **o: policy.fisher_vector_product(x, vector, **o),
        "update": updated("update"),
        "ascend": updated("ascend"),
    }


@pytest.mark.parametrize("name", methods_of(policy_of("gaussian", (2,), "float64")))
@pytest.mark.parametrize("kind", ["state_dependent_gaussian", "bernoulli"])
def test_every_method_takes_raw_observations(kind: Any, name: str) -> None:
    policy = policy_of(kind, (2,), "float64")
    bare = policy_of(kind, (2,), "float64", normalizer=False)
    rows = policy.normalize(OBSERVATIONS)
    # the actions are those of the first policy in both cases
    bare.act = lambda _, **options: policy.act(OBSERVATIONS, **options)  # type: ignore[method-assign]
    method, expected = methods_of(policy)[name], methods_of(bare)[name](rows)
    np.testing.assert_array_equal(method(OBSERVATIONS), expected)
    np.testing.assert_array_equal(method(rows, normalized=True), expected)
    assert not np.array_equal(method(rows), expected)  # twice normalised is another thing
    with pytest.raises(TypeError, match=r"^normalized: expected True or False"):
        method(rows, normalized="yes")
