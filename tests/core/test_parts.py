"""A batch in parts has the bits of one piece: gradient, products, line search, the whole update."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from parted import HEADS, N, assert_same_update, cut, make_batch, make_policy
from trpo_fast import core
from trpo_fast.core.parts import (
    LocalParts,
    ascend_parts,
    bounds_of_parts,
    takes_sums_of_columns,
    update_parts,
)
from trpo_fast.core.value_parts import ValuePart, fit_parts


@pytest.mark.parametrize("n_parts", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_parts_has_the_bits_of_one_piece(n_parts: int, dtype: str) -> None:
    policies = [make_policy(dtype=dtype) for _ in range(2)]
    bounds = bounds_of_parts(N, n_parts, policies[0].n_parameters)
    assert len(bounds) - 1 == n_parts
    summary = assert_same_update(make_batch(policies[0]), bounds, policies, cg_damping=0.01)
    assert summary.status == "accepted"


def test_uneven_cuts_have_the_bits_of_one_piece() -> None:
    policies = [make_policy() for _ in range(2)]
    every = bounds_of_parts(N, 64, policies[0].n_parameters)
    rng = np.random.default_rng(0)
    for _ in range(5):
        inner = np.sort(rng.choice(every[1:-1], size=5, replace=False)).tolist()
        assert_same_update(make_batch(policies[0]), [0, *inner, N], policies)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "settings",
    [
        {"cg_preconditioner": "kronecker", "seed": 5},
        {"fisher": "empirical", "cg_preconditioner": "kronecker"},
        {"constraint": "max", "standardize_advantages": False},
        {"fisher": "identity", "step": "boundary"},
        {"step": "fixed", "step_size": 0.1, "activation_budget": 0},
        {"max_kl": 1e-9, "max_backtracks": 0},
    ],
    ids=["kronecker", "empirical", "max", "identity", "fixed", "refused"],
)
def test_every_setting_has_the_bits_of_one_piece(head: str, settings: dict[str, Any]) -> None:
    policies = [make_policy(head) for _ in range(2)]
    masked = head in ("categorical", "several")
    batch = make_batch(policies[0], masked=masked)
    bounds = bounds_of_parts(N, 3, policies[0].n_parameters)
    assert_same_update(batch, bounds, policies, **settings)


def test_a_small_batch_is_one_part() -> None:
    policies = [make_policy() for _ in range(2)]
    bounds = bounds_of_parts(300, 4, policies[0].n_parameters)
    assert bounds == [0, 300]
    assert_same_update(make_batch(policies[0], 300), bounds, policies)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_batches_without_an_update_say_so_alike(value: float) -> None:
    policies = [make_policy() for _ in range(2)]
    batch = make_batch(policies[0])
    batch["advantages"][:] = value
    bounds = bounds_of_parts(N, 3, policies[0].n_parameters)
    before = policies[0].parameters
    assert_same_update(batch, bounds, policies)
    assert policies[1].parameters.tobytes() == before.tobytes()


def test_a_part_that_fails_leaves_the_policy_as_it_was() -> None:
    policy = make_policy()
    parts = cut(policy, make_batch(policy), bounds_of_parts(N, 3, policy.n_parameters))

    def gone(_: Any) -> Any:
        raise RuntimeError("gone")

    before = policy.parameters
    for name in ("fisher_vector_product", "evaluation_sums"):
        setattr(parts.parts[1], name, gone)
        with pytest.raises(RuntimeError, match="gone"):
            update_parts(policy, parts)
        assert policy.parameters.tobytes() == before.tobytes()
        delattr(parts.parts[1], name)


def test_what_is_not_covered_is_refused() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    parts = cut(policy, batch, bounds_of_parts(N, 3, policy.n_parameters))
    with pytest.raises(ValueError, match="fisher_fraction: expected 1 for a batch in parts"):
        update_parts(policy, parts, fisher_fraction=0.5)
    with pytest.raises(ValueError, match="first_row: expected whole chunks"):
        update_parts(policy, cut(policy, batch, [0, 100, N]))


# ---- one step of Adam


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
def test_steps_of_adam_have_the_bits_of_one_piece(head: str) -> None:
    whole, parted = (make_policy(head) for _ in range(2))
    bounds = bounds_of_parts(N, 3, whole.n_parameters)
    for _ in range(3):  # the moments go on
        batch = make_batch(whole)
        expected = whole.ascend(**batch, normalized=True, learning_rate=0.01)
        found = ascend_parts(parted, cut(parted, batch, bounds), learning_rate=0.01)
        assert (found.kl, found.surrogate_gain) == (expected.kl, expected.surrogate_gain)
        assert parted.parameters.tobytes() == whole.parameters.tobytes()
        for name, moments in whole.optimizer_state().items():
            assert parted.optimizer_state()[name].tobytes() == moments.tobytes(), name


def test_a_step_of_adam_that_is_not_taken_leaves_everything_as_it_was() -> None:
    policy = make_policy()
    parts = cut(policy, make_batch(policy), bounds_of_parts(N, 3, policy.n_parameters))

    def gone(_: Any) -> Any:
        raise RuntimeError("gone")

    before = policy.parameters
    parts.parts[1].evaluation_sums = gone
    with pytest.raises(RuntimeError, match="gone"):
        ascend_parts(policy, parts)
    with pytest.raises(ValueError, match="expected 1 and none, as rows in parts take one step"):
        ascend_parts(policy, parts, epochs=2)
    assert policy.parameters.tobytes() == before.tobytes()
    assert policy.optimizer_state()["steps"][0] == 0


# ---- value fits


def make_values(dtype: str = "float32") -> core.ValueFunction:
    return core.ValueFunction(5, hidden_sizes=(16, 16), dtype=dtype, seed=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2, "seed": 3},
        {"epochs": 3, "minibatch_size": None},
        {"method": "lbfgs", "iterations": 4},
    ],
    ids=["adam", "full_batch", "lbfgs"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_parts", [1, 3, 4])
def test_a_value_fit_has_the_bits_of_one_piece(
    n_parts: int, dtype: str, settings: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5)).astype(dtype)
    y = np.sin(x[:, 0] * x[:, 1]).astype(dtype)
    whole, parted = make_values(dtype), make_values(dtype)
    bounds = bounds_of_parts(N, n_parts, whole.n_parameters)
    assert len(bounds) - 1 == n_parts
    parts = LocalParts(
        [
            ValuePart(make_values(dtype), x[a:b], y[a:b], whole_size=N, first_row=a)
            for a, b in itertools.pairwise(bounds)
        ]
    )
    for _ in range(2):  # the moments of Adam go on
        expected, found = whole.fit(x, y, **settings), fit_parts(parted, parts, **settings)
        assert parted.parameters.tobytes() == whole.parameters.tobytes()
        for name in ("status", "loss_before", "loss_after", "steps", "message"):
            assert getattr(found, name) == getattr(expected, name)
        for name, moment in whole.optimizer_state().items():
            assert parted.optimizer_state()[name].tobytes() == moment.tobytes()


def test_values_do_not_depend_on_the_rows_beside_them() -> None:
    """Actors predict those of their own environments, in whatever company."""
    for width, hidden in ((5, (16, 16)), (70, (33,)), (17, ())):
        values = core.ValueFunction(width, hidden_sizes=hidden, seed=1)
        x = np.random.default_rng(0).normal(size=(997, width)).astype(np.float32)
        together = values.predict(x)
        for size in (1, 5, 96, 130):
            for begin in (0, 37, 700):
                rows = np.ascontiguousarray(x[begin : begin + size])
                assert values.predict(rows).tobytes() == together[begin : begin + size].tobytes()
        order = np.random.default_rng(1).permutation(997)
        assert values.predict(x[order]).tobytes() == together[order].tobytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.125, 0.13, 0.3, 1.0])
def test_parts_find_out_together_whether_rows_are_sparse(share: float) -> None:
    policy = core.Policy(80, HEADS["categorical"], hidden_sizes=(16,))
    rng = np.random.default_rng(0)
    x = np.zeros((N, 80), np.float32)
    for row in x:
        row[rng.choice(80, round(share * 80), replace=False)] = 1.5
    batch = make_batch(policy)
    batch["observations"] = x
    parts = cut(policy, batch, bounds_of_parts(N, 3, policy.n_parameters))
    assert takes_sums_of_columns(N, lambda order: x[order], parts) is core.sums_columns(x)
