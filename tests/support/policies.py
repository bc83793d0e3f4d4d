"""Policies over every space, activation and dtype, with weights and statistics that are not bland."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from trpo_fast import Policy, core
from trpo_fast.envs import ActionAdapter, ObservationEncoder
from trpo_fast.export import PolicyFunction, policy_function

ACTIVATIONS = ("tanh", "relu", "elu", "silu", "gelu", "identity")
BOX = spaces.Box(-np.inf, np.inf, (17,), np.float32)
FREE = spaces.Box(-np.inf, np.inf, (6,), np.float32)

OBSERVATIONS: dict[str, Any] = {
    "box": BOX,
    "number": spaces.Box(-np.inf, np.inf, (), np.float64),
    "image": spaces.Box(0, 255, (4, 3), np.uint8),
    "discrete": spaces.Discrete(50, start=2),
    "multi_discrete": spaces.MultiDiscrete([[2, 4], [3, 9]], start=[[1, -1], [0, 5]]),
    "multi_binary": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict(
        b=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        a=spaces.Tuple(
            (spaces.Discrete(4), spaces.MultiBinary(2), spaces.Box(0, 9, (2,), np.int64))
        ),
    ),
    "tuple": spaces.Tuple((spaces.MultiDiscrete([3, 2]), spaces.Dict(x=BOX))),
}
ACTIONS: dict[str, Any] = {
    "box": FREE,
    "clipped": spaces.Box(-1.0, 1.0, (6,), np.float32),
    "scaled": spaces.Box(
        np.array([0, 20, -1e-3], np.float32), np.array([1e3, 24, 1e-3], np.float32)
    ),
    "half_open": spaces.Box(
        np.array([[0.0], [-np.inf]]), np.array([[1.0], [np.inf]]), dtype=np.float64
    ),
    "number": spaces.Box(-2.0, 2.0, (), np.float32),
    "integers": spaces.Box(-30, 70, (3,), np.int16),
    "discrete": spaces.Discrete(9, start=-1),
    "multi_discrete": spaces.MultiDiscrete(
        [[2, 3], [4, 5]], start=[[0, 1], [-7, 3]], dtype=np.int32
    ),
    "multi_binary": spaces.MultiBinary((2, 2)),
}


@dataclass(frozen=True)
class Case:
    """What a policy is made of, by name."""

    observation: str = "box"
    action: str = "box"
    activation: str = "tanh"
    dtype: str = "float32"
    state_dependent_std: bool = False
    normalize: bool = True
    hidden_sizes: tuple[int, ...] = (64, 64)

    def __str__(self) -> str:
        changed = [
            str(getattr(self, name) if name != "hidden_sizes" else f"hidden{self.hidden_sizes}")
            if name not in ("state_dependent_std", "normalize")
            else name
            for name, field in self.__dataclass_fields__.items()
            if getattr(self, name) != field.default
        ]
        return "-".join(changed) or "usual"

    @property
    def spaces(self) -> tuple[Any, Any]:
        """Observation and action space."""
        return OBSERVATIONS[self.observation], ACTIONS[self.action]

    def policy(self) -> Policy:
        """The policy; always the same one."""
        observation_space, action_space = self.spaces
        encoder = ObservationEncoder(observation_space, self.dtype)
        adapter = ActionAdapter(
            action_space, state_dependent_std=self.state_dependent_std, scaling=True
        )
        network = core.Policy(
            encoder.dim,
            adapter.distribution,
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            dtype=self.dtype,
            output_gain=1.0,
            seed=7,
        )
        random = np.random.default_rng(0)
        # biases and deviations that are not zero
        network.parameters = network.parameters + 0.1 * random.normal(size=network.n_parameters)
        if self.normalize:
            rows = encoder.encode_batch(self.observations(500), 500)
            network.set_normalizer(rows.mean(axis=0), rows.var(axis=0) + 1e-3, clip=2.0)
        return Policy(network, encoder, adapter)

    def observations(self, n: int) -> Any:
        """A batch of observations."""
        random = np.random.default_rng(1)
        return _sample(self.spaces[0], n, random)

    def noise(self, function: PolicyFunction, n: int) -> Any:
        """What a sample takes, (N, A)."""
        random = np.random.default_rng(2)
        shape = (n, function.action_dim)
        drawn = random.random(shape) if function.is_discrete else random.normal(size=shape)
        return drawn.astype(function.dtype)


def _sample(space: Any, n: int, random: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _sample(part, n, random) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_sample(part, n, random) for part in space.spaces)
    shape = (n, *space.shape)
    if isinstance(space, spaces.Discrete):
        return space.start + random.integers(0, space.n, shape)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + random.integers(0, space.nvec, shape)
    if isinstance(space, spaces.MultiBinary):
        return random.integers(0, 2, shape).astype(np.int8)
    if space.dtype.kind in "iu":
        return random.integers(space.low.astype(int), space.high.astype(int) + 1, shape).astype(
            space.dtype
        )
    return (3.0 * random.normal(size=shape) + 5.0).astype(space.dtype)


CASES = [
    *(Case(activation=a) for a in ACTIVATIONS),
    *(Case(activation=a, action="discrete") for a in ACTIVATIONS),
    *(Case(observation=o, action="discrete") for o in OBSERVATIONS if o != "box"),
    *(Case(action=a) for a in ACTIONS if a not in ("box", "discrete")),
    *(Case(activation=a, dtype="float64") for a in ACTIVATIONS),
    *(
        Case(action=a, dtype="float64")
        for a in ("scaled", "half_open", "integers", "multi_discrete")
    ),
    Case(observation="dict", action="multi_discrete", activation="silu", dtype="float64"),
    Case(state_dependent_std=True),
    Case(action="scaled", state_dependent_std=True),
    Case(normalize=False),
    Case(hidden_sizes=()),
    Case(hidden_sizes=(256, 256), activation="relu"),
    Case(hidden_sizes=(5, 40, 3), action="multi_binary"),
]
"""A policy for each activation, observation space, action space, and what else can differ."""


# ---- what is compared

N = 10_000
# relative to the largest magnitude that an entry has before clipping; the core computes in float32
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}


def function_of(policy: Policy) -> PolicyFunction:
    return policy_function(policy.network, policy.encoder, policy.adapter)


def difference(
    policy: Policy, observations: Any, action: Any, expected: Any, noise: Any = None
) -> float:
    """The largest difference of actions, relative to the largest magnitude before clipping.

    Magnitudes are of each entry over the batch: a number near 0 has the rounding of the sum that
    it comes from.
    """
    found = policy.distribution_parameters(observations)
    unclipped = found["mean"]
    if noise is not None:
        unclipped = unclipped + np.exp(found["log_std"]) * noise
    if policy.adapter.range is not None:
        center, half = policy.adapter.range
        unclipped = center + half * unclipped
    rows = (np.asarray(a, np.float64).reshape(len(expected), -1) for a in (action, expected))
    return float((np.abs(np.subtract(*rows)) / np.abs(unclipped).max(axis=0)).max())


def sampled(policy: Policy, observations: Any, noise: Any) -> Any:
    """Actions that these random numbers give, by hand in float64."""
    found, kind = policy.distribution_parameters(observations), policy.network.distribution.kind
    if "gaussian" in kind:
        stored = found["mean"] + np.exp(found["log_std"]) * noise
        return policy.adapter.to_env(stored.astype(policy.network.dtype))
    if kind == "bernoulli":
        return policy.adapter.to_env((noise < found["probabilities"]).astype(np.int32))
    ends = np.cumsum(policy.network.distribution.sizes)[:-1]
    groups = np.split(found["probabilities"], ends, axis=1)
    columns = [
        (u[:, None] >= p.cumsum(axis=1)[:, :-1]).sum(1)
        for p, u in zip(groups, noise.T, strict=True)
    ]
    return policy.adapter.to_env(np.stack(columns, axis=1).astype(np.int32))
