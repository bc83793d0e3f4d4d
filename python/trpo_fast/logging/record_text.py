"""A record of an iteration as text: a table for terminals, a line for everything else."""

from __future__ import annotations

import math
from typing import Any

from .base import Record

Row = tuple[str, list[tuple[str, str]]]

NO_VALUE = "-"

# names that the table shows in a place of their own, or leaves to the files
_PLACED = frozenset(
    f"{group}/{name}"
    for group, names in {
        "time": (
            "iteration",
            "timesteps",
            "steps_per_second",
            "elapsed_seconds",
            "rollout_seconds",
            "update_seconds",
            "value_fit_seconds",
        ),
        "rollout": ("steps", "episodes", "episode_return", "episode_length", "crashes"),
        "policy": (
            "status",
            "message",
            "kl",
            "kl_predicted",
            "max_kl",
            "surrogate_gain",
            "surrogate_gain_predicted",
            "gradient_norm",
            "step_norm",
            "cg_iterations",
            "cg_residual",
            "backtracks",
            "entropy",
            "std",
        ),
        "value": ("explained_variance", "status", "loss_before", "loss_after"),
        "eval": ("return", "return_std", "length", "cut", "max_steps"),
        "run": ("notice",),
    }.items()
    for name in names
)


def _rows(record: Record) -> list[Row]:
    def number(key: str, digits: int = 3) -> str:
        return number_text(record.get(key, math.nan), digits)

    rows: list[Row] = [
        (
            "episode",
            [
                ("return", number("rollout/episode_return", 5)),
                ("length", number("rollout/episode_length", 4)),
                ("finished", number("rollout/episodes", 9)),
            ],
        ),
        (
            "KL",
            [
                ("actual", number("policy/kl")),
                ("predicted", number("policy/kl_predicted")),
                ("bound", number("policy/max_kl")),
            ],
        ),
        (
            "surrogate gain",
            [
                ("actual", number("policy/surrogate_gain")),
                ("predicted", number("policy/surrogate_gain_predicted")),
            ],
        ),
        (
            "conj. gradient",
            [
                ("iterations", number("policy/cg_iterations", 9)),
                ("residual", number("policy/cg_residual", 2)),
                ("backtracks", number("policy/backtracks", 9)),
            ],
        ),
        (
            "policy, value",
            [
                ("entropy", number("policy/entropy")),
                ("std", number("policy/std")),
                ("expl. var.", number("value/explained_variance")),
            ],
        ),
        (
            "seconds",
            [
                ("rollout", number("time/rollout_seconds")),
                ("update", number("time/update_seconds")),
                ("value fit", number("time/value_fit_seconds")),
            ],
        ),
    ]
    if "eval/return" in record:
        evaluation = [
            ("return", number("eval/return", 5)),
            ("length", number("eval/length", 4)),
            ("spread", number("eval/return_std")),
        ]
        rows.insert(1, ("evaluation", evaluation))
    return rows + _other_rows(record)


def _others(record: Record) -> dict[str, float | int]:
    """Numbers that have no place of their own: metrics, those of a method, those of a callback."""
    return {
        key: value
        for key, value in record.items()
        if key not in _PLACED and isinstance(value, float | int) and not isinstance(value, bool)
    }


