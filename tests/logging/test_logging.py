"""Loggers: what a terminal sees, what the files hold, and how they are continued."""

from __future__ import annotations

import csv
import io
import math
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast.logging import (
    ConsoleLogger,
    CsvLogger,
    Logger,
    ProgressBar,
    TensorBoardLogger,
    WandbLogger,
    read_columns,
    read_rows,
    write_atomically,
)

RECORD: dict[str, float | int | str] = {
    "time/iteration": 120,
    "time/timesteps": 245_760,
    "time/steps_per_second": 7812.3,
    "time/elapsed_seconds": 3731.5,
    "time/rollout_seconds": 0.213,
    "time/update_seconds": 0.0123,
    "time/value_fit_seconds": 0.081,
    "rollout/episodes": 2,
    "rollout/episode_return": 1234.5678,
    "rollout/episode_length": 1000.0,
    "policy/status": "accepted",
    "policy/message": "",
    "policy/kl": 0.00973,
    "policy/kl_predicted": 0.01,
    "policy/max_kl": 0.0104,
    "policy/surrogate_gain": 0.0512,
    "policy/surrogate_gain_predicted": 0.0613,
    "policy/cg_iterations": 10,
    "policy/cg_residual": 0.0312,
    "policy/backtracks": 1,
    "policy/entropy": 5.123,
    "policy/std": 0.61,
    "value/explained_variance": 0.83,
}


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# ---- console


def test_table_shows_every_group_within_eighty_columns() -> None:
    stream = io.StringIO()
    logger = ConsoleLogger(stream, style="table")
    logger.write({**RECORD, "eval/return": 4000.25, "eval/return_std": 30.3, "eval/length": 998})
    text = stream.getvalue()
    shown = """
        245,760 steps|7,812 steps/s|1:02:11|1,234.6|1,000|4,000.2|30.3|998|0.00973|0.0100|0.0104
        |0.0512|0.0613|10|0.031|5.12|0.610|0.830|0.213|0.0123|0.0810
    """
    values = [value.strip() for value in shown.split("|")]
    assert [value for value in values if value not in text] == []
    assert max(map(len, text.splitlines())) <= 80


def test_plain_style_is_one_line_with_the_same_numbers() -> None:
    stream = io.StringIO()
    ConsoleLogger(stream, style="plain").write(RECORD)
    assert stream.getvalue().count("\n") == 1
    assert "KL 0.00973 (predicted 0.0100, bound 0.0104)" in stream.getvalue()


def test_quiet_when_the_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    logger = ConsoleLogger(stream)
    bar = ProgressBar(1000, stream=stream)
    logger.write(RECORD)
    bar.update(500)
    bar.close()
    logger.close()
    assert logger.style == "quiet"
    assert stream.getvalue() == ""


def test_table_on_a_terminal() -> None:
    assert ConsoleLogger(Terminal()).style == "table"


def test_interval_limits_what_is_shown_but_not_evaluations_nor_the_last_record() -> None:
    stream, clock = io.StringIO(), Clock()
    logger = ConsoleLogger(stream, style="plain", interval_seconds=5.0, clock=clock)
    for second in range(8):
        clock.seconds = float(second)
        record = {**RECORD, "time/iteration": second}
        logger.write({**record, "eval/return": 1.0} if second == 2 else record)
    logger.close()
    logger.close()
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "iteration 0",
        "iteration 2",
        "iteration 7",
    ]
    assert "evaluation 1" in lines[1]


@pytest.mark.parametrize("style", ["table", "plain"])
def test_a_refusal_shows_its_reason_and_earlier_ones_are_counted(style: Any) -> None:
    stream, clock = io.StringIO(), Clock()
    logger = ConsoleLogger(stream, style=style, clock=clock)
    refused = {"policy/status": "line_search_failed", "policy/message": "No step [x] improved."}
    logger.write({**RECORD, **refused})
    assert "refused: No step [x] improved." in stream.getvalue()
    logger.write({**RECORD, **refused})
    logger.write(RECORD)
    logger.close()
    assert "refused: (1 of the last 2 updates refused)" in stream.getvalue()


