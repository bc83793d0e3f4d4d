"""The flags of training, alone or many times: what `train`, `study` and `tune` share and have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ..algorithms import ALGORITHMS
from ..config import AgentConfig, TRPOConfig
from ..presets import PRESETS
from .environment import EnvironmentFlags


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(EnvironmentFlags):
    """What every run is told, alone or in a study."""

    total_timesteps: int = 1_000_000
    """Environment steps of the whole run, over all environments; 1e6 is understood."""

    algorithm: Annotated[str, tyro.conf.arg(metavar="|".join(ALGORITHMS))] = "trpo"
    """Method that trains; with its name, --help lists its own flags too. See trpo-fast explain."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="|".join(PRESETS))] = None
    """Take the settings of another implementation; flags given explicitly win."""

    tensorboard: bool = False
    """Write TensorBoard events too."""

    evaluate_every: int = 50_000
    """Environment steps between evaluations, which decide the best checkpoint; 0 for none."""

    evaluation_episodes: int = 10
    """Episodes per evaluation, with the policy's most likely actions."""

    evaluation_max_steps: int | None = None
    """Cut an evaluation's episode after so many steps; None: 10,000, or the time limit if longer."""

    best_by: Annotated[str, tyro.conf.arg(metavar="return|success_rate|METRIC")] = "return"
    """What the best checkpoint has most of in evaluations; the return decides among equals."""

    checkpoint_every: int = 50_000
    """Environment steps between saves of the latest checkpoint; it is saved at the end anyway."""

    config: AgentConfig = field(default_factory=TRPOConfig)


@dataclass(frozen=True, kw_only=True)
class Study(TrainingFlags):
    """Train environments x settings x seeds, resumable as a whole, and compare them."""

    envs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ENV ...")] = ()
    """Gymnasium ids, or module:Id; left out with --env-factory."""

    seeds: Annotated[str, tyro.conf.arg(metavar="0-9")]
    """Seeds of every environment and setting, such as 0-9 or 0,3,7."""

    run_dir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the study; that of one that was ended goes on."""

    grid: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE,VALUE")
    ] = ()
    """Values of a setting, as max_kl=0.01,0.02; may be repeated: all combinations are trained."""

    jobs: int | None = None
    """Runs at once; None takes as many as there are processors."""


@dataclass(frozen=True, kw_only=True)
class Tune(EnvironmentFlags):
    """Search settings with Optuna; what is typed of the settings is not searched."""

    env: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ENV")] = None
    """Gymnasium id, or module:Id; left out with --env-factory."""

    run_dir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the tuning; that of one that was ended goes on."""

    trials: int = 100
    """Trials in all, those that the folder holds among them."""

    total_timesteps: int = 100_000
    """Environment steps of one run of a trial."""

    seeds: Annotated[str, tyro.conf.arg(metavar="0-1")] = "0-1"
    """Seeds of every trial, which is worth the mean of their final evaluations."""

    search: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=LOW:HIGH|A,B")
    ] = ()
    """What to search instead of the default, as max_kl=0.003:0.1 or batch_size=1024,2048; may be
    repeated."""

    algorithm: Annotated[str, tyro.conf.arg(metavar="|".join(ALGORITHMS))] = "trpo"
    """Method that trains."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="|".join(PRESETS))] = None
    """Settings to start from."""

    evaluation_episodes: int = 10
    """Episodes of each of a run's ten evaluations."""

    config: AgentConfig = field(default_factory=TRPOConfig)
