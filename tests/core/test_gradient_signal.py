"""The share of signal in a gradient, against its definition and against noise that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trpo_fast import core
from trpo_fast.training.batch import Batch
from trpo_fast.training.signal import SMALLEST, SignalGuard, measured_signal

OPTIONS: dict[str, Any] = {"cg_iterations": 8, "cg_damping": 0.1, "cg_preconditioner": "kronecker"}


def samples(
    n: int, signal: float, *, seed: int = 0, kind: str = "gaussian"
) -> tuple[core.Policy, Any, Any, Any]:
    """A policy's own actions; advantages of a linear part of strength `signal`, and noise of 1."""
    shape = (3,) if kind == "multi_categorical" else (2,)
    counts = {"multi_categorical": (2, 3, 2), "gaussian": (2,)}[kind]
    distribution = core.Distribution(kind, counts)
    policy = core.Policy(5, distribution, hidden_sizes=(8,), dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(n, 5))
    steps = np.arange(n, dtype=np.uint64)
    actions = policy.act(observations, seed=seed, steps=steps)
    assert actions.shape == (n, *shape)
    advantages = signal * actions[:, 0] * observations[:, 0] + rng.normal(size=n)
    return policy, observations, actions, advantages


@pytest.mark.parametrize("kind", ["gaussian", "multi_categorical"])
@pytest.mark.parametrize(("n", "split"), [(400, None), (401, None), (400, 130)])
def test_definition(kind: str, n: int, split: int | None) -> None:
    policy, observations, actions, advantages = samples(n, 0.5, kind=kind)
    options = {**OPTIONS, "cg_preconditioner": "none", "cg_iterations": 300}
    found = policy.gradient_signal(observations, actions, advantages, split=split, **options)
    assert found is not None
    gradients, directions = [], []
    for rows in (slice(0, split or n // 2), slice(split or n // 2, n)):
        weights = (advantages[rows] - advantages[rows].mean()) / advantages[rows].std()
        g = policy.surrogate_gradient(observations[rows], actions[rows], weights)
        F = policy.fisher_operator(observations[rows], damping=0.1)
        matrix = np.stack([F(e) for e in np.eye(policy.n_parameters)])
        gradients.append(g)
        directions.append(np.linalg.solve(matrix, g))
    (g1, g2), (x1, x2) = gradients, directions
    assert found.validated_gain == pytest.approx(0.5 * (x1 @ g2 + x2 @ g1), rel=1e-6)
    assert found.apparent_gain == pytest.approx(0.25 * (x1 + x2) @ (g1 + g2), rel=1e-6)


def test_noise_and_signal_are_told_apart() -> None:
    def measured(signal: float) -> np.ndarray[Any, Any]:
        found = []
        for seed in range(60):
            policy, *rows = samples(600, signal, seed=seed)
            one = policy.gradient_signal(*rows, **OPTIONS)
            assert one is not None
            found.append((one.validated_gain, one.apparent_gain))
        return np.array(found).T

    # without signal the validated gain is 0 but for chance, while the apparent one never is
    validated, apparent = measured(0.0)
    assert abs(validated.mean()) < 2.5 * validated.std() / np.sqrt(60)
    assert apparent.min() > 0.0
    validated, apparent = measured(0.6)
    assert 0.7 < validated.mean() / apparent.mean() < 0.9
    validated, apparent = measured(8.0)
    assert validated.mean() / apparent.mean() > 0.93


def test_nothing_to_measure() -> None:
    policy, observations, actions, advantages = samples(40, 1.0)
    assert policy.gradient_signal(observations, actions, np.ones(40)) is None
    one = policy.gradient_signal(observations[:1], actions[:1], advantages[:1])
    assert one is None
    with pytest.raises(ValueError, match="split: expected"):
        policy.gradient_signal(observations, actions, advantages, split=40)
    with pytest.raises(ValueError, match="advantages: expected shape"):
        policy.gradient_signal(observations, actions, advantages[1:])


def test_measuring_changes_nothing() -> None:
    policy, *rows = samples(300, 0.5)
    other, *_ = samples(300, 0.5)
    policy.gradient_signal(*rows, **OPTIONS)
    assert policy.parameters.tobytes() == other.parameters.tobytes()
    policy.update(*rows, **OPTIONS)
    other.update(*rows, **OPTIONS)
    assert policy.parameters.tobytes() == other.parameters.tobytes()


def test_halves_are_those_of_environments() -> None:
    policy, observations, actions, advantages = samples(300, 0.5)
    options = core.TrustRegionOptions(**OPTIONS)
    nothing = np.zeros(300)
    for n_envs, half in ((5, 2), (2, 1), (1, None), (7, None)):
        batch = Batch(observations, actions, advantages, nothing, nothing)
        found = measured_signal(policy, batch, n_envs, options)
        rows = np.arange(300)
        first = rows % n_envs < half if half else rows < 150
        order = np.r_[rows[first], rows[~first]]
        expected = policy.gradient_signal(
            observations[order], actions[order], advantages[order], options, split=first.sum()
        )
        assert found == expected


def test_guard_by_hand() -> None:
    guard = SignalGuard()
    assert guard.share == 1.0
    guard.absorb(core.GradientSignal(0.2, 1.0), 2)
    assert guard.share == pytest.approx(0.2)
    guard.absorb(core.GradientSignal(0.0, 3.0), 2)
    assert guard.share == pytest.approx(0.1 / 2.0)
    guard.absorb(None, 2)
    guard.absorb(core.GradientSignal(0.0, 2.0), 2)  # half of what was, half of this
    assert guard.share == pytest.approx(0.05 / 2.0)
    assert guard.factor(0.025) == pytest.approx(0.5)
    again = SignalGuard()
    again.restore(guard.state())
    assert again.state() == guard.state()
    guard.absorb(core.GradientSignal(-9.0, 2.0), 2)
    assert (guard.share, guard.factor(0.1)) == (0.0, SMALLEST)
