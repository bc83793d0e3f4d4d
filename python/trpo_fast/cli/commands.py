"""The command line: ``trpo-fast train | evaluate | record | plot | explain | info | selfcheck``.

Flags are generated from the dataclasses below and from :class:`TRPOConfig`, or the configuration
that belongs to ``--algorithm``. Environments, the compiled core and plotting are imported by the
command that needs them, so that ``--help`` is quick.

Exit status: 0 done, 1 an error (one sentence on standard error), 2 wrong usage, 130 interrupted.
``TRPO_FAST_DEBUG=1`` shows the traceback of an error.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, is_dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast

import tyro

from ..config import ConfigError, TRPOConfig
from ..algorithms import ALGORITHMS, PAGES, algorithm_class, page
from ..presets import PRESETS, find_preset
from ..run_folder import RunFolder, RunFolderError

if TYPE_CHECKING:
    from ..training.agent import TRPO

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# flags of train, besides the configuration, that config.json keeps for --resume
_STORED = (
    "env",
    "algorithm",
    "total_timesteps",
    "tensorboard",
    "evaluate_every",
    "evaluation_episodes",
    "checkpoint_every",
)

_OF_THE_MACHINE = ("n_threads", "n_workers")  # settings that may change with --resume
_LIBRARIES = ("numpy", "gymnasium", "safetensors", "tyro", "mujoco", "ale-py", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy and keep everything in a run folder."""

    env: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ENV")] = None
    """Gymnasium id such as HalfCheetah-v5, or module:Id; left out with --resume."""

    total_timesteps: int = 1_000_000
    """Environment steps of the whole run, over all environments; 1e6 is understood."""

    algorithm: Annotated[str, tyro.conf.arg(metavar="|".join(ALGORITHMS))] = "trpo"
    """Method that trains; with its name, --help lists its own flags too. See trpo-fast explain."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="|".join(PRESETS))] = None
    """Take the settings of another implementation; flags given explicitly win."""

    run_dir: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """New folder of the run; without it, runs/ENV-seedSEED, or runs/ENV-ALGORITHM-seedSEED."""

    resume: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Continue the run of this folder from its latest checkpoint."""

    tensorboard: bool = False
    """Write TensorBoard events too."""

    evaluate_every: int = 50_000
    """Environment steps between evaluations, which decide the best checkpoint; 0 for none."""

    evaluation_episodes: int = 10
    """Episodes per evaluation, with the policy's most likely actions."""

    checkpoint_every: int = 50_000
    """Environment steps between saves of the latest checkpoint; it is saved at the end anyway."""

    config: TRPOConfig = field(default_factory=TRPOConfig)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate the policy of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint file."""

    episodes: int = 100
    """Episodes to play."""

    checkpoint: Literal["best", "latest"] | None = None
    """Which checkpoint of the run; None takes the best one, or the latest if there is no best."""

    stochastic: bool = False
    """Sample actions instead of taking the most likely ones."""

    seed: int = 0
    """Seed of the evaluation environments and actions."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record one episode of a run's policy to a video file."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint file."""

    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Video file; without it, video.mp4 in the run folder."""

    checkpoint: Literal["best", "latest"] | None = None
    """Which checkpoint of the run; None takes the best one, or the latest if there is no best."""

    seed: int = 0
    """Seed of the environment."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Plot the learning curves of runs to a PNG file."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders; runs of one environment share a panel."""

    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "curves.png"
    """Picture to write."""


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Show the page about a method: equations, facts, pseudocode, and when to use it."""

    method: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="|".join(PAGES))] = (
        None
    )
    """Name of the method; without it, all of them are listed."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show version, instruction-set level, threads and libraries."""


@dataclass(frozen=True, kw_only=True)
class Selfcheck:
    """Check on this machine that the installed package computes what it should; some 10 seconds."""


Command = Train | Evaluate | Record | Plot | Explain | Info | Selfcheck


