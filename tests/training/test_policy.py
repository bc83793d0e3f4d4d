"""A policy by itself: loads, acts, judges actions, copies and pickles, without its environment."""

from __future__ import annotations

import copy
import json
import math
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO, Policy, core
from trpo_fast.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trpo_fast.envs import ActionAdapter, ObservationEncoder
from trpo_fast.evaluation import evaluate_policy
from trpo_fast.export import numpy_reader, policy_function

DATA = Path(__file__).parent / "data"


class Toy(gymnasium.Env[Any, Any]):
    """Random observations of a space; 20 steps an episode."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        first = float(np.ravel(action)[0])
        return self.observation_space.sample(), 3.0 - first, False, self._t == 20, {}


BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS = [
    BOX,
    spaces.Box(0, 255, (4, 3), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([2, 4]),
    spaces.MultiBinary(3),
    spaces.Dict(a=BOX, b=spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2)))),
]
ACTIONS = [
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-2.0, 2.0, (2, 2), np.float32),
    spaces.Box(np.array([0.0, -np.inf]), np.array([1.0, np.inf]), dtype=np.float64),
    spaces.Box(-1.0, 1.0, (), np.float32),
]


def agent_of(observation_space: Any = BOX, action_space: Any = ACTIONS[3], **settings: Any) -> TRPO:
    agent = TRPO(
        lambda: Toy(observation_space, action_space),
        n_workers=0,
        n_envs=2,
        batch_size=80,
        seed=1,
        hidden_sizes=(8, 8),
        value_hidden_sizes=(8,),
        **settings,
    )
    agent.learn(160, progress=False)
    return agent


def loaded(agent: TRPO, folder: Path) -> Policy:
    agent.save(folder / "agent.safetensors")
    return Policy.load(folder / "agent.safetensors")


def batch_of(space: Any, observations: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {k: batch_of(s, [o[k] for o in observations]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(batch_of(s, [o[k] for o in observations]) for k, s in enumerate(space.spaces))
    return np.stack([np.asarray(o) for o in observations])


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("observation_space", OBSERVATIONS, ids=str)
def test_it_is_the_agent_in_every_space(
    observation_space: Any, action_space: Any, tmp_path: Path
) -> None:
    agent = agent_of(observation_space, action_space)
    policy = loaded(agent, tmp_path)
    observations = [observation_space.sample() for _ in range(4)]
    batch = batch_of(observation_space, observations)

    # as the agent acts, one by one and in a batch, in what `step` takes
    for observation in observations:
        expected, _ = agent.predict(observation, deterministic=True)
        action, state = policy.predict(observation, deterministic=True)
        assert state is None
        assert action_space.contains(action)
        assert type(action) is type(expected)
        np.testing.assert_array_equal(action, expected)
    sampled, _ = policy.predict(batch)
    assert len(sampled) == 4

    # V, log-probability and entropy by hand, of raw observations
    encoder = ObservationEncoder(observation_space, agent.config.dtype)
    adapter = ActionAdapter(action_space, scaling=agent.acting.adapter.scaling)
    rows = encoder.encode_batch(batch, 4)
    actions = np.stack([np.asarray(action_space.sample()) for _ in range(4)])
    stored = adapter.from_env(actions, agent.config.dtype)
    inputs = agent.policy.normalize(rows)
    V = agent.acting.critic.predict(inputs)
    values, log_prob, entropy = policy.evaluate_actions(batch, actions)
    np.testing.assert_array_equal(values, V)
    np.testing.assert_array_equal(log_prob, agent.policy.log_prob(inputs, stored, normalized=True))
    np.testing.assert_array_equal(entropy, agent.policy.entropy(rows))
    np.testing.assert_array_equal(policy.values(batch), values)
    np.testing.assert_array_equal(policy.log_prob(batch, actions), log_prob)
    np.testing.assert_array_equal(policy.entropy(batch), entropy)
    for found, expected in zip(
        agent.evaluate_actions(batch, actions), (values, log_prob, entropy), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(agent.values(batch), values)

    # one observation gives numbers
    one = policy.evaluate_actions(observations[2], actions[2])
    assert all(type(x) is float for x in one)
    np.testing.assert_allclose(one, [values[2], log_prob[2], entropy[2]], rtol=1e-5)
    agent.close()


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_parameters_of_the_distribution_give_its_log_probability(action_space: Any) -> None:
    policy = agent_of(action_space=action_space).frozen_policy()
    observations = np.stack([BOX.sample() for _ in range(5)])
    actions = np.stack([np.asarray(action_space.sample()) for _ in range(5)])
    found = policy.distribution_parameters(observations)
    n = len(actions)
    if isinstance(action_space, spaces.Box):
        stored = policy.adapter.from_env(actions, "float64")
        z = (stored - found["mean"]) / np.exp(found["log_std"])
        each = -0.5 * z**2 - found["log_std"] - 0.5 * math.log(2 * math.pi)
    elif isinstance(action_space, spaces.MultiBinary):
        p = found["probabilities"]
        each = np.log(np.where(actions == 1, p, 1 - p))
    else:
        start = np.ravel(action_space.start)
        sizes = np.ravel(getattr(action_space, "nvec", getattr(action_space, "n", None)))
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        columns = actions.reshape(n, -1) - start + offsets
        each = np.log(np.take_along_axis(found["probabilities"], columns, axis=1))
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), len(sizes))
    expected = policy.log_prob(observations, actions)
    np.testing.assert_allclose(each.sum(axis=1), expected, rtol=1e-4)
    one = policy.distribution_parameters(observations[0])
    assert {name: a.shape for name, a in one.items()} == {
        name: a.shape[1:] for name, a in found.items()
    }


def test_log_probability_is_of_raw_observations(tmp_path: Path) -> None:
    agent = agent_of(observation_space=spaces.Box(50.0, 90.0, (3,), np.float32))
    observation = np.array([60.0, 70.0, 80.0], np.float32)
    action, _ = agent.predict(observation, deterministic=True)
    stored = agent.acting.adapter.from_env(action[np.newaxis], "float32")
    normalized = agent.policy.normalize(observation[np.newaxis])
    right = agent.policy.log_prob(normalized, stored, normalized=True)[0]
    policy = agent.frozen_policy()
    assert policy.log_prob(observation, action) == right
    assert agent.policy.log_prob(observation[np.newaxis], stored)[0] == right
    assert agent.policy.log_prob(observation[np.newaxis], stored, normalized=True)[0] != right


def test_samples_go_on_as_the_agents_would(tmp_path: Path) -> None:
    agent = agent_of()
    observation = BOX.sample()
    agent.predict(observation)
    policy = loaded(agent, tmp_path)
    expected = [agent.predict(observation)[0] for _ in range(3)]
    for actions in (
        [policy.copy().predict(observation)[0] for _ in range(1)],
        [policy.predict(observation)[0] for _ in range(3)],
    ):
        np.testing.assert_array_equal(actions, expected[: len(actions)])
    other = policy.copy(seed=7)
    assert not np.array_equal(other.predict(observation)[0], expected[0])
    again = Policy.load(tmp_path / "agent.safetensors", seed=7)
    np.testing.assert_array_equal(
        policy.copy(seed=7).predict(observation)[0], again.predict(observation)[0]
    )


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda policy: pickle.loads(pickle.dumps(policy)),
    "method": lambda policy: policy.copy(),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_is_frozen(how: str, dtype: Any) -> None:
    agent = agent_of(dtype=dtype)
    observations = np.stack([BOX.sample() for _ in range(50)])
    actions = np.zeros((50, 2, 2), np.float32)
    copied = COPIES[how](agent.acting)
    expected = agent.evaluate_actions(observations, actions)
    samples = agent.predict(observations)[0]
    agent.learn(160, progress=False)
    np.testing.assert_array_equal(copied.evaluate_actions(observations, actions), expected)
    np.testing.assert_array_equal(copied.predict(observations)[0], samples)
    assert not np.array_equal(agent.evaluate_actions(observations, actions), expected)


def test_a_pickle_is_small_and_refers_to_one_function() -> None:
    agent = agent_of()
    data = pickle.dumps(agent.frozen_policy())
    n = agent.policy.n_parameters + agent.value_function.n_parameters
    assert len(data) < 4 * n + 2000
    strings = [argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)]
    modules = {text for text in strings if text.startswith("trpo_fast.")}
    assert modules == {"trpo_fast.training.policy"}
    assert not any("numpy" in text for text in strings)


def test_save_and_load(tmp_path: Path) -> None:
    policy = agent_of().frozen_policy()
    path = policy.save(tmp_path / "policy.safetensors")
    read = Policy.load(path)
    observations = np.stack([BOX.sample() for _ in range(20)])
    actions = np.zeros((20, 2, 2), np.float32)
    np.testing.assert_array_equal(
        read.evaluate_actions(observations, actions), policy.evaluate_actions(observations, actions)
    )
    np.testing.assert_array_equal(read.predict(observations)[0], policy.predict(observations)[0])
    assert repr(read) == repr(policy)
    with pytest.raises(
        CheckpointError, match=r"^checkpoint: .*got a policy by itself.*Policy.load"
    ):
        TRPO.load(path)


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    space = spaces.Dict({1: spaces.Discrete(3), 0: BOX})
    agent = agent_of(observation_space=space)
    policy = loaded(agent, tmp_path)
    observation = space.sample()
    np.testing.assert_array_equal(
        policy.predict(observation, deterministic=True)[0],
        agent.predict(observation, deterministic=True)[0],
    )
    act = numpy_reader.load(policy.export(tmp_path / "policy.npz"))
    batch = batch_of(space, [observation])
    raw = policy_function(policy.network, policy.encoder, policy.adapter).raw_numbers(batch)
    np.testing.assert_allclose(
        act(raw), policy.predict(batch, deterministic=True)[0], rtol=1e-4, atol=1e-5
    )


WITHOUT = """
import sys
for name in ("gymnasium", "trpo_fast.rollout", "multiprocessing", "cloudpickle"):
    sys.modules[name] = None  # importing it raises
