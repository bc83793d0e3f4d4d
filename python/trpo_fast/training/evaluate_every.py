"""Evaluations during training, and the checkpoint of the best one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..envs import make_environment
from ..logging import CsvLogger, read_rows
from ..seeds import Purpose, derive
from .callbacks import Callback, Record, check_count, next_multiple
from .episodes import EvaluationResult
from .evaluation import (
    evaluate_policy,
    own_environment,
    refuse_training_environment,
    version_of,
    workers_of,
)
from .interruption import EvaluationInterrupted, Interruption

if TYPE_CHECKING:
    from gymnasium import Env

    from .evaluation import Environment


class EvaluateEvery(Callback):
    """Evaluate every so many environment steps, in an environment of its own.

    Neither the training environments nor their random streams are touched: training goes on as if
    nothing had happened. The record gets ``eval/return``, ``eval/return_std``, ``eval/length``,
    ``eval/cut`` (episodes that were cut) and ``eval/max_steps`` (steps after which they are), and
    ``eval/success_rate`` and other metrics where the infos of last steps tell them; the file gets a
    row per episode: timesteps, episode, return, length, metrics.

    Parameters
    ----------
    timesteps
        Environment steps between evaluations: one takes place after the iteration that reaches
        the next multiple.
    episodes
        Episodes of each evaluation.
    best_path
        Where to save the agent whenever its mean return is the best so far; None for nowhere.
    csv_path
        The file of the rows; None is ``evaluations.csv`` beside ``best_path``, if that is given. A
        resumed run drops the rows beyond its timesteps.
    env
        A Gymnasium id, an environment, or a function that makes one; None is the agent's.
    deterministic
        True: the mode of the policy. False: a sample.
    seed
        Every evaluation draws its starts from this seed and the timesteps, so that a resumed run
        sees the same; None takes the seed of the agent's configuration.
    max_steps
        An episode is cut after so many steps; None is the default of `evaluate_policy`.
    interruption
        Its ``request`` ends an evaluation at once, and then training; the run that is resumed makes
        the evaluation after its next iteration.

    best_by
        What makes an evaluation the best so far: "return", "success_rate", or a metric named in
        ``episode_metrics``; the more the better, and the mean return decides among equals.

    Raises
    ------
    ValueError
        if a number is out of range, or, at an evaluation, no episode told the metric ``best_by``.
    FileExistsError
        at the start of a new run, if the file of the rows exists.
    """

    def __init__(
        self,
        timesteps: int,
        episodes: int = 10,
        best_path: str | os.PathLike[str] | None = None,
        *,
        csv_path: str | os.PathLike[str] | None = None,
        env: Environment | None = None,
        deterministic: bool = True,
        seed: int | None = None,
        max_steps: int | None = None,
        interruption: Interruption | None = None,
        best_by: str = "return",
    ) -> None:
        check_count("timesteps", timesteps)
        check_count("episodes", episodes)
        check_count("max_steps", 1 if max_steps is None else max_steps)
        self.timesteps = timesteps
        self.episodes = episodes
        self.best_path = None if best_path is None else Path(best_path).absolute()
        self.csv_path = None if csv_path is None else Path(csv_path).absolute()
        if csv_path is None and self.best_path is not None:
            self.csv_path = self.best_path.with_name("evaluations.csv")
        self.env = env
        self.deterministic = deterministic
        self.seed = seed
        self.max_steps = max_steps
        self._interruption = interruption or Interruption()
        self._is_due = False  # True after an evaluation was interrupted
        self.best_by = best_by
        self._best: tuple[float, float] | None = None
        self.last_result: EvaluationResult | None = None
        """What the latest evaluation found."""
        self._next = timesteps
        self._rows: CsvLogger | None = None
        self._environment: Env[Any, Any] | None = None
        self._version = 0  # of the environments that the agent makes

    def on_start(self, agent: Any, total_timesteps: int) -> None:
        """Open the file and find where a resumed run stood."""
        refuse_training_environment(agent, self.env)
        reached = agent.timesteps
        self._next = reached if self._is_due else next_multiple(reached, self.timesteps)
        if self.csv_path is None:
            return
        resume = agent.timesteps if agent.timesteps > 0 else None
        self._rows = CsvLogger(self.csv_path, resume_timesteps=resume, step_key="timesteps")
        if self._best is None and self.best_by == "return":
            found = _best_mean_return(self.csv_path)
            self._best = None if found is None else (found, found)

    def on_iteration(self, agent: Any, record: Record) -> bool | None:
        """Evaluate if it is time."""
        if agent.timesteps < self._next:
            return None
        self._next = next_multiple(agent.timesteps, self.timesteps)
        self._is_due = True
        try:
            result = self._evaluate(agent)
        except EvaluationInterrupted:
            return False
        self._is_due = False
        record["eval/return"] = result.mean_return
        record["eval/return_std"] = result.std_return
        record["eval/length"] = result.mean_length
        record["eval/cut"] = result.n_cut
        record["eval/max_steps"] = result.max_steps
        for name, mean in result.metric_means.items():
            record[f"eval/{name}"] = mean
        score = self._score(result)
        if self._best is None or score > self._best:
            before, self._best = self._best, score
            if self.best_path is not None:
                try:
                    agent.save(self.best_path)
                except BaseException:  # not saved: the next one as good must be saved again
                    self._best = before
                    raise
        return None

    @property
    def best_return(self) -> float | None:
        """Mean return of the best evaluation so far; None before the first one."""
        return None if self._best is None else self._best[1]

    @best_return.setter
    def best_return(self, value: float | None) -> None:
        self._best = None if value is None else (value, value)

    def _score(self, result: EvaluationResult) -> tuple[float, float]:
        """What the best evaluation has most of, and the mean return, which decides among equals."""
        if self.best_by == "return":
            return result.mean_return, result.mean_return
        value = result.metric_means.get(self.best_by)
        if value is None:
            raise ValueError(
                f"best_by: expected one of return, {', '.join(result.metric_means) or 'no metrics'} "
                f"of this evaluation, got {self.best_by!r}, which no episode told; name its key in "
                f"episode_metrics, or take 'return'"
            )
        return value, result.mean_return

    def on_end(self, agent: Any) -> None:
        """Close the file and the environment that was made here."""
        if self._rows is not None:
            self._rows.close()
        if self._environment is not None and self._environment is not self.env:
            self._environment.close()
        self._environment = None

    def state_dict(self) -> dict[str, Any]:
        """Return the best return and score, and whether an evaluation is due."""
        score = None if self._best is None else self._best[0]
        return {"best_return": self.best_return, "best_score": score, "is_due": self._is_due}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        best = state["best_return"]
        # earlier files have no score: the return decided
        self._best = None if best is None else (state.get("best_score", best), best)
        self._is_due = bool(state.get("is_due", False))  # earlier files have none

    def _evaluate(self, agent: Any) -> EvaluationResult:
        shared = self.env is None and workers_of(agent, self.deterministic) is not None
        version = version_of(agent)
        if self.env is None and self._environment is not None and version != self._version:
            self._environment.close()  # agent.environments has changed what is made now
            self._environment = None
        self._version = version
        if self._environment is None and not shared:
            # made once; each episode begins with a seeded reset
            self._environment = make_environment(
                own_environment(agent) if self.env is None else self.env
            )
        seed = agent.config.seed if self.seed is None else self.seed
        result = evaluate_policy(
            agent,
            self._environment,
            self.episodes,
            deterministic=self.deterministic,
            seed=derive(seed, Purpose.EVALUATIONS, step=agent.timesteps),
            max_steps=self.max_steps,
            interruption=self._interruption,
        )
        self.last_result = result
        if self._rows is not None:
            for episode in range(self.episodes):
                self._rows.write(
                    {
                        "timesteps": agent.timesteps,
                        "episode": episode,
                        "return": float(result.returns[episode]),
                        "length": int(result.lengths[episode]),
                        **{
                            name: float(told[episode])
                            for name, told in result.metrics.items()
                            if np.isfinite(told[episode])
                        },
                    }
                )
        return result


def _best_mean_return(path: Path) -> float | None:
    if not path.exists():
        return None
    returns: dict[int, list[float]] = defaultdict(list)
    for row in read_rows(path):
        returns[int(row["timesteps"])].append(float(row["return"]))
    return max((sum(r) / len(r) for r in returns.values()), default=None)
