"""Networks: outputs, parameter order, initialisation, normalisation of observations."""

from __future__ import annotations

import itertools
import math

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
    normals,
    shape_id,
)
from trpo_fast import core


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
@pytest.mark.parametrize("head_name", HEADS)
def test_outputs(head_name: str, shape, dtype: str) -> None:
    p = grid_problem(head_name, shape, dtype)
    policy = core_policy(p, dtype)
    outputs = policy.outputs(core_batch(p, dtype)[0])
    assert outputs.dtype == dtype
    expected = p.policy.outputs(p.parameters, p.obs)
    assert_close(outputs, expected, TOLERANCE[dtype], what="outputs")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation_over_its_whole_range(activation: str, dtype: str) -> None:
    # one hidden unit of weight one and an output of weight one: outputs are the activation itself
    x = np.concatenate([np.linspace(-30.0, 30.0, 1201), [0.0, 1e-8, -1e-8, 1e-4, -1e-4]])
    x = x.astype(dtype).astype(np.float64)
    policy = core.Policy(
        1,
        core.Distribution("gaussian", (1,)),
        hidden_sizes=(1,),
        activation=activation,
        dtype=dtype,
    )
    policy.parameters = np.array([1.0, 0.0, 1.0, 0.0, 0.0], dtype=dtype)
    outputs = policy.outputs(x[:, None].astype(dtype))[:, 0].astype(np.float64)
    expected = reference.activate(activation, x)
    # relative where the value is not tiny, so that small arguments and far tails count too
    error = np.abs(outputs - expected) / np.maximum(np.abs(expected), 1e-6)
    assert error.max() <= {"float64": 1e-9, "float32": 1e-4}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_a_nan_observation_is_never_hidden(activation: str, dtype: str) -> None:
    """NaN in, NaN out: in its own row of the outputs and nowhere else."""
    policy = core.Policy(
        3,
        core.Distribution("categorical", (2,)),
        hidden_sizes=(5,),
        activation=activation,
        dtype=dtype,
    )
    obs = np.ones((4, 3), dtype=dtype)
    obs[2, 1] = np.nan
    outputs = policy.outputs(obs)
    assert np.isnan(outputs[2]).all()
    assert np.isfinite(outputs[[0, 1, 3]]).all()


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("hidden", [(), (5,), (4, 7)])
def test_parameter_layout_is_that_of_pytorch(head: reference.Head, hidden) -> None:
    policy = core.Policy(3, core.Distribution(head.kind, head.sizes), hidden_sizes=hidden)
    expected, at = {}, 0
    sizes = (3, *hidden, head.n_outputs)
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        for name, shape in ((f"{layer}.weight", (n_out, n_in)), (f"{layer}.bias", (n_out,))):
            expected[name] = (slice(at, at + math.prod(shape)), shape)
            at += math.prod(shape)
    if head.kind == "gaussian":
        expected["log_std"] = (slice(at, at + head.sizes[0]), head.sizes)
        at += head.sizes[0]
    assert policy.n_parameters == at == policy.parameters.size
    layout = policy.parameter_layout
    assert list(layout) == list(expected)
    assert {k: (s, tuple(shape)) for k, (s, shape) in layout.items()} == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [(), (64, 64), (100, 3), (2, 31)])
def test_orthogonal_initialisation(hidden: tuple[int, ...], dtype: str) -> None:
    hidden_gain, output_gain = 1.3, 0.02
    policy = core.Policy(
        17,
        core.Distribution("gaussian", (6,)),
        hidden_sizes=hidden,
        dtype=dtype,
        hidden_gain=hidden_gain,
        output_gain=output_gain,
        initial_log_std=-0.7,
        seed=3,
    )
    flat = policy.parameters
    assert flat.dtype == dtype
    for name, (where, shape) in policy.parameter_layout.items():
        values = flat[where].reshape(shape).astype(np.float64)
        if name == "log_std":
            assert_close(values, np.full(6, -0.7), 1e-6)
        elif name.endswith("bias"):
            assert not values.any()
        else:
            last = name == f"{len(hidden)}.weight"
            gain = output_gain if last else hidden_gain
            n_out, n_in = shape
            gram = values @ values.T if n_out <= n_in else values.T @ values
            expected = gain**2 * np.eye(min(shape))
            assert_close(gram, expected, {"float64": 1e-12, "float32": 1e-5}[dtype], what=name)