class UsageError(ValueError):
    """Flags that contradict each other or miss a value."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with these arguments (those of the process if None)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        _say(_version())
        return DONE
    try:
        return _run(_parse(arguments))
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except (ConfigError, UsageError) as error:
        return _fail(error, USAGE)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        return _fail(error, FAILED)
    except Exception as error:
        if _comes_from_an_environment(error):
            return _fail(error, FAILED)
        hint = "set TRPO_FAST_DEBUG=1 to see where, and please report it"
        return _fail(f"unexpected {type(error).__name__}: {error}; {hint}", FAILED)


# ---- parsing


def _parse(arguments: list[str]) -> Command:
    """Parse the arguments; algorithm, preset and resumed run change the defaults of the flags."""
    known = _algorithm_in(arguments)
    command = _parse_with(Train(config=_flags(_config_class(known)())), arguments)
    if not isinstance(command, Train):
        return command
    if command.preset is not None and command.resume is not None:
        raise UsageError("--preset: expected none with --resume, got both; leave out --preset")
    if command.preset is not None:
        find_preset(command.preset)  # whether there is one, before the core is loaded
        config = algorithm_class(known)._resolve_config(None, command.preset, {}, command.env)
        return _parse_with(Train(config=_flags(config)), arguments)
    if command.resume is None:
        return command
    record = RunFolder.open(command.resume).read_record()
    stored = {name: record[name] for name in _STORED if name in record}
    for name, value in stored.items():
        expected = type(getattr(command, name))
        if name != "env" and type(value) is not expected:
            raise RunFolderError(
                f"run folder: expected {name} of type {expected.__name__} in the config.json of "
                f"{command.resume}, got {value!r:.80}; restore the file from a copy"
            )
    algorithm = stored.get("algorithm", "trpo")
    config = _config_class(algorithm).from_saved(record["config"])
    command = cast(Train, _parse_with(Train(**stored, config=_flags(config)), arguments))
    if command.algorithm != algorithm:
        raise UsageError(
            f"--algorithm: expected the run's {algorithm}, got {command.algorithm}; "
            f"leave it out with --resume, or start a new run"
        )
    return command


def _algorithm_in(arguments: Sequence[str]) -> str:
    """The algorithm that the arguments name: what flags there are depends on it."""
    found = "trpo"
    if arguments[:1] == ["train"]:
        for flag, value in itertools.pairwise([*arguments, ""]):
            name, _, given = flag.partition("=")
            if name == "--algorithm":
                found = given or value
        if found not in ALGORITHMS:
            algorithm_class(found)  # says what there is
    return found


def _config_class(algorithm: str) -> type[TRPOConfig]:
    # the plain one without the class of its agent, so that --help need not load the core
    return TRPOConfig if algorithm == "trpo" else algorithm_class(algorithm).config_type


def _flags(config: Any) -> Any:
    """Settings as defaults of flags: not validated before preset and flags have been put together."""
    plain = type(config)
    own: dict[str, Any] = {"__doc__": plain.__doc__, "__post_init__": lambda self: None}
    if issubclass(plain, TRPOConfig):
        n_workers = Annotated[int | None, tyro.conf.arg(aliases=("--workers",))]
        own |= {"__annotations__": {"n_workers": n_workers}, "n_workers": None}
    flags: Any = dataclass(frozen=True, kw_only=True)(type(plain.__name__, (plain,), own))
    values = {name: _flags(v) if is_dataclass(v) else v for name, v in vars(config).items()}
    return flags(**values)


def _parse_with(train_defaults: Train, arguments: list[str]) -> Command:
    subcommand = tyro.conf.subcommand
    commands = Union[  # noqa: UP007  (annotated members need a typing.Union at run time)
        Annotated[Train, subcommand("train", default=train_defaults)],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Record, subcommand("record")],
        Annotated[Plot, subcommand("plot")],
        Annotated[Explain, subcommand("explain")],
        Annotated[Info, subcommand("info")],
        Annotated[Selfcheck, subcommand("selfcheck")],
    ]
    # the argument registry= would do, but misses integers before tyro 1.0.12
    with _integers_registry():
        command = tyro.cli(
            cast(Any, commands),
            prog="trpo-fast",
            description="Trust Region Policy Optimization on a C++ core.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    return cast(Command, command)


def _integers_registry() -> tyro.constructors.ConstructorRegistry:
    """Return tyro's rules with one of ours: an integer may be written 1e6."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def integer(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: _integer(texts[0]),
            is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
        if number.is_integer():
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"expected an integer such as 2048 or 1e6, got {text!r}")


