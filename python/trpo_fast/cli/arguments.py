"""What can be typed: the flags of every command, and how they are put together.

Flags are generated from the dataclasses below and from `TRPOConfig`, or the configuration that
belongs to ``--algorithm``. Nothing here loads environments or the compiled core, so that
``--help`` is quick.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, Any, Literal, Union, cast, get_args

import tyro

from ..algorithms import ALGORITHMS, PAGES, algorithm_class
from ..config import AgentConfig, TRPOConfig, field_names
from ..presets import find_preset
from ..run_folder import RunFolder, RunFolderError
from ..schedules import Schedule
from .config_file import expand
from .environment import ChosenEnvironment, EnvironmentFlags, of_resumed
from .output import UsageError
from .pictures import Plot, Report
from .training_flags import Study, TrainingFlags, Tune

# flags of train, besides the configuration, that config.json keeps for --resume
STORED = (
    "algorithm",
    "total_timesteps",
    "tensorboard",
    "evaluate_every",
    "evaluation_episodes",
    "evaluation_max_steps",
    "best_by",
    "checkpoint_every",
)


@dataclass(frozen=True, kw_only=True)
class Train(TrainingFlags):
    """Train a policy and keep everything in a run folder."""

    env: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ENV")] = None
    """Gymnasium id such as HalfCheetah-v5, or module:Id; left out with --resume and --env-factory."""

    config_file: Annotated[str | None, tyro.conf.arg(name="config", metavar="FILE")] = None
    """YAML or JSON file with flags by name; flags given explicitly win."""

    save_config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Write all settings to a YAML file that --config reads, instead of training."""

    seeds: Annotated[str | None, tyro.conf.arg(metavar="0-9")] = None
    """Run each of these seeds in a folder of its own, as many at once as the cores allow."""

    run_dir: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """New folder of the run; without it, runs/ENV-seedSEED, or runs/ENV-ALGORITHM-seedSEED."""

    resume: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Continue the run of this folder from its latest checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(EnvironmentFlags):
    """Evaluate the policy of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint file."""

    episodes: int = 100
    """Episodes to play."""

    max_steps: int | None = None
    """Cut an episode after so many steps; None: 10,000, or the time limit if that is longer."""

    checkpoint: Literal["best", "latest"] | None = None
    """Which checkpoint of the run; None takes the best one, or the latest if there is no best."""

    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None
    """The run's environment, module:Id, where it lives in a module of your own: you trust it."""

    stochastic: bool = False
    """Sample actions instead of taking the most likely ones."""

    seed: int = 0
    """Seed of the evaluation environments and actions."""


@dataclass(frozen=True, kw_only=True)
class Record(EnvironmentFlags):
    """Record one episode of a run's policy to a video file."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint file."""

    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Video file; without it, video.mp4 in the run folder."""

    checkpoint: Literal["best", "latest"] | None = None
    """Which checkpoint of the run; None takes the best one, or the latest if there is no best."""

    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None
    """The run's environment, module:Id, where it lives in a module of your own: you trust it."""

    seed: int = 0
    """Seed of the environment."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the policy of a run for another program; needs neither its environment nor Gymnasium."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run folder, or one checkpoint file."""

    to: Literal["onnx", "c", "torch", "numpy", "sb3"] | None = None
    """Target; without it, the ending of --out tells it: .onnx, .h, .pt2 or .pt, .npz, .zip."""

    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write; without it, policy.onnx, trpo_policy.h, policy.pt2, policy.npz or policy.zip
    beside the run's files."""

    checkpoint: Literal["best", "latest"] | None = None
    """Which checkpoint of the run; None takes the best one, or the latest if there is no best."""

    sample: bool = False
    """The graph of ONNX or PyTorch takes noise as an input and gives samples, not the mode."""

    number: Literal["float", "fixed"] = "float"
    """Arithmetic of the C header; fixed takes integers only, for processors without floating point."""


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


Command = (
    Train | Study | Tune | Evaluate | Record | Export | Plot | Report | Explain | Info | Selfcheck
)


def parse(arguments: list[str]) -> Command:
    """Turn arguments into a command.

    The algorithm that is named decides which flags there are; a preset or a run that is resumed
    decides their defaults. So the arguments of `train` are parsed twice.

    Parameters
    ----------
    arguments
        What was typed behind the name of the program.

    Raises
    ------
    SystemExit
        With status 2 and a message on standard error, if a flag is unknown or has a bad value; with
        status 0 after `--help`.
    UsageError
        If flags contradict each other.
    ConfigError
        If the algorithm or the preset is unknown.
    RunFolderError
        If there is no run to resume, or its record is damaged.
    """
    arguments, env = expand(arguments)
    known = _algorithm_in(arguments)
    _refuse_settings_of_other_methods(known, arguments)
    command = _parse_with(Train(env=env, config=_flags(_config_class(known)())), arguments)
    if not isinstance(command, Train):
        return command
    if command.preset is not None and command.resume is not None:
        raise UsageError("--preset: expected none with --resume, got both; leave out --preset")
    if command.preset is not None:
        find_preset(command.preset)  # raises if there is none, before the core is loaded
        config = algorithm_class(known).make_config(None, command.preset, {}, command.env)
        return _parse_with(Train(env=env, config=_flags(config)), arguments)
    if command.resume is None:
        return command
    for flag, value in (("--config", command.config_file), ("--seeds", command.seeds)):
        if value is not None:
            raise UsageError(f"{flag}: expected none with --resume, got {value}; leave it out")
    run = RunFolder.open(command.resume)
    record = run.read_record()
    # raises where the folder would choose what to import
    chosen = of_resumed(run, ChosenEnvironment.typed(command))
    stored = {name: record[name] for name in STORED if name in record}
    for name, value in stored.items():
        expected = int if name == "evaluation_max_steps" else type(getattr(command, name))
        if name == "evaluation_max_steps" and value is None:
            continue
        if type(value) is not expected:
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
    return replace(command, **vars(chosen))


