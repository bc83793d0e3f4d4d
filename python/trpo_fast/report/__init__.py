"""A report of runs: one HTML page that holds everything and loads nothing.

>>> write_report(["runs/HalfCheetah-v5-seed0", "runs/HalfCheetah-v5-seed1"], "report.html")

or ``trpo-fast report RUN [RUN ...]``. Runs stand side by side: settings with what differs marked,
machine, curves, evaluations, refused updates with their reasons, and the film where one was recorded.
"""

from __future__ import annotations

from .page import write_report

__all__ = ["write_report"]