import json, pickle
import numpy as np
import trpo_fast
policy = trpo_fast.Policy.load(sys.argv[1])
policy = pickle.loads(pickle.dumps(policy))
observations = np.array(json.load(sys.stdin), np.float32)
actions, _ = policy.predict(observations, deterministic=True)
values, log_prob, entropy = policy.evaluate_actions(observations, actions)
assert sys.modules["gymnasium"] is None
print(json.dumps([x.tolist() for x in (actions, values, log_prob, entropy)]))
"""


def test_it_needs_neither_gymnasium_nor_environment_nor_workers(tmp_path: Path) -> None:
    agent = agent_of()
    agent.save(tmp_path / "a.safetensors")
    observations = np.stack([BOX.sample() for _ in range(6)])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "a.safetensors")],
        input=json.dumps(observations.tolist()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    actions, _ = agent.predict(observations, deterministic=True)
    expected = [actions, *agent.evaluate_actions(observations, actions)]
    for found, wanted in zip(json.loads(done.stdout), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found, np.asarray(wanted).dtype), wanted)


@pytest.mark.parametrize("file", sorted(DATA.glob("checkpoint_schema_*.safetensors")), ids=str)
def test_a_stored_file_of_each_schema_has_a_policy(file: Path) -> None:
    expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    policy = Policy.load(file)
    observations = np.array(expected["observations"], np.float32)
    found = policy.distribution_parameters(observations)
    np.testing.assert_allclose(found["logits"], expected["outputs"], rtol=1e-4)
    scale = load_checkpoint(file)[1]["value_scale"]
    np.testing.assert_allclose(
        policy.values(observations), scale * np.array(expected["values"]), rtol=1e-4
    )


# ---- where it goes


class Opponent(gymnasium.Env[Any, Any]):
    """A game against a policy: whoever is nearer to the opponent's own choice wins."""

    def __init__(self, opponent: Policy) -> None:
        self.observation_space = BOX
        self.action_space = spaces.Box(-2.0, 2.0, (2, 2), np.float32)
        self.opponent = opponent
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        self._observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        other, _ = self.opponent.predict(self._observation, deterministic=True)
        self._t += 1
        self._observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self._observation, -float(np.abs(action - other).sum()), False, self._t == 10, {}


