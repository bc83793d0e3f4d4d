"""Does the installed package compute what it should, on this machine?

>>> results = [run_check(check) for check in checks()]

Every check holds the compiled core against something slower that shares no code with it: finite
differences, a dense matrix, known numbers, or itself under other circumstances that must not
matter. ``trpo-fast selfcheck`` prints the outcome.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import core, runtime

Array = NDArray[np.float64]

GRADIENT_TOLERANCE = 1e-6  # central differences in float64, relative to the largest entry
FISHER_TOLERANCE = 1e-6
SINGLE_TOLERANCE = 1e-4  # float32 against float64
LEVEL_TIMEOUT = 120.0  # seconds

# Philox4x32-10 of seed 1, environment 2, step 3, as the slow NumPy reference gives it
KNOWN_UNIFORMS = (0.5499156871336808, 0.6693505605436644)
KNOWN_NORMALS = (-0.6132487587992617, -1.104792588460163)

N, OBS_DIM, HIDDEN = 11, 3, (5, 4)

HEADS = (
    core.Distribution("gaussian", (2,)),
    core.Distribution("state_dependent_gaussian", (2,)),
    core.Distribution("categorical", (3,)),
    core.Distribution("multi_categorical", (2, 3)),
    core.Distribution("bernoulli", (3,)),
)


class CheckFailed(Exception):
    """A promise that does not hold here; the message is one sentence with the numbers."""


@dataclass(frozen=True)
class Check:
    """A name and a function that returns a sentence, or raises."""

    name: str
    function: Callable[[], str]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How a check went; ``trace`` is empty unless something unexpected was raised."""

    name: str
    passed: bool
    message: str
    seconds: float
    trace: str = ""


def checks() -> list[Check]:
    """All checks for this machine, the quickest first."""
    levels = [
        Check(f"level {level}", partial(check_level, level))
        for level in runtime.available_simd_levels()
    ]
    return [
        *NUMERICS,
        Check("threads", check_threads),
        *levels,
        Check("checkpoint", check_checkpoint),
        Check("training", check_training),
        Check("resume", check_resume),
        Check("workers", check_workers),
    ]


def run_check(check: Check) -> CheckResult:
    """Run one check; whatever it raises becomes its result."""
    started = time.perf_counter()
    passed, trace = False, ""
    try:
        message, passed = check.function(), True
    except CheckFailed as failure:
        message = str(failure)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    seconds = time.perf_counter() - started
    return CheckResult(
        name=check.name, passed=passed, message=message, seconds=seconds, trace=trace
    )


# ---- the core against slower ways


def check_random_streams() -> str:
    """The first numbers of a stream, known from elsewhere."""
    uniforms = core.random_uniforms(1, 2, 3, 2)
    normals = core.random_normals(1, 2, 3, 2)
    _compare("uniforms", uniforms, np.array(KNOWN_UNIFORMS), 0.0)
    worst = _compare("normals", normals, np.array(KNOWN_NORMALS), 1e-14)
    return f"known numbers, error {worst:.0e}"


def check_gradients() -> str:
    """Surrogate and value loss: analytic gradients against central differences, float64."""
    worst = 0.0
    for head in HEADS:
        policy, observations, actions, weights = _problem(head)
        worst = max(worst, _surrogate_error(policy, observations, actions, weights))
    for activation in core.ACTIVATIONS:
        policy, observations, actions, weights = _problem(HEADS[0], activation=activation)
        worst = max(worst, _surrogate_error(policy, observations, actions, weights))
        worst = max(worst, _value_error(activation))
    return f"against finite differences: relative error {worst:.1e}"


def _surrogate_error(
    policy: core.Policy, observations: Array, actions: NDArray[Any], weights: Array
) -> float:
    old = policy.parameters
    policy.parameters = old + 0.1 * _normals(5, len(old))  # the ratio is not 1

    def surrogate(parameters: Array) -> float:
        policy.parameters = parameters
        return policy.surrogate(observations, actions, weights, old_parameters=old)

    gradient = policy.surrogate_gradient(observations, actions, weights, old_parameters=old)
    numerical = _differences(surrogate, np.asarray(policy.parameters, np.float64))
    what = f"surrogate gradient of {policy.distribution.kind}, {policy.activation}"
    return _compare(what, gradient, numerical, GRADIENT_TOLERANCE)


def _value_error(activation: str) -> float:
    value = core.ValueFunction(
        OBS_DIM, hidden_sizes=HIDDEN, activation=activation, dtype="float64", seed=1
    )
    observations, targets = _normals(2, N, OBS_DIM), _normals(3, N)
    # biases of zero would stand exactly on relu's kink
    value.parameters = value.parameters + 0.1 * _normals(5, value.n_parameters)

    def loss(parameters: Array) -> float:
        value.parameters = parameters
        return value.loss(observations, targets)

    gradient = value.loss_gradient(observations, targets)
    numerical = _differences(loss, np.asarray(value.parameters, np.float64))
    return _compare(f"value gradient, {activation}", gradient, numerical, GRADIENT_TOLERANCE)


