"""Who may include whom in the C++ core.

    python tests/harness/check_includes.py

The public headers know nothing but each other; the sources know the public headers; the bindings know
the public headers and never the sources. The kernels are compiled once per instruction-set level, so the
sources reach them through one table of function pointers alone. Eigen stays in kernels/, pybind11 in
bindings/, OpenMP in src/parallel.h and src/parallel.cpp.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("include", "kernels", "src", "bindings")

# the rooms of the files that a file of a room may include
ALLOWED = {
    "include": {"include"},
    "kernels": {"include", "kernels"},
    "src": {"include", "src"},
    "bindings": {"include", "bindings"},
}
TABLE = "cpp/kernels/kernel_table.h"  # the one file of the kernels that the sources may include too

# what belongs to some files alone: its name, how it looks, where it may stand, and how to say that
OWNED = (
    (
        "Eigen",
        re.compile(r'#\s*include\s*[<"](?:unsupported/)?Eigen/|\bEigen::'),
        re.compile(r"cpp/kernels/"),
        "under cpp/kernels/",
    ),
    (
        "SIMD intrinsics",
        re.compile(r'#\s*include\s*[<"](?:\w*mmintrin|immintrin|arm_neon)\.h'),
        re.compile(r"cpp/kernels/"),
        "under cpp/kernels/",
    ),
    (
        "pybind11",
        re.compile(r'#\s*include\s*[<"](?:pybind11/|Python\.h)|\b(?:pybind11|py)::'),
        re.compile(r"cpp/bindings/"),
        "under cpp/bindings/",
    ),
    (
        "OpenMP",
        re.compile(r'#\s*pragma\s+omp\b|_Pragma\("omp|#\s*include\s*[<"]omp\.h|\bomp_\w+\s*\('),
        re.compile(r"cpp/src/parallel\.(?:h|cpp)$"),
        "in cpp/src/parallel.h and cpp/src/parallel.cpp",
    ),
)
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
QUOTED = re.compile(r'^\s*#\s*include\s*"')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def without_comments(text: str) -> str:
    """The same lines with nothing where comments were."""
    return COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)


def included_file(root: Path, path: Path, name: str) -> Path | None:
    """The file below cpp/ that a name in an include directive of ``path`` stands for, or None."""
    for folder in (path.parent, *(root / "cpp" / room for room in ROOMS)):
        if (folder / name).is_file():
            return (folder / name).resolve()
    return None


def complaints_about(root: Path, path: Path) -> Iterator[str]:
    """Everything that one file includes or names and should not."""
    place = path.relative_to(root).as_posix()
    room = path.relative_to(root / "cpp").parts[0]
    lines = without_comments(path.read_text(encoding="utf-8")).splitlines()
    for number, line in enumerate(lines, 1):
        for what, looks, may_stand, where in OWNED:
            if looks.search(line) and not may_stand.match(place):
                yield f"{place}:{number}: expected {what} only {where}"
        if (found := INCLUDE.match(line)) is None:
            continue
        target = included_file(root, path, found[1])
        if target is None:
            if QUOTED.match(line):
                yield f"{place}:{number}: {found[1]} is no file below cpp/"
            continue
        to = target.relative_to(root.resolve()).as_posix()
        if room == "src" and to == TABLE:
            continue
        if to.split("/")[1] not in ALLOWED[room]:
            yield f"{place}:{number}: a file of {room}/ includes {to}"


def check(root: Path = ROOT) -> list[str]:
    """All complaints about the C++ files below a folder."""
    complaints = []
    for path in sorted((root / "cpp").rglob("*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        if path.relative_to(root / "cpp").parts[0] not in ROOMS:
            complaints.append(
                f"{path.relative_to(root).as_posix()}: expected one of the rooms {', '.join(ROOMS)}"
            )
            continue
        complaints += complaints_about(root, path)
    return complaints


if __name__ == "__main__":
    found = check()
    print("\n".join([*found, f"includes: {len(found)} complaints"]))
    sys.exit(1 if found else 0)
