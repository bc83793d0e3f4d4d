"""Numbers that go wrong: training goes on or says why, and the promises hold all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO, core
from trpo_fast.training.record import explained_variance

SMALL: dict[str, Any] = {
    "n_workers": 0, "n_envs": 2, "batch_size": 128, "value_epochs": 2, "seed": 1,
    "hidden_sizes": (16,), "value_hidden_sizes": (16,),
}  # fmt: skip
DTYPES = ("float32", "float64")
ACTIONS = {
    "gaussian": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "categorical": spaces.Discrete(3),
    "multi_categorical": spaces.MultiDiscrete([2, 3]),
    "bernoulli": spaces.MultiBinary(2),
}


class Faulty(gymnasium.Env[Any, Any]):
    """Observations and rewards by functions of the step; episodes of `length` steps."""

    def __init__(
        self,
        action_space: spaces.Space[Any],
        observe: Callable[[Any, int], Any],
        reward: Callable[[Any, int, Any], float],
        length: int,
    ) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = action_space
        self._observe, self._reward, self._length = observe, reward, length
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return self._observe(self.np_random, 0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        reward = self._reward(self.np_random, self._t, action)
        return self._observe(self.np_random, self._t), reward, self._t == self._length, False, {}


def normal_observation(rng: Any, t: int) -> Any:
    return rng.standard_normal(3)


def normal_reward(rng: Any, t: int, action: Any) -> float:
    return float(rng.standard_normal() + np.ravel(action)[0])


def faulty(
    kind: str = "categorical",
    observe: Callable[[Any, int], Any] = normal_observation,
    reward: Callable[[Any, int, Any], float] = normal_reward,
    length: int = 20,
) -> Callable[[], Faulty]:
    return lambda: Faulty(ACTIONS[kind], observe, reward, length)


def train(env: Any, iterations: int = 5, **settings: Any) -> list[dict[str, Any]]:
    """Train; the records, after the promises have been checked in each."""
    agent = TRPO(env, **{**SMALL, **settings})
    return train_agent(agent, iterations)


def train_agent(agent: TRPO, iterations: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []

    def check(agent: Any, record: dict[str, Any]) -> None:
        records.append(dict(record))
        assert record["policy/kl"] <= record["policy/max_kl"], record
        if record["policy/status"] == "accepted":
            assert record["policy/surrogate_gain"] > 0.0
        else:
            assert len(record["policy/message"]) > 10
        assert np.isfinite(agent.policy.parameters).all()
        assert np.isfinite(agent.value_function.parameters).all()
        assert np.isfinite(agent.observation_statistics.mean).all()

    agent.learn(iterations * agent.config.batch_size, callback=check, progress=False)
    agent.close()
    assert len(records) == iterations
    return records


def accepted(records: list[dict[str, Any]]) -> int:
    return sum(record["policy/status"] == "accepted" for record in records)


# ---- rewards


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_rewards_of_any_size(scale: float, kind: str, dtype: str) -> None:
    env = faulty(kind, reward=lambda rng, t, a: scale * normal_reward(rng, t, a))
    assert accepted(train(env, dtype=dtype)) == 5


@pytest.mark.parametrize("settings", [{}, {"scale_returns": False}, {"gamma": 1.0}], ids=str)
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e100, 1e150, 1e300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rewards_whose_squares_are_no_numbers(
    scale: float, dtype: str, settings: dict[str, Any]
) -> None:
    env = faulty(reward=lambda rng, t, a: scale * normal_reward(rng, t, a))
    for record in train(env, dtype=dtype, **settings):
        assert record["value/explained_variance"] <= 1.0


def test_explained_variance_does_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    returns, values = rng.normal(size=50), rng.normal(size=50)
    expected = 1.0 - np.var(returns - values) / np.var(returns)
    for exponent in (-1000, -500, 0, 500, 1000):
        unit = 2.0**exponent
        assert explained_variance(unit * values, unit * returns) == expected
    assert np.isnan(explained_variance(values, np.zeros(50)))


@pytest.mark.parametrize(
    "settings",
    [{"scale_returns": False}, {"value_optimizer": "lbfgs", "value_epochs": 5}],
    ids=str,
)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_rewards_of_any_size_with_other_value_fits(scale: float, settings: dict[str, Any]) -> None:
    train(faulty(reward=lambda rng, t, a: scale * normal_reward(rng, t, a)), **settings)


def test_one_huge_reward_among_small_ones() -> None:
    env = faulty(reward=lambda rng, t, a: 1e30 if t == 7 else normal_reward(rng, t, a))
    train(env)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e30, 1e30])
def test_constant_rewards(value: float) -> None:
    train(faulty(reward=lambda rng, t, a: value))


# ---- observations


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30, -1e4])
def test_constant_observations(kind: str, value: float) -> None:
    records = train(faulty(kind, observe=lambda rng, t: np.full(3, value)))
    assert accepted(records) >= 1  # there are still biases to be learned


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_observations_of_any_size(scale: float, normalize: bool, dtype: str) -> None:
    env = faulty("gaussian", observe=lambda rng, t: scale * normal_observation(rng, t))
    train(env, normalize_observations=normalize, dtype=dtype)


def test_an_observation_that_starts_to_vary_late() -> None:
    # its variance has been zero so far: what comes is clipped
    train(faulty(observe=lambda rng, t: np.array([1.0 + (t > 15) * 1e6, 0.0, t])))


@pytest.mark.parametrize("kind", ACTIONS)
def test_no_action_hides_that_its_observation_was_no_number(kind: str) -> None:
    sizes = {"gaussian": (2,), "categorical": (3,), "multi_categorical": (2, 3), "bernoulli": (2,)}
    policy = core.Policy(3, core.Distribution(kind, sizes[kind]))  # type: ignore[arg-type]
    for value in (np.nan, np.inf, -np.inf):
        observations = np.zeros((4, 3), np.float32)
        observations[2, 1] = value
        if kind != "gaussian":
            for deterministic in (True, False):
                with pytest.raises(ValueError, match=r"expected finite numbers.* in row 2"):
                    policy.act(observations, deterministic=deterministic)
        elif np.isnan(value):
            rows = np.isnan(policy.act(observations)).any(axis=1)
            assert rows.tolist() == [False, False, True, False]


# ---- policies


def policy_with(agent: TRPO, **changes: float) -> None:
    """Overwrite log_std, or the output biases."""
    parameters = agent.policy.parameters
    for name, value in changes.items():
        where, _ = agent.policy.parameter_layout[name.replace("__", ".")]
        alternating = value * (-1.0) ** np.arange(where.stop - where.start)
        parameters[where] = value if name == "log_std" else alternating
    agent.policy.parameters = parameters


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_std", [-20.0, -10.0, 10.0, 20.0])
def test_deviations_of_any_size(log_std: float, dtype: str) -> None:
    agent = TRPO(faulty("gaussian"), **SMALL, dtype=dtype)
    policy_with(agent, log_std=log_std)
    train_agent(agent, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_std", [-1e4, -30.0, 5.0, 1e4])
def test_state_dependent_deviations_beyond_their_bounds(log_std: float, dtype: str) -> None:
    agent = TRPO(faulty("gaussian"), **SMALL, dtype=dtype, state_dependent_std=True)
    parameters = agent.policy.parameters
    parameters[-2:] = log_std  # the biases of the log_std outputs
    agent.policy.parameters = parameters
    train_agent(agent, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [50.0, 1e4, -1e4, 1e30])
@pytest.mark.parametrize("kind", ["categorical", "multi_categorical", "bernoulli"])
def test_logits_of_any_size(kind: str, logit: float, dtype: str) -> None:
    agent = TRPO(faulty(kind), **SMALL, dtype=dtype)
    policy_with(agent, **{"1__bias": logit})
    records = train_agent(agent, 3)
    if abs(logit) >= 1e4:  # nothing else is ever done, so nothing can be learned
        assert {record["policy/status"] for record in records} <= {
            "zero_gradient", "non_positive_curvature", "line_search_failed", "accepted",
        }  # fmt: skip


# ---- Fisher matrices


def test_a_singular_fisher_matrix_without_damping() -> None:
    # inputs that repeat each other: most directions change nothing
    env = faulty("gaussian", observe=lambda rng, t: np.repeat(rng.standard_normal(), 3))
    for iterations in (10, 200):
        train(env, cg_damping=0.0, cg_iterations=iterations, normalize_observations=False)


def test_dead_units() -> None:
    agent = TRPO(faulty("gaussian"), **SMALL, activation="relu", cg_damping=0.0)
    policy_with(agent, **{"0__bias": -1e3})
    parameters = agent.policy.parameters
    where, _ = agent.policy.parameter_layout["0.bias"]
    parameters[where] = -1e3
    agent.policy.parameters = parameters
    assert accepted(train_agent(agent, 4)) >= 1  # output biases and deviations are alive


def test_a_fisher_matrix_of_one_sample() -> None:
    train(faulty("gaussian"), iterations=3, cg_damping=0.0, fisher_fraction=1e-3)


@pytest.mark.parametrize("damping", [1e-300, 1e-30, 1e30, 1e300])
def test_damping_of_any_size(damping: float) -> None:
    train(faulty("gaussian"), cg_damping=damping)


@pytest.mark.parametrize("max_kl", [1e-300, 1e-30, 1e3, 1e300])
def test_trust_regions_of_any_size(max_kl: float) -> None:
    for kind in ACTIONS:
        train(faulty(kind), iterations=3, max_kl=max_kl)


# ---- batches


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_batch_of_one_episode(kind: str) -> None:
    train(faulty(kind, length=64), n_envs=1, batch_size=64)
    train(faulty(kind, length=1_000_000), n_envs=1, batch_size=64)


@pytest.mark.parametrize("kind", ACTIONS)
def test_episodes_of_one_step(kind: str) -> None:
    assert accepted(train(faulty(kind, length=1))) >= 1


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_batch_of_two_steps(kind: str) -> None:
    train(faulty(kind), n_envs=1, batch_size=2)


# ---- a step that is no number never counts as one inside the trust region


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_fits_that_diverge_are_taken_back(dtype: str) -> None:
    records = train(faulty(), value_learning_rate=1e30, dtype=dtype, iterations=4)
    assert {record.get("value/status", "ok") for record in records} <= {"ok", "non_finite"}


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "bernoulli"])
def test_advantages_of_extreme_spread(kind: str) -> None:
    head = core.Distribution(kind, (3,))  # type: ignore[arg-type]
    policy = core.Policy(4, head, hidden_sizes=(8,), dtype="float64")
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((64, 4))
    actions = policy.act(observations)
    for scale in (1e-320, 1e-150, 1e150, 1e300):
        before = policy.parameters
        summary = policy.update(observations, actions, scale * rng.standard_normal(64))
        assert np.isfinite(policy.parameters).all()
        assert float(policy.kl(observations, before).mean()) <= 0.01 * (1 + 1e-9)
        if not summary.accepted:
            assert np.array_equal(before, policy.parameters)
