"""Masked choices: probability 0, no gradient, no curvature; the rest is the float64 reference's."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

import reference
from cases import DTYPES, TOLERANCE, Array, assert_close, core_policy, moved, normals
from masked_reference import MaskedPolicy, random_masks
from trpo_fast import core, runtime
from trpo_fast.core.masks import mask_rows

HEADS = {
    "categorical": reference.Head("categorical", (5,)),
    "multi_categorical": reference.Head("multi_categorical", (3, 1, 4)),
    "bernoulli": reference.Head("bernoulli", (3,)),
}
GRID = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
N = 24


class Case:
    """A masked policy, its batch, and the same in the compiled core."""

    def __init__(self, head: reference.Head, dtype: str = "float64", seed: int = 0) -> None:
        plain = reference.Policy(3, head, (4,), "tanh")
        problem = reference.make_problem(plain, N, seed, dtype=dtype)
        sizes = MaskedPolicy(3, head).sizes
        self.masks = random_masks(sizes, N, seed)
        self.policy = MaskedPolicy(3, head, (4,), "tanh", self.masks)
        self.parameters, self.obs = problem.parameters, problem.obs
        self.advantages = problem.advantages
        self.core = core_policy(problem, dtype)
        self.x = problem.obs.astype(dtype)
        self.a = self.core.act(self.x, seed=seed, action_masks=self.masks)
        self.w = problem.advantages.astype(dtype)
        self.actions = self.a.astype(np.int64)


@GRID
@BY_DTYPE
def test_measures_equal_the_reference(head: reference.Head, dtype: str) -> None:
    c = Case(head, dtype)
    old = moved(c.parameters, 3, dtype, 0.3)
    tolerance, given = TOLERANCE[dtype], {"action_masks": c.masks}
    log_prob = c.policy.log_prob(c.parameters, c.obs, c.actions)
    assert_close(c.core.log_prob(c.x, c.a, **given), log_prob, tolerance, what="log_prob")
    entropy = c.policy.entropy(c.parameters, c.obs)
    assert_close(c.core.entropy(c.x, **given), entropy, tolerance, what="entropy")
    kl = c.policy.kl(old, c.parameters, c.obs)
    assert_close(c.core.kl(c.x, old.astype(dtype), **given), kl, tolerance, what="kl")
    # exact where nothing has moved
    assert not c.core.kl(c.x, c.core.parameters, **given).any()
    for n, allowed in enumerate(c.masks):
        outputs = c.core.outputs(c.x[n : n + 1], action_masks=allowed[None])
        assert np.isfinite(outputs).all()


@GRID
@BY_DTYPE
def test_gradient_equals_the_reference(head: reference.Head, dtype: str) -> None:
    c = Case(head, dtype)
    old = moved(c.parameters, 3, dtype, 0.3)
    for start in (None, old):
        args = (c.parameters, c.parameters if start is None else start)
        expected = c.policy.surrogate_gradient(*args, c.obs, c.actions, c.advantages)
        gradient = c.core.surrogate_gradient(
            c.x,
            c.a,
            c.w,
            old_parameters=None if start is None else start.astype(dtype),
            action_masks=c.masks,
        )
        assert_close(gradient, expected, TOLERANCE[dtype], what="gradient")


@GRID
@BY_DTYPE
def test_fisher_matrices_equal_the_dense_ones(head: reference.Head, dtype: str) -> None:
    c = Case(head, dtype)
    D = len(c.parameters)
    for form, expected in (
        ("gauss_newton", c.policy.fisher(c.parameters, c.obs)),
        ("empirical", c.policy.empirical_fisher(c.parameters, c.obs, c.actions)),
    ):
        F = c.core.fisher_operator(c.x, actions=c.a, fisher=form, action_masks=c.masks)  # type: ignore[arg-type]
        dense = np.stack([F(e) for e in np.eye(D)], axis=1)
        assert_close(dense, expected, TOLERANCE[dtype], what=form)


def test_masked_bandit_has_the_exact_gradient_and_fisher_matrix() -> None:
    """One state, logits that are biases: g and F of the softmax over the allowed arms, by hand."""
    n, allowed = 5, np.array([True, False, True, True, False])
    policy = core.Policy(
        1, core.Distribution("categorical", (n,)), hidden_sizes=(), dtype="float64"
    )
    logits = normals(8, n)
    policy.parameters = np.concatenate([np.zeros(n), logits])
    p = np.where(allowed, np.exp(logits), 0.0)
    p /= p.sum()
    reward = normals(9, n)
    # every allowed arm once, weighed by its probability: the expectation itself
    arms = np.flatnonzero(allowed).astype(np.int32)
    x, masks = np.ones((len(arms), 1)), np.tile(allowed, (len(arms), 1))
    weights = len(arms) * p[arms] * reward[arms]
    gradient = policy.surrogate_gradient(x, arms, weights, action_masks=masks)[n:]
    expected = p * (reward - p @ np.where(allowed, reward, 0.0))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10)
    assert not gradient[~allowed].any()
    F = policy.fisher_operator(x, action_masks=masks)
    dense = np.stack([F(e)[n:] for e in np.eye(2 * n)[n:]], axis=1)
    np.testing.assert_allclose(dense, np.diag(p) - np.outer(p, p), rtol=0, atol=1e-10)
    assert not dense[~allowed].any()
    assert not dense[:, ~allowed].any()


@GRID
def test_an_update_equals_the_reference(head: reference.Head) -> None:
    c = Case(head)
    settings: dict[str, Any] = {"max_kl": 0.02, "cg_damping": 0.05, "cg_iterations": 8}
    expected = reference.trpo_update(
        c.policy, c.parameters, c.obs, c.actions, c.advantages, **settings
    )
    summary = c.core.update(c.x, c.a, c.w, action_masks=c.masks, **settings)
    assert summary.accepted
    assert_close(c.core.parameters, expected.parameters, 1e-8, what="parameters")
    assert summary.kl == pytest.approx(expected.kl, rel=1e-6)


SETTINGS: dict[str, dict[str, Any]] = {
    "empirical": {"fisher": "empirical"},
    "identity": {"fisher": "identity"},
    "fraction": {"fisher_fraction": 0.5, "seed": 3},
    "kronecker": {"cg_preconditioner": "kronecker", "seed": 3},
    "empirical kronecker": {"fisher": "empirical", "cg_preconditioner": "kronecker"},
    "largest": {"constraint": "max"},
    "boundary": {"step": "boundary"},
    "fixed": {"step": "fixed", "step_size": 0.01},
}


@GRID
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_steps_inside_the_masks(
    head: reference.Head, settings: dict[str, Any]
) -> None:
    """A mask of one choice takes a sample out of the update: its actions say nothing."""
    c = Case(head, "float32")
    before = copy.deepcopy(c.core)
    summary = c.core.update(c.x, c.a, c.w, action_masks=c.masks, **settings)
    assert summary.accepted
    assert np.isfinite(c.core.parameters).all()
    kl = c.core.kl(c.x, before.parameters, action_masks=c.masks).mean()
    assert summary.kl == pytest.approx(kl, rel=1e-4)

    # what is forbidden may be anything: the same bits with other logits for it
    other = copy.deepcopy(before)
    always = np.zeros_like(c.masks)
    always[:] = c.masks[0]
    a = other.act(c.x, seed=1, action_masks=always)
    one, two = copy.deepcopy(other), copy.deepcopy(other)
    flat = two.parameters
    _, shape = two.parameter_layout["1.bias"]
    forbidden = ~c.masks[0]
    if head.kind == "bernoulli":
        forbidden = ~c.masks[0].reshape(-1, 2).all(axis=1)
    flat[-shape[0] :][forbidden] += 5.0
    two.parameters = flat
    for policy in (one, two):
        policy.update(c.x, a, c.w, action_masks=always, **settings)
    allowed_change = one.parameters - other.parameters, two.parameters - flat
    np.testing.assert_array_equal(
        allowed_change[0][-shape[0] :][forbidden], allowed_change[1][-shape[0] :][forbidden]
    )
    assert not allowed_change[0][-shape[0] :][forbidden].any()


@GRID
@pytest.mark.parametrize("minibatch_size", [None, 7])
def test_the_penalised_ascent_knows_masks(head: reference.Head, minibatch_size: int | None) -> None:
    c = Case(head)
    old = moved(c.parameters, 5, "float64", 0.2)
    beta = 0.7

    def objective(flat: Array) -> float:
        gain = c.policy.surrogate(flat, old, c.obs, c.actions, c.advantages)
        return gain - beta * float(c.policy.kl(old, flat, c.obs).mean())

    gradient = c.core.penalised_gradient(
        c.x, c.a, c.w, old_parameters=old, kl_coefficient=beta, action_masks=c.masks
    )
    h = 1e-5
    for seed in range(3):
        v = normals(seed, len(c.parameters))
        central = (objective(c.parameters + h * v) - objective(c.parameters - h * v)) / (2 * h)
        assert gradient @ v == pytest.approx(central, rel=1e-6, abs=1e-8)

    settings: dict[str, Any] = {"minibatch_size": minibatch_size, "kl_coefficient": 1.0}
    summary = c.core.ascend(
        c.x, c.a, c.w, action_masks=c.masks, epochs=3, learning_rate=0.01, **settings
    )
    assert summary.accepted
    assert summary.kl > 0
    assert summary.surrogate_gain > 0


@GRID
def test_only_what_is_allowed_is_drawn_and_chosen(head: reference.Head) -> None:
    n = 4000
    policy = core.Policy(2, core.Distribution(head.kind, head.sizes), output_gain=2.0)  # type: ignore[arg-type]
    sizes = policy.distribution.mask_sizes
    masks = random_masks(sizes, n, seed=4, share=0.3)
    x = normals(3, n, 2, dtype="float32").astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for deterministic in (False, True):
        a = policy.act(x, seed=7, deterministic=deterministic, action_masks=masks)
        assert np.take_along_axis(masks, a + starts, axis=1).all()
        one = policy.act_one(x[5], seed=7, action_mask=masks[5], deterministic=True)
        mode = policy.act(x[5:6], deterministic=True, action_masks=masks[5:6])
        np.testing.assert_array_equal(one, mode)
    # frequencies of one state are the probabilities of the softmax over what is allowed
    state, mask = np.repeat(x[:1], n, axis=0), np.repeat(masks[:1], n, axis=0)
    drawn = policy.act(state, seed=3, envs=np.arange(n), action_masks=mask)
    for a in {tuple(row) for row in drawn.tolist()}:
        p = float(np.exp(policy.log_prob(x[:1], [a], action_masks=masks[:1]))[0])
        share = float((drawn == a).all(axis=1).mean())
        assert abs(share - p) < 4.0 * np.sqrt(p * (1 - p) / n) + 1e-9


def test_rounding_never_draws_a_forbidden_last_choice() -> None:
    """The last choice takes what rounding leaves of the cumulative sum: the last allowed one."""
    policy = core.Policy(1, core.Distribution("categorical", (3,)), hidden_sizes=())
    masks = np.tile([True, True, False], (50, 1))
    x = np.full((50, 1), np.nan, np.float32)  # no partial sum reaches any uniform number
    envs, steps = np.arange(50, dtype=np.uint32), np.zeros(50, np.uint64)
    assert (policy.native.sample(x, 0, envs, steps, False, masks) == 1).all()


@GRID
def test_masks_that_allow_everything_change_no_bit(head: reference.Head) -> None:
    c = Case(head, "float32")
    ones = np.ones_like(c.masks)
    a = c.core.act(c.x, seed=2)
    np.testing.assert_array_equal(a, c.core.act(c.x, seed=2, action_masks=ones))
    np.testing.assert_array_equal(
        c.core.log_prob(c.x, a), c.core.log_prob(c.x, a, action_masks=ones)
    )
    one, two = copy.deepcopy(c.core), copy.deepcopy(c.core)
    one.update(c.x, a, c.w, fisher_fraction=0.5)
    two.update(c.x, a, c.w, fisher_fraction=0.5, action_masks=ones)
    np.testing.assert_array_equal(one.parameters, two.parameters)


@GRID
def test_the_bits_do_not_depend_on_the_number_of_threads(head: reference.Head) -> None:
    n = 3000
    policy = core.Policy(6, core.Distribution(head.kind, head.sizes), hidden_sizes=(32,))  # type: ignore[arg-type]
    masks = random_masks(policy.distribution.mask_sizes, n)
    x = normals(1, n, 6, dtype="float32").astype(np.float32)
    a = policy.act(x, action_masks=masks)
    before, results = runtime.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            runtime.set_num_threads(threads)
            learner = copy.deepcopy(policy)
            learner.update(x, a, normals(2, n), action_masks=masks)
            results.append(learner.parameters)
    finally:
        runtime.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("estimator", ["exact_sum", "self_normalized"])
@GRID
def test_the_vine_counts_allowed_actions_only(head: reference.Head, estimator: Any) -> None:
    c = Case(head)
    n = 6
    x, masks = c.x[:n], c.masks[:n]
    every = core.all_actions(c.core.distribution)
    starts = np.concatenate([[0], np.cumsum(c.policy.sizes)[:-1]])
    if estimator == "exact_sum":
        actions = np.broadcast_to(every, (n, *every.shape))
    else:
        actions = np.stack([c.core.act(x, seed=k, action_masks=masks) for k in range(4)], axis=1)
    K = actions.shape[1]
    allowed = np.take_along_axis(
        np.repeat(masks, K, axis=0), actions.reshape(n * K, -1) + starts, axis=1
    )
    allowed = allowed.all(axis=1).reshape(n, K)
    q = 2.0 + normals(5, n, K)
    policy = MaskedPolicy(3, head, (4,), "tanh", masks)

    def value(flat: Array) -> float:
        """Equations 15 and 16 over what is allowed."""
        total = 0.0
        for i in range(n):
            chosen = np.flatnonzero(allowed[i])
            at = MaskedPolicy(3, head, (4,), "tanh", np.repeat(masks[i : i + 1], len(chosen), 0))
            rows = np.repeat(c.obs[i : i + 1], len(chosen), axis=0)
            p = np.exp(at.log_prob(flat, rows, actions[i, chosen]))
            if estimator == "self_normalized":
                p = p / np.exp(at.log_prob(c.parameters, rows, actions[i, chosen]))
                p = p / p.sum()
            total += float(p @ q[i, chosen])
        return total / n

    spoiled = np.where(allowed, q, np.nan)  # what a forbidden action is worth means nothing
    given: dict[str, Any] = {"estimator": estimator, "action_masks": masks}
    assert core.vine_value(c.core, x, actions, spoiled, **given) == pytest.approx(
        value(c.parameters), rel=1e-10
    )
    h, D = 1e-6, len(c.parameters)
    central = [
        (value(c.parameters + h * e) - value(c.parameters - h * e)) / (2 * h) for e in np.eye(D)
    ]
    gradient = core.vine_gradient(c.core, x, actions, spoiled, **given)
    assert_close(gradient, np.array(central), 1e-6, what="gradient")
    for settings in ({}, {"fisher": "empirical", "cg_preconditioner": "kronecker"}):
        learner = copy.deepcopy(c.core)
        summary = core.vine_update(learner, x, actions, spoiled, **given, **settings)  # type: ignore[arg-type]
        assert summary.accepted
        assert policy.kl(c.parameters, learner.parameters, c.obs[:n]).mean() <= 0.01 * (1 + 1e-9)


# ---- what is refused -----------------------------------------------------------------------


def test_layouts_of_masks() -> None:
    multi = core.Distribution("multi_categorical", (2, 3))
    flat = np.array([[1, 0, 0, 1, 1]])
    for given in (flat, flat.astype(bool), flat.astype(float), (flat[:, :2], flat[:, 2:])):
        np.testing.assert_array_equal(mask_rows(multi, given, 1), flat.astype(bool))
    square = core.Distribution("multi_categorical", (2, 2))
    np.testing.assert_array_equal(
        mask_rows(square, [[[1, 0], [0, 1]]], 1), [[True, False, False, True]]
    )
    bits = core.Distribution("bernoulli", (2,))
    for given in ([[1, 0]], [[[1, 1], [1, 0]]], [[1, 1, 1, 0]]):
        np.testing.assert_array_equal(mask_rows(bits, given, 1), [[True, True, True, False]])


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (np.ones((2, 4)), r"expected 0 and 1 of shape \(2, 5\), got shape \(2, 4\)"),
        (np.ones(5), r"expected 0 and 1 of shape \(2, 5\), got shape \(5,\)"),
        ([[1, 1, 1, 1, 1], [1, 1, 1]], "got list"),
        ([["a"] * 5] * 2, "got dtype"),
        ([[1, 1, 1, 1, 1], [1, 0, np.nan, 1, 1]], "got nan in entry 2 of row 1"),
        ([[1, 1, 2, 1, 1], [1, 0, 1, 1, 1]], "got 2 in entry 2 of row 0"),
        (
            [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]],
            "at least one allowed choice of component 1, got none of its 3 in row 1",
        ),
    ],
)
def test_no_masks(masks: Any, words: str) -> None:
    policy = core.Policy(2, core.Distribution("multi_categorical", (2, 3)))
    with pytest.raises(ValueError, match=words):
        policy.act(np.zeros((2, 2)), action_masks=masks)


def test_masks_where_there_is_no_choice() -> None:
    policy = core.Policy(2, core.Distribution("gaussian", (2,)))
    with pytest.raises(ValueError, match="expected None for the continuous distribution"):
        policy.act(np.zeros((1, 2)), action_masks=np.ones((1, 2)))


@pytest.mark.parametrize("how", ["update", "ascend", "surrogate", "surrogate_gradient"])
def test_actions_that_their_masks_forbid(how: str) -> None:
    policy = core.Policy(2, core.Distribution("categorical", (3,)))
    x, masks = np.zeros((2, 2)), np.array([[1, 1, 1], [1, 0, 1]])
    with pytest.raises(ValueError, match="got 1 in column 0 of row 1, which is forbidden"):
        getattr(policy, how)(x, [1, 1], [0.5, 1.0], action_masks=masks)
    # what was never possible may still be asked about
    log_prob = policy.log_prob(x, [1, 1], action_masks=masks)
    assert np.isfinite(log_prob).all()
    assert np.exp(log_prob[1]) == 0.0


def test_an_actor_reads_masks_in_place() -> None:
    distribution = core.Distribution("multi_categorical", (3, 2))
    policy = core.Policy(2, distribution)
    T, E = 5, 4
    x = normals(1, T, E, 2, dtype="float32").astype(np.float32)
    masks = random_masks((3, 2), T * E).reshape(T, E, 5)
    actions = np.zeros((T, E, 2), np.int32)
    counters, envs = np.zeros(E, np.uint64), np.arange(E, dtype=np.uint32)
    actor = policy.actor(x, actions, counters, envs, seed=3, action_masks=masks)
    for t in range(T):
        actor.step(t)
        expected = policy.act(x[t], seed=3, envs=envs, steps=np.full(E, t), action_masks=masks[t])
        np.testing.assert_array_equal(actions[t], expected)
    with pytest.raises(ValueError, match="action_masks"):
        policy.actor(x, actions, counters, envs, seed=3, action_masks=masks[:, :2])


def test_mask_writer_takes_the_usual_arrays_and_leaves_the_rest() -> None:
    rows = np.zeros((2, 5), np.bool_)
    write = core.MaskWriter(rows, (2, 3)).write
    good = [1, 0, 0, 1, 0]
    for row, dtype in itertools.product((0, 1), (bool, np.int8, np.int64)):
        rows[:] = False
        assert write(row, np.array(good, dtype))
        np.testing.assert_array_equal(rows[row], np.array(good, bool))
        assert not rows[1 - row].any()
    for bad in ([1, 0, 0, 0, 0], [0, 0, 1, 1, 1], [2, 0, 1, 1, 1], [1, 0, 1, 1]):
        assert not write(0, np.array(bad, np.int8))
    for other in (good, np.array(good, float), np.array(good * 2, np.int8)[::2], None):
        assert not write(0, other)
    with pytest.raises(IndexError):
        write(2, np.array(good, np.int8))
