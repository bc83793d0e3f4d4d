"""Every target says what `predict` says, on 10,000 observations of every space and activation."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies import CASES, TOLERANCE, Case, N, difference, function_of, sampled
from trpo_fast.export import (
    ENDINGS,
    ExportError,
    PolicyFunction,
    export_policy,
    numpy_reader,
)

Run = Callable[[Any, Any], Any]  # from observations and noise to actions


def run_numpy(function: PolicyFunction, folder: Path, sample: bool) -> Run:
    act = numpy_reader.load(export_policy(function, folder / "policy.npz"))
    return lambda observations, noise: act(function.raw_numbers(observations), noise)


def run_onnx(function: PolicyFunction, folder: Path, sample: bool) -> Run:
    import onnxruntime

    path = export_policy(function, folder / "policy.onnx", sample=sample)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    assert [x.shape[0] for x in session.get_inputs()] == ["N"] * len(session.get_inputs())

    def run(observations: Any, noise: Any) -> Any:
        feeds = {} if noise is None else {"noise": noise}
        for leaf in function.leaves:
            value = observations
            for key in leaf.path:
                value = value[key]
            feeds[leaf.name] = value
        (action,) = session.run(None, feeds)
        return action

    return run


def run_torch_program(function: PolicyFunction, folder: Path, sample: bool) -> Run:
    import torch

    path = export_policy(function, folder / "policy.pt2", sample=sample)
    return run_module(torch.export.load(path).module(), function)


def run_torch_module(function: PolicyFunction, folder: Path, sample: bool) -> Run:
    from trpo_fast.export.torch_module import read_module

    return run_module(read_module(export_policy(function, folder / "policy.pt")), function)


def run_module(module: Any, function: PolicyFunction) -> Run:
    import torch

    def run(observations: Any, noise: Any) -> Any:
        raw = torch.from_numpy(function.raw_numbers(observations))
        with torch.no_grad():
            given = () if noise is None else (torch.from_numpy(noise),)
            return module(raw, *given).numpy()

    return run


NEEDS_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
TARGETS = [
    pytest.param(run_numpy, id="numpy"),
    pytest.param(run_onnx, id="onnx"),
    pytest.param(run_torch_program, id="torch-program", marks=NEEDS_TORCH),
    pytest.param(run_torch_module, id="torch-module", marks=NEEDS_TORCH),
]


def without_operators(case: Case, target: Any) -> bool:
    return target is run_onnx and case.activation == "gelu" and case.dtype == "float64"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_mode_is_that_of_predict(case: Case, target: Any, tmp_path: Path) -> None:
    policy = case.policy()
    function = function_of(policy)
    if without_operators(case, target):
        with pytest.raises(ExportError, match=r"^onnx: expected a float32 policy .* got float64"):
            target(function, tmp_path, False)
        return
    run = target(function, tmp_path, False)
    observations = case.observations(N)
    expected, _ = policy.predict(observations, deterministic=True)
    action = run(observations, None)
    assert (action.shape, action.dtype) == (expected.shape, expected.dtype)
    if expected.dtype.kind == "f":
        assert difference(policy, observations, action, expected) <= TOLERANCE[case.dtype]
    else:
        np.testing.assert_array_equal(action, expected)
    # any size of batch
    one = case.observations(1)
    np.testing.assert_allclose(
        run(one, None), policy.predict(one, deterministic=True)[0], rtol=1e-4, atol=1e-5
    )


SAMPLED = [
    case
    for case in CASES
    if case.activation == "tanh" and case.dtype == "float32" and case.hidden_sizes == (64, 64)
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_a_sample_is_that_of_the_same_noise(case: Case, target: Any, tmp_path: Path) -> None:
    policy = case.policy()
    function = function_of(policy)
    observations, noise = case.observations(N), case.noise(function, N)
    action = target(function, tmp_path, True)(observations, noise)
    expected = sampled(policy, observations, noise.astype(np.float64))
    if expected.dtype.kind == "f":
        assert difference(policy, observations, action, expected, noise) <= 2e-6
    else:
        # where a random number falls between two roundings of a probability, either is right
        assert np.mean(action != expected) <= 2e-4


def test_samples_are_those_of_the_core() -> None:
    from trpo_fast import core

    case = Case(action="multi_discrete")
    policy = case.policy()
    observations = case.observations(200)
    noise = np.array([core.random_uniforms(policy.seed, n, 0, 4) for n in range(200)])
    np.testing.assert_array_equal(
        policy.predict(observations)[0], sampled(policy, observations, noise)
    )


def test_raw_numbers_are_what_the_page_says() -> None:
    case = Case(observation="dict")
    function = function_of(case.policy())
    observations = case.observations(4)
    expected = np.column_stack(
        [
            observations["b"],
            observations["a"][0],
            observations["a"][1],
            observations["a"][2],
        ]
    )
    np.testing.assert_array_equal(function.raw_numbers(observations), expected)
    assert [leaf.name for leaf in function.leaves] == [
        "observation.b",
        "observation.a.0",
        "observation.a.1",
        "observation.a.2",
    ]


def test_the_ending_says_the_target(tmp_path: Path) -> None:
    policy = Case().policy()
    function = function_of(policy)
    assert set(ENDINGS.values()) == {"onnx", "c", "torch", "numpy", "sb3"}
    path = export_policy(function, tmp_path / "deep" / "a.npz")
    assert path.read_bytes()[:2] == b"PK"
    export_policy(function, tmp_path / "b.bin", to="numpy")
    assert (tmp_path / "b.bin").read_bytes()[:2] == b"PK"
    with pytest.raises(
        ValueError, match=r"^path: expected a file that ends in .onnx, .h, .* 'c.txt'"
    ):
        export_policy(function, tmp_path / "c.txt")
    with pytest.raises(
        ValueError, match=r"^to: expected one of onnx, c, torch, numpy, sb3, got 'tflite'"
    ):
        export_policy(function, tmp_path / "c.tflite", to="tflite")  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.bin", "deep"]


def test_no_pickle_is_in_a_numpy_file(tmp_path: Path) -> None:
    path = export_policy(function_of(Case().policy()), tmp_path / "a.npz")
    arrays = np.load(path, allow_pickle=False)
    assert "allow_pickle" not in arrays.files  # what early versions of NumPy make of an argument
    assert all(arrays[name].dtype.kind in "fiU" for name in arrays.files)


def test_the_reader_needs_numpy_only() -> None:
    source = Path(numpy_reader.__file__).read_text(encoding="utf-8")
    imports = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import math", "from typing import Any", "import numpy as np"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    import sys

    for package, ending in (("onnx", ".onnx"), ("torch", ".pt2")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf'pip install "trpo_fast\[{package}\]"'):
            export_policy(function_of(Case().policy()), tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["numpy", "c"])
def test_what_is_no_file_is_not_replaced(target: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"expected .* to be a file or not to be there"):
        export_policy(function_of(Case().policy()), pipe, target)
    assert pipe.is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    export_policy(function_of(Case().policy()), tmp_path / "link", target)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").is_file()
