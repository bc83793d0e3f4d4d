"""What infos of last steps tell: from every kind of environment into records, files, evaluations."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_fast import TRPO, VineTRPO, cli
from trpo_fast.callbacks import EvaluateEvery, StopAtReturn
from trpo_fast.config import ConfigError
from trpo_fast.logging import ConsoleLogger, CsvLogger
from trpo_fast.rollout import metrics_of

SMALL: dict[str, Any] = {
    "batch_size": 64, "n_envs": 4, "hidden_sizes": (8,), "value_epochs": 1, "seed": 3,
}  # fmt: skip


class Reach(gymnasium.Env[Any, Any]):
    """Episodes of 4 steps; one succeeds if its last action is 1. Infos amid it tell something else."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    key = "is_success"

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {self.key: False, "score": -100.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        ends = self.t == 4
        info = {self.key: bool(action == 1) if ends else True, "score": 10.0 * action + self.t}
        return np.zeros(2, np.float32), float(action == 1), False, ends, info


class Silent(Reach):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return *super().step(action)[:4], {}  # type: ignore[return-value]


def expected(rollout: Any) -> tuple[list[float], list[float]]:
    """Success and score of each episode, by its last action."""
    actions = [float(rollout.actions[t, e, 0]) for t, e in rollout.episode_indices]
    return actions, [10.0 * action + 4 for action in actions]


def vector(mode: AutoresetMode) -> Any:
    return lambda: SyncVectorEnv([Reach] * 4, autoreset_mode=mode)


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        (Reach, {"n_workers": 0}),
        (Reach, {"n_workers": 2}),
        (Reach, {"n_workers": 0, "sampling": "total_steps"}),
        (vector(AutoresetMode.NEXT_STEP), {}),
        (vector(AutoresetMode.NEXT_STEP), {"sampling": "total_steps"}),
        (vector(AutoresetMode.SAME_STEP), {}),
        (vector(AutoresetMode.DISABLED), {}),
    ],
)
def test_every_kind_of_environment_tells_of_the_last_step(
    env: Any, settings: dict[str, Any]
) -> None:
    agent = TRPO(env, episode_metrics=("score",), **SMALL, **settings)
    for _ in range(2):
        rollout = agent.collect()
        success, score = expected(rollout)
        assert len(set(success)) == 2
        assert rollout.episode_metrics["success"].tolist() == success
        assert rollout.episode_metrics["score"].tolist() == score
    agent.close()


