"""The agent from end to end, on real and on tiny environments."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import reference
from trpo_fast import TRPO, TRPOConfig, runtime
from trpo_fast.callbacks import Callback
from trpo_fast.checkpoint import CheckpointError
from trpo_fast.presets import PRESETS

SMALL = {"n_workers": 0, "n_envs": 2, "batch_size": 256, "value_epochs": 2, "seed": 1}


class Toy(gymnasium.Env[Any, Any]):
    """Random observations, reward 1 where the action's first entry is small; 20 steps an episode."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        reward: Any = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self._reward = reward
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # no assert: pytest rewrites those here and not in a worker, whose code would be another
        if not self.action_space.contains(action):
            raise AssertionError(action)
        self._t += 1
        first = float(np.ravel(action)[0])
        reward = float(first < 0.5) if self._reward is None else self._reward(self._t)
        return self.observation_space.sample(), reward, False, self._t == 20, {}


BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)


def toy(observation_space: Any = BOX, action_space: Any = None, reward: Any = None) -> Any:
    actions = spaces.Discrete(3) if action_space is None else action_space
    return lambda: Toy(observation_space, actions, reward)


class Recorder:
    """A logger that keeps the records."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.closed = False

    def write(self, record: Any) -> None:
        self.records.append(dict(record))

    def close(self) -> None:
        self.closed = True


def trained(env: Any = "CartPole-v1", steps: int = 1024, **settings: Any) -> TRPO:
    agent = TRPO(env, **{**SMALL, **settings})
    return agent.learn(steps, progress=False)


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what a clock has measured."""
    kept = ("time/iteration", "time/timesteps")
    return [
        {key: value for key, value in record.items() if key in kept or key[:5] != "time/"}
        for record in records
    ]


def bits(agent: TRPO) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in agent.state_tensors().items()}


# ---- training


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_trust_region_holds_in_every_iteration(env: str) -> None:
    log = Recorder()
    TRPO(env, **SMALL).learn(4096, loggers=[log])
    assert len(log.records) == 16
    assert log.closed
    for record in log.records:
        assert record["policy/kl"] <= record["policy/max_kl"]
        if record["policy/status"] == "accepted":
            assert record["policy/surrogate_gain"] > 0.0
        assert np.isfinite([v for v in record.values() if isinstance(v, float)]).all()
    assert log.records[-1]["time/timesteps"] == 4096


def test_cartpole_improves() -> None:
    agent = TRPO("CartPole-v1", n_workers=0, seed=0).learn(30_000, progress=False)
    assert agent.evaluate(10, seed=0).mean_return > 150.0  # 22 at random


def test_the_seed_decides_everything() -> None:
    assert bits(trained(seed=3)) == bits(trained(seed=3))
    assert bits(trained(seed=3)) != bits(trained(seed=4))


@pytest.mark.parametrize(
    "change", [{"overlap_value_fit": False}, {"n_workers": 2}, {"n_threads": 2}], ids=str
)
def test_what_must_not_change_a_bit(change: dict[str, Any]) -> None:
    assert bits(trained(**change)) == bits(trained())


