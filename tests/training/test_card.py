"""A model card tells what the policy is, and the folder beside it holds what the card names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from trpo_fast import TRPO, Policy


def test_a_folder_for_a_hub(tmp_path: Path) -> None:
    agent = TRPO("Pendulum-v1", seed=3, n_workers=0, batch_size=256, n_envs=4, hidden_sizes=(8,))
    agent.learn(256)
    result = agent.evaluate(episodes=2, seed=0)
    folder = agent.save_folder(tmp_path / "deep" / "model", result, forms=("c", "numpy"))
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "policy.npz", "policy.safetensors", "results.json",
        "trpo_policy.h",
    ]  # fmt: skip

    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["library_name"] == "trpo_fast"
    assert "Pendulum-v1" in told["tags"]
    (metric,) = told["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == f"{result.mean_return:.2f} +/- {result.std_return:.2f}"
    for words in ("3 → 8 → 1", "256", "`trpo_policy.h`", "over 2 whole episodes", "max_kl: null"):
        assert words in body

    policy = Policy.load(folder / "policy.safetensors")
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        policy.predict(rows, deterministic=True)[0], agent.predict(rows, deterministic=True)[0]
    )
    assert json.loads((folder / "results.json").read_text())["returns"] == result.returns.tolist()
    assert "It was not evaluated" in agent.card()
    with pytest.raises(ValueError, match=r"forms: expected some of onnx.*, got 'tflite'"):
        agent.save_folder(tmp_path, forms=("tflite",))  # type: ignore[arg-type]
    agent.close()
