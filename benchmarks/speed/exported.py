"""Time one action of one policy in every program that it is exported to.

    python benchmarks/speed/exported.py --json benchmarks/results/exported.json

The mode for one raw observation, on one thread: ``predict`` here, the C header (compiled with -O3, in a
loop in C, so that the call from Python does not count), onnxruntime, PyTorch's exported program, and
the NumPy reader. Sides that are not installed are left out. The network is as large before training
as after it. The documentation's page of results is made from the JSON file.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.tools import report
from trpo_fast import TRPO, Policy
from trpo_fast.export import PolicyFunction, numpy_reader, policy_function

C_CALLS = 1000  # in a loop in C

LOOP = """
#include "trpo_policy.h"
int run(int n, const float *observation, void *action);
int run(int n, const float *observation, void *action) {
  int i, status = 0;
  for (i = 0; i < n; ++i) status |= trpo_policy_act(observation, NULL, action);
  return status;
}
"""

Side = Callable[[], Any]


def c_side(name: str, policy: Policy, raw: Any, folder: Path) -> Side | None:
    """A thousand actions of the C header, compiled by a compiler of this name; None without it."""
    compiler = shutil.which(name)
    if compiler is None:
        return None
    policy.export(folder / "trpo_policy.h")
    (folder / "loop.c").write_text(LOOP)
    library = folder / f"loop_{name}.so"
    command = [
        compiler,
        "-O3",
        "-shared",
        "-fPIC",
        str(folder / "loop.c"),
        "-o",
        str(library),
        "-lm",
    ]
    subprocess.run(command, check=True)
    run = ctypes.CDLL(str(library)).run
    action = np.zeros(64, np.float64)
    pointer = raw.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    where = action.ctypes.data_as(ctypes.c_void_p)
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_float), ctypes.c_void_p]

    def call() -> None:
        if run(C_CALLS, pointer, where) != 0:
            raise SystemExit("the C header refuses the observation")

    call.keep = (raw, action)  # type: ignore[attr-defined]
    return call


def onnx_side(
    policy: Policy, function: PolicyFunction, observation: Any, folder: Path
) -> Side | None:
    """One action by onnxruntime; None where it is not installed."""
    if not (report.have("onnx") and report.have("onnxruntime")):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = policy.export(folder / "policy.onnx")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return partial(session.run, None, {function.leaves[0].name: observation[np.newaxis]})


def torch_side(policy: Policy, raw: Any, folder: Path) -> Side | None:
    """One action by PyTorch's exported program; None where it is not installed."""
    if not report.have("torch"):
        return None
    import torch

    torch.set_num_threads(1)
    program = torch.export.load(policy.export(folder / "policy.pt2")).module()
    given = torch.from_numpy(raw[np.newaxis])

    def call() -> None:
        with torch.no_grad():
            program(given)

    return call


def measure(env_id: str, rounds: int) -> dict[str, Any]:
    """The table of an environment."""
    report.quiet_simulator(env_id)
    agent = TRPO(env_id, seed=0, n_envs=1, n_workers=0)
    policy = agent.frozen_policy()
    observation = agent.acting.encoder.space.sample()
    agent.close()
    function = policy_function(policy.network, policy.encoder, policy.adapter)
    raw = np.ascontiguousarray(function.raw_numbers(observation[np.newaxis])[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        act = numpy_reader.load(policy.export(folder / "policy.npz"))
        offered: dict[str, Side | None] = {
            "predict": partial(policy.predict, observation, deterministic=True),
            "C header, gcc": c_side("gcc", policy, raw, folder),
            "C header, clang": c_side("clang", policy, raw, folder),
            "onnxruntime": onnx_side(policy, function, observation, folder),
            "PyTorch": torch_side(policy, raw, folder),
            "NumPy": partial(act, raw[np.newaxis]),
        }
        for side, call in offered.items():
            if call is None:
                print(f"{side}: left out, it is not installed")
        sides = {side: call for side, call in offered.items() if call is not None}
        timings = report.time_paired(sides, rounds=rounds)
    calls = {side: C_CALLS if side.startswith("C header") else 1 for side in timings}
    rows = []
    for side, timing in timings.items():
        middle, (low, high) = timing.median, timing.quartiles
        texts = [f"{1e6 * seconds / calls[side]:.3g}" for seconds in (middle, low, high)]
        rows.append([side, f"{texts[0]} ({texts[1]} to {texts[2]})"])
    report.print_table(["one action", "microseconds"], rows, title=env_id)
    return {
        "env": env_id,
        "calls": calls,
        "seconds": {side: timing.to_dict() for side, timing in timings.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="time one action of every exported form")
    parser.add_argument("--envs", type=report.comma_list, default=["HalfCheetah-v5", "CartPole-v1"])
    parser.add_argument("--rounds", type=int, default=15)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if flags.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {flags.rounds}")

    report.use_threads(1)
    facts = report.machine_facts(1)
    report.print_facts(facts)
    results = [measure(env_id, flags.rounds) for env_id in flags.envs]
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