@pytest.mark.parametrize(
    ("overlaps", "cores", "seen"),
    [
        (True, 1, ("Future", 2)),  # beside the update: the rollout needs every core
        (True, 2, ("NoneType", 3)),  # after it: beside the rollout alone
        (False, 1, ("NoneType", 3)),
    ],
)
def test_when_the_value_function_is_fitted_changes_no_bit(
    overlaps: bool, cores: int, seen: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = _Watched(TRPO.improve_policy)
    monkeypatch.setattr(TRPO, "improve_policy", watched)
    monkeypatch.setattr("trpo_fast.training.agent.available_cores", lambda: cores)
    threads = runtime.get_num_threads()
    agent = trained(n_threads=3, overlap_value_fit=overlaps)
    assert runtime.get_num_threads() == 3
    assert watched.seen == {seen}
    assert bits(agent) == bits(trained(n_threads=threads, overlap_value_fit=not overlaps))


class _Watched:
    """Notes, at every call, what value fit there is, and how many threads."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.seen: set[tuple[str, int]] = set()

    def __get__(self, agent: TRPO, _: Any = None) -> Any:
        def call(batch: Any) -> Any:
            self.seen.add(
                (type(agent.value_fitting._under_way).__name__, runtime.get_num_threads())
            )
            return self.function(agent, batch)

        return call


class Uneven(Toy):
    """Episodes of 1 to 120 steps that terminate or are truncated."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        self._length = int(1 + 120 * self.np_random.random() ** 4)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *_ = super().step(action)
        ends, terminates = self._t == self._length, bool(self.np_random.random() < 0.5)
        return observation, reward, ends and terminates, ends and not terminates, {}


def uneven() -> Uneven:
    return Uneven(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(3))


@pytest.mark.parametrize("sampling", ["total_steps", "episodes"])
def test_sampling_keeps_every_promise(sampling: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sampling": sampling, "n_envs": 5, "batch_size": 64}
    log = Recorder()
    steps = 400 if sampling == "total_steps" else 1200
    agent = TRPO(uneven, **{**SMALL, **settings}).learn(steps, loggers=[log])
    # counted as they are taken
    counts = np.diff([0, *(record["time/timesteps"] for record in log.records)])
    assert agent.timesteps == counts.sum() == agent.observation_statistics.count
    assert [record["rollout/steps"] for record in log.records] == counts.tolist()
    if sampling == "total_steps":
        assert counts.tolist() == [64] * 7
    else:
        assert (counts >= 64).all()
        assert len(set(counts.tolist())) > 1
    # the same bits, whoever steps
    other = trained(uneven, steps, **settings, n_workers=2, overlap_value_fit=False)
    assert bits(other) == bits(agent)
    other.close()
    # an interrupted run goes on exactly, with other workers
    half = trained(uneven, int(counts[:3].sum()), **settings)
    assert half.iteration == 3
    resumed = TRPO.load(half.save(tmp_path / "half"), env=uneven, n_workers=2)
    resumed.learn(steps - half.timesteps, progress=False)
    assert bits(resumed) == bits(agent)
    resumed.close()


@pytest.mark.parametrize("sampling", ["total_steps", "episodes"])
def test_padding_leaks_into_no_advantage(sampling: Any) -> None:
    agent = trained(uneven, 200, sampling=sampling, n_envs=5, batch_size=64)
    rollout = agent.sampler.collect(agent.sampler.budget(sampling, 64))
    batch = agent.advantages(rollout)
    assert len(batch.advantages) == rollout.n_transitions < rollout.valid.size

    def value(rows: Any) -> Any:
        predicted = agent.value_function.predict(agent.policy.normalize(np.atleast_2d(rows)))
        return agent.value_fitting.units.to_rewards(predicted)

    finals = {
        (t, e): row
        for (t, e), row in zip(
            rollout.final_indices.tolist(), rollout.final_observations, strict=True
        )
    }
    expected = np.zeros(rollout.valid.shape)
    for e in range(5):  # each environment on its own, without padding
        n = int(rollout.valid[:, e].sum())
        own = slice(0, n), slice(e, e + 1)
        states = np.concatenate([rollout.observations[:n, e], rollout.last_observations[e : e + 1]])
        for t in range(n):
            states_after = finals.get((t, e), states[t + 1])
            expected[t, e] = value(states_after)[0]
        advantages, returns = reference.gae(
            rollout.rewards[own],
            value(states[:n])[:, np.newaxis],
            expected[own],
            rollout.terminated[own],
            rollout.truncated[own],
            gamma=agent.config.gamma,
            gae_lambda=agent.config.lam,
        )
        of_e = np.broadcast_to(np.arange(5), rollout.valid.shape)[rollout.valid] == e
        np.testing.assert_allclose(batch.advantages[of_e], advantages[:, 0], atol=1e-9)
        np.testing.assert_allclose(batch.returns[of_e], returns[:, 0], atol=1e-9)
        np.testing.assert_array_equal(batch.observations[of_e], agent.policy.normalize(states[:n]))


def test_sampling_that_cannot_be() -> None:
    vector_env = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(
        ValueError, match="a vector environment steps all its environments together"
    ):
        TRPO(vector_env, sampling="episodes")
    with pytest.raises(ValueError, match=r"sampling: expected one of .*did you mean 'episodes'"):
        TRPO("CartPole-v1", sampling="episode")


def test_learning_in_parts_equals_learning_at_once() -> None:
    parts = TRPO("CartPole-v1", **SMALL)
    for _ in range(4):
        parts.learn(256, progress=False)
    assert bits(parts) == bits(trained(steps=1024))


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "float64"},
        {"value_optimizer": "lbfgs", "value_lbfgs_iterations": 3, "value_epochs": 5},
        {"fisher_fraction": 0.2},
        {"value_minibatch_size": None},
        {"hidden_sizes": (), "value_hidden_sizes": (8,)},
        {"activation": "gelu", "value_activation": "silu"},
        {"normalize_observations": False, "scale_returns": False},
        {"value_learning_rate_schedule": "linear"},
        {"standardize_advantages": False},
        {"batch_size": 255},
        {"batch_size": 2, "n_envs": 1},
    ],
    ids=str,
)
def test_settings_that_take_another_path(settings: dict[str, Any]) -> None:
    agent = trained("Pendulum-v1", 300, **settings)
    assert np.isfinite(agent.policy.parameters).all()
    assert agent.timesteps >= 300


