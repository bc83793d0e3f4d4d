"""Batches whose rows stay on the nodes of a cluster: the bits of one process, and what is refused.

The nodes are those of a stand-in for Ray; `tests/rollout/test_ray_cluster.py` has Ray's own.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_ray import FakeRay, fake_ray
from fragile_env import fragile
from masked_envs import masked_factory
from trpo_fast import NPG, TRPO, VPG
from trpo_fast.algorithms import ALGORITHMS, algorithm_class
from trpo_fast.config import ConfigError, field_names
from trpo_fast.rollout import ClusterError
from trpo_fast.training.parted_batch import PartedBatch
from trpo_fast.training.parted_rows import spans_of
from worker_envs import BrokenEnv, UnevenEnv

__all__ = ["fake_ray"]

# N D of both networks is above two million, so a batch is cut into 13 chunks and 3 parts.
LARGE: dict[str, Any] = {"n_envs": 4, "batch_size": 1200, "hidden_sizes": (48, 40), "seed": 3}
NODES: dict[str, Any] = {"cluster": "local", "n_workers": 3, "distribute_update": True}


class Watched(TRPO):
    """Remembers its batches."""

    batches: list[Any]

    def improve_policy(self, batch: Any) -> Any:
        """The update."""
        self.batches = [*getattr(self, "batches", ()), batch]
        return super().improve_policy(batch)


def trained(
    env: Any, iterations: int = 2, agent_type: Any = TRPO, **settings: Any
) -> tuple[dict[str, Any], Any]:
    """What a short run has made, and its agent, which is closed."""
    records: list[dict[str, Any]] = []
    with agent_type(env, **{**LARGE, **settings}) as agent:
        agent.learn(
            iterations * agent.config.batch_size,
            progress=False,
            callback=lambda _, record: records.append(dict(record)),
        )
        tensors, _ = agent.state()
    told = [{k: v for k, v in r.items() if not k.startswith(("time/", "run/"))} for r in records]
    arrays = {
        k: v.tobytes() for k, v in tensors.items() if not k.endswith(("metadata", "configuration"))
    }
    return {**arrays, "records": repr(told)}, agent


def assert_same(env: Any, **settings: Any) -> Any:
    expected, _ = trained(env, **settings, n_workers=0)
    found, agent = trained(env, **settings, **NODES)
    assert found == expected
    return agent


@pytest.mark.parametrize(("env", "remembered"), [("CartPole-v1", 36), ("Pendulum-v1", 74)])
def test_the_bits_and_the_table_are_those_of_one_process(
    fake_ray: FakeRay, env: str, remembered: int
) -> None:
    fake_ray.n_nodes = 3
    agent = assert_same(env, agent_type=Watched)
    assert len(agent.remembered.observations) == remembered
    for batch in agent.batches:
        assert isinstance(batch, PartedBatch)
        assert len(batch.parts.bounds) == 4
        with pytest.raises(AttributeError, match="advantages: the rows of this batch lie on"):
            _ = batch.advantages


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling": "total_steps", "batch_size": 1203},
        {"sampling": "episodes", "value_optimizer": "lbfgs"},
        {"batch_size": 100},
        {"remembered_states": 0},
        {"n_envs": 5},  # a part begins amid the environments of a step
        {"dtype": "float64", "normalize_observations": False, "scale_returns": False},
        {"standardize_advantages": False, "kl_constraint": "max", "fisher": "empirical"},
        {"agent_type": VPG},
        {"agent_type": VPG, "ascent": "gradient"},
        {"agent_type": VPG, "ascent": "normalized", "value_optimizer": "lbfgs"},
        {"agent_type": NPG, "overlap_value_fit": False, "value_minibatch_size": None},
    ],
    ids=str,
)
def test_whatever_the_settings(fake_ray: FakeRay, settings: dict[str, Any]) -> None:
    fake_ray.n_nodes = 2
    assert_same("CartPole-v1", **settings)


def test_masks_and_episodes_that_are_dropped(fake_ray: FakeRay) -> None:
    fake_ray.n_nodes = 3
    agent = assert_same(masked_factory("discrete", "info"))
    assert len(agent.remembered.action_masks) == 36  # of two batches, an eighth of 150 each
    assert_same(lambda: BrokenEnv("raises", at=205), restart_crashed_environments=True)
    assert_same(UnevenEnv, sampling="episodes")


def test_nothing_of_a_row_comes_here(fake_ray: FakeRay) -> None:
    came: list[int] = []
    with TRPO("Pendulum-v1", **LARGE, **NODES) as agent:
        sampler = agent.sampler
        gathered = sampler.pool.gather

        def gather(*arguments: Any, **named: Any) -> Any:
            answers = gathered(*arguments, **named)
            arrays = [w.block.arrays for w in sampler.pool.workers if w.command[0] == "collect"]
            came.extend(v.nbytes for each in arrays for v in each.values() if v.strides != (0, 0))
            return answers

        sampler.pool.gather = gather
        agent.learn(1200, progress=False)
        assert 1200 <= sum(came) < 2000  # whether each is a transition, and its few episodes
        assert agent.collect().observations.shape == (300, 4, 3)  # outside of learn all rows come


def test_steps_on_minibatches_are_made_on_a_node(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that trains asks no part for rows; the one beside them asks for a block at a time."""
    from trpo_fast.rollout.cluster.holders import HeldParts, RayParts

    askers: list[tuple[type, int]] = []
    ask_each = HeldParts.ask_each

    def noted(self: Any, name: str, arguments: Any) -> Any:
        askers.append((type(self), sum(map(len, arguments))))
        return ask_each(self, name, arguments)

    monkeypatch.setattr(HeldParts, "ask_each", noted)
    fake_ray.n_nodes = 3
    settings = {**LARGE, **NODES, "value_epochs": 2}
    with TRPO("Pendulum-v1", **settings) as agent:
        agent.learn(1200, progress=False)
        assert [handle._object._parts for handle in fake_ray.alive[-1:]] == [{}]
        assert agent.value_fitting.last_fit.steps == 2 * 10  # type: ignore[union-attr]
    assert askers == [(HeldParts, 1200)] * 2
    assert not any(issubclass(kind, RayParts) for kind, _ in askers)


