"""The settings of an agent: how they are made, and changed later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from .. import runtime
from ..config import AgentConfig, ConfigError, ValueConfig
from ..presets import find_preset

if TYPE_CHECKING:
    from typing_extensions import Self

    from .. import core
    from ..rollout import Budget, Exclusive, Sampler
    from .value_fitting import ValueFitting

Config = TypeVar("Config", bound=AgentConfig)


class ConfiguredAgent(Generic[Config]):
    """The part of an agent that holds its settings: ``config``, ``set``, and schedules."""

    config_type: ClassVar[type[AgentConfig]] = AgentConfig
    sampler: Sampler
    """Steps the training environments."""
    policy: core.Policy
    """What is learned."""
    observation_statistics: core.RunningStatistics
    """Moments of the observations of all batches."""
    value_fitting: ValueFitting | None
    """The value function and its fit; None for a method without one."""
    timesteps: int
    """Environment steps taken."""
    schedule_span: tuple[int, int] | None = None
    """Timesteps between which schedules go; None before a ``learn`` has decided it."""
    learning: Exclusive
    say_once: Callable[[str], None]
    _config: Config
    _budget: Budget
    _goal = 0  # timesteps at which the present or latest call of learn ends

    @classmethod
    def make_config(
        cls, config: AgentConfig | None, preset: str | None, overrides: dict[str, Any], env: Any
    ) -> Config:
        """A configuration or a preset, the fields given beside it, and defaults for the rest.

        A configuration of another method may be given, unless it changes what this one lacks.

        Parameters
        ----------
        config
            A complete configuration, or None.
        preset
            Name of a preset, or None.
        overrides
            Fields that win over them.
        env
            The environment: a preset may have values for an id.
        """
        if config is not None and preset is not None:
            raise ValueError("config, preset: expected one of them, got both; drop one.")
        if preset is not None:
            settings = find_preset(preset).settings_for(env if isinstance(env, str) else None)
            cls.config_type.refuse_unknown(overrides)
            values = cls.config_type.usable(settings, **overrides)
        else:
            values = {} if config is None else config.values_for(cls.config_type)
        return cast(Config, cls.config_type.from_dict({**values, **overrides}))

    @property
    def config(self) -> Config:
        """The settings. Assigning a changed copy is :meth:`set` with what differs."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        if type(config) is not type(self._config):
            raise ConfigError(
                f"config: expected a {type(self._config).__name__}, got a "
                f"{type(config).__name__}; change a copy with agent.config.replace"
            )
        self.set(**vars(config))

    def set(self, **changes: Any) -> Self:
        """Change settings of an agent that exists; they hold from the next iteration on.

        >>> agent.set(max_kl=0.02, batch_size=4096).learn(100_000)

        What the agent was built with (networks, dtype, environments, seed, normalisation) stays;
        see also :meth:`load`, which takes changes too.

        Parameters
        ----------
        **changes
            Fields of the configuration and their new values.

        Raises
        ------
        ConfigError
            for a setting that cannot change any more, an unknown one, or an invalid value; then
            nothing is changed.
        """
        config = self._config.changed(changes)
        budget = self.sampler.budget(config.sampling, config.batch_size)
        self.apply(config)
        self.renew_schedules(self._config, config)
        self._config, self._budget = config, budget
        return self

    # ---- schedules

    @property
    def current(self) -> Config:
        """The settings of this iteration: ``config``, with a number for every schedule."""
        return self._config.at(self.remaining_share)

    @property
    def remaining_share(self) -> float:
        """The share of the schedules' way that remains, in [0, 1].

        The way is ``schedule_timesteps`` steps from the start of the run, or goes from the beginning
        to the end of the first ``learn`` after schedules were set; where they are set within
        ``learn``, from there to its end.
        """
        begin, end = self.schedule_span or (0, 0)
        if self._config.schedule_timesteps is not None:
            begin, end = 0, self._config.schedule_timesteps
        if end <= begin:
            return 1.0
        return min(1.0, max(0.0, 1.0 - (self.timesteps - begin) / (end - begin)))

    def begin_schedules(self, goal: int) -> None:
        """Decide the schedules' way, unless it has been, as a call of ``learn`` begins.

        Parameters
        ----------
        goal
            Timesteps at which the call ends.

        Raises
        ------
        ConfigError
            A schedule has no value for an iteration of this call.
        """
        schedules = self._config.schedules
        self._goal = goal
        begin, end = self.schedule_span or (self.timesteps, 0)
        if end <= begin or not schedules:
            self.schedule_span = (begin if schedules else self.timesteps), goal
        self.current  # noqa: B018  (raises where a function is missing)
        end = self._config.schedule_timesteps or (self.schedule_span or (0, goal))[1]
        if schedules and goal > end:
            self._config.at(0.0)
            self.say_once(
                f"schedules: {', '.join(schedules)} end at {end} steps and stay there; "
                "schedule_timesteps names a longer way"
            )

    def scheduled_values(self) -> dict[str, float]:
        """What the schedules give in this iteration, by the names of records."""
        current = self.current
        return {f"schedule/{name}": getattr(current, name) for name in self._config.schedules}

    def renew_schedules(self, before: Config, after: Config) -> None:
        """Let other schedules begin anew: to the end of this ``learn``, or of the next one.

        Parameters
        ----------
        before, after
            The settings that were, and those that will be.
        """
        texts = [{k: str(v) for k, v in config.schedules.items()} for config in (before, after)]
        if texts[0] != texts[1]:
            self.schedule_span = (self.timesteps, self._goal) if self.learning.is_taken else None

    def apply(self, config: Config) -> None:
        """Hand changed settings to whoever has a copy of them.

        Parameters
        ----------
        config
            The settings as they will be.
        """
        if config.n_threads is not None:
            runtime.set_num_threads(config.n_threads)
        if self.value_fitting is not None and isinstance(config, ValueConfig):
            self.value_fitting.config = config
        self.freeze_normalizer(config)

    def freeze_normalizer(self, config: Config | None = None) -> None:
        """Let the policy normalise by the statistics of this moment.

        Parameters
        ----------
        config
            Whose ``observation_clip`` bounds the result; None takes the agent's.
        """
        config = self.config if config is None else config
        if config.normalize_observations and self.observation_statistics.count > 0:
            statistics = self.observation_statistics
            self.policy.set_normalizer(
                statistics.mean, statistics.variance, clip=config.observation_clip
            )
