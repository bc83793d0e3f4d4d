"""Environments whose attributes, names and values are such that asking for them is a risk."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stand_ins import Plain
from trpo_fast import TRPO
from trpo_fast.callbacks import CheckpointEvery
from trpo_fast.checkpoint import CheckpointError

SMALL: dict[str, Any] = {"batch_size": 32, "n_envs": 2, "n_workers": 0, "hidden_sizes": (4,)}


class Raises(Plain):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"do not ask for {name}")


class Knows(Plain):
    """Has every attribute, as an object that stands for a remote one."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Properties(Plain):
    @property
    def spec(self) -> Any:
        raise RuntimeError("no spec")

    @property
    def unwrapped(self) -> Any:
        raise RuntimeError("nothing inside")


class Leaves(Plain):
    """Its window ends the process when it is closed."""

    def close(self) -> None:
        raise SystemExit(4)


class LongNumber(Plain):
    """An integer of more digits than Python writes."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 1 << 100_000

    def step(self, action: Any) -> Any:
        self.number += 1
        observation, reward, *rest = super().step(action)
        return observation, reward + self.number % 7, *rest


class OddNames(Plain):
    """Attributes that no source could name: parsed from a file, say."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("", "a.b", "../c", "d\x00", "\ud800"):
            self.__dict__[name] = np.zeros(2)

    def step(self, action: Any) -> Any:
        self.__dict__["\ud800"] += 1.0
        observation, reward, *rest = super().step(action)
        return observation, reward + self.__dict__["\ud800"][0], *rest


def resumed_bits(env: Any, path: Path) -> tuple[bool, str]:
    """Whether a run that was saved and loaded comes to the same policy, and what it says."""
    with TRPO(env, **SMALL) as agent:
        agent.learn(32).save(path)
        whole = agent.learn(32).policy.parameters.tobytes()
        agent.evaluate(1, max_steps=20)
    with TRPO.load(path, env=env) as agent:
        agent.learn(32)
        notice = str(agent.last_record.get("run/notice", ""))
        return agent.policy.parameters.tobytes() == whole, notice


@pytest.mark.filterwarnings("ignore:closing the environment Leaves")
@pytest.mark.parametrize("env", [Raises, Knows, Properties, Leaves, LongNumber, OddNames])
def test_odd_environments_train_and_resume_exactly(env: Any, tmp_path: Path) -> None:
    assert resumed_bits(env, tmp_path / "a") == (True, "")


class Book(Plain):
    """A text of many megabytes, which only a file of its own could hold."""

    text = "x" * (1 << 26)

    def __init__(self) -> None:
        super().__init__()
        self.book = self.text


def test_a_long_text_is_not_read_at_every_save(tmp_path: Path) -> None:
    same, notice = resumed_bits(Book, tmp_path / "a")
    assert not same
    assert "values, too many to be read at every save" in notice
    assert (tmp_path / "a").stat().st_size < 1 << 20


class Unprintable(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.__dict__["\ud800"] = threading.Lock()


def test_a_notice_can_be_written_whatever_it_names(tmp_path: Path) -> None:
    same, notice = resumed_bits(Unprintable, tmp_path / "a")
    assert not same
    assert "Unprintable.\\ud800 (type _thread.lock) cannot be stored" in notice
    notice.encode()


class Moves(Plain):
    """Works in a folder of its own."""

    home: Path

    def __init__(self) -> None:
        super().__init__()
        os.chdir(self.home)


def test_checkpoints_go_where_they_were_wanted_whatever_folder_an_environment_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(Moves, "home", tmp_path / "elsewhere", raising=False)
    monkeypatch.chdir(tmp_path)
    checkpoints = CheckpointEvery(32, "made/{timesteps}.safetensors")
    with TRPO(Moves, **SMALL) as agent:
        agent.learn(32, callback=checkpoints)
    assert (tmp_path / "made" / "32.safetensors").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("path", ["", "a\x00b", "x" * 300])
def test_a_path_that_is_none_is_refused_with_a_sentence(path: str, tmp_path: Path) -> None:
    with TRPO(Plain, **SMALL) as agent, pytest.raises(CheckpointError, match="path of a file, got"):
        agent.save(path)


def test_a_masked_observation_is_not_acted_on() -> None:
    with TRPO(Plain, **SMALL) as agent, pytest.raises(ValueError, match="got masked ones"):
        agent.predict(np.ma.masked_array([1.0, 2.0], [True, False]))


def test_a_with_block_closes_the_environments_and_keeps_what_was_learned() -> None:
    closed: list[str] = []

    class Watched(Plain):
        def close(self) -> None:
            closed.append("closed")

    def interrupted(_: Any, record: dict[str, Any]) -> None:
        assert not closed
        raise KeyError(record["time/timesteps"])

    with pytest.raises(KeyError), TRPO(Watched, **SMALL, save_environments=False) as agent:
        agent.learn(64, callback=interrupted)
    assert closed == ["closed", "closed"]
    assert agent.predict([0.0, 0.0])[0] in (0, 1)
    with pytest.raises(RuntimeError, match="closed"):
        agent.learn(32)
