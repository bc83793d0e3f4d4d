"""Every block of Python in the documentation runs, and prints what stands below it."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from pages import blocks, differences, pages, run, text_of
from trpo_fast import runtime
from trpo_fast.cli.arguments import parse
from trpo_fast.run_folder import RunFolderError

# Pendulum computes in other precisions under NumPy 1, and its episodes go elsewhere: pages only run.
TOLERANCE = 0.02 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else np.inf


@pytest.mark.parametrize("name", pages())
def test_the_blocks_of_a_page_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = runtime.get_num_threads()
    namespace: dict[str, object] = {"__name__": "__main__"}
    try:
        for block in blocks(text_of(name)):
            if block.missing():
                continue
            printed = run(block, namespace, name)
            if block.output is not None:
                found = differences(block.output, printed, relative=TOLERANCE)
                assert not found, "\n".join(found)
    finally:
        runtime.set_num_threads(threads)


@pytest.mark.parametrize("name", pages("sh"))
def test_the_commands_of_a_page_parse(name: str) -> None:
    for block in blocks(text_of(name), "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["trpo-fast"] and len(words) > 1:
                try:
                    parse(words[1:])
                except RunFolderError:  # the folder that it goes on in is not there
                    assert "--resume" in words


def test_a_wrong_block_is_found() -> None:
    page = "```python\nprint('KL 0.0100')\n```\n\n```text\nKL 0.0150\n```\n\n```sh\nls\n```\n"
    (block,) = blocks(page)
    assert block.line == 2
    assert differences(block.output or "", run(block, {}, "page"))
    assert not differences("KL 0.00999", run(block, {}, "page"))
    assert differences("gain 0.0100", "KL 0.0100")
    assert not differences("a\n...\nz 1", "a\nb\nc\nz 1")
    assert differences("a\n...\nz 1", "a\nb\nc\nz 2")
    for need, missing in (
        ("no_such_package", True),
        ("numpy", False),
        ("numpy>=1.0", False),
        ("numpy>=100.1", True),
    ):
        (block,) = blocks(f"<!-- needs: {need} -->\n```python\n1 / 0\n```\n")
        assert bool(block.missing()) is missing
    with pytest.raises(ZeroDivisionError):
        run(blocks("1. a list\n\n    ```python\n    1 / 0\n    ```\n")[0], {}, "page")
