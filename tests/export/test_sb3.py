"""The zip for Stable-Baselines3: the same actions there, read back here, and no code in it."""

from __future__ import annotations

import base64
import importlib.util
import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from masked_envs import SPACES
from policies import ACTIVATIONS, BOX, Case, N
from trpo_fast import TRPO, Policy, core
from trpo_fast.envs import ActionAdapter, ObservationEncoder
from trpo_fast.export import ExportError
from trpo_fast.foreign import read_sb3
from trpo_fast.training.critic import FrozenCritic

NEEDS_SB3 = pytest.mark.skipif(
    importlib.util.find_spec("sb3_contrib") is None, reason="needs sb3-contrib"
)


def policy_over(
    observations: Any, actions: Any, activation: str = "tanh", hidden: tuple[int, ...] = (16, 8)
) -> Policy:
    """A policy with a critic, statistics, and a unit of returns that are not bland."""
    encoder = ObservationEncoder(observations, "float32")
    adapter = ActionAdapter(actions, scaling=True)
    shape: dict[str, Any] = {"hidden_sizes": hidden, "activation": activation}
    network = core.Policy(encoder.dim, adapter.distribution, output_gain=1.0, seed=7, **shape)
    random = np.random.default_rng(0)
    network.parameters = network.parameters + 0.1 * random.normal(size=network.n_parameters)
    rows = encoder.encode_batch(batch(observations, 500), 500)
    network.set_normalizer(rows.mean(axis=0) + 0.1, rows.var(axis=0) + 1e-3, clip=10.0)
    value = core.ValueFunction(encoder.dim, hidden_sizes=(12,), activation=activation, seed=3)
    return Policy(network, encoder, adapter, critic=FrozenCritic(value, mean=5.0, scale=30.0))


PARTS = {
    "b": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "a": spaces.Discrete(4),
    "c": spaces.MultiDiscrete([2, 3]),
    "d": spaces.MultiBinary(2),
}
PAIRS = {
    "box": (BOX, spaces.Box(-np.inf, np.inf, (6,), np.float32)),
    "scaled": (BOX, spaces.Box(np.array([0, 20], "f4"), np.array([1e3, 24], "f4"))),
    "discrete": (BOX, spaces.Discrete(5)),
    "multi_discrete": (spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([2, 3])),
    "multi_binary": (spaces.MultiBinary(4), spaces.MultiBinary(3)),
    "discrete_observation": (spaces.Discrete(50), spaces.Discrete(3)),
    "table": (spaces.Box(0, 255, (4, 3), np.uint8), spaces.Box(-1, 1, (2, 2), np.float32)),
    "dict": (spaces.Dict(PARTS), spaces.Discrete(4)),
}


def batch(space: Any, n: int) -> Any:
    random = np.random.default_rng(1)
    if isinstance(space, spaces.Dict):
        return {key: batch(part, n) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Box):
        rows = 2.0 * random.normal(size=(n, *space.shape))
        return rows.astype(space.dtype) if space.dtype.kind == "f" else np.uint8(rows * 40 + 128)
    space.seed(1)
    return np.array([space.sample() for _ in range(n)])


CASES = [
    *((pair, "tanh", (16, 8)) for pair in PAIRS),
    *(("box", activation, (16, 8)) for activation in ACTIVATIONS if activation != "tanh"),
    ("discrete", "relu", ()),
]


@pytest.mark.parametrize(("pair", "activation", "hidden"), CASES)
def test_the_weights_say_what_predict_says(
    pair: str, activation: str, hidden: Any, tmp_path: Path
) -> None:
    """Without PyTorch: what the file holds, multiplied out by NumPy."""
    policy = policy_over(*PAIRS[pair], activation, hidden)
    found = read_sb3(policy.export(tmp_path / "p.zip"))
    assert found.activation == activation
    assert found.mean is None
    observations = batch(PAIRS[pair][0], 500)
    rows = raw_rows(policy, observations, 500)
    outputs = multiplied(found.policy, rows, activation)
    inner = policy.distribution_parameters(observations)
    expected = inner["mean"] if "mean" in inner else inner["logits"]
    if policy.adapter.range is not None:
        center, half = policy.adapter.range
        expected = center + half * expected
        deviations = np.log(half) + inner["log_std"][0]
        np.testing.assert_allclose(found.log_std, deviations, atol=1e-5)
    size = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=3e-6 * size)
    assert found.value is not None
    values = multiplied(found.value, rows, activation)[:, 0]
    np.testing.assert_allclose(values, policy.values(observations), rtol=1e-5, atol=1e-4)


