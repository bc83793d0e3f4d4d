"""One trial of a tuning: which settings it has, and how its agents are trained in step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..algorithms import algorithm_class
from ..training.env_kwargs import kind_of_source
from .plan import StudyError
from .space import DEFAULT_SPACE, Choice, Interval, Space, settings_of

if TYPE_CHECKING:
    from ..config import AgentConfig
    from ..envs import EnvSource
    from ..training.agent import OnPolicyAgent

REPORTS = 10
"""Evaluations of a trial, after each of which it may be ended."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tuned, and how one trial is judged.

    Raises
    ------
    StudyError
        If a number is out of its range.
    """

    env: EnvSource
    folder: Path
    total_timesteps: int
    """Environment steps of one run of a trial."""
    seeds: tuple[int, ...]
    """A trial is the mean over these."""
    space: Space
    algorithm: str = "trpo"
    preset: str | None = None
    env_kwargs: Mapping[str, Any] | None = None
    evaluation_episodes: int = 10
    settings: Mapping[str, Any]
    """Those that are not searched."""

    def __post_init__(self) -> None:
        if self.total_timesteps < REPORTS or not self.seeds or not self.space:
            raise StudyError(
                f"tune: expected at least {REPORTS} steps, a seed and a setting to search, got "
                f"{self.total_timesteps} steps, {len(self.seeds)} seeds, {len(self.space)} settings"
            )
        if kind_of_source(self.env) == "object":
            raise StudyError(
                "tune: expected an id or a function that makes an environment, got an environment, "
                "which several agents cannot step; pass what made it"
            )
        both = sorted(set(self.space) & set(self.settings))
        if both and self.space is not DEFAULT_SPACE:
            raise StudyError(
                f"tune: expected {both[0]} to be given or searched, got both; leave one out"
            )

    def config(self, chosen: Mapping[str, Any], seed: int) -> AgentConfig:
        """The settings of one run.

        Parameters
        ----------
        chosen
            What a trial has drawn, by name.
        seed
            Of the run.

        Raises
        ------
        ConfigError
            If the method does not take them.
        """
        # trained in pieces: schedules run over all of them
        whole = {"n_workers": 0, "n_threads": 1, "schedule_timesteps": self.total_timesteps}
        given = {**whole, **self.settings, **settings_of(chosen)}
        env = self.env if isinstance(self.env, str) else None
        kind = algorithm_class(self.algorithm)
        config: AgentConfig = kind.make_config(None, self.preset, {**given, "seed": seed}, env)
        return config

    @property
    def space_of_the_method(self) -> dict[str, Interval | Choice]:
        """The space without settings of the default that the method does not have."""
        if self.space is not DEFAULT_SPACE:
            return dict(self.space)
        from ..config import field_names

        known = set(field_names(algorithm_class(self.algorithm).config_type))
        return {k: v for k, v in self.space.items() if k in known and k not in self.settings}


class TrialTraining:
    """The agents of one trial, one a seed, in this process or in an actor of a cluster.

    Parameters
    ----------
    tuning
        What is tuned.
    chosen
        What the trial has drawn, by name.
    """

    def __init__(self, tuning: Tuning, chosen: Mapping[str, Any]) -> None:
        self._tuning, kind = tuning, algorithm_class(tuning.algorithm)
        with ExitStack() as held:
            self._agents: list[OnPolicyAgent[Any]] = []
            for seed in tuning.seeds:
                config, env_kwargs = tuning.config(chosen, seed), tuning.env_kwargs
                agent = kind(tuning.env, config=config, env_kwargs=env_kwargs)
                self._agents.append(held.enter_context(closing(agent)))
            self._held = held.pop_all()

    def advance(self, report: int) -> float:
        """Train every agent up to a report, and return the mean of their evaluations.

        Parameters
        ----------
        report
            In [1, REPORTS].
        """
        tuning = self._tuning
        until = tuning.total_timesteps * report // REPORTS
        returns = []
        for agent in self._agents:
            if agent.timesteps < until:
                agent.learn(until - agent.timesteps)
            returns.append(agent.evaluate(tuning.evaluation_episodes).mean_return)
        return float(np.mean(returns))

    def close(self) -> None:
        """Close the environments."""
        self._held.close()
