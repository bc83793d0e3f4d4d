"""How environments are made."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest

from trpo_fast import TRPO
from trpo_fast.envs import (
    EnvironmentFailure,
    ObservationEncoder,
    copy_environment,
    environment_name,
    make_environment,
    open_environments,
)


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
    with pytest.raises(EnvironmentFailure, match="ZeroDivisionError"):
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


def test_a_class_is_called_by_its_name() -> None:
    class Fails(gymnasium.Env[Any, Any]):
        def __init__(self) -> None:
            raise AssertionError

    with pytest.raises(EnvironmentFailure, match="environment 'Fails' cannot be made"):
        TRPO(Fails, n_workers=0)


def test_an_environment_without_spaces_is_told_so() -> None:
    class Bare(gymnasium.Env[Any, Any]):
        pass

    with pytest.raises(TypeError, match="got Bare without observation_space; set it"):
        TRPO(Bare, n_workers=0)