def raw_rows(policy: Policy, observations: Any, n: int) -> Any:
    return policy.encoder.encode_batch(observations, n).astype(np.float64)


def multiplied(layers: Any, rows: Any, activation: str) -> Any:
    from scipy.special import erf

    functions: dict[str, Any] = {
        "tanh": np.tanh,
        "relu": lambda z: np.maximum(z, 0),
        "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        "silu": lambda z: z / (1 + np.exp(-z)),
        "gelu": lambda z: 0.5 * z * (1 + erf(z / np.sqrt(2))),
        "identity": lambda z: z,
    }
    for k, (weight, bias) in enumerate(layers):
        rows = rows @ weight.T.astype(np.float64) + bias
        if k < len(layers) - 1:
            rows = functions[activation](rows)
    return rows


def test_rare_bits_are_clipped_as_here(tmp_path: Path) -> None:
    policy = policy_over(*PAIRS["discrete_observation"])
    share = np.full(50, 1e-3)  # 31 deviations from the mean where it is 1
    policy.network.set_normalizer(share, share * (1 - share), clip=10.0)
    found = read_sb3(policy.export(tmp_path / "p.zip"))
    observations = np.arange(50)
    outputs = multiplied(found.policy, np.eye(50), "tanh")
    expected = policy.distribution_parameters(observations)["logits"]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


ALLOWED = {
    "collections OrderedDict", "numpy array", "numpy dtype", "torch FloatStorage",
    "torch._utils _rebuild_tensor_v2", "torch.nn.modules.activation GELU",
    "stable_baselines3.common.policies MultiInputActorCriticPolicy",
    "gymnasium.spaces.dict Dict", "gymnasium.spaces.box Box", "gymnasium.spaces.discrete Discrete",
    "gymnasium.spaces.multi_discrete MultiDiscrete", "gymnasium.spaces.multi_binary MultiBinary",
}  # fmt: skip


def test_only_classes_are_named_and_nothing_else_is_in_it(tmp_path: Path) -> None:
    path = policy_over(*PAIRS["dict"], "gelu").export(tmp_path / "p.zip")
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
        names = archive.namelist()
        inner = [zipfile.ZipFile(archive.open(n)) for n in names if n.endswith(".pth")]
    assert names == ["data", "policy.pth", "policy.optimizer.pth", "system_info.txt"]
    pickles = [one.read("archive/data.pkl") for one in inner]
    pickles += [
        base64.b64decode(item[":serialized:"])
        for item in data.values()
        if isinstance(item, dict) and ":serialized:" in item
    ]
    assert len(pickles) == 6
    named = {str(a) for p in pickles for op, a, _ in pickletools.genops(p) if op.name == "GLOBAL"}
    assert named == ALLOWED
    # the spaces, by what reads pickles everywhere
    space = pickle.loads(base64.b64decode(data["observation_space"][":serialized:"]))
    assert space == PAIRS["dict"][0]
    assert list(space.spaces) == list(PAIRS["dict"][0].spaces)
    assert pickle.loads(base64.b64decode(data["action_space"][":serialized:"])) == spaces.Discrete(
        4
    )
    # the same policy, the same bytes
    again = policy_over(*PAIRS["dict"], "gelu").export(tmp_path / "q.zip")
    assert again.read_bytes() == path.read_bytes()


