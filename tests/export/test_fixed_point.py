"""The C header in integers stays within the bound that it states, and nothing in it overflows."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from masked_envs import SIZES, SPACES
from masked_reference import random_masks
from policies import ACTIVATIONS, Case, N, function_of
from trpo_fast import Policy, core
from trpo_fast.envs import ActionAdapter, ObservationEncoder
from trpo_fast.export import ExportError, PolicyFunction, export_policy, policy_function
from trpo_fast.export.fixed_point import FixedPolicy, fixed_policy

MAIN = Path(__file__).with_name("fixed_main.c")
FLAGS = ["-O1", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
COMPILERS = {
    name: [name, *language, *FLAGS]
    for name, language in {
        "gcc": ["-std=c99"],
        "g++": ["-std=c++11", "-x", "c++"],
        "clang": ["-std=c99"],
        "clang++": ["-std=c++11", "-x", "c++"],
    }.items()
    if shutil.which(name)
}
pytestmark = pytest.mark.skipif(not COMPILERS, reason="needs a C compiler")
FIRST = next(iter(COMPILERS), "")

C_TYPES = {"float32": "float", "float64": "double"}


def compiled(
    function: PolicyFunction, folder: Path, *more: str, compiler: str = FIRST, floats: bool = True
) -> Path:
    export_policy(function, folder / "trpo_policy.h", number="fixed")
    program = folder / ("floats" if floats else "integers")
    mask = [f"-DMASK={function.mask_width}"] if function.mask_width else []
    action = C_TYPES.get(function.action_dtype.name, "int32_t")
    types = [f"-DREAL={C_TYPES[function.dtype.name]}", f"-DACTION={action}", "-DFLOATS"]
    options = [*more, *mask, *(types if floats else ["-DTRPO_POLICY_NO_FLOAT"])]
    command = [*COMPILERS[compiler], *options, f"-I{folder}", str(MAIN), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[:3000]
    return program


def run(program: Path, rows: Any, dtype: Any, masks: Any = None) -> Any:
    data = rows if masks is None else np.hstack([rows.view(np.uint8), masks.view(np.uint8)])
    done = subprocess.run([str(program)], input=data.tobytes(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr[:2000]
    return np.frombuffer(done.stdout, dtype).reshape(len(rows), -1)


def c_dtype(function: PolicyFunction) -> Any:
    return function.action_dtype if function.action_dtype.kind == "f" else np.int32


CASES = [
    *(Case(activation=a) for a in ACTIVATIONS),
    *(Case(activation=a, action="discrete") for a in ACTIVATIONS),
    Case(observation="image", action="multi_binary", activation="silu", normalize=False),
    Case(observation="dict", action="multi_discrete", activation="gelu"),
    Case(observation="discrete", action="multi_discrete", normalize=False),
    Case(observation="tuple", action="clipped", dtype="float64"),
    Case(action="scaled", state_dependent_std=True, activation="elu", dtype="float64"),
    Case(action="integers", activation="relu", hidden_sizes=(256, 256)),
    Case(action="half_open", hidden_sizes=()),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_actions_are_within_the_stated_bound(case: Case, tmp_path: Path) -> None:
    policy = case.policy()
    function = function_of(policy)
    fixed = fixed_policy(function)
    observations = case.observations(N)
    expected = np.asarray(policy.predict(observations, deterministic=True)[0]).reshape(N, -1)
    raw = function.raw_numbers(observations)
    action = run(compiled(function, tmp_path), raw, c_dtype(function))
    found = policy.distribution_parameters(observations)
    if function.is_discrete:
        differs = (action != expected).any(axis=1)
        assert differs.mean() <= 1e-3
        # what differs was all but a tie: twice the bound, and the rounding of predict
        assert (leads(function, found["logits"])[differs] <= 2 * fixed.error.max() + 1e-5).all()
        assert fixed.error.max() <= 1e-3
        return
    mean = np.asarray(found["mean"], np.float64)
    if function.center is not None:
        mean = function.center + function.half * mean
    rounding = 2e-6 * np.abs(mean).max(axis=0)  # of predict, in float32
    off = np.abs(action.astype(np.float64) - expected)
    if function.action_dtype.kind in "iu":
        near = np.abs(mean % 1 - 0.5) <= fixed.error + rounding  # an integer apart, if not rounded
        assert (off[near] <= 1).all()
        assert (off[~near] == 0).all()
        assert near.mean() < 0.05
        return
    assert (off <= fixed.error + rounding).all()
    assert (fixed.error <= 1e-3 * np.maximum(np.abs(mean).max(axis=0), 1e-3)).all()
    # what is measured, of the size of the actions
    assert (off.max(axis=0) <= 2e-5 * np.abs(mean).max(axis=0)).all()


def leads(function: PolicyFunction, logits: Any) -> Any:
    """(N,): the smallest lead of a component's best choice over its second."""
    if function.kind == "bernoulli":
        return np.abs(logits).min(axis=1)
    groups = np.split(logits, np.cumsum(function.sizes)[:-1], axis=1)
    best = [np.sort(z, axis=1)[:, -2:] for z in groups]
    return np.min([z[:, 1] - z[:, 0] for z in best], axis=0)


