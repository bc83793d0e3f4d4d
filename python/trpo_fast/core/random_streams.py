"""Counter-based random streams: one for every (seed, environment, step)."""

from __future__ import annotations

from .. import _core
from .checks import Float64, integer, stream_numbers


def random_normals(seed: int, env: int, step: int, n: int) -> Float64:
    """First ``n`` standard normals of the stream (seed, env, step). Philox4x32-10, Box-Muller.

    Parameters
    ----------
    seed
        In [0, 2**64).
    env
        In [0, 2**32).
    step
        In [0, 2**64).
    n
        How many numbers, 0 or more.
    """
    return _core.normals(*stream_numbers(seed, env, step), integer("n", n, 0, 2**31 - 1))


def random_uniforms(seed: int, env: int, step: int, n: int) -> Float64:
    """First ``n`` uniforms in [0, 1) of the stream (seed, env, step), 53 bits each.

    Parameters
    ----------
    seed
        In [0, 2**64).
    env
        In [0, 2**32).
    step
        In [0, 2**64).
    n
        How many numbers, 0 or more.
    """
    return _core.uniforms(*stream_numbers(seed, env, step), integer("n", n, 0, 2**31 - 1))