def _run(command: Command) -> int:
    match command:
        case Train():
            return train(command)
        case Evaluate():
            return evaluate(command)
        case Record():
            return record(command)
        case Plot():
            return plot(command)
        case Explain():
            return explain(command)
        case Info():
            return info()
        case Selfcheck():
            return selfcheck()


# ---- commands


def train(command: Train) -> int:
    """Train, or continue training, until the total of steps or a signal."""
    config = algorithm_class(command.algorithm).config_type.from_dict(command.config.to_dict())
    _check_counts(command)
    with ExitStack() as held:
        if command.resume is None:
            run, agent = _started(command, config, held)
        else:
            run, agent = _resumed(command, config, held)
        stop = held.enter_context(StopOnSignal())
        try:
            _learn(agent, run, command, stop)
        except KeyboardInterrupt:
            return _fail(f"interrupted at once; {_where_to_continue(run)}", INTERRUPTED)
        except Exception:
            _say(_where_to_continue(run))
            raise
    _say(f"saved {run.latest} at {agent.timesteps} steps")
    if stop.requested:
        return _fail(f"interrupted; {_where_to_continue(run)}", INTERRUPTED)
    return DONE


def evaluate(command: Evaluate) -> int:
    """Play episodes with a run's policy and print mean and deviation."""
    _at_least("--episodes", command.episodes, 1)
    file, agent = _loaded(command.run, command.checkpoint)
    with closing(agent):
        result = agent.evaluate(
            episodes=command.episodes, deterministic=not command.stochastic, seed=command.seed
        )
    _say(
        f"{agent.env_name}: return {result.mean_return:.2f} ± {result.std_return:.2f}, "
        f"length {result.mean_length:.1f}, {command.episodes} episodes, "
        f"{file.name} at {agent.timesteps} steps"
    )
    return DONE


def record(command: Record) -> int:
    """Write a video of one episode."""
    file, agent = _loaded(command.run, command.checkpoint)

    from ..training.evaluation import record_video

    out = Path(command.out) if command.out else file.with_name("video.mp4")
    with closing(agent):
        try:
            record_video(agent, out, seed=command.seed)
        except Exception as error:
            if "OpenGL" not in str(error):
                raise
            raise RuntimeError(
                "record: expected a display or a renderer without one, got no OpenGL context; "
                "set MUJOCO_GL=egl or MUJOCO_GL=osmesa"
            ) from error
    _say(f"saved {out}")
    return DONE


def plot(command: Plot) -> int:
    """Write the learning curves of runs."""
    if not command.runs:
        raise UsageError("plot: expected at least one run folder, got none; name one")
    folders = [RunFolder.open(run).path for run in command.runs]

    from ..plotting import plot_runs

    plot_runs(folders, Path(command.out))
    _say(f"saved {command.out}")
    return DONE


def explain(command: Explain) -> int:
    """Print the page of a method, or the list of all."""
    if command.method is None:
        width = max(map(len, PAGES))
        for name, about in PAGES.items():
            _say(f"{name:<{width}}  {about}")
        return DONE
    text = page(command.method)
    if not sys.stdout.isatty():
        _say(text.rstrip("\n"))
        return DONE

    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(100, Console().width)).print(Markdown(text))
    return DONE


def info() -> int:
    """Print versions and what the core found on this machine."""
    from .. import runtime

    names = {"algorithms": list(ALGORITHMS), "presets": list(PRESETS)}
    _say_facts({**runtime.info(), **_library_versions(), **names})
    return DONE


