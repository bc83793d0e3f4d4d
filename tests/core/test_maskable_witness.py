"""sb3-contrib's MaskablePPO as a second witness of masked distributions, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases import normals
from masked_reference import random_masks
from trpo_fast import core

torch = pytest.importorskip("torch")
maskable = pytest.importorskip("sb3_contrib.common.maskable.distributions")

N = 64


def theirs(kind: str, sizes: tuple[int, ...], logits: Any, masks: Any) -> Any:
    """Their distribution of N rows, from logits of every choice."""
    if kind == "categorical":
        made = maskable.MaskableCategoricalDistribution(sizes[0])
    elif kind == "multi_categorical":
        made = maskable.MaskableMultiCategoricalDistribution(list(sizes))
    else:
        made = maskable.MaskableBernoulliDistribution(sizes[0])
    made.proba_distribution(action_logits=logits)
    made.apply_masking(masks)
    return made


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("categorical", (6,)), ("multi_categorical", (3, 1, 4)), ("bernoulli", (5,))],
)
def test_masked_distributions_agree(kind: Any, sizes: tuple[int, ...]) -> None:
    distribution = core.Distribution(kind, sizes)
    P = distribution.n_outputs
    policy = core.Policy(P, distribution, hidden_sizes=(), dtype="float64")
    policy.parameters = np.concatenate([np.eye(P).ravel(), np.zeros(P)])  # outputs = observations
    outputs = 2.0 * normals(3, N, P)
    masks = random_masks(distribution.mask_sizes, N, seed=1)
    actions = policy.act(outputs, seed=2, action_masks=masks)

    bias = torch.zeros(P, dtype=torch.float64, requires_grad=True)
    logits = torch.from_numpy(outputs) + bias
    if kind == "bernoulli":  # theirs are two choices a bit
        logits = torch.stack([torch.zeros_like(logits), logits], dim=2).reshape(N, 2 * P)
    other = theirs(kind, sizes, logits, masks)
    given = torch.from_numpy(actions.astype(np.int64))
    log_prob = other.log_prob(given[:, 0] if kind == "categorical" else given)
    log_prob.sum().backward()

    np.testing.assert_allclose(
        policy.log_prob(outputs, actions, action_masks=masks), log_prob.detach().numpy(), atol=1e-9
    )
    np.testing.assert_allclose(
        policy.entropy(outputs, action_masks=masks), other.entropy().detach().numpy(), atol=1e-9
    )
    mode = policy.act(outputs, deterministic=True, action_masks=masks)
    np.testing.assert_array_equal(mode, other.mode().numpy().reshape(mode.shape))
    gradient = policy.surrogate_gradient(outputs, actions, np.full(N, N), action_masks=masks)
    np.testing.assert_allclose(gradient[-P:], bias.grad.numpy(), atol=1e-9)
