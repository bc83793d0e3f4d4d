"""Damaged and hostile checkpoints: each is refused with one sentence, or read exactly.

    python tests/harness/fuzz_checkpoint.py --cases 100000

Half of the cases change bytes and leave the checksum wrong; the others sign what they have made, so
that everything behind the checksum is reached. What is read is compared with `reference_read`, a
reader of a page that shares no code with the package. An audit hook notices whatever else is
opened, imported, compiled or started; memory is limited; crashes and hangs are seen from outside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.supervise import Outcome, run_cases, supervise

ZEROS = "0" * 64
Content = tuple[dict[str, tuple[str, tuple[int, ...], bytes]], dict[str, Any]]


# ---- good files, made by hand


def build(
    header: dict[str, Any] | str | bytes, payload: bytes, *, length: int | None = None
) -> bytes:
    """A safetensors file of this header (text stays as it is)."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":"))
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + payload


def sign(data: bytes) -> bytes:
    """Put the right digest where 64 zeros stand first."""
    return data.replace(ZEROS.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def parts(rng: random.Random) -> tuple[dict[str, Any], bytes]:
    """The header, with no digest yet, and the payload of a good checkpoint."""
    tensors = {
        "policy": np.array([rng.random() for _ in range(rng.randrange(1, 9))], np.float32),
        "count": np.array(float(rng.randrange(99))),
        "counters": np.arange(rng.randrange(4), dtype=np.uint64),
        "actions": np.arange(6, dtype=np.int32).reshape(2, 3),
        "mask": np.array([True, False]),
    }
    header: dict[str, Any] = {
        "__metadata__": {"trpo_fast": json.dumps(record({"iteration": rng.randrange(100)}))}
    }
    payload = b""
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor, start = tensors[name], len(payload)
        payload += tensor.tobytes()
        header[name] = {
            "dtype": {"f4": "F32", "f8": "F64", "u8": "U64", "i4": "I32", "b1": "BOOL"}[
                tensor.dtype.str[1:]
            ],
            "shape": list(tensor.shape),
            "data_offsets": [start, len(payload)],
        }
    return header, payload


def record(content: Any, **changes: Any) -> dict[str, Any]:
    return {"schema": 1, "sha256": ZEROS, "metadata": content, **changes}


# ---- the reader that shares no code


SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


def reference_read(data: bytes) -> Content | None:
    """What a reader may return for these bytes, or None where it must refuse."""
    try:
        return _reference_read(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AssertionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _reference_read(data: bytes) -> Content:
    length = int.from_bytes(data[:8], "little")
    assert len(data) >= 8 + length
    header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
    payload = data[8 + length :]
    entry = json.loads(header.pop("__metadata__")["trpo_fast"], object_pairs_hook=_unique)
    digest = entry["sha256"]
    assert type(entry["schema"]) is int
    assert entry["schema"] == 1
    assert len(digest) == 64
    zeroed = data.replace(digest.encode("ascii"), ZEROS.encode(), 1)
    assert hashlib.sha256(zeroed).hexdigest() == digest
    assert isinstance(entry["metadata"], dict)
    tensors = {}
    for name, place in header.items():
        start, end = place["data_offsets"]
        shape = tuple(place["shape"])
        assert all(type(n) is int and n >= 0 for n in (start, end, *shape))
        assert start <= end <= len(payload)
        size = SIZES[place["dtype"]]
        for n in shape:
            size *= n
        assert size == end - start
        tensors[name] = (place["dtype"], shape, payload[start:end])
    return tensors, entry["metadata"]


DTYPES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "float32": "F32", "int32": "I32",
    "uint32": "U32", "float16": "F16", "int16": "I16", "uint16": "U16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def as_content(tensors: dict[str, Any], metadata: dict[str, Any]) -> Content:
    return {
        name: (DTYPES.get(str(t.dtype), str(t.dtype)), t.shape, t.tobytes())
        for name, t in tensors.items()
    }, metadata


# ---- damage: functions of a random source that return the bytes of a file


def good(rng: random.Random) -> bytes:
    header, payload = parts(rng)
    return sign(build(header, payload))


def flip(data: bytes, rng: random.Random, start: int = 0, end: int | None = None) -> bytes:
    changed, end = bytearray(data), len(data) if end is None else end
    for _ in range(rng.choice((1, 1, 2, 8))):
        if end > start:
            changed[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_bits(rng: random.Random) -> bytes:
    return flip(good(rng), rng)


def truncated(rng: random.Random) -> bytes:
    data = good(rng)
    return data[: rng.randrange(len(data))]


def extended(rng: random.Random) -> bytes:
    return good(rng) + rng.choice((b"\0", b" ", rng.randbytes(rng.randrange(1, 300))))


def moved_bytes(rng: random.Random) -> bytes:
    data = good(rng)
    at, to = sorted(rng.randrange(len(data)) for _ in range(2))
    middle = rng.choice(
        (b"", data[at:to] * 2, bytes(to - at), rng.randbytes(to - at), data[at:to][::-1])
    )
    return data[:at] + middle + data[to:]


def spliced(rng: random.Random) -> bytes:
    one, two = good(rng), good(rng)
    at = rng.randrange(len(one))
    return one[:at] + two[min(len(two), at + rng.randrange(-3, 4)) :]


def wrong_length(rng: random.Random) -> bytes:
    data = good(rng)
    length = int.from_bytes(data[:8], "little")
    wrong = rng.choice(
        (0, 1, 7, length - 1, length + 1, len(data), len(data) - 8, 10**8, 10**8 + 1, 2**31, 2**32,
         2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1, rng.randrange(2**64))
    )  # fmt: skip
    return wrong.to_bytes(8, "little") + data[8:]


class Bomb:
    """Pickled, it would run code where it is loaded."""

    def __reduce__(self) -> Any:
        return (__import__, ("antigravity",))


def foreign(rng: random.Random) -> bytes:
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return pickle.dumps(Bomb(), protocol=rng.randrange(6))
    if kind == 2:
        return b"PK\x03\x04" + rng.randbytes(60)
    if kind == 3:
        return b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    if kind == 4:
        return build({}, b"")
    if kind == 5:
        return build({"__metadata__": {"format": "pt"}}, b"")
    header, payload = parts(rng)
    header["policy"]["dtype"] = "O"
    return sign(build(header, pickle.dumps(Bomb()) + payload))


NUMBERS = (
    -1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64,
    10**30, 1.0, 1.5, 1e308, -0.0, float("nan"), float("inf"),
)  # fmt: skip
ODD_VALUES = (None, True, False, "", "1", "F32", [], {}, [[]], [None], {"a": 1}, *NUMBERS)
NAMES = (
    "", "policy", "__metadata__", "a.b", "../x", "/etc/passwd", "\0", "\ud800", "é", "😀",
    "x" * 5000, "__class__", "count ", "trpo_fast",
)  # fmt: skip


def odd(rng: random.Random) -> Any:
    return rng.choice((*ODD_VALUES, [rng.choice(NUMBERS) for _ in range(rng.randrange(40))]))


def hostile_entry(rng: random.Random) -> bytes:
    """A tensor's dtype, shape or place is not what it was."""
    header, payload = parts(rng)
    for _ in range(rng.choice((1, 1, 1, 3))):
        place = header[rng.choice([name for name in header if name != "__metadata__"])]
        if not isinstance(place, dict):
            continue
        key = rng.choice(("dtype", "shape", "data_offsets"))
        match rng.randrange(6):
            case 0:
                place[key] = odd(rng)
            case 1:
                place.pop(key, None)
            case 2:
                place[rng.choice(("extra", "data_type", ""))] = odd(rng)
            case 3:
                place["dtype"] = rng.choice((*SIZES, "F8_E4M3", "F8_E5M2", "C64", "f32", "O", "V8"))
            case 4:
                numbers = place.get("data_offsets")
                if isinstance(numbers, list) and numbers:
                    numbers[rng.randrange(len(numbers))] = rng.choice(
                        (*NUMBERS, len(payload), len(payload) + 1, rng.randrange(len(payload) + 2))
                    )
            case _:
                numbers = place.get("shape")
                if isinstance(numbers, list):
                    numbers.insert(rng.randrange(len(numbers) + 1), rng.choice(NUMBERS))
    return sign(build(header, payload))


def no_numbers_but_sizes(rng: random.Random) -> bytes:
    """A tensor without a byte: 0 times whatever is 0."""
    header, payload = parts(rng)
    shape = [0, *(rng.choice(NUMBERS[:15]) for _ in range(rng.randrange(1, 40)))]
    rng.shuffle(shape)
    header["empty"] = {"dtype": "F64", "shape": shape, "data_offsets": [len(payload)] * 2}
    return sign(build(header, payload))


def hostile_names(rng: random.Random) -> bytes:
    """Names that are odd, or occur twice."""
    header, payload = parts(rng)
    name = rng.choice(list(header))
    other = rng.choice((*NAMES, *header))
    if rng.random() < 0.5:
        changed = {other if key == name else key: value for key, value in header.items()}
        return sign(build(changed, payload))
    # twice in the text, which no dictionary can hold
    members = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in header.items()]
    twice = header[name] if rng.random() < 0.5 else odd(rng)
    members.insert(rng.randrange(len(members) + 1), f"{json.dumps(name)}:{json.dumps(twice)}")
    return sign(build("{" + ",".join(members) + "}", payload))


def hostile_record(rng: random.Random) -> bytes:
    """Schema, digest or metadata are not what they were."""
    header, payload = parts(rng)
    key = rng.choice(("schema", "sha256", "metadata", "extra"))
    values = {
        "schema": (0, -1, 2, 10**18, True, "1", 1.0, None),
        "sha256": ("", "0" * 63, "0" * 65, "f" * 64, "é" * 64, "F" * 64, None, 0, ["0" * 64]),
        "metadata": ([], None, "x", {"": {}}, {"a": float("nan")}, {"\ud800": 1}, {"a": 10**300}),
        "extra": (1,),
    }[key]
    changed = record({"iteration": 1}, **{key: rng.choice((*values, odd(rng)))})
    if rng.random() < 0.2:
        changed.pop(key)
    text = json.dumps(changed)
    match rng.randrange(8):
        case 0:
            text = text[: rng.randrange(len(text))]
        case 1:
            text = text.replace('"schema"', '"schema": 1, "schema"', 1)
        case 2:
            text = text.replace("}", "," * rng.randrange(2) + "}", 1)
    header["__metadata__"] = rng.choice(
        (
            {"trpo_fast": text},
            {"trpo_fast": text},
            {"trpo_fast": text, "format": "np"},
            {"trpo_fast": changed},
            {"other": text},
            [text],
            text,
            None,
        )
    )
    return sign(build(header, payload))


def deep(rng: random.Random) -> bytes:
    """Nested without end, or numbers without end."""
    header, payload = parts(rng)
    n = rng.choice((10, 500, 5_000, 100_000))
    nest = rng.choice(
        ("[" * n + "]" * n, '{"a":' * n + "1" + "}" * n, "[" * n, "9" * n, "1e" + "9" * n)
    )
    where = rng.randrange(3)
    if where == 0:
        text = json.dumps(record({"deep": 0})).replace('"deep": 0', f'"deep": {nest}')
        header["__metadata__"] = {"trpo_fast": text}
        return sign(build(header, payload))
    raw = json.dumps(header)
    if where == 1:
        raw = raw[:-1] + f',"deep":{nest}' + "}"
    else:
        raw = raw.replace('"shape": [', f'"shape": [{nest},', 1)
    return sign(build(raw, payload))


def other_encoding(rng: random.Random) -> bytes:
    """JSON, but not UTF-8; or UTF-8 that is none."""
    header, payload = parts(rng)
    text = json.dumps(header, ensure_ascii=False)
    match rng.randrange(4):
        case 0:
            raw = text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")))
        case 1:
            raw = text.encode().replace(
                b"policy", rng.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80"))
            )
        case 2:
            raw = text.encode() + rng.choice((b" " * 1000, b"\0" * 8, b"x", b"{}", b"\n"))
        case _:
            raw = rng.choice((b" ", b"\n", b"\0", b"\xef\xbb\xbf")) + text.encode()
    return sign(build(raw, payload))


def signed_flips(rng: random.Random) -> bytes:
    """Bits flipped in the header, and signed again as far as its record can still be read."""
    header, payload = parts(rng)
    data = build(header, payload)
    return sign(flip(data, rng, 0 if rng.random() < 0.1 else 8, len(data) - len(payload)))


def signed_payload(rng: random.Random) -> bytes:
    """Other numbers in good tensors: to be read as they are."""
    header, payload = parts(rng)
    return sign(build(header, flip(payload, rng)))


def long_sentence(rng: random.Random) -> bytes:
    """Values that an error message would not want to repeat."""
    header, payload = parts(rng)
    huge = rng.choice(("x" * 200_000, ["x"] * 50_000, "\n" * 5_000))
    header["__metadata__"] = {"trpo_fast": json.dumps(record({}, schema=huge))}
    return sign(build(header, payload))


DAMAGE: tuple[tuple[Callable[[random.Random], bytes], int], ...] = (
    (good, 1), (flipped_bits, 8), (truncated, 4), (extended, 2), (moved_bytes, 4), (spliced, 2),
    (wrong_length, 3), (foreign, 2), (hostile_entry, 8), (no_numbers_but_sizes, 2),
    (hostile_names, 4), (hostile_record, 4), (deep, 1), (other_encoding, 2), (signed_flips, 8),
    (signed_payload, 2), (long_sentence, 1),
)  # fmt: skip
FAMILIES = [family for family, weight in DAMAGE for _ in range(weight)]


# ---- one case

FORBIDDEN = (
    "exec", "compile", "import", "pickle.find_class", "os.system", "os.exec", "os.posix_spawn",
    "os.spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen", "shutil.rmtree", "os.remove",
    "os.rename",
)  # fmt: skip


class Watch:
    """What the loader does besides reading its file."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] | None = None
        self._folder = str(folder)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        if event in FORBIDDEN or (
            event == "open" and not str(arguments[0]).startswith(self._folder)
        ):
            self.seen.append(f"{event}{arguments[:1]}")


def make_case(folder: Path, seed: int) -> Callable[[int], str]:
    from trpo_fast.checkpoint import CheckpointError, load_checkpoint

    path, watch = folder / "fuzzed", Watch(folder)

    def load(data: bytes) -> Content | str:
        path.write_bytes(data)
        watch.seen = []
        try:
            return as_content(*load_checkpoint(path))
        except CheckpointError as error:
            return str(error)
        finally:
            seen, watch.seen = watch.seen, None
            assert not seen, f"expected nothing but a read, got {seen[:3]}"

    # whatever is imported when first needed
    path.write_bytes(good(random.Random(0)))
    load_checkpoint(path)

    def case(i: int) -> str:
        rng = random.Random(f"{seed} {i}")
        family = FAMILIES[rng.randrange(len(FAMILIES))]
        data = family(rng)
        expected, got = reference_read(data), load(data)
        name = family.__name__
        if isinstance(got, str):
            assert 20 < len(got) < 2000, f"{name}: {len(got)} characters: {got[:200]}"
            assert "\n" not in got, f"{name}: not one sentence: {got[:200]!r}"
            assert family not in (good, signed_payload), f"{name}: refused: {got[:300]}"
            return "refused"
        assert expected is not None, f"{name}: read although it must be refused: {str(got)[:300]}"
        # NaN is not equal to itself, and the order of tensors says nothing
        one, two = (
            (sorted(tensors.items()), repr(metadata)) for tensors, metadata in (got, expected)
        )
        assert one == two, f"{name}: {str(one)[:300]} != {str(two)[:300]}"
        return "read"

    return case


def fuzz(cases: int, seed: int = 0, first: int = 0) -> Outcome:
    """Run the cases in child processes."""
    return supervise([str(Path(__file__).resolve())], first=first, cases=cases, seed=seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(dir=memory, prefix="trpo_fast_fuzz_") as folder:
            case = make_case(Path(folder), options.seed)
            run_cases(
                Path(options.child),
                case,
                first=options.first,
                cases=options.cases,
                memory_megabytes=1024,
            )
        return 0
    outcome = fuzz(options.cases, options.seed, options.first)
    if not outcome.good:
        print(outcome.details())
    print(outcome.summary("checkpoint fuzzer"))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