def test_state_dependent_std() -> None:
    agent = trained("Pendulum-v1", 512, state_dependent_std=True)
    assert agent.policy.distribution.kind == "state_dependent_gaussian"
    assert agent.last_record["policy/status"] == "accepted"


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(4),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
        spaces.Box(-2.0, 2.0, (2, 2), np.float32),
        spaces.Box(np.array([0.0, -np.inf]), np.array([1.0, np.inf]), dtype=np.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "observation_space",
    [
        BOX,
        spaces.Box(0, 255, (4, 3), np.uint8),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([2, 4]),
        spaces.MultiBinary(3),
        spaces.Dict(a=BOX, b=spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2)))),
    ],
    ids=str,
)
def test_every_space_trains_and_predicts(observation_space: Any, action_space: Any) -> None:
    env = toy(observation_space, action_space)
    agent = trained(env, 512)
    for deterministic in (False, True):
        observation = observation_space.sample()
        drawn = agent.acting.drawn
        action, state = agent.predict(observation, deterministic=deterministic)
        assert state is None
        assert action_space.contains(action)
        # one native call where the observation is a plain vector, and what it stands for elsewhere
        rows, _ = agent.acting.encoder.encode_any(observation)
        stored = agent.policy.act(
            rows,
            deterministic=deterministic,
            seed=agent.acting.seed,
            steps=np.array([drawn], np.uint64),
        )
        np.testing.assert_array_equal(action, agent.acting.adapter.to_env(stored[0]))
        assert agent.acting.drawn == drawn + (not deterministic)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_train(name: str) -> None:
    agent = TRPO("Pendulum-v1", preset=name, batch_size=400, n_workers=0)
    agent.learn(400, progress=False)
    assert agent.last_record["policy/kl"] <= agent.last_record["policy/max_kl"]


@pytest.mark.parametrize(
    ("env", "max_kl", "bound"),
    [
        ("Pendulum-v1", None, 0.02),
        ("CartPole-v1", None, 0.01),
        ("CartPole-v1", "linear", 0.02),
        ("CartPole-v1", 0.03, 0.03),
    ],
)
def test_the_usual_radius_is_that_of_the_actions(env: str, max_kl: Any, bound: float) -> None:
    agent = trained(env, 256, max_kl=max_kl)
    assert agent.last_record["policy/max_kl"] == pytest.approx(bound)
    assert TRPOConfig().max_kl is None


def test_kl_convention_scales_the_bound_by_the_action_dimensions() -> None:
    space = spaces.Box(-1.0, 1.0, (5,), np.float32)
    settings: dict[str, Any] = {"kl_convention": "mean_over_action_dimensions", "max_kl": 0.01}
    agent = trained(toy(action_space=space), 256, **settings)
    assert agent.last_record["policy/max_kl"] == pytest.approx(0.05)
    agent = trained(toy(), 256, **settings)
    assert agent.last_record["policy/max_kl"] == pytest.approx(0.01)


def test_sources_of_environments() -> None:
    single = trained(gymnasium.make("CartPole-v1"), 256)
    assert single.sampler.n_envs == 1
    vector = trained(gymnasium.make_vec("CartPole-v1", num_envs=3), 300)
    assert vector.sampler.n_envs == 3
    assert trained(lambda: gymnasium.make("CartPole-v1"), 256).timesteps == 256


# ---- callbacks


def test_a_callback_sees_every_iteration_and_can_stop() -> None:
    class Stop(Callback):
        steps = 0

        def on_step(self, agent: Any) -> None:
            self.steps += 1

        def on_iteration(self, agent: Any, record: dict[str, Any]) -> bool | None:
            record["mine"] = 1.0
            return agent.iteration < 3

    stop, log = Stop(), Recorder()
    agent = TRPO("CartPole-v1", **SMALL).learn(100_000, callback=stop, loggers=[log])
    assert agent.iteration == 3
    assert stop.steps == 3 * 128
    assert [record["mine"] for record in log.records] == [1.0] * 3