@pytest.mark.parametrize("style", ["table", "plain"])
def test_missing_and_non_finite_values_are_shown(style: Any) -> None:
    stream = io.StringIO()
    logger = ConsoleLogger(stream, style=style, interval_seconds=0.0)
    logger.write({"time/timesteps": 1, "policy/kl": math.nan, "policy/surrogate_gain": math.inf})
    assert "inf" in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"style": "loud"}, "style: expected auto, table, plain or quiet, got 'loud'"),
        ({"interval_seconds": -1.0}, "interval_seconds: expected a number >= 0, got -1.0"),
    ],
)
def test_wrong_console_arguments(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConsoleLogger(io.StringIO(), **arguments)


# ---- progress


def test_progress_bar_draws_steps_rate_and_time_left_without_a_thread() -> None:
    stream, clock = Terminal(), Clock()
    threads = threading.active_count()
    with ProgressBar(10_000, start=2_000, stream=stream, clock=clock) as bar:
        clock.seconds = 2.0
        bar.update(4_000)
        assert threading.active_count() == threads
    text = stream.getvalue()
    assert "4,000 of 10,000 steps" in text
    assert "1,000 steps/s" in text
    assert "0:00:06 left" in text


def test_progress_rate_is_that_of_the_last_stretch() -> None:
    clock = Clock()
    bar = ProgressBar(10**9, stream=io.StringIO(), enabled=True, clock=clock)
    for second in range(0, 200, 10):
        clock.seconds = float(second)
        bar.update(second * 100 if second <= 100 else 10_000 + (second - 100) * 1000)
    assert bar.steps_per_second() == pytest.approx(1000.0)
    assert len(bar._history) < 8


def test_progress_needs_steps() -> None:
    with pytest.raises(ValueError, match="total_timesteps: expected a positive number of steps"):
        ProgressBar(0)


def test_table_appears_above_the_bar_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar(300_000, clock=clock) as bar:
        ConsoleLogger().write(RECORD)
        clock.seconds = 1.0
        bar.update(245_760)
    assert sys.stderr is stream
    text = stream.getvalue()
    assert "iteration 120" in text
    # the bar's line is erased before the table is printed in its place
    assert "\x1b[2K" in text[: text.index("iteration 120")]


# ---- CSV


def test_csv_restores_numbers_exactly(tmp_path: Path) -> None:
    values = [0.1 + 0.2, -0.0, 1e-300, math.nan, -math.inf, 1 / 3]
    logger = CsvLogger(tmp_path / "new" / "progress.csv")
    for step, value in enumerate(values):
        logger.write({"time/timesteps": np.int64(step), "x": value, "s": 'a, "b"\nc'})
        assert len(read_rows(logger.path)) == step + 1  # flushed
    logger.close()
    logger.close()
    columns = read_columns(logger.path)
    assert columns["time/timesteps"] == list(range(6))
    np.testing.assert_array_equal(columns["x"], values)
    with logger.path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["s"] == 'a, "b" c'
    assert logger.path.read_text().splitlines()[1].startswith("0,")


def test_csv_header_grows_with_later_keys(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "progress.csv")
    logger.write({"time/timesteps": 1, "a": 1.5})
    logger.write({"time/timesteps": 2, "a": 2.5, "eval/return": 7})
    logger.write({"time/timesteps": 3})
    logger.close()
    assert logger.path.read_text() == "time/timesteps,a,eval/return\n1,1.5,\n2,2.5,7\n3,,\n"
    assert list(tmp_path.iterdir()) == [logger.path]


def test_csv_resumes_without_gaps_or_repeated_rows(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    first = CsvLogger(path)
    for step in range(1, 6):
        first.write({"time/timesteps": step * 10, "a": step})
    first.close()
    with path.open("a") as stream:
        stream.write("60,")  # an interruption in the middle of a line
    second = CsvLogger(path, resume_timesteps=30)
    for step in range(4, 7):
        second.write({"time/timesteps": step * 10, "a": step, "b": 1})
    second.close()
    assert read_columns(path)["time/timesteps"] == [10, 20, 30, 40, 50, 60]
    assert math.isnan(read_columns(path)["b"][2])


def test_csv_refuses_to_overwrite_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text("time/timesteps\n1\n")
    with pytest.raises(FileExistsError, match=r"expected no such file yet.*resume_timesteps"):
        CsvLogger(path)
    assert path.read_text() == "time/timesteps\n1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x,y\n1,2\n", "expected a column 'time/timesteps', got"),
        ("time/timesteps\nmany\n", "expected numbers in column 'time/timesteps', got 'many'"),
    ],
)
def test_csv_refuses_a_foreign_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "progress.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        CsvLogger(path, resume_timesteps=5)
    assert path.read_text() == text


