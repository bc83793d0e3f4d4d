"""Evaluation and films: counted by hand, and with real environments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation

from trpo_fast import TRPO
from trpo_fast.evaluation import EvaluationResult, evaluate_policy, record_video
from trpo_fast.training import evaluation


class Countdown(gymnasium.Env[np.ndarray, int]):
    """Starts at a number from 1 to 9; each step pays the action and counts down to the end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, frame_shape: tuple[int, ...] = (33, 47, 3)) -> None:
        self.render_mode = "rgb_array"
        self.frame_shape = frame_shape
        self.resets: list[int | None] = []
        self.starts: list[int] = []
        self.closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 10))
        self.resets.append(seed)
        self.starts.append(self.left)
        return np.array([self.left], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        ended = self.left == 0
        odd = bool(self.starts[-1] % 2)
        observation = np.array([self.left], np.float32)
        return observation, float(action), ended and odd, ended and not odd, {}

    def render(self) -> Any:
        return np.full(self.frame_shape, 20 * self.left, np.uint8)

    def close(self) -> None:
        self.closed = True


class Agent:
    """Mode 2, sample 1."""

    env_name = "CartPole-v1"

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[int, None]:
        assert observation.shape == (1,)
        return (2 if deterministic else 1), None


def test_returns_and_lengths_are_those_of_whole_episodes() -> None:
    env = Countdown()
    result = evaluate_policy(Agent(), env, 12, seed=3)
    np.testing.assert_array_equal(result.lengths, env.starts)
    np.testing.assert_array_equal(result.returns, 2.0 * np.array(env.starts))
    assert (result.returns.dtype, result.lengths.dtype) == (np.float64, np.int64)
    assert result.mean_return == pytest.approx(np.mean(env.starts) * 2)
    assert result.std_return == pytest.approx(np.std(env.starts) * 2)
    assert result.mean_length == pytest.approx(np.mean(env.starts))
    assert "over 12 episodes" in str(result)
    assert not env.closed


def test_a_sample_is_asked_for_when_not_deterministic() -> None:
    env = Countdown()
    result = evaluate_policy(Agent(), env, 3, deterministic=False)
    np.testing.assert_array_equal(result.returns, env.starts)
    assert env.resets == [None] * 3


def test_a_seed_fixes_the_episodes_whatever_ran_before() -> None:
    env = Countdown()
    runs = [evaluate_policy(lambda _: 1, env, n, seed=5).lengths for n in (4, 8)]
    np.testing.assert_array_equal(runs[0], runs[1][:4])
    assert len(set(env.resets[4:])) == 8
    other = evaluate_policy(lambda _: 1, env, 8, seed=6).lengths
    assert (other != runs[1]).any()


def test_what_is_made_here_is_closed_also_after_an_error() -> None:
    made: list[Countdown] = []

    def factory() -> Countdown:
        made.append(Countdown())
        return made[-1]

    evaluate_policy(lambda _: 0, factory, 1)
    with pytest.raises(ZeroDivisionError):
        evaluate_policy(lambda _: 1 // 0, factory, 1)
    assert [env.closed for env in made] == [True, True]


def test_an_id_or_the_agents_own_environment() -> None:
    class CartPoleAgent:
        env_name = "CartPole-v1"

        def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[int, None]:
            return int(observation[2] + observation[3] > 0), None

    by_name = evaluate_policy(CartPoleAgent(), "CartPole-v1", 3, seed=0)
    own = evaluate_policy(CartPoleAgent(), episodes=3, seed=0)
    np.testing.assert_array_equal(by_name.returns, own.returns)
    assert by_name.mean_return > 100


def test_the_agent_may_make_its_own_environment() -> None:
    made: list[Countdown] = []

    class Maker(Agent):
        def evaluation_environment(self) -> Any:
            return lambda: made.append(Countdown()) or made[-1]

    assert len(evaluate_policy(Maker(), episodes=2).returns) == 2
    assert [env.closed for env in made] == [True]


def test_max_steps_cuts_an_episode() -> None:
    env = Countdown()
    result = evaluate_policy(lambda _: 1, env, 20, seed=0, max_steps=4)
    np.testing.assert_array_equal(result.lengths, np.minimum(env.starts, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"episodes": 0}, ValueError, "episodes: expected an integer >= 1, got 0"),
        ({"episodes": 2.5}, ValueError, "episodes: expected an integer >= 1, got 2.5"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ({"max_steps": 0}, ValueError, "max_steps: expected an integer >= 1, got 0"),
        ({"env": None}, TypeError, "env: expected an environment, got None"),
        ({"policy": 3}, TypeError, "policy: expected an agent with predict"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], sentence: str) -> None:
    given: dict[str, Any] = {"policy": lambda _: 0, "env": Countdown(), **arguments}
    with pytest.raises(error, match=sentence):
        evaluate_policy(**given)


def test_a_reward_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="reward: expected a finite number, got nan at step 0 of"):
        evaluate_policy(lambda _: float("nan"), Countdown(), 1)  # type: ignore[arg-type]


# ---- films


def read_mp4(path: Path, width: int, height: int) -> tuple[str, list[np.ndarray]]:
    """What ffmpeg says of the stream, and the frames."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    command = [ffmpeg, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    pixels = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, height, width, 3)
    said = decoded.stderr.decode()
    return next(line for line in said.splitlines() if "Video: h264" in line), list(pixels)


def test_a_channel_of_opacity_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "film.mp4"
    record_video(Agent(), path, Countdown(frame_shape=(34, 48, 4)), 1, seed=1)
    stream, frames = read_mp4(path, 48, 34)
    assert " 48x34" in stream
    assert len(frames) > 1


@pytest.mark.parametrize("kind", ["grey", "floats", "a list", "no metadata"])
def test_frames_of_other_forms_are_filmed(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")

    class Other(Countdown):
        metadata = None if kind == "no metadata" else Countdown.metadata  # type: ignore[assignment]

        def render(self) -> Any:
            frame = super().render()
            forms = {"grey": frame[..., 0], "floats": frame / 255.0, "a list": [0 * frame, frame]}
            return forms.get(kind, frame)

    env, path = Other(frame_shape=(34, 48, 3)), tmp_path / "film.mp4"
    record_video(Agent(), path, env, 1, seed=1, fps=25)
    _, frames = read_mp4(path, 48, 34)
    grey = [20 * left for left in range(env.starts[0], -1, -1)]
    np.testing.assert_allclose([frame.mean() for frame in frames], grey, atol=3)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda n: np.zeros((32 + 2 * n, 32, 3), np.uint8), "frames of one size, got 34 x 32"),
        (lambda n: np.full((32, 32, 3), 7.0), r"floats from 0 to 1.* from 7 to 7"),
        (lambda n: "a text" * 99, r"got 'a text.* \(str\); make"),
        (lambda n: None, "got None; make"),
    ],
)
def test_what_is_no_film_is_told(frame: Any, words: str, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")

    class Other(Countdown):
        def render(self) -> Any:
            self.shown = getattr(self, "shown", 0) + 1
            return frame(self.shown)

    with pytest.raises(ValueError, match=words):
        record_video(Agent(), tmp_path / "film.mp4", Other(), 1, seed=1)
    assert not list(tmp_path.iterdir())


def test_mp4_holds_every_frame_with_sides_made_even(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    env, path = Countdown(), tmp_path / "new" / "film.mp4"
    result = record_video(Agent(), path, env, 3, seed=1, fps=25)
    np.testing.assert_array_equal(result.returns, 2.0 * np.array(env.starts))
    stream, frames = read_mp4(path, 48, 34)
    assert " 48x34" in stream
    assert " 25 fps" in stream
    grey = [20 * left for start in env.starts for left in range(start, -1, -1)]
    assert len(frames) == len(grey)
    np.testing.assert_allclose([frame.mean() for frame in frames], grey, atol=3)
    assert list(path.parent.iterdir()) == [path]


def test_gif_is_limited_to_the_rate_that_viewers_show(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    env, path = Countdown(), tmp_path / "film.gif"
    record_video(Agent(), path, env, seed=1)  # 100 frames a second: every second one is shown
    assert env.starts[0] > 3
    with image.open(path) as film:
        assert film.n_frames == env.starts[0] // 2 + 1
        assert film.info["duration"] == 20
        assert film.size == (47, 33)
        film.seek(1)
        assert film.convert("L").getpixel((5, 5)) == 20 * (env.starts[0] - 2)


def test_the_film_shows_the_episodes_of_the_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    counted = evaluate_policy(Agent(), Countdown(), 2, seed=9)
    filmed = record_video(Agent(), tmp_path / "film.gif", Countdown(), 2, seed=9)
    np.testing.assert_array_equal(filmed.returns, counted.returns)


def test_an_atari_screen_is_filmed(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    ale_py = pytest.importorskip("ale_py")
    gymnasium.register_envs(ale_py)
    path = tmp_path / "pong.mp4"
    result = record_video(lambda _: 2, path, "ALE/Pong-v5", seed=0, max_steps=30)
    stream, frames = read_mp4(path, 160, 210)
    assert " 160x210" in stream
    assert result.lengths[0] == 30
    assert len(frames) == 31


def test_a_failure_leaves_the_old_film_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        record_video(lambda left: 1 // (int(left[0]) - 1), path, Countdown(), 9, seed=1)
    with pytest.raises(ValueError, match="got an array of shape \\(8, 8, 2\\)"):
        record_video(Agent(), path, Countdown(frame_shape=(8, 8, 2)))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("a.mp4", "imageio_ffmpeg", "imageio-ffmpeg"), ("a.gif", "PIL.Image", "Pillow")],
)
def test_missing_extra_is_one_sentence_before_anything_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, module: str, package: str
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("trpo_fast.extras.importlib.import_module", missing)
    env = Countdown()
    with pytest.raises(ImportError) as caught:
        record_video(Agent(), tmp_path / name, env)
    assert str(caught.value) == (
        f'Writing {name} needs {package}, which is not installed: pip install "trpo_fast[video]"'
    )
    assert env.resets == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path": "film.avi"}, "path: expected a file name ending in .mp4 or .gif, got 'film.avi'"),
        ({"fps": 0.0}, "fps: expected a positive number of frames per second, got 0.0"),
        ({"episodes": 0}, "episodes: expected an integer >= 1, got 0"),
    ],
)
def test_wrong_film_arguments(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    given = {"path": tmp_path / "film.gif", "env": Countdown(), **arguments}
    with pytest.raises(ValueError, match=sentence):
        record_video(Agent(), **given)


def test_nothing_heavy_is_imported_with_the_module() -> None:
    code = (
        "import sys, trpo_fast.evaluation, trpo_fast.callbacks, trpo_fast.logging\n"
        "heavy = {'gymnasium', 'rich', 'PIL', 'imageio_ffmpeg', 'matplotlib', 'tensorboard'}\n"
        "raise SystemExit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_result_is_plain_data() -> None:
    result = EvaluationResult(np.array([1.0, 3.0]), np.array([10, 20]))
    assert (result.mean_return, result.std_return, result.mean_length) == (2.0, 1.0, 15.0)
    assert evaluation.EvaluationResult is EvaluationResult


# --- the environment of an agent that was given one as an object ---


def evaluated_length(env: Any) -> float:
    agent = TRPO(env, batch_size=64, hidden_sizes=(4,), seed=0)
    try:
        return agent.evaluate(2, seed=0).mean_length
    finally:
        agent.close()


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_one_environment_like_those_of_a_vector_environment(mode: str) -> None:
    env = gymnasium.make_vec(
        "CartPole-v1", num_envs=2, vectorization_mode=mode, max_episode_steps=7
    )
    assert evaluated_length(env) == 7
    if mode == "sync":
        env = gymnasium.make_vec(
            "CartPole-v1",
            num_envs=2,
            vector_kwargs={"copy": False},
            vectorization_mode=mode,
            wrappers=[lambda env: gymnasium.wrappers.TimeLimit(env, 5)],
        )
        assert evaluated_length(env) == 5


def test_an_environment_made_by_gymnasium_is_made_again_with_its_wrappers() -> None:
    env = gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1"), 6)
    assert evaluated_length(env) == 6


@pytest.mark.parametrize(
    "make",
    [
        Countdown,
        lambda: SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")]),
        # it changes what is observed
        lambda: NormalizeObservation(gymnasium.make_vec("CartPole-v1", num_envs=2)),
    ],
    ids=["no spec", "vector without a spec", "vector wrapper"],
)
def test_what_cannot_be_made_again_gets_a_sentence(make: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be made again; pass env="):
        evaluated_length(make())