def test_a_plain_function_is_a_callback() -> None:
    agent = TRPO("CartPole-v1", **SMALL)
    agent.learn(10_000, callback=lambda agent, record: False, progress=False)
    assert agent.iteration == 1


# ---- files


def test_save_and_load(tmp_path: Path) -> None:
    agent = trained("Pendulum-v1", 1024)
    path = agent.save(tmp_path / "agent.safetensors")
    loaded = TRPO.load(path)
    assert bits(loaded) == bits(agent)
    assert loaded.config == agent.config
    assert loaded.timesteps == agent.timesteps
    observation = np.array([0.3, -0.2, 1.5], np.float32)
    for deterministic in (True, False):
        expected, _ = agent.predict(observation, deterministic=deterministic)
        got, _ = loaded.predict(observation, deterministic=deterministic)
        assert np.array_equal(expected, got)
    loaded.learn(256, progress=False)
    assert loaded.timesteps == agent.timesteps + 256


@functools.cache
def in_one_go(env: str) -> tuple[Any, list[dict[str, Any]]]:
    """The bits and the records of a run that nothing interrupts."""
    at_once = Recorder()
    whole = TRPO(env, **settings_of(env)).learn(1536, loggers=[at_once], progress=False)
    ended = bits(whole), timeless(at_once.records)
    whole.close()
    return ended


def settings_of(env: str) -> dict[str, Any]:
    return {**SMALL, "env_kwargs": {"obs_type": "ram"} if "ALE" in env else None}


@pytest.mark.parametrize("env", ["CartPole-v1", "HalfCheetah-v5", "ale_py:ALE/Boxing-v5"])
@pytest.mark.parametrize("workers", [(0, 0), (0, 2), (2, 0)], ids=str)
def test_resume_is_exact(env: str, workers: tuple[int, int], tmp_path: Path) -> None:
    settings, parts = settings_of(env), Recorder()
    whole, records = in_one_go(env)
    before, after = workers
    first = TRPO(env, **{**settings, "n_workers": before})
    first.learn(768, loggers=[parts], progress=False)
    path = first.save(tmp_path / "half.safetensors")
    first.close()
    resumed = TRPO.load(path, n_workers=after).learn(768, loggers=[parts], progress=False)
    assert bits(resumed) == whole
    assert timeless(parts.records) == records
    resumed.close()


def test_environments_that_cannot_be_saved_start_anew_and_say_so(tmp_path: Path) -> None:
    class Unsaveable(Toy):
        def __init__(self) -> None:
            super().__init__(BOX, spaces.Discrete(2))
            self.lock = (_ for _ in ())  # neither copied nor written to a file

    agent = trained(Unsaveable, 256)
    path = agent.save(tmp_path / "agent.safetensors")
    resumed = TRPO.load(path, env=Unsaveable).learn(256, progress=False)
    assert "episodes start anew" in resumed.last_record["run/notice"]


def test_another_instruction_set_level_is_in_the_log() -> None:
    agent = trained("CartPole-v1", 256)
    tensors, metadata = agent.state_tensors(), agent.state_metadata()
    log = Recorder()
    metadata["simd_level"] = "v9"
    TRPO.from_state(tensors, metadata).learn(512, loggers=[log], progress=False)
    notices = [record.get("run/notice", "") for record in log.records]
    assert "and was v9: the run goes on, but not bit for bit" in notices[0]
    assert notices[1] == ""


def test_a_checkpoint_of_another_environment_is_refused(tmp_path: Path) -> None:
    path = trained("CartPole-v1", 256).save(tmp_path / "agent.safetensors")
    with pytest.raises(CheckpointError, match="environment must be the one"):
        TRPO.load(path, env="Pendulum-v1")


def test_a_checkpoint_cannot_have_a_module_imported() -> None:
    agent = trained("CartPole-v1", 256)
    tensors, metadata = agent.state_tensors(), agent.state_metadata()
    metadata["env"] = "antigravity:CartPole-v1"
    with pytest.raises(CheckpointError, match=r"pass env='antigravity:CartPole-v1'"):
        TRPO.from_state(tensors, metadata)
    assert TRPO.from_state(tensors, metadata, env="CartPole-v1").timesteps == agent.timesteps


