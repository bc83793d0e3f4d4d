"""TRPO whose trust region covers states of earlier batches: what it covers, what it keeps, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masked_envs import masked_factory
from trpo_fast import TRPO, TRPOConfig, checkpoint, core
from trpo_fast.training.remembered import RememberedStates, _shares

SETTINGS: dict[str, Any] = {
    "n_workers": 0,
    "n_envs": 2,
    "batch_size": 256,
    "hidden_sizes": (8,),
    "value_hidden_sizes": (8,),
    "remembered_states": 64,
}


def mean_kl(old: Any, new: Any, log_stds: tuple[Any, Any]) -> float:
    """KL(old || new) of Gaussians, summed over components, averaged over rows."""
    (before, after) = log_stds
    variance = np.exp(2.0 * before) + (old - new) ** 2
    terms = after - before + variance / (2.0 * np.exp(2.0 * after)) - 0.5
    return float(terms.sum(axis=1).mean())


@pytest.mark.parametrize("standardizes", [True, False])
def test_region_covers_what_is_remembered(standardizes: bool) -> None:
    agent = TRPO("Pendulum-v1", standardize_advantages=standardizes, dtype="float64", **SETTINGS)
    agent.learn(3 * 256, progress=False)
    policy, kept = agent.policy, agent.remembered.observations
    assert kept is not None
    assert kept.shape == (3 * 8, 3)
    batch = agent.advantages(agent.collect())
    rows = np.concatenate([batch.observations, policy.normalize(kept)])
    where, _ = policy.parameter_layout["log_std"]
    before = policy.outputs(rows, normalized=True), policy.parameters[where].copy()
    summary = agent.improve_policy(batch)
    after = policy.outputs(rows, normalized=True), policy.parameters[where].copy()
    kl = mean_kl(before[0], after[0], (before[1], after[1]))
    assert summary.kl == pytest.approx(kl, rel=1e-6)
    assert 0.0 < kl <= summary.max_kl
    only = mean_kl(before[0][:256], after[0][:256], (before[1], after[1]))
    assert abs(only - kl) > 1e-6  # another number than that of the batch alone
    agent.close()


def test_gradient_is_that_of_the_batch() -> None:
    """However far the remembered states are: L, g and the entropy are those of the batch alone."""
    agent = TRPO("Pendulum-v1", dtype="float64", **SETTINGS)
    agent.learn(2 * 256, progress=False)
    batch = agent.advantages(agent.collect())
    options = core.TrustRegionOptions(max_kl=0.01)
    theta = agent.policy.parameters.copy()
    found = []
    for further in ({}, agent.remembered.covered(agent.policy)):
        agent.policy.parameters = theta
        found.append(batch.update(agent.policy, options, **further))
    alone, beside = found
    assert beside.gradient_norm == alone.gradient_norm
    assert beside.entropy_before == alone.entropy_before
    assert beside.kl_predicted != alone.kl_predicted
    agent.close()


def test_nothing_moves_where_all_advantages_are_alike() -> None:
    agent = TRPO("CartPole-v1", **SETTINGS)
    agent.learn(256, progress=False)
    batch = agent.advantages(agent.collect())
    batch.advantages[:] = 3.0
    before = agent.policy.parameters.copy()
    agent.improve_policy(batch)
    np.testing.assert_array_equal(agent.policy.parameters, before)
    agent.close()


def test_every_episode_has_the_same_say() -> None:
    agent = TRPO("CartPole-v1", **SETTINGS)
    rollout = agent.collect()
    shares = _shares(rollout)
    ends = rollout.terminated | rollout.truncated
    parts = int(ends.sum() + (~ends[-1]).sum())
    assert shares.sum() == pytest.approx(parts)
    for e in range(2):
        last = 0
        for t in np.flatnonzero(ends[:, e]):
            assert shares[last : t + 1, e] == pytest.approx(1.0 / (t + 1 - last))
            last = t + 1
    agent.close()


def test_it_is_a_uniform_sample_of_all_batches() -> None:
    """Batches of one value each: after 40 of them every quarter of the way is in the memory."""
    agent = TRPO("CartPole-v1", **SETTINGS)
    rollout, memory = agent.collect(), RememberedStates(400)
    batch = agent.advantages(rollout)
    for number in range(40):
        rollout.observations[:] = number
        memory.absorb(rollout, batch, seed=number)
    assert memory.offered == 40 * 50
    assert memory.observations is not None
    assert len(memory.observations) == 400
    counts, _ = np.histogram(memory.observations[:, 0], bins=4, range=(0, 40))
    # each is hypergeometric, 100 +- 7.8
    assert counts.min() > 60
    assert counts.max() < 140
    agent.close()


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = TRPO("CartPole-v1", **SETTINGS)
    whole.learn(12 * 256, progress=False)
    part = TRPO("CartPole-v1", **SETTINGS)
    part.learn(6 * 256, progress=False)
    part.save(tmp_path / "part.safetensors")
    part.close()
    again = TRPO.load(tmp_path / "part.safetensors", n_workers=0)
    again.learn(6 * 256, progress=False)
    np.testing.assert_array_equal(again.policy.parameters, whole.policy.parameters)
    assert again.remembered.offered == whole.remembered.offered == 12 * 8
    np.testing.assert_array_equal(again.remembered.observations, whole.remembered.observations)
    for agent in (whole, again):
        agent.close()


def test_workers_change_no_bit() -> None:
    found = []
    for n in (0, 2):
        agent = TRPO("CartPole-v1", **{**SETTINGS, "n_workers": n})
        agent.learn(4 * 256, progress=False)
        found.append(agent.policy.parameters.tobytes())
        agent.close()
    assert found[0] == found[1]


def test_masks_are_remembered_too() -> None:
    agent = TRPO(masked_factory("discrete", "info"), **SETTINGS)
    agent.learn(4 * 256, progress=False)
    kept, masks = agent.remembered.observations, agent.remembered.action_masks
    assert kept is not None
    assert len(masks) == len(kept) == 32
    assert not masks.all()
    assert agent.last_record["policy/kl"] <= agent.last_record["policy/max_kl"]
    covered = agent.remembered.covered(agent.policy)
    np.testing.assert_array_equal(covered["further_masks"], masks)
    agent.close()


def test_masks_that_come_or_go() -> None:
    """A batch's masks are never lost; states that were seen without masks allow everything."""
    make = masked_factory("discrete", "info", lenient=True)
    plain, masked = (TRPO(make, action_masks=word, **SETTINGS) for word in ("none", "auto"))
    rollouts = [agent.collect() for agent in (plain, masked)]
    batches = [plain.advantages(rollouts[0]), masked.advantages(rollouts[1])]
    for first, second in ((0, 1), (1, 0)):
        memory = RememberedStates(64)
        memory.absorb(rollouts[first], batches[first], seed=1)
        flags = memory.covered(masked.policy)["further_masks"]
        assert (flags is None) == (first == 0)
        for batch in batches:
            batch.update(masked.policy, core.TrustRegionOptions(), **memory.covered(masked.policy))
        memory.absorb(rollouts[second], batches[second], seed=2)
        own = slice(8, 16) if first == 0 else slice(8)
        assert memory.action_masks.shape == (16, 5)
        assert not memory.action_masks[own].all()
        others = slice(8) if first == 0 else slice(8, 16)
        assert memory.action_masks[others].all()
    for agent in (plain, masked):
        agent.close()


