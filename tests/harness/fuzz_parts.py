"""Targets of the fuzzer of the core beside the policy's own calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import reference
from harness.fuzz_inputs import Array, Rng, extreme, usual
from harness.fuzz_policy import (
    Drawn,
    Target,
    close,
    policy_target,
    row_promise,
)
from trpo_fast import core


def value_target(rng: Rng) -> Target:
    dtype = np.dtype(rng.choice(["float64", "float32"]))
    hidden = tuple(int(n) for n in rng.integers(1, 36, rng.integers(0, 3)))
    obs_dim, n = int(rng.integers(1, 20)), int(rng.choice([1, 2, 31, 97, 130]))
    activation = str(rng.choice(core.ACTIVATIONS))
    v = core.ValueFunction(obs_dim, hidden_sizes=hidden, activation=activation, dtype=dtype, seed=1)
    ref = reference.ValueFunction(obs_dim, hidden, activation)
    v.parameters = v.parameters + 0.1 * usual(rng, v.n_parameters)
    theta = np.asarray(v.parameters, np.float64)
    rows = {"observations": usual(rng, n, obs_dim)}
    both = {**rows, "targets": usual(rng, n)}
    dtypes = {"observations": dtype, "targets": dtype}
    name = str(rng.choice(["predict", "loss", "loss_gradient", "fit", "fit"]))
    if name == "fit":
        method = str(rng.choice(["adam", "lbfgs"]))
        state: dict[str, bytes] = {}

        def fitted(summary: Any, arrays: Mapping[str, Array], before: bytes) -> None:
            if summary.status == "ok":
                assert np.isfinite(summary.loss_after), f"loss {summary.loss_after}"
                if method == "lbfgs":
                    assert summary.loss_after <= summary.loss_before
            else:
                assert v.parameters.tobytes() == before, f"changed after {summary.status}"
                assert adam_bits(v) == state, "Adam's moments changed"

        def fit(**arguments: Any) -> Any:
            state.update(adam_bits(v))
            return v.fit(**arguments)

        options = {
            "method": method, "epochs": 2, "minibatch_size": int(rng.integers(1, 150)),
            "learning_rate": 1e-2, "iterations": 3, "seed": 2,
        }  # fmt: skip
        return Target("fit", fit, both, options, dtypes, v, changes_owner=True, promise=fitted)

    def check(result: Any, arrays: Mapping[str, Array]) -> None:
        clean = [np.asarray(a, np.float64) for a in arrays.values()]
        close(result, getattr(ref, name)(theta, *clean), dtype, name)

    promise = row_promise(v.predict, ("observations",), True) if name == "predict" else None
    return Target(
        name, getattr(v, name), rows if name == "predict" else both, {}, dtypes, v,
        reference=check, promise=promise,
    )  # fmt: skip


def adam_bits(network: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in network.optimizer_state().items()}


def gae_target(rng: Rng) -> Target:
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 9)))
    arrays = {name: usual(rng, *shape) for name in ("rewards", "values", "next_values")}
    ends = rng.random(shape)
    arrays |= {"terminated": ends < 0.1, "truncated": ends > 0.9}
    options = {"gamma": 0.9, "gae_lambda": 0.8}

    def check(result: Any, used: Mapping[str, Array]) -> None:
        clean = {k: np.asarray(v, bool if k.endswith("ted") else float) for k, v in used.items()}
        expected = reference.gae(**clean, **options)  # type: ignore[arg-type]
        for i in range(2):
            close(result[i], expected[i], np.float64, "gae")

    def columns(result: Any, used: Mapping[str, Array], before: bytes) -> None:
        names = ("rewards", "values", "next_values")
        good = np.all([np.isfinite(used[n]).all(axis=0) for n in names], axis=0)
        size = max((np.abs(used[n][:, good]).max(initial=0.0) for n in names), default=0.0)
        if size < 1e150:
            assert np.isfinite(np.asarray(result)[:, :, good]).all(), "not finite for finite inputs"
        nan = np.isnan(used["rewards"])
        assert np.isnan(result[0][nan]).all(), "NaN has disappeared"

    kinds = {"terminated": np.dtype(bool), "truncated": np.dtype(bool)}
    return Target("gae", core.gae, arrays, options, kinds, reference=check, promise=columns)


def cg_target(rng: Rng) -> Target:
    n = int(rng.integers(1, 12))
    B = usual(rng, n, n)
    A = B @ B.T + 0.1 * np.eye(n)
    if rng.random() < 0.4:
        A = extreme(rng, A)
    if rng.random() < 0.2:
        A = -A

    asked: dict[str, Any] = {}

    def operator(v: Array) -> Array:
        if v.shape != (n,):
            raise ValueError(f"v: expected shape ({n},), got {v.shape}")
        return np.asarray(A @ v)

    def call(b: Any, **options: Any) -> Any:
        asked.update(options)
        return core.conjugate_gradient(operator, b, **options)

    def promise(result: Any, used: Mapping[str, Array], before: bytes) -> None:
        assert np.isfinite(result.x).all(), f"x is not finite: {result.status}"
        assert len(result.message) > 10
        if result.status == "converged" and np.abs(A).max() < 1e6 and asked["tolerance"] <= 1e-6:
            b = used["b"]
            residual, size = np.linalg.norm(b - A @ result.x), np.linalg.norm(b)
            scale = np.abs(A).max() * np.linalg.norm(result.x)
            assert residual <= 1e-5 * max(size, scale), f"residual {residual}"

    return Target(
        "conjugate_gradient", call, {"b": usual(rng, n)},
        {"max_iterations": 3 * n, "tolerance": 1e-8}, promise=promise,
    )  # fmt: skip


def statistics_target(rng: Rng) -> Target:
    dim = int(rng.integers(1, 9))
    first = usual(rng, int(rng.integers(1, 40)), dim)

    def call(batch: Any) -> Any:
        stats = core.RunningStatistics(dim)
        stats.update(first)
        stats.update(batch)
        return np.stack([stats.mean, stats.variance])

    def check(result: Any, used: Mapping[str, Array]) -> None:
        batch = np.asarray(used["batch"], np.float64)
        _, mean, variance = reference.running_moments([first, batch])
        close(result, np.stack([mean, variance]), np.float64, "statistics")

    def promise(result: Any, used: Mapping[str, Array], before: bytes) -> None:
        if np.abs(used["batch"]).max(initial=0.0) < 1e150:
            assert np.isfinite(result).all()
        assert not (result[1] < 0).any(), "negative variance"

    return Target(
        "statistics", call, {"batch": usual(rng, int(rng.integers(1, 50)), dim)}, {},
        {"batch": None}, reference=check, promise=promise,
    )  # fmt: skip


def setter_target(rng: Rng) -> Target:
    """What is put into a policy: parameters, normaliser, moments."""
    d = Drawn(rng)
    p, n = d.policy, d.policy.n_parameters
    match rng.integers(3):
        case 0:

            def set_parameters(parameters: Any) -> Any:
                p.parameters = parameters
                return p.parameters

            return Target(
                "parameters", set_parameters, {"parameters": usual(rng, n)}, {},
                {"parameters": d.dtype}, p, changes_owner=True,
            )  # fmt: skip
        case 1:

            def set_normalizer(mean: Any, variance: Any, **options: Any) -> Any:
                p.set_normalizer(mean, variance, **options)
                return p.normalize(d.observations)

            def within(result: Any, used: Mapping[str, Array], before: bytes) -> None:
                assert np.isfinite(result).all(), "not finite"

            arrays = {"mean": usual(rng, d.obs_dim), "variance": rng.random(d.obs_dim)}
            options = {"clip": 10.0, "epsilon": 1e-8}
            return Target("set_normalizer", set_normalizer, arrays, options, {}, p, promise=within)
        case _:

            def load(first_moment: Any, second_moment: Any, steps: Any) -> Any:
                p.load_optimizer_state(
                    {"first_moment": first_moment, "second_moment": second_moment, "steps": steps}
                )
                p.ascend(d.observations, d.actions, np.ones(d.n))
                return p.parameters

            return Target(
                "load_optimizer_state", load,
                {"first_moment": usual(rng, n), "second_moment": rng.random(n),
                 "steps": rng.integers(0, 9, 1)},
                {},
                {"first_moment": d.dtype, "second_moment": d.dtype, "steps": np.dtype(np.int64)},
                p, changes_owner=True,
            )  # fmt: skip


TARGETS = (
    *[policy_target] * 9, *[value_target] * 4, *[gae_target] * 2, cg_target, statistics_target,
    setter_target,
)  # fmt: skip
