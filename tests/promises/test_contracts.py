"""Every contract of the house fails where a copy of the sources breaks it on purpose."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import check_files, check_includes

ROOT = Path(__file__).resolve().parents[2]

needs_import_linter = pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="needs the lint extra: import-linter"
)
needs_numpydoc = pytest.mark.skipif(
    importlib.util.find_spec("numpydoc") is None, reason="needs the lint extra: numpydoc"
)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the Python sources, which a test may break."""
    shutil.copytree(
        ROOT / "python",
        tmp_path / "python",
        ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.dylib"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(house: Path, file: str, text: str) -> None:
    """Append to a file of the package, or make it."""
    with (house / "python" / "trpo_fast" / file).open("a", encoding="utf-8") as stream:
        stream.write(text)


# ---- layers


def lint_imports(house: Path) -> tuple[int, str]:
    """Exit status and words of import-linter about a copy."""
    answer = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()",
         "--no-cache", str(house / "pyproject.toml")],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "python")},
        capture_output=True,
        text=True,
    )  # fmt: skip
    return answer.returncode, answer.stdout + answer.stderr


@needs_import_linter
def test_the_rooms_as_they_are_keep_the_layers(house: Path) -> None:
    status, words = lint_imports(house)
    assert status == 0, words
    assert "0 broken" in words


@needs_import_linter
@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("core/policy.py", "from ..rollout import Rollout\n", "core is not allowed to import"),
        (
            "rollout/data.py",
            "def later() -> None:\n    from ..training import agent  # even where it is late\n",
            "rollout is not allowed to import trpo_fast.training",
        ),
        (
            "training/agent.py",
            "import trpo_fast.algorithms.npg\n",
            "training is not allowed to import trpo_fast.algorithms",
        ),
        (
            "config/settings.py",
            "from ..envs import making\n",
            "config is not allowed to import trpo_fast.envs",
        ),
        (
            "rollout/sampler.py",
            "from .in_process import InProcessSampler\n",
            "sampler is not allowed to import trpo_fast.rollout.in_process",
        ),
        ("attic.py", "", "- trpo_fast.attic"),
    ],
)
def test_an_import_upwards_is_found(house: Path, file: str, line: str, words: str) -> None:
    add(house, file, line)
    status, answer = lint_imports(house)
    assert status == 1, answer
    assert words in answer


# ---- docstrings

DOCUMENTED = '''"""A module."""


def double(x: int) -> int:
    """Twice a number.

    Parameters
    ----------
    x
        The number, at least 0.

    Returns
    -------
    int
        2 x.
    """
    return 2 * x


class Base:
    """A class.

    Parameters
    ----------
    size
        Width of it, in metres.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def grow(self, by: int) -> None:
        """Make it larger.

        Parameters
        ----------
        by
            How much, in metres.
        """
        self.size += by


class Child(Base):
    """A child, made as its base is."""

    def grow(self, by: int) -> None:
        self.size += 2 * by


def _private(x: int) -> int:
    return x
'''


@needs_numpydoc
def test_documented_functions_pass(tmp_path: Path) -> None:
    from harness import check_docstrings

    (tmp_path / "module.py").write_text(DOCUMENTED)
    assert check_docstrings.check([tmp_path], tmp_path) == []


@needs_numpydoc
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x: int) -> int:\n    \"\"\"Twice", "x: int, y: int) -> int:\n    \"\"\"Twice", "PR01"),
        ("    x\n        The number", "    z\n        The number", "PR02"),
        ("    x\n        The number, at least 0.\n", "    x\n", "PR07"),
        ('    """A class.', '    """', "PR01"),
        ("size: int) -> None", "size: int, colour: str) -> None", "PR01"),
        ("class Child(Base)", "class Child", "GL08"),
        ("def _private", "def public", "GL08"),
    ],
)  # fmt: skip
def test_an_argument_without_words_is_found(old: str, new: str, words: str, tmp_path: Path) -> None:
    from harness import check_docstrings

    assert old in DOCUMENTED
    text = DOCUMENTED.replace(old, new, 1)
    if words == "PR01" and old.endswith("A class."):  # the whole section goes
        text = text.replace("    Parameters\n    ----------\n    size\n", "    size\n", 1)
    (tmp_path / "module.py").write_text(text)
    assert any(f" {words} " in line for line in check_docstrings.check([tmp_path], tmp_path))


# ---- files


def test_the_files_as_they_are() -> None:
    assert check_files.check() == []