def test_rows_that_are_no_transitions_do_not_count() -> None:
    agent = TRPO("CartPole-v1", **SETTINGS)
    rollout = agent.collect()
    rollout.episode_indices = rollout.episode_indices[:0]
    rollout.valid[:96, 0] = False  # a dropped episode: 32 rows of environment 0 are left
    shares = _shares(rollout)
    assert shares[96:, 0] == pytest.approx(1 / 32)
    assert shares[:, 1] == pytest.approx(1 / 128)
    rollout.observations[~rollout.valid] = 7.0
    memory = RememberedStates(512)
    memory.absorb(rollout, agent.advantages(rollout), seed=1)
    assert memory.observations is not None
    assert len(memory.observations) == 64
    assert not (memory.observations == 7.0).any()
    agent.close()


def test_another_number_at_load(tmp_path: Path) -> None:
    agent = TRPO("CartPole-v1", **SETTINGS)
    agent.learn(4 * 256, progress=False)
    agent.save(tmp_path / "agent.safetensors")
    agent.close()
    for number, kept in ((16, 16), (128, 32), (0, 0)):
        loaded = TRPO.load(tmp_path / "agent.safetensors", n_workers=0, remembered_states=number)
        if number:
            assert loaded.remembered.observations is not None
            assert len(loaded.remembered.observations) == kept
        loaded.learn(256, progress=False)
        loaded.close()


@pytest.mark.parametrize(
    ("entries", "offered", "sentence"),
    [
        ({"observations": np.zeros((4, 3), np.float32)}, 8, "remembered states of shape"),
        ({"observations": np.zeros(4, np.float32)}, 8, "remembered states of shape"),
        ({"observations": np.full((4, 4), np.nan)}, 8, "remembered states of shape"),
        ({}, 3, "that were offered"),
        ({}, 10**400, "that were offered"),
        ({"action_masks": np.ones((8, 3), np.uint8)}, 8, "masks of remembered states"),
        ({"action_masks": np.zeros((8, 2), np.uint8)}, 8, "masks of remembered states"),
    ],
)
def test_a_file_of_others_is_refused(entries: dict[str, Any], offered: int, sentence: str) -> None:
    agent = TRPO("CartPole-v1", **SETTINGS)
    agent.learn(256, progress=False)
    tensors, metadata = agent.state()
    agent.close()
    tensors.update({f"remembered.{name}": array for name, array in entries.items()})
    metadata["remembered"]["offered"] = offered
    with pytest.raises(checkpoint.CheckpointError, match=sentence):
        TRPO.from_state(tensors, metadata, env="CartPole-v1")


def test_none_where_they_are_0() -> None:
    agent = TRPO("CartPole-v1", n_workers=0, batch_size=64, remembered_states=0)
    agent.learn(64, progress=False)
    tensors, metadata = agent.state()
    assert agent.remembered.offered == 0
    assert not [name for name in tensors if name.startswith("remembered")]
    assert "remembered" not in metadata
    agent.close()


@pytest.mark.parametrize(("env", "usual"), [("Pendulum-v1", 100), ("CartPole-v1", 50)])
def test_a_quarter_of_a_batch_by_default_of_choices_an_eighth(env: str, usual: int) -> None:
    for settings, expected in (({}, usual), ({"remembered_states": 7}, 7), ({"preset": "sb3"}, 0)):
        agent = TRPO(env, n_workers=0, **{"batch_size": 400, **settings})
        assert agent.n_remembered == expected
        agent.close()


def test_files_of_before_remember_nothing() -> None:
    early = TRPOConfig().to_dict()
    del early["remembered_states"]
    assert TRPOConfig.from_saved(early).remembered_states == 0
