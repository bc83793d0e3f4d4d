"""The methods by name: the classes that train with them, and a page about each.

A page holds equations, facts, pseudocode with the code behind each line, and when to use the
method; ``trpo-fast explain METHOD`` shows it. Nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
from importlib import resources
from typing import TYPE_CHECKING

from ..config import ConfigError, did_you_mean

if TYPE_CHECKING:
    from ..training.agent import TRPO

__all__ = ["ALGORITHMS", "PAGES", "algorithm_class", "algorithm_name", "page"]

# what --algorithm takes, and the class of trpo_fast behind it
ALGORITHMS = {
    "trpo": "TRPO",
    "single-path": "SinglePathTRPO",
    "vine": "VineTRPO",
    "npg": "NPG",
    "vpg": "VPG",
    "kl-penalty": "KLPenalty",
}

# what explain takes: the name of a page, and what it is about
PAGES = {
    "trpo": "Trust Region Policy Optimization",
    "gae": "generalised advantages, and the value function",
    "single-path": "Monte Carlo Q-values of single paths",
    "vine": "several actions tried from the same state",
    "npg": "natural policy gradient",
    "vpg": "vanilla policy gradient",
    "kl-penalty": "a price on the KL that adapts: PPO's first form",
    "max-kl": "a bound on the KL in every state",
    "empirical-fisher": "the covariance of scores as the metric",
    "tabular": "finite MDPs, solved exactly: policy iteration, CPI, Algorithm 1",
    "derivative-free": "CEM and CMA-ES, which see returns only",
}


def algorithm_class(name: str) -> type[TRPO]:
    """The agent class of an algorithm, or ConfigError with the closest name."""
    if name not in ALGORITHMS:
        raise _unknown("algorithm", name, ALGORITHMS)
    found: type[TRPO] = getattr(importlib.import_module("trpo_fast"), ALGORITHMS[name])
    return found


def algorithm_name(cls: type[TRPO]) -> str:
    """The name of an agent class, ``trpo`` for :class:`trpo_fast.TRPO`."""
    return next(name for name, known in ALGORITHMS.items() if known == cls.__name__)


def page(name: str) -> str:
    """The page about a method, in Markdown, or ConfigError with the closest name."""
    if name not in PAGES:
        raise _unknown("method", name, PAGES)
    return (resources.files(__name__) / f"{name.replace('-', '_')}.md").read_text(encoding="utf-8")


def _unknown(what: str, name: str, known: dict[str, str]) -> ConfigError:
    remedy = did_you_mean(name, known) or f"choose one, for instance {next(iter(known))!r}"
    return ConfigError(f"{what}: expected one of {', '.join(known)}, got {name!r}; {remedy}")