def test_long_files_open_doors_and_shared_names_are_found(house: Path) -> None:
    before = check_files.check(house)
    add(house, "long.py", "x = 1\n" * 451)
    add(house, "doors.py", "from .rollout.sampler import _secret\n")
    add(house, "rollout/back.py", "from ..snapshots import _graph\n")
    add(house, "rollout/window.py", "from .. import extras\nsecret = extras._secret\n")
    add(house, "rollout/fine.py", "from .. import _core\nfrom . import _neighbour\n")
    (house / "cpp" / "src").mkdir(parents=True)
    (house / "cpp" / "src" / "long.h").write_text("\n" * 601)
    for room in ("core", "envs"):
        (house / "tests" / room).mkdir(parents=True)
        (house / "tests" / room / "test_same.py").touch()
    assert sorted(set(check_files.check(house)) - set(before)) == [
        "cpp/src/long.h: expected at most 600 lines, got 601",
        "python/trpo_fast/doors.py:1: the private name _secret is imported",
        "python/trpo_fast/long.py: expected at most 450 lines, got 451",
        "python/trpo_fast/rollout/back.py:1: the private name _graph is imported",
        "python/trpo_fast/rollout/window.py:2: the private extras._secret is used",
        "tests/envs/test_same.py: tests/core/test_same.py has the same name",
    ]


# ---- includes of the C++ core


def test_the_includes_as_they_are() -> None:
    assert check_includes.check() == []


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("src/gae.cpp", "#include <Eigen/Core>", "expected Eigen only under cpp/kernels/"),
        ("src/gae.cpp", "Eigen::VectorXd x;", "expected Eigen only under cpp/kernels/"),
        ("src/gae.cpp", "#include <immintrin.h>", "expected SIMD intrinsics only under"),
        ("src/gae.cpp", "#include <pybind11/numpy.h>", "expected pybind11 only under"),
        ("include/trpo_fast/gae.h", "#include <Python.h>", "expected pybind11 only under"),
        ("kernels/layout.h", "void f(pybind11::list);", "expected pybind11 only under"),
        ("src/gae.cpp", "#pragma omp parallel for", "expected OpenMP only in cpp/src/parallel.h"),
        ("bindings/module.cpp", "int n = omp_get_max_threads();", "expected OpenMP only in"),
        ("include/trpo_fast/gae.h", '#include "tiling.h"', "include/ includes cpp/src/tiling.h"),
        ("bindings/module.cpp", '#include "dispatch.h"', "bindings/ includes cpp/src/dispatch.h"),
        ("bindings/module.cpp", '#include "../src/rng.cpp"', "bindings/ includes cpp/src/rng.cpp"),
        ("bindings/module.cpp", '#include "matmul.h"', "bindings/ includes cpp/kernels/matmul.h"),
        ("src/gae.cpp", '#include "matmul.h"', "src/ includes cpp/kernels/matmul.h"),
        ("src/gae.cpp", '#include "arrays.h"', "src/ includes cpp/bindings/arrays.h"),
        ("kernels/layout.h", '#include "aligned.h"', "kernels/ includes cpp/src/aligned.h"),
        ("src/gae.cpp", '#include "nothing.h"', "nothing.h is no file below cpp/"),
        ("attic/old.h", "int f();", "expected one of the rooms"),
    ],
)
def test_an_include_across_rooms_is_found(file: str, line: str, words: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cpp", tmp_path / "cpp")
    broken = tmp_path / "cpp" / file
    broken.parent.mkdir(exist_ok=True)
    before = broken.read_text(encoding="utf-8") if broken.exists() else ""
    broken.write_text(before + line + "\n", encoding="utf-8")
    complaints = check_includes.check(tmp_path)
    assert len(complaints) == 1, complaints
    assert complaints[0].startswith(f"cpp/{file}")
    assert words in complaints[0]


def test_comments_and_the_kernel_table_are_no_breach(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cpp", tmp_path / "cpp")
    with (tmp_path / "cpp" / "src" / "gae.cpp").open("a", encoding="utf-8") as stream:
        stream.write(
            '#include "kernel_table.h"\n// #include <Eigen/Core>\n/* Eigen::Map\npy:: */\n'
        )
    assert check_includes.check(tmp_path) == []


def test_the_check_of_includes_ends_with_its_verdict(tmp_path: Path) -> None:
    harness = tmp_path / "tests" / "harness"
    harness.mkdir(parents=True)
    script = Path(shutil.copy(ROOT / "tests" / "harness" / "check_includes.py", harness))
    shutil.copytree(ROOT / "cpp", tmp_path / "cpp")
    assert subprocess.run([sys.executable, script], check=False).returncode == 0
    (tmp_path / "cpp" / "src" / "gae.cpp").write_text("#include <Eigen/Core>\n")
    assert subprocess.run([sys.executable, script], check=False).returncode == 1