def test_a_checkpoint_goes_on_with_and_without(fake_ray: FakeRay, tmp_path: Path) -> None:
    fake_ray.n_nodes = 2
    expected, _ = trained("CartPole-v1", 4, n_workers=0)
    for first, then in ((NODES, {"n_workers": 0}), ({"n_workers": 0}, NODES), (NODES, NODES)):
        with TRPO("CartPole-v1", **LARGE, **first) as agent:
            agent.learn(2400, progress=False)
            saved = agent.save(tmp_path / "agent.safetensors")
        assert not TRPO.load(saved, env=None).config.distribute_update
        with TRPO.load(saved, **then) as agent:
            agent.learn(2400, progress=False)
            assert agent.policy.parameters.tobytes() == expected["policy"]
            assert agent.value_function.parameters.tobytes() == expected["value_function"]


# ---- losses


def test_an_actor_lost_in_a_rollout_costs_no_bit(fake_ray: FakeRay, tmp_path: Path) -> None:
    (never := tmp_path / "never").write_text("x")
    fake_ray.n_nodes = 2
    expected, _ = trained(fragile(never, 400), n_workers=0)
    found, _ = trained(fragile(tmp_path / "flag", 400), **NODES)
    assert (tmp_path / "flag").exists()
    assert found == expected


class Losing(TRPO):
    """Loses actors and holders in the middle of its second iteration."""

    moment = "rows"
    lost = 0
    now: Any = None

    def lose(self, moment: str, what: str) -> None:
        """Lose something, once, if it is the moment."""
        if self.iteration != 1 or moment != self.moment or self.lost:
            return
        self.lost += 1
        assert self.parted is not None
        if what != "actor":
            holders: Any = self.parted.holders
            holders.actors[-1].lose()
        if what != "holder":
            sampler: Any = self.sampler
            sampler.pool.workers[0]._actor.lose()

    def advantages(self, rollout: Any) -> Any:
        """Rows move to the nodes."""
        self.lose("rows", "actor")
        self.lose("rows and node", "node")
        return super().advantages(rollout)

    def improve_policy(self, batch: Any) -> Any:
        """The update."""
        self.lose("update", "holder")
        self.lose("update and node", "node")
        asked, n = batch.parts.ask, 0

        def ask(name: str, *arguments: Any) -> Any:
            nonlocal n
            n += name == "fisher_vector_product"
            if n == 3:
                self.lose("product", "holder")
            return asked(name, *arguments)

        batch.parts.ask = ask
        return super().improve_policy(batch)

    def start_value_fit(self, batch: Any) -> None:
        """The fit, which may go on beside the next rollout."""
        self.lose("fit", "holder")
        Losing.now = self
        super().start_value_fit(batch)

    def record(self, *arguments: Any) -> Any:
        """What is told."""
        self.lose("record", "holder")
        return super().record(*arguments)


