"""What a release says of itself is the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from trpo_fast import __version__

ROOT = Path(__file__).parents[2]


RECIPE = ROOT / ".ci" / "conda" / "recipe.yaml"

if not RECIPE.exists():
    pytest.skip("a source distribution has no recipe", allow_module_level=True)


def test_the_version_is_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe["context"]["version"] == __version__


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = yaml.safe_load(RECIPE.read_text())
    given = {text.replace(" ", "") for text in recipe["requirements"]["run"]}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^dependencies = \[(.*)\]$", project, flags=re.MULTILINE)
    assert found is not None
    needed = set(re.findall(r'"([^"]+)"', found[1]))
    assert needed <= given
