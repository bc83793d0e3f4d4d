"""Fixtures of the tests of rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from left_behind import abandoned_memory, children, shared_memory


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No child, open file or shared memory outlives the test."""
    if not Path("/proc/self/task").exists():
        yield
        return
    memory = shared_memory()
    before = (children(), len(list(Path("/proc/self/fd").iterdir())))
    yield
    after = (children(), len(list(Path("/proc/self/fd").iterdir())))
    assert after == before
    assert not abandoned_memory(memory)
