"""The command `study`: many runs as one experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..algorithms import algorithm_class
from ..config import TRPOConfig
from ..extras import MissingExtraError
from ..studies.plan import Plan, parse_grid
from ..studies.results import StudyResult
from ..studies.running import run_plan
from .arguments import Train, parse
from .output import DONE, FAILED, INTERRUPTED, UsageError, fail, say
from .seeds import parse_seeds, without_flags
from .training_flags import Study

_OF_THE_STUDY = ("--seeds", "--run-dir", "--jobs", "--cluster", "--runtime-env")


def study(command: Study, arguments: Sequence[str]) -> int:
    """Run what is left of a study, and print what its runs say together.

    Parameters
    ----------
    command
        The parsed command.
    arguments
        What was typed, beginning with ``study``.

    Returns
    -------
    int
        Exit status: done where every run was.

    Raises
    ------
    UsageError, ConfigError
        If a flag is wrong for any of the runs; none is started.
    StudyError
        If the folder holds something else.
    """
    envs, flags = _divided(arguments)
    plan = Plan(
        envs=envs or ((command.env_factory,) if command.env_factory else ()),
        seeds=tuple(parse_seeds(command.seeds)),
        grid=parse_grid(command.grid),
        arguments=tuple(flags),
        folder=Path(command.run_dir),
    )
    for run in plan.runs[: len(plan.envs) * len(plan.variants)]:  # the first seed of everything
        parsed = parse(["train", *run.arguments])
        assert isinstance(parsed, Train)
        algorithm_class(parsed.algorithm).config_type.from_dict(parsed.config.to_dict())
    where = TRPOConfig(cluster=command.config.cluster, runtime_env=command.config.runtime_env)
    outcome = run_plan(
        plan,
        jobs=command.jobs,
        progress=say,
        cluster=where.cluster,
        runtime_env=where.runtime_env,
    )
    result = outcome.result
    if result.runs:
        _say_results(result)
    if outcome.failed:
        listed = "; ".join(run.name for run in outcome.failed[:5])
        return fail(
            f"study: expected every run to end well, got {len(outcome.failed)} errors: {listed}; see "
            f"the .txt file beside each run's folder, then repeat the command",
            FAILED,
        )
    if outcome.interrupted:
        return fail("interrupted; repeat the command to go on", INTERRUPTED)
    return DONE


def _say_results(result: StudyResult) -> None:
    say(f"wrote {result.write_csv()}")
    try:
        say(f"drew {result.plot()}")
        say("\n".join(result.table()))
    except MissingExtraError as error:  # the runs are done, whether or not they can be drawn
        say(str(error))


def _divided(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Divide what was typed behind ``study``: environments, and flags that every run is given."""
    rest = list(arguments[1:])
    n_envs = next((i for i, text in enumerate(rest) if text.startswith("-")), len(rest))
    flags = without_flags(rest[n_envs:], _OF_THE_STUDY)
    if any(flag.partition("=")[0] == "--seed" for flag in flags):
        raise UsageError("--seed: expected none in a study, got one; name --seeds")
    kept: list[str] = []
    skip = False
    for flag in flags:  # --grid takes several words
        if flag == "--grid":
            skip = True
        elif flag.startswith("-"):
            skip = False
        if not skip and not flag.startswith("--grid="):
            kept.append(flag)
    return tuple(rest[:n_envs]), kept
