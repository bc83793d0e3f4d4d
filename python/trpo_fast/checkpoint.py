"""Checkpoints: one safetensors file with tensors, JSON metadata and a checksum.

Loading runs no code. A file is written aside, flushed to the disk and renamed, so that at every
moment the path holds a whole checkpoint; the one before is kept as ``<name>.previous``.

Layout (safetensors): 8 bytes with the header's length, a JSON header, the tensors' bytes. The
header's ``__metadata__`` holds, under ``trpo_fast``, the JSON text ::

    {"schema": 1, "sha256": "...", "metadata": {...}}

where ``sha256`` is the digest of the whole file with these 64 hexadecimal digits set to zero:
any changed byte, in header or tensors, is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import reprlib
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .words import words_of

SCHEMA_VERSION = 1

_KEY = "trpo_fast"
_NO_DIGEST = "0" * 64
_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000  # bytes; the bound of the safetensors format
_KINDS = "fiub"  # floating point, signed and unsigned integers, booleans

# prefixes of environment ids that a file may name without being asked
KNOWN_ENVIRONMENT_MODULES = ("ale_py", "envpool", "gymnasium", "pettingzoo")

Tensors = dict[str, npt.NDArray[Any]]


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message is one sentence."""


def save_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, Any],
) -> Path:
    """Write a checkpoint durably and return its path.

    Parameters
    ----------
    path
        The file; missing folders are created, and of a symbolic link its target is meant. A good
        checkpoint already there is kept as ``<name>.previous``.
    tensors
        Arrays by name; floating point, integer or boolean, any shape.
    metadata
        Anything that JSON can hold.

    Raises
    ------
    CheckpointError
        if something cannot be stored, the disk is full, the folder cannot be written, or a folder,
        a pipe or a device stands there; whatever stood at ``path`` is intact then.
    """
    target = _target_of(path)
    data = _encode(tensors, metadata)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace_durably(target, data)
    except OSError as error:
        kept = "; the checkpoint that was there is intact" if target.is_file() else ""
        raise CheckpointError(
            f"checkpoint: expected to write {len(data)} bytes to {target}, got "
            f"{error.strerror or error}; free space or choose another folder{kept}"
        ) from error
    return target


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Read a checkpoint and return its tensors (fresh, writable arrays) and its metadata.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    CheckpointError
        if there is no file, or it is truncated, altered, foreign, or of a newer version.
    """
    source = Path(path)
    try:
        data, metadata = _read_whole(source)
        return _decode(data), metadata
    except OSError as error:
        problem = f"expected a readable file, got {error.strerror or error}"
    except CheckpointError as error:
        problem = str(error)
    raise CheckpointError(f"checkpoint {source}: {problem}; {_remedy(source)}")


def module_to_trust(env_id: object) -> str | None:
    """The module that making an environment of this id would import, where a file chose it.

    Parameters
    ----------
    env_id
        What a file names, such as ``"CartPole-v1"`` or ``"module:Id-v0"``.

    Returns
    -------
    str or None
        Its name; None where no module is imported, or only one that trpo_fast knows.
    """
    module, colon, name = str(env_id).rpartition(":")
    if module == "pettingzoo" and "." in name:  # a module of another package
        return name
    return module if colon and module not in KNOWN_ENVIRONMENT_MODULES else None


# ---- bytes


def _encode(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    arrays = {name: _storable(name, tensor) for name, tensor in tensors.items()}
    record = {"schema": SCHEMA_VERSION, "sha256": _NO_DIGEST, "metadata": metadata}
    try:
        text = json.dumps(record, separators=(",", ":"), default=_plain_scalar)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint metadata: expected what JSON can hold, got {error}; store numbers, "
            f"texts, lists and dictionaries with text keys, and arrays among the tensors"
        ) from error
    # the digest is taken of the file as it will be, with zeros in its own place
    data = save(arrays, metadata={_KEY: text})
    _check_that_it_can_be_read(data)
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(_NO_DIGEST.encode(), digest.encode(), 1)


def _check_that_it_can_be_read(data: bytes) -> None:
    # keys 1 and "1" are one in JSON; a header has a largest size
    try:
        length = _header_length(data, len(data))
        _parse_header(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except CheckpointError as error:
        raise CheckpointError(
            f"checkpoint metadata: expected what can be read back, {error}; use text keys, and "
            f"store what is large among the tensors"
        ) from error


def _storable(name: object, tensor: object) -> npt.NDArray[Any]:
    if not isinstance(name, str) or name == "__metadata__":
        raise CheckpointError(
            f"checkpoint tensors: expected names as text, got {name!r}; rename the tensor"
        )
    if not isinstance(tensor, (np.ndarray, np.generic)) or tensor.dtype.kind not in _KINDS:
        got = str(getattr(tensor, "dtype", type(tensor).__name__))
        raise CheckpointError(
            f"checkpoint tensor {name!r}: expected an array of floating point numbers, integers "
            f"or booleans, got {got}; convert it first"
        )
    if tensor.dtype.itemsize > 8:
        raise CheckpointError(
            f"checkpoint tensor {name!r}: expected at most 8 bytes a number, got {tensor.dtype}; "
            f"convert it to float64"
        )
    little_endian = tensor.dtype.newbyteorder("<")
    return np.asarray(tensor, dtype=little_endian, order="C")


def _plain_scalar(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


def _read_whole(source: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of an unaltered checkpoint, and its metadata."""
    if not stat.S_ISREG(source.stat().st_mode):  # a pipe would be waited for
        raise CheckpointError("expected a readable file, got a folder, a pipe or a device")
    # the header comes first: a foreign file may be huge
    with source.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        header = file.read(_header_length(start, os.fstat(file.fileno()).st_size))
        digest, metadata = _parse_header(header)
        data = start + header + file.read()
    without_digest = data.replace(digest.encode(), _NO_DIGEST.encode(), 1)
    if hashlib.sha256(without_digest).hexdigest() != digest:
        raise CheckpointError(
            "expected the SHA-256 in its header, got another one: truncated or altered"
        )
    return data, metadata


