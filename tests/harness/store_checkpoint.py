"""Store a checkpoint of the current schema, for every later version to read.

    python tests/harness/store_checkpoint.py

To be run once, when SCHEMA_VERSION is raised; files of older schemas are never written again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from trpo_fast import TRPO
from trpo_fast.checkpoint import SCHEMA_VERSION

DATA = Path(__file__).resolve().parents[1] / "training" / "data"


def main() -> int:
    file = DATA / f"checkpoint_schema_{SCHEMA_VERSION}.safetensors"
    if file.exists():
        print(f"{file} exists: a stored file is never replaced")
        return 1
    small = (4,)
    agent = TRPO(
        "CartPole-v1", n_workers=0, n_envs=2, batch_size=64, hidden_sizes=small,
        value_hidden_sizes=small, policy_output_gain=1.0,
    )  # fmt: skip
    agent.learn(256, progress=False)
    agent.save(file)
    observations = np.linspace(-0.1, 0.1, 12, dtype=np.float32).reshape(3, 4)
    normalized = agent.policy.normalize(observations)
    expected = {
        "timesteps": agent.timesteps,
        "observations": observations.tolist(),
        "outputs": agent.policy.outputs(observations).tolist(),
        "values": agent.value_function.predict(normalized).tolist(),
    }
    file.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(f"{file}: {file.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
