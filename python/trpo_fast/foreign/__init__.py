"""Policies of other libraries, read without running anything that their files hold.

>>> agent = trpo_fast.TRPO.from_sb3("model.zip", "HalfCheetah-v5", vec_normalize="vecnormalize.pkl")
>>> agent = trpo_fast.TRPO.from_state_dict("actor.pth", env, policy="actor.", value="critic.")

Neither PyTorch nor the other library is needed: a zip of tensors is read with NumPy, and what is
pickled becomes inert records (:mod:`trpo_fast.foreign.records`).
"""

from __future__ import annotations

from .networks import ForeignNetworks, networks_of
from .records import ForeignFileError
from .sb3 import read_sb3
from .torch_file import read_torch_file, state_dict_of

__all__ = [
    "ForeignFileError",
    "ForeignNetworks",
    "networks_of",
    "read_sb3",
    "read_torch_file",
    "state_dict_of",
]
