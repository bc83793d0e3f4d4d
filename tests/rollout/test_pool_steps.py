"""EnvPool, by what it looks like; see test_envpool.py for the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trpo_fast.envs.envpool import step_of


def fake_pool(**changes: Any) -> Any:
    """Two environments of CartPole in the parts of an EnvPool that `step_of` uses."""
    spec = SimpleNamespace(
        _action_keys=["env_id", "players.env_id", "action"],
        _action_spec=[(np.int32, [], None), (np.int32, [], None), (np.int32, [-1], None)],
    )
    parts: dict[str, Any] = {
        "_state_keys": ["info:env_id", "done", "reward", "trunc", "obs"],
        "_spec": spec,
        "config": {"max_num_players": 1},
        "is_async": False,
        "all_env_ids": np.arange(2, dtype=np.int32),
        "_recv": lambda: [
            np.arange(2), np.array([True, True]), np.ones(2), np.array([True, False]),
            np.zeros((2, 4)),
        ],
        "step": lambda actions: "step",
    }  # fmt: skip
    pool = SimpleNamespace(**(parts | changes), sent=[])
    pool._send = pool.sent.append
    return pool


def test_a_pool_is_stepped_by_its_arrays() -> None:
    pool = fake_pool()
    observations, rewards, terminated, truncated, info = step_of(pool)(np.array([1, 0], np.int64))
    assert observations.shape == (2, 4)
    assert rewards.tolist() == [1.0, 1.0]
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [True, False])
    assert info == {}
    ((envs, players, actions),) = pool.sent
    assert envs.tolist() == players.tolist() == [0, 1]
    assert (actions.dtype, actions.tolist()) == (np.int32, [1, 0])


@pytest.mark.parametrize(
    "changes",
    [
        {"_state_keys": ["done", "reward", "trunc", "obs:position", "obs:speed"]},
        {"_state_keys": None},
        {"_spec": None},
        {"_spec": SimpleNamespace(_action_keys=["env_id", "action"], _action_spec=[])},
        {"config": {"max_num_players": 2}},
        {"is_async": True},
        {"all_env_ids": None, "is_async": True},
    ],
)
def test_a_pool_of_another_kind_is_stepped_by_its_own_step(changes: dict[str, Any]) -> None:
    pool = fake_pool(**changes)
    assert step_of(pool) is pool.step
    del pool._state_keys
    assert step_of(pool) is pool.step
