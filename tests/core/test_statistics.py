"""Running mean and variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from cases import DTYPES, assert_close, normals
from trpo_fast import core


@given(
    st.integers(1, 20),
    st.lists(st.integers(1, 700), min_size=1, max_size=4),
    st.sampled_from([0.0, 3.0, 1e6]),
    st.sampled_from(DTYPES),
)
def test_moments_of_everything_seen(dim: int, sizes: list[int], offset: float, dtype: str) -> None:
    batches = [(normals(i, n, dim) + offset).astype(dtype) for i, n in enumerate(sizes)]
    statistics = core.RunningStatistics(dim)
    for batch in batches:
        statistics.update(batch)
    count, mean, variance = reference.running_moments(batches)
    assert statistics.count == count
    assert_close(statistics.mean, mean, 1e-12)
    # the mean of 1e6 itself rounds to 1e-10, which is what its square adds to the variance
    assert_close(statistics.variance, variance, 1e-9, scale=max(1.0, float(variance.max())))


def test_one_batch_or_many_small_ones() -> None:
    data = normals(1, 1000, 5) * 10.0 + 1000.0
    once, often = core.RunningStatistics(5), core.RunningStatistics(5)
    once.update(data)
    for row in data:
        often.update(row[None])
    assert_close(often.mean, once.mean, 1e-13)
    assert_close(often.variance, once.variance, 1e-9)
    assert_close(once.variance, data.var(axis=0), 1e-12)


def test_before_anything_was_seen_it_normalises_nothing() -> None:
    statistics = core.RunningStatistics(3)
    assert statistics.count == 0.0
    assert statistics.mean.tolist() == [0.0] * 3
    assert statistics.variance.tolist() == [1.0] * 3


def test_one_row_and_constant_columns() -> None:
    statistics = core.RunningStatistics(2)
    statistics.update(np.array([[3.0, -1.0]]))
    assert statistics.mean.tolist() == [3.0, -1.0]
    assert statistics.variance.tolist() == [0.0, 0.0]
    for _ in range(100):
        statistics.update(np.tile([3.0, -1.0], (37, 1)))
    assert statistics.mean.tolist() == [3.0, -1.0]
    assert statistics.variance.tolist() == [0.0, 0.0]


def test_state_is_restored_bit_for_bit() -> None:
    statistics = core.RunningStatistics(4)
    statistics.update(normals(2, 300, 4))
    state = statistics.state_dict()
    restored = core.RunningStatistics(4)
    restored.load_state_dict(state)
    for s in (statistics, restored):
        s.update(normals(3, 77, 4))
    assert statistics.count == restored.count
    assert np.array_equal(statistics.mean, restored.mean)
    assert np.array_equal(statistics.variance, restored.variance)
    # the state taken before did not change with the statistics
    assert state["count"].item() == 300.0


def test_returned_arrays_are_copies() -> None:
    statistics = core.RunningStatistics(2)
    statistics.update(normals(4, 10, 2))
    mean = statistics.mean
    statistics.mean[:] = 99.0
    statistics.variance[:] = 99.0
    assert np.array_equal(statistics.mean, mean)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_is_refused_and_nothing_is_lost(bad: float) -> None:
    statistics = core.RunningStatistics(2)
    statistics.update(normals(5, 10, 2))
    before = statistics.state_dict()
    batch = normals(6, 5, 2)
    batch[3, 1] = bad
    with pytest.raises(ValueError, match="batch"):
        statistics.update(batch)
    after = statistics.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_strided_batches() -> None:
    data = normals(7, 40, 6)
    for view in (data[::2], data[:, ::2], data.T[:3].T, np.asfortranarray(data)):
        statistics, plain = (core.RunningStatistics(view.shape[1]) for _ in range(2))
        statistics.update(view)
        plain.update(np.ascontiguousarray(view))
        assert np.array_equal(statistics.mean, plain.mean)
        assert np.array_equal(statistics.variance, plain.variance)


def test_an_empty_batch_changes_nothing() -> None:
    statistics = core.RunningStatistics(2)
    statistics.update(normals(8, 10, 2))
    mean = statistics.mean
    statistics.update(np.zeros((0, 2)))
    assert statistics.count == 10.0
    assert np.array_equal(statistics.mean, mean)
