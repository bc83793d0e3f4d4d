"""Wrong shapes, types and values: the right answer, or one sentence that names the argument."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cases import DTYPES, HEADS, Array, core_policy, normals, small_problem
from trpo_fast import core

N, OBS_DIM = 7, 3


def policy_of(kind: str = "gaussian", dtype: str = "float64") -> core.Policy:
    head = {"gaussian": "gaussian_6", "multi": "multi_categorical_2_5_3", "bits": "bernoulli_4"}
    return core_policy(small_problem(HEADS[head[kind]], dtype=dtype), dtype)


def value_function() -> core.ValueFunction:
    return core.ValueFunction(OBS_DIM, hidden_sizes=(4,), dtype="float64")


OBS = normals(1, N, OBS_DIM)
ACTIONS = normals(2, N, 6)
ADVANTAGES = normals(3, N)
DISCRETE = np.array([[0, 4, 2]] * N, dtype=np.int32)


def check(call: Callable[[], Any], name: str) -> None:
    """ValueError or TypeError, one readable sentence that begins with the argument."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert re.match(rf"^{name}\b", message), message
    assert "expected" in message, message
    assert "\n" not in message, message
    assert "incompatible" not in message, message  # pybind11's own words are not a sentence
    assert 20 < len(message) < 300, message


# ---- shapes ----------------------------------------------------------------------------------

BAD_OBSERVATIONS = {
    "one row too flat": normals(1, OBS_DIM),
    "too wide": normals(1, N, OBS_DIM + 1),
    "too narrow": normals(1, N, OBS_DIM - 1),
    "three axes": normals(1, 1, N, OBS_DIM),
    "transposed": normals(1, N, OBS_DIM).T,
    "a scalar": 1.0,
    "empty": np.zeros((0, OBS_DIM)),
    "no columns": np.zeros((N, 0)),
    "ragged": [[1.0, 2.0, 3.0], [1.0]],
    "text": "observations",
    "complex": OBS * 1j,
    "objects": np.array([[None] * OBS_DIM] * N),
    "nothing": None,
}

OBSERVATION_CALLS: dict[str, Callable[[Any], Any]] = {
    "normalize": lambda x: policy_of().normalize(x),
    "act": lambda x: policy_of().act(x),
    "outputs": lambda x: policy_of().outputs(x),
    "log_prob": lambda x: policy_of().log_prob(x, ACTIONS),
    "entropy": lambda x: policy_of().entropy(x),
    "kl": lambda x: policy_of().kl(x, policy_of().parameters),
    "surrogate": lambda x: policy_of().surrogate(x, ACTIONS, ADVANTAGES),
    "surrogate_gradient": lambda x: policy_of().surrogate_gradient(x, ACTIONS, ADVANTAGES),
    "fisher_vector_product": lambda x: policy_of().fisher_vector_product(x, policy_of().parameters),
    "update": lambda x: policy_of().update(x, ACTIONS, ADVANTAGES),
    "predict": lambda x: value_function().predict(x),
    "loss": lambda x: value_function().loss(x, ADVANTAGES),
    "loss_gradient": lambda x: value_function().loss_gradient(x, ADVANTAGES),
    "fit": lambda x: value_function().fit(x, ADVANTAGES),
}


@pytest.mark.parametrize("bad", BAD_OBSERVATIONS)
@pytest.mark.parametrize("call", OBSERVATION_CALLS)
def test_observations(call: str, bad: str) -> None:
    check(lambda: OBSERVATION_CALLS[call](BAD_OBSERVATIONS[bad]), "observations")


BAD_VECTORS = {
    "too long": normals(1, N + 1),
    "too short": normals(1, N - 1),
    "a column": normals(1, N, 1),
    "a row": normals(1, 1, N),
    "empty": np.zeros(0),
    "a scalar": 1.0,
    "text": "abc",
    "complex": ADVANTAGES * 1j,
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("advantages", lambda v: policy_of().surrogate(OBS, ACTIONS, v)),
        ("advantages", lambda v: policy_of().surrogate_gradient(OBS, ACTIONS, v)),
        ("advantages", lambda v: policy_of().update(OBS, ACTIONS, v)),
        ("targets", lambda v: value_function().loss(OBS, v)),
        ("targets", lambda v: value_function().loss_gradient(OBS, v)),
        ("targets", lambda v: value_function().fit(OBS, v)),
        ("envs", lambda v: policy_of().act(OBS, envs=v)),
        ("steps", lambda v: policy_of().act(OBS, steps=v)),
        ("vector", lambda v: policy_of().fisher_vector_product(OBS, v)),
        ("old_parameters", lambda v: policy_of().kl(OBS, v)),
        (
            "old_parameters",
            lambda v: policy_of().surrogate(OBS, ACTIONS, ADVANTAGES, old_parameters=v),
        ),
        ("parameters", lambda v: setattr(policy_of(), "parameters", v)),
        ("parameters", lambda v: setattr(value_function(), "parameters", v)),
        ("mean", lambda v: policy_of().set_normalizer(v, np.ones(OBS_DIM))),
        ("variance", lambda v: policy_of().set_normalizer(np.ones(OBS_DIM), v)),
    ],
)
def test_vectors(name: str, call: Callable[[Any], Any], bad: str) -> None:
    check(lambda: call(BAD_VECTORS[bad]), name)


