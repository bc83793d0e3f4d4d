"""Short forms of the fuzzers in tests/harness, and odd settings from files, flags and checkpoints."""

from __future__ import annotations

import contextlib
import copy
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import fuzz_checkpoint, fuzz_core, fuzz_inputs
from trpo_fast import TRPO, TRPOConfig
from trpo_fast.checkpoint import CheckpointError, load_checkpoint
from trpo_fast.cli.arguments import Train, parse
from trpo_fast.cli.output import UsageError
from trpo_fast.config import ConfigError, field_names
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.run_folder import RunFolder, RunFolderError

STORED = Path(__file__).parents[1] / "training" / "data" / "checkpoint_schema_1.safetensors"


def one_sentence(error: Exception) -> None:
    text = str(error)
    assert "\n" not in text, text
    assert 15 < len(text) < 1000, text


def test_checkpoint_loader() -> None:
    outcome = fuzz_checkpoint.fuzz(3_000, seed=1)
    assert outcome.good, outcome.details()
    assert outcome.cases == 3_000
    assert outcome.peak_megabytes < 500


def test_core() -> None:
    outcome = fuzz_core.fuzz(4_000, seed=1)
    assert outcome.good, outcome.details()
    assert outcome.cases == 4_000


# ---- settings

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from([2**31, 2**63, 2**64, 10**30, 1e-300, 1e300, "tanh", "adam", "float64"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*field_names(), "gama", ""]), JSON, min_size=1, max_size=3))
def test_configuration_from_a_file(values: dict[str, Any]) -> None:
    try:
        config = TRPOConfig.from_dict(values)
    except (ConfigError, TypeError) as error:
        one_sentence(error)
        return
    # what was accepted comes back the same
    assert TRPOConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@settings(max_examples=60)
@given(
    flag=st.sampled_from([f"--{name.replace('_', '-')}" for name in field_names()]),
    text=st.one_of(
        st.text(max_size=6),
        st.floats().map(str),
        st.integers().map(str),
        st.sampled_from(
            ["1e400", "-", "--", "0x10", "1_000", "None", "nan", "1e3", "٣", "[]", "{}"]
        ),
    ),
)
def test_configuration_from_a_flag(flag: str, text: str) -> None:
    status: Any = 0
    try:
        command = parse(["train", "CartPole-v1", flag, text])
        assert isinstance(command, Train)
        TRPOConfig.from_dict(command.config.to_dict())
    except SystemExit as exit_:
        status = exit_.code
    except (ConfigError, UsageError) as error:
        one_sentence(error)
    assert status in (0, 2)


@settings(max_examples=60)
@given(st.one_of(JSON, st.fixed_dictionaries({"env": JSON, "config": JSON})), st.booleans())
def test_record_of_a_run(tmp_path_factory: pytest.TempPathFactory, value: Any, cut: bool) -> None:
    run = RunFolder.create(tmp_path_factory.mktemp("fuzz") / "run")
    text = json.dumps(value)
    run.config_file.write_text(text[: len(text) // 2] if cut else text, encoding="utf-8")
    try:
        command = parse(["train", "--resume", str(run.path)])
    except (RunFolderError, ConfigError, UsageError, TypeError) as error:
        one_sentence(error)
        return
    assert isinstance(command, Train)


# ---- checkpoints that are well-formed and signed, but not what an agent has written


@pytest.fixture(scope="module")
def stored() -> tuple[dict[str, Any], dict[str, Any]]:
    return load_checkpoint(STORED)


def disturb(rng: np.random.Generator, state: dict[str, Any]) -> str:
    """Change one entry, somewhere; the words say where."""
    path, place = [], state
    while True:
        key = (
            rng.choice(sorted(place, key=str))
            if isinstance(place, dict)
            else rng.integers(len(place))
        )
        key = str(key) if isinstance(place, dict) else int(key)
        path.append(str(key))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.7:
            place = inner
            continue
        if isinstance(inner, np.ndarray):
            place[key] = disturbed_array(rng, inner)
        elif isinstance(place, dict) and rng.random() < 0.2:
            del place[key]
        else:
            odd = fuzz_inputs.ODD_OPTIONS[: len(fuzz_inputs.ODD_OPTIONS) - 8]
            plain = [
                value
                for value in odd
                if isinstance(value, (int, float, str, list, dict, type(None)))
            ]
            place[key] = plain[rng.integers(len(plain))]
        return " / ".join(path)


def disturbed_array(rng: np.random.Generator, array: Any) -> Any:
    with np.errstate(all="ignore"):
        match rng.integers(7):
            case 0:
                return np.zeros((*array.shape, 1), array.dtype)
            case 1:
                return array.astype(rng.choice(["f8", "f4", "i8", "u1", "?"]))
            case 2:
                return array[:0] if array.ndim else np.zeros(0, array.dtype)
            case 3:
                return np.full_like(array, np.nan if array.dtype.kind == "f" else 1)
            case 4:
                return np.full_like(array, np.inf if array.dtype.kind == "f" else 0)
            case 5:
                return np.concatenate([array.ravel(), array.ravel()])
            case _:
                changed = bytearray(array.tobytes())
                for _ in range(min(len(changed), 4)):
                    changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
                return np.frombuffer(bytes(changed), array.dtype).reshape(array.shape)


@pytest.mark.filterwarnings("ignore")
def test_agents_from_disturbed_checkpoints(stored: tuple[Any, Any]) -> None:
    """Refused with a sentence, or an agent that learns and stays finite."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        tensors, metadata = copy.deepcopy(stored)
        where = disturb(rng, metadata if rng.random() < 0.6 else tensors)
        if "n_workers" in where:
            continue  # processes are not the subject
        try:
            agent = TRPO.from_state(tensors, metadata, env="CartPole-v1")
        except (ConfigError, CheckpointError) as error:
            one_sentence(error)
            continue
        with closing(agent), contextlib.suppress(EnvironmentFailure, ValueError):
            agent.learn(64, progress=False)  # restored, an environment may turn out to be broken
        assert np.isfinite(agent.policy.parameters).all(), where
        assert np.isfinite(agent.value_function.parameters).all(), where


def test_forged_agents_are_refused_or_go_on() -> None:
    from harness import fuzz_states

    outcome = fuzz_states.fuzz(cases=150, seed=1)
    assert outcome.good, outcome.details()
    assert outcome.kinds["refused"] > 20