def _other_rows(record: Record) -> list[Row]:
    """Rows of three numbers, by the group of their names."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, value in _others(record).items():
        group, _, name = key.rpartition("/")
        label = {"rollout": "episode", "eval": "evaluation"}.get(group, group) or "other"
        name = "success" if name == "success_rate" else name
        groups.setdefault(_short(label, 14), []).append((_short(name, 10), number_text(value)))
    return [
        (group, cells[first : first + 3])
        for group, cells in groups.items()
        for first in range(0, len(cells), 3)
    ]


def _short(text: str, width: int) -> str:
    text = text.replace("_", " ")
    return text if len(text) <= width else text[: width - 1] + "…"


def _headline(record: Record) -> str:
    return (
        f"iteration {number_text(record.get('time/iteration', math.nan), 9)} · "
        f"{number_text(record.get('time/timesteps', math.nan), 12)} steps · "
        f"{number_text(record.get('time/steps_per_second', math.nan), 3)} steps/s · "
        f"{clock_time(record.get('time/elapsed_seconds', math.nan))}"
    )


def _refusal(record: Record, refused: int, updates: int) -> str:
    """Return why the update shown was refused, and how many were since the last one shown."""
    reason = ""
    if is_refused(record):
        reason = str(record.get("policy/message") or record["policy/status"])
    if refused > 1 or (refused == 1 and not reason):
        reason += f"{' ' if reason else ''}({refused} of the last {updates} updates refused)"
    return reason


def _remarks(record: Record, refused: int, updates: int) -> list[str]:
    """Return what a user should not miss: cut evaluations, a refused update, a notice."""
    remarks = []
    cut = record.get("eval/cut", 0)
    if cut:
        limit = number_text(record.get("eval/max_steps", math.nan), 9)
        remarks.append(f"evaluation: {number_text(cut, 9)} episodes cut after {limit} steps")
    refusal = _refusal(record, refused, updates)
    if refusal:
        remarks.append(f"refused: {refusal}")
    if record.get("run/notice"):
        remarks.append(f"notice: {record['run/notice']}")
    return remarks


def table(record: Record, refused: int, updates: int) -> Any:
    """A record as a table of rich, 80 columns wide.

    Parameters
    ----------
    record
        Numbers and texts by name.
    refused
        Updates that were refused since the last record shown.
    updates
        Updates since the last record shown.
    """
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold cyan", min_width=14)
    for width in (10, 9, 10):  # 80 columns in all, with 9 for each value
        grid.add_column(style="dim", min_width=width)
        grid.add_column(justify="right", min_width=9)
    for name, cells in _rows(record):
        # Text, not str: values are never read as rich's markup
        grid.add_row(Text(name), *(Text(text) for cell in cells for text in cell))
    remarks = [Text(remark, style="yellow") for remark in _remarks(record, refused, updates)]
    body = Group(grid, *remarks) if remarks else grid
    return Panel(
        body,
        title=Text(_headline(record), style="bold"),
        title_align="left",
        box=box.ROUNDED,
        border_style="dim",
        expand=False,
    )


def plain_line(record: Record, refused: int, updates: int) -> str:
    """A record as one line of text.

    Parameters
    ----------
    record
        Numbers and texts by name.
    refused
        Updates that were refused since the last record shown.
    updates
        Updates since the last record shown.
    """

    def number(key: str, digits: int = 3) -> str:
        return number_text(record.get(key, math.nan), digits)

    parts = [
        _headline(record).replace(" · ", ", "),
        f"return {number('rollout/episode_return', 5)}",
        f"length {number('rollout/episode_length', 4)}",
        f"KL {number('policy/kl')} (predicted {number('policy/kl_predicted')}, "
        f"bound {number('policy/max_kl')})",
        f"gain {number('policy/surrogate_gain')} "
        f"(predicted {number('policy/surrogate_gain_predicted')})",
        f"CG {number('policy/cg_iterations', 9)} (residual {number('policy/cg_residual', 2)})",
        f"backtracks {number('policy/backtracks', 9)}",
        f"explained variance {number('value/explained_variance')}",
        f"entropy {number('policy/entropy')}",
        f"std {number('policy/std')}",
        f"seconds {number('time/rollout_seconds')} rollout, {number('time/update_seconds')} "
        f"update, {number('time/value_fit_seconds')} value fit",
    ]
    if "eval/return" in record:
        parts.insert(1, f"evaluation {number('eval/return', 5)} ± {number('eval/return_std')}")
    parts += [f"{key} {number_text(value)}" for key, value in _others(record).items()]
    parts += _remarks(record, refused, updates)
    return "; ".join(parts)


def is_refused(record: Record) -> bool:
    """Whether the policy update of a record was refused.

    Parameters
    ----------
    record
        Numbers and texts by name.
    """
    return record.get("policy/status", "accepted") != "accepted"


def number_text(value: float | int | str, digits: int = 3) -> str:
    """A number with thousands separated, and exponents only for tiny ones.

    Parameters
    ----------
    value
        Texts are returned as they are.
    digits
        Significant digits, at least 1.
    """
    if isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return NO_VALUE if math.isnan(number) else str(number)
    if number == 0.0 or number.is_integer():
        return f"{number:,.0f}" if abs(number) < 1e15 else f"{number:.{digits}g}"
    if abs(number) < 1e-4:
        return f"{number:.{digits - 1}e}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(number))), 0)
    return f"{number:,.{decimals}f}"


def clock_time(seconds: float | int | str) -> str:
    """Hours, minutes and seconds, as ``1:02:03``.

    Parameters
    ----------
    seconds
        At least 0; anything else is shown as dashes.
    """
    if isinstance(seconds, str) or not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
