"""The counter-based random stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from trpo_fast import core

uint64, uint32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)


@given(uint64, uint32, uint64, st.integers(0, 40))
def test_uniforms_are_those_of_the_reference_bit_for_bit(seed, env, step, n) -> None:
    expected = reference.random_uniforms(seed, env, step, n)
    values = core.random_uniforms(seed, env, step, n)
    assert values.dtype == np.float64
    assert np.array_equal(values, expected)


@given(uint64, uint32, uint64, st.integers(0, 40))
def test_normals_are_those_of_the_reference(seed, env, step, n) -> None:
    expected = reference.random_normals(seed, env, step, n)
    values = core.random_normals(seed, env, step, n)
    assert values.shape == (n,)
    # libraries differ in the last places of log, sin and cos
    assert np.allclose(values, expected, rtol=1e-12, atol=1e-14)


def test_known_answer() -> None:
    """Counter and key zero: the authors' known block 6627e8d5 e169c58d bc57ac4c 9b00dbd8."""
    first = ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53
    second = ((0xBC57AC4C >> 5) * 2**26 + (0x9B00DBD8 >> 6)) / 2**53
    assert core.random_uniforms(0, 0, 0, 2).tolist() == [first, second]


def test_a_longer_draw_starts_with_the_shorter() -> None:
    for draw in (core.random_uniforms, core.random_normals):
        long = draw(3, 1, 4, 101)
        for n in (0, 1, 2, 7, 100):
            assert np.array_equal(draw(3, 1, 4, n), long[:n])


def test_every_coordinate_of_the_stream_counts() -> None:
    base = (5, 6, 7)
    streams = [base, (5 + 2**32, 6, 7), (4, 6, 7), (5, 7, 7), (5, 6, 8), (5, 6, 7 + 2**32)]
    firsts = {core.random_uniforms(*s, 1).item() for s in streams}
    assert len(firsts) == len(streams)


@pytest.mark.parametrize("along", ["draw", "env", "step", "seed"])
def test_moments_and_independence_along_every_axis(along: str) -> None:
    """4,000 numbers: mean, deviation, and correlation of neighbours within 4.5 standard errors."""
    n = 4000
    if along == "draw":
        u, z = core.random_uniforms(1, 2, 3, n), core.random_normals(1, 2, 3, n)
    else:
        at = {"env": lambda i: (1, i, 3), "step": lambda i: (1, 2, i), "seed": lambda i: (i, 2, 3)}
        place = at[along]
        u = np.array([core.random_uniforms(*place(i), 1)[0] for i in range(n)])
        z = np.array([core.random_normals(*place(i), 1)[0] for i in range(n)])
    assert (u >= 0.0).all()
    assert (u < 1.0).all()
    error = 4.5 / np.sqrt(n)
    assert abs(u.mean() - 0.5) < error * np.sqrt(1.0 / 12.0)
    assert abs((u**2).mean() - 1.0 / 3.0) < error * np.sqrt(4.0 / 45.0)
    assert abs(z.mean()) < error
    assert abs((z**2).mean() - 1.0) < error * np.sqrt(2.0)
    assert abs((z**4).mean() - 3.0) < error * np.sqrt(96.0)
    assert abs((z[1:] * z[:-1]).mean()) < error
    counts = np.histogram(u, bins=20, range=(0.0, 1.0))[0]
    chi_square = float(((counts - n / 20) ** 2 / (n / 20)).sum())
    assert chi_square < 50.0  # 19 degrees of freedom: probability 1e-4


@pytest.mark.parametrize("draw", [core.random_uniforms, core.random_normals])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1, 0, 0, 1), "seed"),
        ((2**64, 0, 0, 1), "seed"),
        ((0, -1, 0, 1), "env"),
        ((0, 2**32, 0, 1), "env"),
        ((0, 0, -1, 1), "step"),
        ((0, 0, 2**64, 1), "step"),
        ((0, 0, 0, -1), "n"),
        ((0.5, 0, 0, 1), "seed"),
        ((0, 0, 0, 1.5), "n"),
        (("a", 0, 0, 1), "seed"),
    ],
)
def test_coordinates_out_of_range(draw, arguments, name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        draw(*arguments)