class Listed(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """As SuperSuit makes of two agents: spaces of one, infos as a list, no autoreset mode."""

    __module__ = "supersuit.vector.markov_vector_wrapper"
    observation_space, action_space = Reach.observation_space, Reach.action_space

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.num_envs, self.t = 2, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros((2, 2), np.float32), [{"is_success": False}] * 2

    def step(self, actions: Any) -> Any:
        self.t += 1
        ends = np.full(2, self.t == 4)
        infos: list[dict[str, Any]] = [
            {"is_success": bool(action == 1) if ends[0] else True, "score": 10.0 * action + self.t}
            for action in actions
        ]
        observations = np.full((2, 2), self.t / 4, np.float32)
        if ends[0]:
            for info, row in zip(infos, observations, strict=True):
                info["terminal_observation"] = row
            observations, _ = self.reset()
        return observations, np.zeros(2), np.zeros(2, bool), ends, infos


def test_supersuits_lists_of_infos_tell_too() -> None:
    agent = TRPO(Listed(), episode_metrics=("score",), **{**SMALL, "n_envs": 2})
    rollout = agent.collect()
    success, score = expected(rollout)
    assert len(set(success)) == 2
    assert rollout.episode_metrics["success"].tolist() == success
    assert rollout.episode_metrics["score"].tolist() == score
    agent.close()


def test_the_record_has_the_mean_of_the_latest_hundred() -> None:
    agent = TRPO(Reach, n_workers=0, episode_metrics=("score",), **SMALL)
    seen: list[float] = []
    collect = agent.collect

    def watched(on_step: Any = None) -> Any:
        rollout = collect(on_step)
        seen.extend(expected(rollout)[0])
        return rollout

    agent.collect = watched  # type: ignore[method-assign]
    agent.learn(64 * 8)
    assert len(seen) == 128
    assert agent.last_record["rollout/success_rate"] == pytest.approx(np.mean(seen[-100:]))
    assert agent.last_record["rollout/score"] == pytest.approx(10 * np.mean(seen[-100:]) + 4)
    agent.close()


def test_nothing_is_recorded_where_nothing_is_told() -> None:
    agent = TRPO("CartPole-v1", n_workers=0, **SMALL)
    agent.learn(256)
    assert not any("success" in key for key in agent.last_record)
    assert agent.evaluate(episodes=2, seed=0).metrics == {}
    assert np.isnan(agent.evaluate(episodes=2, seed=0).success_rate)
    agent.close()


def test_a_key_that_no_info_holds_is_named_once() -> None:
    notices: list[str] = []
    agent = TRPO(Silent, n_workers=0, episode_metrics=("scroe",), **SMALL)
    agent.learn(64 * 3, callback=lambda _, record: notices.append(record.get("run/notice", "")))
    assert "episode_metrics: the info of 16 last steps" in notices[0] + notices[1]
    assert sum("scroe" in notice for notice in notices) == 1
    agent.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_evaluations_tell_and_do_not_depend_on_workers(n_workers: int) -> None:
    agent = TRPO(Reach, n_workers=n_workers, episode_metrics=("score",), **SMALL)
    result = agent.evaluate(episodes=6, seed=0)
    last = float(agent.predict(np.zeros(2, np.float32), deterministic=True)[0])
    assert result.metrics["success"].tolist() == [last] * 6
    assert result.metrics["score"].tolist() == [10 * last + 4] * 6
    assert result.success_rate == last
    assert f"success_rate {last:.0f}" in str(result)
    cut = agent.evaluate(episodes=2, seed=0, max_steps=2)
    assert cut.metrics["score"].tolist() == [10 * last + 2] * 2
    agent.close()


def test_a_resumed_run_goes_on_with_the_same_means(tmp_path: Path) -> None:
    whole = TRPO(Reach, n_workers=0, episode_metrics=("score",), **SMALL).learn(64 * 4)
    half = TRPO(Reach, n_workers=0, episode_metrics=("score",), **SMALL).learn(64 * 2)
    half.save(tmp_path / "half")
    resumed = TRPO.load(tmp_path / "half", env=Reach, n_workers=0).learn(64 * 2)
    for key in ("rollout/success_rate", "rollout/score", "policy/kl"):
        assert resumed.last_record[key] == whole.last_record[key]
    other = TRPO.load(tmp_path / "half", env=Reach, n_workers=0, episode_metrics=())
    assert other.config.episode_metrics == ()
    for agent in (whole, half, resumed, other):
        agent.close()


def test_the_vine_tells_too() -> None:
    agent = VineTRPO(Reach, n_workers=0, vine={"states": 8, "branch_steps": 2}, **SMALL)
    agent.learn(64)
    assert 0.0 <= agent.last_record["rollout/success_rate"] <= 1.0
    agent.close()


def test_table_line_and_csv_show_metrics_and_a_callbacks_own(tmp_path: Path) -> None:
    def own(_: Any, record: Any) -> None:
        record["mine/speed"] = 12.5

    table, line = io.StringIO(), io.StringIO()
    agent = TRPO(Reach, n_workers=0, episode_metrics=("score",), **SMALL)
    agent.learn(
        64 * 2,
        callback=[EvaluateEvery(64, 2), own],
        loggers=[
            ConsoleLogger(table, style="table"),
            ConsoleLogger(line, style="plain"),
            CsvLogger(tmp_path / "progress.csv"),
        ],
    )
    agent.close()
    for word in ("success", "score", "mine", "speed", "12.5"):
        assert word in table.getvalue()
    assert max(map(len, table.getvalue().splitlines())) <= 80
    for word in ("rollout/success_rate 0", "eval/success_rate", "mine/speed 12.5"):
        assert word in line.getvalue()
    with (tmp_path / "progress.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert {"rollout/success_rate", "rollout/score", "eval/success_rate", "eval/score"} <= set(row)


def test_training_ends_at_a_success_rate() -> None:
    agent = TRPO(Reach, n_workers=0, **{**SMALL, "max_kl": 0.1})
    agent.learn(64 * 200, callback=StopAtReturn(0.9, "rollout/success_rate"))
    assert agent.timesteps < 64 * 200
    assert agent.last_record["rollout/success_rate"] >= 0.9
    agent.close()


class Scored:
    """An agent of which evaluations are made up: (return, success) one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: list[tuple[float, float]]) -> None:
        from trpo_fast.evaluation import EvaluationResult
        from trpo_fast.training import evaluate_every

        results = iter(found)
        self.timesteps, self.saved, self.config = 0, [], type("C", (), {"seed": 0})
        self.env_name = "CartPole-v1"

        def evaluate(*_: Any, **__: Any) -> Any:
            value, success = next(results)
            metrics = {} if np.isnan(success) else {"success": np.array([success])}
            return EvaluationResult(np.array([value]), np.array([1]), metrics=metrics)

        monkeypatch.setattr(evaluate_every, "evaluate_policy", evaluate)

    def save(self, _: Any) -> None:
        self.saved.append(self.timesteps)


@pytest.mark.parametrize(("best_by", "saved"), [("return", [1, 2]), ("success_rate", [1, 3, 5])])
def test_the_best_checkpoint_is_the_best_by_what_was_asked(
    best_by: str, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(1.0, 0.2), (9.0, 0.1), (2.0, 0.5), (2.0, 0.5), (3.0, 0.5)]
    agent: Any = Scored(monkeypatch, found)
    every = EvaluateEvery(1, 1, tmp_path / "best", best_by=best_by)
    every.on_start(agent, 5)
    for step in range(1, 6):
        agent.timesteps = step
        if step == 4:  # stopped and gone on with
            state = every.state_dict()
            every.on_end(agent)
            every = EvaluateEvery(1, 1, tmp_path / "best", best_by=best_by)
            every.load_state_dict(state)
            agent.timesteps = 3
            every.on_start(agent, 5)
            agent.timesteps = step
        every.on_iteration(agent, {})
    every.on_end(agent)
    assert agent.saved == saved


def test_a_criterion_that_nobody_tells_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent: Any = Scored(monkeypatch, [(1.0, np.nan)])
    every = EvaluateEvery(1, 1, tmp_path / "best", best_by="success_rate")
    every.on_start(agent, 5)
    agent.timesteps = 1
    with pytest.raises(ValueError, match="best_by: expected one of return, no metrics"):
        every.on_iteration(agent, {})
    every.on_end(agent)


def test_the_command_line_shows_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reaching.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_episode_metrics import Reach\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    train = [
        "train", "--env-factory", "reaching:Reach", "--run-dir", "run", "--total-timesteps", "256",
        "--batch-size", "64", "--n-envs", "4", "--n-workers", "0", "--episode-metrics", "score",
        "--evaluate-every", "64", "--evaluation-episodes", "2", "--best-by", "success_rate",
    ]  # fmt: skip
    assert cli.main(train) == 0
    with Path("run/evaluations.csv").open() as file:
        assert {"success", "score"} <= set(next(csv.DictReader(file)))
    assert cli.main(["evaluate", "run", "--episodes", "2", "--env-factory", "reaching:Reach"]) == 0
    out = capsys.readouterr().out
    assert "success_rate " in out
    assert "score 1" in out or "score 4" in out


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"is_success": np.True_}, {"success": 1.0}),
        ({"success": 0}, {"success": 0.0}),
        ({"is_success": np.array([1.0])}, {"success": 1.0}),
        ({"is_success": "yes"}, {}),
        ({"is_success": None, "success": True}, {"success": 1.0}),
        ({"is_success": np.nan}, {}),
        ({"is_success": np.zeros(3)}, {}),
        ({"score": 3}, {"score": 3.0}),
        ({"episode": {"score": 2.5}}, {"score": 2.5}),
        ({"score": 1, "final_info": {"score": 2}}, {"score": 2.0}),
        ({"score": [1]}, {}),
        (None, {}),
        ([1], {}),
    ],
)
def test_only_numbers_are_told(info: Any, told: dict[str, float]) -> None:
    assert metrics_of(info, ("score",)) == told


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("score", "expected a sequence of names"),
        ((3,), "expected a sequence of names"),
        (("",), "expected a sequence of names"),
        (("a\n",), "expected a sequence of names"),
        (("score", "success_rate"), "'success_rate', which records hold already"),
    ],
)
def test_names_are_checked(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="episode_metrics") as error:
        TRPO("CartPole-v1", episode_metrics=value)
    assert words in str(error.value)
