"""The state of an agent as arrays and JSON, and an agent from such a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import runtime
from .._version import __version__
from ..checkpoint import CheckpointError, module_to_trust
from ..config import ConfigError
from ..envs import describe_spaces, spaces_mismatch
from ..rollout import ForeignWorkers
from ..snapshots import SnapshotError
from ..words import printable, words_of
from .callbacks import CallbackList
from .env_kwargs import decoded, encoded, kind_of_source
from .file_checks import check_entries
from .moments import entries
from .saving import NOT_WANTED, SavedState

if TYPE_CHECKING:
    from ..envs import EnvSource
    from .agent import OnPolicyAgent

Agent = TypeVar("Agent", bound="OnPolicyAgent[Any]")


def state_of(agent: OnPolicyAgent[Any]) -> SavedState:
    """Take the state of an agent between two iterations, in one pass.

    The environments are part of it where their state can be saved; where it cannot, the entry
    ``unsaved_environments`` of the metadata says why.

    Parameters
    ----------
    agent
        Must be between two iterations.
    """
    fitting = agent.value_fitting
    fit = None if fitting is None else fitting.finish()
    sampler = dict(agent.sampler.state_dict())
    unsaved = ""
    try:
        if not agent.config.save_environments:
            raise SnapshotError(NOT_WANTED)
        sampler.update(agent.sampler.environment_state())
    except SnapshotError as error:
        # The reason why the last resume began anew is not lost before the next iteration.
        unsaved = agent.restarted_because or str(error)
    except ForeignWorkers:  # no fault of an environment: a forked child may not save
        raise
    except Exception as error:  # whatever environments or their workers raise
        unsaved = f"saving their state raised {type(error).__name__}: {words_of(error)}"
    env_kwargs, left_out = encoded(agent.env_kwargs)
    groups = {
        "observation_statistics": agent.observation_statistics.state_dict(),
        "sampler": sampler,
    }
    own_tensors, own_metadata = agent.own_state()
    tensors = {
        "policy": agent.policy.parameters,
        **({} if fitting is None else fitting.tensors()),
        "episode_returns": np.array(agent.episodes.returns, np.float64),
        "episode_lengths": np.array(agent.episodes.lengths, np.float64),
        **{
            f"episode_metrics.{name}": np.array(told, np.float64)
            for name, told in agent.episodes.metrics.items()
        },
        **{
            f"{group}.{name}": array
            for group, arrays in groups.items()
            for name, array in arrays.items()
        },
        **own_tensors,
    }
    metadata = {
        "algorithm": type(agent).__name__,
        "config": agent.config.of_the_run.to_dict(),
        "env": agent.env_name,
        "env_source": kind_of_source(agent.env_source),
        "env_kwargs": env_kwargs,
        "env_kwargs_left_out": left_out,
        "spaces": describe_spaces(agent.acting.encoder.space, agent.acting.adapter.space),
        "n_envs": agent.sampler.n_envs,
        "timesteps": agent.timesteps,
        "iteration": agent.iteration,
        "value_scale": 1.0 if fitting is None else fitting.units.scale,
        "value_mean": 0.0 if fitting is None else fitting.units.mean,
        "value_fit": None if fit is None else asdict(fit),
        "elapsed_seconds": agent.elapsed_seconds,
        "schedule_span": None if agent.schedule_span is None else list(agent.schedule_span),
        "predictions": agent.acting.drawn,
        "mask_source": agent.sampler.mask_source,
        "callbacks": agent.callback_state,
        "environment_changes": agent.environments.described(),
        "reset_options": encoded(agent.environments.options_of_resets)[0],
        "unsaved_environments": unsaved,
        "versions": {"trpo_fast": __version__, "numpy": np.__version__},
        "simd_level": runtime.simd_level(),
        **own_metadata,
    }
    return SavedState(tensors, metadata)


def agent_from_state(
    cls: type[Agent],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    env: EnvSource | None,
    changes: Mapping[str, Any],
    env_kwargs: Mapping[str, Any] | None = None,
) -> Agent:
    """Build an agent of this class from what :func:`state_of` gave.

    Parameters
    ----------
    cls
        The class that the state is of.
    tensors, metadata
        The state; a file's, so anything may stand in it.
    env
        What is stepped; None makes the environment of the id that the state names.
    changes
        Settings that are to differ from those of the state.
    env_kwargs
        Keyword arguments of ``gymnasium.make`` that count before those of the state.

    Raises
    ------
    CheckpointError
        A state that no agent has written, or one of other spaces than the environment has.
    ConfigError
        A setting that cannot change.
    """
    try:
        try:
            saved = cls.config_type.from_saved(metadata["config"])
        except ConfigError as error:
            raise CheckpointError(f"checkpoint: {error}") from None
        check_entries(tensors, metadata, saved)
        config = saved.changed(changes, loading=True)
        source = _source_of(metadata) if env is None else env
        if isinstance(source, str):
            # of several agents each is an environment of its own
            several = source.startswith("pettingzoo:") and config.n_envs <= metadata["n_envs"]
            if "n_envs" not in changes and config.n_envs != metadata["n_envs"] and not several:
                raise CheckpointError(
                    f"checkpoint: expected n_envs {metadata['n_envs']}, as many as counters, got "
                    f"{config.n_envs}; was it written by trpo_fast?"
                )
            kwargs: dict[str, Any] | None = _merged_kwargs(metadata, env_kwargs or {})
        else:
            kwargs = dict(env_kwargs) if env_kwargs else None
        agent = cls(source, config=config, env_kwargs=kwargs)
    except KeyError as error:
        raise CheckpointError(
            f"checkpoint: expected an entry {error}, got none; was it written by trpo_fast?"
        ) from None
    try:
        spaces = describe_spaces(agent.acting.encoder.space, agent.acting.adapter.space)
        mismatch = spaces_mismatch(metadata["spaces"], spaces)
        if mismatch is not None:
            raise CheckpointError(f"checkpoint: {mismatch}")
        _restore(agent, tensors, metadata)
        agent.renew_schedules(saved, config)
    except BaseException as error:
        agent.close()
        if isinstance(error, CheckpointError) or not isinstance(error, Exception):
            raise
        # The file is intact, but no agent has written it: int(), NumPy and the core say what is wrong.
        raise CheckpointError(
            "checkpoint: expected the state of an agent, got an entry that does not fit "
            f"({type(error).__name__}: {error}); was it written by trpo_fast?"
        ) from error
    return agent


def _restore(
    agent: OnPolicyAgent[Any], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> None:
    """Bring a new agent to a saved state, and note what could not be restored."""
    agent.policy.parameters = tensors["policy"]
    if agent.value_fitting is not None:
        agent.value_fitting.restore(tensors, metadata)
    agent.observation_statistics.load_state_dict(entries(tensors, "observation_statistics"))
    agent.episodes.extend(tensors["episode_returns"].tolist(), tensors["episode_lengths"].tolist())
    agent.episodes.extend_metrics(
        {name: np.ravel(told) for name, told in entries(tensors, "episode_metrics").items()}
    )
    agent.timesteps = int(metadata["timesteps"])
    agent.iteration = int(metadata["iteration"])
    agent.elapsed_seconds = float(metadata["elapsed_seconds"])
    # Earlier files knew one schedule, which went from the start of the run to the end of learn.
    span = metadata.get("schedule_span", (0, 0))
    agent.schedule_span = None if span is None else (int(span[0]), int(span[1]))
    agent.acting.drawn = int(metadata["predictions"])
    agent.callback_state = dict(metadata["callbacks"])
    CallbackList().load_state_dict(agent.callback_state)  # raises where it is no such state
    agent.freeze_normalizer()
    agent.restore_own_state(tensors, metadata)
    agent.restore_masks(str(metadata.get("mask_source", "none")))

    options = decoded(metadata.get("reset_options", {}))
    if options:
        agent.environments.reset_options(options)
    sampler = entries(tensors, "sampler")
    restarted = str(metadata["unsaved_environments"])
    if not restarted and "observations" not in sampler and sampler["counters"].any():
        restarted = "the file does not hold their states"
    if agent.sampler.n_envs != metadata["n_envs"]:
        # Another number of environments goes on beyond every random number drawn so far.
        drawn = np.full(agent.sampler.n_envs, sampler["counters"].max(), np.uint64)
        sampler = {"counters": drawn}
        restarted = f"the run had {metadata['n_envs']} environments"
    try:
        agent.sampler.load_environment_state(sampler)
    except SnapshotError as error:
        restarted = str(error)
    except Exception as error:  # whatever environments or their workers raise
        restarted = f"restoring their state raised {type(error).__name__}: {words_of(error)}"
    agent.restarted_because = restarted = printable(restarted)
    notices: list[str] = []
    if restarted:
        notices.append(f"episodes start anew, because {restarted}; training goes on otherwise")
    changes = metadata.get("environment_changes", {})
    if missing := agent.environments.take_over(changes, restarted=bool(restarted)):
        notices.append(missing)
    level, level_before = runtime.simd_level(), metadata["simd_level"]
    if level != level_before:
        notices.append(
            f"the instruction-set level is {level} and was {level_before}: "
            "the run goes on, but not bit for bit"
        )
    agent.notice = "; ".join(notices)


def _source_of(metadata: Mapping[str, Any]) -> str:
    """The id of a state's environment, where an id is all that it takes to make it again."""
    kind = metadata.get("env_source", "id")  # earlier files do not tell
    if kind == "id":
        return trusted_id(metadata["env"])
    how = "made by a function" if kind == "factory" else "given as an object"
    raise CheckpointError(
        f"checkpoint: its environment {metadata['env']!r:.80} was {how}, which no file holds; pass "
        "env= with the function, or with another such environment (on the command line: "
        "--env-factory, or --env and --wrapper)"
    )


def _merged_kwargs(metadata: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a state, those at hand first; asks for what the file could not hold."""
    missing = [name for name in metadata.get("env_kwargs_left_out", {}) if name not in given]
    if missing:
        listed = ", ".join(map(str, missing))
        raise CheckpointError(
            f"checkpoint: its env_kwargs {listed:.200} could not be stored; pass them again as "
            f"env_kwargs={{{missing[0]!r:.80}: ...}}"
        )
    return {**decoded(metadata["env_kwargs"]), **given}


def trusted_id(env_id: Any) -> str:
    """The environment that a checkpoint names, unless making it would import a module of its choice.

    Parameters
    ----------
    env_id
        What the file says.
    """
    module = module_to_trust(env_id)
    if module is not None:
        raise CheckpointError(
            f"checkpoint: its environment {env_id!r} lives in the module {module!r}, and loading a "
            f"file runs no code; if you trust the module, pass env={env_id!r} "
            f"(--env {env_id} on the command line)."
        )
    return str(env_id)
