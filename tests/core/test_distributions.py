"""Action distributions: log-probability, entropy, mode, KL, and sampling from counter streams."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from cases import (
    DTYPES,
    HEADS,
    SHAPES,
    TOLERANCE,
    assert_close,
    core_batch,
    core_policy,
    grid_problem,
    moved,
    normals,
    shape_id,
    small_problem,
)
from trpo_fast import core

GRID = pytest.mark.parametrize("shape", SHAPES, ids=shape_id)


@pytest.mark.parametrize("dtype", DTYPES)
@GRID
@pytest.mark.parametrize("head_name", HEADS)
def test_log_prob_entropy_and_kl(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy = core_policy(p, dtype)
    obs, actions, _ = core_batch(p, dtype)
    tolerance = TOLERANCE[dtype]
    log_prob = policy.log_prob(obs, actions)
    assert_close(log_prob, p.policy.log_prob(p.parameters, p.obs, p.actions), tolerance)
    assert_close(policy.entropy(obs), p.policy.entropy(p.parameters, p.obs), tolerance)
    old = moved(p.parameters, 11, dtype, 0.2)
    kl = policy.kl(obs, old.astype(dtype))
    assert_close(kl, p.policy.kl(old, p.parameters, p.obs), tolerance, what="KL")


@pytest.mark.parametrize("dtype", DTYPES)
@GRID
@pytest.mark.parametrize("head_name", HEADS)
def test_kl_of_a_policy_with_itself_is_exactly_zero(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy = core_policy(p, dtype)
    kl = policy.kl(core_batch(p, dtype)[0], policy.parameters)
    assert kl.shape == (len(p.obs),)
    assert not kl.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_kl_is_old_relative_to_new(head_name: str, dtype: str) -> None:
    """The two directions differ, and the core computes KL(old || new)."""
    p = small_problem(HEADS[head_name], n=50, dtype=dtype)
    old = moved(p.parameters, 1, dtype, 0.6)
    forward = p.policy.kl(old, p.parameters, p.obs)
    backward = p.policy.kl(p.parameters, old, p.obs)
    assert np.abs(forward - backward).max() > 1e-2 * forward.max()
    kl = core_policy(p, dtype).kl(core_batch(p, dtype)[0], old.astype(dtype))
    assert_close(kl, forward, TOLERANCE[dtype])
    assert (kl >= 0.0).all()


@pytest.mark.parametrize("head_name", HEADS)
def test_small_kl_keeps_its_relative_accuracy(head_name: str) -> None:
    """A KL of 1e-8 is what a tight trust region asks about: it must not be rounding noise."""
    p = small_problem(HEADS[head_name], n=20)
    old = moved(p.parameters, 2, "float64", 1e-4)
    kl = core_policy(p, "float64").kl(p.obs, old)
    # second order: KL = 1/2 d^T M d, exact to the relative size of d
    eta, tangent = p.policy.eta(p.parameters, p.obs), p.policy.eta(old, p.obs)
    difference = tangent - eta
    expected = 0.5 * (difference * p.policy.head.metric(eta, difference)).sum(axis=1)
    assert expected.max() < 1e-6
    assert_close(kl, expected, 1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["categorical", "multi_categorical", "bernoulli"])
def test_extreme_logits_stay_finite(kind: str, dtype: str) -> None:
    sizes = (3, 2) if kind == "multi_categorical" else (3,)
    head = reference.Head(kind, sizes)
    policy = core.Policy(1, core.Distribution(kind, sizes), hidden_sizes=(), dtype=dtype)
    flat = np.zeros(policy.n_parameters)
    flat[: head.n_outputs] = np.array([900.0, -900.0, 0.0, 500.0, -800.0])[: head.n_outputs]
    policy.parameters = flat.astype(dtype)
    obs = np.array([[1.0], [-1.0], [0.0]], dtype=dtype)
    eta = flat[None, : head.n_outputs] * obs.astype(np.float64)
    actions = head.mode(eta)
    assert_close(policy.log_prob(obs, actions), head.log_prob(eta, actions), 1e-6, scale=1.0)
    assert_close(policy.entropy(obs), head.entropy(eta), 1e-6, scale=1.0)
    zeros = np.zeros(policy.n_parameters, dtype=dtype)
    assert_close(policy.kl(obs, zeros), head.kl(0.0 * eta, eta), 1e-5)
    fisher = policy.fisher_vector_product(obs, np.ones(policy.n_parameters, dtype=dtype))
    assert np.isfinite(fisher).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_dependent_log_std_is_clamped(dtype: str) -> None:
    head = reference.Head("state_dependent_gaussian", (1,))
    p = reference.Policy(1, head, ())
    policy = core.Policy(1, core.Distribution(head.kind, head.sizes), hidden_sizes=(), dtype=dtype)
    parameters = np.array([0.5, 1.0, 0.0, 0.0])  # mean = 0.5 s, log_std = clamp(s)
    policy.parameters = parameters.astype(dtype)
    obs = np.array([[-25.0], [-1.0], [1.5], [4.0]])
    actions = np.array([[-12.5], [0.3], [0.1], [1.0]])
    a, o = actions.astype(dtype), obs.astype(dtype)
    tolerance = TOLERANCE[dtype]
    assert_close(policy.log_prob(o, a), p.log_prob(parameters, obs, actions), tolerance)
    advantages = np.array([1.0, -2.0, 3.0, 0.5])
    gradient = policy.surrogate_gradient(o, a, advantages.astype(dtype))
    expected = p.surrogate_gradient(parameters, parameters, obs, actions, advantages)
    assert_close(gradient, expected, tolerance)
    # only the rows inside the clamp move log_std
    assert_close(
        policy.surrogate_gradient(o[3:], a[3:], advantages[3:].astype(dtype))[[1, 3]],
        [0.0, 0.0],
        0.0,
    )
    v = np.array([1.0, -1.0, 0.5, 2.0])
    product = policy.fisher_vector_product(o, v.astype(dtype))
    assert_close(product, p.fisher_vector_product(parameters, obs, v), tolerance)


# ---- acting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_deterministic_action_is_the_mode(head_name: str, dtype: str) -> None:
    p = grid_problem(head_name, SHAPES[7], dtype)
    policy = core_policy(p, dtype)
    actions = policy.act(p.obs.astype(dtype), deterministic=True)
    expected = p.policy.head.mode(p.policy.eta(p.parameters, p.obs))
    assert actions.shape == expected.shape
    if p.policy.head.is_gaussian:
        assert actions.dtype == dtype
        assert_close(actions, expected, TOLERANCE[dtype])
    else:
        assert actions.dtype == np.int32
        assert np.array_equal(actions, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_sampled_actions_are_those_of_the_counter_stream(head_name: str, dtype: str) -> None:
    p = grid_problem(head_name, SHAPES[7], dtype)
    policy = core_policy(p, dtype)
    n = len(p.obs)
    seed = 2**63 + 12345
    envs = np.arange(n, dtype=np.uint32) * 7 + 1
    steps = np.arange(n, dtype=np.uint64) + 2**32 - 5  # crosses into the high word
    actions = policy.act(p.obs.astype(dtype), seed=seed, envs=envs, steps=steps)
    expected = p.policy.head.sample(p.policy.eta(p.parameters, p.obs), seed, envs, steps)
    if p.policy.head.is_gaussian:
        assert_close(actions, expected, TOLERANCE[dtype])
    else:
        assert np.array_equal(actions, expected)
        low, high = actions.min(axis=0), actions.max(axis=0)
        assert (low >= 0).all()
        sizes = p.policy.head.sizes if "categorical" in p.policy.head.kind else (2,)
        assert (high < np.array(sizes)).all()


def test_actions_do_not_depend_on_the_batch_they_are_drawn_in() -> None:
    p = small_problem(HEADS["gaussian_6"], n=200, dtype="float32")
    policy = core_policy(p, "float32")
    obs = p.obs.astype(np.float32)
    envs, steps = np.arange(200, dtype=np.uint32), np.full(200, 9, dtype=np.uint64)
    together = policy.act(obs, seed=4, envs=envs, steps=steps)
    for begin, end in [(0, 1), (7, 20), (95, 97), (199, 200)]:
        rows = slice(begin, end)
        alone = policy.act(obs[rows], seed=4, envs=envs[rows], steps=steps[rows])
        assert np.array_equal(alone, together[rows])


@pytest.mark.parametrize("head_name", ["gaussian_6", "multi_categorical_2_5_3", "bernoulli_4"])
def test_sampling_frequencies(head_name: str) -> None:
    """20,000 draws at one observation: means within five standard errors."""
    p = small_problem(HEADS[head_name], n=1)
    head, policy, n = p.policy.head, core_policy(p, "float64"), 20_000
    actions = policy.act(
        np.repeat(p.obs, n, axis=0),
        seed=1,
        envs=np.zeros(n, dtype=np.uint32),
        steps=np.arange(n, dtype=np.uint64),
    )
    # the score has mean zero under the distribution, with the metric as its covariance
    eta = np.repeat(p.policy.eta(p.parameters, p.obs), n, axis=0)
    score = head.score(eta, actions)
    error = np.abs(score.mean(axis=0)) / (score.std(axis=0) / np.sqrt(n))
    assert error.max() < 5.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_name", HEADS)
def test_actor_equals_act_and_advances_its_counters(head_name: str, dtype: str) -> None:
    head = HEADS[head_name]
    p = small_problem(head, n=1, dtype=dtype)
    policy = core_policy(p, dtype)
    policy.set_normalizer(np.array([1.0, 0.0, -1.0]), np.array([4.0, 1.0, 0.5]))
    n_steps, n_envs = 5, 100  # more environments than one tile holds
    observations = normals(3, n_steps, n_envs, 3).astype(dtype)
    actions = np.full(
        (n_steps, n_envs, head.action_dim), 77, dtype=dtype if head.is_gaussian else "int32"
    )
    start = np.arange(n_envs, dtype=np.uint64) * 3
    counters, envs = start.copy(), np.arange(n_envs, dtype=np.uint32) + 10
    actor = policy.actor(observations, actions, counters, envs, seed=5)
    for t in (0, 1, 3):
        before = counters.copy()
        actor.step(t)
        assert np.array_equal(counters, before + np.uint64(1))
        expected = policy.act(observations[t], seed=5, envs=envs, steps=before)
        assert np.array_equal(actions[t], expected)
    assert (actions[2] == 77).all()  # a step that was not asked for is not written
    assert (actions[4] == 77).all()


def test_actor_sees_parameters_set_after_it_was_made() -> None:
    p = small_problem(HEADS["gaussian_1"], n=1)
    policy = core_policy(p, "float64")
    observations, actions = normals(3, 1, 2, 3), np.zeros((1, 2, 1))
    counters, envs = np.zeros(2, dtype=np.uint64), np.arange(2, dtype=np.uint32)
    actor = policy.actor(observations, actions, counters, envs, seed=0)
    policy.parameters = moved(p.parameters, 3, "float64", 0.5)
    actor.step(0)
    steps = np.zeros(2, dtype=np.uint64)
    assert np.array_equal(actions[0], policy.act(observations[0], seed=0, envs=envs, steps=steps))


def test_actor_keeps_its_arrays_alive() -> None:
    p = small_problem(HEADS["gaussian_1"], n=1)
    policy = core_policy(p, "float64")
    actions = np.zeros((1, 2, 1))
    actor = policy.actor(
        normals(3, 1, 2, 3), actions, np.zeros(2, np.uint64), np.arange(2, dtype=np.uint32), seed=0
    )
    del policy
    actor.step(0)
    assert actions.any()


@pytest.mark.parametrize("bad_step", [-1, 2, 10**9])
def test_actor_refuses_a_step_outside_its_arrays(bad_step: int) -> None:
    p = small_problem(HEADS["gaussian_1"], n=1)
    policy = core_policy(p, "float64")
    actor = policy.actor(
        normals(3, 2, 1, 3),
        np.zeros((2, 1, 1)),
        np.zeros(1, np.uint64),
        np.zeros(1, np.uint32),
        seed=0,
    )
    with pytest.raises((ValueError, IndexError)):
        actor.step(bad_step)


# ---- what is no number stays visible


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HEADS)
def test_a_nan_observation_never_reads_as_a_small_divergence(name: str, dtype: str) -> None:
    policy = core_policy(small_problem(HEADS[name], dtype=dtype), dtype)
    observations = normals(1, 2, 3)
    observations[0, 1] = np.nan
    kl = policy.kl(observations, policy.parameters * policy.dtype.type(1.5))
    assert np.isnan(kl[0])
    assert kl[1] > 0.0
    entropy = policy.entropy(observations)
    assert np.isnan(entropy[0]) or name.startswith("gaussian")  # whose log_std is free
    assert np.isfinite(entropy[1])


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
@pytest.mark.parametrize("size", [1e14, 1e30, 1e260])
def test_the_divergence_of_huge_logits_is_not_negative(kind: str, size: float) -> None:
    head = core.Distribution(kind, (2,))  # type: ignore[arg-type]
    policy = core.Policy(1, head, hidden_sizes=(), dtype="float64")
    observations = np.ones((1, 1))
    for factor in (1.0, 1.0001, 3.0, -1.0):
        policy.parameters = [0.0, 0.0, size, -size]
        old = policy.parameters
        policy.parameters = factor * old
        kl = policy.kl(observations, old)[0]
        assert kl == 0.0 if factor > 0 else kl > 1.0
