"""Run the Python of pages and write what it prints into them.

    python tests/harness/fill_pages.py docs/tour.md docs/guides/*.md

Only blocks of ``text`` directly below a block of ``python`` are written, and of those only the ones whose
numbers differ by more than the tests allow. Lines ``...`` stay as they are where the rest still agrees.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from pages import blocks, differences, run


def fill(path: Path) -> int:
    """Bring one page up to date; returns how many outputs were written.

    Parameters
    ----------
    path
        The page.
    """
    text = path.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    written: list[tuple[tuple[int, int], str]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks(text):
            if block.missing():
                continue
            printed = run(block, namespace, path.name)
            if block.span and differences(block.output or "", printed):
                written.append((block.span, printed))
    for (start, end), printed in reversed(written):
        text = text[:start] + printed.rstrip() + "\n" + text[end:]
    if written:
        path.write_text(text, encoding="utf-8")
    return len(written)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(os.path.abspath(name))
        print(f"{name}: {fill(page)} outputs written")