@pytest.mark.parametrize(
    "call",
    [
        lambda p, a: p.log_prob(OBS, a),
        lambda p, a: p.surrogate(OBS, a, ADVANTAGES),
        lambda p, a: p.surrogate_gradient(OBS, a, ADVANTAGES),
        lambda p, a: p.update(OBS, a, ADVANTAGES),
    ],
    ids=["log_prob", "surrogate", "surrogate_gradient", "update"],
)
@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("gaussian", normals(1, N, 5)),
        ("gaussian", normals(1, N + 1, 6)),
        ("gaussian", normals(1, N)),
        ("gaussian", "abc"),
        ("multi", DISCRETE[:, :2]),
        ("multi", DISCRETE[:3]),
        ("multi", DISCRETE.astype(np.float64)),
        ("multi", DISCRETE + 0.5),
        ("multi", DISCRETE + np.array([0, 1, 0])),  # 5 of 5 choices
        ("multi", DISCRETE + np.array([2, 0, 0])),
        ("multi", DISCRETE - np.array([1, 0, 0])),
        ("multi", DISCRETE.astype(np.int64) + np.int64(2**32)),  # would wrap to a valid action
        ("bits", np.full((N, 4), 2)),
        ("bits", np.full((N, 4), -1)),
    ],
)
def test_actions(kind: str, bad: Any, call) -> None:
    policy = policy_of(kind)
    before = policy.parameters
    check(lambda: call(policy, bad), "actions")
    assert np.array_equal(policy.parameters, before)


def test_actions_of_one_sample_are_named() -> None:
    actions = DISCRETE.copy()
    actions[5, 1] = 9
    with pytest.raises(ValueError, match=r"actions.*\[0, 5\).*9.*row 5"):
        policy_of("multi").log_prob(OBS, actions)


# ---- what is accepted ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.tolist(),
        lambda x: np.concatenate([x, x], axis=-1)[..., : x.shape[-1]],
        lambda x: np.lib.stride_tricks.as_strided(x, x.shape, x.strides, writeable=False),
    ],
    ids=["fortran", "every second", "reversed", "list", "columns", "read-only"],
)
def test_any_memory_layout_gives_the_same_bits(change, dtype: str) -> None:
    policy = policy_of("gaussian", dtype)
    obs, actions, advantages = OBS.astype(dtype), ACTIONS.astype(dtype), ADVANTAGES.astype(dtype)
    expected = policy.surrogate_gradient(obs, actions, advantages)
    result = policy.surrogate_gradient(change(obs), change(actions), change(advantages))
    assert np.array_equal(result, expected)
    v = normals(4, policy.n_parameters)
    expected = policy.fisher_vector_product(obs, v)
    assert np.array_equal(policy.fisher_vector_product(change(obs), change(v)), expected)
    value = core.ValueFunction(OBS_DIM, hidden_sizes=(4,), dtype=dtype)
    expected = value.loss_gradient(obs, advantages)
    assert np.array_equal(value.loss_gradient(change(obs), change(advantages)), expected)


@pytest.mark.parametrize("other", [np.float32, np.float16, np.int64, np.uint8, bool])
def test_other_number_types_are_converted(other) -> None:
    policy, obs = policy_of(), np.abs(np.round(3.0 * OBS)).astype(other)
    assert np.array_equal(policy.outputs(obs), policy.outputs(obs.astype(np.float64)))


def test_a_broadcast_view_is_read_rightly() -> None:
    policy = policy_of()
    row = np.broadcast_to(OBS[0], (5, OBS_DIM))  # stride zero
    assert np.array_equal(policy.outputs(row), policy.outputs(np.array(row)))


