"""The numerics at the level of this process, which `check_level` starts for every level."""

from __future__ import annotations

import sys

from .. import runtime
from .numerics import NUMERICS
from .tools import run_check


def main() -> int:
    """Print the level in use and every failure; return the exit status."""
    results = [run_check(check) for check in NUMERICS]
    failures = [f"{r.name}: {r.message} {r.trace}" for r in results if not r.passed]
    print(runtime.simd_level(), *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
