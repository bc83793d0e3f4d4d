"""Checkpoints: bitwise round trips, damage of every kind, and interrupted writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import checkpoint
from trpo_fast.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

DATA = Path(__file__).parent / "data"

METADATA: dict[str, Any] = {
    "iteration": 7,
    "timesteps": 14336,
    "best_return": -12.5e-7,
    "env": "Pendulum-v1",
    "config": {"gamma": 0.99, "hidden_sizes": [64, 64], "n_threads": None},
}


def make_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "policy": rng.standard_normal(37).astype(np.float32),
        "value": rng.standard_normal((5, 4)),
        "count": np.array(12.0),
        "counters": np.arange(6, dtype=np.uint64),
        "actions": np.arange(6, dtype=np.int32).reshape(2, 3),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }


def assert_bitwise(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert tensor.shape == right[name].shape, name
        assert tensor.tobytes() == right[name].tobytes(), name


# ---- what comes back


def test_round_trip_is_bitwise(tmp_path: Path) -> None:
    tensors = make_tensors()
    tensors["special"] = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    path = save_checkpoint(tmp_path / "run" / "latest.safetensors", tensors, METADATA)
    loaded, metadata = load_checkpoint(path)
    assert_bitwise(tensors, loaded)
    assert metadata == METADATA
    assert all(tensor.flags.writeable for tensor in loaded.values())


def test_strided_and_big_endian_arrays_keep_their_values(tmp_path: Path) -> None:
    grid = np.arange(12.0).reshape(3, 4)
    tensors = {"t": grid.T, "s": grid[:, ::2], "b": grid.astype(">f8"), "scalar": np.float32(2.5)}
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path / "c", tensors, {}))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)


def test_metadata_may_hold_numpy_scalars_and_any_text(tmp_path: Path) -> None:
    metadata = {"a": np.float32(0.5), "n": np.int64(3), "text": 'é "quoted" \\ 0' + "0" * 64}
    _, loaded = load_checkpoint(save_checkpoint(tmp_path / "c", {}, metadata))
    assert loaded == {"a": 0.5, "n": 3, "text": metadata["text"]}


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = save_checkpoint(tmp_path / "c.safetensors", make_tensors(), METADATA)
    assert_bitwise(make_tensors(), load_file(path))


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one = save_checkpoint(tmp_path / "one", make_tensors(), METADATA)
    two = save_checkpoint(tmp_path / "two", make_tensors(), METADATA)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "metadata", "word"),
    [
        ({"a": np.array(["text"])}, {}, "array of floating point"),
        ({"a": np.array([object()])}, {}, "array of floating point"),
        ({"a": [1.0, 2.0]}, {}, "got list"),
        ({"a": np.zeros(2, dtype=np.complex128)}, {}, "complex128"),
        ({3: np.zeros(2)}, {}, "names as text"),
        ({}, {"a": object()}, "JSON"),
        ({}, {"a": np.zeros(2)}, "a ndarray"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, tensors: Any, metadata: Any, word: str
) -> None:
    with pytest.raises(CheckpointError, match=word):
        save_checkpoint(tmp_path / "c", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


# ---- damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "c"
    return save_checkpoint(path, make_tensors(), METADATA).read_bytes()


def assert_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    for part in (str(path), "expected", "got"):
        assert part in message
    assert "\n" not in message


def test_truncation_at_every_byte_is_refused(tmp_path: Path, intact: bytes) -> None:
    for length in range(len(intact)):
        assert_refused(tmp_path / "c", intact[:length])


def test_any_flipped_bit_is_refused(tmp_path: Path, intact: bytes) -> None:
    for position in range(len(intact)):
        flipped = bytearray(intact)
        flipped[position] ^= 1 << (position % 8)
        assert_refused(tmp_path / "c", bytes(flipped))


def test_case_changes_in_the_header_are_refused(tmp_path: Path, intact: bytes) -> None:
    # bit 5 turns 1e-06 into 1E-06 and a digest's a into A: the same to a lenient parser
    header = int.from_bytes(intact[:8], "little")
    for position in range(8, 8 + header):
        flipped = bytearray(intact)
        flipped[position] ^= 0x20
        assert_refused(tmp_path / "c", bytes(flipped))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 64,
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(200),
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    assert_refused(tmp_path / "c", data)


def test_trailing_bytes_are_refused(tmp_path: Path, intact: bytes) -> None:
    assert_refused(tmp_path / "c", intact + b"\x00")


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    for metadata in (None, {"format": "pt"}, {"trpo_fast": "no JSON"}, {"trpo_fast": "[1]"}):
        assert_refused(tmp_path / "c", save({"a": np.zeros(3)}, metadata=metadata))


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"schema": 1},
        {"schema": 1, "sha256": "0" * 64},
        {"schema": True, "sha256": "0" * 64, "metadata": {}},
        {"schema": "1", "sha256": "0" * 64, "metadata": {}},
        {"schema": 1, "sha256": "é" * 64, "metadata": {}},
        {"schema": 1, "sha256": "0" * 64, "metadata": []},
    ],
)
def test_incomplete_header_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    from safetensors.numpy import save

    assert_refused(tmp_path / "c", save({}, metadata={"trpo_fast": json.dumps(record)}))


def test_newer_schema_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", 2)
    path = save_checkpoint(tmp_path / "c", make_tensors(), METADATA)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="got 2: written by a newer trpo_fast, update"):
        load_checkpoint(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="expected a readable file"):
            load_checkpoint(path)


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="got a folder, a pipe or a device"):
        load_checkpoint(tmp_path / "pipe")


def test_metadata_that_would_not_come_back_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"got '1' twice.*use text keys"):
        save_checkpoint(tmp_path / "c", {}, {1: "a", "1": "b"})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


# ---- files of older versions


@pytest.mark.parametrize("file", sorted(DATA.glob("checkpoint_schema_*.safetensors")), ids=str)
def test_a_stored_file_of_each_schema_keeps_loading(file: Path) -> None:
    from trpo_fast import TRPO

    expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    agent = TRPO.load(file)
    assert agent.timesteps == expected["timesteps"]
    observations = np.array(expected["observations"], np.float32)
    # logits rather than actions: these must come out the same on every processor, nearly
    normalized = agent.policy.normalize(observations)
    outputs = agent.policy.outputs(normalized, normalized=True)
    np.testing.assert_allclose(outputs, expected["outputs"], rtol=1e-4)
    np.testing.assert_allclose(
        agent.value_function.predict(normalized), expected["values"], rtol=1e-4
    )
    agent.learn(64, progress=False)
    assert agent.timesteps == expected["timesteps"] + 64
    agent.close()


def test_the_current_schema_has_a_stored_file() -> None:
    assert (DATA / f"checkpoint_schema_{checkpoint.SCHEMA_VERSION}.safetensors").is_file()


# ---- interrupted writes


def test_previous_checkpoint_is_kept_and_named_after_damage(tmp_path: Path) -> None:
    path = tmp_path / "c"
    for seed in range(3):
        save_checkpoint(path, make_tensors(seed), {"seed": seed})
    previous = tmp_path / "c.previous"
    assert load_checkpoint(path)[1] == {"seed": 2}
    assert load_checkpoint(previous)[1] == {"seed": 1}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"the checkpoint before it is .*c\.previous"):
        load_checkpoint(path)
    # a damaged file never takes the place of a good one
    save_checkpoint(path, make_tensors(3), {"seed": 3})
    assert load_checkpoint(path)[1] == {"seed": 3}
    assert load_checkpoint(previous)[1] == {"seed": 1}


@pytest.mark.parametrize("function", ["fsync", "replace", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    path = save_checkpoint(tmp_path / "c", make_tensors(0), {"seed": 0})

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    if function == "link":  # not every file system has links: then the old file is copied
        save_checkpoint(path, make_tensors(1), {"seed": 1})
        assert load_checkpoint(tmp_path / "c.previous")[1] == {"seed": 0}
        return
    with pytest.raises(CheckpointError, match=f"{os.strerror(code)}.*that was there is intact"):
        save_checkpoint(path, make_tensors(1), {"seed": 1})
    monkeypatch.undo()
    assert_bitwise(make_tensors(0), load_checkpoint(path)[0])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "c", make_tensors(0), {"seed": 0})

    def write_to_full_device(path: Path, data: bytes) -> None:
        with open("/dev/full", "wb") as file:
            file.write(data)

    monkeypatch.setattr(checkpoint, "_write_and_sync", write_to_full_device)
    with pytest.raises(CheckpointError, match="No space left on device; free space"):
        save_checkpoint(path, make_tensors(1), {"seed": 1})
    assert load_checkpoint(path)[1] == {"seed": 0}


@contextlib.contextmanager
def bound_by_permissions(folder: Path) -> Iterator[None]:
    """Be a user whom permissions bind: the superuser gives the folder away and becomes nobody."""
    nobody = 65534
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="needs folder permissions")
def test_read_only_folder_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folder is closed to other users
        folder = Path(place)
        path = save_checkpoint(folder / "c", make_tensors(0), {"seed": 0})
        with bound_by_permissions(folder):
            folder.chmod(0o500)
            try:
                with pytest.raises(CheckpointError, match="Permission denied"):
                    save_checkpoint(path, make_tensors(1), {"seed": 1})
                assert load_checkpoint(path)[1] == {"seed": 0}
            finally:
                folder.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes and links")
def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    pipe, real, link = tmp_path / "pipe", tmp_path / "folder" / "real", tmp_path / "link"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match="got a pipe, a socket or a device"):
        save_checkpoint(pipe, make_tensors(), {})
    assert pipe.is_fifo()
    if os.geteuid() == 0:  # who may write /dev could replace what is there
        with pytest.raises(CheckpointError, match="got a pipe, a socket or a device"):
            save_checkpoint("/dev/null", make_tensors(), {})
        assert Path("/dev/null").is_char_device()
    # nor what stands where the one before is kept
    os.mkfifo(tmp_path / "c.previous")
    with pytest.raises(CheckpointError, match=r"c\.previous to be a file or not to be there"):
        save_checkpoint(tmp_path / "c", make_tensors(), {})
    assert not (tmp_path / "c").exists()
    # a link stays one
    save_checkpoint(real, make_tensors(0), {"seed": 0})
    link.symlink_to(real)
    save_checkpoint(link, make_tensors(1), {"seed": 1})
    assert link.is_symlink()
    assert load_checkpoint(real)[1] == {"seed": 1}
    assert load_checkpoint(real.with_name("real.previous"))[1] == {"seed": 0}


def test_path_that_is_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got a folder; choose another path"):
        save_checkpoint(tmp_path, make_tensors(), {})


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("call", ["before_replace_1", "before_replace_2", "half_written"])
def test_killed_while_writing_leaves_a_whole_checkpoint(tmp_path: Path, call: str) -> None:
    path = save_checkpoint(tmp_path / "c", make_tensors(0), {"seed": 0})
    script = f"""
import os, signal, sys
import numpy as np
from trpo_fast import checkpoint

def die():
    os.kill(os.getpid(), signal.SIGKILL)

calls, rename = 0, os.replace
def replace(*arguments):
    global calls
    calls += 1
    if {call!r} == f"before_replace_{{calls}}":
        die()
    rename(*arguments)
os.replace = replace

def half(path, data):
    path.write_bytes(data[: len(data) // 2])
    die()
if {call!r} == "half_written":
    checkpoint._write_and_sync = half

checkpoint.save_checkpoint({str(path)!r}, {{"a": np.ones(1000)}}, {{"seed": 1}})
"""
    finished = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert finished.returncode == -signal.SIGKILL
    assert_bitwise(make_tensors(0), load_checkpoint(path)[0])
    # and the next save is not disturbed by what was left, nor does it leave more
    left = set(tmp_path.iterdir())
    save_checkpoint(path, make_tensors(2), {"seed": 2})
    assert load_checkpoint(path)[1] == {"seed": 2}
    assert load_checkpoint(tmp_path / "c.previous")[1] == {"seed": 0}
    assert set(tmp_path.iterdir()) <= left | {tmp_path / "c.previous"}
