"""The commands that look at what has been trained, or at the installation."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..algorithms import ALGORITHMS, PAGES, page, title
from ..presets import PRESETS
from ..run_folder import RunFolder
from .arguments import Evaluate, Explain, Record, at_least
from .environment import ChosenEnvironment, of_run
from .output import DONE, FAILED, UsageError, library_versions, say, say_facts

if TYPE_CHECKING:
    from ..training.agent import OnPolicyAgent


def evaluate(command: Evaluate) -> int:
    """Play episodes with a run's policy and print mean and deviation.

    Parameters
    ----------
    command
        The parsed command.
    """
    at_least("--episodes", command.episodes, 1)
    if command.max_steps is not None:
        at_least("--max-steps", command.max_steps, 1)
    file, agent = _loaded(command)
    with closing(agent):
        result = agent.evaluate(
            episodes=command.episodes,
            deterministic=not command.stochastic,
            seed=command.seed,
            max_steps=command.max_steps,
        )
    say(
        f"{agent.env_name}: return {result.mean_return:.2f} ± {result.std_return:.2f}, "
        f"length {result.mean_length:.1f}, "
        f"{''.join(f'{name} {mean:.4g}, ' for name, mean in result.metric_means.items())}"
        f"{command.episodes} episodes, "
        f"{result.cut_sentence}{', ' if result.n_cut else ''}"
        f"{file.name} at {agent.timesteps} steps"
    )
    return DONE


def record(command: Record) -> int:
    """Write a video of one episode.

    Parameters
    ----------
    command
        The parsed command.
    """
    from ..training.video import record_video, require_encoder

    # before the environment is made
    require_encoder(command.out or "video.mp4")
    file, agent = _loaded(command)
    out = Path(command.out) if command.out else file.with_name("video.mp4")
    with closing(agent):
        record_video(agent, out, seed=command.seed)
    say(f"saved {out}")
    return DONE


def explain(command: Explain) -> int:
    """Print the page of a method, or the list of all.

    Parameters
    ----------
    command
        The parsed command.
    """
    if command.method is None:
        width = max(map(len, PAGES))
        for name in PAGES:
            say(f"{name:<{width}}  {title(name)}")
        return DONE
    text = page(command.method)
    if not sys.stdout.isatty():
        say(text.rstrip("\n"))
        return DONE

    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(100, Console().width)).print(Markdown(text))
    return DONE


def info() -> int:
    """Print versions and what the core found on this machine."""
    from .. import runtime

    names = {"algorithms": list(ALGORITHMS), "presets": list(PRESETS)}
    say_facts({**runtime.info(), **library_versions(), **names})
    return DONE


def selfcheck() -> int:
    """Print facts and the outcome of every check: a report to paste into a bug report."""
    from .. import runtime
    from ..selfcheck import checks, run_check

    say_facts({**runtime.info(), **library_versions()})
    started, failed, todo = time.perf_counter(), 0, checks()
    for check in todo:
        result = run_check(check)
        failed += not result.passed
        verdict = "ok" if result.passed else "FAILED"
        say(f"{verdict:<6}  {result.name:<20}  {result.seconds:4.1f} s  {result.message}")
        if result.trace:
            say(result.trace)
    say(f"{len(todo)} checks, {failed} failed, {time.perf_counter() - started:.1f} s")
    return FAILED if failed else DONE


def _loaded(command: Evaluate | Record) -> tuple[Path, OnPolicyAgent[Any]]:
    path, chosen = Path(command.run), ChosenEnvironment.typed(command)
    if path.is_file():
        if command.checkpoint is not None:
            raise UsageError("--checkpoint: expected none with a file, got one; leave it out")
        file = path
    else:
        folder = RunFolder.open(path)
        file, chosen = folder.checkpoint(command.checkpoint), of_run(folder, chosen)
    env, env_kwargs = chosen.source()

    from ..algorithms.trpo import TRPO

    return file, TRPO.load(file, env=env, env_kwargs=env_kwargs)