def test_it_plays_in_the_environments_of_workers() -> None:
    opponent = agent_of().frozen_policy()
    results = []
    for n_workers in (0, 2):
        agent = TRPO(
            lambda: Opponent(opponent), n_envs=2, n_workers=n_workers, batch_size=80, seed=0
        )
        agent.learn(80, progress=False)
        results.append(agent.policy.parameters)
        agent.close()
    np.testing.assert_array_equal(*results)


def test_it_can_be_evaluated() -> None:
    agent = agent_of()
    expected = agent.evaluate(3, seed=5)
    result = evaluate_policy(agent.frozen_policy(), lambda: Toy(BOX, ACTIONS[3]), 3, seed=5)
    np.testing.assert_array_equal(result.returns, expected.returns)


# ---- what is refused


def test_sentences() -> None:
    policy = agent_of().frozen_policy()
    observations = np.zeros((3, 3), np.float32)
    action = np.zeros((2, 2), np.float32)
    for wrong, words in (
        (np.full(3, np.nan, np.float32), "^observation: expected finite numbers, got NaN"),
        ((observations[0], {}), r"got the tuple \(observation, info\) that env.reset\(\) returns"),
        (np.zeros((0, 3)), "at least one, got an empty batch"),
        (None, "^observation: "),
        (object(), "^observation: "),
        ({"a": 1}, "^observation: "),
    ):
        for method in (policy.predict, policy.values, policy.entropy):
            with pytest.raises(ValueError, match=words):
                method(wrong)
        with pytest.raises(ValueError, match=words):
            policy.log_prob(wrong, action)
    with pytest.raises(ValueError, match=r"^actions: expected 3, one for each observation, got 2"):
        policy.log_prob(observations, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"^actions: expected shape \(N, 2, 2\), got \(1, 4\)"):
        policy.evaluate_actions(observations[0], np.zeros(4))


