"""First layers as sums of columns: the numbers of the dense product, from fewer multiplications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cases import DTYPES, HEADS, assert_close
from trpo_fast import core, runtime

TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
WIDTH = 130  # no multiple of a vector register

# What rows look like: one one-hot, several, numbers, and each brought to mean 0 and deviation 1.
ONES = {"one": 1, "some": 9}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, threads = runtime.get_first_layer(), runtime.get_num_threads()
    yield
    runtime.set_first_layer(before)
    runtime.set_num_threads(threads)


def rows(n: int, ones: int, dtype: str, normalized: bool, width: int = WIDTH) -> np.ndarray:
    random = np.random.default_rng(n + ones)
    x = np.zeros((n, width), dtype)
    for row in x:
        chosen = random.choice(width, ones, replace=False)
        row[chosen] = 1.0 if ones == 1 else random.normal(size=ones)
    x[:, 3] = 1.0  # a constant column
    if normalized:
        x = np.clip((x - x.mean(0)) / (x.std(0) + 1e-2), -10, 10).astype(dtype)
    return x


def both(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same work with dense products, then with sums of columns."""
    found = []
    for choice in ("dense", "auto"):
        runtime.set_first_layer(choice)  # type: ignore[arg-type]
        found.append(work())
    return found[0], found[1]


def assert_alike(work: Callable[[], dict[str, Any]], dtype: str) -> None:
    dense, columns = both(work)
    differs = False
    for name, expected in dense.items():
        assert_close(columns[name], expected, TOLERANCE[dtype], what=name)
        differs = differs or not np.array_equal(columns[name], expected)
    assert differs  # it was not the dense product twice


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalized", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("ones", ONES)
@pytest.mark.parametrize(
    ("hidden", "activation"), [((), "tanh"), ((17,), "relu"), ((16, 24, 9), "tanh")], ids=str
)
def test_policies_agree_with_the_dense_product(
    hidden: tuple[int, ...], activation: str, ones: str, normalized: bool, dtype: str
) -> None:
    n = 400
    x = rows(n, ONES[ones], dtype, normalized)
    assert core.sums_columns(x)
    head = HEADS["categorical_7"]
    random = np.random.default_rng(2)
    actions = random.integers(0, 7, (n, 1)).astype(np.int32)
    advantages, masks = random.normal(size=n), random.random((n, 7)) < 0.8
    masks[np.arange(n), actions[:, 0]] = True

    def work() -> dict[str, Any]:
        policy = core.Policy(
            WIDTH, core.Distribution(head.kind, head.sizes), hidden_sizes=hidden,
            activation=activation, dtype=dtype,
        )  # fmt: skip
        theta = np.random.default_rng(1).normal(scale=0.3, size=policy.n_parameters)
        policy.parameters = theta.astype(dtype)
        v = np.random.default_rng(3).normal(size=policy.n_parameters)
        found: dict[str, Any] = {
            "gradient": policy.surrogate_gradient(x, actions, advantages, action_masks=masks),
            "product": policy.fisher_vector_product(x, v),
        }
        operators: dict[str, Any] = {
            "with Jacobians": {"expected_products": 100},
            "empirical": {"fisher": "empirical", "actions": actions},
            "nothing kept": {"activation_budget": 0},
        }
        for name, settings in operators.items():
            F = policy.fisher_operator(x, damping=0.1, action_masks=masks, **settings)
            found["product, " + name] = F(v)
            found["largest curvature, " + name] = F.largest_curvature(v)
        for preconditioner in ("none", "kronecker"):
            policy.parameters = theta.astype(dtype)
            summary = policy.update(
                x, actions, advantages, max_kl=1e-3, cg_iterations=3,
                cg_preconditioner=preconditioner, action_masks=masks,
            )  # fmt: skip
            assert summary.accepted
            found[preconditioner] = policy.parameters
            found[preconditioner + ", KL"] = summary.kl
        return found

    assert_alike(work, dtype)