def _header_length(data: bytes, size: int) -> int:
    if len(data) < _LENGTH_BYTES:
        raise CheckpointError(f"expected a safetensors file, got {size} bytes: truncated")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > _LARGEST_HEADER or length > size - _LENGTH_BYTES:
        raise CheckpointError(
            f"expected a header within the file's {size} bytes, got one of {length}: "
            f"truncated, altered or no safetensors file"
        )
    return length


def _parse_header(header: bytes) -> tuple[str, dict[str, Any]]:
    """Return the stored digest and the metadata; the rest of the header is safetensors' affair."""
    annotations = _json_object(header, "its header").get("__metadata__")
    text = annotations.get(_KEY) if isinstance(annotations, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(
            f"expected the entry {_KEY!r} in its header, got none: not written by trpo_fast"
        )
    record = _json_object(text, "its metadata")
    schema, digest, metadata = (record.get(key) for key in ("schema", "sha256", "metadata"))
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise CheckpointError(f"expected a schema version, got {_short(schema)}: altered")
    if schema > SCHEMA_VERSION:
        raise CheckpointError(
            f"expected schema version {SCHEMA_VERSION} or older, got {_short(schema)}: "
            f"written by a newer trpo_fast, update to read it"
        )
    if not isinstance(digest, str) or len(digest) != len(_NO_DIGEST) or not digest.isascii():
        raise CheckpointError("expected a SHA-256 in its header, got none: altered")
    if not isinstance(metadata, dict):
        raise CheckpointError("expected metadata in its header, got none: altered")
    return digest, metadata


def _json_object(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        if isinstance(text, bytes):  # json would guess the encoding
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"expected JSON as {what}, got other bytes: altered") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"expected a JSON object as {what}, got another value: altered")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON leaves open: which of two entries of one name counts."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"expected every name once, got {_short(twice)} twice: altered")
    return value


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())


def _decode(data: bytes) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        # np.array copies: what safetensors returns is a read-only view of the bytes
        tensors = {name: np.array(tensor) for name, tensor in load(data).items()}
    except (SafetensorError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"expected tensors that NumPy knows, got {words_of(error, 300)}"
        ) from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in _KINDS:
            raise CheckpointError(
                f"expected real numbers as {_short(name)}, got {tensor.dtype}: altered"
            )
    return tensors


def _remedy(source: Path) -> str:
    previous = _previous(source)
    if _is_good(previous):
        return f"the checkpoint before it is {previous}"
    return "check the path, or use another checkpoint of the run"


# ---- files


def _regular_target(path: Path) -> Path:
    """The file to write, behind links; refused where something else than a file stands there."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    for file in (target, _previous(target)):
        try:
            mode = file.lstat().st_mode
        except OSError:  # not there, or not to be seen: writing will tell
            continue
        if not stat.S_ISREG(mode):
            raise CheckpointError(
                f"checkpoint: expected {file} to be a file or not to be there, got "
                f"{_kind(mode)}; choose another path"
            )
    return target


def _target_of(path: str | os.PathLike[str]) -> Path:
    """As `_regular_target`, of whatever was given as a path."""
    try:
        return _regular_target(Path(path))
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # an empty, endless or impossible name
        raise CheckpointError(
            f"checkpoint: expected the path of a file, got {os.fspath(path)!r:.100} "
            f"({words_of(error, 60)}); choose another name"
        ) from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a pipe, a socket or a device"


def _previous(target: Path) -> Path:
    return target.with_name(target.name + ".previous")


def _is_good(path: Path) -> bool:
    try:
        _read_whole(path)
    except (OSError, CheckpointError):
        return False
    return True


def _replace_durably(target: Path, data: bytes) -> None:
    # a random name: two processes that save to one path never share a half-written file
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write_and_sync(aside, data)
        # a damaged file never takes the place of a good one
        if _is_good(target):
            _keep_previous(target)
        os.replace(aside, target)
        _sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _write_and_sync(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep_previous(target: Path) -> None:
    # a second name for the same file, so that the first never disappears
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.previous.tmp")
    try:
        try:
            os.link(target, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(target, aside)
        os.replace(aside, _previous(target))
        # a rename between two names of one file does nothing: they are one after a kill between
        # this function and the next rename
        aside.unlink(missing_ok=True)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    # without this, a power cut may undo the rename
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
