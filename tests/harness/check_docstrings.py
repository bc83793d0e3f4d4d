"""Every public function of the package documents every argument, in NumPy's style.

    python tests/harness/check_docstrings.py             the package but what is excused below
    python tests/harness/check_docstrings.py FOLDER...   these folders or files alone

Public is what has no underscore in front of its name: functions of modules, classes, their methods.
numpydoc validates the docstrings (its manual explains the codes):

GL07, GL08      sections in order; there is a docstring at all
PR01 to PR03    every argument is documented, no other one is, in the order of the signature
PR07, RT03      every argument and every returned value has a description
SS01            there is a summary

The arguments of a constructor stand in the docstring of the class or in its own. A method that
overrides another one of the package inherits its docstring, as with ``inspect.getdoc``. Fields of a
dataclass may be documented beside themselves; a setter has the docstring of its property. The names
behind ``**options: Unpack[...]`` are not checked.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from numpydoc import validate
from numpydoc.hooks.validate_docstrings import AstValidator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "trpo_fast"
CODES = ("GL07", "GL08", "PR01", "PR02", "PR03", "PR07", "RT03", "SS01")

# rooms and files that are excused for a while; may it stay empty
EXCUSED: tuple[str, ...] = ()

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A public class or function, and where it stands."""

    path: Path
    name: str  # dotted, from the module on
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    parents: tuple[ast.Module | ast.ClassDef, ...]


def definitions(path: Path) -> list[Definition]:
    """The public classes and functions of a file, nothing inside of functions."""
    found: list[Definition] = []

    def visit(parents: tuple[ast.Module | ast.ClassDef, ...], names: tuple[str, ...]) -> None:
        for node in parents[-1].body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                found.append(Definition(path, ".".join((*names, node.name)), node, parents))
                if isinstance(node, ast.ClassDef):
                    visit((*parents, node), (*names, node.name))

    visit((ast.parse(path.read_text(encoding="utf-8")),), (path.stem,))
    return found


class Classes:
    """All classes of the package by their simple names, to find what a method overrides."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.methods: dict[str, set[str]] = {}  # that have a docstring
        self.bases: dict[str, set[str]] = {}
        for path in paths:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    documented = {
                        child.name
                        for child in node.body
                        if isinstance(child, Function) and ast.get_docstring(child)
                    }
                    self.methods.setdefault(node.name, set()).update(documented)
                    self.bases.setdefault(node.name, set()).update(map(_simple_name, node.bases))

    def overrides(self, owner: str, method: str) -> bool:
        """Whether a base of the class, or a base of that, has a documented method of this name."""
        seen, waiting = {owner}, set(self.bases.get(owner, ()))
        while waiting:
            base = waiting.pop()
            if method in self.methods.get(base, ()):
                return True
            seen.add(base)
            waiting |= self.bases.get(base, set()) - seen
        return False


def _simple_name(base: ast.expr) -> str:
    """``Sampler`` of ``Sampler``, ``base.Sampler`` and ``Sampler[T]``."""
    if isinstance(base, ast.Subscript):
        base = base.value
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _is_decorated(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether one of the decorators ends with this name, with or without arguments."""
    return any(
        _simple_name(decorator.func if isinstance(decorator, ast.Call) else decorator) == name
        for decorator in node.decorator_list
    )


def _is_unpacked(arguments: ast.arg | None) -> bool:
    """Whether keyword arguments have names and types of their own: ``**options: Unpack[...]``."""
    annotation = getattr(arguments, "annotation", None)
    return isinstance(annotation, ast.Subscript) and _simple_name(annotation.value) == "Unpack"


def complaints(definition: Definition, classes: Classes) -> Iterator[str]:
    """What numpydoc finds wrong with one definition, one line each."""
    node, owner = definition.node, definition.parents[-1]
    codes = set(CODES)
    checked: ast.AST = node
    if isinstance(node, ast.ClassDef):
        if _is_decorated(node, "dataclass"):
            codes -= {"PR01", "PR02", "PR03"}
        if not any(isinstance(c, Function) and c.name == "__init__" for c in node.body):
            codes -= {"PR02"}  # those of an inherited constructor
        for child in node.body:
            is_constructor = isinstance(child, Function) and child.name == "__init__"
            if is_constructor and ast.get_docstring(child):  # the arguments stand there
                yield from _validate(definition, child, (*definition.parents, node), codes)
                codes -= {"PR01", "PR02", "PR03"}
    elif _is_decorated(node, "setter") or _is_decorated(node, "overload"):
        return
    elif isinstance(owner, ast.ClassDef) and classes.overrides(owner.name, node.name):
        codes -= {"GL08"}
        if "Parameters\n" not in (ast.get_docstring(node) or ""):
            codes -= {"PR01"}
    if isinstance(node, Function) and _is_unpacked(node.args.kwarg):
        codes -= {"PR01", "PR02", "PR03"}  # numpydoc does not know the names of a TypedDict
    yield from _validate(definition, checked, definition.parents, codes)


def _validate(
    definition: Definition,
    node: ast.AST,
    parents: tuple[ast.Module | ast.ClassDef, ...],
    codes: set[str],
) -> Iterator[str]:
    report = validate.validate(
        definition.name,
        AstValidator,
        ast_node=node,
        filename=str(definition.path),
        ancestry=list(parents),
    )
    for code, sentence in report["errors"]:
        if code in codes:
            yield f"{definition.path}:{node.lineno}: {definition.name}: {code} {sentence}"


def check(places: Iterable[Path], package: Path = PACKAGE) -> list[str]:
    """All complaints about the files and folders, as ``file:line: name: code sentence``."""
    sources = (p for p in places if p.suffix == ".py")
    classes = Classes(sorted({*package.rglob("*.py"), *sources}))
    files: list[Path] = []
    for place in places:
        files += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [
        line
        for f in files
        if f.suffix == ".py"
        for d in definitions(f)
        for line in complaints(d, classes)
    ]


def main() -> int:
    """Print the complaints and how many each room has; 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("places", nargs="*", type=Path)
    places = parser.parse_args().places
    found = check(places or [p for p in sorted(PACKAGE.iterdir()) if p.name not in EXCUSED])
    for line in found:
        print(line)
    rooms = Counter(str(Path(line.partition(":")[0]).parent) for line in found)
    for room, count in sorted(rooms.items()):
        print(f"{room}: {count}")
    print(f"docstrings: {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