@pytest.mark.parametrize("ones", ONES)
def test_a_preconditioner_is_that_of_the_dense_sums(ones: str) -> None:
    x = rows(1200, ONES[ones], "float64", True)
    policy = core.Policy(WIDTH, core.Distribution("gaussian", (2,)), dtype="float64")
    r = np.random.default_rng(0).normal(size=policy.n_parameters)
    for damping in (0.0, 1e-3, 1.0):
        assert_alike(
            lambda d=damping: {
                "M^-1 r": policy.fisher_operator(x, damping=d).kronecker_preconditioner(seed=1)(r)
            },
            "float64",
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ones", ONES)
def test_value_fits_agree_with_the_dense_product(ones: str, dtype: str) -> None:
    x = rows(500, ONES[ones], dtype, True)
    targets = np.random.default_rng(0).normal(size=500)

    def work() -> dict[str, Any]:
        value = core.ValueFunction(WIDTH, hidden_sizes=(24, 10), dtype=dtype)
        found: dict[str, Any] = {
            "values": value.predict(x),
            "gradient": value.loss_gradient(x, targets),
        }
        fit = value.fit(x, targets, epochs=2, minibatch_size=64, learning_rate=1e-3)
        found |= {"after Adam": value.parameters, "loss": fit.loss_after}
        if dtype == "float64":
            value.fit(x, targets, method="lbfgs", iterations=4)
            found["after L-BFGS"] = value.parameters
        return found

    assert_alike(work, dtype)


@pytest.mark.parametrize("normalized", [False, True], ids=["raw", "normalized"])
def test_an_actor_agrees_and_a_row_does_not_depend_on_its_neighbours(normalized: bool) -> None:
    x = rows(40, 3, "float64", False)
    x[::7] = np.random.default_rng(0).normal(size=(6, WIDTH))  # rows that are dense
    policy = core.Policy(WIDTH, core.Distribution("gaussian", (2,)), dtype="float64")
    policy.parameters = np.random.default_rng(1).normal(scale=0.3, size=policy.n_parameters)
    if normalized:
        policy.set_normalizer(x.mean(0), x.var(0), clip=10.0)
    settings: Any = {"envs": np.arange(40), "steps": np.full(40, 5)}

    def work() -> dict[str, Any]:
        return {
            "samples": policy.act(x, seed=3, **settings),
            "modes": policy.act(x, deterministic=True),
        }

    dense, columns = both(work)
    for name, expected in dense.items():
        assert_close(columns[name], expected, 1e-12, what=name)
    assert not np.array_equal(columns["modes"], dense["modes"])
    alone = [policy.act(x[i : i + 1], deterministic=True)[0] for i in range(40)]
    np.testing.assert_array_equal(alone, columns["modes"])


@pytest.mark.parametrize("ones", ONES)
def test_the_bits_do_not_depend_on_threads(ones: str) -> None:
    x = rows(9_001, ONES[ones], "float32", True)
    random = np.random.default_rng(0)
    actions = random.integers(0, 3, (len(x), 1)).astype(np.int32)
    advantages = random.normal(size=len(x))
    found = set()
    for threads in (1, 2, 5):
        runtime.set_num_threads(threads)
        policy = core.Policy(WIDTH, core.Distribution("categorical", (3,)))
        value = core.ValueFunction(WIDTH)
        v = np.random.default_rng(1).normal(size=policy.n_parameters)
        results = [policy.fisher_vector_product(x, v), value.predict(x)]
        policy.update(x, actions, advantages, max_kl=1e-2, cg_preconditioner="kronecker")
        value.fit(x, advantages, epochs=1, minibatch_size=2_000)
        results += [policy.parameters, value.parameters]
        found.add(b"".join(r.tobytes() for r in results))
    assert len(found) == 1


def test_dense_rows_are_left_alone() -> None:
    random = np.random.default_rng(0)
    few = np.zeros((100, WIDTH), np.float32)
    few[:, : WIDTH // 8 + 1] = random.normal(size=(100, WIDTH // 8 + 1))
    for x in (
        random.normal(size=(100, WIDTH)),  # nothing shared
        few,  # an eighth, and one more
        rows(100, 1, "float32", False, width=63),  # narrow
        rows(31, 1, "float32", False),  # few
    ):
        assert not core.sums_columns(x)
    few[:, WIDTH // 8] = 0.0
    assert core.sums_columns(few)
    runtime.set_first_layer("dense")
    assert not core.sums_columns(few)
    with pytest.raises(ValueError, match="expected 'auto' or 'dense', got 'fast'"):
        runtime.set_first_layer("fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_seen(bad: float) -> None:
    x = rows(200, 1, "float64", True)
    x[77, 5] = bad
    assert core.sums_columns(x)
    policy = core.Policy(WIDTH, core.Distribution("categorical", (3,)), dtype="float64")
    before = policy.parameters
    summary = policy.update(x, np.zeros((200, 1), np.int32), np.arange(200.0), max_kl=0.01)
    assert summary.status == "non_finite"
    np.testing.assert_array_equal(policy.parameters, before)
    value = core.ValueFunction(WIDTH, dtype="float64")
    assert value.fit(x, np.zeros(200)).status == "non_finite"
    x[:, 5] = bad  # what all rows share is no number
    assert not core.sums_columns(x)
