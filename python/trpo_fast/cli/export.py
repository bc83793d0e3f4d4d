"""The command that writes a run's policy for another program."""

from __future__ import annotations

from pathlib import Path

from ..run_folder import RunFolder
from .arguments import Export
from .output import DONE, UsageError, say


def export(command: Export) -> int:
    """Export the policy of a checkpoint.

    Parameters
    ----------
    command
        What was typed.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    UsageError
        Neither a target nor a file is named, or a checkpoint beside a file.
    """
    from ..export import FILES

    if command.to is None and command.out is None:
        raise UsageError(
            f"--to: expected one of {', '.join(FILES)}, got none; or name a file by --out"
        )
    path = Path(command.run)
    if not path.is_file():
        path = RunFolder.open(path).checkpoint(command.checkpoint)
    elif command.checkpoint is not None:
        raise UsageError("--checkpoint: expected none with a file, got one; leave it out")

    from ..training.policy import Policy

    policy = Policy.load(path)
    out = path.with_name(FILES[command.to or "c"]) if command.out is None else Path(command.out)
    policy.export(out, command.to, sample=command.sample, number=command.number)
    say(f"saved {out}")
    return DONE
