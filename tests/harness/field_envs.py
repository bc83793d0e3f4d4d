"""Ids for the field harness of environments that need a wrapper, and functions that make vector ones.

``field_envs:FlatMiniGrid-v0`` and so on: what users of each package put around it, and nothing more. The
packages are imported when an environment is made, so that each needs only its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium


def flat_minigrid(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """MiniGrid without its text: the grid and the direction as one row of numbers."""
    import minigrid  # noqa: F401  (registers)
    from minigrid.wrappers import FlatObsWrapper

    return FlatObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", **kwargs))


def image_minigrid(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """MiniGrid without its text: the 7 x 7 cells that the agent sees."""
    import minigrid  # noqa: F401  (registers)
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(gymnasium.make("MiniGrid-DoorKey-5x5-v0", **kwargs))


def weighted_treasure(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Deep sea treasure, its two rewards as one number."""
    import mo_gymnasium
    import numpy as np

    env = mo_gymnasium.make("deep-sea-treasure-v0", **kwargs)
    return mo_gymnasium.wrappers.LinearReward(env, weight=np.array([0.8, 0.2]))


def weighted_mountain_car(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """A mountain car with three rewards, as one number."""
    import mo_gymnasium
    import numpy as np

    env = mo_gymnasium.make("mo-mountaincar-v0", **kwargs)
    return mo_gymnasium.wrappers.LinearReward(env, weight=np.ones(3) / 3.0)


def reach(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """One task of Meta-World."""
    import metaworld  # noqa: F401  (registers)

    return gymnasium.make("Meta-World/MT1", env_name="reach-v3", **kwargs)


def descent(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """BlueSky's descent; importing the package does not register its ids."""
    import bluesky_gym

    bluesky_gym.register_envs()
    return gymnasium.make("DescentEnv-v0", **kwargs)


def spread() -> Any:
    """PettingZoo's simple spread (of mpe2), every agent with the same policy, by way of SuperSuit."""
    import supersuit
    from mpe2 import simple_spread_v3

    env = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
    return supersuit.concat_vec_envs_v1(env, 2, num_cpus=0, base_class="gymnasium")


MADE: dict[str, Callable[..., gymnasium.Env[Any, Any]]] = {
    "FlatMiniGrid-v0": flat_minigrid,
    "ImageMiniGrid-v0": image_minigrid,
    "WeightedTreasure-v0": weighted_treasure,
    "WeightedMountainCar-v0": weighted_mountain_car,
    "Reach-v0": reach,
    "Descent-v0": descent,
}

for name, function in MADE.items():
    if name not in gymnasium.registry:
        gymnasium.register(name, function)
