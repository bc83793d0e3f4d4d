"""Videos of whole episodes."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..envs.errors import error_sentence
from ..envs.interface import describe
from ..extras import import_extra
from ..logging import file_to_replace
from .episodes import (
    EvaluationResult,
    Policy,
    act_function,
    empty_result,
    episode_seeds,
    play,
    step_limit,
)
from .evaluation import opened, own_environment, refuse_training_environment

if TYPE_CHECKING:
    from gymnasium import Env

    from .evaluation import Environment

Frame: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), red green blue
_Encoder: TypeAlias = Callable[[Path, Iterator[Frame], float], None]

_MOST_GIF_FPS = 50.0  # viewers slow down a GIF with shorter delays


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
    policy
        As in `evaluate_policy`.
    path
        The file to write. Its folder is made if needed; an older file is replaced.
    env
        As in `evaluate_policy`. An id is made with ``render_mode="rgb_array"``; an environment, or a
        function that makes one, must have it already.
    episodes, deterministic, seed, max_steps
        As in `evaluate_policy`: the same seed films the same episodes.
    fps
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
    RuntimeError
        if the environment draws with OpenGL and there is neither a display nor a renderer without one.
    TypeError
        if ``policy`` or ``env`` is none of the above.
    """
    path = file_to_replace(path)
    result = empty_result(episodes, seed, max_steps)
    if fps is not None and not 0.0 < fps < math.inf:
        raise ValueError(f"fps: expected a positive number of frames per second, got {fps}")
    encode = _encoder(path)
    act = act_function(policy, deterministic)
    refuse_training_environment(policy, env)

    def frames(environment: Env[Any, Any]) -> Iterator[Frame]:
        for episode, episode_seed in enumerate(episode_seeds(seed, episodes)):
            for _ in play(act, environment, episode, episode_seed, result):
                yield _frame(environment)

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        name = env if env is not None else getattr(policy, "env_name", None)
        if isinstance(name, str):
            require_pictures(name)
        source = own_environment(policy, render_mode="rgb_array") if env is None else env
        with opened(source, policy, render_mode="rgb_array") as environment:
            result = replace(result, max_steps=step_limit(max_steps, environment, policy))
            rate = fps or float((environment.metadata or {}).get("render_fps") or 30.0)
            encode(unfinished, _of_one_size(frames(environment)), rate)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return result


def _frame(env: Env[Any, Any]) -> Frame:
    try:
        frame = env.render()
    except (AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"env: expected render() to give frames, got {error_sentence(error)}; the environment "
            'must be one with render_mode="rgb_array"'
        ) from error
    except Exception as error:
        if "OpenGL" not in str(error):
            raise
        raise RuntimeError(
            "env: expected a display or a renderer without one, got no OpenGL context; set "
            "MUJOCO_GL=egl or MUJOCO_GL=osmesa before the environment is made"
        ) from error
    if isinstance(frame, (list, tuple)) and frame:
        frame = frame[-1]  # render modes whose names end in _list give the frames so far
    if isinstance(frame, np.ndarray) and frame.ndim == 2:
        frame = np.repeat(frame[..., np.newaxis], 3, axis=2)  # grey
    if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] in (3, 4)):
        mode = getattr(env, "render_mode", None)
        made = f" (it was made with render_mode={mode!r})" if mode != "rgb_array" else ""
        raise ValueError(
            "env: expected frames of shape (height, width, 3) or (height, width, 4) from render(), "
            f'got {describe(frame)}{made}; make the environment with render_mode="rgb_array"'
        )
    if frame.dtype.kind == "f":
        if not (float(np.min(frame)) >= 0.0 and float(np.max(frame)) <= 1.0):
            raise ValueError(
                "env: expected frames of numbers from 0 to 255, or of floats from 0 to 1, got "
                f"{describe(frame)} from {np.min(frame):g} to {np.max(frame):g}"
            )
        frame = np.rint(255.0 * frame)
    return np.ascontiguousarray(frame[..., :3], dtype=np.uint8)  # without a channel of opacity


def _of_one_size(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames; ValueError where one has another size than the first."""
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(
                f"env: expected frames of one size, got {shape[0]} x {shape[1]} pixels first and "
                f"{frame.shape[0]} x {frame.shape[1]} later; a film has one size"
            )
        yield frame


def require_encoder(path: str | os.PathLike[str]) -> None:
    """Raise if no video can be written to a path: another ending, or a missing package.

    Parameters
    ----------
    path
        Ends in .mp4 or .gif.

    Raises
    ------
    MissingExtraError
        (an ``ImportError``) if the package for that format is not installed.
    ValueError
        If the ending is another one.
    """
    _encoder(Path(path))


def require_pictures(env_id: str) -> None:
    """Raise if the metadata of an environment's class say that it has no rgb_array pictures.

    Parameters
    ----------
    env_id
        A Gymnasium id. One that is not registered, or not by a class, is left to be tried.

    Raises
    ------
    ValueError
        If there are none.
    """
    import gymnasium

    registered = gymnasium.registry.get(env_id.rpartition(":")[2])
    if registered is None or registered.entry_point is None:
        return
    try:
        creator: Any = registered.entry_point
        if isinstance(creator, str):
            creator = gymnasium.envs.registration.load_env_creator(creator)
    except (ImportError, AttributeError):
        return  # the environment's own error says more
    modes = (getattr(creator, "metadata", None) or {}).get("render_modes")
    if modes is not None and "rgb_array" not in modes:
        raise ValueError(
            f"video: expected the render mode rgb_array in the metadata of {env_id}, got "
            f"{list(modes)}; it gives no pictures that could be filmed"
        )


def _encoder(path: Path) -> _Encoder:
    """Choose the encoder by the ending of the path; raises if its package is not installed."""
    what = f"Writing {path.name}"
    if path.suffix.lower() == ".mp4":
        ffmpeg = import_extra("imageio_ffmpeg", what=what, extra="video", package="imageio-ffmpeg")
        return lambda file, frames, fps: _write_mp4(ffmpeg, file, frames, fps)
    if path.suffix.lower() == ".gif":
        image = import_extra("PIL.Image", what=what, extra="video", package="Pillow")
        return lambda file, frames, fps: _write_gif(image, file, frames, fps)
    raise ValueError(f"path: expected a file name ending in .mp4 or .gif, got {os.fspath(path)!r}")


def _write_mp4(ffmpeg: Any, path: Path, frames: Iterator[Frame], fps: float) -> None:
    frames = map(_even_sides, frames)  # H.264 stores colour at half the resolution
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