def selfcheck() -> int:
    """Print facts and the outcome of every check: a report to paste into a bug report."""
    from .. import runtime
    from ..selfcheck import checks, run_check

    _say_facts({**runtime.info(), **_library_versions()})
    started, failed, todo = time.perf_counter(), 0, checks()
    for check in todo:
        result = run_check(check)
        failed += not result.passed
        verdict = "ok" if result.passed else "FAILED"
        _say(f"{verdict:<6}  {result.name:<20}  {result.seconds:4.1f} s  {result.message}")
        if result.trace:
            _say(result.trace)
    _say(f"{len(todo)} checks, {failed} failed, {time.perf_counter() - started:.1f} s")
    return FAILED if failed else DONE


# ---- training


def _started(command: Train, config: TRPOConfig, held: ExitStack) -> tuple[RunFolder, TRPO]:
    if not command.env:
        raise UsageError("train: expected an environment, got none; name one, as CartPole-v1")
    name = re.sub(r"[^\w.-]+", "-", command.env)
    if command.algorithm != "trpo":
        name += f"-{command.algorithm}"
    folder = command.run_dir or os.path.join("runs", f"{name}-seed{config.seed}")
    # the folder is made last: a wrong environment leaves nothing behind
    RunFolder(folder).refuse_if_present()

    agent_class = algorithm_class(command.algorithm)
    agent = held.enter_context(closing(agent_class(command.env, config=config)))
    run = RunFolder.create(folder)
    held.enter_context(run.locked())
    run.refuse_if_present()
    # what --resume needs, in this order: from config.json on there is a run to continue
    agent.save(run.latest)
    run.write_record(_describe(command, config))
    return run, agent


def _resumed(command: Train, config: TRPOConfig, held: ExitStack) -> tuple[RunFolder, TRPO]:
    run = RunFolder.open(cast(str, command.resume))
    held.enter_context(run.locked())
    stored = run.read_record()
    if command.run_dir is not None:
        raise UsageError("--run-dir: expected none with --resume, got both; leave out --run-dir")
    if command.env != stored["env"]:
        raise UsageError(
            f"train: expected the run's environment {stored['env']}, got {command.env}; "
            f"leave it out with --resume"
        )
    settings = _by_flag(config)
    for name, value in _by_flag(type(config).from_saved(stored["config"])).items():
        given = settings[name]
        if given != value and name not in _OF_THE_MACHINE:
            raise UsageError(
                f"--{name.replace('_', '-')}: expected the run's {value}, got {given}; "
                f"leave it out with --resume, or start a new run"
            )

    from ..training.agent import TRPO
    from ..runtime import set_num_threads

    agent = held.enter_context(
        closing(TRPO.load(run.checkpoint("latest"), env=stored["env"], n_workers=config.n_workers))
    )
    if agent.timesteps >= command.total_timesteps:
        raise UsageError(
            f"--total-timesteps: expected more than the {agent.timesteps} steps already done, "
            f"got {command.total_timesteps}; raise it"
        )
    if config.n_threads is not None:
        set_num_threads(config.n_threads)
    run.write_record({**stored, "total_timesteps": command.total_timesteps})
    if agent.timesteps == 0:  # stopped before its first checkpoint: all rows will be written again
        run.evaluations_file.unlink(missing_ok=True)
    return run, agent


def _learn(agent: TRPO, run: RunFolder, command: Train, stop: StopOnSignal) -> None:
    from ..training.callbacks import CallbackLike, CheckpointEvery, EvaluateEvery
    from ..logging import CsvLogger, Logger, TensorBoardLogger

    callbacks: list[CallbackLike] = []
    if command.evaluate_every > 0:
        every, episodes = command.evaluate_every, command.evaluation_episodes
        callbacks.append(EvaluateEvery(every, episodes, run.best, csv_path=run.evaluations_file))
    # it saves at the end too, however training ends
    callbacks.append(CheckpointEvery(command.checkpoint_every, run.latest))
    callbacks.append(stop.on_iteration)

    # a run that goes on loses the rows beyond its checkpoint: they will be written again
    resume = None if command.resume is None else agent.timesteps
    loggers: list[Logger] = [CsvLogger(run.progress_file, resume_timesteps=resume)]
    if command.tensorboard:
        loggers.append(TensorBoardLogger(run.tensorboard, resume_timesteps=resume))

    # learn counts the steps of this call, the flag those of the whole run
    agent.learn(
        command.total_timesteps - agent.timesteps,
        callback=callbacks,
        progress=sys.stderr.isatty(),
        loggers=loggers,
    )


