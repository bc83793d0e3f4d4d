"""`tune`: settings by trial and error, with Optuna; trials that fall behind are ended early."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import TRPOConfig
from ..extras import import_extra
from ..logging import write_atomically
from .plan import StudyError
from .space import DEFAULT_SPACE, Choice, Interval, Space, settings_of
from .trials import REPORTS, TrialTraining, Tuning

if TYPE_CHECKING:
    from ..envs import EnvSource
    from .cluster import RemoteTraining

_NAME = "trpo_fast"  # of the study in its file


class TuneResult:
    """The trials of a tuning so far.

    Parameters
    ----------
    study
        Optuna's study.
    tuning
        What was tuned.
    """

    def __init__(self, study: Any, tuning: Tuning) -> None:
        self.study, self.tuning = study, tuning

    @property
    def n_done(self) -> int:
        """Trials that were trained to their end or ended early."""
        return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in self.study.trials)

    @property
    def best_return(self) -> float:
        """Mean final return over the seeds of the best trial; NaN where there is none yet."""
        done = [t.value for t in self.study.trials if t.state.name == "COMPLETE"]
        return max(done, default=math.nan)

    @property
    def best(self) -> dict[str, Any]:
        """The settings of the best trial, by name.

        Raises
        ------
        StudyError
            If no trial has been trained to its end.
        """
        if math.isnan(self.best_return):
            raise StudyError("tune: expected a trial that came to its end, got none; try more")
        return settings_of(self.study.best_params)

    def write_best(self) -> Path:
        """Write ``best.yaml``, which ``trpo-fast train --config`` takes, and return its path."""
        import yaml

        tuning = self.tuning
        flags: dict[str, Any] = {"total_timesteps": tuning.total_timesteps}
        flags["algorithm"] = tuning.algorithm
        if isinstance(tuning.env, str):
            flags["env"] = tuning.env
        if tuning.preset is not None:
            flags["preset"] = tuning.preset
        settings = {**tuning.settings, **self.best}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
        path = tuning.folder / "best.yaml"
        with write_atomically(path) as stream:
            stream.write(f"# the best of {self.n_done} trials: return {self.best_return:,.1f}\n")
            yaml.safe_dump({**flags, **plain}, stream, sort_keys=False)
        return path

    def importances(self) -> dict[str, float]:
        """Share of each setting in what makes good trials good (PED-ANOVA), the largest first."""
        optuna = _optuna()
        if len({t.value for t in self.study.trials if t.state.name == "COMPLETE"}) < 4:
            return {}
        with _experiments_allowed(optuna):
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def plot(self, out: str | os.PathLike[str] | None = None) -> Path:
        """Draw the trials in their order, and the importances.

        Parameters
        ----------
        out
            Picture to write; None is ``tune.png`` in the folder.

        Raises
        ------
        MissingExtraError
            (an ``ImportError``) without Matplotlib.
        """
        figures = import_extra("matplotlib.figure", what="a picture of a tuning", extra="tune")
        figure = figures.Figure(figsize=(11, 4), layout="constrained")
        history, shares = figure.subplots(1, 2)
        done = [t for t in self.study.trials if t.state.name == "COMPLETE"]
        pruned = [t for t in self.study.trials if t.state.name == "PRUNED"]
        history.plot([t.number for t in done], [t.value for t in done], "o", label="to its end")
        last = [(t.number, t.intermediate_values[max(t.intermediate_values)]) for t in pruned]
        history.plot(*zip(*last, strict=True) if last else ((), ()), "x", label="ended early")
        best = np.maximum.accumulate([t.value for t in done] or [math.nan])[: len(done)]
        history.step([t.number for t in done], best, where="post", label="best so far")
        history.set(xlabel="trial", ylabel="final return, mean over seeds")
        history.legend(frameon=False)
        found = self.importances()
        shares.barh(list(found)[::-1], list(found.values())[::-1])
        shares.set(xlabel="importance (PED-ANOVA)")
        for axis in (history, shares):
            axis.spines[["top", "right"]].set_visible(False)
        path = Path(out) if out is not None else self.tuning.folder / "tune.png"
        figure.savefig(path, dpi=150)
        return path


def tune(
    env: EnvSource,
    *,
    run_dir: str | os.PathLike[str],
    trials: int = 100,
    total_timesteps: int = 100_000,
    seeds: Iterable[int] = (0, 1),
    search: Space | None = None,
    algorithm: str = "trpo",
    preset: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    evaluation_episodes: int = 10,
    cluster: str | None = None,
    runtime_env: Any = None,
    progress: Callable[[str], None] | None = print,
    **settings: Any,
) -> TuneResult:
    """Search settings with Optuna's TPE sampler; what is done is not done again.

    >>> result = tune("CartPole-v1", trials=20, total_timesteps=20_000, run_dir="tune")
    >>> TRPO("CartPole-v1", **result.best)

    A trial trains one agent a seed and is worth the mean of their final evaluations. After each tenth
    of its steps it is compared with the trials before it and ended if it is below their median.

    Parameters
    ----------
    env
        What is stepped, as an agent takes it: an id or a function that makes an environment.
    run_dir
        Folder of the tuning: ``trials.log`` (Optuna's journal, from which it goes on), ``best.yaml``
        and ``tune.png``.
    trials
        Trials in all, those that the folder holds among them, at least 1.
    total_timesteps
        Environment steps of one run, at least 10.
    seeds
        Seeds of every trial.
    search
        Intervals and choices by setting; None is ``DEFAULT_SPACE`` without what the method does not
        have.
    algorithm, preset
        The method, and the settings to start from.
    env_kwargs
        Keyword arguments of the environment.
    evaluation_episodes
        Episodes of each evaluation, at least 1.
    cluster
        Ray cluster whose cores train trials, as many at once as are free: "local", "auto", "HOST:PORT"
        or "ray://HOST:PORT". None trains one after the other here.
    runtime_env
        What Ray brings to the nodes: a mapping, JSON, or the name of a YAML file.
    progress
        Is given a line of text for every trial; None for silence.
    **settings
        Settings that are not searched.

    Returns
    -------
    TuneResult
        The best settings, importances, picture.

    Raises
    ------
    StudyError
        (a ``ValueError``) if a number is out of range or a setting is named twice.
    ConfigError
        If the method does not take a setting.
    MissingExtraError
        (an ``ImportError``) without Optuna.
    """
    tuning = Tuning(
        env=env,
        folder=Path(run_dir),
        total_timesteps=total_timesteps,
        seeds=tuple(seeds),
        space=DEFAULT_SPACE if search is None else search,
        algorithm=algorithm,
        preset=preset,
        env_kwargs=env_kwargs,
        evaluation_episodes=evaluation_episodes,
        settings=settings,
    )
    where = TRPOConfig(cluster=cluster, runtime_env=runtime_env)  # checks them
    return run_tuning(
        tuning, trials, progress, cluster=where.cluster, runtime_env=where.runtime_env
    )


def run_tuning(
    tuning: Tuning,
    trials: int,
    progress: Callable[[str], None] | None = print,
    *,
    cluster: str | None = None,
    runtime_env: str | None = None,
) -> TuneResult:
    """Run the trials that are left of a tuning.

    Parameters
    ----------
    tuning
        What is tuned.
    trials
        Trials in all, at least 1.
    progress
        Is given a line of text for every trial; None for silence.
    cluster, runtime_env
        As for `tune`, the second as text.

    Returns
    -------
    TuneResult
        The best settings, importances, picture.
    """
    if trials < 1:
        raise StudyError(f"trials: expected at least 1, got {trials}")
    optuna = _optuna()
    # the bounds and the middle of every interval: a wrong name is told before anything is made
    space = tuning.space_of_the_method
    for index in (0, -1):
        ends = {
            k: (v.values[index] if isinstance(v, Choice) else v.low if index == 0 else v.high)
            for k, v in space.items()
        }
        tuning.config(ends, tuning.seeds[0])
    tuning.folder.mkdir(parents=True, exist_ok=True)
    journal = optuna.storages.journal
    storage = optuna.storages.JournalStorage(
        journal.JournalFileBackend(str(tuning.folder / "trials.log"))
    )
    study = optuna.create_study(
        storage=storage,
        study_name=_NAME,
        load_if_exists=True,
        direction="maximize",
        sampler=_sampler(optuna, len(tuning.seeds), in_parallel=cluster is not None),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    result = TuneResult(study, tuning)

    def say(study: Any, trial: Any) -> None:
        if progress is not None:
            value = "" if trial.value is None else f" {trial.value:,.1f}"
            settings = " ".join(f"{k}={_short(v)}" for k, v in trial.params.items())
            state = {"COMPLETE": "return", "PRUNED": "ended early at"}.get(
                trial.state.name, "failed"
            )
            progress(f"trial {result.n_done} of {trials}: {state}{value} ({settings})")

    with ExitStack() as held:
        start: Callable[[Mapping[str, Any]], TrialTraining | RemoteTraining]
        start, at_once = partial(TrialTraining, tuning), 1
        if cluster is not None:
            from ..rollout.cluster import Connection
            from .cluster import RemoteTraining

            connection = Connection(cluster, runtime_env)
            held.callback(connection.close)
            at_once = connection.require_cores(None, at_most=trials, name="tune")
            start = partial(RemoteTraining, connection, tuning)
        while (left := trials - result.n_done) > 0:
            study.optimize(
                lambda trial: _score(trial, space, start),
                n_trials=left,
                n_jobs=min(at_once, left),
                callbacks=[say],
            )
    return result


@contextmanager
def _experiments_allowed(optuna: Any) -> Iterator[None]:
    """Without warnings of what was experimental in Optuna 4.0, and later no more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _sampler(optuna: Any, n_seeds: int, *, in_parallel: bool) -> Any:
    with _experiments_allowed(optuna):
        return optuna.samplers.TPESampler(
            seed=n_seeds, multivariate=True, constant_liar=in_parallel
        )


def _score(
    trial: Any, space: Space, start: Callable[[Mapping[str, Any]], TrialTraining | RemoteTraining]
) -> float:
    """Train one agent a seed in step, and return the mean of their final evaluations."""
    optuna = _optuna()
    value = math.nan
    with closing(start({name: _drawn(trial, name, part) for name, part in space.items()})) as begun:
        for report in range(1, REPORTS + 1):
            value = begun.advance(report)
            trial.report(value, report)
            if report < REPORTS and trial.should_prune():
                raise optuna.TrialPruned
    return value


def _drawn(trial: Any, name: str, part: Interval | Choice) -> Any:
    if isinstance(part, Choice):
        return trial.suggest_categorical(name, part.values)
    if part.is_whole:
        return trial.suggest_int(name, part.low, part.high, log=part.log)
    return trial.suggest_float(name, part.low, part.high, log=part.log)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "x")


def _optuna() -> Any:
    optuna = import_extra("optuna", what="tuning", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