def test_initialisation_depends_on_the_seed_alone() -> None:
    def make(seed: int, dtype: str = "float64"):
        return core.Policy(
            5, core.Distribution("categorical", (3,)), hidden_sizes=(8, 8), dtype=dtype, seed=seed
        ).parameters

    assert np.array_equal(make(1), make(1))
    assert not np.array_equal(make(1), make(2))
    # float32 rounds the very same numbers
    assert np.array_equal(make(1).astype(np.float32), make(1, "float32"))
    # weights are spread over both signs: no degenerate draw
    weights = make(1)[: 8 * 5]
    assert 0.2 < np.mean(weights > 0.0) < 0.8


def test_policy_and_value_networks_differ_for_one_seed() -> None:
    value = core.ValueFunction(5, hidden_sizes=(8,), dtype="float64", seed=1)
    assert np.array_equal(
        value.parameters,
        core.ValueFunction(5, hidden_sizes=(8,), dtype="float64", seed=1).parameters,
    )
    where, shape = value.parameter_layout["1.weight"]
    row = value.parameters[where].reshape(shape)
    assert_close(row @ row.T, np.ones((1, 1)), 1e-12)  # output_gain 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_are_a_copy_and_can_be_set(dtype: str) -> None:
    policy = core.Policy(2, core.Distribution("bernoulli", (2,)), hidden_sizes=(3,), dtype=dtype)
    before = policy.parameters
    before[:] = 7.0
    assert not np.array_equal(policy.parameters, before)
    wanted = normals(1, policy.n_parameters).astype(dtype)
    policy.parameters = wanted
    assert np.array_equal(policy.parameters, wanted)
    obs = normals(2, 4, 2).astype(dtype)
    outputs = policy.outputs(obs)
    wanted[:] = 0.0  # the policy keeps its own values
    assert np.array_equal(policy.outputs(obs), outputs)


def test_attributes() -> None:
    distribution = core.Distribution("multi_categorical", (2, 5, 3))
    assert (distribution.action_dim, distribution.n_outputs) == (3, 10)
    assert distribution.is_discrete
    policy = core.Policy(4, distribution, hidden_sizes=(6,), activation="silu", dtype="float64")
    assert (policy.obs_dim, policy.dtype, tuple(policy.hidden_sizes), policy.activation) == (
        4,
        "float64",
        (6,),
        "silu",
    )
    assert policy.distribution == distribution
    for head in HEADS.values():
        d = core.Distribution(head.kind, head.sizes)
        assert d.action_dim == head.action_dim
        assert d.n_outputs == head.n_outputs
        assert d.is_discrete == (not head.is_gaussian)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalizer(dtype: str) -> None:
    policy = core.Policy(3, core.Distribution("gaussian", (2,)), hidden_sizes=(4,), dtype=dtype)
    obs = (5.0 + 3.0 * normals(4, 50, 3)).astype(dtype)
    obs[0] = [1e6, -1e6, 5.0]
    assert np.array_equal(policy.normalize(obs), obs)  # no normaliser: as they are

    mean, variance = np.array([5.0, 4.0, -1.0]), np.array([9.0, 2.0, 0.0])
    policy.set_normalizer(mean, variance, clip=3.0, epsilon=1e-3)
    expected = reference.normalize(obs.astype(np.float64), mean, variance, 3.0, 1e-3)
    normalised = policy.normalize(obs)
    assert normalised.dtype == dtype
    assert_close(normalised, expected, TOLERANCE[dtype])
    assert np.abs(normalised).max() <= 3.0

    # raw observations everywhere, unless normalized=True says otherwise
    action = policy.act(obs, deterministic=True)
    assert np.array_equal(action, policy.outputs(normalised, normalized=True))
    assert np.array_equal(action, policy.outputs(obs))

    policy.clear_normalizer()
    assert np.array_equal(policy.normalize(obs), obs)


def test_normalizer_keeps_nan_visible() -> None:
    policy = core.Policy(2, core.Distribution("gaussian", (1,)), dtype="float64")
    policy.set_normalizer(np.zeros(2), np.ones(2))
    obs = np.array([[np.nan, 1.0]])
    try:
        normalised = policy.normalize(obs)
    except ValueError:
        return
    assert np.isnan(normalised[0, 0])
