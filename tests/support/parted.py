"""Batches for updates in parts, and a comparison with one piece."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from trpo_fast import core
from trpo_fast.core.parts import LocalParts, PolicyPart, update_parts

HEADS = {
    "gaussian": core.Distribution("gaussian", [3]),
    "state_std": core.Distribution("state_dependent_gaussian", [2]),
    "categorical": core.Distribution("categorical", [4]),
    "several": core.Distribution("multi_categorical", [3, 2]),
    "bernoulli": core.Distribution("bernoulli", [3]),
}
N = 6100  # 64 tiles


def make_policy(head: str = "gaussian", dtype: str = "float32") -> core.Policy:
    return core.Policy(5, HEADS[head], hidden_sizes=(16, 12), dtype=dtype, output_gain=1.0, seed=2)


def make_batch(policy: core.Policy, n: int = N, *, masked: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, policy.obs_dim)).astype(policy.dtype)
    masks = None
    if masked:
        masks = rng.random((n, policy.distribution.mask_width)) < 0.7
        masks[:, [0, -1]] = True
    actions = policy.act(x, seed=1, action_masks=masks)
    return {
        "observations": x,
        "actions": actions,
        "advantages": rng.normal(size=n).astype(policy.dtype),
        "action_masks": masks,
    }


def cut(policy: core.Policy, batch: dict[str, Any], bounds: list[int]) -> LocalParts:
    twin = make_policy_like(policy)
    return LocalParts(
        [
            PolicyPart(
                twin,
                **{k: None if v is None else v[begin:end] for k, v in batch.items()},
                whole_size=bounds[-1],
                first_row=begin,
            )
            for begin, end in itertools.pairwise(bounds)
        ]
    )


def make_policy_like(policy: core.Policy) -> core.Policy:
    """Of other parameters, which the parts must not use."""
    return core.Policy(
        policy.obs_dim,
        policy.distribution,
        hidden_sizes=policy.hidden_sizes,
        dtype=policy.dtype.name,
        seed=9,
    )


def assert_same_update(
    batch: dict[str, Any], bounds: list[int], policies: list[core.Policy], **settings: Any
) -> core.UpdateSummary:
    whole, parted = policies
    expected = whole.update(**batch, normalized=True, **settings)
    parts = cut(parted, batch, bounds)
    found = update_parts(parted, parts, **settings)
    assert parted.parameters.tobytes() == whole.parameters.tobytes()
    for name, value in vars(expected).items():
        if not name.startswith("seconds"):
            assert getattr(found, name) == value or value != value, name
    return found