# ---- numbers ---------------------------------------------------------------------------------

NOT_A_NUMBER = ["1", None, [1.0], 1j]


def bad_numbers(*values: Any) -> list[Any]:
    return [*values, np.nan, *NOT_A_NUMBER]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_kl", v) for v in bad_numbers(0.0, -0.01, np.inf)),
        *(("cg_iterations", v) for v in bad_numbers(0, -1, 2.5)),
        *(("cg_tolerance", v) for v in bad_numbers(-1e-3, np.inf)),
        *(("cg_damping", v) for v in bad_numbers(-0.1, np.inf)),
        *(("backtrack_ratio", v) for v in bad_numbers(0.0, 1.0, 1.5, -0.5)),
        *(("max_backtracks", v) for v in bad_numbers(-1, 1.5)),
        *(("fisher_fraction", v) for v in bad_numbers(0.0, 1.1, -0.1)),
        *(("seed", v) for v in bad_numbers(-1, 2**64, 0.5)),
    ],
)
def test_update_options(name: str, value: Any) -> None:
    policy = policy_of()
    before = policy.parameters
    check(lambda: policy.update(OBS, ACTIONS, ADVANTAGES, **{name: value}), name)
    assert np.array_equal(policy.parameters, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("method", v) for v in ["sgd", "", None, 1]),
        *(("epochs", v) for v in bad_numbers(0, -1, 1.5)),
        *(("minibatch_size", v) for v in [0, -1, 2.5, "1", np.nan]),
        *(("learning_rate", v) for v in bad_numbers(-1e-3, np.inf)),
        *(("iterations", v) for v in bad_numbers(0, -1, 1.5)),
        *(("seed", v) for v in bad_numbers(-1, 2**64)),
    ],
)
def test_fit_options(name: str, value: Any) -> None:
    function = value_function()
    before = function.parameters
    check(lambda: function.fit(OBS, ADVANTAGES, **{name: value}), name)
    assert np.array_equal(function.parameters, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("obs_dim", v) for v in bad_numbers(0, -1, 2.5)),
        *(("hidden_sizes", v) for v in [(0,), (-1,), (2.5,), ("a",), (None,), 64, "64", None]),
        *(("activation", v) for v in ["Tanh", "", None, 3]),
        *(("dtype", v) for v in ["float16", "int32", "abc", "float65", object()]),
        *(("hidden_gain", v) for v in bad_numbers(-1.0, np.inf)),
        *(("output_gain", v) for v in bad_numbers(-1.0, np.inf)),
        *(("seed", v) for v in bad_numbers(-1, 2**64)),
    ],
)
@pytest.mark.parametrize("make", ["Policy", "ValueFunction"])
def test_construction(make: str, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"obs_dim": 3, "hidden_sizes": (4,), name: value}
    if make == "Policy":
        arguments["distribution"] = core.Distribution("gaussian", (2,))
    check(lambda: getattr(core, make)(**arguments), name)


def test_too_many_layers() -> None:
    with pytest.raises(ValueError, match=r"hidden_sizes.*expected at most"):
        core.ValueFunction(2, hidden_sizes=(3,) * 100)


@pytest.mark.parametrize("value", bad_numbers(np.inf))
def test_initial_log_std(value: Any) -> None:
    check(
        lambda: core.Policy(2, core.Distribution("gaussian", (2,)), initial_log_std=value),
        "initial_log_std",
    )


@pytest.mark.parametrize(
    ("name", "kind", "sizes"),
    [
        ("kind", "normal", (2,)),
        ("kind", "", (2,)),
        ("kind", None, (2,)),
        ("sizes", "gaussian", ()),
        ("sizes", "gaussian", (2, 3)),
        ("sizes", "gaussian", (0,)),
        ("sizes", "categorical", (-1,)),
        ("sizes", "categorical", (2, 2)),
        ("sizes", "bernoulli", (2.5,)),
        ("sizes", "multi_categorical", (2, 0)),
        ("sizes", "multi_categorical", ()),
        ("sizes", "categorical", 3),
        ("sizes", "categorical", "3"),
        ("sizes", "categorical", None),
    ],
)
def test_distributions(name: str, kind: Any, sizes: Any) -> None:
    check(lambda: core.Distribution(kind, sizes), name)


def test_distribution_argument_of_a_policy() -> None:
    check(lambda: core.Policy(3, "gaussian"), "distribution")