@functools.cache
def undisturbed(beside: bool) -> dict[str, Any]:
    """What such a run makes in one process."""
    return trained("Pendulum-v1", 3, n_workers=0, overlap_value_fit=beside)[0]


@pytest.mark.parametrize(
    ("moment", "beside"),
    [
        ("rows", True),
        ("rows and node", False),
        ("update", True),
        ("update and node", False),
        ("product", True),
        ("fit", False),
        ("fit under way", True),
        ("fit under way", False),
        ("record", True),
    ],
)
def test_losses_cost_no_bit(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, moment: str, beside: bool
) -> None:
    from trpo_fast.rollout.cluster.holders import HeldParts

    asked = HeldParts.ask_each  # by the process that makes steps on minibatches

    def ask_each(self: Any, name: str, arguments: Any) -> Any:
        Losing.now.lose("fit under way", "node")
        return asked(self, name, arguments)

    monkeypatch.setattr(HeldParts, "ask_each", ask_each)
    fake_ray.n_nodes = 3
    about: dict[str, Any] = {"overlap_value_fit": beside, "iterations": 3}
    expected = undisturbed(beside)
    kind = type("LosingThen", (Losing,), {"moment": moment})
    found, agent = trained("Pendulum-v1", **about, **NODES, agent_type=kind)
    assert agent.lost == 1
    assert found == expected


def test_rows_that_were_overwritten_are_made_again(fake_ray: FakeRay) -> None:
    """The fit is lost while the next rollout has the rows of its actors' memory."""
    fake_ray.n_nodes = 2

    class LosingLate(TRPO):
        lost = False

        def collect(self, on_step: Any = None) -> Any:
            rollout = super().collect(on_step)
            if self.iteration == 2:
                fitting: Any = self.value_fitting
                result, self.lost = fitting._under_way.result, True
                fitting._under_way = _Then(self.parted, result)
            return rollout

    about: dict[str, Any] = {"overlap_value_fit": False, "iterations": 4}
    expected, _ = trained("CartPole-v1", **about, n_workers=0)
    found, agent = trained("CartPole-v1", **about, **NODES, agent_type=LosingLate)
    assert agent.lost
    assert found == expected


class _Then:
    """A fit that is waited for; before it is made, a holder is lost."""

    def __init__(self, parted: Any, fit: Any) -> None:
        self._parted, self._fit = parted, fit

    def result(self) -> Any:
        self._parted.holders.actors[0].lose()
        return self._fit()


def test_losses_again_and_again_end_the_run_in_a_sentence(fake_ray: FakeRay) -> None:
    fake_ray.n_nodes = 2
    with AlwaysLosing("CartPole-v1", **LARGE, **NODES) as agent:
        with pytest.raises(ClusterError, match=r"^distribute_update: rows of the batch are lost"):
            agent.learn(3 * 1200, progress=False)
        assert agent.iteration == 1


class AlwaysLosing(TRPO):
    """Loses a holder in every update that it tries."""

    def improve_policy(self, batch: Any) -> Any:
        """The update."""
        if self.iteration == 1:
            again = batch._again

            def losing_again() -> Any:
                parts = again()
                self.parted.holders.actors[0].lose()  # type: ignore[union-attr]
                return parts

            batch._again = losing_again
            self.parted.holders.actors[0].lose()  # type: ignore[union-attr]
        return super().improve_policy(batch)


def test_rows_that_cannot_be_made_again_end_the_run_in_a_sentence(fake_ray: FakeRay) -> None:
    words = (
        r"^distribute_update: the rows of worker 0 are lost .* because save_environments is off; r"
    )
    kind = type("LosingThen", (Losing,), {"moment": "rows"})
    with (
        kind("CartPole-v1", **LARGE, **NODES, save_environments=False) as agent,
        pytest.raises(ClusterError, match=words),
    ):
        agent.learn(3 * 1200, progress=False)


