"""The folder of one run: made once, locked, read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trpo_fast import cli
from trpo_fast.cli.output import FAILED
from trpo_fast.run_folder import RunFolder, RunFolderError


def make_run(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    run.write_record({"env": "X", "config": {}})
    return run


def test_run_folder_is_made_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    assert RunFolder.open(run.path).read_record() == {"env": "X", "config": {}}
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder.create(run.path)
    assert [file.name for file in run.path.iterdir()] == ["config.json"]


def test_what_a_killed_start_has_left_is_taken_over(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with run.locked():
        pass
    leftover = run.path / ".latest.safetensors.1234abcd.tmp"
    leftover.touch()
    run.latest.touch()
    again = RunFolder.create(run.path)
    with again.locked():
        assert not leftover.exists()
    (run.path / "mine.txt").touch()
    with pytest.raises(RunFolderError, match="exists"):
        RunFolder.create(run.path)


def test_a_folder_with_a_checkpoint_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latest.safetensors").touch()
    with pytest.raises(RunFolderError, match="exists"):
        RunFolder.create(tmp_path)


HOLD = """
import sys, time
from trpo_fast.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_on_one_run_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunFolderError, match=f"another one, process {holder.pid} on"):
                run.locked().__enter__()
            assert cli.main(["train", "--resume", str(run.path)]) == FAILED
        finally:
            holder.kill()
    # a killed process leaves a file, but no lock
    with run.locked():
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"env": "X"}', "\udcff"])
def test_damaged_config_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run")
    run.config_file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match="restore the file") as error:
        run.read_record()
    assert "\n" not in str(error.value)


def test_checkpoint_prefers_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="got none"):
        run.checkpoint()
    run.latest.touch()
    assert run.checkpoint() == run.latest
    with pytest.raises(RunFolderError, match="best"):
        run.checkpoint("best")
    run.best.touch()
    assert run.checkpoint() == run.best
    assert run.checkpoint("latest") == run.latest


def test_the_lock_is_opened_without_following_links(tmp_path: Path) -> None:
    other = tmp_path / "precious.txt"
    other.write_text("do not touch")
    run = make_run(tmp_path / "run")
    run.lock_file.symlink_to(other)
    with pytest.raises(RunFolderError, match="expected to write in"), run.locked():
        pass
    assert other.read_text() == "do not touch"
    run.lock_file.unlink()
    os.mkfifo(run.lock_file)
    with pytest.raises(RunFolderError, match=r"\.lock is no file"), run.locked():
        pass


def test_a_folder_chooses_no_module_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = RunFolder.create(tmp_path / "run")
    run.write_record({"env": "strange:Own-v0", "config": {}})
    run.latest.touch()
    for arguments in (["evaluate", "run"], ["record", "run"], ["train", "--resume", "run"]):
        assert cli.main(arguments) == FAILED
        assert "lives in the module 'strange'" in capsys.readouterr().err
        assert not Path("ran").exists()
    # the known ones, and what the user names
    make_run(tmp_path / "known").write_record({"env": "gymnasium:CartPole-v1", "config": {}})
    assert RunFolder.open("known").trusted_environment() == "gymnasium:CartPole-v1"
    cli.main(["evaluate", "run", "--env", "strange:Own-v0"])
    assert "lives in the module" not in capsys.readouterr().err
