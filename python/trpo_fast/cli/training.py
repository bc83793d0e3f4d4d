"""The command `train`: start a run or continue one."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, cast

from .. import runtime
from ..algorithms import algorithm_class
from ..config import AgentConfig
from ..presets import find_preset
from ..run_folder import RunFolder
from .arguments import STORED, Train, at_least
from .config_file import save_config
from .environment import ChosenEnvironment
from .output import DONE, INTERRUPTED, UsageError, fail, library_versions, say, version
from .signals import StopOnSignal, stop_when_input_ends
from .streams import write_line

if TYPE_CHECKING:
    from ..envs import EnvSource
    from ..training.agent import OnPolicyAgent
    from ..training.callbacks import CallbackLike

# settings that may change with --resume: results depend on none of them, but a longer run may need
# a longer way for its schedules
_OF_MACHINES = ("n_threads", "n_workers", "cluster", "runtime_env", "distribute_update")
_MAY_CHANGE = (*_OF_MACHINES, "schedule_timesteps")
_CHOSEN = ("env", "env_factory", "env_kwargs", "wrapper")


def train(command: Train) -> int:
    """Train, or continue training, until the total of steps or a signal.

    Parameters
    ----------
    command
        The parsed command.

    Returns
    -------
    int
        Exit status.
    """
    config = algorithm_class(command.algorithm).config_type.from_dict(command.config.to_dict())
    _check_counts(command)
    if command.save_config is not None:
        record = _describe(command, config)
        save_config(
            command.save_config, {name: record[name] for name in (*_CHOSEN, *STORED)}, config
        )
        say(
            f"saved {command.save_config}; trpo-fast train --config {command.save_config} trains by it"
        )
        return DONE
    if command.tensorboard:
        from ..logging import TensorBoardLogger

        TensorBoardLogger.require()  # before anything is made
    with ExitStack() as held:
        if command.resume is None:
            run, agent = _started(command, config, held)
        else:
            run, agent = _resumed(command, config, held)
        stop = held.enter_context(StopOnSignal())
        stop_when_input_ends()
        try:
            _learn(agent, run, command, stop)
        except KeyboardInterrupt:
            return fail(f"interrupted at once; {_where_to_continue(run)}", INTERRUPTED)
        except Exception:
            say(_where_to_continue(run))
            raise
        finally:
            if agent.notice:  # of the last save, after which no row follows
                _tell_notice(agent, {"run/notice": agent.notice})
    say(f"saved {run.shown(run.latest)} at {agent.timesteps} steps")
    if stop.requested:
        return fail(f"interrupted; {_where_to_continue(run)}", INTERRUPTED)
    return DONE


def _started(
    command: Train, config: AgentConfig, held: ExitStack
) -> tuple[RunFolder, OnPolicyAgent[Any]]:
    run = RunFolder(folder_of(command, config.seed))
    # the folder is made last: a wrong environment leaves nothing behind
    run.refuse_if_present()

    agent_class = algorithm_class(command.algorithm)
    env, env_kwargs = ChosenEnvironment.typed(command).source()
    agent = held.enter_context(
        closing(agent_class(cast("EnvSource", env), config=config, env_kwargs=env_kwargs))
    )
    run.make()
    held.enter_context(run.locked())
    run.refuse_if_present()
    # the checkpoint first: as soon as config.json exists, the folder is a run that can be resumed
    agent.save(run.latest)
    run.write_record(_describe(command, config))
    return run, agent


def folder_of(command: Train, seed: int) -> str:
    """Return where the run of a seed goes.

    Parameters
    ----------
    command
        The parsed command.
    seed
        The seed of the run.

    Raises
    ------
    UsageError
        If no environment is named.
    """
    name = ChosenEnvironment.typed(command).name
    if not name:
        raise UsageError("train: expected an environment, got none; name one, as CartPole-v1")
    if command.run_dir is not None:
        return command.run_dir
    name = re.sub(r"[^\w.-]+", "-", name)
    if command.algorithm != "trpo":
        name += f"-{command.algorithm}"
    return os.path.join("runs", f"{name}-seed{seed}")


def _resumed(
    command: Train, config: AgentConfig, held: ExitStack
) -> tuple[RunFolder, OnPolicyAgent[Any]]:
    run = RunFolder.open(cast(str, command.resume))
    held.enter_context(run.locked())
    stored = run.read_record()
    if command.run_dir is not None:
        raise UsageError("--run-dir: expected none with --resume, got both; leave out --run-dir")
    settings = _by_flag(config)
    for name, value in _by_flag(type(config).from_saved(stored["config"])).items():
        given = settings[name]
        if given != value and name not in _MAY_CHANGE:
            raise UsageError(
                f"--{name.replace('_', '-')}: expected the run's {value}, got {given}; "
                f"leave it out with --resume, or start a new run"
            )

    from ..algorithms.trpo import TRPO
    from ..runtime import set_num_threads

    env, env_kwargs = ChosenEnvironment.typed(command).source()
    file = run.checkpoint("latest")
    way = config.schedule_timesteps
    loaded = TRPO.load(
        file,
        env=env,
        env_kwargs=env_kwargs,
        n_workers=config.n_workers,
        schedule_timesteps=way,
        cluster=config.cluster,
        runtime_env=config.runtime_env,
        distribute_update=config.distribute_update,
    )
    agent = held.enter_context(closing(loaded))
    if agent.timesteps >= command.total_timesteps and not _evaluation_is_due(agent):
        raise UsageError(
            f"--total-timesteps: expected more than the {agent.timesteps} steps already done, "
            f"got {command.total_timesteps}; raise it"
        )
    if config.n_threads is not None:
        set_num_threads(config.n_threads)
    stored["config"] = {**stored["config"], "schedule_timesteps": way}
    run.write_record({**stored, "total_timesteps": command.total_timesteps})
    # stopped before its first checkpoint: every evaluation will be made again
    if agent.timesteps == 0:
        run.evaluations_file.unlink(missing_ok=True)
    return run, agent


def _learn(agent: OnPolicyAgent[Any], run: RunFolder, command: Train, stop: StopOnSignal) -> None:
    from ..logging import CsvLogger, Logger, TensorBoardLogger
    from ..training.callbacks import CheckpointEvery
    from ..training.evaluate_every import EvaluateEvery

    callbacks: list[CallbackLike] = []
    if command.evaluate_every > 0:
        every, episodes = command.evaluate_every, command.evaluation_episodes
        callbacks.append(
            EvaluateEvery(
                every,
                episodes,
                run.best,
                csv_path=run.evaluations_file,
                max_steps=command.evaluation_max_steps,
                interruption=stop.interruption,
                best_by=command.best_by,
            )
        )
    # CheckpointEvery saves at the end too, however training ends
    callbacks.append(CheckpointEvery(command.checkpoint_every, run.latest))
    callbacks.append(stop.on_iteration)
    if not sys.stderr.isatty():  # on a terminal the table shows them
        callbacks.append(_tell_notice)

    # a run that goes on drops the rows beyond its checkpoint, because it will write them again
    resume = None if command.resume is None else agent.timesteps
    loggers: list[Logger] = [CsvLogger(run.progress_file, resume_timesteps=resume)]
    if command.tensorboard:
        loggers.append(TensorBoardLogger(run.tensorboard, resume_timesteps=resume))

    # learn counts the steps of this call, the flag those of the whole run
    steps = command.total_timesteps - agent.timesteps
    if steps <= 0:
        _make_up_evaluation(agent, run, callbacks)
        return
    agent.learn(
        steps,
        callback=callbacks,
        progress=sys.stderr.isatty(),
        loggers=loggers,
    )


def _evaluation_is_due(agent: OnPolicyAgent[Any]) -> bool:
    """Whether the run ended while its last evaluation was made."""
    return any(
        entry["kind"] == "EvaluateEvery" and entry["state"].get("is_due")
        for entry in agent.callback_state.get("callbacks", ())
    )


def _make_up_evaluation(
    agent: OnPolicyAgent[Any], run: RunFolder, callbacks: Sequence[CallbackLike]
) -> None:
    """Make the last evaluation of a run that has taken all its steps."""
    from ..training.callbacks import CallbackList
    from ..training.evaluate_every import EvaluateEvery

    makers = CallbackList([each for each in callbacks if isinstance(each, EvaluateEvery)])
    makers.load_state_dict(agent.callback_state)
    makers.on_start(agent, agent.timesteps)
    try:
        makers.on_iteration(agent, {})
    finally:
        makers.on_end(agent)
    agent.callback_state = makers.state_dict()
    agent.save(run.latest)


def _tell_notice(agent: OnPolicyAgent[Any], record: Mapping[str, Any]) -> None:
    """Print the notice of an iteration, if there is one; a callback of learn()."""
    if record.get("run/notice"):
        write_line(f"trpo-fast: notice: {record['run/notice']}", sys.stderr)


def _by_flag(config: AgentConfig) -> dict[str, Any]:
    """Return the settings by the names of their flags; those of a group stand beside the others."""
    flat: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _describe(command: Train, config: AgentConfig) -> dict[str, Any]:
    record: dict[str, Any] = {
        **ChosenEnvironment.typed(command).record,
        **{name: getattr(command, name) for name in STORED},
        "seed": config.seed,
        "config": config.of_the_run.to_dict(),
        "versions": {
            "trpo_fast": version(),
            "python": platform.python_version(),
            **library_versions(),
        },
        "platform": platform.platform(),
        "machine": {
            "cpu": runtime.cpu_model(),
            "threads": runtime.get_num_threads(),
            "instruction-set level": runtime.simd_level(),
        },
    }
    if command.preset:
        used = find_preset(command.preset)
        differences = list(used.differences)
        record["preset"] = {"name": used.name, "source": used.source, "differences": differences}
    return record


def _check_counts(command: Train) -> None:
    at_least("--total-timesteps", command.total_timesteps, 1)
    at_least("--evaluate-every", command.evaluate_every, 0)
    at_least("--evaluation-episodes", command.evaluation_episodes, 1)
    if command.evaluation_max_steps is not None:
        at_least("--evaluation-max-steps", command.evaluation_max_steps, 1)
    at_least("--checkpoint-every", command.checkpoint_every, 1)


def _where_to_continue(run: RunFolder) -> str:
    if run.latest.is_file():
        return f"continue with `trpo-fast train --resume {run.path}` from {run.shown(run.latest)}"
    return f"no checkpoint had been saved yet in {run.path}"
