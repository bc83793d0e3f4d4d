"""The pages about the methods: whole, and true as far as a machine can tell."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from definitions import defines, resolve
from trpo_fast.algorithms import ALGORITHMS, PAGES, algorithm_class, page
from trpo_fast.cli.arguments import Train, parse
from trpo_fast.config import TRPOConfig

ROOT = Path(__file__).parents[2]
SECTIONS = [
    "Equations", "Quick facts", "Pseudocode", "When to use it", "Command", "Departures from the"
]  # fmt: skip


def quoted(text: str) -> list[str]:
    """What stands between backticks, outside of blocks of code."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_every_page_is_listed_and_every_algorithm_has_one() -> None:
    files = {file.name for file in resources.files("trpo_fast.algorithms").iterdir()}
    pages = {f"{name}.md".replace("-", "_") for name in PAGES}
    assert {name for name in files if name.endswith(".md")} == pages
    assert set(ALGORITHMS) <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_parts_and_fits_two_screens(name: str) -> None:
    text = page(name)
    lines = text.splitlines()
    assert lines[0].startswith("# ")
    found = [line[3:] for line in lines if line.startswith("## ")]
    assert len(found) == len(SECTIONS)
    for got, expected in zip(found, SECTIONS, strict=True):
        assert got.startswith(expected)
    assert len(lines) <= 80
    assert max(len(line) for line in lines if not line.startswith("|")) <= 106
    # TeX would be read by no terminal
    assert "$" not in text
    assert "\\" not in text


@pytest.mark.parametrize("name", PAGES)
def test_every_reference_to_code_resolves(name: str) -> None:
    references = 0
    for text in quoted(page(name)):
        if re.fullmatch(r"trpo_fast(\.\w+)+", text):
            assert resolve(text) is not None
            references += 1
        elif "/" in text and not text.startswith(("trpo-fast", "--", "policy/")):
            file, _, function = text.partition(": ")
            assert (ROOT / file).is_file(), text
            references += bool(function)
            assert not function or defines((ROOT / file).read_text(encoding="utf-8"), function), (
                text
            )
        elif text in ("vine", "trpo", "gae") or text in PAGES:
            continue
        elif text.startswith("--"):
            flag = text.split()[0].removeprefix("--").removeprefix("no-").replace("-", "_")
            known = {*TRPOConfig().to_dict()}
            for algorithm in ALGORITHMS:
                for key, value in algorithm_class(algorithm).config_type().to_dict().items():
                    known |= {key} | (set(value) if isinstance(value, dict) else set())
            assert flag in known, text
    assert references >= 3


def test_the_finder_of_definitions_is_no_rubber_stamp() -> None:
    source = (ROOT / "cpp/src/trust_region_update.cpp").read_text(encoding="utf-8")
    assert defines(source, "solve")
    assert defines(source, "boundary")
    assert not defines(source, "backtracking_line_search")  # called there, defined elsewhere
    assert not defines(source, "surrogate_gradient")
    assert not defines(source, "nothing_of_that_name")
    with pytest.raises(AttributeError):
        resolve("trpo_fast.algorithms.vine.VineTPRO")


@pytest.mark.parametrize("name", PAGES)
def test_every_command_parses(name: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", page(name), flags=re.DOTALL)
    assert blocks
    for line in "".join(blocks).splitlines():
        program, *arguments = shlex.split(line)
        if program == "trpo-fast":
            command = parse(arguments)
            assert isinstance(command, Train)
            algorithm_class(command.algorithm).config_type.from_dict(command.config.to_dict())
            if name in ALGORITHMS:
                assert command.algorithm == name
        else:
            assert program == "python"
            script, *flags = arguments
            shown = subprocess.run(
                [sys.executable, ROOT / script, "--help"],
                capture_output=True, text=True, check=True, cwd=ROOT,
            ).stdout  # fmt: skip
            for flag in flags:
                assert not flag.startswith("--") or flag in shown, flag
