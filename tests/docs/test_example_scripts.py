"""Every script of examples/ runs, and says what it should."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = Path(__file__).name

# small arguments, and what must be printed; another example has a test of its own elsewhere
RUNS = {
    "callback": (["4096"], r"return .*, max_kl 0\.01"),
    "cartpole": (["4096"], r"return \d+ ± \d+"),
    "curriculum": (["16384"], r"level [1-4] of 4; success rate on the hardest: \d\.\d\d"),
    "dict_observations": (["4096"], r"delivered \d+% in \d+\.\d steps"),
    "export_c": (["2048"], r"largest difference of 1,000 torques: \d\.\de-0[678] N m of 2"),
    "masks": (["4096"], r"return of an episode -?\d+\.\d, by evaluate"),
    "numerics": (["1024"], r"accepted after \d backtracks[^\n]*\n.*parameter: \de-0[6-9]"),
    "own_environment": (["4096"], r"return -?\d+, success rate \d\.\d\d"),
    "resume": (["2048"], r"after 2048 steps the weights are the same bits"),
    "study": (["2048", "2"], r"max_kl 0\.003 .* ± .*\nmax_kl 0\.03 "),
    "vine": (["2048"], r"return \d+ after [\d,]+ steps, branches included"),
}


def test_every_example_is_run_and_listed() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert set(RUNS) <= scripts
    tests = [path for path in Path(__file__).parents[1].rglob("test_*.py") if path.name != NAME]
    elsewhere = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert not [name for name in scripts - set(RUNS) if f'example("{name}")' not in elsewhere]
    listed = re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(scripts)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "export_c" and not any(map(shutil.which, ("gcc", "clang"))):
        pytest.skip("there is no C compiler")
    arguments, expected = RUNS[name]
    script = EXAMPLES / f"{name}.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")
    assert re.search(expected, capsys.readouterr().out)
