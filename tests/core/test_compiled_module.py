"""The border to the compiled module: its description, its options, and checks of its own."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from cases import SMALL_HEADS, core_policy, normals, small_problem
from trpo_fast import _core, core
from trpo_fast.core import options

OPTIONS = {
    "TrustRegionOptions": (core.TrustRegionOptions, options.TrustRegionSettings),
    "AscentOptions": (core.AscentOptions, options.AscentSettings),
    "ValueFitOptions": (core.ValueFitOptions, options.ValueFitSettings),
}
METHODS = {
    "TrustRegionOptions": core.Policy.update,
    "AscentOptions": core.Policy.ascend,
    "ValueFitOptions": core.ValueFunction.fit,
}
each_options = pytest.mark.parametrize("name", OPTIONS)

# what pybind11 and the interpreter give every class
ORDINARY = {*dir(object), "_pybind11_conduit_v1_", "__dict__", "__weakref__", "__module__"}
ORDINARY |= {"__getstate__", "__setstate__"}


def stub() -> dict[str, set[str] | None]:
    """Public names of the description; of a class its members."""
    assert _core.__file__ is not None
    source = (Path(_core.__file__).parent / "_core.pyi").read_text(encoding="utf-8")
    names: dict[str, set[str] | None] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = {
                of.target.id if isinstance(of, ast.AnnAssign) else of.name  # type: ignore[union-attr]
                for of in node.body
                if isinstance(of, ast.AnnAssign | ast.FunctionDef)
            } - ORDINARY
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = None
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = None
    return {n: of for n, of in names.items() if not n.startswith("_") or n == "__version__"}


def module() -> dict[str, set[str] | None]:
    """The same of the module itself."""
    public = [n for n in dir(_core) if not n.startswith("_") or n == "__version__"]
    return {
        n: set(vars(value)) - ORDINARY if inspect.isclass(value := getattr(_core, n)) else None
        for n in public
    }


def test_the_description_has_every_name_and_no_other() -> None:
    described, real = stub(), module()
    assert set(described) == set(real)
    for name, members in real.items():
        assert described[name] == members, name
    assert described["PolicyF32"] is not None
    assert {"kl", "act_one", "n_parameters"} <= described["PolicyF32"]


# ---- options


@each_options
def test_options_and_their_settings_have_the_same_fields(name: str) -> None:
    kind, settings = OPTIONS[name]
    fields = kind.fields()
    assert set(get_type_hints(settings)) == set(fields)
    assert kind().to_dict() == {field: default for field, (default, _, _) in fields.items()}
    documentation = inspect.getdoc(METHODS[name])
    for field, (_, expected, text) in fields.items():
        assert expected
        assert text
        assert f"\n{field}\n" in str(documentation)
        assert f"\n{field}\n    {text}" in str(kind.__doc__)


def test_choices_are_those_of_the_core() -> None:
    fields = core.TrustRegionOptions.fields()
    for name, choices in (
        ("constraint", core.CONSTRAINTS),
        ("fisher", core.FISHER_FORMS),
        ("step", core.STEP_RULES),
        ("cg_preconditioner", core.PRECONDITIONERS),
    ):
        assert fields[name][1] == f"one of {', '.join(choices)}"


@each_options
def test_options_compare_copy_and_travel(name: str) -> None:
    kind: Any = OPTIONS[name][0]
    changed = kind(seed=7)
    assert changed != kind()
    assert changed != 7
    assert kind().replace(seed=7) == changed
    for other in (
        kind.from_dict(changed.to_dict()),
        copy.deepcopy(changed),
        pickle.loads(pickle.dumps(changed)),
        eval(repr(changed), {name: kind}),
    ):
        assert other == changed
    changed.seed = 8
    assert changed.seed == 8
    assert changed != kind(seed=7)


@each_options
def test_every_door_checks(name: str) -> None:
    kind: Any = OPTIONS[name][0]
    options = kind()
    for door in (
        lambda: kind(seed=-1),
        lambda: kind.from_dict({"seed": -1}),
        lambda: options.replace(seed=-1),
        lambda: setattr(options, "seed", -1),
    ):
        with pytest.raises(
            ValueError, match=r"^seed: expected an integer between 0 and .* got -1\.$"
        ):
            door()
    for door in (
        lambda: kind(sed=1),
        lambda: kind.from_dict({"sed": 1}),
        lambda: options.replace(sed=1),
        lambda: setattr(options, "sed", 1),
    ):
        with pytest.raises(
            TypeError, match=rf"^sed: expected the name of a setting of {name}.*seed"
        ):
            door()
    assert options == kind()


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"^step_size: .* got None for step='fixed'\.$"):
        core.TrustRegionOptions(step="fixed")
    options = core.TrustRegionOptions(step="fixed", step_size=0.1)
    options.step = "boundary"  # set one by one: found before the update
    p = small_problem(SMALL_HEADS["gaussian"])
    policy = core_policy(p, "float64")
    with pytest.raises(ValueError, match=r"^step_size: .* got 0\.1 for step='boundary'\.$"):
        policy.update(p.obs, p.actions, p.advantages, options)
    assert np.array_equal(policy.parameters, p.parameters)


def test_settings_go_before_options() -> None:
    p = small_problem(SMALL_HEADS["gaussian"], n=50)
    one, other = core_policy(p, "float64"), core_policy(p, "float64")
    options = core.TrustRegionOptions(max_kl=0.5, cg_iterations=3)
    one.update(p.obs, p.actions, p.advantages, options, max_kl=0.02)
    other.update(p.obs, p.actions, p.advantages, max_kl=0.02, cg_iterations=3)
    assert np.array_equal(one.parameters, other.parameters)
    assert options.max_kl == 0.5
    with pytest.raises(TypeError, match="options: expected TrustRegionOptions, got AscentOptions"):
        one.update(p.obs, p.actions, p.advantages, core.AscentOptions())  # type: ignore[arg-type]


# ---- what the compiled module does not trust


GAE: dict[str, Any] = {
    **{name: np.zeros((2, 1)) for name in ("rewards", "values", "next_values")},
    **{name: np.zeros((2, 1), np.uint8) for name in ("terminated", "truncated")},
    "gamma": 0.9,
    "gae_lambda": 0.9,
}
STREAM: dict[str, Any] = {"seed": 1, "environment": 2, "step": 3, "n": 4}
WEIGHTS: dict[str, Any] = {
    "inputs": 3, "hidden": [4], "outputs": 2, "hidden_gain": 1.0, "output_gain": 0.1, "seed": 0,
}  # fmt: skip
CG: dict[str, Any] = {
    "operator": lambda v: v, "b": np.ones(2), "max_iterations": 3, "tolerance": 0.1,
    "preconditioner": None,
}  # fmt: skip
FUNCTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gae": (_core.gae, GAE),
    "normals": (_core.normals, STREAM),
    "uniforms": (_core.uniforms, STREAM),
    "initialize_orthogonal": (_core.initialize_orthogonal, WEIGHTS),
    "conjugate_gradient": (_core.conjugate_gradient, CG),
    "RunningStats": (_core.RunningStats, {"dim": 2}),
    "restore": (
        lambda **of: _core.RunningStats(2).restore(**of),
        {"count": 3.0, "mean": np.zeros(2), "m2": np.ones(2)},
    ),
}


@pytest.mark.parametrize(
    ("function", "argument", "value", "expected"),
    [
        ("gae", "gamma", 1.5, r"a number in \[0, 1\], got 1.5"),
        ("gae", "gae_lambda", np.nan, r"a number in \[0, 1\], got nan"),
        ("gae", "gamma", "1", "a number, got str"),
        ("normals", "seed", -1, "an integer between 0 and 18446744073709551615, got -1"),
        ("uniforms", "seed", 2**64, "an integer between 0 and .* got 18446744073709551616"),
        ("uniforms", "environment", 2**32, "an integer between 0 and 4294967295, got"),
        ("normals", "step", 1.0, "an integer, got float"),
        ("normals", "n", -1, "an integer between 0 and 2147483647, got -1"),
        ("initialize_orthogonal", "inputs", 0, "an integer between 1 and .* got 0"),
        ("initialize_orthogonal", "outputs", True, "an integer, got bool"),
        ("initialize_orthogonal", "hidden_gain", np.inf, "a finite number of at least 0, got inf"),
        ("initialize_orthogonal", "output_gain", -1.0, "a finite number of at least 0, got -1.0"),
        ("initialize_orthogonal", "seed", None, "an integer, got NoneType"),
        ("conjugate_gradient", "max_iterations", -1, "an integer between 0 and .* got -1"),
        ("conjugate_gradient", "tolerance", np.nan, "a finite number of at least 0, got nan"),
        ("RunningStats", "dim", 0, "an integer between 1 and .* got 0"),
        ("restore", "count", np.inf, "a finite number of at least 0, got inf"),
    ],
)
def test_numbers_are_checked_by_name(
    function: str, argument: str, value: Any, expected: str
) -> None:
    call, arguments = FUNCTIONS[function]
    call(**arguments)
    with pytest.raises((ValueError, TypeError), match=rf"^{argument}: expected {expected}.*\.$"):
        call(**{**arguments, argument: value})


def test_policies_of_another_shape_are_refused() -> None:
    """Of the same number of parameters or outputs, even."""
    x = normals(1, 5, 3)
    small = _core.PolicyF64(3, [4], "tanh", "categorical", [2])
    for other in (
        _core.PolicyF64(3, [4], "tanh", "categorical", [9]),
        _core.PolicyF64(3, [400], "tanh", "categorical", [2]),
        _core.PolicyF64(3, [4], "relu", "categorical", [2]),
        _core.PolicyF64(3, [4], "tanh", "bernoulli", [2]),
        _core.PolicyF64(30, [4], "tanh", "categorical", [2]),
    ):
        with pytest.raises(ValueError, match="old: expected a policy of the same network"):
            small.kl(x, other)
        actions = np.zeros((5, other_width(other)), np.int32)
        if other.n_parameters != _core.PolicyF64(30, [4], "tanh", "categorical", [2]).n_parameters:
            old = _core.PolicyBatchF64(other, x, actions)
            batch = _core.PolicyBatchF64(small, x, np.zeros((5, 1), np.int32))
            with pytest.raises(ValueError, match="old: expected a policy of the same network"):
                batch.penalised_gradient(old, np.ones(5), 1.0)
    ascent = _core.PolicyAscentF64(small)
    bigger = _core.PolicyF64(3, [5], "tanh", "categorical", [2])
    with pytest.raises(ValueError, match="policy: expected one of"):
        ascent.ascend(bigger, x, np.zeros((5, 1), np.int32), np.ones(5), core.AscentOptions())
    with pytest.raises(ValueError, match="first_moment: expected shape"):
        ascent.set_adam(np.zeros(3), np.zeros(3), 0)


def other_width(policy: _core.PolicyF64) -> int:
    """2 columns of actions for the Bernoulli, whose log-probabilities take two; 1 otherwise."""
    try:
        policy.log_prob(normals(1, 1, 3), np.zeros((1, 2), np.int32))
    except ValueError:
        return 1
    return 2


@pytest.mark.parametrize("fisher", ["gauss_newton", "empirical"])
@pytest.mark.parametrize("head", SMALL_HEADS)
def test_an_operator_keeps_its_rows(head: str, fisher: Any) -> None:
    """Whatever becomes of the caller's arrays, F is of the rows that it was made from."""
    p = small_problem(SMALL_HEADS[head], n=200)
    policy = core_policy(p, "float64")
    obs, actions = p.obs.copy(), p.actions.astype(policy.action_dtype)
    v = normals(3, len(p.parameters))
    # with no activations kept, every product reads the rows again
    F = policy.fisher_operator(obs, actions=actions, fisher=fisher, activation_budget=0)
    before = F(v)
    obs[:], actions[:] = np.nan, 1
    policy.parameters = 2.0 * p.parameters
    assert np.array_equal(F(v), before)


def test_clipping_keeps_its_bounds() -> None:
    low, high = np.full(2, -1.0), np.full(2, 1.0)
    clip = core.ActionClip(low, high, np.float64)
    low[:], high[:] = -9.0, 9.0
    assert np.array_equal(clip.clip(np.array([[5.0, -5.0]])), [[1.0, -1.0]])
