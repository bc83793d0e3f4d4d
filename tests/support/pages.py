"""Pages of the documentation as programs: their blocks of Python are run, what they print is compared.

The blocks of a page share one namespace and run in their order. A block whose next block is one of
``text`` must print just that; numbers may differ a little, as they do between instruction sets, and a
line ``...`` stands for any lines. A comment ``<!-- needs: torch -->``, or ``gymnasium>=1.3``, before a
block names a package without which the block is left out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import math
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>[\w ,.=>]+) -->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    flags=re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass
class Block:
    """One block of code, and what stands below it as its output."""

    text: str
    line: int  # the first line of its text, counted from 1
    needs: tuple[str, ...]
    output: str | None
    span: tuple[int, int] | None  # where the output stands in the page

    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [need for need in self.needs if not _is_met(Requirement(need))]


def pages(language: str = "python") -> list[str]:
    """The pages below ``docs/`` that have blocks in a language, as paths from there.

    Parameters
    ----------
    language
        What stands behind the opening backticks of such a block.
    """
    found = sorted(DOCS.rglob("*.md"))
    return [page.relative_to(DOCS).as_posix() for page in found if blocks(text_of(page), language)]


def text_of(page: Path | str) -> str:
    """The text of a page.

    Parameters
    ----------
    page
        Its path, from ``docs/``.
    """
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "python") -> list[Block]:
    """The blocks of a page in one language, in their order.

    Parameters
    ----------
    page
        Its text.
    language
        What stands behind the opening backticks.
    """
    found = []
    matches = list(_BLOCK.finditer(page))
    for match, follows in zip_longest(matches, matches[1:]):
        if match["language"] != language:
            continue
        output = span = None
        between = page[match.end() : follows.start()] if follows else "x"
        if follows and follows["language"] == "text" and not between.strip():
            output, span = follows["text"], follows.span("text")
        found.append(
            Block(
                re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
                page[: match.start("text")].count("\n") + 1,
                tuple(re.findall(r"[\w.=>]+", match["needs"] or "")),
                output,
                span,
            )
        )
    return found


def run(block: Block, namespace: dict[str, Any], name: str) -> str:
    """Run a block and return what it printed.

    Parameters
    ----------
    block
        The block.
    namespace
        Names that earlier blocks of the page have left; changed in place.
    name
        Of the page, for tracebacks.
    """
    printed = io.StringIO()
    # lines as in the page, so that a traceback names the right one
    code = compile("\n" * (block.line - 1) + block.text, name, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def _is_met(requirement: Requirement) -> bool:
    if importlib.util.find_spec(requirement.name) is None:
        return False
    if not requirement.specifier:
        return True
    return requirement.specifier.contains(importlib.metadata.version(requirement.name))


def differences(expected: str, got: str, *, relative: float = 0.02) -> list[str]:
    """How a page's output differs from what was printed: one text a line, none if it does not.

    Parameters
    ----------
    expected
        Of the page; a line ``...`` stands for any lines.
    got
        Printed.
    relative
        Largest difference of two numbers, over the larger one; may be infinite.
    """
    wanted = expected.rstrip().splitlines()
    lines = got.rstrip().splitlines()
    if "..." in wanted:
        cut = wanted.index("...")
        tail = len(wanted) - cut - 1
        wanted = wanted[:cut] + (wanted[cut + 1 :] if tail else [])
        lines = lines[:cut] + (lines[len(lines) - tail :] if tail else [])
    if len(wanted) != len(lines):
        return [f"{len(wanted)} lines on the page, {len(lines)} printed:\n{got}"]
    return [
        f"page:    {one}\nprinted: {other}"
        for one, other in zip(wanted, lines, strict=True)
        if not _same(one.rstrip(), other.rstrip(), relative)
    ]


def _same(one: str, other: str, relative: float) -> bool:
    if one == other:
        return True
    # widths of columns move with the digits of numbers
    if _NUMBER.sub("#", one).split() != _NUMBER.sub("#", other).split():
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(math.isclose(_value(a), _value(b), rel_tol=relative, abs_tol=1e-6) for a, b in pairs)


def _value(text: str) -> float:
    return float(text.replace(",", ""))