def test_predict_takes_one_observation_or_a_batch() -> None:
    agent = trained("CartPole-v1", 256)
    one, _ = agent.predict(np.zeros(4, np.float32), deterministic=True)
    assert one in (0, 1)
    batch, _ = agent.predict(np.zeros((5, 4), np.float32), deterministic=True)
    assert batch.shape == (5,)
    with pytest.raises(ValueError, match=r"observation.*expected shape \(4,\)"):
        agent.predict(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        agent.predict(np.full(4, np.nan, np.float32))


def test_predict_takes_observations_of_any_make() -> None:
    agent = trained("Pendulum-v1", 256)
    numbers = [0.6, 0.8, -2.5]
    expected, _ = agent.predict(np.array(numbers, np.float32), deterministic=True)
    assert (type(expected), expected.shape, expected.dtype) == (np.ndarray, (1,), np.float32)
    for same in (
        np.array(numbers),
        np.repeat(numbers, 2)[::2],  # not contiguous
        np.array(numbers, ">f8"),
        numbers,
        tuple(numbers),
    ):
        np.testing.assert_array_equal(agent.predict(same, deterministic=True)[0], expected)
    # an action is the caller's own
    expected[:] = 7.0
    assert agent.predict(numbers, deterministic=True)[0] != 7.0
    for wrong, words in (
        (np.array([0.6, 1e300, 0.0]), "expected finite numbers"),
        (np.zeros(2), r"expected shape \(3,\)"),
        (np.zeros((1, 1, 3)), r"expected shape \(3,\)"),
    ):
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=words):
            agent.predict(wrong)


# ---- what goes wrong


def test_constant_rewards_leave_the_policy_as_it_was() -> None:
    env = toy(reward=lambda t: 0.0)
    agent = TRPO(env, **SMALL, value_output_gain=0.0)
    before = agent.policy.parameters
    agent.learn(256, progress=False)
    assert agent.last_record["policy/status"] == "zero_gradient"
    assert np.array_equal(before, agent.policy.parameters)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_rewards(scale: float) -> None:
    rewards = np.random.default_rng(0).normal(size=21) * scale
    agent = trained(toy(reward=lambda t: float(rewards[t])), 1024)
    assert agent.last_record["policy/status"] == "accepted"
    assert np.isfinite(agent.policy.parameters).all()
    assert np.isfinite(agent.value_function.parameters).all()


def test_a_nan_reward_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    env = toy(reward=lambda t: float("nan") if t == 7 else 0.0)
    agent = TRPO(env, **SMALL)
    before = agent.policy.parameters
    with pytest.raises(ValueError, match=r"environment 0.*step 6") as caught:
        agent.learn(256, progress=False)
    assert "reward" in str(caught.value)
    assert np.array_equal(before, agent.policy.parameters)
    agent.save(tmp_path / "still.safetensors")


def test_an_iteration_whose_callback_failed_is_in_the_log() -> None:
    log = Recorder()

    def fail(agent: TRPO, record: Any) -> None:
        if agent.iteration == 3:
            raise OSError("the disk is full")

    agent = TRPO("CartPole-v1", **SMALL)
    with pytest.raises(OSError, match="the disk is full"):
        agent.learn(2048, callback=fail, loggers=[log], progress=False)
    assert [record["time/timesteps"] for record in log.records] == [256, 512, 768]
    assert agent.timesteps == 768
    assert log.records[-1]["run/notice"] == (
        "a callback ended training after this iteration: OSError: the disk is full"
    )


@pytest.mark.parametrize("steps", [0, -1, 1.5, float("nan"), float("inf")])
def test_total_timesteps_out_of_range(steps: Any) -> None:
    with pytest.raises(ValueError, match="total_timesteps: expected"):
        TRPO("CartPole-v1", **SMALL).learn(steps)


@pytest.mark.parametrize(
    ("env", "settings", "sentence"),
    [
        ("CartPole-v9", {}, "env: .*CartPole-v9.*did you mean"),
        ("CartPole-v1", {"max_kl": -1.0}, "max_kl: expected"),
        ("CartPole-v1", {"gamma": 1.5}, "gamma: expected"),
        ("CartPole-v1", {"max_lk": 0.1}, "max_lk.*did you mean 'max_kl'"),
        ("CartPole-v1", {"preset": "sb4"}, "preset: expected"),
        ("CartPole-v1", {"preset": "sb3", "config": TRPOConfig()}, "config, preset"),
    ],
)
def test_bad_arguments(env: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TRPO(env, **settings)


def test_unsupported_spaces() -> None:
    with pytest.raises(TypeError, match="not supported"):
        TRPO(toy(observation_space=spaces.Text(5)), **SMALL)
    with pytest.raises(TypeError, match="not supported"):
        TRPO(toy(action_space=spaces.Tuple((spaces.Discrete(2),))), **SMALL)
