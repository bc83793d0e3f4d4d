"""How many steps of which environment one rollout takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import Sampling


@dataclass(frozen=True)
class Budget:
    """How much of each of E environments one rollout takes.

    Environment e takes exactly ``steps[e]`` steps, or, by "episodes", whole episodes until it has
    taken so many. That is settled before the first step and asks for no clock: the rollout is the
    same however long a step of which environment takes, and whoever steps it. Nobody waits for
    another environment between two steps; only at the end the rollout waits for the last one.

    Vector environments step all their environments together. They take "total_steps" in rows, until
    the transitions of all environments, without autoresets, are ``total``, at most E - 1 too many;
    they cannot take "episodes".

    Parameters
    ----------
    sampling
        How a batch is counted, see ``trpo_fast.config.TRPOConfig.sampling``.
    steps
        Environment steps of each environment, E numbers of at least 1.

    Raises
    ------
    ValueError
        An environment is to take less than one step.
    """

    sampling: Sampling
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(
                f"budget: expected at least 1 step of each environment, got {self.steps}"
            )

    @classmethod
    def share(cls, sampling: Sampling, batch_size: int, n_envs: int) -> Budget:
        """Share a batch out among environments.

        By "steps", each environment takes ceil(batch_size / E) steps. Otherwise, the first
        (batch_size mod E) environments take one step more than the others.

        Parameters
        ----------
        sampling
            See ``trpo_fast.config.TRPOConfig.sampling``.
        batch_size
            Environment steps of all environments together, at least E unless by "steps".
        n_envs
            E, at least 1.

        Returns
        -------
        Budget
            Of E environments.

        Raises
        ------
        ValueError
            Fewer steps than environments.
        """
        if sampling == "steps":
            return cls(sampling, (-(-batch_size // n_envs),) * n_envs)
        if batch_size < n_envs:
            raise ValueError(
                f"batch_size: expected at least one step for each of the {n_envs} environments, "
                f"got {batch_size}; raise batch_size or lower n_envs"
            )
        each, rest = divmod(batch_size, n_envs)
        return cls(sampling, tuple(each + (e < rest) for e in range(n_envs)))

    def part(self, group: slice) -> Budget:
        """The budget of some of the environments, ``group`` being a slice of their indices.

        Parameters
        ----------
        group
            A slice of the indices of environments.
        """
        return Budget(self.sampling, self.steps[group])

    @property
    def total(self) -> int:
        """Steps of all environments together."""
        return sum(self.steps)

    @property
    def whole_episodes(self) -> bool:
        """Whether an environment goes on to the end of its episode."""
        return self.sampling == "episodes"