def integers(fixed: FixedPolicy, raw: Any) -> Any:
    return np.rint(raw * 2.0**fixed.observation_shift).astype(np.int32)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("case", [CASES[2], CASES[13], CASES[17]], ids=str)
def test_integers_in_and_out_by_every_compiler(case: Case, compiler: str, tmp_path: Path) -> None:
    function = function_of(case.policy())
    fixed = fixed_policy(function)
    raw = function.raw_numbers(case.observations(300))
    program = compiled(function, tmp_path, compiler=compiler, floats=False)
    action = run(program, integers(fixed, raw), np.int32)
    floats = run(compiled(function, tmp_path, compiler=compiler), raw, c_dtype(function))
    shift = 0 if fixed.action_shift is None else fixed.action_shift
    np.testing.assert_array_equal((action * 2.0**-shift).astype(floats.dtype), floats)


UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]


def hostile(case: Case) -> Policy:
    """Weights and statistics far from those of any training."""
    policy = case.policy()
    random = np.random.default_rng(4)
    network = policy.network
    network.parameters = network.parameters * 10.0 ** random.integers(-3, 3, network.n_parameters)
    if case.normalize:
        n = network.obs_dim
        mean, variance = 10.0 ** random.integers(-6, 5, n), 10.0 ** random.integers(-8, 9, n)
        network.set_normalizer(mean, variance, clip=10.0)
    return policy


