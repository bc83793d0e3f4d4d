"""TRPO with a radius that the share of signal decides: its record, its files, its bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.config import ConfigError

SETTINGS: dict[str, Any] = {
    "n_workers": 0,
    "n_envs": 2,
    "batch_size": 256,
    "hidden_sizes": (8,),
    "signal_guard": 0.1,
    "signal_memory": 3,
}


def test_radius_is_what_the_record_says() -> None:
    agent = TRPO("CartPole-v1", max_kl=0.02, **SETTINGS)
    radii, shares = [], []

    def watch(agent: TRPO, record: dict[str, Any]) -> None:
        share = record["policy/signal_share"]
        assert record["policy/max_kl"] == pytest.approx(0.02 * max(1e-3, share / (share + 0.1)))
        assert record["policy/kl"] <= record["policy/max_kl"]
        radii.append(record["policy/max_kl"])
        shares.append(share)

    agent.learn(8 * 256, callback=watch, progress=False)
    assert len(set(shares)) == 4  # a measurement every other update
    assert 0.0 < min(radii) < max(radii) < 0.02
    agent.close()


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = TRPO("CartPole-v1", **SETTINGS)
    whole.learn(10 * 256, progress=False)
    part = TRPO("CartPole-v1", **SETTINGS)
    part.learn(5 * 256, progress=False)
    part.save(tmp_path / "part.safetensors")
    part.close()
    again = TRPO.load(tmp_path / "part.safetensors", n_workers=0)
    again.learn(5 * 256, progress=False)
    assert again.signal.state() == whole.signal.state()
    np.testing.assert_array_equal(again.policy.parameters, whole.policy.parameters)
    for agent in (whole, again):
        agent.close()


def test_off_by_default_and_then_without_memory() -> None:
    agent = TRPO("CartPole-v1", n_workers=0, batch_size=64)
    agent.learn(64, progress=False)
    assert "policy/signal_share" not in agent.last_record
    agent.close()
    with pytest.raises(ConfigError, match="signal_memory"):
        TRPO("CartPole-v1", signal_memory=5)
    with pytest.raises(ConfigError, match="signal_guard"):
        TRPO("CartPole-v1", signal_guard=-1.0)
