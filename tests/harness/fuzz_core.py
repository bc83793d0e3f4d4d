"""Every function of trpo_fast.core with arrays of all shapes, types, layouts and magnitudes.

    python tests/harness/fuzz_core.py --cases 50000

A case draws a function and good arguments, and then does one of four things to them:

layout   other strides, types and containers with the same numbers: the same bits must come out, and
         for numbers of usual size what the slow float64 reference says;
extreme  NaN, infinities, denormals and huge numbers: a ValueError, or an answer in which what is
         broken stays visible and what does not depend on it stays right;
wrong    one argument that cannot be meant: a ValueError or TypeError, one sentence with "expected";
option   one setting replaced by something odd: refused, or the promises hold all the same.

Parameters stay finite whatever happens, refused calls leave every object as it was, and no input is
written to. Crashes and hangs are seen from outside.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "support"))

from harness.fuzz_constructors import check_sentence, constructor_case
from harness.fuzz_inputs import ODD_OPTIONS, Array, Rng, extreme, other_layout, wrong_value
from harness.fuzz_parts import TARGETS, adam_bits
from harness.fuzz_policy import Target
from harness.supervise import Outcome, run_cases, supervise


def clean_of(target: Target, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Contiguous arrays of the type that the core uses, made by NumPy alone."""
    result = {}
    for name, value in arrays.items():
        dtype = target.dtypes.get(name, np.dtype(np.float64))
        array = np.asarray(value)
        if dtype is None:  # float32 stays what it is
            dtype = np.dtype(np.float32 if array.dtype == np.float32 else np.float64)
        result[name] = np.array(array, dtype=dtype, order="C")
    return result


def bits(result: Any) -> bytes:
    if isinstance(result, tuple):
        return b"".join(bits(item) for item in result)
    if isinstance(result, np.ndarray):
        return bytes(f"{result.dtype.str}{result.shape}", "ascii") + result.tobytes()
    if isinstance(result, float):
        return np.float64(result).tobytes()
    values = {k: v for k, v in vars(result).items() if not k.startswith("seconds")}
    return repr(
        [(k, v.tolist() if isinstance(v, np.ndarray) else v) for k, v in values.items()]
    ).encode()


def frozen_bits(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, (np.ndarray, memoryview)) else b""


def owner_bits(target: Target) -> bytes:
    return target.owner.parameters.tobytes() if target.owner is not None else b""


def call_and_check(target: Target, arrays: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    inputs = {name: frozen_bits(value) for name, value in arrays.items()}
    before = owner_bits(target)
    try:
        return target.call(**arrays, **options)
    except (ValueError, TypeError):
        assert owner_bits(target) == before, "a refused call has changed the parameters"
        raise
    finally:
        for name, value in arrays.items():
            assert frozen_bits(value) == inputs[name], f"{name} has been written to"
        if target.owner is not None:
            assert np.isfinite(target.owner.parameters).all(), "parameters are not finite"
            if not target.changes_owner:
                assert owner_bits(target) == before, "the parameters have changed"


def case_of(seed: int) -> Callable[[int], str]:
    def case(i: int) -> str:
        rng = np.random.default_rng([seed, i])
        if rng.random() < 0.15:
            return constructor_case(rng)
        target = TARGETS[rng.integers(len(TARGETS))](rng)
        modes = {"layout": layout_case, "extreme": extreme_case, "wrong": wrong_case,
                 "option": option_case}  # fmt: skip
        mode = str(rng.choice(["layout", "layout", "extreme", "extreme", "wrong", "option"]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy about casts
                return modes[mode](rng, target)
        except Exception as error:
            error.args = (f"{mode} {target.name}: {error}",)
            raise

    return case


def layout_case(rng: Rng, target: Target) -> str:
    arrays = {name: other_layout(rng, array) for name, array in target.arrays.items()}
    clean = clean_of(target, arrays)
    start = target.owner.parameters if target.owner is not None else None
    state = adam_bits(target.owner) if target.changes_owner else None
    one = call_and_check(target, arrays, target.options)
    if start is not None and target.changes_owner:
        if adam_bits(target.owner) != state:
            return "answered"  # the moments have moved on: no second call is the same
        target.owner.parameters = start
    two = call_and_check(target, clean, target.options)
    assert bits(one) == bits(two), "another layout gives other bits"
    if target.reference is not None:
        target.reference(one, clean)
    return "answered"


def extreme_case(rng: Rng, target: Target) -> str:
    names = [n for n, array in target.arrays.items() if array.dtype.kind == "f"]
    chosen = [n for n in names if rng.random() < 0.5] or names[:1]
    arrays = dict(target.arrays)
    for name in chosen:
        arrays[name] = extreme(rng, target.arrays[name])
    before = owner_bits(target)
    try:
        result = call_and_check(target, arrays, target.options)
    except ValueError as error:
        check_sentence(error)
        return "refused"
    if target.promise is not None:
        target.promise(result, clean_of(target, arrays), before)
    return "answered"


def wrong_case(rng: Rng, target: Target) -> str:
    name = str(rng.choice(list(target.arrays)))
    arrays = {**target.arrays, name: wrong_value(rng, target.arrays[name])}
    optional = (None, "old_parameters", "envs", "steps", "actions")
    try:
        call_and_check(target, arrays, target.options)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    value = arrays[name]
    if name == "b" and np.ndim(value) == 1 and not np.any(value):
        return "answered"  # nothing to solve, of any length
    if value is None and name in optional:
        return "answered"
    shown = f"{type(value).__name__} {getattr(value, 'shape', value)!s:.80}"
    dtype = getattr(value, "dtype", None)
    if name == "actions" and np.shape(value) == np.shape(target.arrays[name])[:1]:
        return "answered"  # (N,) is understood where actions are (N, 1)
    if name == "actions" and np.shape(value) == (*np.shape(target.arrays[name])[:-1], 0):
        raise AssertionError("actions without a column accepted")
    if name == "batch" and np.ndim(value) == 2 and np.size(value) == 0:
        return "answered"  # no rows
    raise AssertionError(f"{name}: accepted {shown} {dtype}")


def option_case(rng: Rng, target: Target) -> str:
    if not target.options:
        return layout_case(rng, target)
    name = str(rng.choice(list(target.options)))
    value = ODD_OPTIONS[rng.integers(len(ODD_OPTIONS))]
    if name in ("epochs", "iterations", "max_iterations", "cg_iterations", "max_backtracks"):
        if isinstance(value, int) and 1000 < value < 2**31:
            return "skipped"  # what was asked for would take long
        if isinstance(value, int) and value == 2**31 - 1:
            return "skipped"
    options = {**target.options, name: value}
    before = owner_bits(target)
    try:
        result = call_and_check(target, target.arrays, options)
    except (ValueError, TypeError) as error:
        check_sentence(error)
        return "refused"
    if target.promise is not None:
        target.promise(result, clean_of(target, target.arrays), before)
    return "answered"


def fuzz(cases: int, seed: int = 0, first: int = 0) -> Outcome:
    """Run the cases in child processes."""
    return supervise([str(Path(__file__).resolve())], first=first, cases=cases, seed=seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case = case_of(options.seed)
        run_cases(Path(options.child), case, first=options.first, cases=options.cases)
        return 0
    outcome = fuzz(options.cases, options.seed, options.first)
    if not outcome.good:
        print(outcome.details())
    print(outcome.summary("core fuzzer"))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
