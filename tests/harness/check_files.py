"""No file grows too long, no private name is used across modules, no two test files share a name.

    python tests/harness/check_files.py

Python files of the package and of the benchmarks have at most 450 lines, C++ files 600. A name with an
underscore in front belongs to the module that defines it, a module with one to its room; the compiled
``_core`` and ``_version`` belong to all. pytest needs test files of different names, and readers too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMITS = (
    ("python/trpo_fast", "*.py", 450),
    ("benchmarks", "*.py", 450),
    ("cpp", "*.cpp", 600),
    ("cpp", "*.h", 600),
)
SHARED = {"_core", "_version"}

# files that are excused for a while; may it stay empty
EXCUSED: set[str] = set()


def long_files(root: Path) -> Iterator[str]:
    """Files with more lines than theirs may have."""
    for folder, pattern, most in LIMITS:
        for path in sorted((root / folder).rglob(pattern)):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > most:
                yield f"{path.relative_to(root)}: expected at most {most} lines, got {lines}"


def open_doors(root: Path) -> Iterator[str]:
    """Private names of the package that another module imports or reads."""
    for path in sorted((root / "python" / "trpo_fast").rglob("*.py")):
        place = path.relative_to(root)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules: set[str] = set()  # names that stand for modules of the package
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (
                node.level or (node.module or "").startswith("trpo_fast")
            ):
                origin = (node.module or "").split(".")
                other_room = node.level != 1 or len(origin) > 1
                if other_room and any(_is_private(part) for part in origin):
                    yield f"{place}:{node.lineno}: the private module {node.module} is imported"
                for alias in node.names:
                    if _is_private(alias.name) and (other_room or node.module):
                        yield f"{place}:{node.lineno}: the private name {alias.name} is imported"
                    modules |= {alias.asname or alias.name}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in modules
                and node.value.id.islower()
                and _is_private(node.attr)
            ):
                yield f"{place}:{node.lineno}: the private {node.value.id}.{node.attr} is used"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in SHARED


def shared_names(root: Path) -> Iterator[str]:
    """Files of tests/ that have the name of another one."""
    first: dict[str, Path] = {}
    for path in sorted((root / "tests").rglob("*.py")):
        place = path.relative_to(root)
        if path.name in ("__init__.py", "conftest.py") or "support" in place.parts:
            continue
        if (other := first.setdefault(path.name, place)) != place:
            yield f"{place}: {other} has the same name"


def check(root: Path = ROOT) -> list[str]:
    """All complaints about the files below a folder, but those about excused files."""
    found = [*long_files(root), *open_doors(root), *shared_names(root)]
    return [line for line in found if line.partition(":")[0] not in EXCUSED]


if __name__ == "__main__":
    complaints = check()
    print("\n".join([*complaints, f"files: {len(complaints)} complaints"]))
    sys.exit(1 if complaints else 0)
