"""The tensors of a PyTorch file, without PyTorch and without running the pickle in it.

``torch.save`` writes a zip: a pickle that names the tensors' shapes, and one file for each storage.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import ForeignFileError, Record, read_records

__all__ = ["member", "read_torch_file", "state_dict_of", "zip_of"]

Array = NDArray[Any]

_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
_LARGEST = 2**31  # bytes of one member of a zip


def zip_of(source: str | os.PathLike[str] | bytes) -> zipfile.ZipFile:
    """Open a zip.

    Parameters
    ----------
    source
        Its path, or its bytes.

    Raises
    ------
    ForeignFileError
        There is no such file, or it is no zip.
    """
    name = "the file inside" if isinstance(source, bytes) else str(Path(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return zipfile.ZipFile(io.BytesIO(data))
    except OSError as error:
        raise ForeignFileError(
            f"{name}: expected a readable file, got {error.strerror or error}; look at its path"
        ) from None
    except Exception:  # a forged zip leads zipfile to errors of many kinds
        raise ForeignFileError(
            f"{name}: expected a zip, as torch.save and Stable-Baselines3 write, got another file; "
            "files of PyTorch before 1.6 are saved anew by it first"
        ) from None


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read one member.

    Parameters
    ----------
    archive
        The zip.
    name
        Of the member.

    Raises
    ------
    ForeignFileError
        It is not there, damaged, or larger than 2 GiB.
    """
    try:
        if archive.getinfo(name).file_size > _LARGEST:
            raise ForeignFileError(f"{name}: expected at most 2 GiB, got more")
        return archive.read(name)
    except KeyError:
        raise ForeignFileError(f"expected a member {name!r}, got none") from None
    except ForeignFileError:
        raise
    except Exception as error:  # as above
        raise ForeignFileError(f"{name}: expected a whole member, got {error}") from None


def read_torch_file(source: str | os.PathLike[str] | bytes) -> dict[str, Array]:
    """Return the tensors of what ``torch.save(module.state_dict(), path)`` has written, by name.

    Parameters
    ----------
    source
        Path or bytes of the file.

    Raises
    ------
    ForeignFileError
        Another file, or tensors that are no plain numbers in the memory of a CPU.
    """
    archive = zip_of(source)
    pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ForeignFileError("expected one data.pkl, as torch.save writes it, got another zip")
    folder = pickles[0].removesuffix("data.pkl")
    has_order = f"{folder}byteorder" in archive.namelist()
    is_big = has_order and member(archive, f"{folder}byteorder") == b"big"

    def storage(identity: Any) -> Array:
        if not (isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage"):
            raise ForeignFileError("expected storages of tensors, got another reference")
        kind = getattr(identity[1], "name", "").rpartition(".")[2]
        if kind not in _STORAGES or not str(identity[2]).isalnum():
            raise ForeignFileError(f"expected tensors of plain numbers, got {kind!r:.40}")
        data = member(archive, f"{folder}data/{identity[2]}")
        dtype = np.dtype(_STORAGES[kind])
        if len(data) % dtype.itemsize:
            raise ForeignFileError(f"expected whole numbers of {kind}, got {len(data)} bytes")
        return np.frombuffer(data, dtype.newbyteorder(">" if is_big else "<")).astype(dtype)

    return state_dict_of(read_records(member(archive, pickles[0]), storage))


def state_dict_of(value: Any) -> dict[str, Array]:
    """Arrays by name of a state dict: of records, of PyTorch's tensors, or of arrays.

    Parameters
    ----------
    value
        A mapping, or a record of one. Entries that are no tensors are left out; a mapping within is
        taken in with its name in front.

    Raises
    ------
    ForeignFileError
        It is no mapping.
    """
    if isinstance(value, Record):
        value = value.items
    if not isinstance(value, Mapping):
        raise ForeignFileError(f"expected a state dict, got {type(value).__name__}")
    found: dict[str, Array] = {}
    for name, entry in value.items():
        if isinstance(entry, Record) and (tensor := _tensor(entry)) is not None:
            found[str(name)] = tensor
        elif isinstance(entry, Mapping) or (isinstance(entry, Record) and entry.items):
            found |= {f"{name}.{inner}": array for inner, array in state_dict_of(entry).items()}
        elif hasattr(entry, "detach"):
            found[str(name)] = np.asarray(entry.detach().cpu().numpy())
        elif isinstance(entry, np.ndarray):
            found[str(name)] = entry
    return found


def _tensor(record: Record) -> Array | None:
    name = record.name.rpartition(".")[2]
    arguments = record.arguments
    if name == "_rebuild_parameter" and arguments and isinstance(arguments[0], Record):
        return _tensor(arguments[0])
    if name != "_rebuild_tensor_v2" or len(arguments) < 4:
        return None
    values, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides) if isinstance(shape, tuple) else ()
    last = 0
    if isinstance(values, np.ndarray) and numbers and len(shape) == len(strides):
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if (
        not numbers
        or not isinstance(values, np.ndarray)
        or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers)
        or len(shape) != len(strides)
        or (0 not in shape and last >= len(values))
    ):
        raise ForeignFileError(
            "expected tensors inside their storages, got one beyond; is it whole?"
        )
    if 0 in shape:
        return np.zeros(shape, values.dtype)
    steps = [stride * values.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps).copy()
