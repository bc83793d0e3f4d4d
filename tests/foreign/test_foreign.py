"""Policies of other libraries act here as they did there, and nothing in their files is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_fast import NPG, TRPO
from trpo_fast.config import ConfigError
from trpo_fast.foreign import ForeignFileError, read_sb3, read_torch_file
from trpo_fast.foreign.records import Record, array_of, read_records

DATA = Path(__file__).parent / "data"


def reference(stem: str) -> Any:
    return np.load(DATA / f"{stem}.npz")


def from_sb3(stem: str, env: str, cls: Any = TRPO, **settings: Any) -> Any:
    beside = DATA / f"{stem}_vecnormalize.pkl"
    settings = {"n_workers": 0, **settings}
    normalizer = beside if beside.exists() else None
    return cls.from_sb3(DATA / f"{stem}.zip", env, vec_normalize=normalizer, **settings)


@pytest.mark.parametrize(
    ("stem", "env"), [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")]
)
def test_a_policy_of_sb3_acts_and_values_as_there(stem: str, env: str) -> None:
    agent, known = from_sb3(stem, env), reference(stem)
    actions, _ = agent.predict(known["rows"], deterministic=True)
    assert actions.dtype == known["actions"].dtype
    np.testing.assert_allclose(actions, known["actions"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(agent.acting.values(known["rows"]), known["values"], rtol=2e-5)
    assert agent.timesteps == 1024
    agent.close()


def test_settings_of_the_training_there_are_taken_over_and_may_be_changed() -> None:
    agent = from_sb3("cartpole", "CartPole-v1", max_kl=0.02, batch_size=256)
    config = agent.config
    assert (config.gamma, config.max_backtracks, config.cg_iterations) == (0.97, 9, 15)
    assert (config.hidden_sizes, config.value_hidden_sizes) == ((8,), (12, 8))
    assert (config.activation, config.value_activation) == ("relu", "relu")
    assert (config.max_kl, config.batch_size, config.n_envs) == (0.02, 256, 2)
    agent.close()


@pytest.mark.parametrize("cls", [TRPO, NPG])
def test_training_goes_on_and_a_file_holds_it(cls: Any, tmp_path: Path) -> None:
    agent, known = from_sb3("pendulum", "Pendulum-v1", cls), reference("pendulum")
    values = agent.acting.values(known["rows"])
    agent.learn(512)
    assert agent.timesteps == 1024 + 512
    assert np.corrcoef(values, agent.acting.values(known["rows"]))[0, 1] > 0.5  # V went on
    agent.save(tmp_path / "agent.safetensors")
    again = cls.load(tmp_path / "agent.safetensors")
    np.testing.assert_array_equal(agent.policy.parameters, again.policy.parameters)
    again.close()
    agent.close()


def test_a_state_dict_acts_as_there() -> None:
    known = reference("algorithm")
    names = {"policy": "policy.actor.", "value": "critic.", "activation": "silu"}
    from_file = TRPO.from_state_dict(
        DATA / "algorithm.pth", "Pendulum-v1", n_workers=0, action_scaling=True, **names
    )
    actions, _ = from_file.predict(known["rows"], deterministic=True)
    np.testing.assert_allclose(actions, np.clip(2.0 * known["actions"], -2, 2), atol=2e-6)
    np.testing.assert_allclose(from_file.acting.values(known["rows"]), known["values"], atol=2e-6)
    assert from_file.policy.parameters[-1] == pytest.approx(-0.7)

    # a mapping of arrays, and a normaliser beside it
    state = read_torch_file(DATA / "algorithm.pth")
    mean, variance = np.array([0.1, -0.2, 3.0]), np.array([0.5, 1.0, 9.0])
    normalized = TRPO.from_state_dict(
        state, "Pendulum-v1", n_workers=0, observation_mean=mean, observation_variance=variance,
        observation_epsilon=0.01, **names,
    )  # fmt: skip
    rows = known["rows"] * np.sqrt(variance + 0.01) + mean
    actions, _ = normalized.predict(rows.astype(np.float32), deterministic=True)
    np.testing.assert_allclose(actions, np.clip(known["actions"], -2, 2), atol=5e-6)
    from_file.close()
    normalized.close()


def test_other_networks_and_spaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hidden_sizes: expected the \(8,\) of the networks"):
        from_sb3("cartpole", "CartPole-v1", hidden_sizes=(64, 64))
    with pytest.raises(ForeignFileError, match=r"expected 6 inputs and 3 outputs, .* got 4 and 2"):
        from_sb3("cartpole", "Acrobot-v1")
    with pytest.raises(ForeignFileError, match="weights whose names begin with 'actor'"):
        TRPO.from_state_dict(DATA / "algorithm.pth", "Pendulum-v1", policy="actor")
    with pytest.raises(ForeignFileError, match="as many as the layer before has units"):
        TRPO.from_state_dict(DATA / "algorithm.pth", "Pendulum-v1", policy="")
    with pytest.raises(ForeignFileError, match="readable file"):
        TRPO.from_sb3(tmp_path / "none.zip", "CartPole-v1")
    (tmp_path / "v.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ForeignFileError, match=r"expected what VecNormalize\.save writes"):
        read_sb3(DATA / "pendulum.zip", tmp_path / "v.pkl")


class _Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_nothing_that_is_pickled_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"a": 1.5, "bomb": _Bomb(), "array": np.arange(6.0).reshape(2, 3)})
    found = read_records(data)
    assert isinstance(found["bomb"], Record)
    assert found["bomb"].name.endswith(".mkdir")
    assert found["bomb"].arguments == ("exploded",)
    np.testing.assert_array_equal(array_of(found["array"]), np.arange(6.0).reshape(2, 3))

    # in the places where files are read: the tensors, and VecNormalize
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as tensors:
            tensors.writestr("archive/data.pkl", pickle.dumps(_Bomb()))
        archive.writestr("policy.pth", inner.getvalue())
        archive.writestr("data", "{}")
    with pytest.raises(ForeignFileError):
        read_sb3(tmp_path / "m.zip")
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ForeignFileError):
        read_sb3(DATA / "pendulum.zip", tmp_path / "v.pkl")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(_Bomb()))  # that it would have
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_every_pickle_protocol(protocol: int) -> None:
    for array in (np.arange(6, dtype=np.int32).reshape(2, 3), np.asfortranarray(np.eye(3)[:2])):
        got = array_of(read_records(pickle.dumps(array, protocol=protocol)))
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype
    assert float(array_of(read_records(pickle.dumps(np.float64(2.5), protocol=protocol)))) == 2.5


def test_damaged_files_get_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for name in ("pendulum_vecnormalize.pkl", "algorithm.pth"):
        whole = (DATA / name).read_bytes()
        refused = 0
        for _ in range(150):
            data = bytearray(whole)
            if rng.random() < 0.3:
                data = data[: rng.integers(len(data))]
            for place in rng.integers(len(data), size=3) if data else ():
                data[place] = rng.integers(256)
            path.write_bytes(data)
            sentence = refusal(name, path)
            refused += sentence is not None
            assert sentence is None or "\n" not in sentence
        assert refused > 50


def refusal(name: str, path: Path) -> str | None:
    try:
        if name.endswith(".pkl"):
            read_sb3(DATA / "pendulum.zip", path)
        else:
            read_torch_file(path)
    except ForeignFileError as error:
        return str(error)
    return None