@pytest.mark.parametrize(
    "case",
    [
        Case(hidden_sizes=(32, 32)),
        Case(hidden_sizes=(32, 32), activation="relu"),
        Case(hidden_sizes=(32, 32), activation="elu", action="discrete"),
        Case(hidden_sizes=(16,), activation="silu", action="scaled"),
        Case(observation="image", activation="gelu", action="integers", normalize=False),
        Case(observation="dict", action="multi_discrete"),
    ],
    ids=str,
)  # fmt: skip
def test_nothing_overflows(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # these are refused for what their actions would be worth; here they only must not overflow
    monkeypatch.setattr("trpo_fast.export.fixed_point._LARGEST_ERROR", np.inf)
    function = function_of(hostile(case))
    random = np.random.default_rng(5)
    rows = random.integers(-(2**31), 2**31, (2000, function.raw_dim)).astype(np.int32)
    rows[::3] = random.choice([-(2**31), 2**31 - 1, 0, 1, -1], rows[::3].shape)
    for c, n in enumerate(function.categories):
        if n:
            rows[:, c] = function.starts[c] + random.integers(0, n, len(rows))
    action = run(compiled(function, tmp_path, *UNDEFINED, floats=False), rows, np.int32)
    fixed = fixed_policy(function)
    if fixed.action_low is not None:
        assert (fixed.action_low <= action).all()
        assert (action <= fixed.action_high).all()
    # the numbers of the environment, up to the largest that there are
    raw = rows.astype(np.float64) * 10.0 ** random.integers(-20, 28, rows.shape)
    raw = np.where(function.categories > 0, rows, raw).astype(function.dtype)
    run(compiled(function, tmp_path, *UNDEFINED), raw, c_dtype(function))


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_the_bound_holds_for_weights_of_any_size(
    activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trpo_fast.export.fixed_point._LARGEST_ERROR", np.inf)
    policy = hostile(Case(activation=activation, dtype="float64", hidden_sizes=(12, 9)))
    function = function_of(policy)
    observations = Case(dtype="float64").observations(500)
    expected = np.asarray(policy.predict(observations, deterministic=True)[0], np.float64)
    raw = function.raw_numbers(observations)
    action = run(compiled(function, tmp_path), raw, c_dtype(function)).astype(np.float64)
    # actions are float32, rounded once here and once there
    bound = fixed_policy(function).error + 2.0**-23 * np.abs(expected)
    assert (np.abs(action - expected) <= bound).all()
    assert np.abs(action - expected).max() > 0


def test_there_is_no_floating_point_and_no_call(tmp_path: Path) -> None:
    function = function_of(Case(observation="dict", activation="gelu").policy())
    path = export_policy(function, tmp_path / "trpo_policy.h", number="fixed")
    text = path.read_text(encoding="ascii")
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    code = re.sub(r"#ifndef TRPO_POLICY_NO_FLOAT.*?\n#endif", "", code, flags=re.DOTALL)
    assert not re.search(r"\b(float|double)\b|\d\.|malloc|math\.h", code)
    source = tmp_path / "object.c"
    source.write_text(
        "#define TRPO_POLICY_NO_FLOAT\n"
        '#include "trpo_policy.h"\n'
        "int act(const int32_t *x, int32_t *y);\n"
        "int act(const int32_t *x, int32_t *y) { return trpo_policy_act(x, y); }\n",
        encoding="ascii",
    )
    c = next(name for name in COMPILERS if "+" not in name)
    command = [*COMPILERS[c], "-ffreestanding", "-c", str(source), "-o", str(tmp_path / "object.o")]
    subprocess.run(command, check=True)
    if shutil.which("nm"):
        shown = subprocess.run(
            ["nm", "-u", str(tmp_path / "object.o")], capture_output=True, text=True, check=True
        )
        assert shown.stdout == ""


@pytest.mark.parametrize("kind", SPACES)
def test_masks(kind: str, tmp_path: Path) -> None:
    box = spaces.Box(-5, 5, (4,), np.float32)
    encoder, adapter = ObservationEncoder(box, "float32"), ActionAdapter(SPACES[kind])
    network = core.Policy(4, adapter.distribution, output_gain=3.0, hidden_sizes=(8,))
    policy = Policy(network, encoder, adapter, mask_source="info")
    function = policy_function(network, encoder, adapter, has_masks=True)
    rows = np.random.default_rng(3).normal(size=(N, 4)).astype(np.float32)
    masks = random_masks(SIZES[kind], N, seed=2, share=0.4)
    expected, _ = policy.predict(rows, deterministic=True, action_masks=masks)
    action = run(compiled(function, tmp_path, *UNDEFINED), rows, np.int32, masks)
    assert (action == expected.reshape(N, -1)).mean() > 0.999


def test_what_cannot_be_said_in_integers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.h"
    function = function_of(Case(normalize=False).policy())
    with pytest.raises(
        ExportError, match=r"^number: expected observation to be normalised, or in a"
    ):
        export_policy(function, path, number="fixed")
    large = function_of(Case(activation="relu", action="clipped").policy())
    layers = tuple(replace(one, weight=one.weight * np.float32(1e6)) for one in large.layers)
    with pytest.raises(
        ExportError, match=r"^number: expected a policy that 32 bits .* number='float'"
    ):
        export_policy(replace(large, layers=layers), path, number="fixed")
    endless = replace(large.layers[0], bias=large.layers[0].bias * np.inf)
    with pytest.raises(ExportError, match="weights that are not finite"):
        export_policy(replace(large, layers=(endless, *large.layers[1:])), path, number="fixed")
    with pytest.raises(ExportError, match="less than a billionth of its mean"):
        export_policy(replace(large, mean=large.mean + np.float32(1e12)), path, number="fixed")
    with pytest.raises(ValueError, match=r"^number: expected 'float' or 'fixed', got 'int8'"):
        export_policy(large, path, number="int8")  # type: ignore[arg-type]
    for ending, options in ((".npz", {}), (".h", {"sample": True})):
        with pytest.raises(
            ValueError, match=r"^number: expected 'fixed' for the mode in a C header"
        ):
            export_policy(large, tmp_path / f"p{ending}", number="fixed", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_number_and_what_is_no_category_is_refused(tmp_path: Path) -> None:
    case = Case(observation="dict", action="discrete", hidden_sizes=(3,))
    function = function_of(case.policy())
    program = compiled(function, tmp_path)
    row = function.raw_numbers(case.observations(1))
    for column, value in ((0, np.nan), (1, np.inf), (3, -1.0), (3, 4.0), (3, 1e30)):
        wrong = row.copy()
        wrong[0, column] = value
        done = subprocess.run(
            [str(program)], input=wrong.tobytes(), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, b"")


def test_the_header_states_its_bound() -> None:
    from trpo_fast.export.c_fixed import c_fixed_header

    words = {
        "clipped": r"Entries differ from those of predict by at most 0\.0001\d, 0\.0001\d, ",
        "integers": r"by at most 0\.00\d+ before they are rounded",
        "discrete": r"wherever the largest logit leads by more than 0\.000\d+",
        "multi_binary": r"wherever a logit is farther than 0\.000\d+ from",
    }
    for action, sentence in words.items():
        text = c_fixed_header(function_of(Case(action=action).policy()))
        assert re.search(sentence, text[: text.index("*/")])
