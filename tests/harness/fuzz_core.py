"""Every function of trpo_fast.core with arrays of all shapes, types, layouts and magnitudes.

    python tests/harness/fuzz_core.py --cases 50000

A case draws a function and good arguments, and then does one of four things to them:

layout   other strides, types and containers with the same numbers: the same bits must come out, and
         for numbers of usual size what the slow float64 reference says;
extreme  NaN, infinities, denormals and huge numbers: a ValueError, or an answer in which what is
         broken stays visible and what does not depend on it stays right;
wrong    one argument that cannot be meant: a ValueError or TypeError, one sentence with "expected";
option   one setting replaced by something odd: refused, or the promises hold all the same.

Parameters stay finite whatever happens, refused calls leave every object as it was, and no input is
written to. Crashes and hangs are seen from outside.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "support")]

import reference
from harness.supervise import Outcome, run_cases, supervise
from trpo_fast import core

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator


# ---- numbers


def usual(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape)


def extreme(rng: Rng, array: Array) -> Array:
    """The same shape, with numbers that nobody expects."""
    values = np.array(array, np.float64)
    flat = values.reshape(-1)
    some = rng.random(flat.size) < rng.choice((0.02, 0.3, 1.0))
    match rng.integers(9):
        case 0:
            flat[some] = np.nan
        case 1:
            flat[some] = rng.choice((np.inf, -np.inf))
        case 2:
            flat[some] = rng.choice((np.nan, np.inf, -np.inf), int(some.sum()))
        case 3:
            flat[some] *= 10.0 ** rng.uniform(-320, 307)
        case 4:
            flat[some] *= 10.0 ** rng.uniform(-45, 38)
        case 5:
            flat[some] = 5e-324
        case 6:
            flat[:] = 0.0
        case 7:
            flat[:] = rng.choice((1.0, -1e4, 1e30, np.finfo(np.float32).max, np.finfo(float).max))
        case _:
            flat[some] = -flat[some] * 1e4
    return values


# ---- layouts: the same numbers, stored otherwise


def other_layout(rng: Rng, array: Array) -> Any:
    """The numbers of `array`, perhaps rounded to another type, in another layout or container."""
    kinds = {"f": ("f8", "f4", "f2", ">f8", "g"), "i": ("i8", "i4", "u4", ">i4"), "b": ("?", "u1")}
    choices = kinds["i" if array.dtype.kind in "iu" else array.dtype.kind]
    if array.dtype.kind in "iu":  # those that hold the numbers
        limits = int(array.min(initial=0)), int(array.max(initial=0))
        choices = tuple(
            c for c in choices if np.iinfo(c).min <= limits[0] and limits[1] <= np.iinfo(c).max
        )
    with np.errstate(all="ignore"):
        array = array.astype(rng.choice(choices))
    match rng.integers(9):
        case 0:
            return np.asfortranarray(array)
        case 1:  # every second element of something larger
            larger = np.zeros([2 * n for n in array.shape], array.dtype)
            larger[tuple(slice(None, None, 2) for _ in array.shape)] = array
            return larger[tuple(slice(None, None, 2) for _ in array.shape)]
        case 2:  # negative strides
            back = tuple(slice(None, None, -1) for _ in array.shape)
            return np.ascontiguousarray(array[back])[back]
        case 3:  # at an odd address
            memory = np.zeros(array.nbytes + 1, np.uint8)
            odd = memory[1:].view(array.dtype).reshape(array.shape) if array.size else array
            if array.size:
                odd[...] = array
            return odd
        case 4:
            return array.tolist() if array.dtype.char != "g" else array
        case 5:
            frozen = array.copy()
            frozen.flags.writeable = False
            return frozen
        case 6:
            return np.broadcast_to(array, (3, *array.shape))[1]
        case 7:
            return memoryview(array.astype("f8")) if array.dtype.kind == "f" else array
        case _:
            return array


def wrong_value(rng: Rng, array: Array) -> Any:
    """Something that cannot be meant where `array` is expected."""
    shape, dtype = array.shape, array.dtype
    longer = np.zeros((*shape[:-1], shape[-1] + 1), dtype)
    choices: list[Any] = [
        longer,
        array[None],
        array[..., None],
        np.zeros((*shape, 2), dtype),
        array.reshape(-1)[: array.size - 1] if array.size > 1 else array[None, None],
        array[..., :0],
        array.astype(complex),
        array.astype(object),
        array.astype(str),
        array.astype("M8[s]") if dtype.kind in "iu" else array.astype("f8").view("V8"),
        np.zeros(shape, [("a", "f8")]),
        "text",
        b"bytes",
        None,
        {},
        {"a": 1},
        object(),
        [[1.0], [1.0, 2.0]],
        1.5j,
        lambda: None,
        float("nan"),
        np.zeros((0,) * (array.ndim + 1)),
        [None] * len(array),
    ]
    return choices[rng.integers(len(choices))]


ODD_OPTIONS = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), 0.0, -0.0, 0.5,
    1.0, 1.5, 1e-300, 5e-324, 1e300, -1e300, float("nan"), float("inf"), -float("inf"), "", "x",
    b"x", [], (1,), {}, 1j, object(), np.float32(0.5), np.float64("nan"), np.int8(3), np.uint64(7),
    np.array(1.0), np.array([1, 2]), "gaussian",
)  # fmt: skip


# ---- targets: a call, its array arguments and options, and what holds for its result


@dataclass
class Target:
    """One call of the core, its arguments, and what must hold for its result."""

    name: str
    call: Callable[..., Any]
    arrays: dict[str, Array]
    options: dict[str, Any] = field(default_factory=dict)
    dtypes: dict[str, Any] = field(default_factory=dict)  # what each array is converted to
    owner: Any = None  # a network whose parameters must stay finite
    changes_owner: bool = False
    reference: Callable[[Any, Mapping[str, Array]], None] | None = None
    promise: Callable[[Any, Mapping[str, Array], bytes], None] | None = None


def close(actual: Any, expected: Any, dtype: Any, what: str) -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if not (expected.size and np.isfinite(expected).all() and np.abs(expected).max() < 1e9):
        return  # a ratio of densities may be anything
    tolerance = 1e-7 if np.dtype(dtype) == np.float64 else 3e-4
    floor = 1.0 if expected.ndim == 0 else 1e-3  # what is one number is a sum that may cancel
    error, size = np.abs(actual - expected).max(), max(np.abs(expected).max(), floor)
    assert error <= tolerance * size, f"{what}: {error:.2e} on {size:.2e}"


def random_head(rng: Rng) -> reference.Head:
    kind = str(rng.choice(reference.HEAD_KINDS))
    n = int(rng.integers(2, 4)) if kind == "multi_categorical" else 1
    low = 2 if "categorical" in kind else 1
    return reference.Head(kind, tuple(int(s) for s in rng.integers(low, 7, n)))


class Drawn:
    """A policy of the core beside that of the reference, and a batch."""

    def __init__(self, rng: Rng) -> None:
        self.dtype = np.dtype(rng.choice(["float64", "float32"]))
        self.head = random_head(rng)
        hidden = tuple(int(n) for n in rng.integers(1, 36, rng.integers(0, 4)))
        activation = str(rng.choice(core.ACTIVATIONS))
        obs_dim = int(rng.integers(1, 20))
        self.n = int(rng.choice([1, 2, 7, 31, 33, 96, 97, 130]))
        self.reference = reference.Policy(obs_dim, self.head, hidden, activation)
        self.policy = core.Policy(
            obs_dim,
            core.Distribution(self.head.kind, self.head.sizes),  # type: ignore[arg-type]
            hidden_sizes=hidden,
            activation=activation,
            dtype=self.dtype,
        )
        noise = 0.3 * usual(rng, self.policy.n_parameters)
        self.policy.parameters = self.policy.parameters + noise
        self.obs_dim = obs_dim
        self.observations = usual(rng, self.n, obs_dim)
        self.actions = self.policy.act(self.observations, seed=int(rng.integers(100)))
        self.action_dtype = self.policy.action_dtype
        # in float32 a tiny deviation that depends on the state magnifies every rounding
        self.well_conditioned = (
            self.dtype == np.float64 or self.head.kind != "state_dependent_gaussian"
        )
        self.theta = np.asarray(self.policy.parameters, np.float64)
        self.old = (self.theta + 0.05 * usual(rng, len(self.theta))).astype(self.dtype)

    def dtypes(self, **more: Any) -> dict[str, Any]:
        return {
            "observations": self.dtype,
            "actions": self.action_dtype,
            "old_parameters": self.dtype,
            **more,
        }

    def target(
        self,
        name: str,
        arrays: dict[str, Array],
        options: dict[str, Any] | None = None,
        **rest: Any,
    ) -> Target:
        policy = self.policy
        return Target(
            name,
            getattr(policy, name),
            arrays,
            dict(options or {}),
            self.dtypes(**rest.pop("dtypes", {})),
            policy,
            **rest,
        )


def broken_rows(x: Array) -> Array:
    return ~np.isfinite(x).all(axis=1)


def row_promise(
    call: Callable[..., Any], names: tuple[str, ...], shows_nan: bool
) -> Callable[[Any, Mapping[str, Array], bytes], None]:
    """Rows do not touch each other; with `shows_nan`, NaN observed is NaN in the result."""

    def promise(result: Any, arrays: Mapping[str, Array], before: bytes) -> None:
        x = arrays["observations"]
        result = np.asarray(result)
        rows = result.reshape(len(x), -1)
        if shows_nan:
            nan = np.isnan(x).any(axis=1)
            assert np.isnan(rows[nan].astype(np.float64)).any(axis=1).all(), "NaN has disappeared"
        # the same call without the others' trouble
        good = ~np.any([broken_rows(arrays[n].reshape(len(x), -1)) for n in names], axis=0)
        if good.any() and not good.all():
            clean = {name: array.copy() for name, array in arrays.items()}
            for name in names:
                clean[name][~good] = clean[name][np.flatnonzero(good)[0]]
            alone = np.asarray(call(**clean)).reshape(len(x), -1)
            assert alone[good].tobytes() == rows[good].tobytes(), "one row's trouble in another"

    return promise


def policy_target(rng: Rng) -> Target:
    d = Drawn(rng)
    ref, theta, p = d.reference, d.theta, d.policy
    x, a, w = d.observations, d.actions, usual(rng, d.n)
    rows = {"observations": x}
    both = {"observations": x, "actions": a}
    weighted = {**both, "advantages": w}
    f64, S = np.dtype(np.float64), d.dtype

    def says(
        function: Callable[..., Any], *names: str
    ) -> Callable[[Any, Mapping[str, Array]], None]:
        def check(result: Any, arrays: Mapping[str, Array]) -> None:
            clean = [np.asarray(arrays[name], np.float64) for name in names]
            close(result, function(*clean), S, name)

        return check

    name = str(rng.choice([
        "outputs", "normalize", "log_prob", "entropy", "kl", "surrogate", "surrogate_gradient",
        "fisher_vector_product", "fisher_operator", "penalised_gradient", "act", "update", "update",
        "ascend",
    ]))  # fmt: skip
    match name:
        case "outputs":
            return d.target(
                name, rows, reference=says(lambda x: ref.outputs(theta, x), "observations"),
                promise=row_promise(p.outputs, ("observations",), True),
            )  # fmt: skip
        case "normalize":
            mean, variance = usual(rng, d.obs_dim), rng.random(d.obs_dim)
            p.set_normalizer(mean, variance, clip=5.0)
            return d.target(
                name, rows,
                reference=says(
                    lambda x: reference.normalize(x, mean, variance, clip=5.0), "observations"
                ),
                promise=row_promise(p.normalize, ("observations",), True),
            )  # fmt: skip
        case "log_prob":
            names = ("observations", "actions") if d.head.is_gaussian else ("observations",)
            check = says(lambda x, a: ref.log_prob(theta, x, a), "observations", "actions")
            return d.target(
                name, both, reference=check if d.well_conditioned else None,
                promise=row_promise(p.log_prob, names, True),
            )  # fmt: skip
        case "entropy":
            return d.target(
                name, rows, reference=says(lambda x: ref.entropy(theta, x), "observations"),
                promise=row_promise(p.entropy, ("observations",), d.head.kind != "gaussian"
                                    and d.head.kind != "state_dependent_gaussian"),
            )  # fmt: skip
        case "kl":

            def kl_promise(result: Any, arrays: Mapping[str, Array], before: bytes) -> None:
                assert not (result < -1e-6).any(), f"negative KL {result.min()}"

            return d.target(
                name, {**rows, "old_parameters": d.old},
                reference=says(
                    lambda x, old: ref.kl(old, theta, x), "observations", "old_parameters"
                ),
                promise=kl_promise,
            )  # fmt: skip
        case "surrogate" | "surrogate_gradient":
            function = getattr(ref, name)
            return d.target(
                name, {**weighted, "old_parameters": d.old},
                reference=says(
                    lambda x, a, w, old: function(theta, old, x, a, w),
                    "observations", "actions", "advantages", "old_parameters",
                ) if d.well_conditioned else None,
                dtypes={"advantages": f64},
            )  # fmt: skip
        case "fisher_vector_product":
            return d.target(
                name, {**rows, "vector": usual(rng, p.n_parameters)}, {"damping": 0.1},
                reference=says(
                    lambda x, v: ref.fisher_vector_product(theta, x, v, 0.1),
                    "observations", "vector",
                ),
                dtypes={"vector": f64},
            )  # fmt: skip
        case "fisher_operator":

            def call(observations: Any, actions: Any, **options: Any) -> Any:
                F = p.fisher_operator(observations, actions=actions, **options)
                v = np.cos(np.arange(p.n_parameters))
                return F(v)

            def curvature(result: Any, arrays: Mapping[str, Array], before: bytes) -> None:
                v_Fv = float(np.cos(np.arange(p.n_parameters)) @ result)
                rounding = 1e-4 if S == "float32" else 1e-12
                assert not v_Fv < -rounding * np.abs(result).sum(), f"negative curvature {v_Fv}"

            fisher = str(rng.choice(["gauss_newton", "empirical"]))
            return Target(
                f"{name} {fisher}", call, both, {"fisher": fisher, "damping": 0.0},
                d.dtypes(), p, promise=curvature,
            )  # fmt: skip
        case "penalised_gradient":
            return d.target(
                name, {**weighted, "old_parameters": d.old}, {"kl_coefficient": 0.3},
                dtypes={"advantages": f64},
            )  # fmt: skip
        case "act":
            return act_target(d, rng)
        case "update":
            return update_target(d, rng, weighted)
        case _:
            return d.target(
                "ascend", weighted,
                {"learning_rate": 1e-2, "epochs": 2, "minibatch_size": int(rng.integers(1, 150)),
                 "kl_coefficient": 0.1, "standardize_advantages": True, "seed": 3},
                changes_owner=True, dtypes={"advantages": S}, promise=ascent_promise(p),
            )  # fmt: skip


def act_target(d: Drawn, rng: Rng) -> Target:
    limits = {"bernoulli": [2] * d.head.action_dim}.get(d.head.kind, list(d.head.sizes))

    def in_range(result: Any, arrays: Mapping[str, Array], before: bytes) -> None:
        assert result.shape == (d.n, d.head.action_dim)
        assert result.dtype == d.action_dtype
        if d.head.is_gaussian:
            nan = np.isnan(arrays["observations"]).any(axis=1)
            assert np.isnan(result[nan]).any(axis=1).all(), "NaN has disappeared"
        else:
            assert np.isfinite(arrays["observations"]).all(), "NaN has become an action"
            assert (result >= 0).all()
            assert (result < limits).all(), "an action that does not exist"

    arrays = {
        "observations": d.observations,
        "envs": rng.integers(0, 2**32, d.n),
        "steps": rng.integers(0, 2**62, d.n),
    }
    seed = int(rng.integers(2**62))

    def check(result: Any, used: Mapping[str, Array]) -> None:
        if d.dtype == np.float64 and d.head.is_gaussian:
            eta = d.reference.eta(d.theta, used["observations"])
            close(result, d.head.sample(eta, seed, used["envs"], used["steps"]), d.dtype, "act")

    return d.target(
        "act", arrays, {"seed": seed, "deterministic": False}, reference=check, promise=in_range,
        dtypes={"envs": np.dtype(np.uint32), "steps": np.dtype(np.uint64)},
    )  # fmt: skip


def update_target(d: Drawn, rng: Rng, weighted: dict[str, Array]) -> Target:
    p = d.policy
    options: dict[str, Any] = {
        "max_kl": float(10.0 ** rng.uniform(-4, -1)), "cg_iterations": 5, "cg_damping": 0.1,
        "cg_tolerance": 1e-10, "backtrack_ratio": 0.8, "max_backtracks": 10, "fisher_fraction": 1.0,
        "standardize_advantages": bool(rng.random() < 0.8), "seed": 1,
        "constraint": str(rng.choice(["mean", "mean", "max"])),
        "fisher": str(rng.choice(["gauss_newton", "gauss_newton", "empirical", "identity"])),
    }  # fmt: skip

    def call(**arguments: Any) -> Any:
        summary = p.update(**arguments)
        max_kl = float(arguments["max_kl"])
        if summary.accepted:
            kl = summary.kl if options["constraint"] == "mean" else summary.kl_max
            assert kl <= max_kl, f"KL {kl} > {max_kl}"
            assert summary.surrogate_gain > 0.0, f"gain {summary.surrogate_gain}"
            again = p.kl(arguments["observations"], before)
            kl = float(again.mean() if options["constraint"] == "mean" else again.max())
            slack = 1e-9 if d.dtype == np.float64 else 1e-4
            assert kl <= max_kl * (1 + slack) + slack * 1e-2, f"KL recomputed {kl} > {max_kl}"
        else:
            assert p.parameters.tobytes() == before.tobytes(), f"changed after {summary.status}"
            assert len(summary.message) > 10
        return np.array([p.parameters.tobytes(), summary.status.encode()])

    before = p.parameters
    return Target(
        "update", call, weighted, options, d.dtypes(advantages=d.dtype), p, changes_owner=True
    )


def ascent_promise(p: Any) -> Callable[[Any, Mapping[str, Array], bytes], None]:
    def promise(summary: Any, arrays: Mapping[str, Array], before: bytes) -> None:
        if not summary.accepted:
            assert p.parameters.tobytes() == before, f"changed after {summary.status}"

    return promise


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


# ---- calls without arrays


def constructor_case(rng: Rng) -> str:
    """Objects and streams made with odd arguments."""

    def odd() -> Any:
        return ODD_OPTIONS[rng.integers(len(ODD_OPTIONS))]

    def small(value: Any) -> bool:
        return not (isinstance(value, int) and 2**12 < value <= 2**40)  # memory is not the subject

    head = core.Distribution("gaussian", (2,))
    calls: list[Callable[[Any], Any]] = [
        lambda o: core.random_normals(o, 0, 0, 5),
        lambda o: core.random_normals(0, o, 0, 5),
        lambda o: core.random_uniforms(0, 0, o, 5),
        lambda o: core.random_uniforms(0, 0, 0, o),
        lambda o: core.RunningStatistics(o),
        lambda o: core.Distribution(o, (2,)),
        lambda o: core.Distribution("categorical", o),
        lambda o: core.Distribution("multi_categorical", (2, o)),
        lambda o: core.Policy(o, head),
        lambda o: core.Policy(2, o),
        lambda o: core.Policy(2, head, hidden_sizes=o),
        lambda o: core.Policy(2, head, hidden_sizes=(3, o)),
        lambda o: core.Policy(2, head, activation=o),
        lambda o: core.Policy(2, head, dtype=o),
        lambda o: core.Policy(2, head, initial_log_std=o),
        lambda o: core.Policy(2, head, hidden_gain=o),
        lambda o: core.Policy(2, head, output_gain=o),
        lambda o: core.Policy(2, head, seed=o),
        lambda o: core.ValueFunction(o),
        lambda o: core.ValueFunction(2, output_gain=o),
        lambda o: core.ValueFunction(2, hidden_sizes=o),
        lambda o: core.RunningStatistics(2).load_state_dict(o),
        lambda o: core.RunningStatistics(2).load_state_dict(
            {"count": [o], "mean": [0.0, o], "m2": [1.0, 1.0]}
        ),
        lambda o: core.ValueFunction(2).load_optimizer_state(o),
        lambda o: core.conjugate_gradient(o, [1.0]),
        lambda o: core.conjugate_gradient(lambda v: o, [1.0, 2.0]),
        lambda o: actor(o),
    ]

    def actor(o: Any) -> Any:
        policy = core.Policy(2, head)
        arrays = {
            "observations": np.zeros((4, 3, 2), np.float32),
            "actions": np.zeros((4, 3, 2), np.float32),
            "counters": np.zeros(3, np.uint64),
            "envs": np.arange(3, dtype=np.uint32),
        }
        name = str(rng.choice([*arrays, "t", "none"]))
        if name in arrays:
            array = arrays[name]
            arrays[name] = [
                array.astype("f8"), array[::-1], np.asfortranarray(array), array[:-1], o,
                array.tolist(), np.broadcast_to(array[:1], array.shape),
            ][rng.integers(7)]  # fmt: skip
        step = policy.actor(**arrays, seed=1).step
        try:
            step(o if name == "t" else 3)
        except (IndexError, TypeError):  # an index, handed on as it is: no check in Python a step
            raise ValueError("t: expected an index") from None

    call, value = calls[rng.integers(len(calls))], odd()
    if not small(value):
        return "skipped"
    try:
        made = call(value)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    if hasattr(made, "parameters"):
        assert np.isfinite(made.parameters).all(), "parameters are not finite"
    return "answered"


# ---- one case


def check_sentence(error: Exception) -> None:
    message = str(error)
    assert "\n" not in message.strip(), f"not one sentence: {message!r}"
    assert 15 < len(message) < 600, f"not a sentence: {message!r}"
    assert "expected" in message, f"does not say what was expected: {message!r}"
    assert "incompatible" not in message, f"pybind11's own words: {message!r}"


def clean_of(target: Target, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Contiguous arrays of the type that the core uses, made by NumPy alone."""
    result = {}
    for name, value in arrays.items():
        dtype = target.dtypes.get(name, np.dtype(np.float64))
        array = np.asarray(value)
        if dtype is None:  # float32 stays what it is
            dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        result[name] = np.array(array, dtype=dtype, order="C")
    return result