def test_a_node_that_is_gone_before_an_iteration_is_left_out(fake_ray: FakeRay) -> None:
    fake_ray.n_nodes = 3
    expected, _ = trained("CartPole-v1", 2, n_workers=0)
    with Watched("CartPole-v1", **LARGE, **NODES) as agent:
        agent.learn(1200, progress=False)
        fake_ray.n_nodes = 2
        agent.learn(1200, progress=False)
        assert [len(batch.parts.bounds) for batch in agent.batches] == [4, 3]
        assert agent.policy.parameters.tobytes() == expected["policy"]


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster": None}, "a cluster, on whose nodes rows can stay, got cluster=None"),
        ({"signal_guard": 0.1}, "signal_guard=0, got 0.1"),
        ({"fisher_fraction": 0.5}, "fisher_fraction=1, got 0.5"),
        (
            {"state_dependent_std": True, "cg_damping_unit": "precision"},
            "cg_damping_unit='absolute' beside state_dependent_std",
        ),
    ],
)
def test_settings_that_need_all_rows_are_refused(settings: dict[str, Any], words: str) -> None:
    where = {"cluster": "local", **settings}
    with pytest.raises(ConfigError, match=rf"^distribute_update: expected {words}.*leave it out$"):
        TRPO("Pendulum-v1", distribute_update=True, **where)


@pytest.mark.parametrize("method", sorted(set(ALGORITHMS) - {"trpo", "npg", "vpg"}))
def test_other_methods_refuse_it(method: str) -> None:
    kind = algorithm_class(method).config_type
    assert "distribute_update" in field_names(kind)
    with pytest.raises(
        ConfigError, match="a method that updates by sums of rows, TRPO, NPG or VPG"
    ):
        kind(cluster="local", distribute_update=True)


def test_rows_that_are_added_up_in_columns_are_refused(fake_ray: FakeRay) -> None:
    words = r"^distribute_update: .* TRPO_FAST_FIRST_LAYER=dense"
    with (
        TRPO("FrozenLake8x8-v1", **LARGE, **NODES) as agent,
        pytest.raises(ValueError, match=words),
    ):
        agent.learn(1200, progress=False)


# ---- parts of it


@pytest.mark.parametrize("n", [1, 7, 129, 1000, 12_345])
def test_sums_of_parts_are_those_of_numpy(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(2, n))
    for n_parts in (1, 2, 5):
        bounds = [0, *sorted(rng.choice(n, min(n_parts - 1, n - 1), replace=False)), n]
        bounds = sorted(set(map(int, bounds)))
        batch = PartedBatch(Sums(values, bounds), _Shape)  # type: ignore[arg-type]
        returns, errors = values[0], values[0] - values[1]
        expected = 1.0 - np.var(errors) / np.var(returns) if n > 1 else float("nan")
        assert np.array_equal(batch.explained_variance(), expected, equal_nan=True)


class _Shape:
    obs_dim, dtype = 1, np.float32


class Sums:
    """Parts of returns and values, which need no network."""

    def __init__(self, values: Any, bounds: list[int]) -> None:
        from trpo_fast.training.parted_rows import BatchPart

        self.bounds, self.parts = bounds, []
        for begin, end in itertools.pairwise(bounds):
            part = BatchPart.__new__(BatchPart)
            rows = {"returns": values[0, begin:end], "values": values[1, begin:end]}
            part._rows, part._seen, part.first_row = rows, rows["returns"], begin
            self.parts.append(part)

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        return [getattr(part, name)(*arguments) for part in self.parts]

    def ask_one(self, part: int, name: str, *arguments: Any) -> Any:
        return getattr(self.parts[part], name)(*arguments)

    def ask_each(self, name: str, arguments: Any) -> list[Any]:
        raise NotImplementedError


def test_spans_hold_all_rows_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        valid = rng.random((20, 3)) < 0.6
        n = int(valid.sum())
        bounds = [0, *sorted(rng.choice(np.arange(1, n), 3, replace=False).tolist()), n]
        times, _ = np.nonzero(valid)
        numbers = np.arange(n)
        for span, rows in zip(spans_of(valid, bounds), itertools.pairwise(bounds), strict=True):
            here = numbers[(times >= span.begin) & (times < span.end)]
            found = here[span.skipped : span.skipped + span.n_rows]
            assert found.tolist() == list(range(*rows))