GAE = {
    name: np.zeros((4, 2), dtype=bool if name in ("terminated", "truncated") else np.float64)
    for name in ("rewards", "values", "next_values", "terminated", "truncated")
}


@pytest.mark.parametrize("name", GAE)
@pytest.mark.parametrize(
    "bad",
    [np.zeros(4), np.zeros((4, 2, 1)), np.zeros(()), "abc", np.zeros((4, 2)) * 1j, None],
    ids=["vector", "three axes", "scalar", "text", "complex", "None"],
)
def test_gae_arrays(name: str, bad: Any) -> None:
    check(lambda: core.gae(**{**GAE, name: bad}, gamma=0.9, gae_lambda=0.9), name)


@pytest.mark.parametrize("name", [name for name in GAE if name != "rewards"])
@pytest.mark.parametrize("shape", [(3, 2), (4, 3), (2, 4), (0, 2)])
def test_gae_shapes_must_agree(name: str, shape: tuple[int, int]) -> None:
    check(lambda: core.gae(**{**GAE, name: np.zeros(shape)}, gamma=0.9, gae_lambda=0.9), name)


@pytest.mark.parametrize("name", ["gamma", "gae_lambda"])
@pytest.mark.parametrize("value", bad_numbers(-0.1, 1.1, np.inf))
def test_gae_discounts(name: str, value: Any) -> None:
    options = {"gamma": 0.9, "gae_lambda": 0.9, name: value}
    check(lambda: core.gae(**GAE, **options), name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("operator", {"operator": None}),
        ("operator", {"operator": np.eye(3)}),
        ("b", {"b": np.ones((3, 1))}),
        ("b", {"b": 1.0}),
        ("b", {"b": "abc"}),
        ("b", {"b": np.ones(3) * 1j}),
        *(("max_iterations", {"max_iterations": v}) for v in bad_numbers(-1, 1.5)),
        *(("tolerance", {"tolerance": v}) for v in bad_numbers(-1.0, np.inf)),
    ],
)
def test_conjugate_gradient_arguments(name: str, arguments: dict[str, Any]) -> None:
    arguments = {"operator": lambda v: v, "b": np.ones(3), **arguments}
    check(lambda: core.conjugate_gradient(**arguments), name)


@pytest.mark.parametrize("dim", bad_numbers(0, -1, 1.5))
def test_running_statistics_dimension(dim: Any) -> None:
    check(lambda: core.RunningStatistics(dim), "dim")


@pytest.mark.parametrize(
    "bad", [np.zeros(3), np.zeros((2, 4)), np.zeros((1, 2, 3)), "abc", np.zeros((2, 3)) * 1j, None]
)
def test_running_statistics_batches(bad: Any) -> None:
    statistics = core.RunningStatistics(3)
    check(lambda: statistics.update(bad), "batch")
    assert statistics.count == 0.0


def test_states_of_another_size() -> None:
    statistics, other = core.RunningStatistics(3), core.RunningStatistics(4)
    before = statistics.state_dict()
    with pytest.raises((ValueError, TypeError), match=r"mean.*\(3,\).*\(4,\)"):
        statistics.load_state_dict(other.state_dict())
    after = statistics.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)

    function, wider = (
        value_function(),
        core.ValueFunction(OBS_DIM, hidden_sizes=(5,), dtype="float64"),
    )
    with pytest.raises((ValueError, TypeError), match="expected shape"):
        function.load_optimizer_state(wider.optimizer_state())


@pytest.mark.parametrize("what", ["statistics", "optimizer"])
def test_states_with_a_part_missing(what: str) -> None:
    load = {
        "statistics": core.RunningStatistics(3).load_state_dict,
        "optimizer": value_function().load_optimizer_state,
    }[what]
    with pytest.raises((ValueError, TypeError), match="expected"):
        load({})


@pytest.mark.parametrize(
    ("mean", "variance", "options", "name"),
    [
        ([np.nan, 0.0, 0.0], [1.0] * 3, {}, "mean"),
        ([0.0] * 3, [1.0, np.inf, 1.0], {}, "(mean|variance)"),
        ([0.0] * 3, [1.0, -1.0, 1.0], {}, "(mean|variance)"),
        ([0.0] * 3, [1.0] * 3, {"clip": 0.0}, "clip"),
        ([0.0] * 3, [1.0] * 3, {"clip": -1.0}, "clip"),
        ([0.0] * 3, [1.0] * 3, {"clip": np.nan}, "clip"),
        ([0.0] * 3, [1.0] * 3, {"epsilon": -1.0}, "epsilon"),
        ([0.0] * 3, [1.0] * 3, {"epsilon": np.nan}, "epsilon"),
    ],
)
def test_normalizer(mean: Any, variance: Any, options: dict[str, Any], name: str) -> None:
    policy = policy_of()
    check(lambda: policy.set_normalizer(mean, variance, **options), name)
    assert np.array_equal(policy.normalize(OBS), OBS)  # nothing was set


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_parameters_are_refused(bad: float) -> None:
    for network in (policy_of(), value_function()):
        before = network.parameters
        wrong = before.copy()
        wrong[3] = bad
        with pytest.raises(ValueError, match=r"^parameters.*finite"):
            network.parameters = wrong
        assert np.array_equal(network.parameters, before)


