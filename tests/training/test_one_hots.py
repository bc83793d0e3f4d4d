"""Training on wide one-hots: the same bits for any number of workers, and after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trpo_fast import TRPO, core

SETTINGS: dict[str, Any] = {
    "n_envs": 3,
    "batch_size": 300,
    "hidden_sizes": (16,),
    "value_hidden_sizes": (16,),
    "seed": 4,
}
ID = "FrozenLake8x8-v1"  # Discrete(64)


def _agent(**settings: Any) -> TRPO:
    return TRPO(ID, **{**SETTINGS, "n_workers": 0, **settings})


def _numbers(agent: TRPO) -> list[np.ndarray]:
    return [agent.policy.parameters, agent.value_function.parameters]


def test_workers_and_a_resume_change_no_bit(tmp_path: Path) -> None:
    alone = _agent()
    alone.learn(600)
    alone.save(tmp_path / "half.safetensors")
    rows = alone.policy.normalize(alone.collect().transitions().observations)
    assert core.sums_columns(rows)

    whole, workers = _agent(), _agent(n_workers=2)
    resumed = TRPO.load(tmp_path / "half.safetensors")
    for agent, steps in ((whole, 1200), (workers, 1200), (resumed, 600)):
        agent.learn(steps)
    for other in (workers, resumed):
        for expected, got in zip(_numbers(whole), _numbers(other), strict=True):
            np.testing.assert_array_equal(got, expected)
    for agent in (alone, whole, workers, resumed):
        agent.close()