def check_fisher() -> str:
    """F e_i for every i, against mean_n J_n^T M_n J_n with a numerical J_n; and (F + I) x = g."""
    worst = 0.0
    for head in HEADS:
        policy, observations, _, _ = _problem(head)
        dense = _dense_fisher(policy, observations)
        operator = policy.fisher_operator(observations)
        columns = np.stack([operator(e) for e in np.eye(len(dense))])
        worst = max(worst, _compare(f"Fisher of {head.kind}", columns, dense, FISHER_TOLERANCE))

        damped = policy.fisher_operator(observations, damping=1.0)
        b = _normals(4, len(dense))
        x = core.conjugate_gradient(damped, b, max_iterations=200, tolerance=1e-12).x
        solution = np.linalg.solve(dense + np.eye(len(dense)), b)
        _compare(f"conjugate gradient of {head.kind}", x, solution, FISHER_TOLERANCE)
    return f"against dense matrices: relative error {worst:.1e}"


def _dense_fisher(policy: core.Policy, observations: Array) -> Array:
    theta = np.asarray(policy.parameters, np.float64)
    outputs = np.asarray(policy.outputs(observations), np.float64)  # (N, P)

    def moved(parameters: Array) -> Array:
        policy.parameters = parameters
        return np.asarray(policy.outputs(observations), np.float64)

    J = _differences(moved, theta)  # (D, N, P)
    policy.parameters = theta
    M = np.stack([_metric(policy, row) for row in outputs])  # (N, P, P)
    F: Array = np.einsum("inp,npq,jnq->ij", J, M, J) / len(outputs)
    if policy.distribution.n_free_parameters:
        where, _ = policy.parameter_layout["log_std"]
        F[where, where] = 2.0 * np.eye(where.stop - where.start)
    return F


def _metric(policy: core.Policy, outputs: Array) -> Array:
    """Fisher information in the outputs: of means 1/s^2, of log s 2, of logits their covariance."""
    head, A = policy.distribution, policy.distribution.sizes[0]
    if head.kind == "gaussian":
        where, _ = policy.parameter_layout["log_std"]
        return np.diag(np.exp(-2.0 * np.asarray(policy.parameters[where], np.float64)))
    if head.kind == "state_dependent_gaussian":
        return np.diag(np.concatenate([np.exp(-2.0 * outputs[A:]), np.full(A, 2.0)]))
    if head.kind == "bernoulli":
        p = 1.0 / (1.0 + np.exp(-outputs))
        return np.diag(p * (1.0 - p))
    M = np.zeros((len(outputs), len(outputs)))
    at = 0
    for size in head.sizes:
        group = slice(at, at + size)
        p = np.exp(outputs[group]) / np.exp(outputs[group]).sum()
        M[group, group] = np.diag(p) - np.outer(p, p)
        at += size
    return M


def check_single_precision() -> str:
    """What float32 networks give, against float64 at the same parameters."""
    worst = 0.0
    for head in HEADS:
        double, observations, actions, weights = _problem(head, hidden=(64, 33), n=500)
        single, *_ = _problem(head, hidden=(64, 33), n=500, dtype="float32")
        double.parameters = single.parameters
        observations = observations.astype(np.float32)
        actions = actions.astype(single.action_dtype)
        batch = (observations, actions, weights)
        for what, arguments in (("outputs", 1), ("log_prob", 2), ("surrogate_gradient", 3)):
            got, expected = (
                getattr(policy, what)(*batch[:arguments]) for policy in (single, double)
            )
            name = f"float32 {what} of {head.kind}"
            worst = max(worst, _compare(name, got, expected, SINGLE_TOLERANCE))
    return f"against float64: relative error {worst:.1e}"


def check_trust_region() -> str:
    """Updates that are accepted keep the mean KL within the bound; the others change nothing."""
    worst = 0.0
    for head in HEADS:
        for dtype in ("float64", "float32"):
            policy, observations, actions, weights = _problem(head, n=500, dtype=dtype)
            for seed in range(3):
                before = policy.parameters
                summary = policy.update(observations, actions, weights, max_kl=0.01, seed=seed)
                kl = float(policy.kl(observations, before).mean())
                if summary.accepted:
                    worst = max(worst, kl)
                    # the float32 outputs are read again here: another rounding of the same KL
                    if not kl <= 0.01 * (1.0 + 1e-3):
                        raise CheckFailed(f"expected a KL of at most 0.01, got {kl} ({head.kind})")
                elif not np.array_equal(before, policy.parameters):
                    raise CheckFailed(f"expected parameters unchanged after {summary.message}")
    return f"largest KL {worst:.5f} of 0.01 allowed"


NUMERICS = (
    Check("random streams", check_random_streams),
    Check("gradients", check_gradients),
    Check("Fisher", check_fisher),
    Check("single precision", check_single_precision),
    Check("trust region", check_trust_region),
)


