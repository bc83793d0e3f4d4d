"""The command `tune`: settings by trial and error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ..algorithms import algorithm_class
from ..config import TRPOConfig, field_names
from ..extras import MissingExtraError
from ..studies.space import DEFAULT_SPACE, parse_space
from ..studies.trials import Tuning
from ..studies.tuning import run_tuning
from .environment import ChosenEnvironment
from .output import DONE, INTERRUPTED, UsageError, fail, say
from .seeds import parse_seeds
from .training_flags import Tune


def tune(command: Tune, arguments: Sequence[str]) -> int:
    """Run the trials that are left, and print the best settings.

    Parameters
    ----------
    command
        The parsed command.
    arguments
        What was typed, beginning with ``tune``: settings that stand in it are not searched.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    UsageError, ConfigError, StudyError
        If a flag is wrong.
    """
    chosen = ChosenEnvironment.typed(command)
    if not chosen.name:
        raise UsageError("tune: expected an environment, got none; name one, as CartPole-v1")
    env, env_kwargs = chosen.source()
    where = TRPOConfig(cluster=command.config.cluster, runtime_env=command.config.runtime_env)
    tuning = Tuning(
        env=cast("Any", env),
        folder=Path(command.run_dir),
        total_timesteps=command.total_timesteps,
        seeds=tuple(parse_seeds(command.seeds)),
        space=parse_space(command.search) if command.search else DEFAULT_SPACE,
        algorithm=command.algorithm,
        preset=command.preset,
        env_kwargs=env_kwargs,
        evaluation_episodes=command.evaluation_episodes,
        settings=_typed_settings(command, arguments),
    )
    try:
        result = run_tuning(
            tuning,
            command.trials,
            say,
            cluster=where.cluster,
            runtime_env=where.runtime_env,
        )
    except KeyboardInterrupt:
        return fail("interrupted; repeat the command to go on", INTERRUPTED)
    for name, share in result.importances().items():
        say(f"importance {share:4.0%}  {name}")
    settings = " ".join(f"{name}={value}" for name, value in result.best.items())
    say(f"best return {result.best_return:,.1f}: {settings}")
    file = result.write_best()
    say(f"wrote {file}; trpo-fast train --config {file} trains by it")
    try:
        say(f"drew {result.plot()}")
    except MissingExtraError as error:  # the trials are done, whether or not they can be drawn
        say(str(error))
    return DONE


def _typed_settings(command: Tune, arguments: Sequence[str]) -> dict[str, Any]:
    flags = (text.partition("=")[0] for text in arguments if text.startswith("--"))
    typed = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
    if "seed" in typed:
        raise UsageError("--seed: expected none in a tuning, got one; name --seeds")
    names = typed & set(field_names(algorithm_class(command.algorithm).config_type))
    names -= {"cluster", "runtime_env"}  # of the tuning: where its trials are trained
    values = command.config.to_dict()
    return {name: values[name] for name in sorted(names)}
