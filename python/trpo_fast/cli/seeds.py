"""``train --seeds 0-9``: one run a seed, each a process, as many at once as the cores allow."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

from ..algorithms import algorithm_class
from ..config import AgentConfig
from ..run_folder import RunFolder
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
    common = _without(arguments, ("--seeds", "--run-dir"))
    if any(argument.partition("=")[0] == "--seed" for argument in common):
        raise UsageError("--seed: expected none with --seeds, got both; leave one out")
    folders = {seed: _folder(command, seed) for seed in seeds}
    for folder in folders.values():
        RunFolder(folder).refuse_if_present()

    from ..rollout import available_cores

    at_once, sharing = share_cores(config, len(seeds), available_cores(), command.env)
    runs = _Runs()
    with ExitStack() as held, ThreadPoolExecutor(at_once, "seed") as pool:
        for number in (signal.SIGINT, signal.SIGTERM):
            held.callback(signal.signal, number, signal.signal(number, runs.forward))
        ends = {
            seed: pool.submit(
                runs.run, seed, [*common, *sharing, "--seed", str(seed), "--run-dir", folder]
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


def share_cores(
    config: AgentConfig, n_runs: int, cores: int, env: str | None
) -> tuple[int, list[str]]:
    """Decide how many runs train at once, and how many processors each of them uses.

    The results of a run do not depend on it.

    Parameters
    ----------
    config
        The settings of every run; workers and threads that they name are kept.
    n_runs
        Runs in all, at least 1.
    cores
        Processors that may be used, at least 1.
    env
        The id of the environment.

    Returns
    -------
    tuple
        Runs at once, at least 1, and the flags that each run is given.
    """
    named = [number for number in (config.n_workers, config.n_threads) if number is not None]
    at_once = min(n_runs, max(1, cores // max([1, *named])))
    each = max(1, cores // at_once)
    flags: list[str] = []
    if config.n_threads is None:
        flags += ["--n-threads", str(each)]
    if config.n_workers is None:
        # one processor steps its environments itself; EnvPool would take 0 for all processors
        alone = 1 if str(env).startswith("envpool:") else 0
        flags += ["--n-workers", str(min(each, config.n_envs) if each > 1 else alone)]
    return at_once, flags


class _Runs:
    """The processes that train, and the signals that they are passed on."""

    def __init__(self) -> None:
        self.signalled = 0
        self._processes: set[subprocess.Popen[str]] = set()
        # a signal may come while the lock is held by this very thread
        self._lock = threading.RLock()

    def run(self, seed: int, arguments: list[str]) -> int:
        """Run one seed and return its exit status."""
        with self._lock:
            if self.signalled:
                return INTERRUPTED
            safe = ["-P"] if getattr(sys.flags, "safe_path", False) else []
            # in a session of its own: Ctrl-C reaches it once, through `forward`
            process = subprocess.Popen(
                [sys.executable, *safe, "-m", "trpo_fast", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._processes.add(process)
        if self.signalled:  # it came while the process was being made
            process.terminate()
        errors = threading.Thread(target=_pass_on, args=(process.stderr, sys.stderr, seed))
        errors.start()
        _pass_on(process.stdout, sys.stdout, seed)
        errors.join()
        status = process.wait()
        with self._lock:
            self._processes.discard(process)
        # before a run takes over the signals, they end it as any process
        ended_early = self.signalled and -status in (signal.SIGINT, signal.SIGTERM)
        return INTERRUPTED if ended_early else status

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to every run; a handler of signals."""
        self.signalled += 1
        for process in list(self._processes):
            with suppress(OSError):
                process.send_signal(number)


def _pass_on(stream: IO[str] | None, to: TextIO, seed: int) -> None:
    for line in stream or ():
        write_line(f"seed {seed}: {line.rstrip()}", to)


def _folder(command: Train, seed: int) -> str:
    folder = folder_of(command, seed)
    return folder if command.run_dir is None else str(Path(folder, f"seed{seed}"))


def _without(arguments: Sequence[str], flags: tuple[str, ...]) -> list[str]:
    """Return the arguments without these flags and their values."""
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
