"""Boxing, observed by the 128 bytes of the console: harness.atari_ram:BoxingRam-v0."""

from __future__ import annotations

import gymnasium

gymnasium.register(
    "BoxingRam-v0",
    entry_point="ale_py.env:AtariEnv",
    kwargs={"game": "boxing", "obs_type": "ram", "frameskip": 4},
)