class StopOnSignal:
    """While entered, SIGINT and SIGTERM end training after the current iteration.

    The checkpoint saved then is that of a whole iteration, so that the run continues exactly. A
    second signal interrupts at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        """Take over the two signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_iteration(self, agent: TRPO, record: Mapping[str, object]) -> bool | None:
        """Stop training (return False) once a signal has come; a callback of learn()."""
        return False if self.requested else None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # print may be what the signal has interrupted; os.write cannot be entered twice
        os.write(2, b"trpo-fast: stopping after this iteration; a second signal stops at once\n")


def _by_flag(config: TRPOConfig) -> dict[str, Any]:
    """The settings by the names of their flags: those of a group stand beside the others."""
    flat: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _describe(command: Train, config: TRPOConfig) -> dict[str, Any]:
    record: dict[str, Any] = {
        **{name: getattr(command, name) for name in _STORED},
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": {
            "trpo_fast": _version(),
            "python": platform.python_version(),
            **_library_versions(),
        },
        "platform": platform.platform(),
    }
    if command.preset:
        used = find_preset(command.preset)
        differences = list(used.differences)
        record["preset"] = {"name": used.name, "source": used.source, "differences": differences}
    return record


def _check_counts(command: Train) -> None:
    _at_least("--total-timesteps", command.total_timesteps, 1)
    _at_least("--evaluate-every", command.evaluate_every, 0)
    _at_least("--evaluation-episodes", command.evaluation_episodes, 1)
    _at_least("--checkpoint-every", command.checkpoint_every, 1)


def _at_least(flag: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"{flag}: expected an integer of at least {low}, got {value}; raise it")


def _loaded(run: str, which: str | None) -> tuple[Path, TRPO]:
    path = Path(run)
    if path.is_file():
        if which is not None:
            raise UsageError("--checkpoint: expected none with a file, got one; leave it out")
        file, env = path, None
    else:
        folder = RunFolder.open(path)
        file, env = folder.checkpoint(which), folder.read_record()["env"]

    from ..training.agent import TRPO

    return file, TRPO.load(file, env=env)


def _where_to_continue(run: RunFolder) -> str:
    if run.latest.is_file():
        return f"continue with `trpo-fast train --resume {run.path}` from {run.latest}"
    return f"no checkpoint had been saved yet in {run.path}"


# ---- the outside


def _say_facts(facts: Mapping[str, Any]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        _say(f"{name:<{width}}  {text}")


def _version() -> str:
    from .._version import __version__

    return str(__version__)


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _comes_from_an_environment(error: Exception) -> bool:
    # told by its module, so that nothing need be imported
    return type(error).__module__.partition(".")[0] in ("gymnasium", "mujoco", "ale_py")


def _fail(problem: object, status: int) -> int:
    if os.environ.get("TRPO_FAST_DEBUG") == "1" and isinstance(problem, Exception):
        traceback.print_exception(problem)
    _tell(problem)
    return status


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(problem: object) -> None:
    sentence = " ".join(str(problem).split()) or type(problem).__name__
    print(f"trpo-fast: {sentence}", file=sys.stderr, flush=True)


__all__ = [
    "Evaluate",
    "Explain",
    "Info",
    "Plot",
    "Record",
    "RunFolderError",
    "Selfcheck",
    "Train",
    "main",
]


if __name__ == "__main__":
    sys.exit(main())