def bits(result: Any) -> bytes:
    if isinstance(result, tuple):
        return b"".join(bits(item) for item in result)
    if isinstance(result, np.ndarray):
        return bytes(f"{result.dtype.str}{result.shape}", "ascii") + result.tobytes()
    if isinstance(result, float):
        return np.float64(result).tobytes()
    values = {k: v for k, v in vars(result).items() if not k.startswith("seconds")}
    return repr(
        [(k, v.tolist() if isinstance(v, np.ndarray) else v) for k, v in values.items()]
    ).encode()


def frozen_bits(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, (np.ndarray, memoryview)) else b""


def owner_bits(target: Target) -> bytes:
    return target.owner.parameters.tobytes() if target.owner is not None else b""


def call_and_check(target: Target, arrays: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    inputs = {name: frozen_bits(value) for name, value in arrays.items()}
    before = owner_bits(target)
    try:
        return target.call(**arrays, **options)
    except (ValueError, TypeError):
        assert owner_bits(target) == before, "a refused call has changed the parameters"
        raise
    finally:
        for name, value in arrays.items():
            assert frozen_bits(value) == inputs[name], f"{name} has been written to"
        if target.owner is not None:
            assert np.isfinite(target.owner.parameters).all(), "parameters are not finite"
            if not target.changes_owner:
                assert owner_bits(target) == before, "the parameters have changed"


def case_of(seed: int) -> Callable[[int], str]:
    def case(i: int) -> str:
        rng = np.random.default_rng([seed, i])
        if rng.random() < 0.15:
            return constructor_case(rng)
        target = TARGETS[rng.integers(len(TARGETS))](rng)
        modes = {"layout": layout_case, "extreme": extreme_case, "wrong": wrong_case,
                 "option": option_case}  # fmt: skip
        mode = str(rng.choice(["layout", "layout", "extreme", "extreme", "wrong", "option"]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy about casts
                return modes[mode](rng, target)
        except Exception as error:
            error.args = (f"{mode} {target.name}: {error}",)
            raise

    return case


def layout_case(rng: Rng, target: Target) -> str:
    arrays = {name: other_layout(rng, array) for name, array in target.arrays.items()}
    clean = clean_of(target, arrays)
    start = target.owner.parameters if target.owner is not None else None
    state = adam_bits(target.owner) if target.changes_owner else None
    one = call_and_check(target, arrays, target.options)
    if start is not None and target.changes_owner:
        if adam_bits(target.owner) != state:
            return "answered"  # the moments have moved on: no second call is the same
        target.owner.parameters = start
    two = call_and_check(target, clean, target.options)
    assert bits(one) == bits(two), "another layout gives other bits"
    if target.reference is not None:
        target.reference(one, clean)
    return "answered"


def extreme_case(rng: Rng, target: Target) -> str:
    names = [n for n, array in target.arrays.items() if array.dtype.kind == "f"]
    chosen = [n for n in names if rng.random() < 0.5] or names[:1]
    arrays = dict(target.arrays)
    for name in chosen:
        arrays[name] = extreme(rng, target.arrays[name])
    before = owner_bits(target)
    try:
        result = call_and_check(target, arrays, target.options)
    except ValueError as error:
        check_sentence(error)
        return "refused"
    if target.promise is not None:
        target.promise(result, clean_of(target, arrays), before)
    return "answered"


def wrong_case(rng: Rng, target: Target) -> str:
    name = str(rng.choice(list(target.arrays)))
    arrays = {**target.arrays, name: wrong_value(rng, target.arrays[name])}
    optional = (None, "old_parameters", "envs", "steps", "actions")
    try:
        call_and_check(target, arrays, target.options)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    value = arrays[name]
    if name == "b" and np.ndim(value) == 1 and not np.any(value):
        return "answered"  # nothing to solve, of any length
    if value is None and name in optional:
        return "answered"
    shown = f"{type(value).__name__} {getattr(value, 'shape', value)!s:.80}"
    dtype = getattr(value, "dtype", None)
    if name == "actions" and np.shape(value) == np.shape(target.arrays[name])[:1]:
        return "answered"  # (N,) is understood where actions are (N, 1)
    if name == "actions" and np.shape(value) == (*np.shape(target.arrays[name])[:-1], 0):
        raise AssertionError("actions without a column accepted")
    if name == "batch" and np.ndim(value) == 2 and np.size(value) == 0:
        return "answered"  # no rows
    raise AssertionError(f"{name}: accepted {shown} {dtype}")


def option_case(rng: Rng, target: Target) -> str:
    if not target.options:
        return layout_case(rng, target)
    name = str(rng.choice(list(target.options)))
    value = ODD_OPTIONS[rng.integers(len(ODD_OPTIONS))]
    if name in ("epochs", "iterations", "max_iterations", "cg_iterations", "max_backtracks"):
        if isinstance(value, int) and 1000 < value < 2**31:
            return "skipped"  # what was asked for would take long
        if isinstance(value, int) and value == 2**31 - 1:
            return "skipped"
    options = {**target.options, name: value}
    before = owner_bits(target)
    try:
        result = call_and_check(target, target.arrays, options)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    if target.promise is not None:
        target.promise(result, clean_of(target, target.arrays), before)
    return "answered"


def fuzz(cases: int, seed: int = 0, first: int = 0) -> Outcome:
    """Run the cases in child processes."""
    return supervise([str(Path(__file__).resolve())], first=first, cases=cases, seed=seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case = case_of(options.seed)
        run_cases(Path(options.child), case, first=options.first, cases=options.cases)
        return 0
    outcome = fuzz(options.cases, options.seed, options.first)
    if not outcome.good:
        print(outcome.details())
    print(outcome.summary("core fuzzer"))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
