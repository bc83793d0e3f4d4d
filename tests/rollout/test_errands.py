"""The thread of an actor that steps its environments, and the bytes of a message."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from trpo_fast.rollout.cluster.block import packed, unpacked
from trpo_fast.rollout.cluster.errands import Errands


def test_errands_are_done_one_after_the_other_in_one_thread() -> None:
    errands, order = Errands("test"), []

    def work(i: int) -> int:
        order.append(i)
        return threading.get_ident()

    begun = [errands.submit(lambda i=i: work(i)) for i in range(20)]
    assert all(errand.wait(10.0) for errand in begun)
    assert order == list(range(20))
    assert {errand.result() for errand in begun} != {threading.get_ident()}
    assert len({errand.result() for errand in begun}) == 1


def test_an_errand_that_hangs_is_seen_and_the_next_one_waits() -> None:
    errands, gate = Errands("test"), threading.Event()

    def hang() -> str:
        gate.wait()
        return "late"

    first, second = errands.submit(hang), errands.submit(lambda: "next")
    assert not first.wait(0.05)
    assert "in hang" in errands.stack()
    assert not second.wait(0.0)
    gate.set()
    assert second.wait(10.0)
    assert second.result() == "next"
    assert first.wait(0.0)
    assert first.result() == "late"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_what_an_errand_raises_is_raised_where_its_result_is_asked_for(
    error: BaseException,
) -> None:
    def work() -> None:
        raise error

    errands = Errands("test")
    errand = errands.submit(work)
    assert errand.wait(10.0)
    with pytest.raises(type(error)) as raised:
        errand.result()
    assert raised.value is error
    later = errands.submit(lambda: 1)  # the thread goes on
    assert later.wait(10.0)
    assert later.result() == 1


@pytest.mark.parametrize(("n", "is_bytes"), [(8_192, True), (8_193, False)])
def test_small_arrays_travel_as_bytes_and_large_ones_as_they_are(n: int, is_bytes: bool) -> None:
    array = np.arange(float(n))
    sent = packed(("result", {"a": array}), [array])
    assert isinstance(sent, bytes) is is_bytes
    kind, arrays = unpacked(sent)
    assert kind == "result"
    np.testing.assert_array_equal(arrays["a"], array)