def _algorithm_in(arguments: Sequence[str]) -> str:
    """Return the algorithm that the arguments name: it decides which flags there are."""
    found = "trpo"
    if arguments[:1] == ["train"]:
        for flag, value in itertools.pairwise([*arguments, ""]):
            name, _, given = flag.partition("=")
            if name == "--algorithm":
                found = given or value
        if found not in ALGORITHMS:
            algorithm_class(found)  # says what there is
    return found


def _refuse_settings_of_other_methods(algorithm: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError for a flag that is a setting of TRPO, but none of this method."""
    if algorithm != "trpo" and arguments[:1] == ["train"]:
        flags = (text.partition("=")[0] for text in arguments if text.startswith("--"))
        names = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
        _config_class(algorithm).refuse_unknown(name for name in field_names() if name in names)


def _config_class(algorithm: str) -> type[AgentConfig]:
    # for TRPO's configuration the class of its agent is not asked, which would load the core
    return TRPOConfig if algorithm == "trpo" else algorithm_class(algorithm).config_type


def _flags(config: Any) -> Any:
    """Return settings as defaults of flags.

    They are validated only after preset and flags have been put together: either may be invalid
    without the other.
    """
    plain = type(config)
    own: dict[str, Any] = {
        "__doc__": _first_paragraph(plain.__doc__ or ""),
        "__post_init__": lambda self: None,
    }
    if issubclass(plain, AgentConfig):
        n_workers = Annotated[int | None, tyro.conf.arg(aliases=("--workers",))]
        own |= {"__annotations__": {"n_workers": n_workers}, "n_workers": None}
    flags: Any = dataclass(frozen=True, kw_only=True)(type(plain.__name__, (plain,), own))
    values = {name: _flags(v) if is_dataclass(v) else v for name, v in vars(config).items()}
    return flags(**values)


def _first_paragraph(documentation: str) -> str:
    """Return what a help shows of a class: its first paragraph as plain text, without markup."""
    text = " ".join(inspect.cleandoc(documentation).partition("\n\n")[0].split())
    return re.sub(r"(?::\w+:)?`+~?\.?([^`]*)`+", r"\1", text)


def _parse_with(train_defaults: Train, arguments: list[str]) -> Command:
    subcommand = tyro.conf.subcommand
    commands = Union[  # noqa: UP007  (annotated members need a typing.Union at run time)
        Annotated[Train, subcommand("train", default=train_defaults)],
        Annotated[Study, subcommand("study")],
        Annotated[Tune, subcommand("tune")],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Record, subcommand("record")],
        Annotated[Export, subcommand("export")],
        Annotated[Plot, subcommand("plot")],
        Annotated[Report, subcommand("report")],
        Annotated[Explain, subcommand("explain")],
        Annotated[Info, subcommand("info")],
        Annotated[Selfcheck, subcommand("selfcheck")],
    ]
    # tyro.cli has an argument registry=, which does not reach integers before tyro 1.0.12
    with _rules():
        command = tyro.cli(
            cast(Any, commands),
            prog="trpo-fast",
            description="Trust Region Policy Optimization on a C++ core.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    return cast(Command, command)


def _rules() -> tyro.constructors.ConstructorRegistry:
    """Return tyro's rules of parsing, and two more: integers such as 1e6, and schedules."""
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

    @registry.primitive_rule
    def scheduled(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if Schedule not in get_args(info.type):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT|SCHEDULE",
            instance_from_str=lambda texts: _number_or_text(texts[0]),
            is_instance=lambda value: True,  # the configuration checks it
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _number_or_text(text: str) -> float | str | None:
    try:
        return None if text == "None" else float(text)
    except ValueError:
        return text


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


def at_least(flag: str, value: int, low: int) -> None:
    """Raise UsageError if the value of a flag is below `low`.

    Parameters
    ----------
    flag
        The flag, for the sentence.
    value
        The value to check.
    low
        The least value allowed.
    """
    if value < low:
        raise UsageError(f"{flag}: expected an integer of at least {low}, got {value}; raise it")
