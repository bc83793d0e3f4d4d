"""Run the tests of the core under a sanitizer.

    python tests/harness/sanitize.py address    # addresses and undefined behaviour; needs GCC
    python tests/harness/sanitize.py thread     # data races; needs clang++ and LLVM's OpenMP

Builds the package with the CMake preset of that name into a temporary environment, which takes
everything else from the present one, and runs the tests in it. What follows is for pytest:
`sanitize.py thread -x tests/core/test_gae.py`. The variable CXX names another compiler, for example
CXX=clang++-19; the runtime of LLVM 14 ends in a fault where it is preloaded.

GCC's OpenMP runtime synchronises threads in ways that no sanitizer sees, so each of its regions
would be reported. LLVM's tells its Archer tool, which is found beside it, and that tells the
sanitizer.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/core",
    "tests/algorithms",
    *(f"tests/promises/test_{name}.py" for name in ("golden", "threads", "levels")),
)
LEFT_OUT = (
    # memory, of which a sanitizer needs its own
    "tests/promises/test_threads.py::test_an_update_allocates_nothing_once_its_size_was_seen",
    "tests/promises/test_threads.py::test_memory_of_a_large_update_stays_within_the_budget",
    # how well one seed learns hangs on the last digits, which another compiler rounds in its way
    "tests/algorithms/test_vine.py::test_cartpole_learns_by_vine",
)


@dataclass(frozen=True, kw_only=True)
class Sanitizer:
    """How to build for one, and how to run what was built."""

    preset: str
    compiler: str
    preloaded: tuple[str, ...]  # libraries that come before all others of the process
    variables: dict[str, str]


def address() -> Sanitizer:
    compiler = os.environ.get("CXX", "g++")
    return Sanitizer(
        preset="asan-ubsan",
        compiler=compiler,
        preloaded=(library(compiler, "libasan.so"), library(compiler, "libstdc++.so")),
        # the interpreter itself keeps memory to its end
        variables={"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    )


def thread() -> Sanitizer:
    compiler = os.environ.get("CXX", "clang++")
    return Sanitizer(
        preset="tsan",
        compiler=compiler,
        preloaded=(library(compiler, f"libclang_rt.tsan-{platform.machine()}.so"),),
        variables={
            "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
            "OMP_TOOL_LIBRARIES": library(compiler, "libarcher.so"),
        },
    )


def library(compiler: str, name: str) -> str:
    """Where the compiler has a library of that name."""
    told = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
    # Debian's clang does not look into the folder beside its own
    beside = Path(shutil.which(compiler) or compiler).resolve().parents[1] / "lib" / name
    for path in (Path(told), beside):
        if path.is_file():
            return str(path)
    raise SystemExit(f"{compiler}: expected {name} beside it, got none; install it, or set CXX")


def install(folder: Path, tool: Sanitizer) -> Path:
    """An environment with a core built for it; its interpreter."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    # folders named in a .pth file come last, and their own .pth files, an editable install say,
    # are not read
    outer = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "outer.pth").write_text("\n".join(outer) + "\n")
    settings = (
        f"build-dir={folder / 'build'}",
        f"cmake.args=--preset={tool.preset}",
        f"cmake.define.CMAKE_CXX_COMPILER={tool.compiler}",
        "cmake.build-type=RelWithDebInfo",
        "install.strip=false",
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, ROOT]
        + [part for setting in settings for part in ("-C", setting)],
        check=True,
    )
    return python


def check(tool: Sanitizer, pytest_arguments: list[str]) -> tuple[int, list[str]]:
    """Build and run the tests; how pytest ended, and the reports."""
    with tempfile.TemporaryDirectory(prefix="trpo_fast_sanitize_") as folder:
        python = install(Path(folder) / "environment", tool)
        log = Path(folder) / "report"
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("CXX", "PYTHONPATH")},
            **{
                name: f"{value}:log_path={log}" if name.endswith("SAN_OPTIONS") else value
                for name, value in tool.variables.items()
            },
            "LD_PRELOAD": " ".join(tool.preloaded),
        }
        deselected = [part for test in LEFT_OUT for part in ("--deselect", test)]
        pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", *deselected, *pytest_arguments]
        status = subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode
        files = sorted(Path(folder).glob("report.*"))
        return status, [file.read_text(errors="replace") for file in files]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sanitizer", choices=("address", "thread"))
    options, pytest_arguments = parser.parse_known_args()
    tool = address() if options.sanitizer == "address" else thread()
    if not any((ROOT / text.partition("::")[0]).exists() for text in pytest_arguments):
        pytest_arguments += TESTS
    status, reports = check(tool, pytest_arguments)
    print(*reports, sep="\n")
    print(f"{options.sanitizer} sanitizer: {len(reports)} reports, pytest ended with {status}")
    return 1 if reports or status else 0


if __name__ == "__main__":
    sys.exit(main())
