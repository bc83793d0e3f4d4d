"""Objects and streams of the core, made with odd arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.fuzz_inputs import ODD_OPTIONS, Rng
from trpo_fast import core


def check_sentence(error: Exception) -> None:
    message = str(error)
    assert "\n" not in message.strip(), f"not one sentence: {message!r}"
    assert 15 < len(message) < 600, f"not a sentence: {message!r}"
    assert "expected" in message, f"does not say what was expected: {message!r}"
    assert "incompatible" not in message, f"pybind11's own words: {message!r}"


def constructor_case(rng: Rng) -> str:
    """Objects and streams made with odd arguments."""

    def odd() -> Any:
        return ODD_OPTIONS[rng.integers(len(ODD_OPTIONS))]

    def small(value: Any) -> bool:
        return not (isinstance(value, int) and 2**12 < value <= 2**40)  # memory is not the subject

    head = core.Distribution("gaussian", (2,))
    calls: list[Callable[[Any], Any]] = [
        lambda o: core.random_normals(o, 0, 0, 5),
        lambda o: core.random_normals(0, o, 0, 5),
        lambda o: core.random_uniforms(0, 0, o, 5),
        lambda o: core.random_uniforms(0, 0, 0, o),
        lambda o: core.RunningStatistics(o),
        lambda o: core.Distribution(o, (2,)),
        lambda o: core.Distribution("categorical", o),
        lambda o: core.Distribution("multi_categorical", (2, o)),
        lambda o: core.Policy(o, head),
        lambda o: core.Policy(2, o),
        lambda o: core.Policy(2, head, hidden_sizes=o),
        lambda o: core.Policy(2, head, hidden_sizes=(3, o)),
        lambda o: core.Policy(2, head, activation=o),
        lambda o: core.Policy(2, head, dtype=o),
        lambda o: core.Policy(2, head, initial_log_std=o),
        lambda o: core.Policy(2, head, hidden_gain=o),
        lambda o: core.Policy(2, head, output_gain=o),
        lambda o: core.Policy(2, head, seed=o),
        lambda o: core.ValueFunction(o),
        lambda o: core.ValueFunction(2, output_gain=o),
        lambda o: core.ValueFunction(2, hidden_sizes=o),
        lambda o: core.RunningStatistics(2).load_state_dict(o),
        lambda o: core.RunningStatistics(2).load_state_dict(
            {"count": [o], "mean": [0.0, o], "m2": [1.0, 1.0]}
        ),
        lambda o: core.ValueFunction(2).load_optimizer_state(o),
        lambda o: core.conjugate_gradient(o, [1.0]),
        lambda o: core.conjugate_gradient(lambda v: o, [1.0, 2.0]),
        lambda o: actor(o),
    ]

    def actor(o: Any) -> Any:
        policy = core.Policy(2, head)
        arrays = {
            "observations": np.zeros((4, 3, 2), np.float32),
            "actions": np.zeros((4, 3, 2), np.float32),
            "counters": np.zeros(3, np.uint64),
            "envs": np.arange(3, dtype=np.uint32),
        }
        name = str(rng.choice([*arrays, "t", "none"]))
        if name in arrays:
            array = arrays[name]
            arrays[name] = [
                array.astype("f8"), array[::-1], np.asfortranarray(array), array[:-1], o,
                array.tolist(), np.broadcast_to(array[:1], array.shape),
            ][rng.integers(7)]  # fmt: skip
        step = policy.actor(**arrays, seed=1).step
        try:
            step(o if name == "t" else 3)
        except (IndexError, TypeError):  # an index, handed on as it is: no check in Python a step
            raise ValueError("t: expected an index") from None

    call, value = calls[rng.integers(len(calls))], odd()
    if not small(value):
        return "skipped"
    try:
        made = call(value)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    if hasattr(made, "parameters"):
        assert np.isfinite(made.parameters).all(), "parameters are not finite"
    return "answered"
