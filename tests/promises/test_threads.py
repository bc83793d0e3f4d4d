"""Same bits for any number of threads and memory budget; no hang after a fork; bounded memory."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trpo_fast import core, runtime

_HAS_MALLINFO = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallinfo2")
THREADS = (1, 2, 3, 4, 7, 16)  # more than there are cores, on purpose
N = 9_001  # tiles of 96 rows do not divide it, and chunks hold more than one tile


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = runtime.get_num_threads()
    yield
    runtime.set_num_threads(before)


def _problem(dtype: str) -> tuple[core.Policy, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    policy = core.Policy(17, core.Distribution("gaussian", (6,)), dtype=dtype, output_gain=0.5)
    observations = rng.normal(size=(N, 17)).astype(dtype)
    return policy, {
        "observations": observations,
        "actions": policy.act(observations, seed=3),
        "advantages": rng.normal(size=N).astype(dtype),
        "targets": rng.normal(size=N).astype(dtype),
    }


def _everything(dtype: str, **update: object) -> list[bytes]:
    policy, data = _problem(dtype)
    x, a = data["observations"], data["actions"]
    vector = np.random.default_rng(1).normal(size=policy.n_parameters)
    value = core.ValueFunction(17, dtype=dtype)
    results = [
        policy.outputs(x),
        policy.log_prob(x, a),
        policy.surrogate_gradient(x, a, data["advantages"]),
        policy.fisher_vector_product(x, vector),
        value.predict(x),
        value.loss_gradient(x, data["targets"]),
    ]
    summary = policy.update(x, a, data["advantages"], **update)  # type: ignore[arg-type]
    assert summary.accepted
    value.fit(x, data["targets"], epochs=1, minibatch_size=4_000)
    value.fit(x, data["targets"], method="lbfgs", iterations=3)
    results += [policy.parameters, value.parameters, np.array([summary.kl, summary.surrogate_gain])]
    return [np.ascontiguousarray(result).tobytes() for result in results]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(dtype: str) -> None:
    runtime.set_num_threads(1)
    expected = _everything(dtype)
    for n in THREADS[1:]:
        runtime.set_num_threads(n)
        assert _everything(dtype) == expected, f"{n} threads"


def test_same_bits_with_a_preconditioner() -> None:
    runtime.set_num_threads(1)
    expected = _everything("float32", cg_preconditioner="kronecker")
    assert _everything("float32", cg_preconditioner="kronecker", activation_budget=0) == expected
    for n in THREADS[1:]:
        runtime.set_num_threads(n)
        assert _everything("float32", cg_preconditioner="kronecker") == expected, f"{n} threads"


def _threads_alive() -> int:
    return len(os.listdir("/proc/self/task"))


_counts_threads = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "clang" in runtime.info()["compiler"].lower(),
    reason="counts threads in /proc, and LLVM's idle threads sleep instead of ending",
)


@_counts_threads
def test_threads_that_rest_are_gone_and_come_back() -> None:
    runtime.set_num_threads(1)
    expected = _everything("float32")
    runtime.rest_threads()
    alone = _threads_alive()
    runtime.set_num_threads(3)
    for _ in range(3):
        assert _everything("float32") == expected
        assert _threads_alive() > alone
        runtime.rest_threads()
        # a thread that has been joined may be listed a moment longer
        deadline = time.monotonic() + 10.0
        while _threads_alive() > alone and time.monotonic() < deadline:
            time.sleep(0.001)
        assert _threads_alive() == alone


@_counts_threads
@pytest.mark.parametrize(("minibatch", "woken"), [(64, 0), (4_000, 2), (None, 2)])
def test_a_fit_by_small_minibatches_wakes_nobody(minibatch: int | None, woken: int) -> None:
    """An idle thread spins for milliseconds, beside the rollout that the fit overlaps."""
    runtime.set_num_threads(3)
    _, data = _problem("float32")
    value = core.ValueFunction(17)

    def fit() -> int:
        before = _threads_alive()
        value.fit(data["observations"], data["targets"], epochs=1, minibatch_size=minibatch)
        return _threads_alive() - before

    with ThreadPoolExecutor(1) as fresh:  # without a pool of the core's threads yet
        assert fresh.submit(fit).result() == woken


@pytest.mark.parametrize("budget", [0, 200_000, 1_000_000])
def test_same_bits_when_activations_are_recomputed(budget: int) -> None:
    runtime.set_num_threads(2)
    assert _everything("float32", activation_budget=budget) == _everything("float32")


def test_subsample_is_a_function_of_the_seed() -> None:
    first = _everything("float32", fisher_fraction=0.1, seed=1)
    runtime.set_num_threads(3)
    assert _everything("float32", fisher_fraction=0.1, seed=1) == first
    assert _everything("float32", fisher_fraction=0.1, seed=2) != first


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WORK = """
import numpy as np
from trpo_fast import core, runtime
runtime.set_num_threads(2)
policy = core.Policy(17, core.Distribution("gaussian", (6,)))
x = np.random.default_rng(0).normal(size=(20_000, 17)).astype("f")
v = np.ones(policy.n_parameters)
def product():
    return policy.fisher_vector_product(x, v).tobytes()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_works_after_the_parent_used_threads() -> None:
    output = _run(
        WORK
        + textwrap.dedent(
            """
            import os, warnings
            warnings.simplefilter("ignore")
            expected = product()
            pid = os.fork()
            if pid == 0:
                os._exit(0 if product() == expected else 1)
            print(os.waitpid(pid, 0)[1])
            """
        )
    )
    assert output == "0"


