"""``train --seeds 0-9``: one run a seed, each a process, as many at once as the cores allow."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TextIO

from ..algorithms import algorithm_class
from ..run_folder import RunFolder
from ..studies.processes import TrainingProcesses, share_cores
from .arguments import Train
from .output import DONE, FAILED, INTERRUPTED, UsageError, fail, say
from .streams import write_line
from .training import folder_of

_MOST_SEEDS = 10_000


def train_seeds(command: Train, arguments: Sequence[str]) -> int:
    """Run all seeds of a command and wait for their ends.

    The lines that a run prints begin with its seed. A run that fails does not end the others. The
    first SIGINT or SIGTERM ends every run after its present iteration, the second one at once, and
    no further run begins.

    Parameters
    ----------
    command
        The parsed command.
    arguments
        What was typed, beginning with ``train``: the arguments of every run.

    Returns
    -------
    int
        Exit status: done where every run was.

    Raises
    ------
    UsageError
        If the seeds cannot be read, or a seed is given besides.
    RunFolderError
        If a folder of a run exists already.
    """
    seeds = parse_seeds(str(command.seeds))
    config = algorithm_class(command.algorithm).config_type.from_dict(command.config.to_dict())
    common = without_flags(arguments, ("--seeds", "--run-dir"))
    if any(argument.partition("=")[0] == "--seed" for argument in common):
        raise UsageError("--seed: expected none with --seeds, got both; leave one out")
    folders = {seed: _folder(command, seed) for seed in seeds}
    for folder in folders.values():
        RunFolder(folder).refuse_if_present()

    from ..rollout import available_cores

    at_once, sharing = share_cores(
        len(seeds),
        available_cores(),
        n_threads=config.n_threads,
        n_workers=config.n_workers,
        n_envs=config.n_envs,
        env=command.env,
    )
    runs = TrainingProcesses()
    with runs.taking_signals(), ThreadPoolExecutor(at_once, "seed") as pool:
        ends = {
            seed: pool.submit(
                runs.run,
                [*common, *sharing, "--seed", str(seed), "--run-dir", folder],
                partial(_pass_on, seed, sys.stdout),
                partial(_pass_on, seed, sys.stderr),
            )
            for seed, folder in folders.items()
        }
        wait(ends.values())
    failed = [seed for seed, end in ends.items() if end.result() not in (DONE, INTERRUPTED)]
    say(f"{len(seeds)} seeds, {len(failed)} failed, in {Path(folders[seeds[0]]).parent}")
    if failed:
        listed = ", ".join(map(str, failed))
        return fail(f"train: expected every seed to end well, got errors of {listed}", FAILED)
    if runs.signalled:
        return fail("interrupted; continue each run with --resume", INTERRUPTED)
    return DONE


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as ``0-9`` or ``0,3,10-12``.

    Parameters
    ----------
    text
        Whole numbers of at least 0 and ranges of them, both ends included, with commas between.

    Returns
    -------
    list
        The seeds in their order, each once.

    Raises
    ------
    UsageError
        If it is something else.
    """
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < _MOST_SEEDS:
            raise UsageError(f"--seeds: expected numbers such as 0-9 or 0,3,7, got {text!r:.80}")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def _pass_on(seed: int, to: TextIO, line: str) -> None:
    write_line(f"seed {seed}: {line}", to)


def _folder(command: Train, seed: int) -> str:
    folder = folder_of(command, seed)
    return folder if command.run_dir is None else str(Path(folder, f"seed{seed}"))


def without_flags(arguments: Sequence[str], flags: tuple[str, ...]) -> list[str]:
    """Return arguments without some flags and their values.

    Parameters
    ----------
    arguments
        Flags and values, as ``--flag value`` or ``--flag=value``.
    flags
        What to leave out; each takes one value.
    """
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in flags:
            skip = True
        elif argument.partition("=")[0] not in flags:
            kept.append(argument)
    return kept
