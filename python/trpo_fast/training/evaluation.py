"""How good a policy is: whole episodes in an environment of their own, counted or filmed."""

from __future__ import annotations

import math
import operator
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..extras import import_extra

if TYPE_CHECKING:
    from gymnasium import Env

    from ..rollout import InProcessSampler

    Environment: TypeAlias = str | Env[Any, Any] | Callable[[], Env[Any, Any]]

Frame: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), red green blue
_Encoder: TypeAlias = Callable[[Path, Iterator[Frame], float], None]

_LARGEST_RESET_SEED = 2**31  # the most that every environment accepts
_MOST_GIF_FPS = 50.0  # viewers slow down a GIF with shorter delays


class Predictor(Protocol):
    """Whatever acts: an agent, or anything with the ``predict`` of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> tuple[Any, Any]:
        """Return the environment's action for one observation, and None."""


Policy: TypeAlias = Predictor | Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Returns and lengths of n whole episodes.

    The return of an episode is the plain sum of its rewards, neither discounted nor scaled.
    """

    returns: npt.NDArray[np.float64]
    """(n,) sum of the rewards of each episode."""

    lengths: npt.NDArray[np.int64]
    """(n,) steps of each episode."""

    @property
    def mean_return(self) -> float:
        """Mean of the returns."""
        return float(self.returns.mean())

    @property
    def std_return(self) -> float:
        """Standard deviation of the returns over episodes (divided by n, not n - 1)."""
        return float(self.returns.std())

    @property
    def mean_length(self) -> float:
        """Mean of the lengths, in steps."""
        return float(self.lengths.mean())

    def __str__(self) -> str:
        return (
            f"return {self.mean_return:,.2f} ± {self.std_return:,.2f} over {len(self.returns)} "
            f"episodes of {self.mean_length:,.1f} steps"
        )


def evaluate_policy(
    policy: Policy,
    env: Environment | None = None,
    episodes: int = 10,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int | None = None,
) -> EvaluationResult:
    """Run whole episodes; return what they returned.

    One after the other, in this process; an agent whose environments are stepped by worker processes
    shares the episodes out to them where ``env`` is None and ``deterministic`` is True. What they
    return does not depend on it, given a seed.

    Parameters
    ----------
    policy:
        An agent (``predict(observation, deterministic=...)`` gives action and None), or a function
        from an observation to an action.
    env:
        A Gymnasium id (``module:Id`` too), a function that makes an environment, or an
        environment. The first two are made here and closed at the end. An environment is used as
        it is and stays open; it must not be one that a training run is stepping. None takes what
        the agent's ``evaluation_environment()`` gives, or its ``env_name``; workers keep theirs for
        the next evaluation.
    episodes:
        Number of episodes, n >= 1.
    deterministic:
        True: the mode of the policy. False: a sample.
    seed:
        Episode i is reset with a seed of its own drawn from ``seed`` and i, so that it starts
        alike whatever ran before. None: the environment's own choice.
    max_steps:
        An episode is cut after so many steps; None leaves that to the environment.

    Returns
    -------
    EvaluationResult
        ``returns`` (n,) float64, ``lengths`` (n,) int64.

    Raises
    ------
    ValueError
        if a number is out of range, the environment is unknown, or a reward is NaN or infinite.
    TypeError
        if ``policy`` or ``env`` is none of the above.
    EnvironmentFailure
        if a worker ended, or hangs.
    """
    result = _empty_result(episodes, seed, max_steps)
    seeds = dict(enumerate(_episode_seeds(seed, episodes)))
    sharing = None if env is not None else workers_of(policy, deterministic)
    if sharing is not None:
        _run_in_workers(sharing, policy, seeds, max_steps, result)
        return result
    act = _act_function(policy, deterministic)
    with _opened(own_environment(policy) if env is None else env) as environment:
        _run_episodes(act, environment, seeds, max_steps, result)
    return result


def record_video(
    policy: Policy,
    path: str | os.PathLike[str],
    env: Environment | None = None,
    episodes: int = 1,
    *,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int | None = None,
    fps: float | None = None,
) -> EvaluationResult:
    """Film whole episodes, one after the other, into one file.

    The ending of ``path`` chooses the format: ``.mp4`` (H.264; needs imageio-ffmpeg, which brings
    its own ffmpeg) or ``.gif`` (needs Pillow). Both come with the extra ``video``. The file
    appears once it is complete. Frames are encoded as they come, none is kept.

    Parameters
    ----------
    policy, episodes, deterministic, seed, max_steps:
        As in :func:`evaluate_policy`: the same seed films the same episodes.
    path:
        The file to write. Its folder is made if needed; an older file is replaced.
    env:
        As there. An id is made with
        ``render_mode="rgb_array"``; an environment, or a function that makes one, must have it
        already.
    fps:
        Frames per second; None takes the environment's ``render_fps``, or 30. A GIF shows at most
        50: frames are left out.

    Returns
    -------
    EvaluationResult
        What the filmed episodes returned.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if the package for that format is not installed.
    ValueError
        if a number is out of range, the ending is another one, or the environment gives no frames.
    TypeError
        if ``policy`` or ``env`` is none of the above.
    """
    path = Path(path)
    result = _empty_result(episodes, seed, max_steps)
    if fps is not None and not 0.0 < fps < math.inf:
        raise ValueError(f"fps: expected a positive number of frames per second, got {fps}")
    encode = _encoder(path)
    act = _act_function(policy, deterministic)

    def frames(environment: Env[Any, Any]) -> Iterator[Frame]:
        for episode, episode_seed in enumerate(_episode_seeds(seed, episodes)):
            observation, _ = environment.reset(seed=episode_seed)
            yield _frame(environment)
            rewards = _rewards(act, environment, observation, episode)
            for reward in islice(rewards, max_steps):
                result.returns[episode] += reward
                result.lengths[episode] += 1
                yield _frame(environment)

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        source = own_environment(policy, render_mode="rgb_array") if env is None else env
        with _opened(source, render_mode="rgb_array") as environment:
            rate = fps or float(environment.metadata.get("render_fps") or 30.0)
            encode(unfinished, frames(environment), rate)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return result


# ---- episodes


def _run_episodes(
    act: Callable[[Any], Any],
    env: Env[Any, Any],
    seeds: dict[int, int | None],
    max_steps: int | None,
    result: EvaluationResult,
) -> None:
    """Run these episodes, by their numbers, and write what they returned into the result."""
    for episode, seed in seeds.items():
        observation, _ = env.reset(seed=seed)
        for reward in islice(_rewards(act, env, observation, episode), max_steps):
            result.returns[episode] += reward
            result.lengths[episode] += 1


def _rewards(
    act: Callable[[Any], Any], env: Env[Any, Any], observation: Any, episode: int
) -> Iterator[float]:
    """Step from ``observation`` to the end of the episode, yielding the reward of each step."""
    for step in count():
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        if not math.isfinite(reward):
            raise ValueError(
                f"reward: expected a finite number, got {reward} at step {step} of evaluation "
                f"episode {episode}; does the environment fail for some action?"
            )
        yield float(reward)
        if terminated or truncated:
            return


def _episode_seeds(seed: int | None, episodes: int) -> list[int | None]:
    if seed is None:
        return [None] * episodes
    stream = np.random.Generator(np.random.Philox(seed))
    return [int(s) for s in stream.integers(_LARGEST_RESET_SEED, size=episodes)]


def _act_function(policy: Policy, deterministic: bool) -> Callable[[Any], Any]:
    predict = getattr(policy, "predict", None)
    if predict is not None:
        return lambda observation: predict(observation, deterministic=deterministic)[0]
    if callable(policy):
        return policy
    raise TypeError(
        "policy: expected an agent with predict(), or a function from an observation to an "
        f"action, got {type(policy).__name__}"
    )


def _empty_result(episodes: int, seed: int | None, max_steps: int | None) -> EvaluationResult:
    _check("episodes", episodes, 1)
    if seed is not None:
        _check("seed", seed, 0)
    if max_steps is not None:
        _check("max_steps", max_steps, 1)
    return EvaluationResult(np.zeros(episodes, np.float64), np.zeros(episodes, np.int64))


def _check(name: str, value: int, least: int) -> None:
    try:
        wrong = isinstance(value, bool) or operator.index(value) < least
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")


# ---- in worker processes


class _Workers(Protocol):
    """A sampler with worker processes."""

    n_workers: int

    def map_groups(self, function: Any, arguments: Any = None, *, name: str = ...) -> list[Any]:
        """Call the function in every worker."""


@dataclass(frozen=True)
class _Share:
    """The episodes that one worker runs, and whose policy acts in them."""

    make: Any  # what `make_environment` takes
    parameters: npt.NDArray[Any]
    normalizer: Any  # None, or mean, variance, clip and epsilon
    seeds: dict[int, int | None]
    episodes: int  # of all workers
    max_steps: int | None


def workers_of(agent: Any, deterministic: bool) -> _Workers | None:
    """The sampler whose workers run an agent's evaluations, if they do.

    Not where actions are drawn: their random numbers come one after the other in this process.
    """
    workers: _Workers | None = getattr(agent, "evaluation_workers", None)
    return workers if deterministic else None


def _run_in_workers(
    workers: _Workers,
    agent: Any,
    seeds: dict[int, int | None],
    max_steps: int | None,
    result: EvaluationResult,
) -> None:
    """Deal the episodes out, and put together what the workers found."""
    n, policy, source = workers.n_workers, agent.policy, own_environment(agent)
    shares = [
        _Share(
            make=source,
            parameters=policy.parameters,
            normalizer=policy.normalizer,
            seeds=dict(islice(seeds.items(), w, None, n)),
            episodes=len(seeds),
            max_steps=max_steps,
        )
        for w in range(n)
    ]
    for share, found in zip(
        shares, workers.map_groups(_run_share, shares, name="evaluation"), strict=True
    ):
        which = list(share.seeds)
        result.returns[which] = found.returns[which]
        result.lengths[which] = found.lengths[which]


def _run_share(sampler: InProcessSampler, share: _Share) -> EvaluationResult:
    """Inside a worker: its episodes, in an environment beside those that it trains in."""
    result = _empty_result(share.episodes, None, share.max_steps)
    if not share.seeds:
        return result
    policy: Any = sampler.policy
    encoder = sampler.observation_encoder
    to_env = sampler.action_adapter.step_converter(1, policy.dtype)
    policy.parameters = share.parameters
    if share.normalizer is None:
        policy.clear_normalizer()
    else:
        policy.set_normalizer(**vars(share.normalizer))

    def act(observation: Any) -> Any:
        sampler.show_life()
        action = policy.act_one(observation, deterministic=True) if encoder.is_plain else None
        if action is None:
            rows, _ = encoder.encode_any(observation)
            if not np.isfinite(rows).all():
                raise ValueError("observation: expected finite numbers, got NaN or infinity.")
            action = policy.act(rows, deterministic=True)
        return to_env(action)[0]

    with sampler.spare_environment(share.make) as environment:
        _run_episodes(act, environment, share.seeds, share.max_steps, result)
    return result


# ---- environments


def own_environment(agent: Any, **rendering: str) -> Environment:
    """What to evaluate an agent in: another one of the environments that it was made for.

    Raises
    ------
    TypeError
        if it does not tell which.
    """
    make = getattr(agent, "evaluation_environment", None)
    environment: Environment = make(**rendering) if make is not None else _own_name(agent)
    return environment


def _own_name(agent: Any) -> str:
    name = getattr(agent, "env_name", None)
    if not isinstance(name, str):
        raise TypeError(
            f"env: expected an environment, got None, and {type(agent).__name__} has no env_name; "
            "pass a Gymnasium id, an environment or a function that makes one"
        )
    return name


@contextmanager
def _opened(env: Environment, **settings: Any) -> Iterator[Env[Any, Any]]:
    """Make the environment and close it again; one that exists already is left open."""
    from ..envs import make_environment

    environment = (
        make_environment(env, **settings) if isinstance(env, str) else make_environment(env)
    )
    try:
        yield environment
    finally:
        if environment is not env:
            environment.close()


# ---- films


def _frame(env: Env[Any, Any]) -> Frame:
    frame = env.render()
    if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3):
        got = f"an array of shape {frame.shape}" if isinstance(frame, np.ndarray) else repr(frame)
        raise ValueError(
            f"env: expected frames of shape (height, width, 3) from render(), got {got}; make the "
            'environment with render_mode="rgb_array"'
        )
    return np.ascontiguousarray(frame, dtype=np.uint8)


def _encoder(path: Path) -> _Encoder:
    """Choose by the ending of the path; a missing package is noticed before anything is run."""
    what = f"Writing {path.name}"
    if path.suffix.lower() == ".mp4":
        ffmpeg = import_extra("imageio_ffmpeg", what=what, extra="video", package="imageio-ffmpeg")
        return lambda file, frames, fps: _write_mp4(ffmpeg, file, frames, fps)
    if path.suffix.lower() == ".gif":
        image = import_extra("PIL.Image", what=what, extra="video", package="Pillow")
        return lambda file, frames, fps: _write_gif(image, file, frames, fps)
    raise ValueError(f"path: expected a file name ending in .mp4 or .gif, got {os.fspath(path)!r}")


def _write_mp4(ffmpeg: Any, path: Path, frames: Iterator[Frame], fps: float) -> None:
    frames = map(_even_sides, frames)  # H.264 halves the resolution of colour
    first = next(frames)
    height, width, _ = first.shape
    writer = ffmpeg.write_frames(
        os.fspath(path), (width, height), fps=fps, quality=8, macro_block_size=2
    )
    writer.send(None)
    try:
        for frame in chain([first], frames):
            writer.send(frame)
    finally:
        writer.close()


def _even_sides(frame: Frame) -> Frame:
    height, width, _ = frame.shape
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(image: Any, path: Path, frames: Iterator[Frame], fps: float) -> None:
    every = math.ceil(fps / _MOST_GIF_FPS)
    pictures = map(image.fromarray, islice(frames, 0, None, every))
    next(pictures).save(
        path,
        save_all=True,
        append_images=pictures,
        duration=round(1000.0 * every / fps),  # milliseconds a frame
        loop=0,  # for ever
    )
