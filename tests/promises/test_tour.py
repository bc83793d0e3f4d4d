"""What the guides say is there: files, functions, tests, programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from definitions import defines
from harness import sanitize

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("README.md", "CONTRIBUTING.md", "tests/README.md", "benchmarks/README.md")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_file_that_a_guide_names_exists(guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:tests|benchmarks|python/trpo_fast|cpp)/[\w/*.-]*[\w/*]", text))
    named |= set(re.findall(r"\]\(([\w/.-]+)\)", text))
    assert named
    for name in sorted(named):
        where = [ROOT, (ROOT / guide).parent]
        assert any(list(folder.glob(name.rstrip("/"))) for folder in where), name


def test_every_stop_of_the_tour_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\| (\d+) \| `([^`]+)` \| `(\w+)` \|", text, flags=re.MULTILINE)
    assert [int(number) for number, *_ in stops] == list(range(1, 16))
    for _, file, function in stops:
        assert defines((ROOT / file).read_text(encoding="utf-8"), function), (file, function)


def test_the_sanitizers_know_what_they_run_and_leave_out() -> None:
    for place in sanitize.TESTS:
        assert (ROOT / place).exists(), place
    for test in sanitize.LEFT_OUT:
        file, _, function = test.partition("::")
        assert defines((ROOT / file).read_text(encoding="utf-8"), function), test