def test_what_it_writes_is_read_back(tmp_path: Path) -> None:
    agent = TRPO("Pendulum-v1", seed=0, n_workers=0, batch_size=256, hidden_sizes=(8,))
    agent.learn(512)
    again = TRPO.from_sb3(agent.export(tmp_path / "p.zip"), "Pendulum-v1", n_workers=0)
    rows = np.random.default_rng(0).uniform(-1, 1, (N, 3)).astype(np.float32)
    expected, got = (one.predict(rows, deterministic=True)[0] for one in (agent, again))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(again.values(rows), agent.values(rows), rtol=1e-4, atol=1e-3)
    again.learn(256)
    again.close()
    agent.close()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Case(state_dependent_std=True).policy(), "deviations that do not depend on the"),
        (lambda: Case(action="integers").policy(), "real actions, of at least one axis, in a Box"),
        (lambda: Case(action="discrete").policy(), r"actions that start at 0, got Discrete\(9, -1\)"),
        (lambda: Case(observation="tuple", action="box").policy(), "a Box, Discrete, MultiDiscrete or"),
        (lambda: Case(observation="dict").policy(), "a Box, Discrete, MultiDiscrete or MultiBinary"),
        (lambda: Case(observation="number").policy(), "observations of one or two axes"),
        (lambda: Case(observation="discrete").policy(), "integers that start at 0"),
        (lambda: Case(observation="multi_discrete").policy(), "integers that start at 0"),
    ],
)  # fmt: skip
def test_what_has_no_form_there_is_refused(make: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=f"^sb3: expected {sentence}.*; export to another target$"
    ):
        make().export(tmp_path / "p.zip")
    assert list(tmp_path.iterdir()) == []


def test_masks_other_activations_and_lost_digits_are_refused(tmp_path: Path) -> None:
    masked = policy_over(BOX, SPACES["discrete"])
    masked.mask_source = "info"
    with pytest.raises(ExportError, match=r"^sb3: expected no action masks"):
        masked.export(tmp_path / "p.zip")
    other = policy_over(*PAIRS["box"])
    other.critic = FrozenCritic(core.ValueFunction(17, activation="relu"), mean=0.0, scale=1.0)
    with pytest.raises(ExportError, match=r"^sb3: expected the same activation .*, got relu"):
        other.export(tmp_path / "p.zip")
    far = policy_over(*PAIRS["box"])
    far.network.set_normalizer(np.full(17, 1e6), np.ones(17), clip=10.0)
    with pytest.raises(ExportError, match=r"^sb3: expected observations whose means .* a loss of"):
        far.export(tmp_path / "p.zip")


# ---- with sb3-contrib


@NEEDS_SB3
@pytest.mark.parametrize(("pair", "activation", "hidden"), CASES)
def test_sb3_acts_as_predict_does(pair: str, activation: str, hidden: Any, tmp_path: Path) -> None:
    import sb3_contrib
    import torch

    policy = policy_over(*PAIRS[pair], activation, hidden)
    model = sb3_contrib.TRPO.load(policy.export(tmp_path / "p.zip"), device="cpu")
    assert model.observation_space == PAIRS[pair][0]
    assert model.action_space == PAIRS[pair][1]
    observations = batch(PAIRS[pair][0], N)
    action, _ = model.predict(observations, deterministic=True)
    expected, _ = policy.predict(observations, deterministic=True)
    assert action.shape == expected.shape
    if expected.dtype.kind == "f":
        size = np.abs(expected).max(axis=0)
        assert (np.abs(action - expected) <= 1e-5 * np.maximum(size, 1.0)).all()
    else:
        assert (action != expected).mean() <= 1e-4  # logits that float32 does not tell apart
    with torch.no_grad():
        seen, _ = model.policy.obs_to_tensor(observations)
        values = model.policy.predict_values(seen).numpy()[:, 0]
    np.testing.assert_allclose(values, policy.values(observations), rtol=1e-4, atol=1e-3)


@NEEDS_SB3
@pytest.mark.parametrize("name", ["CartPole-v1", "HalfCheetah-v5"])
def test_a_trained_policy_acts_and_trains_there(name: str, tmp_path: Path) -> None:
    import gymnasium
    import sb3_contrib

    if name.startswith("Half"):
        pytest.importorskip("mujoco")
    agent = TRPO(name, seed=0, n_workers=0, batch_size=1024)
    agent.learn(2048)
    env = gymnasium.make(name)
    model = sb3_contrib.TRPO.load(agent.export(tmp_path / "p.zip"), env=env, device="cpu")
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    rows = []
    for _ in range(N):
        rows.append(observation)
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
    # what is normalised to within the clip, which has no form there
    seen = np.abs(agent.policy.normalize(np.array(rows, agent.policy.dtype)))
    within = np.array(rows)[(seen < agent.policy.normalizer.clip).all(axis=1)]
    assert len(within) > 0.99 * N
    action, _ = model.predict(within, deterministic=True)
    expected, _ = agent.predict(within, deterministic=True)
    np.testing.assert_allclose(action, expected, atol=1e-5)
    model.learn(2048)  # it is whole
    assert model.num_timesteps == 2048
    env.close()
    agent.close()
