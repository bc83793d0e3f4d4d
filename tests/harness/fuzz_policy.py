"""Targets of the fuzzer of the core: the calls of a policy, and what must hold for their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import reference
from harness.fuzz_inputs import Array, Rng, usual
from trpo_fast import core


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
