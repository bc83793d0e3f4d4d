"""Importing costs what is used: an agent's class loads no sampler, no snapshot and no file format."""

import importlib
import subprocess
import sys

import pytest

LAZY = ["trpo_fast.envs", "trpo_fast.rollout", "trpo_fast.snapshots"]


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_is_found_where_it_is_said_to_be(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None, name
        assert name in dir(module)


@pytest.mark.parametrize("package", LAZY)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018


def test_a_module_is_an_attribute_of_its_package():
    code = (
        "import trpo_fast.rollout as r, sys; assert r.budget is sys.modules[r.__name__ + '.budget']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_class_of_an_agent_loads_what_it_needs_and_no_more():
    code = (
        "import sys; from trpo_fast import TRPO\n"
        "print(*(name for name in sys.modules if name.startswith('trpo_fast.')))\n"
        "heavy = {'gymnasium', 'safetensors', 'multiprocessing', 'decimal'}\n"
        "print(*(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours, foreign = run.stdout.splitlines()
    late = ("checkpoint", "snapshots", "envs", "export", "logging", "cli", "rollout.workers")
    loaded = [n for n in ours.split() if n.removeprefix("trpo_fast.").startswith(late)]
    assert loaded == []
    assert foreign == ""
