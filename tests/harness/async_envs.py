"""Threads here, forked environments there: train in an AsyncVectorEnv whose processes use the core.

    python tests/harness/async_envs.py fork before

The first argument is the start method (fork, spawn, forkserver), the second when PyTorch is imported
and starts threads of its own: before or after the core has started its own, or never. The number of
threads is OMP_NUM_THREADS. Prints ``done`` if every process has computed the same bits.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import gymnasium
import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "4"))


def product() -> bytes:
    """A Fisher-vector product large enough for every thread."""
    from trpo_fast import core, runtime

    runtime.set_num_threads(THREADS)
    policy = core.Policy(8, core.Distribution("gaussian", (3,)), hidden_sizes=(16,))
    observations = np.random.default_rng(0).standard_normal((4_000, 8), np.float32)
    return policy.fisher_vector_product(observations, np.ones(policy.n_parameters)).tobytes()


class Computing(gymnasium.Env[Any, Any]):
    """Every step uses the core; the reward is 1 where the bits are the expected ones."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, expected: bytes) -> None:
        self._expected = expected

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = float(product() == self._expected)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), right, True, False, {}


def use_torch() -> None:
    """Have PyTorch start its threads: a product, forward and backward."""
    import torch

    torch.set_num_threads(THREADS)
    weights = torch.ones(512, 512, requires_grad=True)
    (weights @ weights).sum().backward()


def main() -> int:
    method, torch_import = sys.argv[1:]
    from trpo_fast import TRPO

    if torch_import == "before":
        use_torch()
    expected = product()
    if torch_import == "after":
        use_torch()

    envs = gymnasium.vector.AsyncVectorEnv(
        [partial(Computing, expected)] * 3, context=method, shared_memory=True
    )
    agent = TRPO(envs, batch_size=24, n_threads=THREADS)
    returns: list[float] = []
    agent.learn(
        72,
        callback=lambda _, record: returns.append(record["rollout/episode_return"]),
        progress=False,
    )
    agent.close()
    if torch_import != "never":
        use_torch()  # and its threads are there as before
    if set(returns) != {1.0} or product() != expected:
        raise SystemExit(f"expected the same bits in every process, got returns of {returns}")
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
