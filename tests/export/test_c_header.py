"""The C header compiles without a warning everywhere, and does what `predict` does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies import CASES, TOLERANCE, Case, N, difference, function_of, sampled
from trpo_fast.export import PolicyFunction, export_policy

MAIN = Path(__file__).with_name("main.c")
FLAGS = ["-O1", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
# the name of a compiler, and how it is told the language
COMPILERS = {
    name: [*command, *FLAGS]
    for name, command in {
        "gcc": ["gcc", "-std=c99"],
        "g++": ["g++", "-std=c++11", "-x", "c++"],
        "clang": ["clang", "-std=c99"],
        "clang++": ["clang++", "-std=c++11", "-x", "c++"],
        "clang-14": ["clang-14", "-std=c99"],
        "clang++-14": ["clang++-14", "-std=c++11", "-x", "c++"],
    }.items()
    if shutil.which(name)
}
pytestmark = pytest.mark.skipif(not COMPILERS, reason="needs a C compiler")

C_TYPES = {"float32": "float", "float64": "double"}


def c_action_type(function: PolicyFunction) -> tuple[str, Any]:
    if function.action_dtype.kind == "f":
        return C_TYPES[function.action_dtype.name], function.action_dtype
    return "int32_t", np.int32


def compiled(compiler: str, function: PolicyFunction, folder: Path) -> Path:
    export_policy(function, folder / "trpo_policy.h")
    program = folder / "program"
    command = [
        *COMPILERS[compiler],
        f"-DREAL={C_TYPES[function.dtype.name]}",
        f"-DACTION={c_action_type(function)[0]}",
        f"-I{folder}",
        str(MAIN),
        "-o",
        str(program),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    assert done.stderr == ""
    return program


def run(program: Path, function: PolicyFunction, observations: Any, noise: Any = None) -> Any:
    raw = function.raw_numbers(observations)
    rows = raw if noise is None else np.hstack([raw, noise])
    arguments = [str(program)] if noise is None else [str(program), "sample"]
    done = subprocess.run(arguments, input=rows.tobytes(), capture_output=True, check=True)
    actions = np.frombuffer(done.stdout, c_action_type(function)[1])
    return actions.reshape(len(raw), *function.action_shape)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_mode_is_that_of_predict(case: Case, tmp_path: Path) -> None:
    policy = case.policy()
    function = function_of(policy)
    program = compiled(next(iter(COMPILERS)), function, tmp_path)
    observations = case.observations(N)
    expected, _ = policy.predict(observations, deterministic=True)
    action = run(program, function, observations)
    if expected.dtype.kind == "f":
        assert difference(policy, observations, action, expected) <= TOLERANCE[case.dtype]
    else:
        np.testing.assert_array_equal(action, expected)


PATHS = [
    Case(observation="dict", action="multi_discrete", activation="gelu"),
    Case(action="scaled", state_dependent_std=True, activation="elu", dtype="float64"),
    Case(observation="image", action="multi_binary", activation="silu", normalize=False),
    Case(action="integers", activation="relu"),
    Case(action="half_open", hidden_sizes=()),
]


@pytest.mark.parametrize("case", PATHS, ids=str)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_takes_it(compiler: str, case: Case, tmp_path: Path) -> None:
    policy = case.policy()
    function = function_of(policy)
    program = compiled(compiler, function, tmp_path)
    observations, noise = case.observations(500), case.noise(function, 500)
    for given, expected in (
        (None, policy.predict(observations, deterministic=True)[0]),
        (noise, sampled(policy, observations, noise.astype(np.float64))),
    ):
        action = run(program, function, observations, given)
        if expected.dtype.kind == "f":
            assert difference(policy, observations, action, expected, given) <= 2e-6
        else:
            assert np.mean(action != expected) <= (0 if given is None else 2e-3)


SMALL = Case(observation="dict", action="discrete", hidden_sizes=(3,))


def test_what_predict_refuses_is_refused(tmp_path: Path) -> None:
    function = function_of(SMALL.policy())
    program = compiled(next(iter(COMPILERS)), function, tmp_path)
    row = function.raw_numbers(SMALL.observations(1))
    for column, value in ((0, np.nan), (1, np.inf), (3, -1.0), (3, 4.0), (3, 1e30)):
        wrong = row.copy()
        wrong[0, column] = value
        done = subprocess.run(
            [str(program)], input=wrong.tobytes(), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, b"")


def test_two_policies_in_one_program(tmp_path: Path) -> None:
    for name, case in (("left", SMALL), ("2nd-policy", Case(hidden_sizes=(4,)))):
        export_policy(function_of(case.policy()), tmp_path / f"{name}.h")
    (tmp_path / "both.c").write_text(
        '#include "left.h"\n#include "2nd-policy.h"\n'
        "int main(void) {\n"
        "  float a[LEFT_OBSERVATION] = {0}, b[_2ND_POLICY_OBSERVATION] = {0};\n"
        "  int32_t x[LEFT_ACTION];\n"
        "  float y[_2ND_POLICY_ACTION];\n"
        "  return left_act(a, NULL, x) + _2nd_policy_act(b, NULL, y);\n"
        "}\n"
    )
    compiler = next(name for name in COMPILERS if "+" not in name)
    command = [*COMPILERS[compiler], str(tmp_path / "both.c"), "-o", str(tmp_path / "both"), "-lm"]
    subprocess.run(command, check=True)
    assert subprocess.run([str(tmp_path / "both")], check=False).returncode == 0


def test_the_header_says_what_it_holds() -> None:
    from trpo_fast.export.c_header import c_header

    text = c_header(function_of(SMALL.policy()))
    comment = text[: text.index("*/")]
    for words in ("observation.b (3,) float32", "observation.a.0 () int64", "NULL for the mode"):
        assert words in comment
    assert text.isascii()
    assert "malloc" not in text
    includes = [line for line in text.splitlines() if line.startswith("#include")]
    assert includes == ["#include <math.h>", "#include <stddef.h>", "#include <stdint.h>"]
