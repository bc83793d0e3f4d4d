"""What must not matter: threads, levels, files, interruptions, worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import core, runtime
from .numerics import NUMERICS
from .tools import HEADS, OBS_DIM, CheckFailed, normals, problem, same_bits

LEVEL_TIMEOUT = 120.0  # seconds


def check_threads() -> str:
    """The same bits for any number of threads."""
    numbers = (1, 2, 3, 8)
    with _threads_restored():
        states = []
        for n in numbers:
            runtime.set_num_threads(n)
            states.append(_trained_bits())
    differing = [n for n, state in zip(numbers, states, strict=True) if state != states[0]]
    if differing:
        raise CheckFailed(f"expected the bits of 1 thread, got others with {differing}")
    return f"same bits with {', '.join(map(str, numbers))} threads"


def _trained_bits() -> list[bytes]:
    """An update and a value fit of some size; every array that came out."""
    policy, observations, actions, weights = problem(
        HEADS[0], hidden=(64, 64), n=3001, dtype="float32"
    )
    policy.update(observations, actions, weights)
    value = core.ValueFunction(OBS_DIM, dtype="float32")
    value.fit(observations, weights, epochs=1, minibatch_size=1000)
    value.fit(observations, weights, method="lbfgs", iterations=2)
    arrays = (policy.parameters, policy.act(observations), value.predict(observations))
    return [array.tobytes() for array in arrays]


def check_level(level: str) -> str:
    """The numerics once more at another instruction-set level, in a process of its own.

    Parameters
    ----------
    level
        Name of an instruction-set level, see `trpo_fast.runtime.simd_level`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "trpo_fast.selfcheck"],
        env={**os.environ, "TRPO_FAST_SIMD_LEVEL": level},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LEVEL_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())[-500:]
        raise CheckFailed(f"expected exit code 0, got {done.returncode}: {said}")
    used = done.stdout.split()[0]
    if used != level:
        raise CheckFailed(f"expected level {level}, got {used}")
    return f"{len(NUMERICS)} checks passed"


def check_checkpoint() -> str:
    """Written and read bit for bit; one flipped bit is noticed."""
    from ..checkpoint import CheckpointError, load_checkpoint, save_checkpoint

    tensors: dict[str, NDArray[Any]] = {
        "float32": normals(1, 100).astype(np.float32),
        "float64": np.array([np.nan, np.inf, -0.0, 5e-324, 0.1]),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "bool": np.array([[True], [False]]),
        "empty": np.zeros((0, 3), np.float32),
    }
    with tempfile.TemporaryDirectory(prefix="trpo_fast_selfcheck_") as folder:
        path = save_checkpoint(Path(folder) / "c.safetensors", tensors, {"a": 0.1})
        loaded, metadata = load_checkpoint(path)
        same_bits("tensors", tensors, loaded)
        if metadata != {"a": 0.1}:
            raise CheckFailed(f"expected the metadata back, got {metadata}")
        data = bytearray(path.read_bytes())
        data[-7] ^= 1
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except CheckpointError:
            return f"{len(data)} bytes, bit for bit; a flipped bit is refused"
    raise CheckFailed("expected a refusal of a file with a flipped bit, got its content")


def check_training() -> str:
    """A short training on CartPole: the trust region holds, and it learns."""
    from ..algorithms.trpo import TRPO

    records: list[Mapping[str, Any]] = []

    def keep(agent: Any, record: Mapping[str, Any]) -> None:
        records.append(dict(record))

    with closing(TRPO("CartPole-v1", **_TRAINING, batch_size=1024)) as agent:
        agent.learn(16 * 1024, callback=keep, progress=False)
        finite = np.isfinite(agent.policy.parameters).all()
    for record in records:
        if not record["policy/kl"] <= record["policy/max_kl"]:
            raise CheckFailed(
                f"expected a KL of at most {record['policy/max_kl']}, got {record['policy/kl']} "
                f"in iteration {record['time/iteration']}"
            )
    if not finite:
        raise CheckFailed("expected finite parameters, got NaN or infinity")
    first, last = (records[i]["rollout/episode_return"] for i in (0, -1))
    if not last > first:
        raise CheckFailed(f"expected a better return than {first:.1f}, got {last:.1f}")
    accepted = sum(record["policy/status"] == "accepted" for record in records)
    return f"{accepted} of {len(records)} updates accepted, return {first:.0f} -> {last:.0f}"


def check_resume() -> str:
    """Saved, loaded and continued: the bits of a training that was never interrupted."""
    from ..algorithms.trpo import TRPO

    with tempfile.TemporaryDirectory(prefix="trpo_fast_selfcheck_") as folder:
        with closing(_trained(512)) as agent:
            path = agent.save(Path(folder) / "agent.safetensors")
            expected = agent.learn(512, progress=False).state_tensors()
        with closing(TRPO.load(path)) as agent:
            got = agent.learn(512, progress=False).state_tensors()
            same_bits("resumed training", expected, got)
    return f"{len(expected)} tensors, same bits as without interruption"


def check_workers() -> str:
    """The same bits with environments in worker processes."""
    with closing(_trained(1024)) as agent:
        expected = agent.state_tensors()
    with closing(_trained(1024, n_workers=2)) as agent:
        same_bits("training with 2 workers", expected, agent.state_tensors())
    return "same bits with 0 and 2 worker processes"


_TRAINING: dict[str, Any] = {"n_workers": 0, "n_envs": 4, "seed": 1, "hidden_sizes": (32, 32)}


def _trained(steps: int, **settings: Any) -> Any:
    from ..algorithms.trpo import TRPO

    agent = TRPO("CartPole-v1", **{**_TRAINING, "batch_size": 256, **settings})
    return agent.learn(steps, progress=False)


@contextmanager
def _threads_restored() -> Iterator[None]:
    before = runtime.get_num_threads()
    try:
        yield
    finally:
        runtime.set_num_threads(before)