def test_thread_count_respects_the_environment() -> None:
    code = "from trpo_fast import runtime; print(runtime.get_num_threads())"
    assert _run(code, OMP_NUM_THREADS="1") == "1"
    assert int(_run(code, OMP_NUM_THREADS="64")) <= len(os.sched_getaffinity(0))


@pytest.mark.skipif(not _HAS_MALLINFO, reason="needs glibc 2.33 to count allocated bytes")
def test_an_update_allocates_nothing_once_its_size_was_seen() -> None:
    output = _run(
        """
        import ctypes, gc
        import numpy as np
        from trpo_fast import core, runtime
        runtime.set_num_threads(1)
        policy = core.Policy(17, core.Distribution("gaussian", (6,)))
        rng = np.random.default_rng(0)
        x = rng.normal(size=(30_000, 17)).astype("f")
        actions = policy.act(x)
        advantages = rng.normal(size=30_000).astype("f")
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        class Info(ctypes.Structure):
            _fields_ = [(n, ctypes.c_size_t) for n in names.split()]
        mallinfo.restype = Info
        def in_use():
            gc.collect()
            info = mallinfo()
            return info.uordblks + info.hblkhd
        def update():
            for name in core.PRECONDITIONERS:
                policy.update(x, actions, advantages, cg_preconditioner=name)
        update()
        before = in_use()
        for _ in range(5):
            update()
        print(in_use() - before)
        """
    )
    assert abs(int(output)) < 20_000  # summaries and strings, no buffers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_large_update_stays_within_the_budget() -> None:
    output = _run(
        """
        import resource
        import numpy as np
        from trpo_fast import core
        n = 200_000
        policy = core.Policy(17, core.Distribution("gaussian", (6,)))
        rng = np.random.default_rng(0)
        x = rng.normal(size=(n, 17)).astype("f")
        actions = policy.act(x)
        advantages = rng.normal(size=n).astype("f")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        policy.update(x, actions, advantages, activation_budget=0, cg_iterations=2)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / n)
        """
    )
    # outputs (16 floats), log-probabilities and weights (a double each), and small change
    assert float(output) < 150.0, "bytes a sample above the batch"


_FEW_THREADS = """
import os, resource, sys
import numpy as np
from trpo_fast import TRPO, core, runtime

def bits(agent):
    return agent.policy.parameters.tobytes() + agent.value_function.parameters.tobytes()

settings = dict(n_workers=0, n_envs=2, batch_size=2048, hidden_sizes=(64, 64), seed=5)
free = TRPO("CartPole-v1", **settings, n_threads=1).learn(4096, progress=False)
if os.geteuid() == 0:  # root has no such limit
    os.setgid(65534), os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
said = []
agent = TRPO("CartPole-v1", **settings, n_threads=8)
agent.learn(4096, progress=False, callback=lambda _, record: said.append(record.get("run/notice")))
assert bits(agent) == bits(free)
assert "the core computes on 1 of 8 threads" in said[0], said
assert said[1] is None, said
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes as Linux has")
def test_fewer_threads_where_the_system_refuses_more_and_a_notice() -> None:
    # OpenMP itself ends the process; and a value fit cannot have its thread either.
    answer = subprocess.run(
        [sys.executable, "-c", _FEW_THREADS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
