"""Environment construction, observation encoding, action adaptation."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast.envs import (
    ActionAdapter,
    ObservationEncoder,
    copy_environment,
    describe_spaces,
    environment_name,
    make_environment,
    open_environments,
    spaces_mismatch,
)

OBSERVATION_SPACES = {
    "box": spaces.Box(-2.0, 2.0, (5,), np.float64),
    "box of one": spaces.Box(-2.0, 2.0, (1,)),
    "scalar box": spaces.Box(-2.0, 2.0, ()),
    "matrix": spaces.Box(-2.0, 2.0, (2, 3)),
    "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "ram": spaces.Box(0, 255, (128,), np.uint8),
    "discrete": spaces.Discrete(4),
    "discrete from 3": spaces.Discrete(4, start=3),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-discrete from": spaces.MultiDiscrete([2, 3], start=[-1, 5]),
    "multi-discrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multi-binary": spaces.MultiBinary(5),
    "multi-binary matrix": spaces.MultiBinary([2, 3]),
    "dict": spaces.Dict(
        {
            "zeta": spaces.Discrete(3),
            "alpha": spaces.Box(-1, 1, (2, 2)),
            "middle": spaces.Dict({"b": spaces.MultiBinary(2), "a": spaces.Discrete(2, start=1)}),
        }
    ),
    "dict, order kept": spaces.Dict([("z", spaces.Discrete(3)), ("a", spaces.Box(0, 1, (2,)))]),
    "tuple": spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Box(-1, 1, (3,)))),
    "tuple of dict": spaces.Tuple((spaces.Dict({"x": spaces.Discrete(2)}), spaces.Discrete(3))),
}


@pytest.fixture(params=OBSERVATION_SPACES)
def space(request: pytest.FixtureRequest) -> Any:
    chosen = OBSERVATION_SPACES[request.param]
    chosen.seed(3)
    return chosen


# --- observations ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_equal_gymnasium_flatten(space: Any, dtype: str) -> None:
    encoder = ObservationEncoder.from_space(space, dtype)
    assert encoder.dim == spaces.flatdim(space)
    row = np.full(encoder.dim, np.nan, dtype)
    for _ in range(20):
        observation = space.sample()
        encoder.write(observation, row)
        expected = spaces.flatten(space, observation).astype(dtype)
        np.testing.assert_array_equal(row, expected)
        np.testing.assert_array_equal(encoder.encode(observation), expected)


def test_batches_equal_rows(space: Any) -> None:
    encoder = ObservationEncoder.from_space(space, "float32")
    samples = [space.sample() for _ in range(6)]
    out = gymnasium.vector.utils.create_empty_array(space, 6)
    batch = gymnasium.vector.utils.concatenate(space, samples, out)
    rows = encoder.encode_batch(batch, 6)
    np.testing.assert_array_equal(rows, np.stack([encoder.encode(s) for s in samples]))
    # one observation and a batch are told apart
    any_rows, batched = encoder.encode_any(batch)
    assert batched
    np.testing.assert_array_equal(any_rows, rows)
    any_row, batched = encoder.encode_any(samples[0])
    assert not batched
    np.testing.assert_array_equal(any_row, rows[:1])


def test_encoders_survive_pickle(space: Any) -> None:
    encoder = ObservationEncoder.from_space(space, "float64")
    copy = pickle.loads(pickle.dumps(encoder))
    observation = space.sample()
    np.testing.assert_array_equal(copy.encode(observation), encoder.encode(observation))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("box", np.zeros(4), r"expected shape \(5,\), got \(4,\)"),
        ("box", np.zeros(1), r"expected shape \(5,\), got \(1,\)"),
        ("box", np.zeros((1, 5)), r"expected shape \(5,\), got \(1, 5\)"),
        ("box", 0.5, r"expected shape \(5,\), got \(\) \(float\)"),
        ("box", None, r"expected shape \(5,\), got \(\) \(NoneType\)"),
        ("image", np.zeros((5, 4, 3)), r"expected shape \(4, 5, 3\), got \(5, 4, 3\)"),
        ("discrete from 3", 7, r"integer in \[3, 6\], got 7"),
        ("discrete from 3", 2, r"integer in \[3, 6\], got 2"),
        ("discrete", 1.5, r"integer in \[0, 3\], got 1.5"),
        ("multi-discrete", np.array([0, 3, 0]), r"entry 1: expected an integer in \[0, 2\], got 3"),
        ("multi-discrete", np.zeros(3), "expected integers, got dtype float64"),
        ("multi-binary", np.zeros(4, np.int8), r"expected shape \(5,\), got \(4,\)"),
        ("dict", np.zeros(3), "expected a dictionary with the keys"),
        ("dict", {"alpha": np.zeros((2, 2))}, r"key 'middle' is missing, got \['alpha'\]"),
        ("tuple", (np.zeros(2, int),), "expected a tuple of 2 parts, got 1"),
    ],
)
def test_wrong_observations_get_a_sentence(name: str, wrong: Any, words: str) -> None:
    encoder = ObservationEncoder.from_space(OBSERVATION_SPACES[name])
    with pytest.raises(ValueError, match=words):
        encoder.encode(wrong)


def test_wrong_batches_get_a_sentence() -> None:
    encoder = ObservationEncoder.from_space(OBSERVATION_SPACES["box"])
    with pytest.raises(ValueError, match=r"expected shape \(3, 5\), got \(2, 5\)"):
        encoder.encode_batch(np.zeros((2, 5)), 3)
    with pytest.raises(ValueError, match=r"expected shape \(5,\) or a batch \(N, 5\)"):
        encoder.encode_any(np.zeros((2, 2, 5)))


@pytest.mark.parametrize(
    "unsupported",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Text(3)}),
    ],
)
def test_unsupported_observation_spaces_get_a_sentence(unsupported: Any) -> None:
    with pytest.raises(TypeError, match=r"^observation space: .* is not supported; expected Box"):
        ObservationEncoder.from_space(unsupported)


def test_empty_spaces_are_refused() -> None:
    empty = spaces.Box(0, 1, (0,))
    with pytest.raises(ValueError, match="has no entries"):
        ObservationEncoder.from_space(empty)
    with pytest.raises(ValueError, match="has no entries"):
        ActionAdapter.from_space(empty)


# --- actions ---

ACTION_SPACES = {
    "box": (spaces.Box(-1, 1, (3,)), "gaussian", (3,)),
    "box, float64": (spaces.Box(-1, 1, (3,), np.float64), "gaussian", (3,)),
    "box, matrix": (spaces.Box(-1, 1, (2, 2)), "gaussian", (4,)),
    "box, scalar": (spaces.Box(-1, 1, ()), "gaussian", (1,)),
    "box, unbounded": (spaces.Box(-np.inf, np.inf, (2,)), "gaussian", (2,)),
    "box, integers": (spaces.Box(0, 10, (2,), np.int64), "gaussian", (2,)),
    "discrete": (spaces.Discrete(3), "categorical", (3,)),
    "discrete from 5": (spaces.Discrete(3, start=5), "categorical", (3,)),
    "multi-discrete": (spaces.MultiDiscrete([2, 4]), "multi_categorical", (2, 4)),
    "multi-discrete from": (
        spaces.MultiDiscrete([[2, 4], [3, 3]], start=[[1, 2], [3, -4]]),
        "multi_categorical",
        (2, 4, 3, 3),
    ),
    "multi-binary": (spaces.MultiBinary(4), "bernoulli", (4,)),
    "multi-binary matrix": (spaces.MultiBinary([2, 2]), "bernoulli", (4,)),
}


def stored_actions(adapter: ActionAdapter, n: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(1)
    if not adapter.is_discrete:
        return (3 * rng.standard_normal((n, adapter.action_dim))).astype(dtype)
    highs = [2] * adapter.action_dim if adapter.kind == "bernoulli" else adapter.sizes
    return np.stack([rng.integers(0, high, n) for high in highs], 1).astype(np.int32)


@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_actions_belong_to_the_space(name: str, dtype: str) -> None:
    space, kind, sizes = ACTION_SPACES[name]
    adapter = ActionAdapter.from_space(space)
    assert (adapter.kind, adapter.sizes) == (kind, sizes)
    stored = stored_actions(adapter, 50, dtype)
    assert stored.dtype == adapter.stored_dtype(dtype)
    kept = stored.copy()

    batch = adapter.to_env(stored)
    assert batch.shape == (50, *space.shape)
    assert batch.dtype == space.dtype
    assert gymnasium.vector.utils.batch_space(space, 50).contains(batch)
    separate = adapter.step_converter(50, dtype)(stored)
    for n in range(50):
        one = adapter.to_env(stored[n])
        assert space.contains(one)
        assert space.contains(separate[n])
        np.testing.assert_array_equal(one, batch[n])
        np.testing.assert_array_equal(separate[n], batch[n])
    # what the distribution sampled is never touched or lent out
    np.testing.assert_array_equal(stored, kept)
    assert not np.shares_memory(np.asarray(separate), stored)
    assert not np.shares_memory(batch, stored)


def test_box_actions_are_clipped() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(np.float32([-1, 0]), np.float32([1, 2])))
    np.testing.assert_array_equal(adapter.to_env(np.float32([-3, 3])), np.float32([-1, 2]))
    np.testing.assert_array_equal(adapter.to_env(np.float32([0.5, 1.5])), np.float32([0.5, 1.5]))


def test_integer_box_actions_are_rounded() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(0, 10, (3,), np.uint8))
    np.testing.assert_array_equal(adapter.to_env(np.float32([2.6, -4, 300])), [3, 0, 10])


def test_discrete_actions_are_python_integers() -> None:
    adapter = ActionAdapter.from_space(spaces.Discrete(3, start=5))
    assert type(adapter.to_env(np.array([2], np.int32))) is int
    assert adapter.to_env(np.array([2], np.int32)) == 7
    assert adapter.step_converter(2)(np.array([[0], [1]], np.int32)) == [5, 6]


def test_the_distribution_fits_the_space() -> None:
    core = pytest.importorskip("trpo_fast.core")
    for space, kind, sizes in ACTION_SPACES.values():
        adapter = ActionAdapter.from_space(space)
        assert adapter.distribution == core.Distribution(kind, sizes)
        assert adapter.distribution.action_dim == adapter.action_dim
    wide = ActionAdapter.from_space(spaces.Box(-1, 1, (3,)), state_dependent_std=True)
    assert wide.distribution.kind == "state_dependent_gaussian"
    assert wide.distribution.action_dim == wide.action_dim == 3


def test_wrong_actions_get_a_sentence() -> None:
    adapter = ActionAdapter.from_space(spaces.Box(-1, 1, (3,)))
    with pytest.raises(ValueError, match=r"actions: expected shape \(3,\) or \(N, 3\), got \(2,\)"):
        adapter.to_env(np.zeros(2))
    with pytest.raises(ValueError, match=r"got \(1, 2, 3\)"):
        adapter.to_env(np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "unsupported", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Text(3), spaces.Tuple(())]
)
def test_unsupported_action_spaces_get_a_sentence(unsupported: Any) -> None:
    with pytest.raises(TypeError, match=r"^action space: .* is not supported; expected Box"):
        ActionAdapter.from_space(unsupported)


# --- descriptions ---


def test_descriptions_are_json_and_tell_spaces_apart(space: Any) -> None:
    action = spaces.Box(np.float32([-np.inf, -1]), np.float32([np.inf, 1]))
    description = describe_spaces(space, action)
    restored = json.loads(json.dumps(description, allow_nan=False))
    assert restored == description
    assert spaces_mismatch(restored, describe_spaces(space, action)) is None
    for other in OBSERVATION_SPACES.values():
        if other != space:
            sentence = spaces_mismatch(restored, describe_spaces(other, action))
            assert sentence is not None
            assert sentence.startswith("observation space: expected ")


def test_action_bounds_are_part_of_the_description() -> None:
    observation = spaces.Discrete(2)
    saved = describe_spaces(observation, spaces.Box(-1, 1, (2,)))
    current = describe_spaces(observation, spaces.Box(-2, 2, (2,)))
    sentence = spaces_mismatch(saved, current)
    assert sentence is not None
    assert sentence.startswith("action space: expected Box(shape=[2]")


# --- construction ---


def test_environments_from_every_source() -> None:
    made = make_environment("CartPole-v1")
    assert environment_name(made) == environment_name("CartPole-v1") == "CartPole-v1"
    assert make_environment(made) is made
    assert make_environment(lambda: made) is made
    with_module = make_environment("gymnasium.envs.classic_control:Pendulum-v1", g=5.0)
    assert with_module.unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert environment_name(with_module) == "Pendulum-v1"
    made.close()
    with_module.close()


def test_several_environments_are_opened() -> None:
    opened = open_environments("CartPole-v1", n_envs=3)
    assert len(opened.environments) == 3
    assert len({id(environment) for environment in opened.environments}) == 3
    factory = open_environments(lambda: gymnasium.make("CartPole-v1"), n_envs=2)
    assert len(factory.environments) == 2
    assert factory.name == "CartPole-v1"
    single = open_environments(factory.environments[0], n_envs=8)
    assert single.environments == factory.environments[:1]
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    assert open_environments(vector, n_envs=8).vector_env is vector
    assert open_environments(lambda: vector, n_envs=8).vector_env is vector
    vector.close()


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("HalfCheeta-v5", "did you mean HalfCheetah-v"),
        ("HalfCheetah-v17", r"did you mean HalfCheetah-v"),
        ("cartpole-v1", "did you mean CartPole-v"),
        ("Nonsense/Xyzzyqwert-v0", "pprint_registry"),
    ],
)
def test_unknown_ids_get_close_matches(env_id: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"no environment is registered as .*{words}"):
        make_environment(env_id)


def test_bad_sources_get_a_sentence() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        make_environment("no_such_module:Thing-v0")
    with pytest.raises(TypeError, match="expected a Gymnasium id, an Env"):
        make_environment(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"the factory must return a gymnasium\.Env, got NoneType"):
        make_environment(lambda: None)
    with pytest.raises(ValueError, match=r"keyword arguments \(g\): allowed with a Gymnasium id"):
        make_environment(lambda: None, g=1)
    with pytest.raises(ValueError, match="n_envs: expected at least 1, got 0"):
        open_environments("CartPole-v1", n_envs=0)
    one = gymnasium.make("CartPole-v1")
    with pytest.raises(ValueError, match="same object for environments 0 and 1"):
        open_environments(lambda: one, n_envs=2)


def test_atari_is_registered_when_needed() -> None:
    pytest.importorskip("ale_py")
    environment = make_environment("ALE/Breakout-v5", obs_type="ram")
    encoder = ObservationEncoder.from_space(environment.observation_space)
    observation, _ = environment.reset(seed=0)
    row = encoder.encode(observation)
    assert encoder.dim == 128
    np.testing.assert_array_equal(row, observation.astype(np.float32))
    environment.close()


# --- what a simulator says --------------------------------------------------------------------


class FakeMujoco(ModuleType):
    """MuJoCo's handler of warnings, and a model that makes it warn."""

    def __init__(self) -> None:
        super().__init__("mujoco")
        self.said: list[str] = []
        self.handler: Any = self.said.append

    def get_mju_user_warning(self) -> Any:
        return self.handler

    def set_mju_user_warning(self, handler: Any) -> None:
        self.handler = handler

    def make(self) -> gymnasium.Env[Any, Any]:
        self.handler("an attribute is deprecated")
        return gymnasium.make("CartPole-v1")


def test_a_warning_about_a_model_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mujoco = FakeMujoco()
    monkeypatch.setitem(sys.modules, "mujoco", mujoco)
    handler = mujoco.handler
    opened = open_environments(mujoco.make, n_envs=3)
    assert len(opened.environments) == 3
    assert mujoco.said == ["an attribute is deprecated"]
    copy_environment(mujoco.make)
    with pytest.raises(ZeroDivisionError):
        copy_environment(lambda: 1 // 0)
    assert mujoco.handler == handler
    assert len(mujoco.said) == 1
    # later, while the simulator runs, nothing is kept back
    mujoco.handler("unstable")
    assert mujoco.said[1:] == ["unstable"]


def test_a_mujoco_without_handlers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))
    assert copy_environment("CartPole-v1").unwrapped is not None


def test_copies_of_a_mujoco_environment_are_quiet_from_the_first() -> None:
    pytest.importorskip("mujoco")
    program = """
        import sys
        from trpo_fast.envs import copy_environment
        assert "mujoco" not in sys.modules
        copy_environment("HalfCheetah-v5").close()
        import mujoco
        assert mujoco.get_mju_user_warning() is None
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