# ---- what must not matter


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
    policy, observations, actions, weights = _problem(
        HEADS[0], hidden=(64, 64), n=3001, dtype="float32"
    )
    policy.update(observations, actions, weights)
    value = core.ValueFunction(OBS_DIM, dtype="float32")
    value.fit(observations, weights, epochs=1, minibatch_size=1000)
    value.fit(observations, weights, method="lbfgs", iterations=2)
    arrays = (policy.parameters, policy.act(observations), value.predict(observations))
    return [array.tobytes() for array in arrays]


def check_level(level: str) -> str:
    """The numerics once more at another instruction-set level, in a process of its own."""
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


# ---- files and training


def check_checkpoint() -> str:
    """Written and read bit for bit; one flipped bit is noticed."""
    from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint

    tensors: dict[str, NDArray[Any]] = {
        "float32": _normals(1, 100).astype(np.float32),
        "float64": np.array([np.nan, np.inf, -0.0, 5e-324, 0.1]),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "bool": np.array([[True], [False]]),
        "empty": np.zeros((0, 3), np.float32),
    }
    with tempfile.TemporaryDirectory(prefix="trpo_fast_selfcheck_") as folder:
        path = save_checkpoint(Path(folder) / "c.safetensors", tensors, {"a": 0.1})
        loaded, metadata = load_checkpoint(path)
        _same_bits("tensors", tensors, loaded)
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
    from .training.agent import TRPO

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
    from .training.agent import TRPO

    with tempfile.TemporaryDirectory(prefix="trpo_fast_selfcheck_") as folder:
        with closing(_trained(512)) as agent:
            path = agent.save(Path(folder) / "agent.safetensors")
            expected = agent.learn(512, progress=False).state_tensors()
        with closing(TRPO.load(path)) as agent:
            got = agent.learn(512, progress=False).state_tensors()
            _same_bits("resumed training", expected, got)
    return f"{len(expected)} tensors, same bits as without interruption"


def check_workers() -> str:
    """The same bits with environments in worker processes."""
    with closing(_trained(1024)) as agent:
        expected = agent.state_tensors()
    with closing(_trained(1024, n_workers=2)) as agent:
        _same_bits("training with 2 workers", expected, agent.state_tensors())
    return "same bits with 0 and 2 worker processes"


_TRAINING: dict[str, Any] = {"n_workers": 0, "n_envs": 4, "seed": 1, "hidden_sizes": (32, 32)}


def _trained(steps: int, **settings: Any) -> Any:
    from .training.agent import TRPO

    agent = TRPO("CartPole-v1", **{**_TRAINING, "batch_size": 256, **settings})
    return agent.learn(steps, progress=False)


# ---- tools


def _problem(
    head: core.Distribution,
    *,
    activation: str = "tanh",
    hidden: tuple[int, ...] = HIDDEN,
    n: int = N,
    dtype: str = "float64",
) -> tuple[core.Policy, Array, NDArray[Any], Array]:
    """A policy with outputs of size 1, observations, actions drawn from it, and weights."""
    policy = core.Policy(
        OBS_DIM, head, hidden_sizes=hidden, activation=activation, dtype=dtype, output_gain=1.0
    )
    observations = _normals(1, n, OBS_DIM).astype(policy.dtype)
    return policy, observations, policy.act(observations, seed=2), _normals(3, n)


def _normals(seed: int, *shape: int) -> Array:
    return core.random_normals(seed, 0, 0, int(np.prod(shape))).reshape(shape)


def _differences(function: Callable[[Array], Any], theta: Array, h: float = 1e-5) -> Array:
    """d function / d theta_i, stacked over i, by central differences; ``theta`` is called last."""
    rows = []
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = h
        rows.append((np.asarray(function(theta + step)) - function(theta - step)) / (2.0 * h))
    function(theta)
    return np.array(rows)


def _compare(what: str, actual: Any, expected: Any, tolerance: float) -> float:
    """Largest error, relative to the largest expected entry."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        raise CheckFailed(f"{what}: expected shape {expected.shape}, got {actual.shape}")
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if not error <= tolerance:
        raise CheckFailed(f"{what}: expected a relative error of at most {tolerance}, got {error}")
    return error


def _same_bits(
    what: str, expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]
) -> None:
    differing = [
        name
        for name in sorted(expected.keys() | got.keys())
        if name not in expected
        or name not in got
        or expected[name].dtype != got[name].dtype
        or expected[name].shape != got[name].shape
        or expected[name].tobytes() != got[name].tobytes()
    ]
    if differing:
        raise CheckFailed(f"{what}: expected the same bits, got others in {', '.join(differing)}")


@contextmanager
def _threads_restored() -> Iterator[None]:
    before = runtime.get_num_threads()
    try:
        yield
    finally:
        runtime.set_num_threads(before)


def _main() -> int:
    """The numerics at the level of this process: what `check_level` starts."""
    results = [run_check(check) for check in NUMERICS]
    failures = [f"{r.name}: {r.message} {r.trace}" for r in results if not r.passed]
    print(runtime.simd_level(), *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_main())
