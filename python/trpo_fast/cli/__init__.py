"""The command line: ``trpo-fast``."""

from .commands import main

__all__ = ["main"]
