"""Exported policies take masks where they were trained with them, and do what `predict` does."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from masked_envs import SIZES, SPACES
from masked_reference import random_masks
from trpo_fast import Policy, core
from trpo_fast.envs import ActionAdapter, ObservationEncoder
from trpo_fast.export import PolicyFunction, export_policy, numpy_reader, policy_function

N = 2000
KINDS = tuple(SPACES)
BOX = spaces.Box(-np.inf, np.inf, (4,), np.float32)


def masked_policy(kind: str, dtype: str = "float32") -> Policy:
    encoder, adapter = ObservationEncoder(BOX, dtype), ActionAdapter(SPACES[kind])
    network = core.Policy(4, adapter.distribution, dtype=dtype, output_gain=3.0, hidden_sizes=(8,))
    return Policy(network, encoder, adapter, mask_source="info")


def some(kind: str) -> tuple[Any, Any, Any]:
    """Observations, masks and uniforms; some of the last are as near to 1 as can be."""
    rng = np.random.default_rng(3)
    observations = rng.normal(size=(N, 4)).astype(np.float32)
    masks = random_masks(SIZES[kind], N, seed=2, share=0.4)
    A = {"discrete": 1, "multi_discrete": 2, "multi_binary": 3}[kind]
    noise = rng.random((N, A)).astype(np.float32)
    noise[::7] = np.nextafter(np.float32(1), np.float32(0))
    return observations, masks, noise


def run_numpy(function: PolicyFunction, folder: Path, sample: bool) -> Any:
    act = numpy_reader.load(export_policy(function, folder / "policy.npz"))
    return lambda x, masks, noise: act(x, noise, masks)


def run_onnx(function: PolicyFunction, folder: Path, sample: bool) -> Any:
    import onnxruntime

    path = export_policy(function, folder / "policy.onnx", sample=sample)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()][:2] == ["observation", "action_mask"]

    def run(x: Any, masks: Any, noise: Any) -> Any:
        feeds = {"observation": x, "action_mask": masks}
        return session.run(None, feeds if noise is None else {**feeds, "noise": noise})[0]

    return run


def run_torch(function: PolicyFunction, folder: Path, sample: bool) -> Any:
    import torch

    from trpo_fast.export.torch_module import read_module

    program = torch.export.load(export_policy(function, folder / "p.pt2", sample=sample)).module()
    module = read_module(export_policy(function, folder / "p.pt"))

    def run(x: Any, masks: Any, noise: Any) -> Any:
        given = [torch.from_numpy(a) for a in (x, masks, noise) if a is not None]
        with torch.no_grad():
            one, other = program(*given).numpy(), module(*given).numpy()
        np.testing.assert_array_equal(one, other)
        return one

    return run


MAIN = """
#include <stdio.h>
#include "policy.h"
int main(int argc, char **argv) {
  static float x[POLICY_OBSERVATION], noise[POLICY_ACTION];
  static unsigned char allowed[WIDTH];
  static int32_t action[POLICY_ACTION];
  (void)argv;
  while (fread(x, sizeof(float), POLICY_OBSERVATION, stdin) == POLICY_OBSERVATION) {
    if (fread(allowed, 1, WIDTH, stdin) != WIDTH) return 3;
    if (fread(noise, sizeof(float), POLICY_ACTION, stdin) != POLICY_ACTION) return 4;
    if (policy_act(x, allowed, argc > 1 ? noise : NULL, action) != 0) return 2;
    if (fwrite(action, sizeof(int32_t), POLICY_ACTION, stdout) != POLICY_ACTION) return 5;
  }
  return 0;
}
"""


def run_c(function: PolicyFunction, folder: Path, sample: bool) -> Any:
    export_policy(function, folder / "policy.h")
    (folder / "main.c").write_text(MAIN, encoding="ascii")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
    program = folder / "program"
    width = f"-DWIDTH={function.mask_width}"
    command = ["gcc", *flags, width, str(folder / "main.c"), "-o", str(program), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]

    def run(x: Any, masks: Any, noise: Any) -> Any:
        given = np.zeros((len(x), function.action_dim), np.float32) if noise is None else noise
        rows = [x.view(np.uint8), masks.view(np.uint8), given.view(np.uint8)]
        arguments = [str(program), *([] if noise is None else ["sample"])]
        done = subprocess.run(
            arguments, input=np.hstack(rows).tobytes(), capture_output=True, check=False
        )
        if done.returncode:
            raise ValueError(f"status {done.returncode}")
        actions = np.frombuffer(done.stdout, np.int32).reshape(len(x), *function.action_shape)
        return actions.astype(function.action_dtype)

    return run


TARGETS = [
    pytest.param(run_numpy, id="numpy"),
    pytest.param(run_onnx, id="onnx"),
    pytest.param(
        run_c, id="c", marks=pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
    ),
    pytest.param(
        run_torch,
        id="torch",
        marks=pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch"),
    ),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mode_is_that_of_predict_and_samples_are_allowed(
    kind: str, target: Any, tmp_path: Path
) -> None:
    policy = masked_policy(kind)
    observations, masks, noise = some(kind)
    function = policy_function(policy.network, policy.encoder, policy.adapter, has_masks=True)
    act = target(function, tmp_path, False)
    expected, _ = policy.predict(observations, deterministic=True, action_masks=masks)
    action = act(observations, masks, None)
    np.testing.assert_array_equal(action, expected)
    assert action.dtype == expected.dtype

    samples = target(function, tmp_path, True)(observations, masks, noise)
    stored = policy.adapter.from_env(samples, np.float32)
    starts = np.concatenate([[0], np.cumsum(SIZES[kind])[:-1]])
    assert np.take_along_axis(masks, stored + starts, axis=1).all()
    by_numpy = run_numpy(function, tmp_path, True)(observations, masks, noise)
    assert (samples == by_numpy).mean() > 0.999  # a uniform number may lie at a border


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_c_refuses_a_mask_that_allows_nothing(tmp_path: Path) -> None:
    policy = masked_policy("multi_discrete")
    function = policy_function(policy.network, policy.encoder, policy.adapter, has_masks=True)
    act = run_c(function, tmp_path, False)
    masks = np.array([[1, 0, 1, 0, 0, 0, 0]], np.bool_)
    with pytest.raises(ValueError, match="status 2"):
        act(np.zeros((1, 4), np.float32), masks, None)


def test_a_policy_without_masks_is_exported_without_them(tmp_path: Path) -> None:
    policy = masked_policy("discrete")
    header = policy.export(tmp_path / "masked.h").read_text()
    assert "const unsigned char *allowed" in header
    policy.mask_source = "none"
    assert "allowed" not in policy.export(tmp_path / "plain.h").read_text()