def test_csv_resumes_where_nothing_was_written_yet(tmp_path: Path) -> None:
    for name, text in [("absent.csv", None), ("empty.csv", ""), ("torn.csv", "time/timest")]:
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        logger = CsvLogger(path, resume_timesteps=5)
        logger.write({"time/timesteps": 6})
        logger.close()
        assert path.read_text() == "time/timesteps\n6\n"


def test_csv_is_closed(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path / "progress.csv")
    logger.close()
    with pytest.raises(ValueError, match="expected an open log"):
        logger.write({"time/timesteps": 1})


def test_atomic_write_leaves_the_old_file_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_and_fail() -> None:
        with write_atomically(path) as stream:
            stream.write("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- TensorBoard


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    threads = threading.active_count()
    logger = TensorBoardLogger(tmp_path)
    for step in (10, 20, 30):
        logger.write(
            {"time/timesteps": step, "policy/kl": step / 1000, "policy/status": "accepted"}
        )
    logger.close()
    logger.close()
    assert threading.active_count() == threads
    again = TensorBoardLogger(tmp_path, resume_timesteps=20)
    again.write({"time/timesteps": 30, "policy/kl": 0.5})
    again.close()

    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["policy/kl"]
    steps = [(event.step, round(event.value, 3)) for event in events.Scalars("policy/kl")]
    assert steps == [(10, 0.01), (20, 0.02), (30, 0.5)]


# ---- Weights & Biases


class FakeRun:
    id = "abc"

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str | None]] = []
        self.finished = 0

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, record: dict[str, Any]) -> None:
        self.history.append(record)

    def finish(self) -> None:
        self.finished += 1


def test_wandb_receives_the_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, settings = FakeRun(), {}

    def init(**arguments: Any) -> FakeRun:
        settings.update(arguments)
        return run

    module = types.ModuleType("wandb")
    monkeypatch.setattr(module, "init", init, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    logger = WandbLogger(project="p", config={"seed": 1}, folder=tmp_path, mode="offline")
    logger.write(RECORD)
    logger.close()
    logger.close()
    assert (settings["project"], settings["config"], settings["mode"]) == (
        "p",
        {"seed": 1},
        "offline",
    )
    assert settings["resume"] is None
    assert run.metrics == [("time/timesteps", None), ("*", "time/timesteps")]
    assert run.history == [RECORD]
    assert run.finished == 1
    assert logger.run_id == "abc"
    with pytest.raises(ValueError, match="expected an open run"):
        logger.write(RECORD)


# ---- all


@pytest.mark.parametrize(
    ("module", "make", "command"),
    [
        ("tensorboard", lambda folder: TensorBoardLogger(folder), "trpo_fast[tensorboard]"),
        ("wandb", lambda folder: WandbLogger(), "trpo_fast[wandb]"),
    ],
)
def test_missing_extra_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, make: Any, command: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(module), *sys.meta_path])
    with pytest.raises(ImportError) as caught:
        make(tmp_path)
    assert f'needs {module}, which is not installed: pip install "{command}"' in str(caught.value)
    assert "\n" not in str(caught.value)


class Hidden:
    """An import hook by which a package seems not to be installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_loggers_follow_the_protocol(tmp_path: Path) -> None:
    assert isinstance(ConsoleLogger(io.StringIO()), Logger)
    assert isinstance(CsvLogger(tmp_path / "progress.csv"), Logger)
    assert not isinstance(ProgressBar(1), Logger)


# ---- what no logger can write


@pytest.mark.parametrize("value", [None, np.zeros(3), [1, 2], {"a": 1}])
def test_a_value_that_is_no_number_is_named_and_left_out(tmp_path: Path, value: Any) -> None:
    record = {"time/timesteps": 1, "mine/key": value, "a": np.float32(2), "b": np.array([3.0])}
    csv_file = CsvLogger(tmp_path / "log.csv")
    console = ConsoleLogger(io.StringIO(), style="plain")
    for logger in (csv_file, console):
        with pytest.warns(UserWarning, match="expected a number or a text under 'mine/key'"):
            logger.write(record)
        logger.write(record)  # said once
        logger.close()
    row = read_rows(tmp_path / "log.csv")[0]
    assert row == {"time/timesteps": "1", "a": "2.0", "b": "3.0"}