def test_a_policy_without_a_value_function_says_so() -> None:
    network = core.Policy(3, core.Distribution("gaussian", (2,)))
    encoder = ObservationEncoder(BOX, "float32")
    policy = Policy(network, encoder, ActionAdapter(spaces.Box(-1.0, 1.0, (2,))))
    policy = pickle.loads(pickle.dumps(policy))
    assert policy.predict(BOX.sample())[0].shape == (2,)
    with pytest.raises(ValueError, match=r"^values: this policy has no value function"):
        policy.values(BOX.sample())


def test_a_forged_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    agent_of().frozen_policy().save(path)
    tensors, metadata = load_checkpoint(path)
    config, where = metadata["config"], tmp_path / "forged.safetensors"
    forged: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (tensors, {}),
        ({}, metadata),
        (tensors, {**metadata, "spaces": {"observation": {}, "action": {}}}),
        (tensors, {**metadata, "spaces": []}),
        (tensors, {**metadata, "predictions": -1}),
        (tensors, {**metadata, "predictions": 2**70}),
        (tensors, {**metadata, "prediction_seed": "x"}),
        (tensors, {**metadata, "value_scale": math.nan}),
        (tensors, {**metadata, "value_scale": None}),
        ({**tensors, "policy": np.full_like(tensors["policy"], np.nan)}, metadata),
        ({**tensors, "policy": tensors["policy"][1:]}, metadata),
        ({**tensors, "value_function": tensors["value_function"][1:]}, metadata),
        ({**tensors, "observation_statistics.m2": -np.ones(3)}, metadata),
    ]
    for key, value in (
        ("dtype", "float16"),
        ("dtype", 3),
        ("hidden_sizes", [10**9, 10**9]),
        ("hidden_sizes", [True, 8]),
        ("hidden_sizes", 8),
        ("activation", "sin"),
        ("value_hidden_sizes", [8, 8]),
        ("observation_clip", -1.0),
        ("observation_epsilon", math.inf),
    ):
        forged.append((tensors, {**metadata, "config": {**config, key: value}}))
    for given, entries in forged:
        save_checkpoint(where, given, entries)
        with pytest.raises(CheckpointError, match=r"^checkpoint .*written by trpo_fast") as caught:
            Policy.load(where)
        assert len(str(caught.value)) < 600


# ---- copies of agents


def test_a_copy_of_an_agent_trains_as_the_agent_does() -> None:
    agent = TRPO("CartPole-v1", n_envs=2, n_workers=0, batch_size=128, seed=3)
    agent.learn(256, progress=False)
    copies = [copy.deepcopy(agent), copy.copy(agent)]
    for each in (agent, *copies):
        each.learn(256, progress=False)
    for other in copies:
        assert other.sampler is not agent.sampler
        assert other.timesteps == agent.timesteps == 512
        np.testing.assert_array_equal(other.policy.parameters, agent.policy.parameters)
        np.testing.assert_array_equal(
            other.value_function.parameters, agent.value_function.parameters
        )
        other.close()
    agent.close()


def test_agents_that_cannot_be_copied_or_pickled_say_what_can(tmp_path: Path) -> None:
    agent = TRPO(gymnasium.make("CartPole-v1"), n_workers=0, batch_size=128)
    with pytest.raises(TypeError, match=r"^copy: expected an agent of an id .*frozen_policy\(\)"):
        copy.deepcopy(agent)
    with pytest.raises(TypeError, match=r"^pickle: .* got a TRPO; pickle agent.frozen_policy\(\)"):
        pickle.dumps(agent)
    pickle.dumps(agent.frozen_policy())
    agent.close()