# ---- environments and steps that would wrap --------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("envs", -1),
        ("envs", 2**32),
        ("envs", 0.5),
        ("steps", -1),
        ("steps", 0.5),
    ],
)
def test_stream_coordinates_do_not_wrap(name: str, value: Any) -> None:
    check(lambda: policy_of().act(OBS, **{name: [value] * N}), name)


# ---- actor: arrays are borrowed, so nothing may be converted ---------------------------------


def actor_arrays(kind: str = "gaussian", dtype: str = "float64") -> dict[str, Array]:
    width, action_dtype = {"gaussian": (6, dtype), "multi": (3, "int32")}[kind]
    return {
        "observations": np.zeros((4, 2, OBS_DIM), dtype=dtype),
        "actions": np.zeros((4, 2, width), dtype=action_dtype),
        "counters": np.zeros(2, dtype=np.uint64),
        "envs": np.zeros(2, dtype=np.uint32),
    }


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("observations", lambda x: x.astype(np.float32)),
        ("observations", np.asfortranarray),
        ("observations", lambda x: np.zeros((4, 4, OBS_DIM))[:, ::2]),
        ("observations", lambda x: x[0]),
        ("observations", lambda x: np.zeros((4, 2, OBS_DIM + 1))),
        ("observations", lambda x: np.zeros((4, 3, OBS_DIM))),
        ("observations", lambda x: x.tolist()),
        ("actions", lambda x: x.astype(np.float32)),
        ("actions", np.asfortranarray),
        ("actions", lambda x: np.zeros((4, 2, 12))[..., ::2]),
        ("actions", lambda x: x[0]),
        ("actions", lambda x: np.zeros((4, 2, 5))),
        ("actions", lambda x: np.zeros((4, 3, 6))),
        ("actions", read_only),
        ("actions", lambda x: x.tolist()),
        ("counters", lambda x: x.astype(np.int64)),
        ("counters", lambda x: x.astype(np.uint32)),
        ("counters", lambda x: np.zeros(3, dtype=np.uint64)),
        ("counters", lambda x: np.zeros(4, dtype=np.uint64)[::2]),
        ("counters", read_only),
        ("counters", lambda x: x.tolist()),
        ("envs", lambda x: x.astype(np.uint64)),
        ("envs", lambda x: np.zeros(3, dtype=np.uint32)),
        ("envs", lambda x: np.zeros(4, dtype=np.uint32)[::2]),
    ],
)
def test_actor_arrays(name: str, change) -> None:
    arrays = actor_arrays()
    arrays[name] = change(arrays[name])
    # an axis of environments that disagrees may be named from either side
    names = name if name != "observations" else "(observations|actions|counters)"
    check(lambda: policy_of().actor(**arrays, seed=0), names)


def test_actor_of_a_discrete_policy_wants_int32() -> None:
    arrays = actor_arrays("multi")
    policy_of("multi").actor(**arrays, seed=0).step(0)
    arrays["actions"] = arrays["actions"].astype(np.int64)
    check(lambda: policy_of("multi").actor(**arrays, seed=0), "actions")


# ---- the global interpreter lock -------------------------------------------------------------


def test_other_threads_run_meanwhile() -> None:
    """Eight threads, each with its own policy, get the bits that each gets alone."""
    p = small_problem(HEADS["gaussian_6"], n=500, dtype="float32")
    v = normals(9, len(p.parameters))
    obs = p.obs.astype(np.float32)
    expected = core_policy(p, "float32").fisher_vector_product(obs, v)
    results: list[Array | None] = [None] * 8

    def work(i: int) -> None:
        policy = core_policy(p, "float32")
        for _ in range(20):
            results[i] = policy.fisher_vector_product(obs, v)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(r is not None and np.array_equal(r, expected) for r in results)
